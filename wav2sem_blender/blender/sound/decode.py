# SPDX-License-Identifier: GPL-3.0-or-later
"""Decodes a sound with Blender's `aud` into a wav file; a long sound in a second Blender, in the background.

`aud` decodes a sound in one call that cannot be interrupted, 1.7 ms for each second of m4a. Its seeking is inexact, so
the sound cannot be decoded piece by piece. Only `Sound.data` is used, because `Sound.write` ends the whole process when
the disk is full. So does a mixdown, which is therefore always made in the second Blender (`second_blender.py`).
Shapes: S samples.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import bpy  # aud is found only beside it

import aud  # isort: skip
import numpy as np

from ...errors import Text, UserError
from ...worker.environment import BOOT_SCRIPT
from ...worker.task import TaskDiedError, TaskProcess

# A shorter sound blocks the interface for less than 50 ms; a second Blender takes about a second to start.
SHORT_S = 20.0

# Blender 4.5 sometimes crashes on a smooth transition.
_MIXDOWNS = 5


@dataclass(frozen=True, kw_only=True)
class SoundPart:
    """What to decode: the sound of a file between two times, mixed to mono.

    Attributes:
        source: The file.
        target: The wav file to write.
        label: The sound's name in messages.
        start_s: Start of the part.
        stop_s: End of the part; None for the end of the sound.
        mix: A .blend file with one scene, whose mixdown makes `source`; None if `source` exists.
    """

    source: str
    target: str
    label: str
    start_s: float = 0.0
    stop_s: float | None = None
    mix: str | None = None


class Decoding:
    """A decoding in progress; that of a short sound is done at once.

    Raises:
        UserError: The file has no sound, or the decoded sound cannot be written.
    """

    def __init__(self, part: SoundPart) -> None:
        self._part = part
        self._task: TaskProcess | None = None
        self._tries = 1 if part.mix is None else _MIXDOWNS
        if part.mix is None and 0 <= length_s(part.source, part.label) <= SHORT_S:
            decode(part)
        else:
            self._task = _second_blender(part)

    def poll(self) -> bool:
        """True when the file is there.

        Raises:
            UserError: As above, or the second Blender crashed.
        """
        try:
            return self._task is None or self._task.poll()
        except TaskDiedError as error:
            self._tries -= 1
            if not self._tries:
                raise UserError("{error} {remedy}", error=error.text, remedy=self._remedy) from error
            self._task = _second_blender(self._part)
            return False

    def cancel(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()

    @property
    def _remedy(self) -> Text:
        return Text("Convert the sound to wav.") if self._part.mix is None else RENDER_IT


RENDER_IT = Text("Render the strip's sound to a file (Render > Render Audio), and choose that file.")


def _second_blender(part: SoundPart) -> TaskProcess:
    task = ("--run", "blender.sound.second_blender", json.dumps(asdict(part)))
    if bpy.app.binary_path:
        command = [bpy.app.binary_path, "--background", "--factory-startup", "--python", str(BOOT_SCRIPT), "--", *task]
    else:  # Blender as a module
        command = [sys.executable, str(BOOT_SCRIPT), *task]
    return TaskProcess(command, os.environ, "", name=Text("The second Blender"))


def length_s(source: str | os.PathLike[str], label: str) -> float:
    """A sound's length as its file states it; negative if it does not.

    Raises:
        UserError: The file has no sound.
    """
    sound = aud.Sound.file(str(source))
    with _aud_errors(label):
        return float(sound.length / sound.specs[0])


def decode(part: SoundPart) -> None:
    """Decode at once.

    Raises:
        UserError: The file has no sound, or the decoded sound cannot be written.
    """
    sound = aud.Sound.file(part.source)
    with _aud_errors(part.label):
        rate_hz = round(sound.specs[0])
        # aud mixes to mono with weights; the level does not matter, because the pipeline normalises it.
        mono_S = sound.rechannel(1).data()[:, 0]
    mono_S = mono_S[round(part.start_s * rate_hz) : None if part.stop_s is None else round(part.stop_s * rate_hz)]
    if len(mono_S) == 0:
        raise UserError("{sound}: the sound is empty. Choose another one, or a longer part of it.", sound=part.label)
    header = _wav_header(rate_hz, len(mono_S))
    target = Path(part.target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(header)
            file.write(np.ascontiguousarray(mono_S, dtype="<f4").data)


def _wav_header(rate_hz: int, n_samples: int) -> bytes:
    """RIFF header of mono 32-bit float samples."""
    n_bytes = 4 * n_samples
    if n_bytes > 0xFFFFFFFF - 36:
        raise UserError("The recording is too long for a wav file. Cut it into parts.")
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + n_bytes, b"WAVE"),
        *(b"fmt ", 16, 3, 1, rate_hz, 4 * rate_hz, 4, 32),
        *(b"data", n_bytes),
    )


@contextmanager
def _aud_errors(label: str) -> Iterator[None]:
    try:
        yield
    except aud.error as error:
        reason = str(error).rstrip(".")
        raise UserError(
            "{sound}: no sound that Blender can read ({reason}). Choose another file.", sound=label, reason=reason
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report a failed write with the file and a remedy, and leave no unfinished file.

    Raises:
        UserError: The block raised OSError.
    """
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise UserError(
            "The sound cannot be written to {path} ({reason}). Free some space, or choose another folder in "
            "Preferences > File Paths > Temporary Files.",
            path=path,
            reason=error.strerror or error,
        ) from error
