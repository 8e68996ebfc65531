# SPDX-License-Identifier: GPL-3.0-or-later
"""The button that plays and stops the chosen sound."""

from __future__ import annotations

from typing import ClassVar

import bpy

from ...errors import UserError
from .. import compat
from ..sound import info as sound_info
from ..sound import playback
from ..tasks.asked import ask
from ..tasks.redraw import redraw
from .widgets import AddonOperator


class WAV2SEM_OT_play_speech(AddonOperator, bpy.types.Operator):
    """Play the chosen sound, or stop it"""

    bl_idname = "wav2sem.play_speech"
    bl_label = "Play"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """A sound must be chosen. A file that cannot be read leaves the button on, and the click reports it."""
        if context.scene is None:
            return "There is no scene"
        if playback.is_playing():
            return ""
        try:
            info = sound_info.chosen_info(context.scene)
        except sound_info.NothingChosenError as error:
            return error.text
        except UserError:
            return ""
        try:
            sound_info.check_chosen_range(context.scene.wav2sem, info)
        except UserError as error:
            return error.text
        return ""

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Play or stop."""
        if playback.is_playing():
            playback.stop()
            return {"FINISHED"}
        try:
            if not playback.play(context.scene):
                return self._failed("Blender has no sound device. Choose one in Preferences > System > Sound.")
        except UserError as error:
            return self._failed(error)
        return {"FINISHED"}


class WAV2SEM_OT_read_sound(AddonOperator, bpy.types.Operator):
    """Open the sound that this file names, to show how long it is. A file of somebody else may name any place"""

    bl_idname = "wav2sem.read_sound"
    bl_label = "Read the Sound"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """It needs a scene."""
        return "There is no scene" if context.scene is None else ""

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Let the panels look at it."""
        sound_info.ask_for_chosen(context.scene)
        ask(context.scene.wav2sem.model)
        redraw(context)
        return {"FINISHED"}


CLASSES = (WAV2SEM_OT_play_speech, WAV2SEM_OT_read_sound)
