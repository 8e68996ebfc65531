# SPDX-License-Identifier: GPL-3.0-or-later
"""Controls of a face rig: axes of bones, and custom properties of the rig or of a bone.

A control is named by its data path from the rig, with the index of an axis: `pose.bones["jaw"].rotation_euler[0]`,
`pose.bones["mouth"].location[1]`, `["facs_jnt_JawOpen"]`. So a key mapping has one column for keys and controls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import bpy
import numpy as np
from mathutils import Vector

# The transform channels of a bone that a mapping can name, and those that are written for them.
AXES = {"location": "LIMIT_LOCATION", "rotation_euler": "LIMIT_ROTATION", "scale": "LIMIT_SCALE"}
_QUATERNION = "rotation_quaternion"
_ADDRESS = re.compile(
    r'(?:pose\.bones\["((?:[^"\\]|\\.)*)"\])?(?:\.(location|rotation_euler|rotation_quaternion|scale)\[([0-3])\]|\["((?:[^"\\]|\\.)*)"\])',
    re.DOTALL,
)
# Limits closer than this to a value are no cut that anyone sees.
_VISIBLE = 1e-3


class Control(NamedTuple):
    """A control's parts: the bone's name, empty for the rig itself; a custom property, or a transform and its axis."""

    bone: str = ""
    name: str = ""
    axis: int = -1

    @property
    def is_property(self) -> bool:
        """Whether this is a custom property."""
        return self.axis < 0

    @property
    def is_turn(self) -> bool:
        """Whether its values are angles in radians."""
        return self.name == "rotation_euler"

    @property
    def address(self) -> str:
        """Its name in a key mapping."""
        return self.path if self.is_property else f"{self.path}[{self.axis}]"

    @property
    def path(self) -> str:
        """Data path from the rig, as a curve has it."""
        owner = f'pose.bones["{bpy.utils.escape_identifier(self.bone)}"]' if self.bone else ""
        if self.is_property:
            return f'{owner}["{bpy.utils.escape_identifier(self.name)}"]'
        return f"{owner}.{self.name}"

    @property
    def words(self) -> str:
        """Its name in a sentence, such as "jaw, X rotation"."""
        if self.is_property:
            return self.name
        return (
            f"{self.bone} {self.name.partition('_')[0]} {'XYZ'[self.axis] if self.name != _QUATERNION else ''}".strip()
        )


def parsed(address: str) -> Control | None:
    """The parts of an address; None for the name of a shape key."""
    found = _ADDRESS.fullmatch(address) if address.endswith("]") else None
    if found is None:
        return None
    bone, transform, axis, prop = found.groups()
    bone = bpy.utils.unescape_identifier(bone or "")
    if prop is not None:
        return Control(bone, bpy.utils.unescape_identifier(prop))
    return Control(bone, transform, int(axis)) if bone else None


def of_curve(curve: Any) -> Control | None:
    """The control that a curve of a rig's slot animates."""
    return parsed(curve.data_path) or parsed(f"{curve.data_path}[{curve.array_index}]")


def armature_of(face: bpy.types.Object) -> bpy.types.Object | None:
    """The armature that deforms the mesh or one of its parents, or that is one of its parents."""
    owner = face.find_armature()
    while owner is None and face.parent is not None:
        face = face.parent
        owner = face if face.type == "ARMATURE" else face.find_armature()
    return owner


def opening_axis(armature: bpy.types.Object, bone: bpy.types.PoseBone) -> tuple[int, int]:
    """Index of the bone's axis that lies across the face, and the sign of the rotation that opens the mouth.

    The face is taken to look where the bone points, or along -y if the bone is about vertical.
    """
    to_world = (armature.matrix_world @ bone.bone.matrix_local).to_3x3().normalized()
    front = to_world @ Vector((0, 1, 0))
    front.z = 0
    if front.length < 0.3:
        front = Vector((0, -1, 0))
    # A rotation about this axis lowers what is in front.
    across = front.normalized().cross(Vector((0, 0, -1)))
    parts = [to_world.col[axis].dot(across) for axis in range(3)]
    index = max(range(3), key=lambda i: abs(parts[i]))
    return index, 1 if parts[index] > 0 else -1


def rig_of(face: bpy.types.Object) -> bpy.types.Object | None:
    """The object with the controls: the user's choice, else what drives most of the face's keys, else its armature."""
    # Merely reading the property would store it.
    chosen = face.wav2sem_rig if face.is_property_set("wav2sem_rig") else None  # type: ignore[attr-defined]
    if chosen is not None and chosen.users_scene:
        return chosen  # type: ignore[no-any-return]
    keys = face.data.shape_keys if face.type == "MESH" else None
    animation = keys.animation_data if keys is not None else None
    votes: Counter[bpy.types.Object] = Counter()
    for curve in animation.drivers if animation is not None else ():
        votes.update({owner for target in _targets(curve) if (owner := _owner(target.id)) is not None})
    if votes:
        return max(votes, key=lambda owner: (votes[owner], owner == armature_of(face)))
    return armature_of(face)


def _targets(curve: Any) -> Iterator[Any]:
    for variable in curve.driver.variables:
        yield from variable.targets


def _owner(block: Any) -> bpy.types.Object | None:
    """The object to which a driver's target belongs; an armature's data belongs to the object that shows it."""
    if isinstance(block, bpy.types.Object):
        return block
    if isinstance(block, bpy.types.Armature):
        return next((rig for rig in bpy.data.objects if rig.data == block and rig.library == block.library), None)
    return None


