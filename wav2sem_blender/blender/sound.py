# SPDX-License-Identifier: GPL-3.0-or-later
"""Audio that the worker cannot open by itself becomes a file that it can.

soundfile reads the common audio formats; films, m4a, packed sounds and trimmed strips are decoded here with Blender's
own `aud`. Only `Sound.data` is used: `Sound.write` ends the whole process when the disk is full.
Shapes: S samples.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aud
import bpy
import numpy as np

from . import compat

SOUNDFILE_SUFFIXES = frozenset(
    (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64")
)


def audio_file(path: str | os.PathLike[str], folder: Path) -> Path:
    """The file itself when soundfile reads its format, otherwise its sound decoded into `folder`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no file with sound.
        OSError: The decoded sound cannot be written.
    """
    path = Path(bpy.path.abspath(os.fspath(path))).absolute()
    if path.is_dir():
        raise ValueError(f"{path} is a folder. Choose an audio file.")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such audio file.")
    if path.suffix.lower() in SOUNDFILE_SUFFIXES:
        return path
    return _decode(path, folder / f"{path.stem}.wav", path.name)


def audio_of_sound(sound: bpy.types.Sound, folder: Path) -> Path:
    """The file of a sound data-block; a packed one is unpacked into `folder`.

    Raises:
        As `audio_file`.
    """
    if sound.packed_file is None:
        return audio_file(bpy.path.abspath(sound.filepath, library=sound.library), folder)
    unpacked = folder / (bpy.path.basename(sound.filepath) or f"{sound.name}.wav")
    with _writing(unpacked):
        folder.mkdir(parents=True, exist_ok=True)
        unpacked.write_bytes(sound.packed_file.data)
    return audio_file(unpacked, folder / "decoded")


def audio_of_strip(strip: bpy.types.SoundStrip, rate_hz: float, folder: Path) -> tuple[Path, float]:
    """What a sound strip of the sequencer plays, its trimmed ends left out, and how fast it plays it.

    The file has the sound's own speed, at which the model knows speech; the motion is what must run faster or slower.

    Args:
        strip: The strip; its volume and pan do not matter.
        rate_hz: Scene frames per second.
        folder: Where the cut sound goes.

    Returns:
        The file, and the strip's speed: 2 plays it in half the time.

    Raises:
        ValueError: The strip's speed changes within it, it has no sound, or as `audio_file`.
    """
    if strip.sound is None:
        raise ValueError(f'The strip "{strip.name}" has no sound.')
    whole = audio_of_sound(strip.sound, folder)
    speed = _constant_speed(strip, rate_hz, whole)
    times = compat.strip_times(strip)
    # A positive sound offset delays the sound within the strip.
    start_s = speed * (times.start - times.content_start) / rate_hz - strip.sound_offset
    if not times.is_trimmed and start_s <= 0.0:
        return whole, speed
    start_s = max(0.0, start_s + times.animation_offset_start / rate_hz)
    stop_s = start_s + speed * times.duration / rate_hz
    return _decode(whole, folder / "strip.wav", strip.name, start_s, stop_s), speed


def _constant_speed(strip: bpy.types.SoundStrip, rate_hz: float, whole: Path) -> float:
    """Speed of a strip between its only two retiming keys.

    Blender tells where a key lies in the timeline but not in the sound. The first lies at the sound's begin and the
    last at its end, so with two keys the speed is known; what lies between more of them is not.
    """
    keys = strip.retiming_keys
    if len(keys) < 2:
        return 1.0
    if len(keys) > 2:
        raise ValueError(
            f'The strip "{strip.name}" changes its speed ({len(keys)} retiming keys). Clear its retiming (Strip > '
            "Retiming > Reset), give the whole strip one speed before it is trimmed, or render its sound to a file."
        )
    sound = aud.Sound.file(str(whole))
    n_content_frames = max(1, round(sound.length / sound.specs[0] * rate_hz))  # as the sequencer counts them
    return n_content_frames / (keys[1].timeline_frame - keys[0].timeline_frame)


def _decode(source: Path, target: Path, label: str, start_s: float = 0.0, stop_s: float | None = None) -> Path:
    """Write the mono sound of `source` between two times as 32-bit float wav."""
    sound = aud.Sound.file(str(source))
    try:
        rate_hz = round(sound.specs[0])
        # In one go: seeking is not exact to the sample in every container. aud's mono is a weighted sum of the
        # channels; its level does not matter, the pipeline normalises it.
        mono_S = sound.rechannel(1).data()[:, 0]
    except aud.error as error:
        raise ValueError(f"{label}: no sound that Blender can read ({str(error).rstrip('.')}).") from error
    mono_S = mono_S[round(start_s * rate_hz) : None if stop_s is None else round(stop_s * rate_hz)]
    if len(mono_S) == 0:
        raise ValueError(f"{label}: the sound is empty.")
    header = _wav_header(rate_hz, len(mono_S))
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(header)
            file.write(np.ascontiguousarray(mono_S, dtype="<f4").data)
    return target


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
def _writing(path: Path) -> Iterator[None]:
    """Turn a failed write into a sentence that names the file and the remedy, and leave no half-written file."""
    try:
        yield
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(
            f"The sound cannot be written to {path} ({error.strerror or error}). Free some space, or choose another "
            "folder in Preferences > File Paths > Temporary Files."
        ) from error
