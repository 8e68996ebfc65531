# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the file that a run reads, and what must be decoded first.

The worker reads the common audio formats itself, with soundfile. Other formats (films, m4a) and trimmed or retimed
strips are decoded by Blender (`decode.py`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import bpy

from ...errors import MissingFileError, UserError
from ...files import cut_to_bytes
from .. import compat
from . import decode, look, retiming

# What no name may have on Windows, what a name may not be there, and lengths that every disk takes.
_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_RESERVED = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
_MOST_BYTES, _SUFFIX_BYTES = 100, 16


@dataclass(frozen=True, kw_only=True)
class Audio:
    """The sound of a run.

    Attributes:
        name: Its name for the user.
        file: The sound file.
        mix: A .blend file whose mixdown makes `file`; None if `file` exists.
        decoded: The file to decode into; None if the worker reads `file` itself.
        start_s: Start of the part to decode.
        stop_s: End of the part to decode; None for the end of the file.
        speed: How many times as fast the scene plays the sound. The model hears it at its own speed, and the motion is
            sped up or slowed down.
        later_s: Silence before it, in seconds as the scene plays it: a strip's Sound Offset.
    """

    name: str
    file: Path
    mix: Path | None = None
    decoded: Path | None = None
    start_s: float = 0.0
    stop_s: float | None = None
    speed: float = 1.0
    later_s: float = 0.0

    @property
    def for_worker(self) -> Path:
        """The file that the worker reads."""
        return self.decoded or self.file

    @property
    def is_part(self) -> bool:
        """Whether the worker does not hear all of `file`."""
        return self.stop_s is not None or self.start_s > 0

    def decoding(self) -> decode.Decoding | None:
        """Start decoding; None if nothing has to be decoded.

        Raises:
            UserError: The file has no sound.
            OSError: The decoded sound cannot be written.
        """
        if self.decoded is None:
            return None
        return decode.Decoding(
            decode.SoundPart(
                source=str(self.file),
                target=str(self.decoded),
                label=self.name,
                start_s=self.start_s,
                stop_s=self.stop_s,
                mix=None if self.mix is None else str(self.mix),
            )
        )


def absolute(path: str, library: bpy.types.Library | None = None) -> Path:
    """A path as Blender stores it, made absolute. Windows writes the rest of "//sound\\line.wav" with backslashes.

    Raises:
        UserError: It is relative to a file that was never saved.
    """
    if path.startswith("//") and library is None and not bpy.data.filepath:
        raise UserError(
            "{path} is relative to this .blend file, which was never saved. Save the file first.", path=path
        )
    found = Path(bpy.path.abspath(path, library=library)).absolute()
    if os.sep == "/" and "\\" in path and not found.exists():
        return Path(bpy.path.abspath(path.replace("\\", "/"), library=library)).absolute()
    return found


def audio_file(path: str | os.PathLike[str], folder: Path) -> Audio:
    """The sound of a file, to be decoded into `folder` if soundfile does not read its format.

    Raises:
        MissingFileError: There is no such file.
        UserError: It is a folder.
    """
    path = absolute(os.fspath(path))
    if path.is_dir():
        raise UserError("{path} is a folder. Choose an audio file.", path=path)
    if not path.is_file():
        raise MissingFileError("{file}: there is no such audio file. Choose it again where it is now.", file=path)
    readable = path.suffix.lower() in look.SOUNDFILE_SUFFIXES
    return Audio(name=path.name, file=path, decoded=None if readable else folder / f"{_legal(path.stem)}.wav")


def audio_of_sound(sound: bpy.types.Sound, folder: Path) -> Audio:
    """The sound of a data-block; a packed one is unpacked into `folder`.

    Raises:
        OSError: It cannot be unpacked, or as `audio_file`.
    """
    if sound.packed_file is None:
        audio = audio_file(absolute(sound.filepath, sound.library), folder)
    else:
        unpacked = folder / _legal(bpy.path.basename(sound.filepath) or f"{sound.name}.wav")
        with decode.writing(unpacked):
            folder.mkdir(parents=True, exist_ok=True)
            unpacked.write_bytes(sound.packed_file.data)
        audio = audio_file(unpacked, folder / "decoded")
    return replace(audio, name=sound.name)


def _legal(name: str) -> str:
    """A file name that every disk takes, for a sound of any name: a stranger's file may call a packed one anything."""
    stem, dot, suffix = _ILLEGAL.sub("_", name).rpartition(".")
    stem, suffix = (stem, suffix) if dot else (suffix, "")
    stem = f"_{stem}" if _RESERVED.fullmatch(stem) or not stem.strip(". ") else stem
    return f"{cut_to_bytes(stem, _MOST_BYTES)}{dot}{cut_to_bytes(suffix, _SUFFIX_BYTES)}"


def audio_of_strip(strip: bpy.types.SoundStrip, rate_hz: float, folder: Path) -> Audio:
    """What a sound strip of the sequencer plays, without its trimmed ends. Volume and pan are ignored.

    Args:
        strip: The strip.
        rate_hz: Scene frames per second.
        folder: For decoded sounds.

    Raises:
        UserError: It has no sound, or changes its speed and begins before frame 0.
        OSError: As `audio_of_sound`.
    """
    if strip.sound is None:
        raise UserError('The strip "{strip}" has no sound. Choose another strip.', strip=strip.name)
    whole = replace(audio_of_sound(strip.sound, folder), name=strip.name)
    if len(strip.retiming_keys) > 2:
        return _mixdown(strip, rate_hz, folder)
    speed = _constant_speed(strip, rate_hz, whole)
    start_s, stop_s, later_s = trimmed_part(strip, rate_hz, speed)
    if stop_s is None:
        return replace(whole, speed=speed)
    part = folder / "strip.wav"
    return replace(whole, decoded=part, start_s=start_s, stop_s=stop_s, speed=speed, later_s=later_s)


def trimmed_part(strip: bpy.types.SoundStrip, rate_hz: float, speed: float = 1.0) -> tuple[float, float | None, float]:
    """What a strip plays of its sound.

    Returns:
        Start and end, in seconds of its sound, the end being None if all of it is played; and how long the strip is
        silent before, in seconds as the scene plays it: a positive sound offset delays the sound within the strip.
    """
    times = compat.strip_times(strip)
    if not times.is_trimmed and not strip.sound_offset and times.start <= times.content_start:
        return 0.0, None, 0.0
    start_s = speed * (times.start - times.content_start) / rate_hz - strip.sound_offset
    start_s += times.animation_offset_start / rate_hz
    return max(0.0, start_s), start_s + speed * times.duration / rate_hz, max(0.0, -start_s / speed)


def part_of(audio: Audio, start_s: float, end_s: float, folder: Path) -> Audio:
    """The part of a sound between two times, in seconds as the scene plays it; `end_s` 0 is the end of the sound.

    Raises:
        UserError: There is nothing between them, or the file has no sound.
    """
    if not start_s and not end_s:
        return audio
    check_range(start_s, end_s)
    stop_s = decode.length_s(audio.file) if audio.stop_s is None else audio.stop_s
    length_s = audio.later_s + (stop_s - audio.start_s) / audio.speed
    if 0 <= length_s <= start_s:
        raise UserError(
            "{audio} is {length_s:.2f} s long, and the range begins at {start_s:.2f} s. Lower From.",
            audio=audio.name,
            length_s=length_s,
            start_s=start_s,
        )
    return replace(
        audio,
        decoded=audio.decoded or folder / "part.wav",
        start_s=audio.start_s + audio.speed * max(0.0, start_s - audio.later_s),
        stop_s=(
            audio.start_s + audio.speed * (end_s - audio.later_s)
            if end_s and not 0 <= length_s <= end_s
            else audio.stop_s
        ),
        later_s=max(0.0, audio.later_s - start_s),
    )


def check_range(start_s: float, end_s: float) -> None:
    """Raise UserError if the range is empty, whatever the sound."""
    if end_s and end_s <= start_s:
        raise UserError(
            "The range ends at {end_s:.2f} s but begins at {start_s:.2f} s. Raise To, or lower From.",
            end_s=end_s,
            start_s=start_s,
        )


def _mixdown(strip: bpy.types.SoundStrip, rate_hz: float, folder: Path) -> Audio:
    """What a strip with more than two retiming keys plays; its speed changes.

    The strip's mixdown is animated, because Blender does not expose the retiming curve and its player does not follow
    it. In 5.0.1 the player is up to 0.3 s ahead after a key. With Preserve Pitch (the default) it plays on during a
    freeze frame, which puts everything after it 1.5 s off.
    """
    mix = folder / "strip.blend"
    times, first_frame = compat.strip_times(strip), retiming.write_alone(strip, mix)
    start_s = (times.start - first_frame) / rate_hz
    return Audio(
        name=strip.name,
        file=folder / "mixdown.wav",
        mix=mix,
        decoded=folder / "strip.wav",
        start_s=start_s,
        stop_s=start_s + times.duration / rate_hz,
    )


def _constant_speed(strip: bpy.types.SoundStrip, rate_hz: float, whole: Audio) -> float:
    """Speed of a strip between its only two retiming keys.

    Blender exposes a key's frame in the timeline, but not its time in the sound. The first key is at the sound's start
    and the last at its end, so two keys give the speed.
    """
    keys = strip.retiming_keys
    if len(keys) < 2:
        return 1.0
    # Rounded as in the sequencer.
    n_content_frames = max(1, round(decode.length_s(whole.file) * rate_hz))
    return n_content_frames / (keys[1].timeline_frame - keys[0].timeline_frame)
