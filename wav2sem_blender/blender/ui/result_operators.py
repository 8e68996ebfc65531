# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be done with the take that is selected in the Result panel: play, mute, bake, reduce, push, remove."""

from __future__ import annotations

import json
from dataclasses import fields

import bpy
from bpy.props import BoolProperty, FloatProperty, StringProperty

from ...errors import Text, UserError
from .. import addon_preferences
from ..addon_preferences import ENGINES
from ..animate.settings import AnimateSettings
from ..scene import reduction, takes, upper_face
from ..scene.takes import Take
from . import status
from .animate import FRESH, SpeechJobOperator
from .task_operator import JobOperator
from .widgets import AddonOperator, blocked_reason, face_of


def tolerance_property(**options: object) -> object:
    """How far a reduction may go."""
    return FloatProperty(
        name="Tolerance (mm)",
        description="How far any point of the face may be off when keys are reduced, in millimetres of the scene",
        default=0.2,
        min=0.0,
        soft_max=2.0,
        precision=2,
        step=5,
        **options,
    )


def selected(context: bpy.types.Context) -> Take | None:
    """The take that is selected in the list, or the uppermost one."""
    found = takes.of_face(face_of(context))
    chosen = context.window_manager.wav2sem_take
    return next((take for take in found if take.action.name == chosen), found[0] if found else None)


def no_take(context: bpy.types.Context) -> str:
    """Why no take of the chosen face can be worked on, or nothing."""
    busy = status.run_disabled_reason(context)
    if busy:
        return busy
    face = face_of(context)
    if not takes.of_face(face):
        return blocked_reason(face) or Text('"{face}" does not speak yet', face=face.name)  # type: ignore[union-attr]
    return ""


def named(face: bpy.types.Object | None, name: str) -> Take | None:
    """The take of that action."""
    return next((take for take in takes.of_face(face) if take.action.name == name), None)


class TakeOperator(AddonOperator):
    """What the buttons share: they work on the take that is selected in the list."""

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """What is missing, or nothing."""
        reason = no_take(context)
        return reason or cls.missing(selected(context))  # type: ignore[arg-type]

    @classmethod
    def missing(cls, _take: Take) -> str:
        """What this button needs of the take, or nothing."""
        return ""

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Do it, and say what was done."""
        try:
            said = self.work(context, face_of(context), self.take(context))  # type: ignore[arg-type]
        except ValueError as error:
            return self._failed(error)
        for sentence in said:
            self.tell({"INFO"}, sentence)
        return {"FINISHED"}

    def take(self, context: bpy.types.Context) -> Take | None:
        """The one that is selected."""
        return selected(context)

    def work(self, context: bpy.types.Context, face: bpy.types.Object, take: Take) -> list[str]:
        """Do it; returns sentences for the user."""
        raise NotImplementedError


class WAV2SEM_OT_make_active(TakeOperator, bpy.types.Operator):
    """Let this action play on top: out of the NLA, or in place of the one that is active now, which is kept"""

    bl_idname = "wav2sem.make_active"
    bl_label = "Make Active"

    @classmethod
    def missing(cls, take: Take) -> str:
        """It must be another one than the active one, and speech."""
        if take.is_upper_face:
            return "The upper face keeps a track of its own"
        if take.is_active:
            return "It is the active action already"
        if take.strip is not None and not takes.can_return(take.strip):
            return "Its strip was moved or scaled in the NLA; give it back its time first"
        return ""

    def work(self, context: bpy.types.Context, face: bpy.types.Object, take: Take) -> list[str]:
        """Put it on top."""
        name = take.action.name
        return [
            *takes.make_active(face, take, context.scene),
            Text(
                '"{name}" is the active action of "{face}"',
                name=name,
                face=face.name,
            ),
        ]


class WAV2SEM_OT_mute_take(TakeOperator, bpy.types.Operator):
    """Switch this action off or on; while it is off, the keys that it moves are at rest"""

    bl_idname = "wav2sem.mute_take"
    bl_label = "Mute"

    action: StringProperty(name="Action", description="Name of the action; empty for the selected one", **FRESH)  # type: ignore[valid-type]

    def take(self, context: bpy.types.Context) -> Take | None:
        """The one of that name: every row of the list has this button."""
        if not self.action:
            return selected(context)
        take = named(face_of(context), self.action)
        if take is None:
            raise UserError('The face has no action "{action}" that was made here.', action=self.action)
        return take

    def work(self, _context: bpy.types.Context, face: bpy.types.Object, take: Take) -> list[str]:
        """The other way round."""
        reason = "It does not play; make it active first" if take.is_kept else _read_only(take)
        if reason:
            raise UserError("{reason}.", reason=reason)
        takes.mute(face, take, not take.is_muted)
        return []


class WAV2SEM_OT_rebake(SpeechJobOperator, bpy.types.Operator):
    """Make this action again from its audio, with the settings that it was made with; edits of its keys are lost"""

    bl_idname = "wav2sem.rebake"
    bl_label = "Re-Bake"

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """It must be where a run writes."""
        return no_take(context) or _cannot_rebake(selected(context))

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Nothing comes from the panel but the face and the device."""
        self._face, self._device = face_of(context), addon_preferences.get(context).device
        self._take = selected(context)

    def draw(self, _context: bpy.types.Context) -> None:
        """Nothing to choose afterwards: the settings are the action's."""

    def _settings(self) -> AnimateSettings:
        return settings_of(self._take, self._face, self._device)


