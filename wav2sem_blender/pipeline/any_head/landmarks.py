# SPDX-License-Identifier: GPL-3.0-or-later
"""Guesses the landmarks of a head from its shape. NumPy only.

Every bulge of the front profile is tried as the nose: the template face is placed there and aligned with the surface by
rigid ICP. The best fit wins, and the template takes the head's identity. Mouth and chin are then refined on the head's
own surface: the line along which the lips touch, and the foremost points.

The guess fails on heads that are far from human (muzzles, beaks), have no nose, or are tilted by more than about 20
degrees. It is off by a few millimetres at closed eyes and at lips that do not touch, so users can move the landmarks.

Shapes: S points of the template face, N vertices, F triangles, J degrees of freedom, B heights of the profile.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...errors import UserError
from ..time_slicing import Progress
from .geometry import Similarity, face_edges, fit_similarity
from .surface import ClosestPoints, Neighbours, islands, vertex_normals
from .transfer import LANDMARKS, TemplateFace, fit_identity

# Columns: the character's left, up and forward in the mesh's axes. Blender's characters look along -y, files of other
# programs often have y up, and the last three are turned characters.
POSTURES = tuple(
    np.array(rows, dtype=float).T
    for rows in (
        ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((-1, 0, 0), (0, 0, 1), (0, 1, 0)),
        ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
        ((0, -1, 0), (0, 0, 1), (-1, 0, 0)),
    )
)
GOOD_M, BAD_M = 0.0035, 0.009  # a median distance below the first is a good fit, one above the second is no face
HEIGHTS, BULGES, SIZES = 160, 6, (1.0, 0.85, 0.7)
SAMPLE = 300
NEVER_M = 0.02  # the distance of a point without a counterpart
TOUCH_M = 0.004  # largest distance of lips that touch at rest


def guess_landmarks(
    face: TemplateFace, points_N3: np.ndarray, triangles_F3: np.ndarray, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """Positions of LANDMARKS on an upright head, in the mesh's frame.

    `progress` is called with the fraction that is done.

    Raises:
        UserError: No face was found.
    """
    tell = progress or (lambda _fraction: None)
    points_N3 = np.asarray(points_N3, dtype=float)
    if not len(triangles_F3):
        raise UserError("The mesh has no faces.")
    closest = ClosestPoints(points_N3, triangles_F3, np.zeros(len(points_N3)), candidates=12)
    used_N3 = points_N3[np.unique(triangles_F3)]
    best, place = np.inf, None
    for number, posture_33 in enumerate(POSTURES):
        for start in _starts(face, used_N3, posture_33):
            tell(number / len(POSTURES))
            found, score_m = _settle(face, closest, start)
            if score_m < best:
                best, place = score_m, found
        if best < GOOD_M:
            break
    if place is None or best > BAD_M:
        raise UserError(
            "No face was found on this mesh. Choose the mesh with the nose and the lips, or drag the landmarks there."
        )
    return _read_off(face, points_N3, triangles_F3, place)


def _starts(face: TemplateFace, points_N3: np.ndarray, posture_33: np.ndarray) -> Iterator[Similarity]:
    """Poses of the template face with its nose on a bulge of the front profile, as wide as the head is there."""
    left_N, up_N, forward_N = (points_N3 @ posture_33).T
    width = _width(face.points_S3[:, 0], face.points_S3[:, 1], face.landmarks_L3[0, 1], 0.012)
    bins_N = ((up_N - up_N.min()) / max(np.ptp(up_N), 1e-12) * (HEIGHTS - 1)).astype(int)
    profile_B, middle_B = np.full(HEIGHTS, -np.inf), np.zeros(HEIGHTS)
    for number in np.unique(bins_N):
        here = bins_N == number
        middle_B[number] = (left_N[here].min() + left_N[here].max()) / 2
        near = here & (np.abs(left_N - middle_B[number]) <= 0.1 * np.ptp(left_N[here]) + 1e-9)
        profile_B[number] = forward_N[near].max(initial=-np.inf)
    # A bulge is farther forward than its surroundings; the larger these are, the earlier it is tried.
    reach_B = np.array([_reach(profile_B, number) for number in range(HEIGHTS)])
    for number in np.argsort(-reach_B, kind="stable")[:BULGES]:
        if not np.isfinite(profile_B[number]):
            continue
        height = up_N.min() + (number + 0.5) / HEIGHTS * np.ptp(up_N)
        wide = _width(left_N, up_N, height, 0.02 * np.ptp(up_N))
        tip_3 = posture_33 @ np.array([middle_B[number], height, profile_B[number]])
        for size in SIZES:
            scale = size * wide / width
            if scale > 0:
                shift_3 = tip_3 - scale * posture_33 @ face.landmarks_L3[0]
                yield Similarity(scale=scale, rotation_33=posture_33, translation_3=shift_3, residual=0.0)


def _width(across_N: np.ndarray, up_N: np.ndarray, height: float, half_slice: float) -> float:
    here = np.abs(up_N - height) < half_slice
    return float(np.ptp(across_N[here])) if here.any() else 0.0


def _reach(profile_B: np.ndarray, number: int) -> int:
    higher = np.flatnonzero(profile_B > profile_B[number])
    return int(np.abs(higher - number).min()) if len(higher) else len(profile_B)


def _settle(face: TemplateFace, closest: ClosestPoints, place: Similarity, rounds: int = 6) -> tuple[Similarity, float]:
    """The pose after some rounds of rigid ICP, and the median distance from the surface in metres."""
    front = np.flatnonzero((face.points_S3[:, 2] > 0.02) & (face.points_S3[:, 1] > face.landmarks_L3[1, 1] - 0.01))
    front = front[:: max(1, len(front) // SAMPLE)]
    normals_S3 = vertex_normals(face.points_S3, face.triangles_F3)[front]
    rest_S3, distance_S = face.points_S3[front], np.full(len(front), NEVER_M)
    for _ in range(rounds):
        points_S3, turned_S3 = place.apply(rest_S3), normals_S3 @ place.rotation_33.T
        near_S3, _, _, found_S = closest.query(points_S3, turned_S3, np.zeros(len(front)))
        way_S3 = (near_S3 - points_S3) / place.scale
        distance_S = np.where(found_S, np.linalg.norm(way_S3, axis=1), NEVER_M)
        weight_S = np.exp(-((distance_S / max(2 * np.median(distance_S), 0.004)) ** 2)) * found_S
        middle_3 = points_S3.mean(0)
        centred_S3 = (points_S3 - middle_3) / place.scale
        moves_SJ = np.concatenate(
            [np.cross(centred_S3, turned_S3), (centred_S3 * turned_S3).sum(1, keepdims=True), turned_S3], axis=1
        )
        away_S = (way_S3 * turned_S3).sum(1)
        system_JJ = (moves_SJ * weight_S[:, None]).T @ moves_SJ + np.diag([1e-3] * 3 + [3e-3] + [1e-6] * 3)
        step_J = np.linalg.solve(system_JJ, (moves_SJ * weight_S[:, None]).T @ away_S)
        moved_S3 = centred_S3 + np.cross(step_J[:3], centred_S3) + step_J[3] * centred_S3 + step_J[4:]
        place = fit_similarity(rest_S3, middle_3 + place.scale * moved_S3)
    return place, float(np.median(distance_S))


def _read_off(
    face: TemplateFace, points_N3: np.ndarray, triangles_F3: np.ndarray, place: Similarity
) -> dict[str, np.ndarray]:
    """The landmarks of the aligned face, refined on the head's surface, in the mesh's frame."""
    here_N3 = (points_N3 - place.translation_3) @ place.rotation_33 / place.scale
    label_N = islands(len(here_N3), face_edges(triangles_F3))
    front = np.flatnonzero((np.abs(here_N3[:, 0]) < 0.05) & (here_N3[:, 2] > 0.03) & (np.abs(here_N3[:, 1]) < 0.1))
    near = front[Neighbours(here_N3[front])(face.points_S3[face.points_S3[:, 2] > 0.03], 1)[:, 0]]
    skin_N = label_N == np.bincount(label_N[near]).argmax()
    ids = np.flatnonzero(skin_N)
    skin_F3 = (np.cumsum(skin_N) - 1)[triangles_F3[skin_N[triangles_F3[:, 0]]]]
    skin_N3 = here_N3[ids]
    closest = ClosestPoints(skin_N3, skin_F3, np.zeros(len(ids)), candidates=12)
    held = np.linalg.norm(face.points_S3 - face.landmarks_L3[:1], axis=1).argmin()[None]
    tip_3 = _foremost(skin_N3, face.landmarks_L3[0], 0.012)
    fitted_S3 = fit_identity(face, closest, held, tip_3[None])
    near_L = np.linalg.norm(face.points_S3[None] - face.landmarks_L3[:, None], axis=2).argmin(1)
    marks = dict(zip(LANDMARKS, face.landmarks_L3 - face.points_S3[near_L] + fitted_S3[near_L], strict=True))
    marks["nose_tip"] = tip_3
    marks |= _mouth(skin_N3, vertex_normals(skin_N3, skin_F3), marks)
    marks["chin"] = _chin(skin_N3, marks)
    return {name: place.apply(skin_N3[np.linalg.norm(skin_N3 - mark, axis=1).argmin()]) for name, mark in marks.items()}


def _foremost(points_N3: np.ndarray, around_3: np.ndarray, radius_m: float) -> np.ndarray:
    near = points_N3[np.linalg.norm(points_N3 - around_3, axis=1) < radius_m]
    return near[near[:, 2].argmax()] if len(near) else around_3


def _mouth(points_N3: np.ndarray, normals_N3: np.ndarray, marks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Corners of the mouth and lips, from the line along which skin faces skin; empty if the lips do not touch."""
    seam_3 = (marks["upper_lip"] + marks["lower_lip"]) / 2
    low_3, high_3 = seam_3 - [0.04, 0.016, 0.035], seam_3 + [0.04, 0.016, 0.012]
    near = np.flatnonzero(((points_N3 > low_3) & (points_N3 < high_3)).all(1))
    down, up = near[normals_N3[near, 1] < -0.3], near[normals_N3[near, 1] > 0.3]
    if not len(down) or not len(up):
        return {}
    other = up[Neighbours(points_N3[up])(points_N3[down], 1)[:, 0]]
    gap_N3 = points_N3[down] - points_N3[other]
    touches = np.linalg.norm(gap_N3, axis=1) < TOUCH_M
    touches &= (normals_N3[down] * normals_N3[other]).sum(1) < -0.4
    middle_N3 = ((points_N3[down] + points_N3[other]) / 2)[touches]
    # The line between the lips is the foremost one: inside a closed mouth skin faces skin too.
    columns = np.round(middle_N3[:, 0] / 0.004).astype(int)
    front = np.array([middle_N3[columns == c][middle_N3[columns == c, 2].argmax()] for c in np.unique(columns)])
    front = front[np.abs(front[:, 1] - seam_3[1]) < 0.014] if len(front) else front
    if len(front) < 5 or np.ptp(front[:, 0]) < 0.025:
        return {}
    left_3, right_3 = front[front[:, 0].argmax()], front[front[:, 0].argmin()]
    centre_3 = front[np.abs(front[:, 0] - (left_3[0] + right_3[0]) / 2).argmin()]
    middle = points_N3[np.abs(points_N3[:, 0] - centre_3[0]) < 0.004]
    lips = {}
    for name, sign in (("upper_lip", 1.0), ("lower_lip", -1.0)):
        height = sign * (middle[:, 1] - centre_3[1])
        red = middle[(height > 0.001) & (height < 0.009) & (middle[:, 2] > centre_3[2] - 0.004)]
        if not len(red):
            return {}
        lips[name] = red[red[:, 2].argmax()]
    # The ends of the line are not found exactly, so the fitted face's corners count as much.
    return {
        "mouth_left": (left_3 + marks["mouth_left"]) / 2,
        "mouth_right": (right_3 + marks["mouth_right"]) / 2,
        **lips,
    }


def _chin(points_N3: np.ndarray, marks: dict[str, np.ndarray]) -> np.ndarray:
    """The foremost point of the middle line below the dent under the lower lip."""
    lip_3, guess_3 = marks["lower_lip"], marks["chin"]
    middle = points_N3[np.abs(points_N3[:, 0] - lip_3[0]) < 0.004]
    drop = lip_3[1] - guess_3[1]
    below = middle[(middle[:, 1] < lip_3[1] - 0.5 * drop) & (middle[:, 1] > lip_3[1] - 1.5 * drop)]
    return below[below[:, 2].argmax()] if len(below) else guess_3
