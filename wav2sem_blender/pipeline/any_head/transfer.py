# SPDX-License-Identifier: GPL-3.0-or-later
"""Transfers the shape keys of a template face (speech, lids, brows) to any head. NumPy only.

The template face is assets/template_face.npz, made by trainer.mesh_registration.template_face; its lids and brows are
FLAME's, in assets/upper_face.npz. It is aligned by landmarks, takes the identity that fits best, and is then fitted to
the skin by non-rigid ICP. Distance along the surface keeps the upper lip apart from the lower one. Each vertex of the
skin then moves like the point of the fitted face that it lies on. `lids` makes the eyelids meet; `loose_parts` moves
teeth, tongue, eyes and lashes.

Shapes: S points of the template face, N vertices of the skin, M of the whole mesh, F triangles, K channels,
L landmarks, I identities, D columns of values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...assets import TEMPLATE_FACE, UPPER_FACE
from ...errors import UserError
from ..time_slicing import Progress
from .geometry import Similarity, face_edges, fit_similarity
from .lids import close_lids
from .loose_parts import eyeballs, find_loose_parts, move_loose_parts
from .surface import ClosestPoints, cotangents, edge_distance, islands, lip_side, vertex_normals

# Left and right are the character's own. Lip landmarks lie in the middle of the red, the chin's at its foremost point.
LANDMARKS = (
    "nose_tip", "chin", "mouth_left", "mouth_right", "upper_lip", "lower_lip",
    "eye_outer_left", "eye_inner_left", "eye_inner_right", "eye_outer_right",
)  # fmt: skip

MAX_RESIDUAL = 0.16  # of the alignment by landmarks, as a part of their extent
MOUTH_MARGIN_M = 0.022  # the lips' reach on the skin is half the mouth's width plus this
STIFFNESS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.05)  # weights of the thin-plate energy in non-rigid ICP, in order
ROUNDS = 2  # with each stiffness
IDENTITY_ROUNDS, IDENTITY_PRIOR_M2 = 8, 2e-4  # as in trainer.mesh_registration.registration
FRAME_RADIUS_M, FRAME_PRIOR_M2 = 0.015, 0.004**2
TRUST_M = 0.004  # skin farther than this from the fitted face takes the motion of its neighbours
# Near the corners of the mouth the two lips' motions lie side by side and heads fold differently. A vertex that is off
# the fitted face, or faces another way (cosine), could take the other lip's motion, so the limits are stricter there.
CORNER_REACH_M, CORNER_TRUST_M, CORNER_FACING = 0.018, 0.002, 0.6
NEGLIGIBLE_M = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class TemplateFace:
    """The template face, in metres: x to the character's left, y up, z forward.

    Attributes:
        points_S3: Its points.
        triangles_F3: Its triangles.
        side_S: +1 at the upper lip, -1 at the lower lip, 0 elsewhere.
        landmarks_L3: Positions of LANDMARKS.
        joint_3: Centre of rotation of the lower jaw.
        identities_S3I: Displacements by one standard deviation of each identity component.
        channels: Names of the K channels: the model's, then the upper face's.
        offsets_KS3: Displacements of the points at weight 1.
    """

    points_S3: np.ndarray
    triangles_F3: np.ndarray
    side_S: np.ndarray
    landmarks_L3: np.ndarray
    joint_3: np.ndarray
    identities_S3I: np.ndarray
    channels: tuple[str, ...]
    offsets_KS3: np.ndarray

    @classmethod
    def load(cls, path: Path = TEMPLATE_FACE) -> TemplateFace:
        """Read the assets.

        Raises:
            OSError: A file is missing, so the installation is damaged.
        """
        with np.load(path, allow_pickle=False) as file, np.load(UPPER_FACE, allow_pickle=False) as upper:
            upper_KS3 = upper["basis_KV3"][:, file["flame_vertices"]].astype(float).mean(2)
            return cls(
                points_S3=file["points"].astype(float),
                triangles_F3=file["triangles"].astype(np.int64),
                side_S=file["side"].astype(float),
                landmarks_L3=file["landmarks"].astype(float),
                joint_3=file["joint"].astype(float),
                identities_S3I=file["identities"] * float(file["identity_unit_m"]),
                channels=(*file["channels"].tolist(), *upper["names"].tolist()),
                offsets_KS3=np.concatenate([file["offsets"] * float(file["offset_unit_m"]), upper_KS3]),
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """The skin of a head in the template face's frame, with vertex numbers of its own.

    `ids_N` are the numbers of its vertices in the whole mesh; `to_mesh` leads back to the mesh's frame.
    """

    mesh_points_M3: np.ndarray
    ids_N: np.ndarray
    points_N3: np.ndarray
    triangles_F3: np.ndarray
    normals_N3: np.ndarray
    side_N: np.ndarray
    landmarks_L3: np.ndarray
    to_mesh: Similarity


def transfer(
    face: TemplateFace,
    points_N3: np.ndarray,
    triangles_F3: np.ndarray,
    landmarks: Mapping[str, np.ndarray],
    progress: Progress | None = None,
) -> np.ndarray:
    """Displacements (K, N, 3) of the mesh's vertices at weight 1, in the mesh's own frame and unit.

    Args:
        face: The template face.
        points_N3: The head at rest with a closed mouth, in any frame that is not mirrored and in any unit; it may
            include loose parts such as teeth.
        triangles_F3: Its triangles.
        landmarks: A point (3,) for each of LANDMARKS, in the mesh's frame.
        progress: Called with the fraction that is done.

    Raises:
        UserError: A landmark is missing, the landmarks do not form a face, or the lips are one surface.
    """
    tell = progress or (lambda _fraction: None)
    head = align_head(face, points_N3, triangles_F3, landmarks)
    tell(0.1)
    fitted_S3 = nonrigid_icp(face, head, lambda fraction: tell(0.1 + 0.6 * fraction))
    moved_KN3 = transfer_offsets(face, fitted_S3, head)
    tell(0.9)
    marks = dict(zip(LANDMARKS, head.landmarks_L3, strict=True))
    parts = find_loose_parts(len(head.mesh_points_M3), triangles_F3, head.ids_N)
    balls = eyeballs(head.mesh_points_M3, parts, marks)
    for side in ("left", "right"):
        k = face.channels.index(f"eyeBlink{side.title()}")
        moved_KN3[k] = close_lids(moved_KN3[k], head.points_N3, marks, side, balls.get(side))
    offsets_KM3 = move_loose_parts(
        head.mesh_points_M3,
        parts,
        balls,
        head.ids_N,
        vertex_normals(head.mesh_points_M3, triangles_F3),
        moved_KN3,
        face.channels,
        marks,
        face.joint_3,
    )
    return head.to_mesh.apply_to_offsets(offsets_KM3)


def align_head(
    face: TemplateFace, points_N3: np.ndarray, triangles_F3: np.ndarray, landmarks: Mapping[str, np.ndarray]
) -> Head:
    """The skin of the head in the template face's frame; raises as `transfer`."""
    missing = [name for name in LANDMARKS if name not in landmarks]
    if missing:
        raise UserError("The landmark {names} is missing. Place the landmarks first.", names=", ".join(missing))
    marks_L3 = np.array([landmarks[name] for name in LANDMARKS], dtype=float)
    to_mesh = fit_similarity(face.landmarks_L3, marks_L3)
    extent = float(np.ptp(face.landmarks_L3, axis=0).max())
    if to_mesh.scale <= 0 or to_mesh.residual > MAX_RESIDUAL * extent:
        raise UserError(
            "The landmarks do not form a face. Move those that are misplaced. Left is the character's own left."
        )
    to_face = fit_similarity(to_mesh.apply(face.landmarks_L3), face.landmarks_L3)
    points_N3, marks_L3 = to_face.apply(np.asarray(points_N3, dtype=float)), to_face.apply(marks_L3)
    label_N = islands(len(points_N3), face_edges(triangles_F3))
    used_N = np.bincount(triangles_F3.ravel(), minlength=len(points_N3)) > 0
    candidates = np.flatnonzero(used_N)
    nearest_L = candidates[np.linalg.norm(points_N3[candidates] - marks_L3[:, None], axis=2).argmin(1)]
    skin_N = label_N == np.bincount(label_N[nearest_L]).argmax()
    number_N = np.cumsum(skin_N) - 1
    ids_N, skin_F3 = np.flatnonzero(skin_N), number_N[triangles_F3[skin_N[triangles_F3[:, 0]]]]
    skin_N3 = points_N3[ids_N]
    head = Head(
        mesh_points_M3=points_N3,
        ids_N=ids_N,
        points_N3=skin_N3,
        triangles_F3=skin_F3,
        normals_N3=vertex_normals(skin_N3, skin_F3),
        side_N=np.zeros(len(ids_N)),
        landmarks_L3=marks_L3,
        to_mesh=to_mesh,
    )
    return replace(head, side_N=_lips(head))


