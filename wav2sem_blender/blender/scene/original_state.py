# SPDX-License-Identifier: GPL-3.0-or-later
"""What a face's shape keys were like before this add-on first touched them, so that removing everything restores them.

Stored with the shape-key data-block as JSON, from the first run to the removal of the last action of ours.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import bpy

BEFORE = "wav2sem_before"


def put_back_later(keys: bpy.types.Key, rollback: ExitStack) -> None:
    """Let a failed run forget what it is about to note."""
    rollback.callback(_put_back, keys, keys.get(BEFORE))


def _put_back(keys: bpy.types.Key, content: str | None) -> None:
    if content is not None:
        keys[BEFORE] = content
    elif BEFORE in keys:
        del keys[BEFORE]


def note_sliders(keys: bpy.types.Key, key_names: list[str]) -> None:
    """Remember value and range of keys that are about to be driven for the first time."""
    before = _read(keys)
    known = before.setdefault("keys", {})
    for name in key_names:
        block = keys.key_blocks[name]
        known.setdefault(name, [block.value, block.slider_min, block.slider_max])
    _write(keys, before)


def note_pushed(keys: bpy.types.Key, track: str, was_nla_on: bool) -> None:
    """Remember that the user's action moved from the top to this track."""
    _write(keys, {**_read(keys), "pushed": {"track": track, "nla": was_nla_on}})


def pushed(keys: bpy.types.Key) -> dict[str, Any] | None:
    """What `note_pushed` remembers."""
    return _read(keys).get("pushed")


def forget_pushed(keys: bpy.types.Key) -> None:
    """The user's action is back at the top, or its track is gone."""
    before = _read(keys)
    before.pop("pushed", None)
    _write(keys, before)


def restore(keys: bpy.types.Key) -> None:
    """Give values and ranges back, and drop animation data that holds nothing any more."""
    for name, (value, lowest, highest) in _read(keys).get("keys", {}).items():
        block = keys.key_blocks.get(name)
        if block is not None and not keys.user.override_library:
            block.slider_min, block.slider_max = lowest, highest
        if block is not None:
            block.value = value
    if BEFORE in keys:
        del keys[BEFORE]
    animation = keys.animation_data
    if animation is not None and animation.action is None:
        animation.action_extrapolation = "HOLD"
        if not animation.nla_tracks and not animation.drivers:
            keys.animation_data_clear()


def _read(keys: bpy.types.Key) -> dict[str, Any]:
    return json.loads(keys.get(BEFORE, "{}"))  # type: ignore[no-any-return]


def _write(keys: bpy.types.Key, before: dict[str, Any]) -> None:
    keys[BEFORE] = json.dumps(before)
