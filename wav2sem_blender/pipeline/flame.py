# SPDX-License-Identifier: GPL-3.0-or-later
"""Recognises FLAME's mesh in its rest pose and finds its position. NumPy only.

The head may have any identity, but must have FLAME's vertex order. The reference file has facts about the topology and
a sample of the template's points, not the mesh. Shapes: V vertices, E edges, N sampled points, I identities, P pairs,
J degrees of freedom, X = 3N.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from ..assets import FLAME_REFERENCE
from ..errors import Text, UserError
from .any_head.geometry import Similarity, edges_hash, fit_similarity

# The limits refuse less than 0.5 % of random identities at three standard deviations.
# Root mean square of the points after the best similarity and identity, in template metres; 8 mm for a neck turned by
# 20 degrees.
MAX_RESIDUAL_M = 0.005
# Mean gap of three lip pairs after the same fit; 9 mm for a jaw open by 6 degrees.
MAX_LIP_GAP_M = 0.0075
# Standard deviation of the points, which limits how freely the identity is fitted.
POINT_SD_M = 0.001
# Ratio of the largest to the smallest stretch; identities reach 2.2.
MAX_ANISOTROPY = 2.5


class FlameMismatchError(UserError):
    """The mesh is not FLAME at rest; `test` is the name of the failed test, the message says what was found."""

    def __init__(self, test: str, found: str, **values: object) -> None:
        """`found` is a template for `values`."""
        super().__init__("{test}: {found}", test=Text(test), found=Text(found, **values))
        self.test = test


@dataclass(frozen=True, kw_only=True)
class FlameReference:
    """What identifies FLAME's topology, and N points of its template in metres.

    `identities_N3I` are the displacements by one standard deviation of each of I identity components; `lip_pairs_P2`
    are the numbers of points on the upper and the lower lip that touch.
    """

    vertex_count: int
    face_count: int
    edges_sha256: str
    vertex_ids_N: np.ndarray
    points_N3: np.ndarray
    identities_N3I: np.ndarray
    lip_pairs_P2: np.ndarray

    @classmethod
    def load(cls) -> FlameReference:
        """Read the asset.

        Raises:
            OSError: The file is missing, so the installation is damaged.
        """
        content = json.loads(FLAME_REFERENCE.read_text(encoding="utf-8"))
        number = {vertex: i for i, vertex in enumerate(content["vertex_ids"])}
        return cls(
            vertex_count=content["vertex_count"],
            face_count=content["face_count"],
            edges_sha256=content["edges_sha256"],
            vertex_ids_N=np.array(content["vertex_ids"], dtype=np.int64),
            points_N3=np.array(content["points"], dtype=np.float64),
            identities_N3I=np.array(content["identities"], dtype=np.float64) * content["identity_unit_m"],
            lip_pairs_P2=np.array([[number[vertex] for vertex in pair] for pair in content["lip_pairs"]]),
        )


def check_mesh(points_V3: np.ndarray, edges_E2: np.ndarray, n_faces: int, reference: FlameReference) -> Similarity:
    """Test vertex count, faces, vertex order, scale, orientation and rest pose, in this order.

    Args:
        points_V3: The mesh's rest points in its own frame and unit.
        edges_E2: Its edges as pairs of vertex numbers, in any order and direction.
        n_faces: Its number of faces.
        reference: The topology to compare with.

    Returns:
        The transform from the template to the mesh.

    Raises:
        FlameMismatchError: The first test that failed.
    """
    if len(points_V3) != reference.vertex_count:
        raise FlameMismatchError(
            "Vertex count",
            "the mesh has {n_vertices} vertices, FLAME has {n_expected}.",
            n_vertices=len(points_V3),
            n_expected=reference.vertex_count,
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
    _check_rest_pose(sample_N3, reference)
    return fit_similarity(reference.points_N3, sample_N3)


def _check_scale(sample_N3: np.ndarray, reference: FlameReference) -> None:
    """The points are finite, not collapsed, not mirrored, and stretched alike in all directions."""
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
            "Scale", "the head is stretched {ratio:.1f} times as much in one direction as in another.", ratio=ratio
        )
    if np.linalg.det(linear_33) < 0:
        raise FlameMismatchError("Orientation", "the head is mirrored. Mirror it back, then apply the scale.")


def _check_rest_pose(sample_N3: np.ndarray, reference: FlameReference) -> None:
    """The head fits some identity, and the lips touch."""
    left_N3 = _unexplained(sample_N3, reference)
    residual_m = np.sqrt((left_N3**2).sum(1).mean())
    if residual_m > MAX_RESIDUAL_M:
        raise FlameMismatchError(
            "Rest pose",
            "the points are {found_mm:.0f} mm off every neutral FLAME head; up to {usual_mm:.1f} mm is usual. Use the "
            "neutral head in its rest pose, with a closed mouth.",
            found_mm=residual_m * 1000,
            usual_mm=MAX_RESIDUAL_M * 1000,
        )
    upper_P, lower_P = reference.lip_pairs_P2.T
    gap_m = np.linalg.norm((left_N3[upper_P] - left_N3[lower_P]).mean(0))
    if gap_m > MAX_LIP_GAP_M:
        raise FlameMismatchError(
            "Rest pose",
            "the lips are {gap_mm:.0f} mm apart, as in an open or twisted mouth. Use the neutral head "
            "with a closed mouth.",
            gap_mm=gap_m * 1000,
        )


def _unexplained(sample_N3: np.ndarray, reference: FlameReference) -> np.ndarray:
    """The residual of the points after the best similarity and identity, in the template's frame (N, 3).

    In each round a similarity is fitted to the identity found so far; then both are refined together by linear least
    squares, with a normal prior on the identity.
    """
    template_N3, identities_N3I = reference.points_N3, reference.identities_N3I
    n_points, n_identities = len(template_N3), identities_N3I.shape[2]
    centred_N3 = template_N3 - template_N3.mean(0)
    turns_N33 = np.cross(np.eye(3)[None], centred_N3[:, None]).transpose(0, 2, 1)
    shifts_N33 = np.broadcast_to(np.eye(3), (n_points, 3, 3))
    every_N3J = np.concatenate([turns_N33, centred_N3[..., None], shifts_N33, identities_N3I], axis=2)
    every_XJ = every_N3J.reshape(3 * n_points, -1)
    prior_J = np.r_[np.zeros(7), np.full(n_identities, POINT_SD_M**2)]
    identity_I = np.zeros(n_identities)
    for _ in range(3):
        to_mesh = fit_similarity(template_N3 + identities_N3I @ identity_I, sample_N3)
        back_N3 = (sample_N3 - to_mesh.translation_3) @ to_mesh.rotation_33 / to_mesh.scale
        offset_X = (back_N3 - template_N3).ravel()
        found_J = np.linalg.solve(every_XJ.T @ every_XJ + np.diag(prior_J), every_XJ.T @ offset_X)
        identity_I = found_J[7:]
    return (offset_X - every_XJ @ found_J).reshape(-1, 3)
