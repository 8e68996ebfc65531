# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes blinks, brows, eye darts and head sway into an Action of their own, on an NLA track of their own.

The speech is the active action and plays on top of that track; the two share no curve. Shape keys that the user has
animated, driven or muted are left alone. A second run replaces only our own track.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from ...pipeline.upper_face import UPPER_FACE_CHANNELS, Settings, UpperFace, perform
from ...pipeline.words.track import Direction
from .. import compat
from . import actions, checks, edit_curves, head_sway, key_mapping, parts, players, shape_keys
from .edit_curves import CurveChange
from .head_sway import NOTHING_SWAYS, SwayTarget
from .plan import no_keys_for
from .upper_face_strips import (
    MARK,
    TRACK_NAME,
    add_track,
    made,
    made_of,
    remove_strip,
    rest_of,
    return_to_rest,
    strips_on,
    strips_with,
    sway_of,
)
from .write_motion import Outcome


class NoUpperFaceError(UserError):
    """The mesh has no shape keys for the upper face."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Rows of existing keys, channels for which keys are made, and notes about the keys that are left alone."""

    rows: tuple[Row, ...]
    new_channels: tuple[str, ...]
    similarity: Similarity | None
    notes: tuple[str, ...]


def check_upper_face(context: bpy.types.Context, target: bpy.types.Object) -> None:
    """Raise UserError unless this object has an upper face that can be animated. Nothing is changed."""
    checks.check_usable(context, target)
    _make_plan(target, UPPER_FACE_CHANNELS)


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
    sound: bpy.types.Sound | None = None,
    directions: Sequence[Direction] = (),
) -> Outcome:
    """Animate the upper half of a face while it speaks.

    Args:
        context: Its scene (for the frame rate) and view layer are used.
        target: The mesh with the lids and brows; missing keys are made on a FLAME mesh.
        prosody: The prosody of the recording.
        settings: Amounts; `head_sway` has an effect only with a `sway` target.
        name: Name of the recording.
        start_frame: Frame of the recording's first sample, as actions count.
        sway: The object or bone that sways with the head.
        n_frames: Length of the speech in such frames; None for the length of the recording.
        recording: Stored on the Action, so that it can be made again.
        sound: The data-block that was heard, which the Action remembers.
        directions: For brows and head, among others; in seconds from the beginning of what was heard.

    Raises:
        UserError: The target, the sway target or a value does not allow it; nothing was changed.
    """
    checks.check_usable(context, target)
    swaying = None
    if sway.object_name and settings.head_sway:
        owner = bpy.data.objects.get(sway.object_name)
        earlier = {path: rest for *_, strip in strips_on(owner) for path, rest in rest_of(strip.action).items()}
        swaying = head_sway.find(target, sway, earlier, mark=MARK)
    if swaying is None:
        settings = replace(settings, head_sway=0.0)
    rate_hz = compat.time_stretch(context.scene) * compat.frame_rate_hz(context.scene)
    face = perform(prosody, settings, rate_hz, n_frames, directions)
    if not face.motion.channels and swaying is None:
        raise UserError("Blinks, brows, eye darts and head sway are all switched off. Raise one of them.")
    plan = _make_plan(target, face.motion.channels)
    with ExitStack() as rollback:
        record = {"settings": asdict(settings), "recording": dict(recording or {}), "sway": asdict(sway)}
        record["made"] = asdict(made(start_frame, face.motion.n_frames, rate_hz, directions))
        outcome = _write(target, face, plan, swaying, record, name, start_frame, context.scene, rollback)
        outcome = replace(outcome, stretch=compat.time_stretch(context.scene))
        if sound is not None:
            bpy.data.actions[outcome.action_name][actions.SOUND] = sound
        rollback.pop_all()
    return outcome


def changed_curves(
    target: bpy.types.Object, action: bpy.types.Action, old: UpperFace, new: UpperFace
) -> list[CurveChange]:
    """What to change on the curves of an upper face where two performances differ; nothing is changed yet.

    Args:
        target: The mesh.
        action: Its upper face, which tells how it was made.
        old, new: Performances of all its frames.

    Raises:
        UserError: What sways with the head cannot be turned any more.
    """
    about = made_of(action)
    assert about is not None
    before, after = (shape_keys.curves(face.motion, rows_of(target, face.motion.channels)) for face in (old, new))
    curves = [(players.key_of(curve), curve) for curve in actions.curves_of(action)]
    changes = edit_curves.where_they_differ(curves, before, after, about.first_frame)
    turning = next(((owner, strip) for owner, _, strip in strips_with(target) if _turns(owner, strip, action)), None)
    if turning is None or np.array_equal(old.head_deg_T3, new.head_deg_T3):
        return changes
    found = head_sway.find(target, sway_of(action), rest_of(action), mark=MARK)
    found = replace(found, blend_type=turning[1].blend_type)
    places = [(str(curve.array_index), curve) for curve in actions.curves_of(action) if curve.data_path == found.path]
    turned = [dict(zip("0123", found.values(face.head_deg_T3).T, strict=False)) for face in (old, new)]
    return changes + edit_curves.where_they_differ(places, turned[0], turned[1], about.first_frame)


