# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes: the actions that this add-on made for a face, and how to activate, mute, push down and remove them.

A take is the active action, an NLA strip on a track of its own, or an unused action that is kept in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bpy

from ...errors import Text
from . import actions, original_state, parts, speech_track, upper_face_strips
from .checks import own_keys, value_path


@dataclass(frozen=True, kw_only=True)
class Take:
    """An action of ours, its slot for the face's shape keys, and its NLA track and strip if it has one."""

    action: bpy.types.Action
    slot: Any
    is_active: bool = False
    track: Any = None
    strip: Any = None

    @property
    def is_upper_face(self) -> bool:
        """True for blinks, brows and eye darts; False for speech."""
        return upper_face_strips.MARK in self.action

    @property
    def is_kept(self) -> bool:
        """Kept in the file, neither active nor in the NLA."""
        return not self.is_active and self.strip is None

    @property
    def frames(self) -> tuple[int, int]:
        """First and last scene frame."""
        first, last = self.action.curve_frame_range[:]
        return self._scene_frame(first), self._scene_frame(last)

    def action_frame(self, scene_frame: float) -> float:
        """The action's frame that plays at a scene frame."""
        if self.strip is None:
            return scene_frame
        return float(self.strip.action_frame_start + (scene_frame - self.strip.frame_start) / self.strip.scale)

    def _scene_frame(self, action_frame: float) -> int:
        if self.strip is None:
            return round(action_frame)
        return round(self.strip.frame_start + (action_frame - self.strip.action_frame_start) * self.strip.scale)

    @property
    def key_names(self) -> list[str]:
        """Names of the shape keys that it animates."""
        if self.is_upper_face:
            return upper_face_strips.animated_keys(self.action)
        return actions.own_keys(self.action, self.fcurves or ())

    @property
    def bag(self) -> Any:
        """The container of its slot's curves; None without any."""
        if self.slot is None:
            return None
        bags = (strip.channelbag(self.slot) for layer in self.action.layers for strip in layer.strips)
        return next((bag for bag in bags if bag is not None), None)

    @property
    def fcurves(self) -> Any:
        """All curves of its slot, including any that the user added; None without any."""
        return self.bag.fcurves if self.bag is not None else None

    def curves(self) -> Iterator[tuple[str, Any]]:
        """Name and curve of each shape key that it animates."""
        fcurves = self.fcurves
        for name in self.key_names if fcurves is not None else ():
            curve = fcurves.find(value_path(name))
            if curve is not None:
                yield name, curve

    @property
    def is_muted(self) -> bool:
        """Whether it is active or in the NLA, but muted."""
        if self.strip is not None:
            return bool(self.track.mute or self.strip.mute)
        return self.is_active and all(curve.mute for _, curve in self.curves())


def of_face(face: bpy.types.Object | None) -> tuple[Take, ...]:
    """All takes of a face: the active one, the NLA from the top track down, then those kept in the file."""
    keys = shape_keys_of(face)
    if keys is None:
        return ()
    found, animation = [], keys.animation_data
    if animation is not None:
        if animation.action is not None and _is_ours(animation.action):
            slot = animation.action_slot or _slot_for_keys(animation.action)
            found.append(Take(action=animation.action, slot=slot, is_active=True))
        for track in reversed(animation.nla_tracks):
            for strip in track.strips:
                if strip.action is not None and _is_ours(strip.action):
                    slot = strip.action_slot or _slot_for_keys(strip.action)
                    found.append(Take(action=strip.action, slot=slot, track=track, strip=strip))
    playing = {take.action for take in found}
    for action in bpy.data.actions:
        if action not in playing and _is_ours(action) and action.users == int(action.use_fake_user):
            slot = _slot_for_keys(action)
            if slot is not None and actions.is_owner(keys, action):
                found.append(Take(action=action, slot=slot))
    return tuple(found)


def shape_keys_of(face: bpy.types.Object | None) -> bpy.types.Key | None:
    """The face's shape-key data-block; None without one."""
    return face.data.shape_keys if face is not None and face.type == "MESH" else None


def play_slot(face: bpy.types.Object, take: Take) -> None:
    """Assign the slot of the take again, which appending or a click in the Action editor can take away."""
    animation = face.data.shape_keys.animation_data
    player = animation if take.is_active else take.strip
    if player is not None and player.action_slot is None and take.slot is not None:
        player.action_slot = take.slot


