# SPDX-License-Identifier: GPL-3.0-or-later
"""The meshes that speak with a face because they have keys of the same names: teeth, tongue, beard, lashes.

All of them play one action with one slot, so that editing it edits the character. A part's other keys, and keys that a
driver moves already, are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from . import controls, key_mapping
from .players import Player

# How far a part's box may lie from the face's, as a share of the face's diagonal. Two heads of one rig stand apart.
_NEAR = 0.1


def candidates(face: bpy.types.Object, scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """Meshes of the character that have free keys in common with the face, by name; also those that are unticked.

    They are children of the face, lie below the same parent, hang on the same armature or, if the user wants that, are
    in the same collection; and they are where the face is.
    """
    if face.data.shape_keys is None:
        return []
    names = set(face.data.shape_keys.key_blocks.keys()[1:])
    seen = {face.data}
    found: list[bpy.types.Object] = []
    for part in sorted(_family(face, scene), key=lambda candidate: candidate.name):
        if part.type != "MESH" or part.data in seen or part.library is not None or part.data.library is not None:
            continue
        seen.add(part.data)  # an object that shares a mesh shares its keys
        if _is_near(part, face) and any(free_keys(part, names)):
            found.append(part)
    return found


def following(face: bpy.types.Object, scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """The parts that are ticked."""
    return [part for part in candidates(face, scene) if part.wav2sem_follows]  # type: ignore[attr-defined]


def belonging(face: bpy.types.Object, scene: bpy.types.Scene) -> set[bpy.types.Object]:
    """All that must be exported with the face: its children, its parts, what it drives, what its rig moves near it.

    A part may be driven through the face's object, its mesh or its shape keys, and a tooth may hang on the jaw's bone.
    """
    sources = {face, face.data, face.data.shape_keys}
    rig = face.find_armature()
    found = {face, *face.children_recursive, *following(face, scene)}
    for candidate in scene.objects:
        data = candidate.data if candidate.type == "MESH" else None
        owners = (candidate, data, data.shape_keys if data is not None else None)
        hangs_near = rig is not None and candidate.type == "MESH" and candidate.parent == rig
        if any(_is_driven_by(owner, sources) for owner in owners if owner is not None) or (
            hangs_near and _is_near(candidate, face)
        ):
            found.add(candidate)
    return found | {armature for part in found if (armature := part.find_armature()) is not None}


def _is_driven_by(owner: Any, sources: set[bpy.types.ID]) -> bool:
    animation = owner.animation_data
    for curve in animation.drivers if animation is not None else ():
        if any(target.id in sources for variable in curve.driver.variables for target in variable.targets):
            return True
    return False


def free_keys(part: bpy.types.Object, names: Iterable[str]) -> Iterator[str]:
    """Those of the keys that the part has and that nothing else drives."""
    keys = part.data.shape_keys
    if keys is None or not keys.use_relative:
        return
    driven = key_mapping.driven_keys(keys)
    for name in names:
        if name in keys.key_blocks and name not in driven and keys.key_blocks.find(name):
            yield name


def followers(action: bpy.types.Action, face: bpy.types.Object) -> list[Player]:
    """Shape keys of the face's parts, ticked or not, and the face's rig, that play an action of the face."""
    found: list[Player] = [part.data.shape_keys for scene in face.users_scene for part in candidates(face, scene)]
    rig = controls.rig_of(face)
    return [player for player in dict.fromkeys((*found, rig)) if player is not None and plays(player, action)]


def plays(player: Player, action: bpy.types.Action) -> bool:
    """Whether an action is the active one of these keys or of this rig, or in their NLA."""
    animation = player.animation_data
    if animation is None:
        return False
    strips = (strip for track in animation.nla_tracks for strip in track.strips)
    return animation.action == action or any(strip.action == action for strip in strips)


def _family(face: bpy.types.Object, scene: bpy.types.Scene) -> set[bpy.types.Object]:
    family = set(face.children_recursive)
    root = face
    while root.parent is not None:
        root = root.parent
    family |= set(root.children_recursive)
    rig = face.find_armature()
    if rig is not None:
        family |= {candidate for candidate in scene.objects if candidate.find_armature() == rig}
    if scene.is_property_set("wav2sem") and scene.wav2sem.same_collection:
        for collection in face.users_collection:
            family |= set(collection.all_objects)
    return (family - {face}) & set(scene.objects)


def _is_near(part: bpy.types.Object, face: bpy.types.Object) -> bool:
    low_3, high_3 = _box(face)
    part_low_3, part_high_3 = _box(part)
    margin = _NEAR * float(np.linalg.norm(high_3 - low_3))
    return bool((part_low_3 <= high_3 + margin).all() and (part_high_3 >= low_3 - margin).all())


def _box(mesh: bpy.types.Object) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a mesh's box in world space."""
    corners_83 = np.array([mesh.matrix_world @ Vector(corner) for corner in mesh.bound_box])
    return corners_83.min(0), corners_83.max(0)
