# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the controls of a face rig that play a model's channels: by what drives the face's keys, then by their names.

1. A key with a known name that a control drives: the control plays the key's channel, as far as moves the key fully.
2. A custom property with a known name that some driver reads, as DAZ's `facs_jnt_JawOpen` turns the jaw.
3. If the face has no mouth by then: bones of a known control board, or bones of a known rig that move the skin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from math import radians
from typing import Any

import bpy
from mathutils import Vector

from ...errors import Text
from ...pipeline.face_names import SPEECH_CHANNELS, KeyMap, Row, guess_key_map, listed
from ...pipeline.rig_controls import BOARDS, FACE_BONES, JAW_TURN_DEG, MOUTH_MM, MOVES, Board, FaceBones
from ...pipeline.visemes import openings_mm
from . import controls
from .controls import Control
from .drivers import CircularError, Reader

# An axis of a bone that takes less than this share of a movement is left alone.
_LEAST_PART = 0.15
# A board counts as known with at least this many channels of the mouth.
_KNOWN_BOARD = 6
# Properties of this add-on, and of Blender.
_OURS = ("wav2sem", "_RNA_UI", "cycles")


@dataclass(frozen=True, kw_only=True)
class Guess:
    """A mapping, and a sentence about drivers that cannot be followed; empty if there are none."""

    key_map: KeyMap
    problem: str = ""


def with_controls(face: bpy.types.Object, by_keys: KeyMap, driven: Iterable[str]) -> Guess:
    """The mapping of a face whose rig may move it.

    Args:
        face: The mesh.
        by_keys: The mapping that the names of its keys suggest.
        driven: Names of the keys that have drivers.
    """
    rig = controls.rig_of(face)
    if rig is None:
        return Guess(key_map=by_keys)
    moved = controls.driven(rig)
    rows, problem = _by_drivers(face, rig, by_keys, frozenset(driven))
    found = replace(by_keys, rows=tuple(rows))
    if not found.visemes:
        found = _with_properties(face, rig, found, moved)
    if not any(found.visemes or row.channel in SPEECH_CHANNELS for row in found.rows) and rig.pose is not None:
        known = next(filter(None, (_board(rig, board) for board in BOARDS)), None)
        known = known or next(filter(None, (_face_bones(rig, bones) for bones in FACE_BONES)), None)
        if known is not None:
            known = replace(known, rows=tuple(row for row in known.rows if row.key not in moved))
            found = replace(known, rows=known.rows + found.rows)
    return Guess(key_map=found, problem=problem)


def _by_drivers(
    face: bpy.types.Object, rig: bpy.types.Object, by_keys: KeyMap, driven: frozenset[str]
) -> tuple[list[Row], str]:
    """The rows, with the controls of this rig in the place of the keys that they drive."""
    reader, solved, circular = Reader(), dict[str, tuple[str, float] | None](), []
    for name, curve in _drivers_of(face.data.shape_keys, driven) if driven else ():
        try:
            solved[name] = _control_of(reader, name, curve, rig)
        except CircularError:
            circular.append(name)
    rows: dict[tuple[str, str, bool], Row] = {}
    for row in by_keys.rows:
        control = solved.get(row.key)
        if control is not None:
            row = Row(row.channel, control[0], float(f"{control[1] * row.gain:.5g}"))
        rows.setdefault((row.channel, row.key, row.gain > 0), row)
    problem = ""
    if circular:
        problem = Text("The drivers of {keys} read each other in a circle; remove one of them", keys=listed(circular))
    addresses = {control[0] for control in solved.values() if control is not None}
    return list(_one_each(rows.values(), addresses)), problem


def _one_each(rows: Iterable[Row], addresses: Collection[str]) -> Iterator[Row]:
    """Of the channels that a control plays in one direction, the one that opens the mouth most, or both of its sides.

    One bone may open the jaw and move correctives with it; the channels must not add up on it.
    """
    sharing: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        if row.key in addresses:
            sharing.setdefault((row.key, row.gain > 0), []).append(row)
        else:
            yield row
    for rivals in sharing.values():
        openings = openings_mm(row.channel for row in rivals)
        main = _without_side(max(rivals, key=lambda row: abs(openings.get(row.channel, 0.0))).channel)
        sides = {row.channel: row for row in rivals if _without_side(row.channel) == main}
        for row in sides.values():
            yield row._replace(gain=row.gain / len(sides))


def _without_side(channel: str) -> str:
    return channel.removesuffix("Left").removesuffix("Right")


