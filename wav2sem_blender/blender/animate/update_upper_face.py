# SPDX-License-Identifier: GPL-3.0-or-later
"""Brows and head follow the directions of a take, if it has an upper face: only the frames that differ are changed.

What was heard for it is kept for this session; after loading a file the worker listens once more (`hear_again.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bpy

from ...errors import Text
from ...pipeline.prosody import Prosody
from ...pipeline.upper_face import BROW_CHANNELS, Performance
from ...pipeline.words.directions import OF_THE_UPPER_FACE
from ...pipeline.words.track import Direction
from ..scene import actions, custom_properties, directions, edit_curves, players, speech_track, takes, upper_face
from ..scene import upper_face_strips as strips
from ..scene.takes import Take
from .recent import Recent

# Settings of a run by which two runs have heard the same sound at the same place.
_SAME_SOUND = ("filepath", "sound", "strip", "start_frame", "range_start_s", "range_end_s", "delay_s")
_MAX_HEARD = 4
_heard: Recent[str, Prosody] = Recent(_MAX_HEARD)
_performances: Recent[str, Performance] = Recent(_MAX_HEARD)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What new directions change on the curves of an upper face."""

    upper: Take
    directions: tuple[Direction, ...]
    curves: list[edit_curves.CurveChange]


def of_take(face: bpy.types.Object, take: Take) -> Take | None:
    """The upper face that plays with a take and was made of the same sound; None if there is none."""
    wanted = _sound_of(custom_properties.record(take.action, actions.SETTINGS))
    return next((some for some in takes.of_face(face) if _is_of(some, wanted)), None)


def directions_of(face: bpy.types.Object, recording: Mapping[str, Any]) -> tuple[Direction, ...]:
    """The directions that the face's take of a recording follows; () if there is none.

    Raises:
        UserError: The track of the take is damaged.
    """
    for take in takes.of_face(face):
        settings = custom_properties.record(take.action, actions.SETTINGS)
        if speech_track.has_track(take.action) and not take.is_kept and _sound_of(settings) == _sound_of(recording):
            return speech_track.recorded(take.action).directions
    return ()


def remember(action: bpy.types.Action, heard: Prosody) -> None:
    """Keep what was heard for an upper face that has just been made, or heard again."""
    _heard.put(_key(action), heard)
    _performances.clear()


def forget() -> None:
    """Free the memory."""
    _heard.clear()
    _performances.clear()


def is_ready(face: bpy.types.Object, take: Take) -> bool:
    """Whether brows and head can follow without hearing the sound again, or nobody directs them."""
    upper = of_take(face, take)
    if upper is None or _key(upper.action) in _heard:
        return True
    made = strips.made_of(upper.action)
    return not (made is not None and made.directions) and not _are_directed(take.action)


def is_behind(face: bpy.types.Object, take: Take, wanted: Sequence[Direction]) -> bool:
    """Whether the upper face of a take follows other directions than these."""
    upper = of_take(face, take)
    made = strips.made_of(upper.action) if upper is not None else None
    return made is not None and made.directions != strips.of_the_upper_face(wanted)


def planned(face: bpy.types.Object, take: Take, wanted: Sequence[Direction]) -> Change | None:
    """What the directions of a take change on its upper face; None if there is nothing to change.

    Raises:
        UserError: What sways with the head cannot be turned any more.
    """
    upper, now = of_take(face, take), strips.of_the_upper_face(wanted)
    made = strips.made_of(upper.action) if upper is not None else None
    if upper is None or made is None or made.directions == now or _key(upper.action) not in _heard:
        return None
    performance = _performance(upper.action, made)
    old, new = performance.directed(made.directions), performance.directed(now)
    return Change(upper=upper, directions=now, curves=upper_face.changed_curves(face, upper.action, old, new))


def apply(face: bpy.types.Object, change: Change, *, replaces: bool) -> edit_curves.Edited | None:
    """Change the curves; `replaces` as for `edit_curves.apply`. None if none had to be changed."""
    strips.follows(change.upper.action, change.directions)
    if not change.curves:
        return None
    edited = edit_curves.apply(face, change.upper, change.curves, replaces=replaces)
    for owner, _, strip in strips.strips_with(face):
        if strip.action == change.upper.action:
            owner.update_tag()
    return edited


def why_still(face: bpy.types.Object, take: Take, wanted: directions.Directions) -> Text | str:
    """Why brows or head will not do what a strip wants of them; empty if they will, or if it wants nothing of them."""
    names = {some.name for some in wanted} & set(OF_THE_UPPER_FACE)
    if not names:
        return ""
    upper = of_take(face, take)
    if upper is None:
        return "Brows and head keep still: there is no upper face for this take. Press Add Upper Face"
    curves = list(actions.curves_of(upper.action))
    rows = upper_face.rows_of(face, BROW_CHANNELS)
    if "brows" in names and not {players.key_of(curve) for curve in curves} & {row.key for row in rows}:
        return "The brows keep still: they are off in Upper Face, or the face has no keys for them"
    if "head" in names and all(players.key_of(curve) for curve in curves):
        return "The head keeps still. Choose what sways in Upper Face, and add it again"
    return ""


def _is_of(some: Take, wanted: Mapping[str, Any]) -> bool:
    if not some.is_upper_face or some.is_kept or strips.made_of(some.action) is None:
        return False
    return _sound_of(strips.recording_of(some.action)) == wanted


def _sound_of(recording: Mapping[str, Any]) -> dict[str, Any]:
    return {name: recording[name] for name in _SAME_SOUND if name in recording}


def _are_directed(action: bpy.types.Action) -> bool:
    scene, shown = speech_track.strips_of(action)
    if scene is None:
        return False
    keyed = {strip for strip, name in directions.keys_of(scene) if name in OF_THE_UPPER_FACE}
    return any(
        strip.name in keyed or any(getattr(strip, directions.attribute(name)) for name in OF_THE_UPPER_FACE)
        for strip in shown
        if strip.type == "TEXT"
    )


def _performance(action: bpy.types.Action, made: strips.Made) -> Performance:
    """Without directions it is the same for each edit, and takes longer than they do."""
    settings = strips.recorded_settings(action)
    key = f"{_key(action)} {settings} {made.rate_hz} {made.n_frames}"
    performance = _performances.get(key)
    if performance is None:
        performance = Performance(_heard[_key(action)], settings, made.rate_hz, made.n_frames)
    return _performances.put(key, performance)


def _key(action: bpy.types.Action) -> str:
    """The same for all that the worker hears alike."""
    return json.dumps(strips.recording_of(action), sort_keys=True)
