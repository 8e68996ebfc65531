# SPDX-License-Identifier: GPL-3.0-or-later
"""The Upper Face sub-panel, and the buttons that add and remove what it describes."""

from __future__ import annotations

from dataclasses import replace

import bpy
from bpy.props import StringProperty

from ...errors import Text
from ...pipeline.upper_face import Settings
from ..animate.settings import AnimateSettings
from ..scene import upper_face
from ..scene.head_sway import NOTHING_SWAYS, SwayTarget
from ..scene.write_motion import Outcome
from ..tasks import running
from ..translations import CONTEXT
from . import status, upper_face_properties
from .animate import FRESH, SpeechJobOperator
from .widgets import AddonOperator, AnimateSubPanel, chosen_object, columns


class WAV2SEM_OT_add_upper_face(SpeechJobOperator, bpy.types.Operator):
    """Add blinks, brows and eye darts that fit the audio, beside whatever moves the mouth. Replaces earlier ones"""

    bl_idname = "wav2sem.add_upper_face"
    bl_label = "Add Upper Face"

    seed: upper_face_properties.seed_property(**FRESH)  # type: ignore[valid-type]
    blinks_per_minute: upper_face_properties.blinks_property(**FRESH)  # type: ignore[valid-type]
    brows: upper_face_properties.brows_property(**FRESH)  # type: ignore[valid-type]
    eye_darts: upper_face_properties.eye_darts_property(**FRESH)  # type: ignore[valid-type]
    head_sway: upper_face_properties.head_sway_property(**FRESH)  # type: ignore[valid-type]
    sway_object: StringProperty(name="Sway", description="Object that sways with the head, or an armature", **FRESH)  # type: ignore[valid-type]
    sway_bone: StringProperty(name="Bone", description="Bone of the armature that sways", **FRESH)  # type: ignore[valid-type]

    @classmethod
    def _panel_lacks(cls, context: bpy.types.Context) -> str:
        return status.upper_face_disabled_reason(context)

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        super()._fill_from_panel(context)
        given = self.properties.is_property_set
        settings, sway = upper_face_properties.of_scene(context.scene)
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
        return upper_face.summary(outcome)


class WAV2SEM_OT_remove_upper_face(AddonOperator, bpy.types.Operator):
    """Remove the blinks, brows and eye darts that were added to the mesh; its shape keys stay"""

    bl_idname = "wav2sem.remove_upper_face"
    bl_label = "Remove Upper Face"

    object: StringProperty(
        name="Mesh",
        description="Name of the mesh; empty for the panel's or the active one",
        translation_context=CONTEXT,
        **FRESH,
    )  # type: ignore[valid-type]

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """There has to be one."""
        return _nothing_to_remove(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove our tracks and actions."""
        target = bpy.data.objects.get(self.object) if self.object else chosen_object(context)
        if target is None or not upper_face.remove(target):
            return self._failed(
                Text(
                    '"{object}" has no upper face that was added here.',
                    object=self.object or "The mesh",
                )
            )
        self.tell({"INFO"}, Text('The upper face of "{target}" is still again', target=target.name))
        return {"FINISHED"}


class WAV2SEM_PT_upper_face(AnimateSubPanel, bpy.types.Panel):
    """Blinks, brows, eye darts and head sway."""

    bl_label = "Upper Face"
    bl_order = 0
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header(self, context: bpy.types.Context) -> None:
        """The one switch."""
        self.layout.enabled = running.current() is None
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
        row.operator_context = "INVOKE_DEFAULT"  # so that it is the sidebar that asks whether it can work
        row.operator(WAV2SEM_OT_add_upper_face.bl_idname)
        row.operator(WAV2SEM_OT_remove_upper_face.bl_idname, text="", icon="TRASH")


def _nothing_to_remove(context: bpy.types.Context) -> str:
    if context.scene is None:
        return "There is no scene"
    if wait := running.why_wait():
        return wait
    if not any(upper_face.is_there(candidate) for candidate in context.scene.objects if candidate.type == "MESH"):
        return "No mesh of this scene has an upper face that was added here"
    return ""


CLASSES = (WAV2SEM_OT_add_upper_face, WAV2SEM_OT_remove_upper_face, WAV2SEM_PT_upper_face)