def _drivers_of(keys: bpy.types.Key, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for curve in keys.animation_data_create().drivers:
        name = bpy.utils.unescape_identifier(curve.data_path.partition('["')[2].rpartition('"]')[0])
        if name in names and curve.data_path.endswith('"].value'):
            yield name, curve


def _control_of(reader: Reader, name: str, curve: Any, rig: bpy.types.Object) -> tuple[str, float] | None:
    """Address of the control that moves a key, and its distance from rest at which the key is at 1."""
    found = []
    for source in reader.sources(curve):
        if source.rig == rig:
            distance, reached = source.solved()
            if distance:
                is_named = name.lower() in source.control.words.lower()
                found.append((reached > 0.95, is_named, -abs(distance), distance, source.control.address))
    return (max(found)[-1], max(found)[-2]) if found else None


def _with_properties(face: bpy.types.Object, rig: bpy.types.Object, found: KeyMap, moved: frozenset[str]) -> KeyMap:
    """Also the rig's properties with known names, for channels that nothing plays yet."""
    read = set(_read_properties(face, rig))
    named: dict[str, Control] = {}
    for control in _properties(rig):
        if control.address in read and control.address not in moved:
            named.setdefault(control.name, control)
    guessed = guess_key_map(named)
    if guessed.visemes and found.rows:
        return found
    rows = []
    for row in guessed.rows:
        if row.channel not in found.channels:
            control = named[row.key]
            full = controls.limits(rig, control)[1] == 100.0  # percent
            rows.append(Row(row.channel, control.address, row.gain * (100.0 if full else 1.0)))
    if not found.rows:
        return replace(guessed, rows=tuple(rows))
    return replace(found, rows=found.rows + tuple(rows))


def _properties(rig: bpy.types.Object) -> Iterator[Control]:
    for owner, bone in ((rig, ""), *((bone, bone.name) for bone in (rig.pose.bones if rig.pose is not None else ()))):
        for name in owner.keys():  # noqa: SIM118, a bone is no dict
            control = Control(bone, name)
            if not name.startswith(_OURS) and controls.holder(rig, control) is not None:
                yield control


def _read_properties(face: bpy.types.Object, rig: bpy.types.Object) -> Iterator[str]:
    """Addresses that some driver of the character reads; a property that nothing reads moves nothing."""
    blocks: list[Any] = [rig, rig.data]
    for mesh in {face, *rig.children_recursive}:
        blocks += [mesh, mesh.data, mesh.data.shape_keys] if mesh.type == "MESH" else []
    for block in dict.fromkeys(blocks):
        animation = block.animation_data if block is not None else None
        for curve in animation.drivers if animation is not None else ():
            for variable in curve.driver.variables:
                for target in variable.targets:
                    if target.id == rig and variable.type == "SINGLE_PROP":
                        yield target.data_path


def _board(rig: bpy.types.Object, board: Board) -> KeyMap | None:
    bones = rig.pose.bones
    rows = tuple(
        Row(channel, Control(slide.bone, "location", slide.axis).address, slide.at_one)
        for channel, slides in board.channels.items()
        for slide in slides
        if slide.bone in bones
    )
    n_known = len({row.channel for row in rows} & set(SPEECH_CHANNELS))
    return KeyMap(rows=rows, label=board.label) if n_known >= _KNOWN_BOARD else None


def _face_bones(rig: bpy.types.Object, known: FaceBones) -> KeyMap | None:
    """Bones that move the skin: the jaw turns, the lips slide by shares of the mouth's width."""
    parts = {
        part.replace("{}", side): bone
        for part, names in known.parts.items()
        for side in (("Left", "Right") if "{}" in part else ("",))
        if (bone := _first(rig, names.format(s=side[:1], l=side[:1].lower()))) is not None
    }
    if "jaw" not in parts or not {"cornerLeft", "cornerRight"} <= parts.keys():
        return None
    axis, sign = controls.opening_axis(rig, parts["jaw"])
    rows = [Row("jawOpen", Control(parts["jaw"].name, "rotation_euler", axis).address, sign * radians(JAW_TURN_DEG))]
    corners = [parts[f"corner{side}"].bone.head_local for side in ("Left", "Right")]
    unit = (corners[0] - corners[1]).length / MOUTH_MM
    for channel, moves in MOVES.items():
        for side in ("Left", "Right") if "{}" in channel else ("",):
            for part, (outwards, forward, up) in moves.items():
                for bone_side in (side,) if side else (("Left", "Right") if "{}" in part else ("",)):
                    bone = parts.get(part.replace("{}", bone_side))
                    if bone is not None:
                        # The character looks along its -y, and its left is +x.
                        out = outwards if bone_side == "Left" else -outwards
                        rows += _slide(channel.replace("{}", side), bone, unit * Vector((out, -forward, up)))
    return KeyMap(rows=tuple(rows), label=known.label)


def _slide(channel: str, bone: bpy.types.PoseBone, move: Vector) -> Iterator[Row]:
    """The rows that move a bone; `move` is in the armature's space."""
    local = bone.bone.matrix_local.to_3x3().inverted() @ move
    for axis, part in enumerate(local[:]):  # type: ignore[union-attr]
        if abs(part) > _LEAST_PART * move.length:
            yield Row(channel, Control(bone.name, "location", axis).address, float(f"{part:.4g}"))


def _first(rig: bpy.types.Object, names: str) -> bpy.types.PoseBone | None:
    return next((rig.pose.bones[name] for name in names.split() if name in rig.pose.bones), None)
