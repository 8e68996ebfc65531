# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a face's shape keys, and of its rig, before the add-on's first run: removing every take restores it.

JSON in a custom property of the shape-key data-block or of the rig, from the first run until the last take is removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import bpy

from . import players
from .custom_properties import as_dict, is_list_of, is_number, record, text
from .players import Player

BEFORE = "wav2sem_before"
# Who the shape keys or the rig are, for the takes that belong to them (`actions.claim`).
IDENTITY = "wav2sem_id"
_LARGEST = 1e30  # of a slider; Blender stores floats


def put_back_later(keys: Player, rollback: ExitStack) -> None:
    """Let the rollback of a failed run discard what the run records here."""
    rollback.callback(_put_back, keys, text(keys, BEFORE) or None)


def _put_back(keys: Player, content: str | None) -> None:
    if content is not None:
        keys[BEFORE] = content
    elif BEFORE in keys:
        del keys[BEFORE]


def note_sliders(keys: bpy.types.Key, key_names: list[str]) -> None:
    """Record value, slider range and place of each key, unless an earlier run has recorded them."""
    before = _read(keys)
    known = before.setdefault("keys", {})
    for name in key_names:
        block = keys.key_blocks[name]
        place = keys.key_blocks.find(name)
        known.setdefault(name, [block.value, block.slider_min, block.slider_max, place])
    _write(keys, before)


def note_controls(rig: bpy.types.Object, names: list[str]) -> None:
    """Record the value of each control, unless an earlier run has recorded it."""
    before = _read(rig)
    known = before.setdefault("controls", {})
    for name in names:
        known.setdefault(name, players.value(rig, name))
    _write(rig, before)


def note_pushed(keys: Player, track: str, was_nla_on: bool) -> None:
    """Record that the user's active action was pushed down to this track."""
    _write(keys, {**_read(keys), "pushed": {"track": track, "nla": was_nla_on}})


def pushed(keys: Player) -> dict[str, Any] | None:
    """The record of `note_pushed`: `track` and `nla`; None without one."""
    return _read(keys).get("pushed")


def forget_pushed(keys: Player) -> None:
    """Drop the record of `note_pushed`: the user's action is active again, or its track is gone."""
    before = _read(keys)
    before.pop("pushed", None)
    _write(keys, before)


def restore(keys: Player) -> None:
    """Restore the values and slider ranges, and remove animation data that has become empty."""
    before = _read(keys)
    known = before.get("keys", {}) if isinstance(keys, bpy.types.Key) else {}
    for name, value in before.get("controls", {}).items():
        players.set_value(keys, name, value)
    for name, (value, lowest, highest, *place) in known.items():
        assert isinstance(keys, bpy.types.Key)
        block = keys.key_blocks.get(name) or _renamed(keys, known, place)
        if block is not None and not keys.user.override_library:
            block.slider_min, block.slider_max = lowest, highest
        if block is not None:
            block.value = value
    for mark in (BEFORE, IDENTITY):
        if mark in keys:
            del keys[mark]
    animation = keys.animation_data
    if animation is not None and animation.action is None:
        animation.action_extrapolation = "HOLD"
        if not animation.nla_tracks and not animation.drivers:
            keys.animation_data_clear()


def _renamed(keys: bpy.types.Key, known: Mapping[str, Any], place: list[int]) -> bpy.types.ShapeKey | None:
    """The key that is in this place of the list, if no record has its name; 0.1.0 recorded no places."""
    block = keys.key_blocks[int(place[0])] if place and place[0] < len(keys.key_blocks) else None
    return block if block is not None and block.name not in known else None


def _read(keys: Player) -> dict[str, Any]:
    """The record; what is not as `_write` writes it is left out."""
    stored = record(keys, BEFORE)
    read: dict[str, Any] = {}
    for name in ("keys", "controls"):
        if name in stored:
            is_whole = _is_slider if name == "keys" else is_number
            read[name] = {key: value for key, value in as_dict(stored[name]).items() if is_whole(value)}
    moved = as_dict(stored.get("pushed"))
    if isinstance(moved.get("track"), str) and isinstance(moved.get("nla"), bool):
        read["pushed"] = moved
    return read


def _is_slider(value: Any) -> bool:
    """Value, least, most, and the place, which 0.1.0 did not record."""
    if not is_list_of(value, float) or len(value) not in (3, 4):
        return False
    return all(abs(number) < _LARGEST for number in value[:3]) and (len(value) == 3 or 0 <= value[3] < 2**31)


def _write(keys: Player, before: dict[str, Any]) -> None:
    keys[BEFORE] = json.dumps(before)
