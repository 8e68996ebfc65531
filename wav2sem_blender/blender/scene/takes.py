# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes: the actions that this add-on made for a face, and how to activate, mute, push down and remove them.

A take is the active action, an NLA strip on a track of its own, or an unused action that is kept in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bpy

from ...errors import Text
from . import actions, controls, original_state, parts, players, speech_track, upper_face_strips
from .checks import own_keys
from .players import Player


@dataclass(frozen=True, kw_only=True)
class Take:
    """An action of ours, and its NLA track and strip if it has one.

    Attributes:
        player: The face's shape keys; or its rig, if that plays everything.
        slot: The action's slot for them.
    """

    action: bpy.types.Action
    player: Player
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
        """Names of the shape keys and controls that it animates."""
        if self.is_upper_face:
            return upper_face_strips.animated_keys(self.action)
        return sorted({name for bag in self._bags() for name in actions.own_keys(self.action, bag.fcurves)})

    def _bags(self) -> Iterator[Any]:
        """The containers of its curves: that of its slot, and of a speech that of the rig's slot."""
        yield from (bag for bag in actions.bags_of(self.action) if not self.is_upper_face or bag.slot == self.slot)

    @property
    def fcurves(self) -> Any:
        """All curves of its slot, including any that the user added; None without any."""
        return next((bag.fcurves for bag in actions.bags_of(self.action) if bag.slot == self.slot), None)

    def located(self) -> Iterator[tuple[str, Any, Any]]:
        """Name, container and curve of each shape key and control that it animates."""
        names = set(self.key_names)
        for bag in self._bags():
            for curve in bag.fcurves:
                name = players.name_of(curve)
                if name in names:
                    yield name, bag, curve

    def curves(self) -> Iterator[tuple[str, Any]]:
        """Name and curve of each of them."""
        yield from ((name, curve) for name, _, curve in self.located())

    @property
    def is_muted(self) -> bool:
        """Whether it is active or in the NLA, but muted."""
        if self.strip is not None:
            return bool(self.track.mute or self.strip.mute)
        return self.is_active and all(curve.mute for _, curve in self.curves())


def of_face(face: bpy.types.Object | None) -> tuple[Take, ...]:
    """All takes of a face: the active one, the NLA from the top track down, then those kept in the file."""
    found: list[Take] = []
    for player in _players_of(face):
        playing = {take.action for take in found}
        found += [take for take in _playing(player) if take.action not in playing]
    playing = {take.action for take in found}
    for player in _players_of(face):
        for action in bpy.data.actions:
            if action not in playing and _is_ours(action) and action.users == int(action.use_fake_user):
                slot = actions.slot_of(action, player)
                if slot is not None and actions.is_owner(player, action):
                    found.append(Take(action=action, player=player, slot=slot))
    return tuple(found)


def playing(action: bpy.types.Action, first: bpy.types.Object | None = None) -> tuple[bpy.types.Object, Take] | None:
    """The face that plays an action, the one that is named first if it does, and its take."""
    for face in dict.fromkeys((first, *bpy.data.objects)):
        for take in of_face(face) if face is not None and face.type == "MESH" else ():
            if take.action == action and face is not None:
                return face, take
    return None


def _players_of(face: bpy.types.Object | None) -> list[Player]:
    """The face's shape keys, and its rig if that plays takes alone."""
    keys = shape_keys_of(face)
    rig = controls.rig_of(face) if face is not None and face.type == "MESH" else None
    plays_alone = rig is not None and original_state.IDENTITY in rig
    return [*([keys] if keys is not None else []), *([rig] if rig is not None and plays_alone else [])]


