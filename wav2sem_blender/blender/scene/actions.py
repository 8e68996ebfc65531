# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes F-curves into an Action of our own and keeps what the user animated before.

What happens depends on the active action:

- none: ours becomes the active one;
- the user's: it moves to an NLA track below ours. There it still plays every channel that we do not write, and all
  channels before and after the speech;
- ours, from the same audio: its curves are replaced; curves that the user added to it stay;
- ours, from other audio: it stays in the file with a fake user, and a new one becomes active.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import ceil, floor
from typing import Any

import bpy
import numpy as np

from ...errors import Text
from ...pipeline.time_slicing import Steps
from .. import compat
from . import original_state
from .custom_properties import text, texts
from .original_state import IDENTITY
from .players import Player, group_of, has, name_of, place_of, rest_value, set_value, slot_type

# Custom properties of an Action of ours, and what all their names begin with. AUDIO_HASH tells that an Action is ours.
MARKS = "wav2sem_"
AUDIO_HASH = "wav2sem_audio_sha256"
CURVES = "wav2sem_curves"
# Of an Action: the identity of the shape keys that it was made for.
OWNER = "wav2sem_owner"
# Of an Action: the sound data-block that it was made from, if it was one.
SOUND = "wav2sem_sound"
# Of an Action: the settings that it was made with, as JSON.
SETTINGS = "wav2sem_settings"
# Custom property of the Action that holds shape keys at rest below our NLA strips.
REST = "wav2sem_rest"
_REST_NAME = "Speech Rest"
# Our curves are in this group, or in one that begins so. Blender renames a curve's path with its shape key or bone, so
# names would go stale.
_GROUP = "Speech"


def write_action(
    player: Player,
    name: str,
    marks: Mapping[str, str | float],
    curves: Mapping[str, np.ndarray],
    first_scene_frame: int,
    scene: bpy.types.Scene,
    rollback: ExitStack,
    parts: Sequence[bpy.types.Key] = (),
    rig: tuple[bpy.types.Object, Mapping[str, np.ndarray]] | None = None,
) -> Steps[tuple[bpy.types.Action, list[str]]]:
    """Write a curve for each shape key or control, with a keyframe on every scene frame. One step writes one curve.

    Args:
        player: The mesh's shape-key data-block; or the rig, if it plays everything.
        name: Name of a new Action.
        marks: Custom properties to store on the Action; `AUDIO_HASH` must be among them.
        curves: Name of a key or control to values (T,), one for each scene frame.
        first_scene_frame: Frame of the first value, as actions count.
        scene: If the user's action is pushed down, its strip covers this scene's frame range.
        rollback: Receives what undoes an unfinished run.
        parts: Shape keys of other meshes that shall play the same action, with the same slot.
        rig: A rig that shall play the same action with a slot of its own, and that slot's curves.

    Returns:
        The Action, and sentences for the user about what happened to the action before it.
    """
    if player.animation_data is None:
        rollback.callback(player.animation_data_clear)
    animation = player.animation_data_create()
    notes: list[str] = []
    current = animation.action
    if current is not None and _is_replaceable(current, marks, (player, *parts, *([rig[0]] if rig else []))):
        action = current
        slot = animation.action_slot or action.slots.new(id_type=slot_type(player), name=player.name)  # type: ignore[arg-type]
    else:
        action = bpy.data.actions.new(name)
        rollback.callback(bpy.data.actions.remove, action)
        slot = action.slots.new(id_type=slot_type(player), name=player.name)  # type: ignore[arg-type]
    _remove_own_curves(action, [player, *([rig[0]] if rig else [])])
    for owner, own_slot, own_curves in ((player, slot, curves), *_of_rig(action, rig)):
        bag = compat.channelbag(action, own_slot)
        for curve_name, values_T in own_curves.items():
            frames_T = np.arange(first_scene_frame, first_scene_frame + len(values_T))
            path, index = place_of(owner, curve_name)
            write_curve(bag, path, frames_T, values_T, index, group=group_of(curve_name, _GROUP))
            yield
    for stale in [mark for mark in action.keys() if mark.startswith(MARKS)]:  # noqa: SIM118, an Action is no dict
        del action[stale]
    for mark, value in marks.items():
        action[mark] = value
    action[OWNER] = claim(player, rollback)
    action[CURVES] = json.dumps(sorted(curves))
    if action is not current:
        notes += put_on_top(player, action, slot, scene)
    animation.action_slot = slot
    if animation.action_extrapolation == "NOTHING":
        hold_rest(player, list(curves))
    for part in parts:
        notes += follow(part, action, slot, scene, list(curves), rollback)
    for owner, own_slot, own_curves in _of_rig(action, rig):
        notes += follow(owner, action, own_slot, scene, list(own_curves), rollback)
    return action, notes


