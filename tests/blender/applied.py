# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a motion on a mesh without a worker."""

from typing import Any

from wav2sem_blender.blender.scene.write_motion import Outcome, applying
from wav2sem_blender.pipeline.time_slicing import at_once


def apply_motion(*given: Any, **options: Any) -> Outcome:
    """Run `applying` to its end."""
    return at_once(applying(*given, **options))
