# SPDX-License-Identifier: GPL-3.0-or-later
"""F-curves in an Action of our own, beside whatever the user animated before.

- No action yet: ours becomes the active one.
- An action of the user: it moves into an NLA track below ours, where it keeps playing every channel that we do not
  write, and all channels outside the time of the speech.
- Ours, of the same audio: its curves are replaced in place; curves that the user added to it stay.
- Ours, of other audio: it is kept in the file, with a fake user, and a new one takes its place.
"""

from __future__ import annotations

import json
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
from .checks import value_path

# Custom properties of an Action of ours; the first one marks it.
MARKS = "wav2sem_"
AUDIO_HASH = "wav2sem_audio_sha256"
CURVES = "wav2sem_curves"
# Marks the Action that holds shape keys at rest below our NLA strips.
REST = "wav2sem_rest"
_REST_NAME = "Speech Rest"


def write_action(
    keys: bpy.types.Key,
    name: str,
    marks: Mapping[str, str | float],
    curves: Mapping[str, np.ndarray],
    first_scene_frame: int,
    scene: bpy.types.Scene,
    rollback: ExitStack,
) -> Steps[tuple[bpy.types.Action, list[str]]]:
    """Write one curve for each key name, a key on every scene frame; a step is a curve.

    Args:
        keys: The mesh's shape-key data-block.
        name: For the Action: the audio's.
        marks: Custom properties to store on the Action, `AUDIO_HASH` among them.
        curves: Key name to values (T,), one for each scene frame.
        first_scene_frame: Where the first value goes.
        scene: Its frame range is covered by a strip made of the user's action.
        rollback: Receives what undoes a half-done change.

    Returns:
        The Action, and sentences for the user about what happened to an earlier one.
    """
    if keys.animation_data is None:
        rollback.callback(keys.animation_data_clear)
    animation = keys.animation_data_create()
    notes: list[str] = []
    current = animation.action
    if current is not None and _is_replaceable(current, marks):
        action, slot = current, _slot_of(animation, keys)
    else:
        action = bpy.data.actions.new(name)
        rollback.callback(bpy.data.actions.remove, action)
        slot = action.slots.new(id_type="KEY", name=keys.name)
    bag = compat.channelbag(action, slot)
    _remove_own_curves(bag, action, keys)
    for key_name, values_T in curves.items():
        frames_T = np.arange(first_scene_frame, first_scene_frame + len(values_T))
        write_curve(bag.fcurves, value_path(key_name), frames_T, values_T)
        yield
    for stale in [mark for mark in action.keys() if mark.startswith(MARKS)]:  # noqa: SIM118, an Action is no dict
        del action[stale]
    for mark, value in marks.items():
        action[mark] = value
    action[CURVES] = json.dumps(sorted(curves))
    if action is not current:
        notes += put_on_top(keys, action, slot, scene)
    animation.action_slot = slot
    if animation.action_extrapolation == "NOTHING":
        hold_rest(keys, list(curves))
    return action, notes


def put_on_top(keys: bpy.types.Key, action: bpy.types.Action, slot: Any, scene: bpy.types.Scene) -> list[str]:
    """Make an action of ours the active one; returns sentences about what was active before."""
    animation = keys.animation_data_create()
    notes = _make_room(animation, keys, scene)
    animation.action = action
    animation.action_slot = slot
    return notes


def hold_rest(keys: bpy.types.Key, key_names: Sequence[str]) -> None:
    """Let keys rest where no strip plays them: there Blender takes 1 for a shape key's value.

    A strip below ours holds 0. What the user's strips play is left to them.
    """
    animation = keys.animation_data
    users = {path for path, action in animated_paths(animation) if AUDIO_HASH not in action}
    paths = [path for path in map(value_path, key_names) if path not in users]
    held = next((strip for _, strip in rest_strips(animation)), None)
    if held is None and paths:
        action = bpy.data.actions.new(_REST_NAME)
        action[REST] = True
        slot = action.slots.new(id_type="KEY", name=keys.name)
        if not animation.nla_tracks:
            animation.use_nla = True
        track = animation.nla_tracks.new()
        track.name = _REST_NAME
        held = track.strips.new(_REST_NAME, 0, action)
        held.action_slot = slot
        held.extrapolation = "HOLD"
    if held is not None:
        curves = compat.channelbag(held.action, held.action_slot).fcurves
        for path in paths:
            write_curve(curves, path, np.zeros(1), np.zeros(1))


def drop_rest(keys: bpy.types.Key) -> None:
    """Remove the strip of `hold_rest`."""
    for track, strip in list(rest_strips(keys.animation_data)):
        action = strip.action
        keys.animation_data.nla_tracks.remove(track)
        if action.users == 0:
            bpy.data.actions.remove(action)


def rest_strips(animation: bpy.types.AnimData | None) -> Iterator[tuple[Any, Any]]:
    """Track and strip of `hold_rest`."""
    for track in animation.nla_tracks if animation is not None else ():
        for strip in track.strips:
            if strip.action is not None and REST in strip.action:
                yield track, strip


