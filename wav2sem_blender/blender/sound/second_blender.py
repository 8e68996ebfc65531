# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks of the second Blender: look at a sound; mix a strip down if need be, then decode the sound.

`boot.py --run blender.sound.second_blender look FILE NAME`, or `… decode PART` with a `decode.SoundPart` as JSON.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bpy

import aud  # isort: skip  (found only beside bpy)

from ...errors import UserError
from ...worker import child
from ...worker.look import MEMORY_BYTES, seen
from . import decode
from .decode import SoundPart

# A wav file's 4 GB twice.
_DECODED_BYTES = 8 << 30

# The longest time in which a mixdown may not grow.
_PATIENCE_S = 60.0


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Look, or mix down and decode.

    Raises:
        UserError: The file has no sound, or a file cannot be written.
    """
    task, *values = arguments
    if task == "look":
        return _look(*values)
    part = SoundPart(**json.loads(values[0]))
    if part.mix is not None:
        _mix_down(part.mix, Path(part.source), part.label)
    child.limit_memory(_DECODED_BYTES)
    decode.decode(part)
    return {}


def _look(file: str, name: str) -> dict[str, Any]:
    """As `worker.look`, for the formats that Blender alone reads."""
    child.limit_memory(MEMORY_BYTES)
    sound = aud.Sound.file(file)
    try:
        (rate_hz, n_channels), n_samples = sound.specs, sound.length
    except aud.error as error:
        raise UserError('"{file}" has no sound that Blender can read; choose another file', file=name) from error
    return seen(name, n_samples, rate_hz, n_channels)


def _mix_down(mix: str, target: Path, label: str) -> None:
    """Write what the scene of a .blend file plays."""
    try:
        target.unlink(missing_ok=True)
        with bpy.data.libraries.load(mix) as (there, here):  # type: ignore[attr-defined]  # the stubs say None
            here.scenes = there.scenes
        scene: Any = here.scenes[0]
        with bpy.context.temp_override(scene=scene, view_layer=scene.view_layers[0]):
            rate_hz = scene.render.ffmpeg.audio_mixrate
            bpy.ops.sound.mixdown(filepath=str(target), container="WAV", codec="PCM", format="F32", mixrate=rate_hz)
            _wait_for(target)
    except (RuntimeError, OSError, UserError) as error:
        raise UserError(
            "{sound}: what the strip plays cannot be mixed down ({reason}). {remedy}",
            sound=label,
            reason=error.text if isinstance(error, UserError) else str(error).strip().rstrip("."),
            remedy=decode.RENDER_IT,
        ) from error


def _wait_for(mixdown: Path) -> None:
    """Since 5.2 the operator starts a job and reports no end; the file's header gets its length at the very end."""
    n_bytes, changed_s = 0, time.monotonic()
    while time.monotonic() - changed_s < _PATIENCE_S:
        begin = b""
        if mixdown.is_file():
            with mixdown.open("rb") as file:
                begin, found = file.read(8), os.fstat(file.fileno()).st_size
            if len(begin) == 8 and struct.unpack("<4sI", begin) == (b"RIFF", found - 8):
                return
            if found != n_bytes:
                n_bytes, changed_s = found, time.monotonic()
        time.sleep(0.02)
    raise UserError("no progress for {seconds:.0f} s", seconds=_PATIENCE_S)
