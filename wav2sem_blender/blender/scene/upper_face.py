# SPDX-License-Identifier: GPL-3.0-or-later
"""Blinks, brows, eye darts and head sway on a character, in an Action of their own on an NLA track of their own.

The speech is the active action and plays on top of the track; the two share no curve. What the user animated, drives or
muted is left to the user, channel by channel. Running again replaces our track alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import Any

import bpy
import numpy as np

from ...assets import UPPER_FACE
from ...errors import Text, UserError
from ...pipeline.any_head.geometry import Similarity
from ...pipeline.face_names import Row, listed, match_channels
from ...pipeline.flame import FlameMismatchError
from ...pipeline.prosody import Prosody
from ...pipeline.upper_face import CHANNELS, Settings, UpperFace, perform
from .. import compat
from . import actions, checks, head_sway, key_mapping, shape_keys
from .head_sway import NOTHING_SWAYS, SwayTarget
from .write_motion import Outcome

TRACK_NAME = "Upper Face"

# Custom property of an Action of ours, which marks it: JSON with the settings, what it moves, and how that rests.
MARK = "wav2sem_upper_face"


class NoUpperFaceError(UserError):
    """The mesh has no keys for it; the message names them."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which keys play which channels, for which ones keys are made, and sentences about what is left alone."""

    rows: tuple[Row, ...]
    new_channels: tuple[str, ...]
    similarity: Similarity | None
    notes: tuple[str, ...]


def check_target(context: bpy.types.Context, target: bpy.types.Object) -> None:
    """Has this object an upper face that can be moved? Nothing is changed.

    Raises:
        ValueError: It has not; the message says why.
    """
    checks.check_usable(context, target)
    _make_plan(target, CHANNELS)


def apply_upper_face(
    context: bpy.types.Context,
    target: bpy.types.Object,
    prosody: Prosody,
    settings: Settings,
    *,
    name: str,
    start_frame: int = 1,
    sway: SwayTarget = NOTHING_SWAYS,
    n_frames: int | None = None,
    recording: Mapping[str, object] | None = None,
) -> Outcome:
    """Let the upper half of a face live while it speaks.

    Args:
        context: Gives the scene (its frame rate) and the view layer.
        target: The mesh with the lids and brows; on a FLAME mesh missing keys are made.
        prosody: What was heard in the recording.
        settings: How lively; `head_sway` counts only with a `sway` target.
        name: The recording's.
        start_frame: Scene frame of its first moment.
        sway: What the head's sway moves.
        n_frames: How many scene frames the speech has, or None for the recording's own length.
        recording: Which one, stored on the Action for the record.

    Raises:
        ValueError: The target, the sway's target or a value does not allow it; nothing was changed.
    """
    checks.check_usable(context, target)
    swaying = None
    if sway.object_name and settings.head_sway:
        owner = bpy.data.objects.get(sway.object_name)
        earlier = {
            path: rest for *_, strip in _own_strips(owner) for path, rest in _record(strip.action)["rest"].items()
        }
        swaying = head_sway.find(target, sway, earlier, mark=MARK)
    if swaying is None:
        settings = replace(settings, head_sway=0.0)
    face = perform(prosody, settings, compat.frame_rate_hz(context.scene), n_frames)
    if not face.motion.channels and swaying is None:
        raise UserError("Blinks, brows, eye darts and head sway are all switched off. Raise one of them.")
    plan = _make_plan(target, face.motion.channels)
    with ExitStack() as rollback:
        record = {"settings": asdict(settings), "recording": dict(recording or {}), "sway": asdict(sway)}
        outcome = _write(target, face, plan, swaying, record, name, start_frame, rollback)
        rollback.pop_all()
    return outcome


def summary(outcome: Outcome) -> str:
    """What was written, in one sentence."""
    last_frame = outcome.first_scene_frame + outcome.n_scene_frames - 1
    return Text(
        'The upper face of "{object_name}" lives from frame {first_scene_frame} to {last_frame}: {n_curves} '
        'curves in the action "{action_name}"',
        object_name=outcome.object_name,
        first_scene_frame=outcome.first_scene_frame,
        last_frame=last_frame,
        n_curves=outcome.n_curves,
        action_name=outcome.action_name,
    )


def remove(target: bpy.types.Object) -> bool:
    """Take our tracks off a mesh, and off what swayed with it; the shape keys return to rest and stay.

    Returns:
        Whether there was anything.
    """
    removed = False
    for owner, track, strip in list(_own_strips_with(target)):
        removed = True
        _rest(owner, strip.action)
        _remove_strip(owner, track, strip)
    return removed


def switch(scene: bpy.types.Scene, is_on: bool) -> None:
    """Mute or unmute all of our tracks in a scene; what they moved returns to rest when they are muted."""
    for target in scene.objects:
        switch_one(target, is_on)


def switch_one(target: bpy.types.Object, is_on: bool) -> None:
    """Mute or unmute our tracks on one mesh."""
    for owner, track, strip in _own_strips_with(target):
        track.mute = not is_on  # a muted strip would go on holding its last value
        if not is_on:
            _rest(owner, strip.action)