def make_active(face: bpy.types.Object, take: Take, scene: bpy.types.Scene) -> list[str]:
    """Make a take the active action of the character, out of the NLA if needed.

    Returns:
        Sentences about the earlier active actions.
    """
    keys = face.data.shape_keys
    others = parts.followers(take.action, face)
    for player in (*others, keys):
        for track, strip in _strips_of(player, take):
            _remove_strip(player, track, strip)
    notes = actions.put_on_top(keys, take.action, take.slot, scene)
    for part in parts.following(face, scene):
        if any(parts.free_keys(part, take.key_names)):
            actions.follow(part.data.shape_keys, take.action, take.slot, scene, take.key_names)
    for player in (keys, *others):
        _settle(player)
    return notes


def mute(face: bpy.types.Object, take: Take, is_muted: bool) -> None:
    """Mute or unmute a take. While it is muted, the face is at rest unless an NLA track below moves it."""
    players = [face.data.shape_keys, *parts.followers(take.action, face)]
    if take.is_upper_face:
        upper_face_strips.switch_upper_face(face, not is_muted)
        if take.strip is not None and not is_muted:
            take.strip.mute = False
    elif take.strip is not None:
        for player in players:
            for track, strip in _strips_of(player, take):
                track.mute, strip.mute = is_muted, False
    else:
        for _, curve in take.curves():
            curve.mute = is_muted
    for player in players:
        if is_muted:
            actions.rest(take.action, player)
        player.update_tag()


def push_to_nla(face: bpy.types.Object, take: Take) -> str:
    """Move the active take to an NLA track of its own, at the same frames; returns the face's track's name."""
    was_muted = take.is_muted
    mute(face, take, False)
    names, slot = take.key_names, take.slot
    first, last = take.action.curve_frame_range[:]
    players = [face.data.shape_keys, *parts.followers(take.action, face)]
    tracks = []
    for player in players:
        animation = player.animation_data_create()
        if animation.action != take.action:
            continue
        # The strip that holds the keys at rest must lie below.
        actions.hold_rest(player, [name for name in names if name in player.key_blocks])
        track = actions.push_down(animation, first, last, "NOTHING")
        animation.action = None
        track.strips[0].action_slot = slot
        track.mute = was_muted
        player.update_tag()
        tracks.append(track)
    return str(tracks[0].name)


def release(face: bpy.types.Object, part_keys: Sequence[bpy.types.Key], character: Sequence[bpy.types.Object]) -> None:
    """Stop the face's active take on parts of the character that do not follow any more."""
    animation = face.data.shape_keys.animation_data
    action = animation.action if animation is not None else None
    if action is None or not _is_ours(action):
        return
    for part in character:
        keys = part.data.shape_keys
        if keys not in part_keys and keys.animation_data is not None and keys.animation_data.action == action:
            actions.rest(action, keys)
            keys.animation_data.action = None
            _settle(keys)
            _return_users_action(keys)
            original_state.restore(keys)


def remove_take(face: bpy.types.Object, take: Take, *, with_keys: bool = False) -> list[str]:
    """Remove a take. Removing the last one restores the face's state before the first run, and that of its parts.

    Args:
        face: The mesh.
        take: One of its takes.
        with_keys: After the last one, also remove the shape keys that the add-on made.

    Returns:
        Sentences about what else changed.
    """
    keys = face.data.shape_keys
    notes: list[str] = []
    others = parts.followers(take.action, face)
    if take.is_upper_face:
        upper_face_strips.remove_upper_face(face)
    else:
        notes += _remove_speech(keys, take, others)
    left = of_face(face)
    # A take that is kept in the file has no followers now, but its parts have the state before it on record.
    candidates = (part.data.shape_keys for scene in face.users_scene for part in parts.candidates(face, scene))
    for player in dict.fromkeys((keys, *others, *candidates)):
        _settle(player)
        if not any(other for other in left if not other.is_upper_face and not other.is_kept):
            notes += _return_users_action(player)
        if not left and (player == keys or original_state.BEFORE in player):
            original_state.restore(player)
    if not left and with_keys:
        _remove_keys(face)
    face.data.update_tag()
    return notes


def can_return(strip: Any) -> bool:
    """Whether a strip plays its action exactly as the action would play as the active one."""
    same = strip.frame_start == strip.action_frame_start and strip.frame_end == strip.action_frame_end
    return bool(same and strip.scale == 1.0 and strip.repeat == 1.0 and not strip.use_reverse)


