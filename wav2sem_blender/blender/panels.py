# SPDX-License-Identifier: GPL-3.0-or-later
"""The Speech tab in the 3D viewport's sidebar."""

from __future__ import annotations

import bpy

from . import jobs
from .operators import WAV2SEM_OT_animate, disabled_reason
from .sidebar import SpeechPanel


class WAV2SEM_PT_speech(SpeechPanel, bpy.types.Panel):
    """Which audio speaks."""

    bl_label = "Speech"
    bl_order = 0

    def draw(self, context: bpy.types.Context) -> None:
        """The source."""
        layout, settings = _columns(self.layout), context.scene.wav2sem
        layout.row().prop(settings, "source", expand=True)
        layout.prop(settings, {"FILE": "filepath", "STRIP": "strip", "SOUND": "sound"}[settings.source])


class WAV2SEM_PT_face(SpeechPanel, bpy.types.Panel):
    """Which mesh speaks it."""

    bl_label = "Face"
    bl_order = 1

    def draw(self, context: bpy.types.Context) -> None:
        """The mesh."""
        layout, settings = _columns(self.layout), context.scene.wav2sem
        layout.prop(settings, "target", placeholder=_active_mesh_name(context))


class WAV2SEM_PT_animate(SpeechPanel, bpy.types.Panel):
    """How it is spoken, and the button."""

    bl_label = "Animate"
    bl_order = 2

    def draw(self, context: bpy.types.Context) -> None:
        """The settings, and the button or the progress."""
        layout, settings = _columns(self.layout), context.scene.wav2sem
        layout.prop(settings, "model")
        layout.prop(settings, "style", placeholder="First")
        if settings.source != "STRIP":
            layout.prop(settings, "start_frame")
        layout.prop(settings, "strength")
        layout.prop(settings, "semantic_strength")
        _draw_button(layout, context)


def _columns(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """Names to the left, values to the right."""
    layout.use_property_split = True
    layout.use_property_decorate = False
    return layout


def _draw_button(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    job = jobs.current()
    if job is not None:
        layout.progress(factor=job.fraction, text=f"{job.title}: {job.fraction:.0%}")
        layout.label(text="Press Esc to Cancel")
        return
    missing = missing_setting(context)
    row = layout.row()
    row.scale_y = 1.4
    row.enabled = not missing
    row.operator(WAV2SEM_OT_animate.bl_idname, icon="PLAY")
    if missing:
        layout.label(text=missing, icon="INFO")


def missing_setting(context: bpy.types.Context) -> str:
    """What the user has to choose before the button works, or nothing."""
    settings = context.scene.wav2sem
    reason = disabled_reason(context)
    if reason:
        return reason
    if not getattr(settings, {"FILE": "filepath", "STRIP": "strip", "SOUND": "sound"}[settings.source]):
        return {"FILE": "Choose an audio file", "STRIP": "Choose a sound strip", "SOUND": "Choose a sound"}[
            settings.source
        ]
    if settings.target is None and not _active_mesh_name(context):
        return "Choose a mesh, or select one"
    return ""


def _active_mesh_name(context: bpy.types.Context) -> str:
    active = context.view_layer.objects.active
    return active.name if active is not None and active.type == "MESH" else ""


CLASSES = (WAV2SEM_PT_speech, WAV2SEM_PT_face, WAV2SEM_PT_animate)
