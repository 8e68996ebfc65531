# SPDX-License-Identifier: GPL-3.0-or-later
"""The Jaw Bone panel and its two buttons."""

from __future__ import annotations

from math import radians
from typing import ClassVar

import bpy
from bpy.props import EnumProperty, FloatProperty, StringProperty

from ...errors import Text, UserError
from .. import compat
from ..scene.controls import armature_of
from ..scene.jaw_bone import AXES, OPEN_ANGLE, drive, driven_bones, guess_jaw_bone, release
from ..tasks.task import running_task
from .widgets import AddonOperator, FaceSubPanel, blocked_reason, chosen_face, draw_text, face_of


class _JawOperator(AddonOperator):
    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why the jaw bone cannot be changed."""
        return cls.missing(face_of(context))

    @classmethod
    def missing(cls, face: bpy.types.Object | None) -> str:
        """What the button needs; empty when nothing is missing."""
        reason = blocked_reason(face)
        if reason:
            return reason
        armature = armature_of(face)  # type: ignore[arg-type]
        if armature is None:
            return Text('"{face}" has no armature', face=face.name)  # type: ignore[union-attr]
        if armature.library:
            return Text(
                'The armature "{armature}" is linked from another file; make a library override of it first',
                armature=armature.name,
            )
        return ""


def _suggest_bones(_self: object, context: bpy.types.Context, _text: str) -> list[str]:
    face = face_of(context)
    armature = armature_of(face) if face else None
    return armature.pose.bones.keys() if armature else []


class WAV2SEM_OT_drive_jaw_bone(_JawOperator, bpy.types.Operator):
    """Add a driver that rotates the jaw bone with the shape keys. Not needed where the keys open the jaw themselves"""

    bl_idname = "wav2sem.drive_jaw_bone"
    bl_label = "Drive Jaw Bone"

    bone: StringProperty(  # type: ignore[valid-type]
        name="Bone",
        description="Name of the bone; found by name if empty",
        search=_suggest_bones,
        search_options={"SUGGESTION"},
        options={"SKIP_SAVE"},
    )
    axis: EnumProperty(name="Axis", description="Axis that the bone rotates around", items=AXES)  # type: ignore[valid-type]
    angle: FloatProperty(  # type: ignore[valid-type]
        name="Angle",
        description="Rotation when the jaw is fully open; a negative value rotates the other way",
        default=OPEN_ANGLE,
        min=radians(-90),
        max=radians(90),
        subtype="ANGLE",
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> compat.Result:
        """Ask for the bone, the axis and the angle."""
        self.bone = self.bone or guess_jaw_bone(_suggest_bones(self, context, "")) or ""
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Write the driver, replacing an earlier one of the add-on's."""
        face = chosen_face(context)
        try:
            name = drive(face, self.bone, self.axis, self.angle)
        except UserError as error:
            return self._failed(error)
        self.tell({"INFO"}, Text('The bone "{name}" follows the shape keys of "{face}"', name=name, face=face.name))
        return {"FINISHED"}


class WAV2SEM_OT_release_jaw_bone(_JawOperator, bpy.types.Operator):
    """Remove the driver from the jaw bone and return the bone to rest"""

    bl_idname = "wav2sem.release_jaw_bone"
    bl_label = "Release Jaw Bone"

    @classmethod
    def missing(cls, face: bpy.types.Object | None) -> str:
        """Also a driver of the add-on's."""
        reason = super().missing(face)
        return reason or ("" if driven_bones(armature_of(face)) else "No jaw bone is driven")  # type: ignore[arg-type]

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Release every bone that follows this face."""
        release(chosen_face(context))
        return {"FINISHED"}


class WAV2SEM_PT_jaw_bone(FaceSubPanel, bpy.types.Panel):
    """The jaw bone's driver."""

    bl_label = "Jaw Bone"
    bl_order = 2
    bl_options: ClassVar = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draw which bone it is, and the button to drive or release it."""
        layout, face = self.layout, face_of(context)
        layout.enabled = running_task() is None
        armature = armature_of(face) if face else None
        driven = driven_bones(armature)
        if driven:
            draw_text(layout, context, Text("{bone} follows the shape keys", bone=driven[0]), "BONE_DATA")
            layout.operator(WAV2SEM_OT_release_jaw_bone.bl_idname, icon="X")
            return
        name = guess_jaw_bone(armature.pose.bones.keys()) if armature else None
        draw_text(layout, context, Text("Jaw bone: {name}", name=name) if name else "No jaw bone found", "BONE_DATA")
        layout.operator(WAV2SEM_OT_drive_jaw_bone.bl_idname, icon="DRIVER")


CLASSES = (WAV2SEM_OT_drive_jaw_bone, WAV2SEM_OT_release_jaw_bone, WAV2SEM_PT_jaw_bone)
