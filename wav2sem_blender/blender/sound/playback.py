# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays the panel's sound, without playing the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ...errors import UserError

import aud  # isort: skip  (found only beside bpy)

from .. import compat
from ..tasks.redraw import redraw
from . import info, look, source

_LOOK_S = 0.2

_handle: Any = None


def is_playing() -> bool:
    """Whether the button's sound is heard now."""
    return _handle is not None and bool(_handle.status)


def stop() -> None:
    """Stop the sound."""
    global _handle
    if _handle is not None:
        _handle.stop()
        _handle = None


def end_playback() -> None:
    """Stop the sound and the timer that watches it."""
    stop()
    if bpy.app.timers.is_registered(_watch):
        bpy.app.timers.unregister(_watch)


def play(scene: bpy.types.Scene) -> bool:
    """Start the sound; False without a sound device.

    Raises:
        UserError: The sound cannot be found or played.
    """
    global _handle
    info.ask_for_chosen(scene)
    info.check_chosen_range(scene.wav2sem, info.chosen_info(scene, look.PATIENCE_S))
    try:
        device = aud.Device()
    except aud.error:  # for example if PulseAudio is the only one and does not run
        return False
    try:
        _handle = device.play(_heard(scene))
    except aud.error as error:
        block = info.chosen_sound(scene)
        name = Path(scene.wav2sem.filepath).name if block is None else block.name
        raise UserError('"{name}" cannot be played. Choose another sound.', name=name) from error
    if not bpy.app.timers.is_registered(_watch):
        bpy.app.timers.register(_watch, first_interval=_LOOK_S, persistent=True)
    return is_playing()


def _heard(scene: bpy.types.Scene) -> Any:
    """The panel's sound, limited to the strip's trim and the range."""
    settings = scene.wav2sem
    heard = info.opened(scene)
    start_s, stop_s, later_s = 0.0, None, 0.0
    if settings.source == "STRIP":
        strip = compat.find_strip(scene, settings.strip)
        start_s, stop_s, later_s = source.trimmed_part(strip, compat.strip_rate_hz(strip))
    if settings.use_range:
        stop_s = start_s + settings.range_end_s - later_s if settings.range_end_s else stop_s
        start_s += max(0.0, settings.range_start_s - later_s)
    return heard if not start_s and stop_s is None else heard.limit(start_s, -1.0 if stop_s is None else stop_s)


def _watch() -> float | None:
    """Redraw the button when the sound ends."""
    if is_playing():
        return _LOOK_S
    redraw(bpy.context)
    return None
