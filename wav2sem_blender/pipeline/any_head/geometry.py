# SPDX-License-Identifier: GPL-3.0-or-later
"""Similarity transforms between meshes, and the edges of a mesh. NumPy only.

The trainer aligns heads with it, and the add-on recognises FLAME. Shapes: N points, V vertices, E edges.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Maps a source frame to a target frame: x -> scale * rotation_33 @ x + translation_3.

    `residual` is the root mean square distance after the fit, in the source's unit.
    """

    scale: float
    rotation_33: np.ndarray
    translation_3: np.ndarray
    residual: float

    def apply(self, points_V3: np.ndarray) -> np.ndarray:
        """Transform points from the source frame to the target frame."""
        return self.scale * points_V3 @ self.rotation_33.T + self.translation_3

    def apply_to_offsets(self, offsets_V3: np.ndarray) -> np.ndarray:
        """Transform displacements from the source frame to the target frame and its unit."""
        return self.scale * offsets_V3 @ self.rotation_33.T


def fit_similarity(source_N3: np.ndarray, target_N3: np.ndarray) -> Similarity:
    """The rotation, scale and translation with the least squared error (Umeyama 1991), never a reflection."""
    source_mean_3, target_mean_3 = source_N3.mean(0), target_N3.mean(0)
    source_N3, target_N3 = source_N3 - source_mean_3, target_N3 - target_mean_3
    left_33, singular_3, right_33 = np.linalg.svd(target_N3.T @ source_N3)
    sign_3 = np.array([1.0, 1.0, np.sign(np.linalg.det(left_33 @ right_33))])
    rotation_33 = (left_33 * sign_3) @ right_33
    scale = float((singular_3 * sign_3).sum() / (source_N3**2).sum())
    error_N3 = target_N3 - scale * source_N3 @ rotation_33.T
    return Similarity(
        scale=scale,
        rotation_33=rotation_33,
        translation_3=target_mean_3 - scale * rotation_33 @ source_mean_3,
        residual=float(np.sqrt((error_N3**2).sum(1).mean()) / max(abs(scale), 1e-30)),
    )


def face_edges(faces_F3: np.ndarray) -> np.ndarray:
    """The unique undirected edges (E, 2) of triangles, each with its smaller vertex number first, sorted."""
    return _unique_edges(np.concatenate([faces_F3[:, [0, 1]], faces_F3[:, [1, 2]], faces_F3[:, [2, 0]]]))


def edges_hash(edges_E2: np.ndarray) -> str:
    """SHA-256 of the sorted, unique, undirected edges as little-endian int32 pairs."""
    return hashlib.sha256(np.ascontiguousarray(_unique_edges(edges_E2), dtype="<i4").tobytes()).hexdigest()


def _unique_edges(edges_E2: np.ndarray) -> np.ndarray:
    edges_E2 = np.asarray(edges_E2).reshape(-1, 2)
    low_E, high_E = edges_E2.min(1).astype(np.int64), edges_E2.max(1).astype(np.int64)
    # Sorting one number per edge is several times as fast as sorting pairs.
    n_vertices = int(high_E.max(initial=0)) + 1
    return np.stack(np.divmod(np.unique(low_E * n_vertices + high_E), n_vertices), axis=1).astype(edges_E2.dtype)