def settings_of(action: bpy.types.Action) -> Settings:
    """What an action of ours was made with."""
    return Settings(**_record(action)["settings"])


def recording_of(action: bpy.types.Action) -> dict[str, Any]:
    """Which recording it was made from; empty where nobody said."""
    return _record(action).get("recording", {})  # type: ignore[no-any-return]


def sway_of(action: bpy.types.Action) -> SwayTarget:
    """What sways with it."""
    return SwayTarget(**_record(action).get("sway", {}))


def keys_of(action: bpy.types.Action) -> list[str]:
    """The shape keys that it moves."""
    return list(_record(action)["keys"])


def is_there(target: bpy.types.Object) -> bool:
    """Whether this mesh has a track of ours."""
    return next(_own_strips_with(target), None) is not None


def _make_plan(target: bpy.types.Object, channels: Sequence[str]) -> _Plan:
    """The user's table or the names decide; on a FLAME mesh what is missing is made."""
    mesh = target.data
    rows = _rows(target, channels)
    missing = tuple(channel for channel in channels if all(row.channel != channel for row in rows))
    similarity = None
    if missing and not mesh.override_library:
        try:
            similarity = checks.flame_similarity(mesh)
        except FlameMismatchError as error:
            if not rows:
                raise NoUpperFaceError(
                    '"{target}" has no shape keys for lids, eyes or brows with ARKit names (such as '
                    "eyeBlinkLeft), so its upper face keeps still. Name them so, or fill in Key Mapping.",
                    target=target.name,
                ) from error
    notes = []
    if missing and similarity is None:
        notes.append(Text("No shape key for {listed}; those channels are left out.", listed=listed(missing)))
    taken = _taken(mesh.shape_keys) if mesh.shape_keys is not None else {}
    for reason in dict.fromkeys(taken.values()):
        left = [row.key for row in rows if taken.get(row.key) == reason]
        if left:
            notes.append(Text("{listed} left alone: {reason}.", listed=listed(left), reason=reason))
    free = tuple(row for row in rows if row.key not in taken)
    if channels and not free and similarity is None:
        raise UserError(
            'Nothing of the upper face of "{target}" is free to move. {notes}',
            target=target.name,
            notes=" ".join(notes),
        )
    return _Plan(rows=free, new_channels=missing if similarity else (), similarity=similarity, notes=tuple(notes))


def _rows(target: bpy.types.Object, channels: Sequence[str]) -> tuple[Row, ...]:
    table = key_mapping.in_use(target)
    rows = tuple(row for row in table.rows if row.channel in channels and row.key in key_mapping.key_names(target))
    if rows and not table.visemes:
        return rows
    return tuple(Row(channel, key) for channel, key in match_channels(channels, key_mapping.key_names(target)).items())


def _taken(shape_keys: bpy.types.Key) -> dict[str, str]:
    """Keys that somebody else moves, each with who does."""
    paths = {checks.value_path(block.name): block.name for block in shape_keys.key_blocks}
    taken = {block.name: "muted" for block in shape_keys.key_blocks if block.mute}
    for path, action in actions.animated_paths(shape_keys.animation_data):
        if path in paths and MARK not in action:
            taken[paths[path]] = Text('animated by the action "{action}"', action=action.name)
    for curve in shape_keys.animation_data.drivers if shape_keys.animation_data else ():
        if curve.data_path in paths:
            taken[paths[curve.data_path]] = "controlled by a driver"
    return taken


def _write(
    target: bpy.types.Object,
    face: UpperFace,
    plan: _Plan,
    swaying: head_sway.Sway | None,
    record: dict[str, Any],
    name: str,
    start_frame: int,
    rollback: ExitStack,
) -> Outcome:
    motion = face.motion
    rows = plan.rows + _make_keys(target, plan, rollback)
    replaced = list(_own_strips_with(target))
    action_name = f"{PurePath(name).stem or 'Speech'} {TRACK_NAME}"
    action = bpy.data.actions.new(action_name)
    rollback.callback(bpy.data.actions.remove, action)
    last_frame = start_frame + motion.n_frames - 1
    frames_T = np.arange(start_frame, last_frame + 1)
    mesh_keys = target.data.shape_keys
    warnings: list[str] = []
    if rows:
        values = shape_keys.curves(motion, rows)
        warnings = shape_keys.fit_sliders(target.data, values, rollback)
        slot = action.slots.new(id_type="KEY", name=mesh_keys.name)
        bag = compat.channelbag(action, slot)
        for key, values_T in values.items():
            kept = _corners(values_T)
            actions.write_curve(bag.fcurves, checks.value_path(key), frames_T[kept], values_T[kept])
        _add_track(mesh_keys, action, slot, start_frame, last_frame, "REPLACE", rollback)
    if swaying is not None:
        slot = action.slots.new(id_type="OBJECT", name=swaying.owner.name)
        bag = compat.channelbag(action, slot)
        for index, values_T in enumerate(swaying.values(face.head_deg_T3).T):
            actions.write_curve(bag.fcurves, swaying.path, frames_T, values_T, index)
        _add_track(swaying.owner, action, slot, start_frame, last_frame, swaying.blend_type, rollback)
    rest = {swaying.path: swaying.rest} if swaying else {}
    action[MARK] = json.dumps({**record, "keys": sorted({row.key for row in rows}), "rest": rest})
    for owner, track, strip in replaced:
        if not (swaying and owner == swaying.owner):
            _rest(owner, strip.action)
        _remove_strip(owner, track, strip)
    action.name = action_name  # the one it replaces had it until now
    target.data.update_tag()
    return Outcome(
        object_name=target.name,
        action_name=action.name,
        n_curves=len({row.key for row in rows}),
        n_new_keys=len(plan.new_channels),
        first_scene_frame=start_frame,
        n_scene_frames=motion.n_frames,
        warnings=tuple(warnings),
        notes=plan.notes,
    )


