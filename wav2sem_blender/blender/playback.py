# SPDX-License-Identifier: GPL-3.0-or-later
"""The button that plays the chosen sound, and stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import bpy

import aud  # isort: skip  (found only beside bpy)

from . import compat, sound, sound_info
from .sidebar import SaysWhyNot, redraw

_LOOK_S = 0.2

_handle: Any = None


def is_playing() -> bool:
    """Whether the button's sound is heard now."""
    return _handle is not None and bool(_handle.status)


def stop() -> None:
    """Be silent."""
    global _handle
    if _handle is not None:
        _handle.stop()
        _handle = None


def shut_down() -> None:
    """Be silent, and watch nothing."""
    stop()
    if bpy.app.timers.is_registered(_watch):
        bpy.app.timers.unregister(_watch)


def _play(scene: bpy.types.Scene) -> bool:
    """Begin; False without a sound device, ValueError where the sound is gone or broken since the panel was drawn."""
    global _handle
    sound_info.check_range(scene.wav2sem, sound_info.of_scene(scene))
    try:
        device = aud.Device()
    except aud.error:  # as where PulseAudio is the only one and does not run
        return False
    try:
        _handle = device.play(_heard(scene))
    except aud.error as error:
        block = sound_info.chosen_sound(scene)
        name = Path(scene.wav2sem.filepath).name if block is None else block.name
        raise ValueError(f'"{name}" cannot be played. Choose another sound.') from error
    return is_playing()


def _heard(scene: bpy.types.Scene) -> Any:
    """The panel's sound, from where the trim or the range begins to where it ends."""
    settings = scene.wav2sem
    heard = sound_info.opened(scene)
    start_s, stop_s = 0.0, None
    if settings.source == "STRIP":
        strip = compat.find_strip(scene, settings.strip)
        start_s, stop_s = sound.trimmed_part(strip, compat.frame_rate_hz(scene))
    if settings.use_range:
        stop_s = start_s + settings.range_end_s if settings.range_end_s else stop_s
        start_s += settings.range_start_s
    return heard if not start_s and stop_s is None else heard.limit(start_s, -1.0 if stop_s is None else stop_s)


def _watch() -> float | None:
    """Until the sound ends, so that the button changes back."""
    if is_playing():
        return _LOOK_S
    redraw(bpy.context)
    return None


class WAV2SEM_OT_play_speech(SaysWhyNot, bpy.types.Operator):
    """Play the chosen sound, or stop it"""

    bl_idname = "wav2sem.play_speech"
    bl_label = "Play"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def why_not(cls, context: bpy.types.Context) -> str:
        """A sound must be chosen; what is wrong with its file the click says, which a disabled button swallows."""
        if context.scene is None:
            return "There is no scene"
        if is_playing():
            return ""
        try:
            info = sound_info.of_scene(context.scene)
        except sound_info.NothingChosenError as error:
            return str(error)
        except ValueError:
            return ""
        try:
            sound_info.check_range(context.scene.wav2sem, info)
        except ValueError as error:
            return str(error)
        return ""

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Play or stop."""
        if is_playing():
            stop()
            return {"FINISHED"}
        try:
            if not _play(context.scene):
                return self._failed("Blender has no sound device. Choose one in Preferences > System > Sound.")
        except ValueError as error:
            return self._failed(error)
        if not bpy.app.timers.is_registered(_watch):
            bpy.app.timers.register(_watch, first_interval=_LOOK_S, persistent=True)
        return {"FINISHED"}


CLASSES = (WAV2SEM_OT_play_speech,)
