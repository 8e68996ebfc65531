# SPDX-License-Identifier: GPL-3.0-or-later
"""The button that plays the chosen sound, and stops it."""

from __future__ import annotations

from typing import ClassVar

import bpy

from ..sound import info as sound_info
from ..sound import playback
from .widgets import AddonOperator


class WAV2SEM_OT_play_speech(AddonOperator, bpy.types.Operator):
    """Play the chosen sound, or stop it"""

    bl_idname = "wav2sem.play_speech"
    bl_label = "Play"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """A sound must be chosen; what is wrong with its file the click says, which a disabled button swallows."""
        if context.scene is None:
            return "There is no scene"
        if playback.is_playing():
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
        if playback.is_playing():
            playback.stop()
            return {"FINISHED"}
        try:
            if not playback.play(context.scene):
                return self._failed("Blender has no sound device. Choose one in Preferences > System > Sound.")
        except ValueError as error:
            return self._failed(error)
        return {"FINISHED"}


CLASSES = (WAV2SEM_OT_play_speech,)
