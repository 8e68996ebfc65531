# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a motion as shape-key curves. Everything is checked and computed before the first change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import bpy
import numpy as np

from ...errors import Text
from ...pipeline.face_names import listed
from ...pipeline.motion import Motion
from ...pipeline.retarget import resample, rested
from ...pipeline.time_slicing import Steps
from .. import compat
from . import actions, checks, controls, original_state, parts, shape_keys, takes
from .custom_properties import record, text
from .plan import Plan, make_plan

_CHANNELS_IN_A_STEP = 8


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was written, with warnings and notes for the user.

    Attributes:
        first_frame, n_frames: In the action; they are those of the scene unless its time is stretched.
        stretch: Frames of the action for each of the scene.
    """

    object_name: str
    action_name: str
    n_curves: int
    n_new_keys: int
    first_frame: int
    n_frames: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    stretch: float = 1.0

    @property
    def scene_frames(self) -> tuple[int, int]:
        """First and last frame as the scene counts them."""
        return round(self.first_frame / self.stretch), round((self.first_frame + self.n_frames - 1) / self.stretch)

    def summary(self, template: str) -> Text:
        """What was written, in one sentence; the template has `object_name`, the frames, and the curves' action."""
        return Text(
            template,
            object_name=self.object_name,
            first_scene_frame=self.scene_frames[0],
            last_frame=self.scene_frames[1],
            n_curves=self.n_curves,
            action_name=self.action_name,
        )


def applying(
    context: bpy.types.Context,
    target: bpy.types.Object,
    motion: Motion,
    *,
    start_frame: int = 1,
    begins_s: float = 0.0,
    settings: Mapping[str, object] | None = None,
    sound: bpy.types.Sound | None = None,
    visemes: Motion | None = None,
) -> Steps[Outcome]:
    """Animate a mesh, with a keyframe on every scene frame; the first and the last are at rest.

    Args:
        context: Its scene (for the frame rate) and view layer are used.
        target: The mesh; `checks.check_target` says what it needs.
        motion: `retarget.prepared` curves at any rate; they are resampled to the scene's.
        start_frame: Scene frame from which `begins_s` counts.
        begins_s: Time of the motion's first sample. Keyframes lie on whole frames; the curves are shifted by the rest.
        settings: Stored as JSON on the Action.
        sound: The data-block that was heard; the Action remembers it, so that Re-Bake finds it after a rename.
        visemes: The same as visemes, if that was computed beforehand: for ten minutes it takes seconds.

    Raises:
        UserError: The target or a value does not allow it; nothing was changed.
    """
    checks.check_target(context, target)
    yield
    plan = make_plan(target, motion, visemes)
    yield
    stretch = compat.time_stretch(context.scene)
    rate_hz = stretch * compat.frame_rate_hz(context.scene)
    exact_frame = stretch * start_frame + begins_s * rate_hz
    first = round(exact_frame)
    motion = rested((yield from _resampling(plan.motion, rate_hz, (exact_frame - first) / rate_hz)))
    shape_keys.check_limit(shape_keys.split(target, shape_keys.curves(motion, plan.rows))[0])
    yield
    with ExitStack() as rollback:
        marks = _marks(motion, settings or {})
        outcome = yield from _writing(context, target, motion, plan, first, marks, rollback)
        if sound is not None:
            bpy.data.actions[outcome.action_name][actions.SOUND] = sound
        rollback.pop_all()
    return outcome


def _resampling(motion: Motion, rate_hz: float, later_s: float) -> Steps[Motion]:
    """Resample a few channels a step: all channels of an hour take a second."""
    parts: list[np.ndarray] = []
    phones = motion.phones
    for first in range(0, len(motion.channels), _CHANNELS_IN_A_STEP):
        some = slice(first, first + _CHANNELS_IN_A_STEP)
        part = replace(motion, weights_TK=motion.weights_TK[:, some], channels=motion.channels[some], basis_KV3=None)
        resampled = resample(part, rate_hz, later_s)
        parts, phones = [*parts, resampled.weights_TK], resampled.phones
        yield
    return replace(motion, weights_TK=np.concatenate(parts, axis=1), fps=rate_hz, phones=phones)