def _of_rig(
    action: bpy.types.Action, rig: tuple[bpy.types.Object, Mapping[str, np.ndarray]] | None
) -> Iterator[tuple[bpy.types.Object, Any, Mapping[str, np.ndarray]]]:
    """The rig, its slot and its curves."""
    if rig is not None:
        yield rig[0], slot_of(action, rig[0]) or action.slots.new(id_type="OBJECT", name=rig[0].name), rig[1]


def slot_of(action: bpy.types.Action, player: Player) -> Any:
    """The slot of an action for such a player, whoever it is assigned to; None without one."""
    return next((slot for slot in action.slots if slot.target_id_type == slot_type(player)), None)


def follow(
    part: Player,
    action: bpy.types.Action,
    slot: Any,
    scene: bpy.types.Scene,
    key_names: Sequence[str],
    rollback: ExitStack | None = None,
) -> list[str]:
    """Let the keys of another mesh, or the rig, play an action of the face; returns sentences about the earlier one."""
    if part.animation_data is None and rollback is not None:
        rollback.callback(part.animation_data_clear)
    animation = part.animation_data_create()
    notes: list[str] = []
    if animation.action != action:
        current = animation.action
        notes = put_on_top(part, action, slot, scene, is_part=True)
        if current is not None and AUDIO_HASH in current:
            notes = []  # the face has said it
    animation.action_slot = slot
    if animation.action_extrapolation == "NOTHING":
        hold_rest(part, [name for name in key_names if has(part, name)])
    return notes


def claim(keys: Player, rollback: ExitStack | None = None) -> str:
    """What takes call these shape keys or this rig. A rename does not confuse it, and a copy gets a name of its own."""
    known = text(keys, IDENTITY)
    if not known or _is_copy(keys):
        if rollback is not None:
            rollback.callback(_put_back_identity, keys, known)
        keys[IDENTITY] = uuid.uuid4().hex
    return text(keys, IDENTITY)


def is_owner(keys: Player, action: bpy.types.Action) -> bool:
    """Whether an action that nothing plays belongs to these shape keys."""
    if OWNER in action:
        return bool(text(action, OWNER) == text(keys, IDENTITY) and not _is_copy(keys))
    # Actions of 0.1.0 tell it by their slot's name only.
    kind = slot_type(keys)
    return kind == "KEY" and any(
        slot.target_id_type == kind and slot.name_display == keys.name for slot in action.slots
    )


def _is_copy(keys: Player) -> bool:
    """Whether this is a copy, made later, of something with the same identity."""
    others: Any = bpy.data.shape_keys if isinstance(keys, bpy.types.Key) else bpy.data.objects
    twins = (other for other in others if text(other, IDENTITY) == text(keys, IDENTITY))
    return any(twin.session_uid < keys.session_uid for twin in twins)


def _put_back_identity(keys: Player, known: str) -> None:
    if known:
        keys[IDENTITY] = known
    elif IDENTITY in keys:
        del keys[IDENTITY]


def put_on_top(
    keys: Player, action: bpy.types.Action, slot: Any, scene: bpy.types.Scene, *, is_part: bool = False
) -> list[str]:
    """Make an action of ours the active one; returns sentences about the one that was active before."""
    animation = keys.animation_data_create()
    notes = _make_room(animation, keys, scene, is_part)
    animation.action = action
    animation.action_slot = slot
    return notes


