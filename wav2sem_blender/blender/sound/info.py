# SPDX-License-Identifier: GPL-3.0-or-later
"""Length, rate and channels of the panel's sound. Asked at every redraw: headers are cached, nothing is decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import bpy

from ...errors import Text, UserError

import aud  # isort: skip  (found only beside bpy)

from .. import compat
from . import source

NOTHING_CHOSEN = {
    "FILE": "Choose an audio file",
    "STRIP": "Choose a sound strip",
    "SOUND": "Choose a sound",
    "SPEAKER": "Choose a speaker",
}
_CHANNELS = {1: "mono", 2: "stereo"}


class NothingChosenError(UserError):
    """The panel's source is empty."""


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


def chosen_info(scene: bpy.types.Scene) -> SoundInfo:
    """The sound that the panel's source is.

    Raises:
        UserError: Nothing is chosen, or it has no sound.
    """
    settings = scene.wav2sem
    if settings.source == "FILE" and settings.filepath:
        return _of_file(str(source.absolute(settings.filepath)))
    block = chosen_sound(scene)
    if block is None:
        raise NothingChosenError(NOTHING_CHOSEN[settings.source])
    if block.packed_file is None:
        info = _of_file(chosen_path(scene))
    else:
        channels: Any = block.bl_rna.properties["channels"]
        n_channels = channels.enum_items[block.channels].value
        info = SoundInfo(duration_s=_packed_length_s(block), rate_hz=block.samplerate, n_channels=n_channels)
    if settings.source != "STRIP":
        return info
    strip = compat.find_strip(scene, settings.strip)
    return replace(info, duration_s=compat.strip_times(strip).duration / compat.frame_rate_hz(strip.id_data))


def chosen_sound(scene: bpy.types.Scene) -> bpy.types.Sound | None:
    """The sound data-block of the panel's strip, sound or speaker; None for a file or an empty source.

    Raises:
        UserError: The strip or speaker has no sound, or there is no strip of that name.
    """
    settings = scene.wav2sem
    if settings.source == "STRIP" and settings.strip:
        strip = compat.find_strip(scene, settings.strip)
        if strip is None:
            raise UserError('The sequencer has no sound strip "{strip}"; choose another one', strip=settings.strip)
        return _sound_in(strip, Text('The strip "{strip}"', strip=strip.name))
    if settings.source == "SPEAKER" and settings.speaker is not None:
        return _sound_in(settings.speaker.data, Text('The speaker "{speaker}"', speaker=settings.speaker.name))
    return settings.sound if settings.source == "SOUND" else None


def chosen_path(scene: bpy.types.Scene) -> str:
    """The path of the panel's sound, which may be packed.

    Raises:
        UserError: As `chosen_sound`, or as `source.absolute`.
    """
    block = chosen_sound(scene)
    if block is None:
        return str(source.absolute(scene.wav2sem.filepath))
    return str(source.absolute(block.filepath, block.library))


def opened(scene: bpy.types.Scene) -> aud.Sound:
    """The panel's whole sound, to be played by `aud`.

    Raises:
        UserError: As `chosen_sound`.
    """
    block = chosen_sound(scene)
    ready = None if block is None else block.factory
    return aud.Sound.file(chosen_path(scene)) if ready is None else ready


def check_chosen_range(settings: Any, info: SoundInfo) -> None:
    """Raise UserError if the panel's range leaves nothing of the sound."""
    if settings.use_range:
        source.check_range(settings.range_start_s, settings.range_end_s)
        if info.duration_s is not None and settings.range_start_s >= info.duration_s:
            raise UserError(
                "The sound ends at {duration_s:.2f} s, before the range begins; lower From",
                duration_s=info.duration_s,
            )


def _sound_in(owner: bpy.types.SoundStrip | bpy.types.Speaker, name: str) -> bpy.types.Sound:
    if owner.sound is None:
        raise UserError("{name} has no sound; choose another one", name=name)
    return owner.sound


def _of_file(path: str) -> SoundInfo:
    file = Path(path)
    try:
        status = os.stat(file)
    except OSError as error:
        raise UserError(
            'There is no file "{file}" in {parent}; choose it where it lies now',
            file=file.name,
            parent=file.parent,
        ) from error
    if file.is_dir():
        raise UserError('"{file}" is a folder; choose an audio file', file=file.name)
    info = _read(path, status.st_mtime_ns, status.st_size)
    if info is None:
        raise UserError('"{file}" has no sound that Blender can read; choose another file', file=file.name)
    return info


@lru_cache(maxsize=32)
def _read(path: str, _changed_ns: int, _n_bytes: int) -> SoundInfo | None:
    opened = aud.Sound.file(path)
    try:
        (rate_hz, n_channels), n_samples = opened.specs, opened.length
    except aud.error:
        return None
    return SoundInfo(duration_s=n_samples / rate_hz if n_samples >= 0 else None, rate_hz=rate_hz, n_channels=n_channels)


def _packed_length_s(block: bpy.types.Sound) -> float | None:
    """Length of a packed sound; None until Blender has loaded it for playing."""
    ready = block.factory
    return ready.length / ready.specs[0] if ready is not None and ready.length >= 0 else None


def duration_words(seconds: float) -> str:
    """As in "6.6 s", "7 s" or "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return Text("{minutes} min {rest} s", minutes=minutes, rest=rest)
