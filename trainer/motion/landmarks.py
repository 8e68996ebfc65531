# SPDX-License-Identifier: GPL-3.0-or-later
"""Tracked landmarks of a real speaker's face, as displacements from the speaker's rest pose in metres.

The head's pose and size are removed (by the tracker's rotation, then by scale and shift of points that speech does not
move). Subtracting the speaker's own rest pose removes the shape of the face. Frame: FLAME's (x to the character's left,
y up, z forward). `lip_gap` reads the same files for evaluation, without a face model.

Shapes: T track frames, N tracked landmarks, P of them used, V vertices, K channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGE_PX = np.array([360.0, 288.0, 360.0])  # MediaPipe's depth is scaled like x
EYE_CORNERS = (33, 263)
RIGID = (33, 133, 263, 362, 168, 6, 197, 195, 5, 4)
CHIN = (152, 148, 377, 176, 400)
INNER_LIP_PAIRS = ((13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
CORNER_PAIRS = ((291, 61), (308, 78))
UPPER_LIP_PAIRS, LOWER_LIP_PAIRS = ((0, 13), (37, 82), (267, 312)), ((14, 17), (87, 84), (317, 314))
NOSE = (2, 97, 98, 326, 327, 129, 358)
MOUTH_AND_NOSE = (
    *(0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270, 291),
    *(308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415, *NOSE),
)
USED = MOUTH_AND_NOSE + CHIN
LIPS = (0, 13, 14, 17, 61, 78, 81, 82, 87, 178, 291, 308, 311, 312, 317, 402)
BROWS = ((46, 52, 53, 55, 63, 65, 66, 70, 105, 107), (276, 282, 283, 285, 293, 295, 296, 300, 334, 336))  # right, left
EYES = (33, 133, 263, 362)
FLAME_EYES_MM = 88.5  # distance of FLAME's outer eye corners


@dataclass(frozen=True, kw_only=True)
class LipGap:
    """A filmed mouth's opening: the image distance of the inner lips over that of the outer eye corners (T,), the
    frames in which a face was found (T,), and `filmed_lips`."""

    gap_T: np.ndarray
    found_T: np.ndarray
    fps: float
    points_TP2: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class LipPoints:
    """The points `LIPS` of a mesh in mm, seen from the front: at rest (16, 2), and moved by each channel (K, 16, 2)."""

    rest_P2: np.ndarray
    basis_KP2: np.ndarray

    def moved(self, weights_TK: np.ndarray) -> np.ndarray:
        """(T, 16, 2)."""
        return self.rest_P2 + np.einsum("tk,kpd->tpd", weights_TK, self.basis_KP2)


@dataclass(frozen=True, kw_only=True)
class LandmarkBasis:
    """The channels at the landmarks: displacements (K, P, 3) and rest positions (P, 3)."""

    basis_KP3: np.ndarray
    rest_P3: np.ndarray
    rigid_R3: np.ndarray


def landmark_basis(flame: dict[str, np.ndarray], basis_KV3: np.ndarray, tracked_chin_C3: np.ndarray) -> LandmarkBasis:
    """Read the channels at the landmarks, by FLAME's MediaPipe embedding; the chin's are the nearest skin vertices."""
    rest_V3 = flame["v_template"]
    at = {int(name): i for i, name in enumerate(flame["mediapipe_landmark_ids"])}

    def read(field_V3: np.ndarray, names: tuple[int, ...]) -> np.ndarray:
        rows = [at[name] for name in names]
        corners = flame["faces"][flame["mediapipe_face_index"][rows]]
        return np.einsum("pc,pcd->pd", flame["mediapipe_barycentric"][rows], field_V3[corners])

    front = np.where(rest_V3[:, 2] > rest_V3[:, 2].mean())[0]
    distance = np.linalg.norm(rest_V3[front][None, :, :2] - tracked_chin_C3[:, None, :2], axis=-1)
    chin = front[distance.argmin(1)]
    basis_KP3 = np.stack([np.concatenate([read(key, MOUTH_AND_NOSE), key[chin]]) for key in basis_KV3])
    rest_P3 = np.concatenate([read(rest_V3, MOUTH_AND_NOSE), rest_V3[chin]])
    return LandmarkBasis(basis_KP3=basis_KP3, rest_P3=rest_P3, rigid_R3=read(rest_V3, RIGID))


def lip_points(landmarks: LandmarkBasis) -> LipPoints:
    """The mesh's lips as a film shows them."""
    rows = [USED.index(name) for name in LIPS]
    return LipPoints(rest_P2=1000 * landmarks.rest_P3[rows, :2], basis_KP2=1000 * landmarks.basis_KP3[:, rows, :2])