def holder(rig: bpy.types.Object | None, control: Control) -> Any:
    """The bone or the rig that has the control; None if it is gone or is no number."""
    if rig is None:
        return None
    owner: Any = rig
    if control.bone:
        owner = rig.pose.bones.get(control.bone) if rig.pose is not None else None
    if owner is None or not control.is_property:
        return owner
    value = owner.get(control.name)
    return owner if isinstance(value, int | float) and not isinstance(value, bool) else None


def exists(rig: bpy.types.Object | None, address: str) -> bool:
    """Whether the rig has this control."""
    control = parsed(address)
    return control is not None and holder(rig, control) is not None


def value(rig: bpy.types.Object, control: Control) -> float:
    """The control's value now."""
    owner = holder(rig, control)
    if owner is None:
        return 0.0
    return float(owner[control.name] if control.is_property else getattr(owner, control.name)[control.axis])


def set_value(rig: bpy.types.Object, control: Control, new: float) -> None:
    """Set a control; nothing happens if it is gone."""
    owner = holder(rig, control)
    if owner is None:
        return
    if control.is_property:
        owner[control.name] = type(owner[control.name])(round(new) if isinstance(owner[control.name], int) else new)
    else:
        getattr(owner, control.name)[control.axis] = new
    rig.update_tag()


def rest(rig: bpy.types.Object, control: Control) -> float:
    """The value at which the face is at rest: a bone's rest pose, a property's default value."""
    if control.is_property:
        return float(_settings(rig, control).get("default", 0.0))
    return float(control.name == "scale" or (control.name == _QUATERNION and control.axis == 0))


def limits(rig: bpy.types.Object, control: Control) -> tuple[float, float]:
    """The least and the largest value that a property, or a limit on a bone, allows."""
    low, high = -np.inf, np.inf
    if control.is_property:
        settings = _settings(rig, control)
        return float(settings.get("min", low)), float(settings.get("max", high))
    bone = holder(rig, control)
    for limit in bone.constraints if bone is not None and control.name in AXES else ():
        if limit.type != AXES[control.name] or limit.mute or limit.owner_space != "LOCAL":
            continue
        axis, ends = "xyz"[control.axis], ("limit", "limit") if control.is_turn else ("min", "max")
        if getattr(limit, f"use_{ends[0]}_{axis}"):
            low = max(low, getattr(limit, f"min_{axis}"))
        if getattr(limit, f"use_{ends[1]}_{axis}"):
            high = min(high, getattr(limit, f"max_{axis}"))
    return low, high


def _settings(rig: bpy.types.Object, control: Control) -> dict[str, Any]:
    owner = holder(rig, control)
    return owner.id_properties_ui(control.name).as_dict() if owner is not None else {}


def driven(rig: bpy.types.Object | None) -> frozenset[str]:
    """Addresses of the controls that a driver moves, so that curves on them would have no effect."""
    animation = rig.animation_data if rig is not None else None
    curves = animation.drivers if animation is not None else ()
    return frozenset(control.address for curve in curves if (control := of_curve(curve)) is not None)


def curves_for(rig: bpy.types.Object, moves: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """What to write on a rig.

    Args:
        rig: The object with the controls.
        moves: Address to distance from rest at every frame (T,).

    Returns:
        Address to values (T,), with quaternions for bones that rotate by them; and the words of those that their limits
        cut off.
    """
    values: dict[str, np.ndarray] = {}
    cut: list[str] = []
    turns: dict[str, dict[int, np.ndarray]] = {}
    for address, move_T in moves.items():
        control = parsed(address)
        assert control is not None
        low, high = limits(rig, control)
        wanted_T = rest(rig, control) + move_T.astype(float)
        values_T = wanted_T.clip(low, high)
        if np.abs(values_T - wanted_T).max(initial=0.0) > _VISIBLE * max(1e-6, np.abs(move_T).max(initial=0.0)):
            cut.append(control.words)
        if control.is_turn and rig.pose.bones[control.bone].rotation_mode == "QUATERNION":
            turns.setdefault(control.bone, {})[control.axis] = values_T
        else:
            values[address] = values_T
    for bone, angles in turns.items():
        for axis, values_T in enumerate(_quaternions(angles).T):
            values[Control(bone, _QUATERNION, axis).address] = values_T
    return values, cut


def _quaternions(angles: Mapping[int, np.ndarray]) -> np.ndarray:
    """Quaternions (T, 4) of turns about X, then Y, then Z, as Blender's order XYZ has them."""
    half_T3 = np.stack([angles.get(axis, np.zeros_like(next(iter(angles.values())))) / 2 for axis in range(3)], axis=1)
    (cos_x, cos_y, cos_z), (sin_x, sin_y, sin_z) = np.cos(half_T3).T, np.sin(half_T3).T
    return np.stack(
        [
            cos_x * cos_y * cos_z + sin_x * sin_y * sin_z,
            sin_x * cos_y * cos_z - cos_x * sin_y * sin_z,
            cos_x * sin_y * cos_z + sin_x * cos_y * sin_z,
            cos_x * cos_y * sin_z - sin_x * sin_y * cos_z,
        ],
        axis=1,
    )


def listed_words(addresses: Iterable[str]) -> list[str]:
    """The words of controls, and shape keys' names as they are."""
    return [control.words if (control := parsed(address)) is not None else address for address in addresses]
