# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel Any Head and its buttons: landmarks, then keys."""

from __future__ import annotations

import bpy

from ..scene import checks
from ..scene.any_head import creating_keys, landmark_empties, made_keys, placing_landmarks
from ..tasks.in_thread import Computing
from ..tasks.running import current, why_wait
from .task_operator import JobOperator, draw_progress
from .widgets import AddonOperator, FaceSubPanel, blocked_reason, face_of, say


class _FaceOperator(AddonOperator):
    """What the buttons share: they work on the face, in Object Mode."""

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """What is missing, or nothing."""
        in_object_mode = context.mode == "OBJECT"
        return (
            why_wait() or blocked_reason(face_of(context)) or ("" if in_object_mode else "Return to Object Mode first")
        )


class _ComputingOperator(JobOperator, _FaceOperator):
    """Those that compute first; `_computing` is the operator's own."""

    def _make(self, context: bpy.types.Context) -> Computing:
        return self._computing(context).start()

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Compute, then write in one go."""
        try:
            outcome = self._computing(context).finish()
        except Exception as error:
            return self._failed(error)
        return self._finished(outcome, [])

    def _computing(self, context: bpy.types.Context) -> Computing:
        raise NotImplementedError


class WAV2SEM_OT_place_landmarks(_ComputingOperator, bpy.types.Operator):
    """Put ten empties on the face where its nose, mouth, chin and eyes are guessed to be, to be dragged into place"""

    bl_idname = "wav2sem.place_landmarks"
    bl_label = "Place Landmarks"

    def _computing(self, context: bpy.types.Context) -> Computing:
        return placing_landmarks(face_of(context), context)

    def _finished(self, was_found: bool, _notes: list[str]) -> set[str]:
        if was_found:
            self.tell({"INFO"}, "Landmarks placed; drag those that are off, then create the keys")
        else:
            self.tell({"WARNING"}, "No face was found on this mesh; drag every landmark to its place")
        return {"FINISHED"}


class WAV2SEM_OT_remove_landmarks(_FaceOperator, bpy.types.Operator):
    """Remove the empties of this face; keys that were made stay"""

    bl_idname = "wav2sem.remove_landmarks"
    bl_label = "Remove Landmarks"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove them."""
        empties = landmark_empties(face_of(context))
        if not empties:
            self.tell({"INFO"}, "There are no landmarks on this face")
            return {"CANCELLED"}
        for empty in empties.values():
            bpy.data.objects.remove(empty)
        return {"FINISHED"}


class WAV2SEM_OT_create_speech_keys(_ComputingOperator, bpy.types.Operator):
    """Make keys for mouth, jaw, lids and brows on this head; teeth, tongue and eyes follow. Takes some seconds"""

    bl_idname = "wav2sem.create_speech_keys"
    bl_label = "Create Speech Keys"

    def _computing(self, context: bpy.types.Context) -> Computing:
        return creating_keys(face_of(context), context)

    def _finished(self, made: str, _notes: list[str]) -> set[str]:
        self.tell({"INFO"}, made)
        return {"FINISHED"}


class WAV2SEM_PT_transfer(FaceSubPanel, bpy.types.Panel):
    """Shown for a face that cannot speak yet, and for one whose keys were made here."""

    bl_label = "Any Head"
    bl_order = 1

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only where it is of use."""
        face = face_of(context)
        return face is not None and (bool(made_keys(face.data)) or not checks.recognised(face)[1])

    def draw(self, context: bpy.types.Context) -> None:
        """Landmarks, then keys."""
        layout, face, job = self.layout, face_of(context), current()
        body = layout.column()
        body.enabled = job is None
        placed = len(landmark_empties(face))
        if placed:
            say(body, context, "Drag the landmarks into place", "EMPTY_AXIS")
        row = body.row(align=True)
        row.operator(WAV2SEM_OT_place_landmarks.bl_idname, icon="OUTLINER_OB_EMPTY")
        if placed:
            row.operator(WAV2SEM_OT_remove_landmarks.bl_idname, text="", icon="X")
        if isinstance(job, Computing):
            draw_progress(layout.row(align=True), job)
        else:
            body.operator(WAV2SEM_OT_create_speech_keys.bl_idname, icon="SHAPEKEY_DATA")


CLASSES = (
    WAV2SEM_OT_place_landmarks,
    WAV2SEM_OT_remove_landmarks,
    WAV2SEM_OT_create_speech_keys,
    WAV2SEM_PT_transfer,
)
