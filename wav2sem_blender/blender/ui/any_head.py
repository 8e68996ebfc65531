# SPDX-License-Identifier: GPL-3.0-or-later
"""The Any Head panel and its buttons: landmarks first, then keys."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from .. import compat
from ..scene import checks
from ..scene.any_head import creating_keys, landmark_empties, made_keys, placing_landmarks
from ..tasks.in_thread import ThreadTask
from ..tasks.task import running_task, why_wait
from .task_operator import TaskOperator, draw_progress
from .widgets import AddonOperator, FaceSubPanel, blocked_reason, chosen_face, draw_text, face_of


class _FaceOperator(AddonOperator):
    """Base of the buttons; they need the face and Object Mode."""

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why the face cannot be worked on."""
        in_object_mode = context.mode == "OBJECT"
        return (
            why_wait() or blocked_reason(face_of(context)) or ("" if in_object_mode else "Return to Object Mode first")
        )


class WAV2SEM_OT_place_landmarks(TaskOperator, _FaceOperator, bpy.types.Operator):
    """Place ten empties where nose, mouth, chin and eyes seem to be. Drag those that are off"""

    bl_idname = "wav2sem.place_landmarks"
    bl_label = "Place Landmarks"

    def _make(self, context: bpy.types.Context) -> ThreadTask:
        return placing_landmarks(chosen_face(context), context)

    def _finished(self, was_found: bool, _notes: Sequence[str]) -> compat.Result:
        if was_found:
            self.tell({"INFO"}, "Landmarks placed; drag those that are off, then create the keys")
        else:
            self.tell({"WARNING"}, "No face was found on this mesh; drag every landmark to its place")
        return {"FINISHED"}


class WAV2SEM_OT_remove_landmarks(_FaceOperator, bpy.types.Operator):
    """Remove the landmarks of this face; created keys stay"""

    bl_idname = "wav2sem.remove_landmarks"
    bl_label = "Remove Landmarks"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Remove the landmarks."""
        empties = landmark_empties(chosen_face(context))
        if not empties:
            self.tell({"INFO"}, "This face has no landmarks")
            return {"CANCELLED"}
        for empty in empties.values():
            bpy.data.objects.remove(empty)
        return {"FINISHED"}


class WAV2SEM_OT_create_speech_keys(TaskOperator, _FaceOperator, bpy.types.Operator):
    """Create keys for mouth, jaw, lids and brows; teeth, tongue and eyes follow. A dense head takes a few seconds"""

    bl_idname = "wav2sem.create_speech_keys"
    bl_label = "Create Speech Keys"

    def _make(self, context: bpy.types.Context) -> ThreadTask:
        return creating_keys(chosen_face(context), context)

    def _finished(self, made: str, _notes: Sequence[str]) -> compat.Result:
        self.tell({"INFO"}, made)
        return {"FINISHED"}


class WAV2SEM_PT_transfer(FaceSubPanel, bpy.types.Panel):
    """Landmarks and keys, for a face that cannot speak yet or whose keys were created here."""

    bl_label = "Any Head"
    bl_order = 1

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Whether the face needs keys or has created ones."""
        face = face_of(context)
        return face is not None and (bool(made_keys(face.data)) or not checks.recognised(face)[1])

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the buttons for landmarks, then for keys."""
        layout, face, task = self.layout, chosen_face(context), running_task()
        body = layout.column()
        body.enabled = task is None
        placed = len(landmark_empties(face))
        if placed:
            draw_text(body, context, "Drag the landmarks into place", "EMPTY_AXIS")
        row = body.row(align=True)
        row.operator(WAV2SEM_OT_place_landmarks.bl_idname, icon="OUTLINER_OB_EMPTY")
        if placed:
            row.operator(WAV2SEM_OT_remove_landmarks.bl_idname, text="", icon="X")
        if isinstance(task, ThreadTask):
            draw_progress(layout.row(align=True), task)
        else:
            body.operator(WAV2SEM_OT_create_speech_keys.bl_idname, icon="SHAPEKEY_DATA")


CLASSES = (
    WAV2SEM_OT_place_landmarks,
    WAV2SEM_OT_remove_landmarks,
    WAV2SEM_OT_create_speech_keys,
    WAV2SEM_PT_transfer,
)
