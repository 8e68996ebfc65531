# SPDX-License-Identifier: GPL-3.0-or-later
"""Length, rate and channels of a sound, seen by another process: a damaged file may crash the library that reads it.

Each file, and each change of it, is looked at once. The panel asks at every redraw and gets `BeingReadError` until the
answer is there; a timer then redraws it. In background mode Blender has no timers, so asking waits.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import bpy

from ...errors import Text, UserError
from ...leftovers import MadeFolder
from ...worker import environment
from ...worker.task import TaskDiedError, TaskFailedError, TaskProcess
from ..tasks.redraw import redraw

# The worker reads these formats itself, with soundfile; Blender reads the others (films, m4a).
SOUNDFILE_SUFFIXES = frozenset(
    (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64")
)

# How long a click waits for an answer; mostly it is there already.
PATIENCE_S = 8.0
# A second Blender takes a second to start, and much longer on a machine that is busy.
_LIMIT_S = 30.0
_INTERVAL_S = 0.05
_AT_ONCE = 4
_LONGEST_SUFFIX = 16
_REMEMBERED = 64

_CHANNELS = {1: "mono", 2: "stereo"}

# A file's path (or a packed sound's id), its time of change and its size.
_Key = tuple[str, int, int]


class BeingReadError(UserError):
    """The answer is not there yet."""


@dataclass(frozen=True, kw_only=True)
class SoundInfo:
    """Length as the scene plays it (None if the file does not state it), sample rate and number of channels."""

    duration_s: float | None
    rate_hz: float
    n_channels: int

    def words(self) -> Text:
        """As in "6.6 s, 16 kHz, mono"."""
        channels = _CHANNELS.get(self.n_channels, Text("{n_channels} channels", n_channels=self.n_channels))
        length = "Unknown length" if self.duration_s is None else duration_words(self.duration_s)
        return Text(
            "{length}, {rate_hz:g} kHz, {channels}",
            length=length,
            rate_hz=self.rate_hz / 1000,
            channels=channels,
        )


@dataclass(frozen=True, kw_only=True)
class _Look:
    task: TaskProcess
    name: str
    unpacked: MadeFolder | None


_running: dict[_Key, _Look] = {}
_known: dict[_Key, SoundInfo | UserError] = {}


def at_file(file: Path, patience_s: float = 0.0) -> SoundInfo:
    """What a file's header says.

    Args:
        file: An absolute path.
        patience_s: How long to wait for it.

    Raises:
        BeingReadError: It is not known yet.
        UserError: There is no such file, or it is no sound, or it crashed its reader.
    """
    try:
        status = os.stat(file)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise UserError(
            'There is no file "{file}" in {parent}; choose it where it lies now',
            file=file.name,
            parent=file.parent,
        ) from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would never answer
        sentence = '"{file}" is a folder; choose an audio file' if file.is_dir() else '"{file}" is no file; choose one'
        raise UserError(sentence, file=file.name)
    key = str(file), status.st_mtime_ns, status.st_size
    return _answer(key, file.name, lambda: _start(file, file.name), patience_s)


def at_packed(block: bpy.types.Sound, patience_s: float = 0.0) -> SoundInfo:
    """The same of a packed sound."""
    packed = block.packed_file
    assert packed is not None
    name = bpy.path.basename(block.filepath) or f"{block.name}.wav"
    key = f"{block.session_uid} {name}", 0, packed.size

    def start() -> _Look:
        folder = MadeFolder("wav2sem_look_")
        file = folder.path / f"sound{Path(name).suffix[:_LONGEST_SUFFIX]}"
        try:
            file.write_bytes(packed.data)
        except OSError:
            folder.remove()
            raise
        return _start(file, name, folder)

    return _answer(key, name, start, patience_s)


def second_blender(*task: str) -> list[str]:
    """The command line of a task in a second Blender."""
    arguments = ("--run", "blender.sound.second_blender", *task)
    if bpy.app.binary_path:
        options = ("--background", "--factory-startup", "--python", str(environment.BOOT_SCRIPT), "--")
        return [bpy.app.binary_path, *options, *arguments]
    return [sys.executable, str(environment.BOOT_SCRIPT), *arguments]  # Blender as a module


def any_running() -> bool:
    """Whether a sound is being looked at."""
    return bool(_running)


def shut_down() -> None:
    """End all looks and their timer."""
    for key in list(_running):
        _end(key)
    if bpy.app.timers.is_registered(_watch):
        bpy.app.timers.unregister(_watch)


def duration_words(seconds: float) -> str:
    """As in "6.6 s", "7 s" or "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return Text("{minutes} min {rest} s", minutes=minutes, rest=rest)


def _answer(key: _Key, name: str, start: Callable[[], _Look], patience_s: float) -> SoundInfo:
    began_s = time.monotonic()
    while key not in _known:
        if key not in _running and len(_running) < _AT_ONCE:
            try:
                _running[key] = start()
            except OSError as error:
                reason = error.strerror or error
                raise UserError('"{file}" cannot be read now ({reason})', file=name, reason=reason) from error
            if not (bpy.app.background or bpy.app.timers.is_registered(_watch)):
                # persistent: loading a file ends other timers.
                bpy.app.timers.register(_watch, first_interval=_INTERVAL_S, persistent=True)
        _poll()
        if key in _known:
            break
        if not bpy.app.background and time.monotonic() - began_s >= patience_s:
            raise BeingReadError("The sound is still being read. Try again in a moment.")
        time.sleep(0.02)
    known = _known[key]
    if isinstance(known, UserError):
        raise UserError.of(known.text)
    return known


def _start(file: Path, name: str, unpacked: MadeFolder | None = None) -> _Look:
    if file.suffix.lower() in SOUNDFILE_SUFFIXES and find_spec("soundfile") is not None:
        worker = environment.embedded()
        command, variables = worker.run("worker.look", str(file)), worker.variables()
    else:
        command, variables = second_blender("look", str(file), name), dict(os.environ)
    return _Look(task=TaskProcess(command, variables, "", _LIMIT_S), name=name, unpacked=unpacked)


def _poll() -> bool:
    """Take the answers that are there; whether there was one."""
    n_before = len(_running)
    for key, look in list(_running.items()):
        try:
            if not look.task.poll():
                continue
            _known[key] = SoundInfo(**look.task.result)
        except TaskDiedError:
            _known[key] = UserError(
                '"{file}" is damaged: the program that read it crashed or did not end; choose another file',
                file=look.name,
            )
        except TaskFailedError as error:
            _known[key] = error
        except TypeError:  # a result of another shape
            _known[key] = UserError(
                '"{file}" has no sound that Blender can read; choose another file',
                file=look.name,
            )
        _end(key)
    while len(_known) > _REMEMBERED:
        del _known[next(iter(_known))]
    return len(_running) < n_before


def _end(key: _Key) -> None:
    look = _running.pop(key)
    look.task.cancel()
    if look.unpacked is not None:
        look.unpacked.remove()


def _watch() -> float | None:
    if _poll():
        redraw(bpy.context)
    return _INTERVAL_S if _running else None
