# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel's sound: which one it is, and what is known of it. Asked at every redraw (`look.py` remembers)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy

from ...errors import Text, UserError

import aud  # isort: skip  (found only beside bpy)

from .. import compat
from ..tasks.asked import ask, check_asked
from . import look, source
from .look import SoundInfo

NOTHING_CHOSEN = {
    "FILE": "Choose an audio file",
    "STRIP": "Choose a sound strip",
    "SOUND": "Choose a sound",
    "SPEAKER": "Choose a speaker",
}


class NothingChosenError(UserError):
    """The panel's source is empty."""


def chosen_info(scene: bpy.types.Scene, patience_s: float = 0.0) -> SoundInfo:
    """The sound that the panel's source is.

    Args:
        scene: The scene.
        patience_s: How long to wait for a sound that was not looked at yet.

    Raises:
        NotAskedError: It is outside of this file, and the user has not chosen it or acted on it in this session.
        look.BeingReadError: It is not known yet.
        UserError: Nothing is chosen, or it has no sound.
    """
    settings = scene.wav2sem
    if source_of(settings) == "FILE" and settings.filepath:
        check_asked(settings.filepath)
        return look.at_file(source.absolute(settings.filepath), patience_s)
    block = chosen_sound(scene)
    if block is None:
        raise NothingChosenError(NOTHING_CHOSEN[source_of(settings)])
    if block.packed_file is None:
        check_asked(block.filepath, block.library)
        info = look.at_file(Path(chosen_path(scene)), patience_s)
    else:
        info = look.at_packed(block, patience_s)
    if settings.source != "STRIP":
        return info
    strip = compat.find_strip(scene, settings.strip)
    return replace(info, duration_s=compat.strip_times(strip).duration / compat.strip_rate_hz(strip))


def source_of(settings: Any) -> str:
    """The panel's source; a file's, where the scene of another version or of a stranger has one that is none."""
    return settings.source or "FILE"


def ask_for_chosen(scene: bpy.types.Scene) -> None:
    """The user has chosen the panel's sound, or acted on it: panels may look at it from now on."""
    with suppress(UserError):
        block = chosen_sound(scene)
        if block is not None:
            ask(block.filepath, block.library)
        elif scene.wav2sem.filepath:
            ask(scene.wav2sem.filepath)


def check_chosen_is_asked(scene: bpy.types.Scene) -> None:
    """Raise NotAskedError unless the user has asked for the place of the panel's sound; as `chosen_sound`.

    A packed sound is in this file, but what lies beside its place is not.
    """
    block = chosen_sound(scene)
    if block is None:
        check_asked(scene.wav2sem.filepath)
    else:
        check_asked(block.filepath, block.library)


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