def _is_ours(action: bpy.types.Action) -> bool:
    return actions.AUDIO_HASH in action or upper_face_strips.MARK in action


def _slot_for_keys(action: bpy.types.Action) -> Any:
    """The slot of an action for shape keys, whoever it is assigned to; None without one."""
    return next((slot for slot in action.slots if slot.target_id_type == "KEY"), None)


def _remove_speech(keys: bpy.types.Key, take: Take, others: Sequence[bpy.types.Key]) -> list[str]:
    action, players = take.action, (keys, *others)
    if not take.is_kept:
        for player in players:
            actions.rest(action, player)
    own = {value_path(name) for name in take.key_names}
    fcurves = take.fcurves or ()
    is_shared = action.users - int(action.use_fake_user) > len(players)
    if not is_shared:
        speech_track.remove(action)
    if any(curve.data_path not in own for curve in fcurves) and action.library is None and not is_shared:
        for _, curve in list(take.curves()):
            fcurves.remove(curve)
        for mark in [name for name in action.keys() if name.startswith(actions.MARKS)]:  # noqa: SIM118
            del action[mark]
        return [Text('The action "{action}" stays: it has curves of yours.', action=action.name)]
    for player in () if take.is_kept else reversed(players):  # the face last, whose track the take names
        for track, strip in _strips_of(player, take):
            _remove_strip(player, track, strip)
        if take.is_active and player.animation_data is not None and player.animation_data.action == action:
            player.animation_data.action = None
    if action.library is None and action.users == int(action.use_fake_user):
        bpy.data.actions.remove(action)
    return []


def _strips_of(keys: bpy.types.Key, take: Take) -> list[tuple[Any, Any]]:
    """Track and strip of a take in the NLA: on the face its own, on another part all that play its action."""
    if take.strip is None or keys.animation_data is None:
        return []
    if take.track.id_data == keys:
        return [(take.track, take.strip)]
    tracks = keys.animation_data.nla_tracks
    return [(track, strip) for track in tracks for strip in track.strips if strip.action == take.action]


def _remove_strip(keys: bpy.types.Key, track: Any, strip: Any) -> None:
    if len(track.strips) == 1:
        keys.animation_data_create().nla_tracks.remove(track)
    else:
        track.strips.remove(strip)


def _settle(keys: bpy.types.Key) -> None:
    """Remove what holds the keys at rest, unless a take of ours is in the NLA or lets tracks below it play."""
    animation = keys.animation_data
    strips = [strip for track in animation.nla_tracks for strip in track.strips] if animation is not None else []
    in_nla = any(strip.action is not None and actions.AUDIO_HASH in strip.action for strip in strips)
    on_top = animation is not None and animation.action is not None and actions.AUDIO_HASH in animation.action
    others = any(strip.action is not None and actions.REST not in strip.action for strip in strips)
    if not in_nla and not (on_top and others):
        actions.drop_rest(keys)
    if animation is not None and not in_nla and not others and (on_top or animation.action is None):
        animation.action_extrapolation = "HOLD"


def _return_users_action(keys: bpy.types.Key) -> list[str]:
    """Make the user's action that we pushed down active again, unless its strip has been edited since."""
    moved, animation = original_state.pushed(keys), keys.animation_data
    if moved is None or animation is None or animation.action is not None:
        return []
    original_state.forget_pushed(keys)
    track = animation.nla_tracks.get(moved["track"])
    if track is None or len(track.strips) != 1 or not can_return(track.strips[0]):
        return ["Your action stays in the NLA: its track has changed."]
    strip = track.strips[0]
    action, slot = strip.action, strip.action_slot
    animation.action_blend_type = strip.blend_type
    animation.action_influence = strip.influence if strip.use_animated_influence else 1.0
    animation.action_extrapolation = strip.extrapolation
    animation.nla_tracks.remove(track)
    animation.action = action
    if slot is not None:
        animation.action_slot = slot
    if not animation.nla_tracks:
        animation.use_nla = moved["nla"]
    return [Text('Your action "{action}" is the active one again.', action=action.name)]


def _remove_keys(face: bpy.types.Object) -> None:
    """Remove the shape keys that the add-on made, and the Basis if it is the only one left."""
    for name in own_keys(face.data):
        face.shape_key_remove(face.data.shape_keys.key_blocks[name])
    keys = face.data.shape_keys
    if keys is not None and len(keys.key_blocks) == 1:
        face.shape_key_clear()