def stabilise(path: Path, rigid_R3: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Landmarks `USED` (T, P, 3) in FLAME's frame and size without head motion, face-found flags (T,), and fps."""
    with np.load(path) as track:
        points_TN3, names = points_px(track)
        rotation_T33 = track["mat"][:, :3, :3].astype(float)
        found_T, fps = track["ok"].astype(bool), float(track["fps"])
    points_TN3 = points_TN3 * (1, -1, -1)  # image axes to y up, z towards the viewer
    points_TN3 = np.einsum("tji,tnj->tni", rotation_T33, points_TN3)
    rigid_TR3 = points_TN3[:, [names[name] for name in RIGID]]
    centre_T13 = rigid_TR3.mean(1, keepdims=True)
    goal_R3 = rigid_R3 - rigid_R3.mean(0)
    spread = np.linalg.norm((rigid_TR3 - centre_T13)[..., :2], axis=(1, 2))
    # One scale for the whole clip: the tracker's depth fluctuates, the head's size does not.
    scale = np.linalg.norm(goal_R3[:, :2]) / np.median(spread)
    used_TP3 = points_TN3[:, [names[name] for name in USED]]
    return (used_TP3 - centre_T13) * scale + rigid_R3.mean(0), found_T, fps


def lip_gap(path: Path) -> LipGap:
    """The filmed lips of one clip, measured against the eyes; pose and size are not removed."""
    with np.load(path) as track:
        points_TN3, names = points_px(track)
        found_T, fps = track["ok"].astype(bool), float(track["fps"])

    def distance(pair: tuple[int, int]) -> np.ndarray:
        first, second = (points_TN3[:, names[name], :2] for name in pair)
        return np.linalg.norm(first - second, axis=-1)

    gap_T = distance(INNER_LIP_PAIRS[0]) / np.maximum(distance(EYE_CORNERS), 1e-6)
    return LipGap(gap_T=gap_T, found_T=found_T, fps=fps)


def filmed_lips(path: Path) -> np.ndarray | None:
    """The points `LIPS` (T, 16, 2) in mm seen from the front, x to the character's left, y up, at the film's rate.

    The head is turned in the image plane so that the eyes are level, and scaled to FLAME's by the outer eye corners.
    None where the face was lost.
    """
    with np.load(path) as track:
        points_TN3, names = points_px(track)
    points_TN2 = points_TN3[..., :2] * (1, -1)
    right_T2, left_T2 = (points_TN2[:, names[name]] for name in EYE_CORNERS)
    across_T2 = left_T2 - right_T2
    size_T = np.linalg.norm(across_T2, axis=1)
    if not (size_T > 0).all():
        return None
    c_T1, s_T1 = (across_T2 / size_T[:, None]).T[:, :, None]
    lips_TP2 = points_TN2[:, [names[name] for name in LIPS]] - ((left_T2 + right_T2) / 2)[:, None]
    x_TP, y_TP = lips_TP2[..., 0], lips_TP2[..., 1]
    level_TP2 = np.stack([x_TP * c_T1 + y_TP * s_T1, y_TP * c_T1 - x_TP * s_T1], -1)
    level_TP2 *= FLAME_EYES_MM / np.median(size_T)
    return level_TP2 if np.isfinite(level_TP2).all() else None


def points_px(track: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[int, int]]:
    """Landmarks (T, N, 3) in pixels of the image, and the row of each of MediaPipe's numbers."""
    points_TN3 = np.cumsum(track["lm_dq"].astype(float), axis=0) * float(track["lm_scale"]) * IMAGE_PX
    return points_TN3, {int(name): i for i, name in enumerate(track["lm_idx"])}


def tracked_rest_pose(used_TP3: np.ndarray, found_T: np.ndarray) -> np.ndarray:
    """The speaker's closed, quiet mouth (P, 3): the median over the frames whose inner-lip gap is smallest."""
    gap_T = inner_gap(used_TP3)
    quiet_T = found_T & (gap_T <= np.quantile(gap_T[found_T], 0.2))
    return np.median(used_TP3[quiet_T], axis=0)


def inner_gap(used_TP3: np.ndarray) -> np.ndarray:
    """Distance (T,) between the middles of the inner lips."""
    upper, lower = (USED.index(name) for name in INNER_LIP_PAIRS[0])
    return np.linalg.norm(used_TP3[:, upper, :2] - used_TP3[:, lower, :2], axis=-1)
