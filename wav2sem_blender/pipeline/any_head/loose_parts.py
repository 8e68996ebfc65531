# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves the loose parts of a head: teeth and tongue with the jaw, lashes with the skin; eyes turn. NumPy only.

Metres in the template face's frame (x to the character's left, y up, z forward).

Shapes: N vertices of the skin, M of the whole mesh, P of one part, F triangles, K channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..upper_face import GAZE_DEG
from .geometry import face_edges
from .lids import Eyeball, assumed_eyeball
from .surface import Neighbours, islands

UNDER_M = 0.0015  # a part is inside the head if at least half of it lies this deep under the skin
JAW_CHANNELS = ("jawForward", "jawRight", "jawLeft", "jawOpen")
# Limits of the mouth around the middle of the line between the lips; nine tenths of a part must lie within them.
MOUTH_BELOW_M, MOUTH_ABOVE_M, MOUTH_BEHIND_M, MOUTH_WIDER = 0.045, 0.035, 0.1, 1.6
# A part this high and wide belongs to both jaws (gums in one piece); its motion is blended this far around the bite.
BOTH_JAWS_M, DIVIDE_M = 0.022, 0.004
TONGUE_M = 0.008  # in such a part, what faces up (the tongue) belongs to the lower jaw up to this far above the bite
BITE_REACH_M = 0.012  # largest distance of the bite from the height at which the lips meet
# An eyeball's middle is this near to the middle of the lids; its smallest extent is this part of its largest at least.
EYE_RADIUS_M, EYE_ROUND = 0.03, 0.5
# Iris, pupil and cornea turn with the eyeball: this round from the front, within this many radii of its centre, and in
# this direction from it (cosine).
DISC_ROUND, DISC_REACH, DISC_AXIS = 0.7, 1.1, 0.85
FOLLOWED, NEAR_M = 8, 0.01  # points of the skin that a part follows; a part that is nowhere this near stays still
ROOT_M = 0.002  # vertices farther than this from the skin follow the root of their hair, not the skin that is nearest
# A part within this many radii of the eyeball's centre is lashes: they turn with the lid, and at most this share of
# their length counts as root.
LASH_REACH, LASH_ROOT = 1.8, 0.25


def find_loose_parts(n_vertices: int, triangles_F3: np.ndarray, skin_N: np.ndarray) -> list[np.ndarray]:
    """The vertices of each part that is not connected to the skin."""
    label_M = islands(n_vertices, face_edges(triangles_F3))
    label_M[skin_N] = -1
    return [np.flatnonzero(label_M == label) for label in np.unique(label_M[label_M >= 0])]


def eyeballs(points_M3: np.ndarray, parts: Sequence[np.ndarray], marks: Mapping[str, np.ndarray]) -> dict[str, Eyeball]:
    """The eyeballs of the head by side, "left" and "right"."""
    found: dict[str, Eyeball] = {}
    for part in parts:
        side = _side_of_eye(points_M3[part], marks)
        if not side:
            continue
        ball = _ball(points_M3[part])
        if side not in found or ball.radius_m > found[side].radius_m:
            found[side] = ball
    return found


def move_loose_parts(
    points_M3: np.ndarray,
    parts: Sequence[np.ndarray],
    balls: Mapping[str, Eyeball],
    skin_N: np.ndarray,
    normals_M3: np.ndarray,
    moved_KN3: np.ndarray,
    channels: Sequence[str],
    marks: Mapping[str, np.ndarray],
    joint_3: np.ndarray,
) -> np.ndarray:
    """Displacements (K, M, 3) of the whole mesh, given those of its skin.

    Args:
        points_M3: All vertices at rest.
        parts: The vertices of each loose part.
        balls: The eyeballs.
        skin_N: Numbers of the skin's vertices.
        normals_M3: The normals of all vertices.
        moved_KN3: The skin's displacements.
        channels: Names of the channels.
        marks: Landmark positions by name.
        joint_3: Centre of rotation of the lower jaw.
    """
    offsets_KM3 = np.zeros((len(channels), len(points_M3), 3))
    offsets_KM3[:, skin_N] = moved_KN3
    skin_N3, near_skin = points_M3[skin_N], Neighbours(points_M3[skin_N])
    jaw_KM3 = jaw_motion(points_M3, marks, joint_3, moved_KN3[:, _nearest(skin_N3, marks["chin"])], channels)
    in_mouth = [_is_in_mouth(points_M3[part], marks) for part in parts]
    eyes = {side: balls.get(side) or assumed_eyeball(marks, side) for side in ("left", "right")}
    bite_y = _bite([points_M3[part] for part, inside in zip(parts, in_mouth, strict=True) if inside], marks)
    for part, inside in zip(parts, in_mouth, strict=True):
        points_P3 = points_M3[part]
        if inside:
            offsets_KM3[:, part] = jaw_KM3[:, part] * _share_of_jaw(points_P3, normals_M3[part], bite_y)[:, None]
            continue
        side = _turns_with(points_P3, balls)
        if side:
            offsets_KM3[:, part] = gaze(points_P3, balls[side], side, channels)
            continue
        near_PC = near_skin(points_P3, FOLLOWED)
        away_PC = np.linalg.norm(skin_N3[near_PC] - points_P3[:, None], axis=2)
        if away_PC.min() < NEAR_M and not _is_under_skin(points_P3, near_PC, skin_N3, normals_M3[skin_N]):
            weights_PC = 1.0 / (away_PC + 1e-4) ** 2
            weights_PC /= weights_PC.sum(1, keepdims=True)
            followed_KP3 = np.einsum("pc,kpcx->kpx", weights_PC, moved_KN3[:, near_PC])
            lashes_of = next((side for side, ball in eyes.items() if _is_lash(points_P3, ball)), "")
            root_m = min(ROOT_M, LASH_ROOT * away_PC.min(1).max()) if lashes_of else ROOT_M
            roots_P = _roots(points_P3, away_PC.min(1) < root_m)
            offsets_KM3[:, part] = followed_KP3[:, roots_P]
            for k, channel in enumerate(channels):
                if lashes_of and channel.startswith("eye") and channel.endswith(lashes_of.title()):
                    offsets_KM3[k, part] += _swing(
                        points_P3, points_P3[roots_P], offsets_KM3[k, part], eyes[lashes_of].centre_3
                    )
    return offsets_KM3


