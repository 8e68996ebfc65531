# SPDX-License-Identifier: GPL-3.0-or-later
"""Decode a sound with Blender's own `aud` into a wav file; a long one in a second Blender, beside the interface.

`aud` decodes a sound in one call that nothing interrupts, 1.7 ms for a second of m4a, and no seek in it is exact, so
pieces would not fit together. This file is therefore also a script, which a Blender in the background runs by its path:
no relative imports here. Only `Sound.data` is used: `Sound.write` ends the whole process when the disk is full. So does
a mixdown, which is therefore made in the second Blender however short it is.
Shapes: S samples.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import bpy  # aud is found only beside it

import aud  # isort: skip
import numpy as np

# What is shorter stalls the interface for less than 50 ms, a start of Blender takes about a second.
SHORT_S = 20.0

# Blender 4.5 sometimes dies of a smooth transition, which it plays differently each time, too.
_MIXDOWNS = 5

# How long a mixdown may write nothing.
_PATIENCE_S = 60.0

_MARK = "wav2sem: "
_RENDER_IT = "Render the strip's sound to a file (Render > Render Audio), and choose that file."


@dataclass(frozen=True, kw_only=True)
class Task:
    """Write the mono sound of `source` between two times to the wav file `target`; `label` names it in errors.

    With `mix`, a file with one scene, `source` is that scene's mixdown and is made first.
    """

    source: str
    target: str
    label: str
    start_s: float = 0.0
    stop_s: float | None = None
    mix: str | None = None


class Decoding:
    """A task in progress; a short sound is done when this is made.

    Raises:
        ValueError: It is no file with sound.
        OSError: The decoded sound cannot be written.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._process: subprocess.Popen[str] | None = None
        self._tries = 1 if task.mix is None else _MIXDOWNS
        if task.mix is None and 0 <= length_s(task.source, task.label) <= SHORT_S:
            decode(task)
        else:
            self._process = _start(task)

    def poll(self) -> bool:
        """True when the file is there.

        Raises:
            ValueError: As above, with the second Blender's sentence.
        """
        if self._process is None:
            return True
        if self._process.poll() is None:
            return False
        process, self._process = self._process, None
        _, errors = process.communicate()
        if process.returncode:
            said = [line.removeprefix(_MARK) for line in errors.splitlines() if line.startswith(_MARK)]
            self._tries -= 1
            if not said and self._tries:
                self._process = _start(self._task)
                return False
            ended = f"The second Blender, which reads the sound, ended with {process.returncode}."
            remedy = "Convert the sound to wav." if self._task.mix is None else _RENDER_IT
            raise ValueError(said[-1] if said else f"{ended} {remedy}")
        return True

    def end(self) -> None:
        """Give up."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start(task: Task) -> subprocess.Popen[str]:
    script, arguments = str(Path(__file__)), ("--", json.dumps(asdict(task)))
    if bpy.app.binary_path:
        command = [bpy.app.binary_path, "--background", "--factory-startup", "--python", script, *arguments]
    else:  # Blender as a module; -P: this folder's files must not hide other modules
        command = [sys.executable, "-P", script, *arguments]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: no console pops up
        )
    except OSError as error:
        raise OSError(
            f"{command[0]} cannot be started ({error.strerror or error}). Convert the sound to wav."
        ) from error


def length_s(source: str | os.PathLike[str], label: str) -> float:
    """A sound's length as its file states it, negative when it does not.

    Raises:
        ValueError: It is no file with sound.
    """
    sound = aud.Sound.file(str(source))
    with _sentence(label):
        return float(sound.length / sound.specs[0])


def decode(task: Task) -> None:
    """Do it, in one go.

    Raises:
        ValueError: It is no file with sound.
        OSError: The decoded sound cannot be written.
    """
    sound = aud.Sound.file(task.source)
    with _sentence(task.label):
        rate_hz = round(sound.specs[0])
        # aud's mono is a weighted sum of the channels; its level does not matter, the pipeline normalises it.
        mono_S = sound.rechannel(1).data()[:, 0]
    mono_S = mono_S[round(task.start_s * rate_hz) : None if task.stop_s is None else round(task.stop_s * rate_hz)]
    if len(mono_S) == 0:
        raise ValueError(f"{task.label}: the sound is empty. Choose another one, or a longer part of it.")
    header = _wav_header(rate_hz, len(mono_S))
    target = Path(task.target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(header)
            file.write(np.ascontiguousarray(mono_S, dtype="<f4").data)


def mix_down(task: Task) -> None:
    """Make the source of a task: what its scene plays, in the steps of a rendered film's sound.

    Raises:
        ValueError: Blender cannot do it.
    """
    assert task.mix is not None
    try:
        Path(task.source).unlink(missing_ok=True)
        with bpy.data.libraries.load(task.mix) as (there, here):  # type: ignore[attr-defined]
            here.scenes = there.scenes
        scene = here.scenes[0]
        with bpy.context.temp_override(scene=scene, view_layer=scene.view_layers[0]):
            rate_hz = scene.render.ffmpeg.audio_mixrate
            bpy.ops.sound.mixdown(filepath=task.source, container="WAV", codec="PCM", format="F32", mixrate=rate_hz)
            _wait_for(Path(task.source))
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().rstrip(".")
        raise ValueError(f"{task.label}: what the strip plays cannot be mixed down ({reason}). {_RENDER_IT}") from error


def _wait_for(mixdown: Path) -> None:
    """Since 5.2 the operator leaves a mixdown to a job that nothing tells of; its length is written at the very end."""
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
    raise OSError(f"it got no further for {_PATIENCE_S:.0f} s")


def _wav_header(rate_hz: int, n_samples: int) -> bytes:
    """RIFF header of mono 32-bit float samples."""
    n_bytes = 4 * n_samples
    if n_bytes > 0xFFFFFFFF - 36:
        raise ValueError("The recording is longer than a wav file can be. Cut it into parts.")
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + n_bytes, b"WAVE"),
        *(b"fmt ", 16, 3, 1, rate_hz, 4 * rate_hz, 4, 32),
        *(b"data", n_bytes),
    )


@contextmanager
def _sentence(label: str) -> Iterator[None]:
    try:
        yield
    except aud.error as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{label}: no sound that Blender can read ({reason}). Choose another file.") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write into a sentence that names the file and the remedy, and leave no half-written file."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise OSError(
            f"The sound cannot be written to {path} ({error.strerror or error}). Free some space, or choose another "
            "folder in Preferences > File Paths > Temporary Files."
        ) from error


def _main() -> int:
    try:
        task = Task(**json.loads(sys.argv[sys.argv.index("--") + 1]))
        if task.mix is not None:
            mix_down(task)
        decode(task)
    except (ValueError, OSError) as error:
        print(f"{_MARK}{error}", file=sys.stderr, flush=True)
        return 1
    except MemoryError:
        print(f"{_MARK}The memory is not sufficient for the decoded sound.", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    os._exit(_main())  # neither Blender's own exit status nor its slow way out