def _lips(head: Head) -> np.ndarray:
    """Which lip each vertex of the skin belongs to (N,); see `lip_side`."""
    mark = {name: head.landmarks_L3[index] for index, name in enumerate(LANDMARKS)}
    upper, lower, left, right = (
        int(np.linalg.norm(head.points_N3 - mark[name], axis=1).argmin())
        for name in ("upper_lip", "lower_lip", "mouth_left", "mouth_right")
    )
    straight = float(np.linalg.norm(head.points_N3[upper] - head.points_N3[lower]))
    between = edge_distance(head.points_N3, face_edges(head.triangles_F3), [upper], 4 * straight)[lower]
    if between < 2 * straight:
        raise UserError(
            "The upper and the lower lip are one surface, so the mouth cannot open. Cut the mesh open between the lips."
        )
    reach = MOUTH_MARGIN_M + float(np.linalg.norm(head.points_N3[left] - head.points_N3[right])) / 2
    return lip_side(head.points_N3, head.triangles_F3, [upper], [lower], [left, right], reach)


def nonrigid_icp(face: TemplateFace, head: Head, progress: Progress) -> np.ndarray:
    """The face's points (S, 3) on the head's skin, by iterated closest points under a thin-plate energy."""
    closest = ClosestPoints(head.points_N3, head.triangles_F3, head.side_N)
    held_L = np.linalg.norm(face.points_S3[None] - face.landmarks_L3[:, None], axis=2).argmin(1)
    held_L3 = head.landmarks_L3 - face.landmarks_L3 + face.points_S3[held_L]
    start_S3 = fit_identity(face, closest, held_L, held_L3)
    thin_plate_SS = thin_plate(start_S3, face.triangles_F3)
    points_S3, hold_S, goal_S3 = start_S3, np.zeros(len(start_S3)), np.zeros_like(start_S3)
    hold_S[held_L], goal_S3[held_L] = 3.0, held_L3
    for round_number, stiffness in enumerate(np.repeat(STIFFNESS, ROUNDS)):
        normals_S3 = vertex_normals(points_S3, face.triangles_F3)
        near_S3, _, _, found_S = closest.query(points_S3, normals_S3, face.side_S)
        way_S3 = near_S3 - points_S3
        trust_S = found_S * np.exp(-(((way_S3**2).sum(1)) / (0.003 + 0.002 * min(stiffness, 5)) ** 2))
        # Mostly point to plane: points may slide along the skin, and only the landmarks hold them.
        along_S3 = normals_S3 * (normals_S3 * way_S3).sum(1, keepdims=True)
        wanted_S3 = points_S3 + along_S3 + 0.05 * (way_S3 - along_S3) - start_S3
        system_SS = stiffness * thin_plate_SS
        system_SS[np.diag_indices(len(start_S3))] += trust_S + hold_S + 1e-6
        right_S3 = trust_S[:, None] * wanted_S3 + hold_S[:, None] * (goal_S3 - start_S3)
        points_S3 = start_S3 + np.linalg.solve(system_SS, right_S3)
        progress((round_number + 1) / (len(STIFFNESS) * ROUNDS))
    return points_S3


