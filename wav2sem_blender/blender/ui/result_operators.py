# SPDX-License-Identifier: GPL-3.0-or-later
"""Buttons for the take selected in the Result panel: activate, mute, re-bake, reduce, push to the NLA, remove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
from bpy.props import BoolProperty, FloatProperty, StringProperty

from ...errors import Text, UserError
from .. import addon_preferences, compat
from ..addon_preferences import ENGINES
from ..animate.settings import AnimateSettings
from ..scene import custom_properties, reduction, takes, upper_face_strips
from ..scene.actions import SETTINGS, SOUND
from ..scene.takes import Take
from . import status
from .animate import FRESH, SpeechTaskOperator
from .task_operator import TaskOperator
from .widgets import AddonOperator, blocked_reason, face_of


def tolerance_property(**options: Any) -> object:
    """Largest error of a key reduction."""
    return FloatProperty(
        name="Tolerance (mm)",
        description="Largest error that the reduction may cause at any point of the face, in scene millimetres",
        default=0.2,
        min=0.0,
        soft_max=2.0,
        precision=2,
        step=5,
        **options,
    )


def selected(context: bpy.types.Context) -> Take | None:
    """The take selected in the list, or the first one."""
    found = takes.of_face(face_of(context))
    chosen = context.window_manager.wav2sem_take
    return next((take for take in found if take.action.name == chosen), found[0] if found else None)


def take_disabled_reason(context: bpy.types.Context) -> str:
    """Why no take of the chosen face can be worked on; empty when one can."""
    if reason := status.run_disabled_reason(context):
        return reason
    face = face_of(context)
    if not takes.of_face(face):
        return blocked_reason(face) or Text('"{face}" has no speech animation yet', face=face.name)  # type: ignore[union-attr]
    return ""


def named(face: bpy.types.Object | None, name: str) -> Take | None:
    """The face's take with the action of that name."""
    return next((take for take in takes.of_face(face) if take.action.name == name), None)


class TakeOperator(AddonOperator):
    """Base of the buttons, which work on the selected take."""

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why the selected take cannot be worked on."""
        return take_disabled_reason(context) or cls.missing(selected(context))  # type: ignore[arg-type]

    @classmethod
    def missing(cls, _take: Take) -> str:
        """What the button needs of the take; empty when nothing is missing."""
        return ""

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Work on the take and report what was done."""
        try:
            face, take = face_of(context), self.take(context)
            takes.play_slot(take)  # type: ignore[arg-type]
            reports = self.work(context, face, take)  # type: ignore[arg-type]
        except UserError as error:
            return self._failed(error)
        for text in reports:
            self.tell({"INFO"}, text)
        return {"FINISHED"}

    def take(self, context: bpy.types.Context) -> Take | None:
        """The take to work on."""
        return selected(context)

    def work(self, context: bpy.types.Context, face: bpy.types.Object, take: Take) -> Sequence[str]:
        """Work on it; returns reports for the user."""
        raise NotImplementedError


class WAV2SEM_OT_make_active(TakeOperator, bpy.types.Operator):
    """Make this the active action; if it is in the NLA, it leaves it. The action that it replaces is kept"""

    bl_idname = "wav2sem.make_active"
    bl_label = "Make Active"

    @classmethod
    def missing(cls, take: Take) -> str:
        """A speech take that is not active."""
        if take.is_upper_face:
            return "The upper face stays on its own NLA track"
        if take.is_active:
            return "It is already the active action"
        if take.strip is not None and not takes.can_return(take.strip):
            return "Its NLA strip was moved or scaled; restore its timing first"
        return ""

    def work(self, context: bpy.types.Context, face: bpy.types.Object, take: Take) -> Sequence[str]:
        """Make it active."""
        name = take.action.name
        return [
            *takes.make_active(face, take, context.scene),
            Text('"{name}" is now the active action of "{face}"', name=name, face=face.name),
        ]


class WAV2SEM_OT_mute_take(TakeOperator, bpy.types.Operator):
    """Mute or unmute this action. While it is muted, its shape keys are at rest"""

    bl_idname = "wav2sem.mute_take"
    bl_label = "Mute"

    action: StringProperty(name="Action", description="Name of the action; the selected one if empty", **FRESH)  # type: ignore[valid-type]

    def take(self, context: bpy.types.Context) -> Take | None:
        """The take of that name, as every row of the list has this button."""
        if not self.action:
            return selected(context)
        take = named(face_of(context), self.action)
        if take is None:
            raise UserError('The face has no speech action "{action}".', action=self.action)
        return take

    def work(self, _context: bpy.types.Context, face: bpy.types.Object, take: Take) -> Sequence[str]:
        """Mute or unmute it."""
        reason = "It is not playing; make it active first" if take.is_kept else _read_only(take)
        if reason:
            raise UserError("{reason}.", reason=reason)
        takes.mute(face, take, not take.is_muted)
        return []


