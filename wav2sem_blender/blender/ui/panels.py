# SPDX-License-Identifier: GPL-3.0-or-later
"""The Speech tab in the 3D viewport's sidebar: which audio, which face, and how it speaks."""

from __future__ import annotations

from typing import Any

import bpy

from ...errors import Text, UserError
from .. import compat
from ..animate.settings import articulation_problem, style_names, tongue_problem
from ..scene import parts
from ..sound import info as sound_info
from ..sound import playback
from ..sound.look import BeingReadError
from ..tasks.asked import NotAskedError
from ..tasks.task import running_task
from ..translations import translated
from . import status
from .animate import WAV2SEM_OT_animate
from .first_start import WAV2SEM_OT_add_demo_head, WAV2SEM_OT_self_test
from .playback import WAV2SEM_OT_play_speech, WAV2SEM_OT_read_sound
from .presets_menu import WAV2SEM_PT_presets
from .task_operator import draw_progress
from .widgets import SpeechPanel, columns, draw_text, face_of

_SOURCES = {"FILE": "filepath", "STRIP": "strip", "SOUND": "sound", "SPEAKER": "speaker"}
# The button's height, and that of the progress bar in its place.
_BUTTON_HEIGHT = 1.4
# Share of the row that describes the sound; its button has the rest.
_INFO_SHARE = 0.68


class WAV2SEM_PT_speech(SpeechPanel, bpy.types.Panel):
    """Which audio speaks."""

    bl_label = "Speech"
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        """The source, its length and format, and a button to play it."""
        layout, settings = columns(self.layout.column()), context.scene.wav2sem
        row = layout.row()
        row.use_property_split = False
        row.prop(settings, "source", expand=True)
        chosen = _SOURCES[sound_info.source_of(settings)]
        layout.prop(settings, chosen)
        try:
            words = sound_info.chosen_info(context.scene).words()
        except NotAskedError:
            layout.operator(WAV2SEM_OT_read_sound.bl_idname, icon="FILE_REFRESH")
            return
        except BeingReadError:
            words = Text("Reading the Sound")
        except UserError as error:
            draw_text(layout, context, error.text, "ERROR" if getattr(settings, chosen) else "INFO")
            return
        row = columns(self.layout.column()).split(factor=_INFO_SHARE)
        row.label(text=translated(words))
        is_playing = playback.is_playing()
        icon: Any
        icon, text = ("SNAP_FACE", "Stop") if is_playing else ("PLAY", "Play")
        row.operator(WAV2SEM_OT_play_speech.bl_idname, text=text, icon=icon)


class WAV2SEM_PT_face(SpeechPanel, bpy.types.Panel):
    """Which mesh speaks."""

    bl_label = "Face"
    bl_order = 1

    def draw(self, context: bpy.types.Context) -> None:
        """The mesh, and what was recognised."""
        layout, settings, active = columns(self.layout), context.scene.wav2sem, face_of(context)
        name = active.name if active is not None else ""
        # Blender would translate a placeholder such as "Cube".
        layout.prop(settings, "target", text=translated("Mesh"), placeholder=name, translate=False)
        for sentence, icon in status.face_words(context):
            draw_text(layout, context, sentence, icon)
        if active is not None and (found := parts.candidates(active, context.scene)):
            column = layout.column(heading="Parts", align=True)
            for part in found:
                column.prop(part, "wav2sem_follows", text=part.name, translate=False)
        if active is not None and active.data.shape_keys is not None:
            layout.prop(settings, "same_collection")
        if status.no_face_yet(context):
            layout.operator(WAV2SEM_OT_add_demo_head.bl_idname, icon="USER")
            layout.operator(WAV2SEM_OT_self_test.bl_idname, icon="PLAY")


class WAV2SEM_PT_animate(SpeechPanel, bpy.types.Panel):
    """How the face speaks, and the button."""

    bl_label = "Animate"
    bl_order = 2

    def draw_header_preset(self, _context: bpy.types.Context) -> None:
        """The preset menu."""
        self.layout.enabled = running_task() is None
        WAV2SEM_PT_presets.draw_panel_header(self.layout)

    def draw(self, context: bpy.types.Context) -> None:
        """The button or the progress, which a small window shows too, and the settings."""
        layout, settings = self.layout, context.scene.wav2sem
        _draw_button(layout, context)
        column = columns(layout.column())
        column.prop(settings, "model")
        column.prop(settings, "style", placeholder=next(iter(style_names(context, settings.model)), ""))
        _draw_if_possible(column, context, "articulation", articulation_problem(context, settings.model))
        column.separator()
        for name in ("strength", "semantic_strength", "smoothing_s", "delay_s"):
            column.prop(settings, name)
        _draw_if_possible(column, context, "tongue", tongue_problem(context, settings.model))
        column.separator()
        _draw_start_frame(column, context.scene)
        row = column.row(heading="Range")
        row.prop(settings, "use_range", text="")
        part = row.row(align=True)
        part.use_property_split = False
        part.enabled = settings.use_range
        part.prop(settings, "range_start_s", text="")
        part.prop(settings, "range_end_s", text="")


def _draw_if_possible(layout: bpy.types.UILayout, context: bpy.types.Context, name: str, problem: str) -> None:
    """A setting; greyed out, with the reason, where the model cannot do it."""
    row = layout.row()
    row.enabled = not problem
    row.prop(context.scene.wav2sem, name, slider=True)
    if problem:
        draw_text(layout, context, problem, "INFO")


def _draw_start_frame(layout: bpy.types.UILayout, scene: bpy.types.Scene) -> None:
    """The setting, or a strip's own start frame, greyed out."""
    settings = scene.wav2sem
    strip = compat.find_strip(scene, settings.strip) if settings.source == "STRIP" else None
    row = layout.row()
    row.enabled = settings.source != "STRIP"
    if strip is None:
        row.prop(settings, "start_frame")
    else:
        row.prop(strip, compat.strip_start_name(strip), text="Start Frame")


def _draw_button(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    """The button, or while a task runs its progress; below it why the button is off, or how long a run takes."""
    task, reason = running_task(), ""
    row = layout.row(align=task is not None)
    row.scale_y = _BUTTON_HEIGHT
    if task is not None:
        draw_progress(row, task)
    else:
        row.operator_context = "INVOKE_DEFAULT"  # so that the poll runs in the sidebar's context
        row.operator(WAV2SEM_OT_animate.bl_idname, icon="PLAY")
        reason = status.run_disabled_reason(context) or status.speak_disabled_reason(context)
    if reason:
        draw_text(layout, context, reason, "INFO")
    elif duration := status.run_words(context):
        draw_text(columns(layout.column()), context, duration, "TIME")


CLASSES = (WAV2SEM_PT_speech, WAV2SEM_PT_face, WAV2SEM_PT_animate)