def hold_rest(keys: Player, key_names: Sequence[str]) -> None:
    """Hold shape keys or controls at rest by a strip below ours; Blender gives a key that no strip plays the value 1.

    Those that a strip of the user plays are left out.
    """
    animation = keys.animation_data_create()
    users = {place for place, action in _animated_places(animation) if AUDIO_HASH not in action}
    names = [name for name in key_names if place_of(keys, name) not in users]
    held = next((strip for _, strip in rest_strips(animation)), None)
    if held is None and names:
        action = bpy.data.actions.new(_REST_NAME)
        action[REST] = True
        slot = action.slots.new(id_type=slot_type(keys), name=keys.name)  # type: ignore[arg-type]
        if not animation.nla_tracks:
            animation.use_nla = True
        track = animation.nla_tracks.new()
        track.name = _REST_NAME
        held = track.strips.new(_REST_NAME, 0, action)
        held.action_slot = slot
        held.extrapolation = "HOLD"
    if held is not None:
        bag = compat.channelbag(held.action, held.action_slot)
        for name in names:
            path, index = place_of(keys, name)
            write_curve(bag, path, np.zeros(1), np.array([rest_value(keys, name)]), index)


def drop_rest(keys: Player) -> None:
    """Remove the strip that `hold_rest` made."""
    for track, strip in list(rest_strips(keys.animation_data)):
        action = strip.action
        keys.animation_data_create().nla_tracks.remove(track)
        if action.users == 0:
            bpy.data.actions.remove(action)


def rest_strips(animation: bpy.types.AnimData | None) -> Iterator[tuple[Any, Any]]:
    """Track and strip that `hold_rest` made."""
    for track in animation.nla_tracks if animation is not None else ():
        for strip in track.strips:
            if strip.action is not None and is_rest(strip.action):
                yield track, strip


def is_rest(action: bpy.types.Action) -> bool:
    """Whether `hold_rest` made it; a take that has that mark too, in a stranger's file, stays a take."""
    return REST in action and not any(name.startswith(MARKS) and name != REST for name in action.keys())  # noqa: SIM118


def _is_replaceable(action: bpy.types.Action, marks: Mapping[str, str | float], players: Sequence[Player]) -> bool:
    """Whether the action is ours, from the same audio, local, and played by none but these."""
    playing = [keys for keys in players if keys.animation_data is not None and keys.animation_data.action == action]
    is_alone = action.users - int(action.use_fake_user) == len(playing)
    return action.library is None and text(action, AUDIO_HASH) == marks[AUDIO_HASH] and is_alone


def _remove_own_curves(action: bpy.types.Action, players: Sequence[Player]) -> None:
    """Remove the curves of our last run from an action and return what they moved to rest."""
    for player in players:
        rest(action, player)
    for bag in bags_of(action):
        own = own_keys(action, bag.fcurves)
        for curve in [curve for curve in bag.fcurves if name_of(curve) in own]:
            bag.fcurves.remove(curve)


def own_keys(action: bpy.types.Action, curves: Any) -> list[str]:
    """Names of the keys and controls that a speech action of ours animates by `curves`, as they are called now."""
    names = [name_of(curve) for curve in curves if curve.group is not None and _is_ours(curve.group.name)]
    # Actions of 0.1.0 have no group, only the names of then.
    return sorted(filter(None, names)) or texts(action, CURVES)


def _is_ours(group: str) -> bool:
    return group == _GROUP or group.startswith(f"{_GROUP} ")


def write_curve(
    bag: Any, path: str, frames_T: np.ndarray, values_T: np.ndarray, index: int = 0, group: str = ""
) -> None:
    """Write a curve with one linear keyframe for each value; one that is replaced leaves its group to it.

    Bulk access is 200 times as fast as `keyframe_insert`.
    """
    curve = bag.fcurves.find(path, index=index)
    if curve is not None:
        group = group or (curve.group.name if curve.group is not None else "")
        bag.fcurves.remove(curve)
    curve = compat.grouped_curve(bag, path, index, group) if group else bag.fcurves.new(path, index=index)
    points = curve.keyframe_points
    points.add(len(values_T))
    points.foreach_set("co", np.stack([frames_T, values_T], axis=1).astype(np.float32).ravel())
    interpolation: Any = bpy.types.Keyframe.bl_rna.properties["interpolation"]
    linear = interpolation.enum_items["LINEAR"].value
    points.foreach_set("interpolation", np.full(len(values_T), linear, dtype=np.int32))
    curve.update()


