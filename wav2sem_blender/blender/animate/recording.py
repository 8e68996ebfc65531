# SPDX-License-Identifier: GPL-3.0-or-later
"""The sound that a run hears: the file, sound or strip of its settings, and the part that is spoken."""

from __future__ import annotations

from pathlib import Path

import bpy

from ...errors import UserError
from .. import compat
from ..sound import source
from ..sound.source import Audio
from .settings import AnimateSettings


def of_run(scene: bpy.types.Scene, settings: AnimateSettings, folder: Path) -> tuple[Audio, int]:
    """The sound, and the session_uid of its data-block; 0 for a file.

    Args:
        scene: Where a strip is.
        settings: Of the run.
        folder: For decoded and unpacked sounds.

    Raises:
        UserError: There is none, or nothing of it is in the settings' range.
        OSError: A packed sound cannot be unpacked.
    """
    audio, block_uid = _whole(scene, settings, folder)
    return source.part_of(audio, settings.range_start_s, settings.range_end_s, folder), block_uid


def _whole(scene: bpy.types.Scene, settings: AnimateSettings, folder: Path) -> tuple[Audio, int]:
    if settings.strip:
        strip = compat.find_strip(scene, settings.strip) or _strip_of_sound(scene, settings)
        if strip is None:
            raise UserError(
                'There is no sound strip named "{strip}" in this scene. Choose another one.', strip=settings.strip
            )
        block_uid = strip.sound.session_uid if strip.sound is not None else 0
        return source.audio_of_strip(strip, compat.strip_rate_hz(strip), folder), block_uid
    if settings.sound:
        block = _sound(settings) or bpy.data.sounds.get(settings.sound)
        if block is None:
            raise UserError('There is no sound named "{sound}" in this file. Choose another one.', sound=settings.sound)
        return source.audio_of_sound(block, folder), block.session_uid
    if not settings.filepath:
        raise UserError("No audio is chosen. Choose an audio file first.")
    return source.audio_file(settings.filepath, folder), 0


def _sound(settings: AnimateSettings) -> bpy.types.Sound | None:
    uid = settings.sound_uid
    return next((block for block in bpy.data.sounds if block.session_uid == uid), None) if uid else None


def _strip_of_sound(scene: bpy.types.Scene, settings: AnimateSettings) -> bpy.types.SoundStrip | None:
    """A strip that was renamed since the action was made, by the sound that the action remembers."""
    block = _sound(settings)
    return next((strip for strip in compat.sound_strips(scene) if block and strip.sound == block), None)