def _playing(player: Player) -> Iterator[Take]:
    animation = player.animation_data
    if animation is None:
        return
    is_rig = not isinstance(player, bpy.types.Key)

    def mine(action: bpy.types.Action) -> bool:
        return _is_ours(action) and not (is_rig and not actions.is_owner(player, action))

    if animation.action is not None and mine(animation.action):
        slot = animation.action_slot or actions.slot_of(animation.action, player)
        yield Take(action=animation.action, player=player, slot=slot, is_active=True)
    for track in reversed(animation.nla_tracks):
        for strip in track.strips:
            if strip.action is not None and mine(strip.action):
                slot = strip.action_slot or actions.slot_of(strip.action, player)
                yield Take(action=strip.action, player=player, slot=slot, track=track, strip=strip)


def _others(face: bpy.types.Object, take: Take) -> list[Player]:
    """What else plays the take: parts, and the rig."""
    return [player for player in parts.followers(take.action, face) if player != take.player]


def shape_keys_of(face: bpy.types.Object | None) -> bpy.types.Key | None:
    """The face's shape-key data-block; None without one."""
    return face.data.shape_keys if face is not None and face.type == "MESH" else None


def play_slot(take: Take) -> None:
    """Assign the slot of the take again, which appending or a click in the Action editor can take away."""
    animation = take.player.animation_data
    player = animation if take.is_active else take.strip
    if player is not None and player.action_slot is None and take.slot is not None:
        player.action_slot = take.slot


def make_active(face: bpy.types.Object, take: Take, scene: bpy.types.Scene) -> list[str]:
    """Make a take the active action of the character, out of the NLA if needed.

    Returns:
        Sentences about the earlier active actions.
    """
    others, names = _others(face, take), take.key_names
    for player in (*others, take.player):
        for track, strip in _strips_of(player, take):
            _remove_strip(player, track, strip)
    notes = actions.put_on_top(take.player, take.action, take.slot, scene)
    for part in parts.following(face, scene) if isinstance(take.player, bpy.types.Key) else ():
        if any(parts.free_keys(part, names)):
            actions.follow(part.data.shape_keys, take.action, take.slot, scene, names)
    rig = controls.rig_of(face)
    if rig is not None and rig != take.player and (slot := actions.slot_of(take.action, rig)) is not None:
        actions.follow(rig, take.action, slot, scene, names)
        others.append(rig)
    shelve(face, {take.player, *others, *(part.data.shape_keys for part in parts.following(face, scene))})
    for player in dict.fromkeys((take.player, *others)):
        _settle(player)
    return notes


def shelve(face: bpy.types.Object, playing: Collection[Player]) -> list[str]:
    """Keep in the file what the face's shape keys or its rig played before, if a new take does not move them."""
    notes: list[str] = []
    for player in (shape_keys_of(face), controls.rig_of(face)):
        animation = player.animation_data if player is not None else None
        if player is None or player in playing or animation is None or animation.action is None:
            continue
        if actions.AUDIO_HASH not in animation.action:
            continue
        action = animation.action
        actions.rest(action, player)
        animation.action = None
        action.use_fake_user = action.library is None or action.use_fake_user
        _settle(player)
        notes.append(Text('The earlier action "{current}" is kept in this file.', current=action.name))
    return notes


def mute(face: bpy.types.Object, take: Take, is_muted: bool) -> None:
    """Mute or unmute a take. While it is muted, the face is at rest unless an NLA track below moves it."""
    moved = [take.player, *_others(face, take)]
    if take.is_upper_face:
        upper_face_strips.switch_upper_face(face, not is_muted)
        if take.strip is not None and not is_muted:
            take.strip.mute = False
    elif take.strip is not None:
        for player in moved:
            for track, strip in _strips_of(player, take):
                track.mute, strip.mute = is_muted, False
    else:
        for _, curve in take.curves():
            curve.mute = is_muted
    for player in moved:
        if is_muted:
            actions.rest(take.action, player)
        player.update_tag()


