# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a jaw bone follow the shape keys: a driver turns it as far as `jawOpen` or the visemes open the mouth.

The driver stores what is needed to undo it: the name of its first variable contains the bone's rotation mode, and its
expression begins with the angle at rest. A library override keeps drivers, but no custom properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import radians

import bpy

from ...errors import UserError
from ...pipeline.face_names import Row
from ...pipeline.visemes import VISEME_SETS
from . import key_mapping
from .controls import armature_of, opening_axis
from .custom_properties import text
from .key_mapping import value_path

AXES = (
    ("AUTO", "Automatic", "Across the face, so that the chin goes down and back"),
    ("X", "X", "The bone's own X axis"),
    ("Y", "Y", "The bone's own Y axis, along the bone"),
    ("Z", "Z", "The bone's own Z axis"),
)
# jawOpen at 1 lowers the chin of the bundled model's face by 25 mm, and the chin is 87 mm from the jaw's hinge.
OPEN_ANGLE = radians(17)

_FIRST_VARIABLE = "wav2sem_"
# Custom property of a shape-key data-block: the key without a shape that carries the curve to the bone.
_CARRIER_PROPERTY = "wav2sem_jaw_carrier"
_CHANNEL = "jawOpen"

_JAW_WORDS = {"jaw", "jawbone", "jawroot", "jawmaster", "lowerjaw", "mandible", "mandibula", "顎", "あご"}
# Words in the names of a jaw's parts and ends, and of bones that a rig moves by itself.
_NO_HINGE = {"end", "tip", "nub", "upper", "top", "l", "r", "left", "right", "mch", "org", "target", "ik"}
_CONTROLS = ("jaw_master", "c_jawbone.x")  # Rigify's and Auto-Rig Pro's


def guess_jaw_bone(names: Iterable[str]) -> str | None:
    """Guess which of these bones turns the lower jaw; controls are preferred to the bones that they move."""
    found = []
    for name in names:
        words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+", name)}
        is_jaw = bool(words & _JAW_WORDS) or {"jaw", "root"} <= words
        if is_jaw and not words & _NO_HINGE:
            found.append((name not in _CONTROLS, "def" in words, len(name), name))
    return min(found)[-1] if found else None


def drive(face: bpy.types.Object, bone_name: str = "", axis: str = "AUTO", angle: float = OPEN_ANGLE) -> str:
    """Add the driver.

    Args:
        face: The mesh whose keys the bone follows.
        bone_name: The bone; empty to guess it.
        axis: One of `AXES`.
        angle: Angle of the fully open jaw in radians.

    Returns:
        The bone's name.

    Raises:
        UserError: There is no such bone, or something else turns it; nothing was changed.
    """
    armature = armature_of(face)
    assert armature is not None  # the operators' poll
    name = bone_name or guess_jaw_bone(armature.pose.bones.keys())
    if not name:
        raise UserError(
            '"{armature}" has no bone with a jaw\'s name. Give the name of the bone.', armature=armature.name
        )
    bone = armature.pose.bones.get(name)
    if bone is None:
        raise UserError('"{armature}" has no bone "{name}".', armature=armature.name, name=name)
    _check_free(armature, bone)
    terms = _jaw_terms(face)
    if not terms and face.data.override_library:
        raise UserError(
            '"{face}" has no shape key for {channel}, and a library override cannot take new ones. Add an empty shape '
            'key "{channel}" in the linked file.',
            face=face.name,
            channel=_CHANNEL,
        )
    release(face)
    terms = _jaw_terms(face) or [(_add_carrier(face), 1.0)]  # releasing may have removed the carrier
    index, sign = opening_axis(armature, bone) if axis == "AUTO" else ("XYZ".index(axis), 1)
    mode = bone.rotation_mode
    if mode in {"QUATERNION", "AXIS_ANGLE"}:
        bone.rotation_mode = "XYZ"
    rest = bone.rotation_euler[index]
    driver = bone.driver_add("rotation_euler", index).driver
    driver.type = "SCRIPTED"
    parts = []
    for number, (key, factor) in enumerate(terms):
        variable = driver.variables.new()
        # Short names: Blender cuts an expression off after 255 characters, and there are up to 14 visemes.
        variable.name = f"k{number}" if number else _FIRST_VARIABLE + mode
        variable.targets[0].id_type = "KEY"
        variable.targets[0].id = face.data.shape_keys
        variable.targets[0].data_path = value_path(key)
        parts.append(f"{factor:.4g}*{variable.name}")
    driver.expression = f"{rest:.6f}+{sign * angle:.6f}*({'+'.join(parts)})"
    return name