class WAV2SEM_OT_reduce_keys(JobOperator, TakeOperator, bpy.types.Operator):
    """Leave as few keys as keep every point of the face within the tolerance. Another try starts from all keys again"""

    bl_idname = "wav2sem.reduce_keys"
    bl_label = "Reduce Keys"

    tolerance_mm: tolerance_property(**FRESH)  # type: ignore[valid-type]

    @classmethod
    def missing(cls, take: Take) -> str:
        """It must be editable and move keys."""
        return _read_only(take) or ("" if any(take.curves()) else "It moves no shape key")

    def _make(self, context: bpy.types.Context) -> reduction.Reducing:
        return self._reducing(context, face_of(context), self.take(context))  # type: ignore[arg-type]

    def work(self, context: bpy.types.Context, face: bpy.types.Object, take: Take) -> list[str]:
        """Reduce, and say what it cost."""
        return self._reducing(context, face, take).finish().words()

    def _reducing(self, context: bpy.types.Context, face: bpy.types.Object, take: Take) -> reduction.Reducing:
        if not self.properties.is_property_set("tolerance_mm"):
            self.tolerance_mm = context.scene.wav2sem_tolerance_mm
        return reduction.Reducing(face, take, context.scene, self.tolerance_mm)

    def _finished(self, outcome: reduction.Reduction, _notes: list[str]) -> set[str]:
        for sentence in outcome.words():
            self.tell({"INFO"}, sentence)
        return {"FINISHED"}


class WAV2SEM_OT_push_to_nla(TakeOperator, bpy.types.Operator):
    """Move the action to an NLA track of its own, where later runs leave it alone"""

    bl_idname = "wav2sem.push_to_nla"
    bl_label = "Push to NLA"

    @classmethod
    def missing(cls, take: Take) -> str:
        """It must be the active one."""
        if take.strip is not None:
            return "It is in the NLA already"
        return "Make it active first" if take.is_kept else ""

    def work(self, _context: bpy.types.Context, face: bpy.types.Object, take: Take) -> list[str]:
        """Push it, and say where it is."""
        animation = face.data.shape_keys.animation_data
        if animation.nla_tracks and not animation.use_nla:
            raise UserError(
                'NLA is switched off for the shape keys of "{face}". Switch it on in the NLA editor.',
                face=face.name,
            )
        name = take.action.name
        return [
            Text(
                '"{name}" plays in the NLA track "{push_to_nla}"',
                name=name,
                push_to_nla=takes.push_to_nla(face, take),
            )
        ]


class WAV2SEM_OT_remove_take(TakeOperator, bpy.types.Operator):
    """Remove the action and its NLA track. After the last one the face is as it was before the first run"""

    bl_idname = "wav2sem.remove_take"
    bl_label = "Remove"

    with_keys: BoolProperty(  # type: ignore[valid-type]
        name="Shape Keys Too",
        description="With the last action, remove the shape keys that were made for the speech",
        **FRESH,
    )

    def work(self, _context: bpy.types.Context, face: bpy.types.Object, take: Take) -> list[str]:
        """Remove it."""
        name = take.action.name
        return [
            *takes.remove(face, take, with_keys=self.with_keys),
            Text(
                '"{name}" is removed from "{face}"',
                name=name,
                face=face.name,
            ),
        ]


def settings_of(take: Take, face: bpy.types.Object, device: str) -> AnimateSettings:
    """What a take was made with, for this face and this computer's device.

    Raises:
        ValueError: The take does not tell.
    """
    if take.is_upper_face:
        record = upper_face.recording_of(take.action)
    else:
        record = json.loads(take.action.get("wav2sem_settings", "{}"))
    known = {field.name for field in fields(AnimateSettings)}
    given = {name: value for name, value in record.items() if name in known}
    if not any(given.get(name) for name in ("filepath", "sound", "strip")):
        raise UserError(
            'The action "{action}" does not tell its audio. Animate it anew from the panel.',
            action=take.action.name,
        )
    if given.get("engine") not in {name for name, *_ in ENGINES}:
        given["engine"] = "auto"
    given |= {"object_name": face.name, "device": device}
    if take.is_upper_face:
        given |= {
            "upper_face": upper_face.settings_of(take.action),
            "upper_face_only": True,
            "sway": upper_face.sway_of(take.action),
        }
    return AnimateSettings(**given)


def _read_only(take: Take) -> str:
    return (
        Text('The action "{action}" is linked from another file', action=take.action.name)
        if take.action.library
        else ""
    )


def _cannot_rebake(take: Take | None) -> str:
    if take is None or take.is_active or take.is_upper_face:
        return _read_only(take) if take is not None else ""
    return "Make it active first, so that it is the one that is written anew"


CLASSES = (
    WAV2SEM_OT_make_active,
    WAV2SEM_OT_mute_take,
    WAV2SEM_OT_rebake,
    WAV2SEM_OT_reduce_keys,
    WAV2SEM_OT_push_to_nla,
    WAV2SEM_OT_remove_take,
)