def fit_identity(face: TemplateFace, closest: ClosestPoints, held_L: np.ndarray, held_L3: np.ndarray) -> np.ndarray:
    """The face's points (S, 3) with the identity and pose that fit the head best; non-rigid ICP starts there."""
    rest_S3, n_points = face.points_S3, len(face.points_S3)
    centred_S3 = rest_S3 - rest_S3.mean(0)
    turns_S33 = np.cross(np.eye(3)[None], centred_S3[:, None]).transpose(0, 2, 1)
    shifts_S33 = np.broadcast_to(np.eye(3), (n_points, 3, 3))
    moves_S3J = np.concatenate([face.identities_S3I, turns_S33, centred_S3[:, :, None], shifts_S33], axis=2)
    prior_J = np.r_[np.full(face.identities_S3I.shape[2], IDENTITY_PRIOR_M2), np.full(7, 1e-9)]
    points_S3 = rest_S3
    for _ in range(IDENTITY_ROUNDS):
        normals_S3 = vertex_normals(points_S3, face.triangles_F3)
        near_S3, _, _, found_S = closest.query(points_S3, normals_S3, face.side_S)
        found_S &= np.linalg.norm(near_S3 - points_S3, axis=1) < 0.015
        plane_S3 = normals_S3[found_S]
        rows = np.concatenate(
            [
                np.einsum("sc,scj->sj", plane_S3, moves_S3J[found_S]),
                3 * moves_S3J[held_L].reshape(-1, len(prior_J)),
            ]
        )
        right = np.concatenate(
            [(plane_S3 * (near_S3 - rest_S3)[found_S]).sum(1), 3 * (held_L3 - rest_S3[held_L]).ravel()]
        )
        found_J = np.linalg.solve(rows.T @ rows + np.diag(prior_J), rows.T @ right)
        points_S3 = rest_S3 + moves_S3J @ found_J
    return points_S3


