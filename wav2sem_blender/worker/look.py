# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that looks at a stranger's sound: `python boot.py --run worker.look FILE`.

Only here, in a process of its own, is a file opened that nobody has asked to hear yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from . import child

# A header needs little; a damaged one may ask for anything.
MEMORY_BYTES = 1 << 30


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Length in seconds (None if the file does not state it), rate and channels; nothing is decoded.

    Raises:
        UserError: libsndfile does not read the file, or as `seen`.
    """
    from ..pipeline.sound_file import open_sound

    file = Path(arguments[0])
    child.limit_memory(MEMORY_BYTES + file.stat().st_size)  # the file is mapped
    with open_sound(file) as sound:
        return seen(file.name, sound.frames, sound.samplerate, sound.channels)


def seen(name: str, n_samples: int, rate_hz: float, n_channels: int) -> dict[str, Any]:
    """What a header says, as a task's result; no length, or an absurd one, is None.

    Raises:
        UserError: No recording has this rate or so many channels; to play it would crash Blender.
    """
    from ..pipeline.frame_timing import MAX_CHANNELS, checked_rate

    rate_hz = checked_rate(rate_hz, name)
    if not 1 <= n_channels <= MAX_CHANNELS:
        raise UserError('"{file}" has no sound that Blender can read; choose another file', file=name)
    duration_s = n_samples / rate_hz if 0 < n_samples < 2**60 else None
    return {"duration_s": duration_s, "rate_hz": rate_hz, "n_channels": n_channels}