def jaw_motion(
    points_M3: np.ndarray,
    marks: Mapping[str, np.ndarray],
    joint_3: np.ndarray,
    chin_K3: np.ndarray,
    channels: Sequence[str],
) -> np.ndarray:
    """Displacements (K, M, 3) of the points if they were fixed to the lower jaw, which moves as the chin does."""
    offsets_KM3 = np.zeros((len(channels), len(points_M3), 3))
    arm_3, here_M3 = marks["chin"] - joint_3, points_M3 - joint_3
    for k, channel in enumerate(channels):
        if channel == "jawOpen":
            (y, z), (y_open, z_open) = arm_3[1:], (arm_3 + chin_K3[k])[1:]
            angle = np.arctan2(y, z) - np.arctan2(y_open, z_open)
            cosine, sine = np.cos(angle), np.sin(angle)
            turn_33 = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
            offsets_KM3[k] = here_M3 @ turn_33.T - here_M3
        elif channel in JAW_CHANNELS:
            offsets_KM3[k] = chin_K3[k]
    return offsets_KM3


def _roots(points_P3: np.ndarray, touches_P: np.ndarray) -> np.ndarray:
    """The nearest vertex of the part that touches the skin, for each vertex (P,); itself if none does."""
    roots_P = np.arange(len(points_P3))
    if touches_P.any() and not touches_P.all():
        touching = np.flatnonzero(touches_P)
        roots_P[~touches_P] = touching[Neighbours(points_P3[touching])(points_P3[~touches_P], 1)[:, 0]]
    return roots_P


def _is_lash(points_P3: np.ndarray, ball: Eyeball) -> bool:
    return bool(np.linalg.norm(points_P3 - ball.centre_3, axis=1).max() < LASH_REACH * ball.radius_m)


def _swing(points_P3: np.ndarray, roots_P3: np.ndarray, moved_P3: np.ndarray, centre_3: np.ndarray) -> np.ndarray:
    """The rotation of stiff hair, in addition to the motion of its roots (P, 3), as they move around the centre."""
    start_P3, end_P3 = roots_P3 - centre_3, roots_P3 + moved_P3 - centre_3
    start_P3 = start_P3 / np.maximum(np.linalg.norm(start_P3, axis=1, keepdims=True), 1e-9)
    end_P3 = end_P3 / np.maximum(np.linalg.norm(end_P3, axis=1, keepdims=True), 1e-9)
    axis_P3, cosine_P1 = np.cross(start_P3, end_P3), (start_P3 * end_P3).sum(1, keepdims=True)
    aside_P3 = np.cross(axis_P3, points_P3 - roots_P3)
    return aside_P3 + np.cross(axis_P3, aside_P3) / (1 + np.maximum(cosine_P1, 0.0))


def _is_under_skin(points_P3: np.ndarray, near_PC: np.ndarray, skin_N3: np.ndarray, normals_N3: np.ndarray) -> bool:
    way_PC3 = points_P3[:, None] - skin_N3[near_PC]
    height_P = np.einsum("pcx,pcx->pc", way_PC3, normals_N3[near_PC]).mean(1)
    return float(np.median(height_P)) < -UNDER_M


def gaze(points_P3: np.ndarray, ball: Eyeball, side: str, channels: Sequence[str]) -> np.ndarray:
    """Displacements (K, P, 3) of a part that turns with an eyeball, by the channels of that eye."""
    offsets_KP3 = np.zeros((len(channels), *points_P3.shape))
    outward = 1.0 if side == "left" else -1.0
    here_P3 = points_P3 - ball.centre_3
    for way, degrees in GAZE_DEG.items():
        channel = f"eyeLook{way}{side.title()}"
        if channel not in channels:
            continue
        angle = np.radians(degrees) * {"Up": -1.0, "Down": 1.0, "Out": outward, "In": -outward}[way]
        cosine, sine = np.cos(angle), np.sin(angle)
        if way in ("Up", "Down"):
            turn_33 = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        else:
            turn_33 = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
        offsets_KP3[list(channels).index(channel)] = here_P3 @ turn_33.T - here_P3
    return offsets_KP3


