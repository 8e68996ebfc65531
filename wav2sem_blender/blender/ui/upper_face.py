# SPDX-License-Identifier: GPL-3.0-or-later
"""The Upper Face sub-panel, and the buttons that add and remove the upper face's animation."""

from __future__ import annotations

from dataclasses import replace

import bpy
from bpy.props import StringProperty

from ...errors import Text
from ...pipeline.upper_face import Settings
from .. import compat
from ..animate.settings import AnimateSettings
from ..scene import upper_face, upper_face_strips
from ..scene.head_sway import NOTHING_SWAYS, SwayTarget
from ..scene.write_motion import Outcome
from ..tasks.task import running_task
from ..translations import CONTEXT
from . import status, upper_face_properties
from .animate import FRESH, SpeechTaskOperator
from .widgets import AddonOperator, AnimateSubPanel, chosen_object, columns


class WAV2SEM_OT_add_upper_face(SpeechTaskOperator, bpy.types.Operator):
    """Add blinks, brow motion and eye darts that fit the audio; the mouth stays as it is. Replaces earlier ones"""

    bl_idname = "wav2sem.add_upper_face"
    bl_label = "Add Upper Face"

    seed: upper_face_properties.seed_property(**FRESH)  # type: ignore[valid-type]
    blinks_per_minute: upper_face_properties.blinks_property(**FRESH)  # type: ignore[valid-type]
    brows: upper_face_properties.brows_property(**FRESH)  # type: ignore[valid-type]
    eye_darts: upper_face_properties.eye_darts_property(**FRESH)  # type: ignore[valid-type]
    head_sway: upper_face_properties.head_sway_property(**FRESH)  # type: ignore[valid-type]
    sway_object: StringProperty(name="Sway", description="Object or armature that sways with the head", **FRESH)  # type: ignore[valid-type]
    sway_bone: StringProperty(name="Bone", description="Bone of the armature that sways", **FRESH)  # type: ignore[valid-type]

    @classmethod
    def _panel_reason(cls, context: bpy.types.Context) -> str:
        return status.upper_face_disabled_reason(context)

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        super()._fill_from_panel(context)
        given = self.properties.is_property_set
        settings, sway = upper_face_properties.panel_settings(context.scene)
        for name in upper_face_properties.AMOUNTS:
            if not given(name) and context.scene.is_property_set("wav2sem_upper_face"):
                setattr(self, name, getattr(settings, name))
        if not given("sway_object"):
            self.sway_object, self.sway_bone = sway.object_name, sway.bone_name

    def _settings(self) -> AnimateSettings:
        return replace(
            super()._settings(),
            upper_face=Settings(**{name: getattr(self, name) for name in upper_face_properties.AMOUNTS}),
            upper_face_only=True,
            sway=SwayTarget(object_name=self.sway_object, bone_name=self.sway_bone)
            if self.sway_object
            else NOTHING_SWAYS,
        )

    def _summary(self, outcome: Outcome) -> str:
        return upper_face.upper_face_summary(outcome)


class WAV2SEM_OT_remove_upper_face(AddonOperator, bpy.types.Operator):
    """Remove the blinks, brow motion and eye darts from the mesh; its shape keys stay"""

    bl_idname = "wav2sem.remove_upper_face"
    bl_label = "Remove Upper Face"

    object: StringProperty(  # type: ignore[valid-type]
        name="Mesh",
        description="Name of the mesh; the panel's or the active one if empty",
        translation_context=CONTEXT,
        **FRESH,
    )

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Some mesh must have such an animation."""
        if reason := status.run_disabled_reason(context):
            return reason
        is_there = any(
            upper_face_strips.has_upper_face(found) for found in context.scene.objects if found.type == "MESH"
        )
        return "" if is_there else "No mesh in this scene has upper-face animation"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Remove the add-on's tracks and actions."""
        target = bpy.data.objects.get(self.object) if self.object else chosen_object(context)
        name = self.object if target is None else target.name
        if not name:
            return self._failed("Choose a mesh, or select one")
        if target is None or not upper_face_strips.remove_upper_face(target):
            return self._failed(Text('"{name}" has no upper-face animation.', name=name))
        self.tell({"INFO"}, Text('Removed the upper-face animation of "{name}"', name=name))
        return {"FINISHED"}


class WAV2SEM_PT_upper_face(AnimateSubPanel, bpy.types.Panel):
    """Blinks, brows, eye darts and head sway."""

    bl_label = "Upper Face"
    bl_order = 0
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header(self, context: bpy.types.Context) -> None:
        """The checkbox that turns it on."""
        self.layout.enabled = running_task() is None
        self.layout.prop(context.scene.wav2sem_upper_face, "enabled", text="")

    def draw(self, context: bpy.types.Context) -> None:
        """Amounts, what sways, and the buttons."""
        layout, settings = columns(self.layout), context.scene.wav2sem_upper_face
        layout.active = settings.enabled
        for name in ("blinks_per_minute", "brows", "eye_darts"):
            layout.prop(settings, name)
        layout.separator()
        layout.prop(settings, "sway_object", placeholder="Nothing")
        if settings.sway_object is not None:
            if settings.sway_object.type == "ARMATURE":
                layout.prop(settings, "sway_bone")
            layout.prop(settings, "head_sway")
        layout.separator()
        layout.prop(settings, "seed")
        row = layout.row()
        row.operator_context = "INVOKE_DEFAULT"  # so that the poll runs in the sidebar's context
        row.operator(WAV2SEM_OT_add_upper_face.bl_idname)
        row.operator(WAV2SEM_OT_remove_upper_face.bl_idname, text="", icon="TRASH")


CLASSES = (WAV2SEM_OT_add_upper_face, WAV2SEM_OT_remove_upper_face, WAV2SEM_PT_upper_face)
