# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the demo head's lips open in every frame, and how loud the sound is.

Shapes: S samples, T frames, V vertices, P pairs of an upper-lip and a lower-lip vertex.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aud
import bpy
import numpy as np

from ...assets import DEMO_HEAD
from ...pipeline.key_reduction import CLOSED_MM
from .. import compat
from ..scene.checks import rest_points
from ..scene.key_mapping import value_path


@dataclass(frozen=True, kw_only=True)
class MouthMotion:
    """Opening of the lips and level of the sound in every frame.

    Attributes:
        aperture_mm_T: Height of the gap between the lips; 0 at rest and when they press together or cross.
        level_T: Root mean square of the sound around the frame.
        waveform_S: The mono sound.
        rate_hz: Its samples per second.
        fps: Frames per second.
        first_scene_frame: Scene frame of the first value.
    """

    aperture_mm_T: np.ndarray
    level_T: np.ndarray
    waveform_S: np.ndarray
    rate_hz: float
    fps: float
    first_scene_frame: int

    @property
    def speech_duration_s(self) -> float:
        """Length of the sound."""
        return len(self.waveform_S) / self.rate_hz

    def statistics(self) -> dict[str, float | int]:
        """Numbers for the report."""
        aperture_mm_T = self.aperture_mm_T
        closed_T = aperture_mm_T < CLOSED_MM
        silent_T = self.level_T < 0.05 * self.level_T.max()
        speed_mm_s_T = np.abs(np.diff(aperture_mm_T)) * self.fps
        return {
            "frames": len(aperture_mm_T),
            "aperture_mm_median": round(float(np.median(aperture_mm_T)), 2),
            "aperture_mm_p95": round(float(np.percentile(aperture_mm_T, 95)), 2),
            "aperture_mm_max": round(float(aperture_mm_T.max()), 2),
            "closed_share": round(float(closed_T.mean()), 3),
            "closures": int((np.diff(closed_T.astype(int)) == 1).sum()),
            "aperture_mm_mean_in_silence": round(float(aperture_mm_T[silent_T].mean()), 2) if silent_T.any() else 0.0,
            "aperture_mm_mean_in_speech": round(float(aperture_mm_T[~silent_T].mean()), 2),
            "speed_mm_s_p95": round(float(np.percentile(speed_mm_s_T, 95)), 1),
            "correlation_with_level": round(_correlation(aperture_mm_T, self.level_T), 3),
        }


def measure(head: bpy.types.Object, speech: Path, n_frames: int, fps: float, first_scene_frame: int) -> MouthMotion:
    """Measure the demo head from its curves."""
    sound = aud.Sound.file(str(speech))
    rate_hz = float(sound.specs[0])
    waveform_S = sound.data().mean(axis=1)
    return MouthMotion(
        aperture_mm_T=_aperture_mm(head, n_frames, first_scene_frame),
        level_T=_level(waveform_S, rate_hz, n_frames, fps),
        waveform_S=waveform_S,
        rate_hz=rate_hz,
        fps=fps,
        first_scene_frame=first_scene_frame,
    )


def _aperture_mm(head: bpy.types.Object, n_frames: int, first_scene_frame: int) -> np.ndarray:
    """Height between the lips' vertex pairs in every frame, from the shape keys and curves alone."""
    with np.load(DEMO_HEAD, allow_pickle=False) as content:
        pairs_P2 = content["lip_pairs"].astype(np.int64)
    keys = head.data.shape_keys
    animation: Any = keys.animation_data
    bag = compat.channelbag(animation.action, animation.action_slot)
    rest_V3 = rest_points(head.data)
    height_TP = np.zeros((n_frames, len(pairs_P2)))
    points_V3 = np.empty_like(rest_V3)
    for block in keys.key_blocks[1:]:
        curve = bag.fcurves.find(value_path(block.name))
        if curve is None:
            continue
        values_T = np.array([curve.evaluate(first_scene_frame + frame) for frame in range(n_frames)])
        block.data.foreach_get("co", points_V3.ravel())
        up_V = points_V3[:, 2] - rest_V3[:, 2]
        height_TP += values_T[:, None] * (up_V[pairs_P2[:, 0]] - up_V[pairs_P2[:, 1]])
    return np.maximum(1000 * height_TP.max(axis=1), 0.0)


def _level(waveform_S: np.ndarray, rate_hz: float, n_frames: int, fps: float) -> np.ndarray:
    """Root mean square over 50 ms around each frame's time."""
    energy = np.concatenate([[0.0], np.cumsum(waveform_S.astype(np.float64) ** 2)])
    centre_T = np.arange(n_frames) / fps * rate_hz
    low_T = np.clip(centre_T - 0.025 * rate_hz, 0, len(waveform_S)).astype(int)
    high_T = np.clip(centre_T + 0.025 * rate_hz, 0, len(waveform_S)).astype(int)
    return np.sqrt((energy[high_T] - energy[low_T]) / np.maximum(high_T - low_T, 1))


def _correlation(first_T: np.ndarray, second_T: np.ndarray) -> float:
    if first_T.std() == 0 or second_T.std() == 0:
        return 0.0
    return float(np.corrcoef(first_T, second_T)[0, 1])