def _turns(owner: Any, strip: Any, action: bpy.types.Action) -> bool:
    return strip.action == action and isinstance(owner, bpy.types.Object)


def upper_face_summary(outcome: Outcome) -> Text:
    """What was written, in one sentence."""
    return outcome.summary(
        'The upper face of "{object_name}" moves from frame {first_scene_frame} to {last_frame}: {n_curves} '
        'curves in the action "{action_name}"'
    )


def _make_plan(target: bpy.types.Object, channels: Sequence[str]) -> _Plan:
    """Go by the key mapping or the names of the keys; missing keys are made on a FLAME mesh."""
    mesh = target.data
    rows = rows_of(target, channels)
    missing = tuple(channel for channel in channels if all(row.channel != channel for row in rows))
    similarity = None
    if missing and not mesh.override_library:
        try:
            similarity = checks.flame_similarity(mesh)
        except FlameMismatchError as error:
            if not rows:
                raise NoUpperFaceError(
                    '"{name}" has no shape keys for lids, eyes or brows with ARKit names (such as eyeBlinkLeft), so '
                    "its upper face keeps still. Give them ARKit names, or fill in Key Mapping.",
                    name=target.name,
                ) from error
    notes = []
    if missing and similarity is None:
        notes.append(no_keys_for(missing))
    taken = _taken(mesh.shape_keys) if mesh.shape_keys is not None else {}
    for reason in dict.fromkeys(taken.values()):
        left = [row.key for row in rows if taken.get(row.key) == reason]
        if left:
            notes.append(Text("{keys} left alone: {reason}.", keys=listed(left), reason=reason))
    free = tuple(row for row in rows if row.key not in taken)
    if channels and not free and similarity is None:
        raise UserError(
            'No shape key of the upper face of "{name}" can be animated. {notes}',
            name=target.name,
            notes=Text.joined(notes),
        )
    return _Plan(rows=free, new_channels=missing if similarity else (), similarity=similarity, notes=tuple(notes))


def rows_of(target: bpy.types.Object, channels: Sequence[str]) -> tuple[Row, ...]:
    table = key_mapping.in_use(target)
    rows = tuple(row for row in table.rows if row.channel in channels and row.key in key_mapping.key_names(target))
    if rows:
        return rows
    return tuple(Row(channel, key) for channel, key in match_channels(channels, key_mapping.key_names(target)).items())


def _taken(shape_keys: bpy.types.Key) -> dict[str, str]:
    """Keys that are muted, driven or animated by the user, each with the reason."""
    paths = {key_mapping.value_path(block.name): block.name for block in shape_keys.key_blocks}
    taken: dict[str, str] = {block.name: "muted" for block in shape_keys.key_blocks if block.mute}
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
    scene: bpy.types.Scene,
    rollback: ExitStack,
) -> Outcome:
    motion = face.motion
    rows = plan.rows + _make_keys(target, plan, rollback)
    replaced = list(strips_with(target))
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
            actions.write_curve(bag, key_mapping.value_path(key), frames_T[kept], values_T[kept])
        add_track(mesh_keys, action, slot, start_frame, last_frame, "REPLACE", rollback)
        for part in parts.following(target, scene):
            own = {key: values[key] for key in parts.free_keys(part, values)}
            if own:
                warnings += shape_keys.fit_sliders(part.data, own, rollback)
                add_track(part.data.shape_keys, action, slot, start_frame, last_frame, "REPLACE", rollback)
    if swaying is not None:
        slot = action.slots.new(id_type="OBJECT", name=swaying.owner.name)
        bag = compat.channelbag(action, slot)
        for index, values_T in enumerate(swaying.values(face.head_deg_T3).T):
            actions.write_curve(bag, swaying.path, frames_T, values_T, index)
        add_track(swaying.owner, action, slot, start_frame, last_frame, swaying.blend_type, rollback)
    rest = {swaying.path: swaying.rest} if swaying else {}
    action[MARK] = json.dumps({**record, "rest": rest})
    for owner, track, strip in replaced:
        if not (swaying and owner == swaying.owner):
            return_to_rest(owner, strip.action)
        remove_strip(owner, track, strip)
    action.name = action_name  # the replaced action had this name until now
    target.data.update_tag()
    return Outcome(
        object_name=target.name,
        action_name=action.name,
        n_curves=len({row.key for row in rows}),
        n_new_keys=len(plan.new_channels),
        first_frame=start_frame,
        n_frames=motion.n_frames,
        warnings=tuple(warnings),
        notes=plan.notes,
    )


def _make_keys(target: bpy.types.Object, plan: _Plan, rollback: ExitStack) -> tuple[Row, ...]:
    """Make the missing keys of a FLAME mesh; later runs treat them like the user's own."""
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
    """The frames that need a keyframe: of a flat stretch only its two ends, and lids are still most of the time."""
    changes_T = np.diff(values_T) != 0
    return np.flatnonzero(np.append(True, changes_T) | np.append(changes_T, True))
