# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a motion on a mesh without a worker."""

from typing import Any

from wav2sem_blender.blender.scene.write_motion import Outcome, applying
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.retarget import prepared
from wav2sem_blender.pipeline.time_slicing import at_once


def apply_motion(
    context: Any, target: Any, motion: Motion, strength: float = 1.0, smoothing_s: float = 0.0, **options: Any
) -> Outcome:
    """Apply the settings as the worker does, and run `applying` to its end."""
    motion = prepared(motion, strength=strength, smoothing_s=smoothing_s)
    return at_once(applying(context, target, motion, **options))