def _writing(
    context: bpy.types.Context,
    target: bpy.types.Object,
    motion: Motion,
    plan: Plan,
    start_frame: int,
    marks: dict[str, str],
    rollback: ExitStack,
) -> Steps[Outcome]:
    made = shape_keys.make_keys(target, motion, plan, rollback) if plan.new_channels else ()
    curves, moves = shape_keys.split(target, shape_keys.curves(motion, plan.rows + made))
    yield
    warnings = plan.warnings
    if curves:
        warnings += tuple(shape_keys.fit_sliders(target.data, curves, rollback))
    rig = controls.rig_of(target) if moves else None
    posed, cut = controls.curves_for(rig, moves) if rig is not None else ({}, [])
    if rig is not None:
        original_state.put_back_later(rig, rollback)
        original_state.note_controls(rig, list(posed))
        warnings += _cut_off(rig, cut)
    name = PurePath(motion.info.get("audio", "Speech")).stem or "Speech"
    following = [part for part in parts.following(target, context.scene) if any(parts.free_keys(part, curves))]
    for part in following:
        own = {key: curves[key] for key in parts.free_keys(part, curves)}
        warnings += tuple(shape_keys.fit_sliders(part.data, own, rollback))
    yield
    part_keys = [part.data.shape_keys for part in following]
    takes.release(target, part_keys, parts.candidates(target, context.scene))
    earlier = _keep_other_line(target, start_frame, start_frame + motion.n_frames - 1, marks)
    player = target.data.shape_keys if curves or rig is None else rig
    action, notes = yield from actions.write_action(
        player,
        name,
        marks,
        curves if player != rig else posed,
        start_frame,
        context.scene,
        rollback,
        part_keys,
        (rig, posed) if rig is not None and player != rig else None,
    )
    shelved = takes.shelve(target, {player, *part_keys, *([rig] if rig is not None else [])})
    for mesh in (target, *following):
        mesh.data.update_tag()
    if rig is not None:
        rig.update_tag()
        shelved.append(Text('{n} controls of "{rig}" move with the speech.', n=len(moves), rig=rig.name))
    notes = [*earlier, *notes, *shelved]
    if following:
        names = listed([part.name for part in following])
        notes = [*notes, Text("These parts move with the face: {names}.", names=names)]
    return Outcome(
        object_name=target.name,
        action_name=action.name,
        n_curves=len(curves) + len(posed),
        n_new_keys=len(plan.new_channels),
        first_frame=start_frame,
        n_frames=motion.n_frames,
        stretch=compat.time_stretch(context.scene),
        warnings=warnings,
        notes=tuple(notes),
    )


def _keep_other_line(target: bpy.types.Object, first: int, last: int, marks: Mapping[str, str]) -> list[str]:
    """Let the active take play on in the NLA if it is another line, spoken at another time: a dialogue has many.

    The same recording again is another line only if it is another strip; else the user has moved it.
    """
    current = next((take for take in takes.of_face(target) if take.is_active), None)
    animation = current.player.animation_data if current is not None else None
    if current is None or current.action.library is not None or (animation.nla_tracks and not animation.use_nla):
        return []
    is_same_audio = text(current.action, actions.AUDIO_HASH) == marks[actions.AUDIO_HASH]
    if is_same_audio and _strip_of(current.action) == _strip_of(marks):
        return []
    begin, end = current.frames
    if begin <= last and first <= end:
        return []
    takes.play_slot(current)
    track = takes.push_to_nla(target, current)
    return [Text('"{action}" plays on in the NLA, as it is spoken at another time.', action=track)]


def _cut_off(rig: bpy.types.Object, cut: list[str]) -> tuple[str, ...]:
    """A warning about controls that would go beyond their limits."""
    if not cut:
        return ()
    words = 'Limits of "{rig}" cut off the motion of {controls}. Widen them, or lower the gain under Key Mapping.'
    return (Text(words, rig=rig.name, controls=listed(cut)),)


def _strip_of(marked: Any) -> str:
    """Name of the strip in the settings of an Action, or of `_marks`."""
    return str(record(marked, actions.SETTINGS).get("strip", ""))


def _marks(motion: Motion, settings: Mapping[str, object]) -> dict[str, str]:
    """Custom properties for the Action: its sources and settings, so that it can be made again."""
    info = motion.info
    return {
        actions.AUDIO_HASH: info.get("audio_sha256", ""),
        "wav2sem_audio": info.get("audio", ""),
        "wav2sem_model": info.get("model", ""),
        "wav2sem_weights_sha256": info.get("weights_sha256", ""),
        actions.SETTINGS: json.dumps({**settings, "engine": info.get("engine"), "device": info.get("device")}),
        "wav2sem_version": compat.addon_version(),
    }


def speech_summary(outcome: Outcome) -> Text:
    """What was written, in one sentence."""
    return outcome.summary(
        '"{object_name}" speaks from frame {first_scene_frame} to {last_frame}: {n_curves} curves in the '
        'action "{action_name}"'
    )
