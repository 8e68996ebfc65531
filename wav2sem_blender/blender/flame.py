# SPDX-License-Identifier: GPL-3.0-or-later
"""Is this mesh FLAME at rest, and how does it lie in space? Pure NumPy; shapes: V vertices, E edges, N samples.

The reference file holds facts about the topology and a sample of the template's points, no mesh. The head's identity
may differ from the template; its vertex order may not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..pipeline.geometry import Similarity, edges_hash, fit_similarity

REFERENCE_FILE = Path(__file__).parents[1] / "assets" / "flame_reference.json"

# Root mean square distance to the template after the best similarity, in template metres. Identities at two standard
# deviations measure 8 mm in the median and at most 16 mm; a stretch of 2 measures 29 mm.
MAX_RESIDUAL_M = 0.020
# Samples that touch in the template (upper and lower lip among them) and their distance in a mesh at rest.
TOUCHING_M = 0.006
MAX_TOUCHING_DISTANCE_M = 0.014
# Ratio of the largest to the smallest stretch; identities reach 1.33.
MAX_ANISOTROPY = 1.5


class FlameMismatchError(ValueError):
    """The mesh is not FLAME at rest; `test` names the test that failed, the message says what was found."""

    def __init__(self, test: str, found: str) -> None:
        super().__init__(f"{test}: {found}")
        self.test = test


@dataclass(frozen=True, kw_only=True)
class FlameReference:
    """What identifies FLAME's topology, and N points of its template in metres."""

    vertex_count: int
    face_count: int
    edges_sha256: str
    vertex_ids_N: np.ndarray
    points_N3: np.ndarray

    @classmethod
    def load(cls) -> FlameReference:
        """Read the reference among the add-on's assets.

        Raises:
            OSError: The file is missing: the installation is damaged.
        """
        content = json.loads(REFERENCE_FILE.read_text(encoding="utf-8"))
        return cls(
            vertex_count=content["vertex_count"],
            face_count=content["face_count"],
            edges_sha256=content["edges_sha256"],
            vertex_ids_N=np.array(content["vertex_ids"], dtype=np.int64),
            points_N3=np.array(content["points"], dtype=np.float64),
        )


def check_mesh(points_V3: np.ndarray, edges_E2: np.ndarray, n_faces: int, reference: FlameReference) -> Similarity:
    """Test vertex count, faces, vertex order, scale, orientation and rest pose, in this order.

    Args:
        points_V3: The mesh's rest points in its own frame and unit.
        edges_E2: Its edges as pairs of vertex numbers, in any order and direction.
        n_faces: Its number of faces.
        reference: The topology to compare with.

    Raises:
        FlameMismatchError: The first test that failed.
    """
    if len(points_V3) != reference.vertex_count:
        raise FlameMismatchError(
            "Vertex count", f"the mesh has {len(points_V3)} vertices, FLAME has {reference.vertex_count}."
        )
    if n_faces == 0:
        raise FlameMismatchError("Faces", "the mesh has none. Import it again with its faces.")
    if edges_hash(edges_E2) != reference.edges_sha256:
        raise FlameMismatchError(
            "Vertex order",
            "the edges do not connect the vertex numbers that they connect in FLAME. Import the mesh again with its "
            "vertex order kept, and without splitting or merging vertices.",
        )
    sample_N3 = np.asarray(points_V3, dtype=np.float64)[reference.vertex_ids_N]
    _check_scale(sample_N3, reference)
    similarity = fit_similarity(reference.points_N3, sample_N3)
    _check_rest_pose(sample_N3, similarity, reference)
    return similarity


def _check_scale(sample_N3: np.ndarray, reference: FlameReference) -> None:
    """Finite, not collapsed, not mirrored, and stretched alike in all directions."""
    if not np.isfinite(sample_N3).all():
        raise FlameMismatchError("Scale", "some vertices have no finite position.")
    extent = np.ptp(sample_N3, axis=0).max()
    if extent < 1e-6:
        raise FlameMismatchError("Scale", "the vertices lie on one point.")
    source_N4 = np.column_stack([reference.points_N3, np.ones(len(sample_N3))])
    linear_33 = np.linalg.lstsq(source_N4, sample_N3, rcond=None)[0][:3].T
    stretch_3 = np.linalg.svd(linear_33, compute_uv=False)
    if stretch_3[0] > MAX_ANISOTROPY * stretch_3[2]:
        ratio = stretch_3[0] / max(stretch_3[2], 1e-12 * stretch_3[0])
        raise FlameMismatchError(
            "Scale", f"the head is stretched {ratio:.1f} times as much in one direction as in another."
        )
    if np.linalg.det(linear_33) < 0:
        raise FlameMismatchError("Orientation", "the head is mirrored. Mirror it back, then apply the scale.")


def _check_rest_pose(sample_N3: np.ndarray, similarity: Similarity, reference: FlameReference) -> None:
    """Close to the template as a whole, and the lips together."""
    if similarity.residual > MAX_RESIDUAL_M:
        raise FlameMismatchError(
            "Rest pose",
            f"the points lie {similarity.residual * 1000:.0f} mm from FLAME's template on average, at most "
            f"{MAX_RESIDUAL_M * 1000:.0f} mm are usual. Use the neutral head with a closed mouth.",
        )
    template_NN = _distances(reference.points_N3)
    first, second = np.nonzero(np.triu(template_NN < TOUCHING_M, k=1))
    if len(first) == 0:
        return
    apart_m = np.linalg.norm(sample_N3[first] - sample_N3[second], axis=1).max() / similarity.scale
    if apart_m > MAX_TOUCHING_DISTANCE_M:
        raise FlameMismatchError(
            "Rest pose",
            f"points that touch in FLAME are {apart_m * 1000:.0f} mm apart, as in an open mouth. Use the neutral head "
            "with a closed mouth.",
        )


def _distances(points_N3: np.ndarray) -> np.ndarray:
    squares_N = (points_N3**2).sum(1)
    return np.sqrt(np.maximum(squares_N[:, None] + squares_N - 2 * points_N3 @ points_N3.T, 0.0))
