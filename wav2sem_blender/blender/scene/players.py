# SPDX-License-Identifier: GPL-3.0-or-later
"""What plays a take: the shape keys of a mesh, or the rig that moves it. Both are animated by names.

On shape keys a name is a key's, on a rig it is the address of a control (`controls.Control`). One action plays on both,
with a slot for each.
"""

from __future__ import annotations

import re
from typing import Any

import bpy

from . import controls
from .controls import Control
from .key_mapping import value_path

Player = bpy.types.Key | bpy.types.Object

_KEY_PATH = re.compile(r'key_blocks\["(.*)"\]\.value', re.DOTALL)


def slot_type(player: Player) -> str:
    """The kind of slot of an action that the player plays."""
    return "KEY" if isinstance(player, bpy.types.Key) else "OBJECT"


def path_of(name: str) -> tuple[str, int]:
    """Data path and index of a key's or a control's curve."""
    control = controls.parsed(name)
    return (value_path(name), 0) if control is None else (control.path, max(control.axis, 0))


def place_of(player: Player, name: str) -> tuple[str, int]:
    """The same, where a key may have the name of a control."""
    return (value_path(name), 0) if isinstance(player, bpy.types.Key) else path_of(name)


def key_of(curve: Any) -> str:
    """Name of the shape key that a curve animates; empty for other curves."""
    found = _KEY_PATH.fullmatch(curve.data_path)
    return bpy.utils.unescape_identifier(found[1]) if found else ""


def name_of(curve: Any) -> str:
    """Name of the key or control that a curve animates; empty for other curves."""
    control = controls.of_curve(curve)
    return control.address if control is not None else key_of(curve)


def group_of(name: str, group: str) -> str:
    """The group of a control's curve: a bone's curves are together."""
    control = controls.parsed(name)
    return f"{group} {control.bone}" if control is not None and control.bone else group


def has(player: Player, name: str) -> bool:
    """Whether the player has a key or a control of that name."""
    return name in player.key_blocks if isinstance(player, bpy.types.Key) else controls.exists(player, name)


def rest_value(player: Player, name: str) -> float:
    """The value of a key or control when the face is at rest."""
    return 0.0 if isinstance(player, bpy.types.Key) else controls.rest(player, _control(name))


def value(player: Player, name: str) -> float:
    """The value of a key or control now."""
    if isinstance(player, bpy.types.Key):
        return float(player.key_blocks[name].value)
    return controls.value(player, _control(name))


def set_value(player: Player, name: str, new: float) -> None:
    """Set a key or control."""
    if isinstance(player, bpy.types.Key):
        player.key_blocks[name].value = new
    else:
        controls.set_value(player, _control(name), new)


def _control(name: str) -> Control:
    control = controls.parsed(name)
    assert control is not None
    return control