def release(face: bpy.types.Object) -> None:
    """Remove our drivers from the face's armature, and the carrier key; the bones return to rest."""
    armature = armature_of(face)
    assert armature is not None
    for curve, bone in list(_drivers(armature)):
        index, expression = curve.array_index, curve.driver.expression
        mode = curve.driver.variables[0].name.removeprefix(_FIRST_VARIABLE)
        armature.animation_data_create().drivers.remove(curve)
        bone.rotation_euler[index] = float(expression.partition("+")[0])
        if mode != bone.rotation_mode:
            bone.rotation_mode = mode  # type: ignore[assignment]
    keys = face.data.shape_keys
    carrier = text(keys, _CARRIER_PROPERTY) if keys else ""
    if carrier:
        table = key_mapping.stored(face)
        if table is not None:
            rows = tuple(row for row in table.rows if row.key != carrier)
            key_mapping.store(face, replace(table, rows=rows))
        if carrier in keys.key_blocks:
            face.shape_key_remove(keys.key_blocks[carrier])
        if face.data.shape_keys:
            del face.data.shape_keys[_CARRIER_PROPERTY]


def driven_bones(armature: bpy.types.Object | None) -> list[str]:
    """Names of the bones that a driver of ours turns."""
    return [bone.name for _, bone in _drivers(armature)] if armature else []


def _drivers(armature: bpy.types.Object) -> Iterator[tuple[bpy.types.FCurve, bpy.types.PoseBone]]:
    animation = armature.animation_data
    for curve in animation.drivers if animation else ():
        variables = curve.driver.variables
        if variables and variables[0].name.startswith(_FIRST_VARIABLE):
            bone = next((b for b in armature.pose.bones if curve.data_path == f"{_path(b)}.rotation_euler"), None)
            if bone is not None:
                yield curve, bone


def _path(bone: bpy.types.PoseBone) -> str:
    return f'pose.bones["{bpy.utils.escape_identifier(bone.name)}"]'


def _check_free(armature: bpy.types.Object, bone: bpy.types.PoseBone) -> None:
    """Raise UserError if the bone's rotation is keyed or driven by the user."""
    animation = armature.animation_data
    if animation is None:
        return
    ours = {curve.data_path for curve, _ in _drivers(armature)}
    start = f"{_path(bone)}.rotation"
    if any(curve.data_path.startswith(start) and curve.data_path not in ours for curve in animation.drivers):
        raise UserError('A driver already turns the bone "{bone}". Remove it, or choose another bone.', bone=bone.name)
    if animation.action is None:
        return
    for layer in animation.action.layers:
        for strip in layer.strips:
            bag = strip.channelbag(animation.action_slot) if animation.action_slot else None
            if bag and any(curve.data_path.startswith(start) for curve in bag.fcurves):
                raise UserError(
                    'The action "{action}" turns the bone "{bone}". Remove the bone\'s rotation curves, or choose '
                    "another bone.",
                    action=animation.action.name,
                    bone=bone.name,
                )


def _jaw_terms(face: bpy.types.Object) -> list[tuple[str, float]]:
    """Keys and their factors; the weighted sum of their values is how far the jaw is open, 1 as for jawOpen at 1."""
    key_map = key_mapping.in_use(face)
    present = key_mapping.key_names(face)
    rows = [row for row in key_map.rows if row.key in present and row.gain]
    if not key_map.visemes:
        return [(row.key, 1 / row.gain) for row in rows if row.channel == _CHANNEL][:1]
    weights = VISEME_SETS[key_map.visemes].weights
    opened: dict[str, Row] = {}
    for row in rows:
        if weights.get(row.channel, {}).get(_CHANNEL):
            opened.setdefault(row.channel, row)
    return [(row.key, weights[channel][_CHANNEL] / row.gain) for channel, row in opened.items()]


def _add_carrier(face: bpy.types.Object) -> str:
    """Add a key without a shape, for a face whose jaw is moved by the bone alone; returns its name."""
    if face.data.shape_keys is None:
        face.shape_key_add(name="Basis", from_mix=False)
    key = face.shape_key_add(name=_CHANNEL, from_mix=False)
    key.value = 0.0
    face.data.shape_keys[_CARRIER_PROPERTY] = key.name
    if key_mapping.stored(face) is not None:
        row = face.wav2sem_mapping.add()
        row.channel, row.key = _CHANNEL, key.name
    return str(key.name)