def _ball(points_P3: np.ndarray) -> Eyeball:
    """The sphere that fits best, by least squares of |p|^2 = 2 p.c + r^2 - |c|^2; half a ball is enough."""
    middle_3 = points_P3.mean(0)
    here_P3 = points_P3 - middle_3
    rows_P4 = np.concatenate([2 * here_P3, np.ones((len(here_P3), 1))], axis=1)
    (x, y, z, rest), *_ = np.linalg.lstsq(rows_P4, (here_P3**2).sum(1), rcond=None)
    centre_3 = np.array([x, y, z])
    return Eyeball(centre_3=middle_3 + centre_3, radius_m=float(np.sqrt(max(rest + centre_3 @ centre_3, 0.0))))


def _turns_with(points_P3: np.ndarray, balls: Mapping[str, Eyeball]) -> str:
    """The side of the eye that a part turns with (the ball itself, or a disc on its axis); "" for none."""
    wide, high, _ = np.ptp(points_P3, axis=0)
    if min(wide, high) < DISC_ROUND * max(wide, high):
        return ""
    for side, ball in balls.items():
        if np.linalg.norm(points_P3 - ball.centre_3, axis=1).max() < DISC_REACH * ball.radius_m:
            ahead_3 = (points_P3.min(0) + points_P3.max(0)) / 2 - ball.centre_3
            away = float(np.linalg.norm(ahead_3))
            if away < 0.3 * ball.radius_m or ahead_3[2] > DISC_AXIS * away:
                return side
    return ""


def _side_of_eye(points_P3: np.ndarray, marks: Mapping[str, np.ndarray]) -> str:
    """The side of the eye if a part is as round as an eyeball and at an eye's place; else ""."""
    extent_3, middle_3 = np.ptp(points_P3, axis=0), (points_P3.min(0) + points_P3.max(0)) / 2
    if extent_3.min() <= EYE_ROUND * extent_3.max():
        return ""
    away = {
        side: float(np.linalg.norm(middle_3 - (marks[f"eye_inner_{side}"] + marks[f"eye_outer_{side}"]) / 2))
        for side in ("left", "right")
    }
    side = min(away, key=lambda name: away[name])
    return side if away[side] < EYE_RADIUS_M else ""


def _is_in_mouth(points_P3: np.ndarray, marks: Mapping[str, np.ndarray]) -> bool:
    """Whether a part lies behind the lips and within the mouth."""
    seam_3 = _seam(marks)
    half_width = np.linalg.norm(marks["mouth_left"] - marks["mouth_right"]) / 2
    low_3, high_3 = np.percentile(points_P3, (5, 95), axis=0) - seam_3
    widest = MOUTH_WIDER * half_width
    return bool(
        (low_3 > [-widest, -MOUTH_BELOW_M, -MOUTH_BEHIND_M]).all() and (high_3 < [widest, MOUTH_ABOVE_M, 0.0]).all()
    )


def _share_of_jaw(points_P3: np.ndarray, normals_P3: np.ndarray, bite_y: float) -> np.ndarray:
    """The share of the lower jaw's motion (P,): 0 or 1 for a whole part, unless the part belongs to both jaws."""
    below_P = bite_y - points_P3[:, 1]
    if _is_of_both_jaws(points_P3):
        return np.clip(0.5 + (below_P + TONGUE_M * np.maximum(normals_P3[:, 1], 0)) / (2 * DIVIDE_M), 0, 1)
    return np.full(len(points_P3), float(np.median(below_P) > 0))


def _is_of_both_jaws(points_P3: np.ndarray) -> bool:
    wide_3 = np.ptp(np.percentile(points_P3, (5, 95), axis=0), axis=0)
    return bool(wide_3[1] > BOTH_JAWS_M and wide_3[0] > BOTH_JAWS_M)


def _bite(parts: Sequence[np.ndarray], marks: Mapping[str, np.ndarray]) -> float:
    """The height of the bite: midway between the upper and the lower group of the parts in the mouth."""
    seam_y = float(_seam(marks)[1])
    heights = np.array([np.median(part_P3[:, 1]) for part_P3 in parts if not _is_of_both_jaws(part_P3)])
    bite_y = seam_y
    for _ in range(8):
        above = heights > bite_y
        if above.all() or not above.any():
            return seam_y
        bite_y = float(heights[above].mean() + heights[~above].mean()) / 2
    return bite_y if abs(bite_y - seam_y) < BITE_REACH_M else seam_y


def _seam(marks: Mapping[str, np.ndarray]) -> np.ndarray:
    """The middle of the line between the lips."""
    return (np.asarray(marks["upper_lip"]) + marks["lower_lip"]) / 2


def _nearest(points_N3: np.ndarray, point_3: np.ndarray) -> int:
    return int(np.linalg.norm(points_N3 - point_3, axis=1).argmin())
