# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns head sway in degrees into the rotation of an object or a bone.

An object sways by its delta rotation, so its own rotation stays free. A bone has no delta rotation: it sways about its
rest pose, or, if NLA tracks animate it, on top of them. Shapes: T animation frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import radians
from typing import Any

import bpy
import numpy as np
from mathutils import Euler, Matrix, Quaternion, Vector

from ...errors import Text, UserError
from . import actions


@dataclass(frozen=True, kw_only=True)
class SwayTarget:
    """What sways with the head: an object, or a bone of an armature; nothing if the object's name is empty."""

    object_name: str = ""
    bone_name: str = ""


NOTHING_SWAYS = SwayTarget()


@dataclass(frozen=True, kw_only=True)
class Sway:
    """How a head sways.

    Attributes:
        owner: The object that is animated; for a bone, its armature.
        path: Data path of the rotation.
        order: "QUATERNION", or the order of the Euler angles.
        rest: The rotation without sway.
        axes: Yaw, pitch and roll axes in the frame of the rotation. Positive angles turn left, up and left.
        blend_type: Blend type of the NLA strip.
    """

    owner: bpy.types.Object
    path: str
    order: str
    rest: tuple[float, ...]
    axes: tuple[Vector, Vector, Vector]
    blend_type: str

    def values(self, head_deg_T3: np.ndarray) -> np.ndarray:
        """Rotation at every frame, (T, 4) quaternions or (T, 3) Euler angles in radians."""
        order: Any = "XYZ" if self.order == "QUATERNION" else self.order
        base = Quaternion(self.rest) if self.order == "QUATERNION" else Euler(self.rest, order).to_quaternion()
        if self.blend_type == "COMBINE":
            base = Quaternion()
        values, previous = [], Euler((0.0, 0.0, 0.0), order)
        for degrees in head_deg_T3.tolist():
            turn = base
            for axis, angle in zip(reversed(self.axes), reversed(degrees), strict=True):
                turn = Quaternion(axis, radians(angle)) @ turn
            if self.order == "QUATERNION":
                values.append(turn[:])
            else:
                previous = turn.to_euler(order, previous)
                values.append(previous[:])
        return np.array(values, dtype=np.float32)


def find(head: bpy.types.Object, what: SwayTarget, earlier: Mapping[str, Sequence[float]], mark: str) -> Sway:
    """Find what sways, its rest and its axes.

    Args:
        head: The mesh with the face; its rotation tells which way the character looks.
        what: The object, or the armature and its bone.
        earlier: Rotation without sway by data path, if it sways already.
        mark: Custom property of our own actions, to tell them from the user's.

    Raises:
        UserError: It cannot sway.
    """
    object_name, bone_name = what.object_name, what.bone_name
    owner = bpy.data.objects.get(object_name)
    if owner is None:
        raise UserError('Head sway: there is no object named "{object_name}" in this file.', object_name=object_name)
    if owner.library or owner.override_library:
        raise UserError(
            'Head sway: "{object_name}" is linked from another file. Make it local first.', object_name=object_name
        )
    if owner.animation_data is not None and owner.animation_data.use_tweak_mode:
        raise UserError(
            'Head sway: an NLA strip of "{object_name}" is in Tweak Mode. Leave Tweak Mode first.',
            object_name=object_name,
        )
    return _bone(head, owner, bone_name, earlier, mark) if bone_name else _object(head, owner, earlier)


def set_values(owner: bpy.types.Object, path: str, values: list[float]) -> None:
    """Set a rotation; nothing happens if its bone is gone, or if the path leads to something else."""
    try:
        rotation = owner.path_resolve(path)
    except ValueError:
        return
    n_values = {Euler: 3, Quaternion: 4}.get(type(rotation))
    if n_values != len(values):
        return
    for index, value in enumerate(values):
        rotation[index] = value


def _object(head: bpy.types.Object, owner: bpy.types.Object, earlier: Mapping[str, Sequence[float]]) -> Sway:
    kind = _kind(owner.rotation_mode, Text('The object "{object_name}"', object_name=owner.name))
    path = f"delta_rotation_{kind}"
    above = owner.matrix_world @ owner.matrix_basis.inverted_safe()
    return _sway(head, owner, path, owner.rotation_mode, above, "REPLACE", earlier)


def _bone(
    head: bpy.types.Object, owner: bpy.types.Object, bone_name: str, earlier: Mapping[str, Sequence[float]], mark: str
) -> Sway:
    if owner.type != "ARMATURE" or bone_name not in owner.pose.bones:
        raise UserError(
            'Head sway: "{armature}" has no bone named "{bone_name}".', armature=owner.name, bone_name=bone_name
        )
    bone = owner.pose.bones[bone_name]
    kind = _kind(bone.rotation_mode, Text('The bone "{bone_name}"', bone_name=bone_name))
    path = f'pose.bones["{bpy.utils.escape_identifier(bone_name)}"].rotation_{kind}'
    animation = owner.animation_data
    if animation is not None and any(curve.data_path == path for curve in animation.drivers):
        raise UserError(
            'Head sway: a driver turns the bone "{bone_name}". Choose another bone or object.',
            bone_name=bone_name,
        )
    busy = [action for used, action in actions.animated_paths(animation) if used == path and mark not in action]
    if animation is not None and animation.action in busy:
        raise UserError(
            'Head sway: the action "{action}" turns the bone "{bone_name}". Push it down into the NLA first; then '
            "the sway is added to it.",
            action=animation.action.name,
            bone_name=bone_name,
        )
    blend_type = "COMBINE" if busy else "REPLACE"
    return _sway(
        head, owner, path, bone.rotation_mode, owner.matrix_world @ bone.bone.matrix_local, blend_type, earlier
    )


def _sway(
    head: bpy.types.Object,
    owner: bpy.types.Object,
    path: str,
    order: str,
    frame: Matrix,
    blend_type: str,
    earlier: Mapping[str, Sequence[float]],
) -> Sway:
    rest = tuple(earlier.get(path, owner.path_resolve(path)))
    turned = frame.to_quaternion().inverted()
    up, left, forward = _directions(head)
    # Right-handed rotations about these turn left, up and left.
    axes = (turned @ up, turned @ -left, turned @ -forward)
    return Sway(owner=owner, path=path, order=order, rest=rest, axes=axes, blend_type=blend_type)


def _kind(rotation_mode: str, what: str) -> str:
    if rotation_mode == "AXIS_ANGLE":
        raise UserError(
            "Head sway: {what} rotates by axis and angle. Choose Euler or Quaternion as its rotation mode.", what=what
        )
    return "quaternion" if rotation_mode == "QUATERNION" else "euler"


def _directions(head: bpy.types.Object) -> tuple[Vector, Vector, Vector]:
    """Up, the character's left, and the direction in which the face looks, in world space.

    Blender's characters look along their -y with z up, imported ones often along z with y up: the level one is taken.
    """
    turn = head.matrix_world.to_quaternion()
    candidates = [turn @ Vector((0.0, -1.0, 0.0)), turn @ Vector((0.0, 0.0, 1.0))]
    forward = min(candidates, key=lambda direction: abs(direction.z))
    forward = Vector((forward.x, forward.y, 0.0)).normalized()
    up = Vector((0.0, 0.0, 1.0))
    return up, up.cross(forward), forward  # type: ignore[return-value]  # the stubs: 2D vectors give a number
