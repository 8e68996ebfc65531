# SPDX-License-Identifier: GPL-3.0-or-later
"""The NLA strips of the upper face: finding, adding, muting and removing them, and the record on their action."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import bpy

from ...errors import UserError
from ...pipeline.upper_face import Settings
from ...pipeline.words.directions import OF_THE_UPPER_FACE
from ...pipeline.words.track import Direction, Track
from . import actions, custom_properties, head_sway, players
from .custom_properties import as_dict, fitting, is_list_of, record
from .head_sway import SwayTarget

TRACK_NAME = "Upper Face"

# Custom property that marks an Action of ours: JSON with the settings, what is animated, and its values at rest.
MARK = "wav2sem_upper_face"
_BONE = re.compile(r'pose\.bones\["(.*?)"\]\.', re.DOTALL)


def remove_upper_face(target: bpy.types.Object) -> bool:
    """Remove our tracks from a mesh and from what sways with it; returns whether there were any.

    The shape keys stay and return to rest.
    """
    removed = False
    for owner, track, strip in list(strips_with(target)):
        removed = True
        return_to_rest(owner, strip.action)
        remove_strip(owner, track, strip)
    return removed


def switch_all(scene: bpy.types.Scene, is_on: bool) -> None:
    """Mute or unmute all of our tracks in a scene."""
    for target in scene.objects:
        switch_upper_face(target, is_on)


def switch_upper_face(target: bpy.types.Object, is_on: bool) -> None:
    """Mute or unmute our tracks on one mesh; what they animate returns to rest while they are muted."""
    for owner, track, strip in strips_with(target):
        track.mute = not is_on  # muting the strip instead would hold its last value
        if not is_on:
            return_to_rest(owner, strip.action)


def recorded_settings(action: bpy.types.Action) -> Settings:
    """The settings that an action of ours was made with."""
    return Settings(**fitting(Settings, as_dict(record_of(action).get("settings"))))


def recording_of(action: bpy.types.Action) -> dict[str, Any]:
    """What was recorded about the recording that it was made from; may be empty."""
    return as_dict(record_of(action).get("recording"))


@dataclass(frozen=True, kw_only=True)
class Made:
    """The frames of the action for which an upper face was made, and a track with the directions that it follows."""

    first_frame: int
    n_frames: int
    rate_hz: float
    track: dict  # type: ignore[type-arg]  # JSON

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Those that it follows."""
        try:
            return of_the_upper_face(Track.from_json(self.track).directions)
        except UserError:  # of a file that somebody else has written
            return ()


def made(first_frame: int, n_frames: int, rate_hz: float, directions: Iterable[Direction]) -> Made:
    """How an upper face is made, for the record."""
    track = Track(directions=tuple(of_the_upper_face(directions))).to_json()
    return Made(first_frame=first_frame, n_frames=n_frames, rate_hz=rate_hz, track=track)


def made_of(action: bpy.types.Action) -> Made | None:
    """How an action of ours was made; None if it does not say, as those of earlier versions."""
    found = custom_properties.described(Made, as_dict(record_of(action).get("made")))
    return found if found is not None and found.n_frames > 0 and found.rate_hz > 0 else None


def follows(action: bpy.types.Action, directions: Iterable[Direction]) -> None:
    """Record the directions that an action of ours follows now."""
    found = made_of(action)
    assert found is not None
    found = made(found.first_frame, found.n_frames, found.rate_hz, directions)
    action[MARK] = json.dumps({**record_of(action), "made": asdict(found)})


def of_the_upper_face(directions: Iterable[Direction]) -> tuple[Direction, ...]:
    """Those for brows and head, in the order of their times."""
    found = (direction for direction in directions if direction.name in OF_THE_UPPER_FACE)
    return tuple(sorted(found, key=lambda direction: (direction.start_s, direction.end_s, direction.name)))


def sway_of(action: bpy.types.Action) -> SwayTarget:
    """The object or bone that it sways, as they are called now."""
    recorded = SwayTarget(**fitting(SwayTarget, as_dict(record_of(action).get("sway"))))
    for owner in bpy.data.objects if recorded.object_name else ():
        if any(strip.action == action for _, _, strip in strips_on(owner)):
            bones = filter(None, (_BONE.match(curve.data_path) for curve in actions.curves_of(action)))
            bone = next((bpy.utils.unescape_identifier(found[1]) for found in bones), "")
            return SwayTarget(object_name=owner.name, bone_name=bone)
    return recorded


def animated_keys(action: bpy.types.Action) -> list[str]:
    """Names of the shape keys that it animates, as they are called now."""
    return sorted(filter(None, map(players.key_of, actions.curves_of(action))))


def has_upper_face(target: bpy.types.Object) -> bool:
    """Whether this mesh has a track of ours."""
    return next(strips_with(target), None) is not None


def add_track(
    owner: Any, action: bpy.types.Action, slot: Any, first: int, last: int, blend_type: str, rollback: ExitStack
) -> None:
    """Add a track with the action's strip to `owner`, a shape-key data-block or an object.

    The curves begin and end at rest, so a strip that holds its ends keeps everything at rest before and after.
    """
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


def strips_on(owner: Any) -> Iterator[tuple[Any, Any, Any]]:
    """(owner, track, strip) of our strips on an object or a shape-key data-block; None has none."""
    animation = owner.animation_data if owner is not None else None
    for track in animation.nla_tracks if animation else ():
        for strip in track.strips:
            if strip.action is not None and MARK in strip.action:
                yield owner, track, strip


def strips_with(target: bpy.types.Object) -> Iterator[tuple[Any, Any, Any]]:
    """The same of a mesh's shape keys, of its parts', and of every object that the same actions sway."""
    keys = target.data.shape_keys if target.type == "MESH" else None
    found = list(strips_on(keys))
    yield from found
    moved = {strip.action for _, _, strip in found}
    for owner in (*bpy.data.objects, *bpy.data.shape_keys) if moved else ():
        if owner != keys:
            yield from (entry for entry in strips_on(owner) if entry[2].action in moved)


def remove_strip(owner: Any, track: Any, strip: Any) -> None:
    """Remove a strip, its track if that is empty then, and its action if nothing else uses it."""
    action = strip.action
    if len(track.strips) == 1:
        owner.animation_data.nla_tracks.remove(track)
    else:
        track.strips.remove(strip)
    if action.users == 0 and action.library is None:
        bpy.data.actions.remove(action)


def return_to_rest(owner: Any, action: bpy.types.Action) -> None:
    """Return to rest what an action of ours animates on this owner; it would keep its last value otherwise."""
    if isinstance(owner, bpy.types.Key):
        for key in animated_keys(action):
            if key in owner.key_blocks:
                owner.key_blocks[key].value = 0.0
        return
    for path, values in rest_of(action).items():
        head_sway.set_values(owner, path, values)


def rest_of(action: bpy.types.Action) -> dict[str, list[float]]:
    """Data path and rest of what an action of ours sways; the path follows a renamed bone."""
    paths = dict.fromkeys(curve.data_path for curve in actions.curves_of(action) if not players.key_of(curve))
    rests = as_dict(record_of(action).get("rest")).values()
    return {path: rest for path, rest in zip(paths, rests, strict=False) if is_list_of(rest, float)}


def record_of(action: bpy.types.Action) -> dict[str, Any]:
    """The record that is stored on an action of ours."""
    return record(action, MARK)