def _is_replaceable(action: bpy.types.Action, marks: Mapping[str, str | float]) -> bool:
    """Ours, of the same audio, local, and nobody else's."""
    users = action.users - int(action.use_fake_user)
    return action.library is None and action.get(AUDIO_HASH) == marks[AUDIO_HASH] and users == 1


def _slot_of(animation: bpy.types.AnimData, keys: bpy.types.Key) -> Any:
    return animation.action_slot or animation.action.slots.new(id_type="KEY", name=keys.name)


def _remove_own_curves(bag: Any, action: bpy.types.Action, keys: bpy.types.Key) -> None:
    """Remove the curves of our last run; what they drove returns to rest, or it would keep its last value."""
    for key_name in json.loads(action.get(CURVES, "[]")):
        curve = bag.fcurves.find(value_path(key_name))
        if curve is not None:
            bag.fcurves.remove(curve)
        if key_name in keys.key_blocks:
            keys.key_blocks[key_name].value = 0.0


def write_curve(curves: Any, path: str, frames_T: np.ndarray, values_T: np.ndarray, index: int = 0) -> None:
    """One linear key for each value, in bulk: 200 times as fast as `keyframe_insert`."""
    curve = curves.find(path, index=index)
    if curve is not None:
        curves.remove(curve)
    curve = curves.new(path, index=index)
    points = curve.keyframe_points
    points.add(len(values_T))
    points.foreach_set("co", np.stack([frames_T, values_T], axis=1).astype(np.float32).ravel())
    linear = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items["LINEAR"].value
    points.foreach_set("interpolation", np.full(len(values_T), linear, dtype=np.int32))
    curve.update()


def animated_paths(animation: bpy.types.AnimData | None) -> Iterator[tuple[str, bpy.types.Action]]:
    """What plays: data paths of the active action and of the NLA strips that are not muted, each with its action."""
    if animation is None:
        return
    sources = [animation] if animation.action is not None else []
    if animation.use_nla:
        sources += [strip for track in animation.nla_tracks if not track.mute for strip in _clips(track.strips)]
    for source in sources:
        if REST in source.action:
            continue
        for layer in source.action.layers if source.action_slot is not None else ():
            for strip in layer.strips:
                bag = strip.channelbag(source.action_slot)
                for curve in bag.fcurves if bag is not None else ():
                    yield curve.data_path, source.action


def _clips(strips: Any) -> Iterator[Any]:
    for strip in strips:
        if strip.type == "META" and not strip.mute:
            yield from _clips(strip.strips)
        elif strip.action is not None and not strip.mute:
            yield strip


def _make_room(animation: bpy.types.AnimData, keys: bpy.types.Key, scene: bpy.types.Scene) -> list[str]:
    """Take the present action off the top without losing it."""
    current = animation.action
    if current is None:
        return []
    if AUDIO_HASH in current:
        if current.library is None:
            current.use_fake_user = True
        rest(current, keys)
        return [Text('The earlier action "{current}" is kept in this file.', current=current.name)]
    was_nla_on = animation.use_nla
    track = push_down(animation, scene.frame_start, scene.frame_end, animation.action_extrapolation)
    original_state.note_pushed(keys, track.name, was_nla_on)
    note = Text('Your action "{current}" moved to an NLA track below the speech.', current=current.name)
    return [note] if animation.use_nla else [note, "NLA is switched off for these shape keys, so it does not play."]


def rest(action: bpy.types.Action, keys: bpy.types.Key) -> None:
    """Return to rest what an action of ours drove, or it would keep its last value."""
    for key_name in json.loads(action.get(CURVES, "[]")):
        if key_name in keys.key_blocks:
            keys.key_blocks[key_name].value = 0.0


def push_down(animation: bpy.types.AnimData, first: float, last: float, extrapolation: str) -> Any:
    """What the NLA editor's Push Down does, over this range at least, so that cycling curves go on.

    Returns:
        The new track.
    """
    action, slot = animation.action, animation.action_slot
    if not animation.nla_tracks:
        animation.use_nla = True
    start, end = action.curve_frame_range
    start, end = floor(min(start, first)), ceil(max(end, last, start + 1))
    track = animation.nla_tracks.new()
    track.name = action.name
    strip = track.strips.new(action.name, start, action)
    if slot is not None:
        strip.action_slot = slot
    strip.action_frame_start, strip.action_frame_end = start, end
    strip.frame_start, strip.frame_end = start, end
    strip.blend_type = animation.action_blend_type
    strip.extrapolation = extrapolation
    if animation.action_influence != 1.0:
        strip.use_animated_influence = True
        # Without a key its curve is 0.
        strip.fcurves.find("influence").keyframe_points.insert(start, animation.action_influence)
        strip.influence = animation.action_influence
    animation.action_blend_type = "REPLACE"
    animation.action_influence = 1.0
    # Before and after the speech what lies below shows through.
    animation.action_extrapolation = "NOTHING"
    return track