class WAV2SEM_OT_rebake(SpeechTaskOperator, bpy.types.Operator):
    """Make this action again from its audio with its original settings. Edits to its keyframes are lost"""

    bl_idname = "wav2sem.rebake"
    bl_label = "Re-Bake"

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why the selected take cannot be made again."""
        return take_disabled_reason(context) or _cannot_rebake(selected(context))

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Take only the face and the device; everything else is the action's."""
        self._face, self._device = face_of(context), addon_preferences.get(context).device
        self._take = selected(context)

    def draw(self, _context: bpy.types.Context) -> None:
        """Draw nothing: the settings are the action's."""

    def _settings(self) -> AnimateSettings:
        assert self._take is not None and self._face is not None
        return rebake_settings(self._take, self._face, self._device)


class WAV2SEM_OT_reduce_keys(TaskOperator, TakeOperator, bpy.types.Operator):
    """Remove keyframes while the whole face stays within the tolerance. Each attempt starts from all of them again"""

    bl_idname = "wav2sem.reduce_keys"
    bl_label = "Reduce Keys"

    tolerance_mm: tolerance_property(**FRESH)  # type: ignore[valid-type]

    @classmethod
    def missing(cls, take: Take) -> str:
        """An editable action that moves keys."""
        return _read_only(take) or ("" if any(take.curves()) else "It moves no shape keys")

    def _make(self, context: bpy.types.Context) -> reduction.Reducing:
        if not self.properties.is_property_set("tolerance_mm"):
            self.tolerance_mm = context.scene.wav2sem_tolerance_mm
        face, take = face_of(context), self.take(context)
        return reduction.Reducing(face, take, context.scene, self.tolerance_mm)  # type: ignore[arg-type]

    def _finished(self, outcome: reduction.Reduction, _notes: Sequence[str]) -> compat.Result:
        for sentence in outcome.words():
            self.tell({"INFO"}, sentence)
        return {"FINISHED"}


class WAV2SEM_OT_push_to_nla(TakeOperator, bpy.types.Operator):
    """Move the action to its own NLA track, where later runs leave it unchanged"""

    bl_idname = "wav2sem.push_to_nla"
    bl_label = "Push to NLA"

    @classmethod
    def missing(cls, take: Take) -> str:
        """The active action."""
        if take.strip is not None:
            return "It is already in the NLA"
        return "Make it active first" if take.is_kept else ""

    def work(self, _context: bpy.types.Context, face: bpy.types.Object, take: Take) -> Sequence[str]:
        """Push it; reports the track."""
        animation = take.player.animation_data_create()
        if animation.nla_tracks and not animation.use_nla:
            raise UserError(
                'The NLA is disabled for the shape keys of "{face}". Enable it in the NLA editor.', face=face.name
            )
        name = take.action.name
        return [Text('"{name}" now plays on the NLA track "{track}"', name=name, track=takes.push_to_nla(face, take))]


class WAV2SEM_OT_remove_take(TakeOperator, bpy.types.Operator):
    """Remove the action and its NLA track. Removing the last one leaves the face as it was before the first run"""

    bl_idname = "wav2sem.remove_take"
    bl_label = "Remove"

    with_keys: BoolProperty(  # type: ignore[valid-type]
        name="Shape Keys Too",
        description="With the last action, also remove the shape keys that were created for the speech",
        **FRESH,
    )

    def work(self, _context: bpy.types.Context, face: bpy.types.Object, take: Take) -> Sequence[str]:
        """Remove the take."""
        name = take.action.name
        return [
            *takes.remove_take(face, take, with_keys=self.with_keys),
            Text('Removed "{name}" from "{face}"', name=name, face=face.name),
        ]


def rebake_settings(take: Take, face: bpy.types.Object, device: str) -> AnimateSettings:
    """The settings that a take was made with, for this face and this computer's device.

    Raises:
        UserError: The take has no record of its audio.
    """
    if take.is_upper_face:
        record = upper_face_strips.recording_of(take.action)
    else:
        record = custom_properties.record(take.action, SETTINGS)
    given = custom_properties.fitting(AnimateSettings, record)
    if not any(given.get(name) for name in ("filepath", "sound", "strip")):
        raise UserError(
            'The action "{action}" has no record of its audio. Animate the face from the panel again.',
            action=take.action.name,
        )
    if given.get("engine") not in {name for name, *_ in ENGINES}:
        given["engine"] = "auto"
    block = take.action.get(SOUND)
    given |= {"object_name": face.name, "object_uid": face.session_uid, "device": device}
    given["sound_uid"] = block.session_uid if isinstance(block, bpy.types.Sound) else 0
    if take.is_upper_face:
        given |= {
            "upper_face": upper_face_strips.recorded_settings(take.action),
            "upper_face_only": True,
            "sway": upper_face_strips.sway_of(take.action),
        }
    return AnimateSettings(**given)


def _read_only(take: Take) -> str:
    linked = Text('The action "{action}" is linked from another file', action=take.action.name)
    return linked if take.action.library else ""


def _cannot_rebake(take: Take | None) -> str:
    if take is None or take.is_active or take.is_upper_face:
        return _read_only(take) if take is not None else ""
    return "Make it active first; re-baking writes the active action"


CLASSES = (
    WAV2SEM_OT_make_active,
    WAV2SEM_OT_mute_take,
    WAV2SEM_OT_rebake,
    WAV2SEM_OT_reduce_keys,
    WAV2SEM_OT_push_to_nla,
    WAV2SEM_OT_remove_take,
)