def thin_plate(points_V3: np.ndarray, triangles_F3: np.ndarray) -> np.ndarray:
    """Thin-plate energy K A^-1 K (V, V) of a small mesh, scaled by its mean area: weight 1 smooths over a few edges."""
    weights, area = cotangents(points_V3, triangles_F3)
    stiffness_VV = np.zeros((len(points_V3), len(points_V3)))
    for k in range(3):
        i, j = triangles_F3[:, (k + 1) % 3], triangles_F3[:, (k + 2) % 3]
        np.add.at(stiffness_VV, (i, j), -weights[:, k])
        np.add.at(stiffness_VV, (j, i), -weights[:, k])
    np.fill_diagonal(stiffness_VV, -stiffness_VV.sum(1))
    area_V = np.maximum(np.bincount(triangles_F3.ravel(), np.repeat(area / 3, 3), minlength=len(points_V3)), 1e-9)
    return stiffness_VV @ (stiffness_VV * (area_V.mean() / area_V)[:, None])


def transfer_offsets(face: TemplateFace, fitted_S3: np.ndarray, head: Head) -> np.ndarray:
    """Displacements (K, N, 3) of the head's skin, in the face's frame."""
    frames_S33 = local_frames(face.points_S3, fitted_S3)
    offsets_SK3 = np.einsum("sab,ksb->ska", frames_S33, face.offsets_KS3)
    closest = ClosestPoints(fitted_S3, face.triangles_F3, face.side_S)
    moved = np.zeros((len(head.points_N3), len(face.channels), 3))
    trust_N = np.zeros(len(head.points_N3))
    corners_23 = head.landmarks_L3[[LANDMARKS.index(name) for name in ("mouth_left", "mouth_right")]]
    at_corner_N = np.linalg.norm(head.points_N3[:, None] - corners_23, axis=2).min(1) < CORNER_REACH_M
    trust_m_N = np.where(at_corner_N, CORNER_TRUST_M, TRUST_M)
    for part in np.array_split(np.arange(len(trust_N)), len(trust_N) // 4000 + 1):
        near, number, bary, found = closest.query(head.points_N3[part], head.normals_N3[part], head.side_N[part])
        corners = face.triangles_F3[number]
        moved[part] = np.einsum("nc,ncka->nka", bary, offsets_SK3[corners])
        found &= ~at_corner_N[part] | ((closest.normals_F3[number] * head.normals_N3[part]).sum(1) > CORNER_FACING)
        trust_N[part] = found * np.exp(-(((near - head.points_N3[part]) ** 2).sum(1)) / trust_m_N[part] ** 2)
    interpolate_unknown(moved.reshape(len(moved), -1), trust_N > 0.5, head)
    return moved.transpose(1, 0, 2)


def local_frames(rest_S3: np.ndarray, fitted_S3: np.ndarray) -> np.ndarray:
    """The rotation and stretch (S, 3, 3) of the surroundings of each point; nearly none across the surface."""
    square_SS = ((rest_S3[:, None] - rest_S3) ** 2).sum(2)
    weight_SS = np.exp(-square_SS / (2 * FRAME_RADIUS_M**2))
    weight_SS /= weight_SS.sum(1, keepdims=True)
    mean_S3, fitted_mean_S3 = weight_SS @ rest_S3, weight_SS @ fitted_S3

    def spread(first: np.ndarray, second: np.ndarray, means: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        products = np.einsum("sa,sb->sab", first, second).reshape(len(first), 9)
        return (weight_SS @ products).reshape(-1, 3, 3) - np.einsum("sa,sb->sab", *means)

    prior_33 = FRAME_PRIOR_M2 * np.eye(3)
    both = spread(fitted_S3, rest_S3, (fitted_mean_S3, mean_S3)) + prior_33
    return both @ np.linalg.inv(spread(rest_S3, rest_S3, (mean_S3, mean_S3)) + prior_33)


def interpolate_unknown(values_ND: np.ndarray, known_N: np.ndarray, head: Head) -> None:
    """Replace the unknown values, in place, by the smoothest ones between the known values."""
    weights, _ = cotangents(head.points_N3, head.triangles_F3)
    a = head.triangles_F3[:, [1, 2, 0]].ravel()
    b = head.triangles_F3[:, [2, 0, 1]].ravel()
    weight = weights.ravel()
    open_edges = ~(known_N[a] & known_N[b])
    a, b, weight = a[open_edges], b[open_edges], weight[open_edges]
    a, b, weight = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([weight, weight])
    rows = ~known_N[a]
    a, b, weight = a[rows], b[rows], weight[rows]
    order = np.argsort(a, kind="stable")
    a, b, weight = a[order], b[order], weight[order]
    unknown, starts = np.unique(a, return_index=True)
    if not len(unknown):
        return
    values_ND[~known_N] = 0.0
    diagonal = np.add.reduceat(weight, starts)[:, None]
    work_ND = np.zeros_like(values_ND)

    def neighbours(x_ND: np.ndarray) -> np.ndarray:
        return np.add.reduceat(weight[:, None] * x_ND[b], starts, axis=0)

    def laplacian(x_UD: np.ndarray) -> np.ndarray:
        work_ND[unknown] = x_UD
        return diagonal * x_UD - neighbours(work_ND)

    values_ND[unknown] = conjugate_gradients(laplacian, neighbours(values_ND), diagonal)


def conjugate_gradients(
    matrix: Callable[[np.ndarray], np.ndarray], right_UD: np.ndarray, diagonal_U1: np.ndarray, rounds: int = 100
) -> np.ndarray:
    """Solve matrix(x) = right for each of D columns at once, preconditioned by the matrix's diagonal."""
    x, residual = np.zeros_like(right_UD), right_UD.copy()
    direction = residual / diagonal_U1
    energy = (residual * direction).sum(0)
    stop = 1e-4 * np.maximum(energy, 1e-30)
    for _ in range(rounds):
        pushed = matrix(direction)
        step = energy / np.maximum((direction * pushed).sum(0), 1e-30)
        x += step * direction
        residual -= step * pushed
        scaled = residual / diagonal_U1
        energy, before = (residual * scaled).sum(0), energy
        if (energy <= stop).all():
            break
        direction = scaled + energy / np.maximum(before, 1e-30) * direction
    return x
