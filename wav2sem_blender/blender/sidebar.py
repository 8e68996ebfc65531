# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Speech tab's panels and buttons share: where they stand, which mesh they work on, and saying why not."""

from __future__ import annotations

from typing import ClassVar

import bpy


class SpeechPanel:
    """A panel of the tab."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Speech"


class FaceSubPanel(SpeechPanel):
    """A panel inside Face."""

    bl_parent_id = "WAV2SEM_PT_face"


class AnimateSubPanel(SpeechPanel):
    """A panel inside Animate."""

    bl_parent_id = "WAV2SEM_PT_animate"


class SaysWhyNot:
    """A button that names what is missing while it is disabled; `why_not` is the operator's own."""

    bl_options: ClassVar = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Whether nothing is missing."""
        message = cls.why_not(context)  # type: ignore[attr-defined]
        if message:
            cls.poll_message_set(message)  # type: ignore[attr-defined]
        return not message


def chosen_object(context: bpy.types.Context) -> bpy.types.Object | None:
    """The object chosen in the panel, or the active one."""
    # Merely reading the settings would store an empty group with the scene.
    chosen = context.scene.wav2sem.target if context.scene.is_property_set("wav2sem") else None
    return chosen or context.view_layer.objects.active


def face_of(context: bpy.types.Context) -> bpy.types.Object | None:
    """The mesh chosen in the panel, or the active one."""
    face = chosen_object(context)
    return face if face is not None and face.type == "MESH" else None


def blocked_reason(face: bpy.types.Object | None) -> str:
    """Why nothing can be stored on this face, or nothing."""
    if face is None:
        return "Choose a mesh, or select one"
    if face.library:
        return f'"{face.name}" is linked from another file; make a library override of it first'
    return ""