def animated_paths(animation: bpy.types.AnimData | None) -> Iterator[tuple[str, bpy.types.Action]]:
    """Data path and action of every curve that plays: of the active action and of NLA strips that are not muted."""
    yield from ((path, action) for (path, _), action in _animated_places(animation))


def _animated_places(
    animation: bpy.types.AnimData | None,
) -> Iterator[tuple[tuple[str, int], bpy.types.Action]]:
    """The same, with the index of each curve."""
    if animation is None:
        return
    sources: list[Any] = [animation] if animation.action is not None else []
    if animation.use_nla:
        sources += [strip for track in animation.nla_tracks if not track.mute for strip in _clips(track.strips)]
    for source in sources:
        if is_rest(source.action):
            continue
        for layer in source.action.layers if source.action_slot is not None else ():
            for strip in layer.strips:
                bag = strip.channelbag(source.action_slot)
                for curve in bag.fcurves if bag is not None else ():
                    yield (curve.data_path, curve.array_index), source.action


def _clips(strips: Any) -> Iterator[Any]:
    for strip in strips:
        if strip.type == "META" and not strip.mute:
            yield from _clips(strip.strips)
        elif strip.action is not None and not strip.mute:
            yield strip


def _make_room(animation: bpy.types.AnimData, keys: Player, scene: bpy.types.Scene, is_part: bool) -> list[str]:
    """Move the active action away without losing it: keep ours in the file, push the user's down."""
    current = animation.action
    if current is None:
        return []
    if AUDIO_HASH in current:
        if current.library is None:
            current.use_fake_user = True
            if not is_part:
                current[OWNER] = claim(keys)
        rest(current, keys)
        return [Text('The earlier action "{current}" is kept in this file.', current=current.name)]
    was_nla_on = animation.use_nla
    track = push_down(animation, scene.frame_start, scene.frame_end, animation.action_extrapolation)
    original_state.note_pushed(keys, track.name, was_nla_on)
    note = Text('Your action "{current}" moved to an NLA track below the speech.', current=current.name)
    return [note] if animation.use_nla else [note, "NLA is switched off for these shape keys, so it does not play."]


def rest(action: bpy.types.Action, player: Player) -> None:
    """Return what an action of ours moves to rest; it would keep its last value otherwise."""
    for name in own_keys(action, list(curves_of(action))):
        if has(player, name):
            set_value(player, name, rest_value(player, name))


def bags_of(action: bpy.types.Action) -> Iterator[Any]:
    """The containers of an action's curves, whatever their slot."""
    strips: list[Any] = [strip for layer in action.layers for strip in layer.strips]
    for strip in strips:
        yield from strip.channelbags


def curves_of(action: bpy.types.Action) -> Iterator[Any]:
    """All curves of an action, whatever their slot."""
    for bag in bags_of(action):
        yield from bag.fcurves


def push_down(animation: bpy.types.AnimData, first: float, last: float, extrapolation: str) -> Any:
    """Push the active action down as the NLA editor does, and return the new track.

    The strip covers at least `first` to `last`, so that cyclic curves go on playing there.
    """
    action, slot = animation.action, animation.action_slot
    assert action is not None
    if not animation.nla_tracks:
        animation.use_nla = True
    start, end = action.curve_frame_range[:]
    start, end = floor(min(start, first)), ceil(max(end, last, start + 1))
    track = animation.nla_tracks.new()
    track.name = action.name
    strip = track.strips.new(action.name, start, action)
    if slot is not None:
        strip.action_slot = slot
    strip.action_frame_start, strip.action_frame_end = start, end
    strip.frame_start, strip.frame_end = start, end
    strip.blend_type = animation.action_blend_type
    strip.extrapolation = extrapolation  # type: ignore[assignment]
    if animation.action_influence != 1.0:
        strip.use_animated_influence = True
        # Without a keyframe the influence curve is 0.
        strip.fcurves.find("influence").keyframe_points.insert(start, animation.action_influence)
        strip.influence = animation.action_influence
    animation.action_blend_type = "REPLACE"
    animation.action_influence = 1.0
    # Before and after the speech, the tracks below play.
    animation.action_extrapolation = "NOTHING"
    return track