def _make_keys(target: bpy.types.Object, plan: _Plan, rollback: ExitStack) -> tuple[Row, ...]:
    """Our own shapes for a FLAME mesh that lacks them; from then on they are keys like any other."""
    if plan.similarity is None:
        return ()
    with np.load(UPPER_FACE, allow_pickle=False) as file:
        names, basis_KV3 = file["names"].tolist(), file["basis_KV3"].astype(np.float32)
    rest_V3 = checks.rest_points(target.data)
    rows, active_index = [], target.active_shape_key_index
    rollback.callback(setattr, target, "active_shape_key_index", active_index)
    if target.data.shape_keys is None:
        target.shape_key_add(name="Basis", from_mix=False)
        rollback.callback(target.shape_key_clear)
    for channel in plan.new_channels:
        block = target.shape_key_add(name=channel, from_mix=False)
        rollback.callback(target.shape_key_remove, block)
        block.value = 0.0
        moved_V3 = rest_V3 + plan.similarity.apply_to_offsets(basis_KV3[names.index(channel)])
        block.data.foreach_set("co", moved_V3.astype(np.float32).ravel())
        rows.append(Row(channel, block.name))
    target.active_shape_key_index = active_index
    return tuple(rows)


def _corners(values_T: np.ndarray) -> np.ndarray:
    """The frames that matter: lids lie still most of the time, and a flat stretch needs its two ends only."""
    changes_T = np.diff(values_T) != 0
    return np.flatnonzero(np.append(True, changes_T) | np.append(changes_T, True))


def _add_track(
    owner: Any, action: bpy.types.Action, slot: Any, first: int, last: int, blend_type: str, rollback: ExitStack
) -> None:
    """Our curves begin and end at rest, so holding both ends keeps everything at rest before and after."""
    if owner.animation_data is None:
        rollback.callback(owner.animation_data_clear)
    animation = owner.animation_data_create()
    if not animation.nla_tracks:
        animation.use_nla = True
    track = animation.nla_tracks.new()
    rollback.callback(animation.nla_tracks.remove, track)
    track.name = TRACK_NAME
    strip = track.strips.new(action.name, first, action)
    strip.action_slot = slot
    last = max(last, first + 1)
    strip.action_frame_start, strip.action_frame_end = first, last
    strip.frame_start, strip.frame_end = first, last
    strip.blend_type, strip.extrapolation = blend_type, "HOLD"


def _own_strips(owner: Any) -> Iterator[tuple[Any, Any, Any]]:
    animation = owner.animation_data if owner is not None else None
    for track in animation.nla_tracks if animation else ():
        for strip in track.strips:
            if strip.action is not None and MARK in strip.action:
                yield owner, track, strip


def _own_strips_with(target: bpy.types.Object) -> Iterator[tuple[Any, Any, Any]]:
    """Our strips on a mesh's keys, and those of the same actions on what sways: (owner, track, strip)."""
    found = list(_own_strips(target.data.shape_keys)) if target.type == "MESH" else []
    yield from found
    moved = {strip.action for _, _, strip in found}
    for owner in bpy.data.objects if moved else ():
        yield from (entry for entry in _own_strips(owner) if entry[2].action in moved)


def _remove_strip(owner: Any, track: Any, strip: Any) -> None:
    action = strip.action
    if len(track.strips) == 1:
        owner.animation_data.nla_tracks.remove(track)
    else:
        track.strips.remove(strip)
    if action.users == 0 and action.library is None:
        bpy.data.actions.remove(action)


def _rest(owner: Any, action: bpy.types.Action) -> None:
    """Return to rest what an action of ours moved on this owner, or it would keep its last value."""
    record = _record(action)
    if isinstance(owner, bpy.types.Key):
        for key in record["keys"]:
            if key in owner.key_blocks:
                owner.key_blocks[key].value = 0.0
        return
    for path, values in record["rest"].items():
        head_sway.set_values(owner, path, values)


def _record(action: bpy.types.Action) -> dict[str, Any]:
    return json.loads(action[MARK])  # type: ignore[no-any-return]