def push_to_nla(face: bpy.types.Object, take: Take) -> str:
    """Move the active take to an NLA track of its own, at the same frames; returns the face's track's name."""
    was_muted = take.is_muted
    mute(face, take, False)
    names = take.key_names
    first, last = take.action.curve_frame_range[:]
    tracks = []
    for player in (take.player, *_others(face, take)):
        animation = player.animation_data_create()
        if animation.action != take.action:
            continue
        # The strip that holds the keys at rest must lie below.
        actions.hold_rest(player, [name for name in names if players.has(player, name)])
        slot = animation.action_slot
        track = actions.push_down(animation, first, last, "NOTHING")
        animation.action = None
        track.strips[0].action_slot = slot
        track.mute = was_muted
        player.update_tag()
        tracks.append(track)
    return str(tracks[0].name)


def release(face: bpy.types.Object, part_keys: Sequence[bpy.types.Key], character: Sequence[bpy.types.Object]) -> None:
    """Stop the face's active take on parts of the character that do not follow any more."""
    own = shape_keys_of(face)
    animation = own.animation_data if own is not None else None
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
    keys = shape_keys_of(face)
    notes: list[str] = []
    others = _others(face, take)
    if take.is_upper_face:
        upper_face_strips.remove_upper_face(face)
    else:
        notes += _remove_speech(take, others)
    left = of_face(face)
    # A take that is kept in the file has no followers now, but its parts have the state before it on record.
    candidates = (part.data.shape_keys for scene in face.users_scene for part in parts.candidates(face, scene))
    for player in dict.fromkeys((keys, controls.rig_of(face), *others, *candidates)):
        if player is None:
            continue
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


def _remove_speech(take: Take, others: Sequence[Player]) -> list[str]:
    action, moved = take.action, (take.player, *others)
    if not take.is_kept:
        for player in moved:
            actions.rest(action, player)
    own = set(take.key_names)
    is_shared = action.users - int(action.use_fake_user) > len(moved)
    if not is_shared:
        speech_track.remove(action)
    has_others = any(players.name_of(curve) not in own for curve in actions.curves_of(action))
    if has_others and action.library is None and not is_shared:
        for _, bag, curve in list(take.located()):
            bag.fcurves.remove(curve)
        for mark in [name for name in action.keys() if name.startswith(actions.MARKS)]:  # noqa: SIM118
            del action[mark]
        return [Text('The action "{action}" stays: it has curves of yours.', action=action.name)]
    for player in () if take.is_kept else reversed(moved):  # the take's own last, whose track the take names
        for track, strip in _strips_of(player, take):
            _remove_strip(player, track, strip)
        if take.is_active and player.animation_data is not None and player.animation_data.action == action:
            player.animation_data.action = None
    if action.library is None and action.users == int(action.use_fake_user):
        bpy.data.actions.remove(action)
    return []


def _strips_of(keys: Player, take: Take) -> list[tuple[Any, Any]]:
    """Track and strip of a take in the NLA: on the face its own, on another part all that play its action."""
    if take.strip is None or keys.animation_data is None:
        return []
    if take.track.id_data == keys:
        return [(take.track, take.strip)]
    tracks = keys.animation_data.nla_tracks
    return [(track, strip) for track in tracks for strip in track.strips if strip.action == take.action]


def _remove_strip(keys: Player, track: Any, strip: Any) -> None:
    if len(track.strips) == 1:
        keys.animation_data_create().nla_tracks.remove(track)
    else:
        track.strips.remove(strip)


def _settle(keys: Player) -> None:
    """Remove what holds the keys at rest, unless a take of ours is in the NLA or lets tracks below it play."""
    animation = keys.animation_data
    strips = [strip for track in animation.nla_tracks for strip in track.strips] if animation is not None else []
    in_nla = any(strip.action is not None and actions.AUDIO_HASH in strip.action for strip in strips)
    on_top = animation is not None and animation.action is not None and actions.AUDIO_HASH in animation.action
    others = any(strip.action is not None and not actions.is_rest(strip.action) for strip in strips)
    if not in_nla and not (on_top and others):
        actions.drop_rest(keys)
    if animation is not None and not in_nla and not others and (on_top or animation.action is None):
        animation.action_extrapolation = "HOLD"


def _return_users_action(keys: Player) -> list[str]:
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
