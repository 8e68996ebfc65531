# SPDX-License-Identifier: GPL-3.0-or-later
"""Decodes a sound with Blender's `aud` into a wav file, in a second Blender: a damaged file may crash it.

`aud` decodes a sound in one call that cannot be interrupted, 1.7 ms for each second of m4a. Its seeking is inexact, so
the sound cannot be decoded piece by piece. Only `Sound.data` is used, because `Sound.write` ends the whole process when
the disk is full. So does a mixdown (`second_blender.py`).
Shapes: S samples, C channels.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import bpy  # noqa: F401  (aud is found only beside it)

import aud  # isort: skip
import numpy as np

from ...errors import Text, UserError
from ...worker.task import TaskDiedError, TaskProcess
from . import look

# What a wav file can hold in mono 32-bit float; a sound that is longer is not decoded further.
_MAX_SAMPLES = (0xFFFFFFFF - 36) // 4
# How long decoding may take: a constant for Blender's start, and many times what the smallest bit rate needs.
_LIMIT_S, _LIMIT_S_PER_BYTE = 120.0, 1e-5

# Blender 4.5 sometimes crashes on a smooth transition.
_MIXDOWNS = 5


@dataclass(frozen=True, kw_only=True)
class SoundPart:
    """What to decode: the sound of a file between two times, in one or two channels.

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
    """A decoding in progress.

    Raises:
        UserError: The second Blender cannot be started.
    """

    def __init__(self, part: SoundPart) -> None:
        self._part = part
        self._tries = 1 if part.mix is None else _MIXDOWNS
        self._task = _second_blender(part)

    def poll(self) -> bool:
        """True when the file is there.

        Raises:
            UserError: The file has no sound, the decoded sound cannot be written, or the second Blender crashed.
        """
        try:
            return self._task.poll()
        except TaskDiedError as error:
            self._tries -= 1
            if not self._tries:
                raise UserError("{error} {remedy}", error=error.text, remedy=self._remedy) from error
            self._task = _second_blender(self._part)
            return False

    def cancel(self) -> None:
        """End it."""
        self._task.cancel()

    @property
    def _remedy(self) -> Text:
        return Text("Convert the sound to wav.") if self._part.mix is None else RENDER_IT


RENDER_IT = Text("Render the strip's sound to a file (Render > Render Audio), and choose that file.")


def _second_blender(part: SoundPart) -> TaskProcess:
    limit_s = None
    if part.mix is None:
        with suppress(OSError):  # the second Blender says so
            limit_s = _LIMIT_S + _LIMIT_S_PER_BYTE * os.stat(part.source).st_size
    command = look.second_blender("decode", json.dumps(asdict(part)))
    return TaskProcess(command, os.environ, "", limit_s, name=Text("The second Blender"))


def length_s(source: str | os.PathLike[str]) -> float:
    """A sound's length as its file states it; negative if it does not.

    Raises:
        UserError: The file has no sound, or looking at it takes long.
    """
    found_s = look.at_file(Path(source), look.PATIENCE_S).duration_s
    return -1.0 if found_s is None else found_s


def decode(part: SoundPart) -> None:
    """Decode at once, in the second Blender.

    Raises:
        UserError: The file has no sound, or the decoded sound cannot be written.
    """
    sound = aud.Sound.file(part.source)
    with _aud_errors(part.label):
        rate_hz, n_channels = (round(value) for value in sound.specs)
        if not (rate_hz and n_channels):
            raise _no_sound(part.label, Text("no known format, or a damaged header"))
        # The pipeline mixes two channels better, for they may be inverted. Of more, aud makes one with weights; the
        # level does not matter, because the pipeline normalises it.
        n_kept = 2 if n_channels == 2 and 0 <= sound.length <= _MAX_SAMPLES // 2 else 1
        sound = sound if n_kept == n_channels else sound.rechannel(n_kept)
        samples_SC = sound.limit(0, (_MAX_SAMPLES // n_kept + 1) / rate_hz).data()
    samples_SC = samples_SC[
        round(part.start_s * rate_hz) : None if part.stop_s is None else round(part.stop_s * rate_hz)
    ]
    if len(samples_SC) == 0:
        raise UserError("{sound}: the sound is empty. Choose another one, or a longer part of it.", sound=part.label)
    header = _wav_header(rate_hz, len(samples_SC), n_kept)
    target = Path(part.target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(header)
            file.write(np.ascontiguousarray(samples_SC, dtype="<f4").data)


def _wav_header(rate_hz: int, n_samples: int, n_channels: int) -> bytes:
    """RIFF header of 32-bit float samples."""
    n_bytes = 4 * n_samples * n_channels
    if n_bytes > 0xFFFFFFFF - 36:
        raise UserError("The recording is too long for a wav file. Cut it into parts.")
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + n_bytes, b"WAVE"),
        *(b"fmt ", 16, 3, n_channels, rate_hz, 4 * n_channels * rate_hz, 4 * n_channels, 32),
        *(b"data", n_bytes),
    )


@contextmanager
def _aud_errors(label: str) -> Iterator[None]:
    try:
        yield
    except aud.error as error:
        raise _no_sound(label, str(error).rstrip(".")) from error


def _no_sound(label: str, reason: str) -> UserError:
    return UserError(
        "{sound}: no sound that Blender can read ({reason}). Choose another file.", sound=label, reason=reason
    )


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
