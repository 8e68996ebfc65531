# SPDX-License-Identifier: GPL-3.0-or-later
"""Characters that are more than one mesh with keys of its own: parts, halves, copies and linked ones.

All are built from the demo head. A builder adds its character to the open scene, makes the face active and returns it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import bpy
import numpy as np

from . import characters
from .characters import KINDS, build, demo

_TEETH, _EYES = ("teeth", "gum", "tongue"), ("sclera", "iris", "limbus", "pupil", "catch_light")
_LASHES = ("lash", "brow")
_OF_PARTS = (*_TEETH, *_EYES, *_LASHES)
# A beard is the skin of the chin, this much farther out; its upper edge below the lips, its reach to the sides.
_BEARD_OUT_M, _BEARD_BELOW_LIPS_M, _BEARD_WIDE_M = (0.0, -0.004, -0.002), 0.014, 0.045
# A second character stands beside the first.
_BESIDE_M = 0.45


def made_of(materials: Iterable[str]) -> np.ndarray:
    """Which quads (F,) of the demo head have one of these materials."""
    names = [str(name) for name in demo()["material_names"]]
    return np.isin(demo()["material"], [names.index(material) for material in materials])


def half() -> np.ndarray:
    """The quads on the character's own left, those along the middle included."""
    return demo()["points"][demo()["quads"].astype(int), 0].mean(1) > 0


def beard() -> np.ndarray:
    """The quads of the chin's skin."""
    middle_F3 = demo()["points"][demo()["quads"].astype(int)].mean(1)
    mouth_3 = demo()["points"][demo()["lip_pairs"].astype(int).ravel()].mean(0)
    below_F = mouth_3[2] - middle_F3[:, 2]
    in_front_F = middle_F3[:, 1] < mouth_3[1] + 0.05
    near_F = (np.abs(middle_F3[:, 0]) < _BEARD_WIDE_M) & (below_F > _BEARD_BELOW_LIPS_M) & (below_F < 0.055)
    return near_F & in_front_F & made_of(["skin"])


def in_parts(name: str, keys: list[str], *, bearded: bool = False) -> bpy.types.Object:
    """A face whose teeth, eyes and lashes are meshes of their own with the same keys, on one armature."""
    rig = bpy.data.objects.new(f"{name}_Rig", bpy.data.armatures.new(f"{name}_Rig"))
    bpy.context.scene.collection.objects.link(rig)
    groups = {"Teeth": _TEETH, "Eyes": _EYES, "Lashes": _LASHES}
    meshes = [build(f"{name}_{part}", keys, made_of(materials)) for part, materials in groups.items()]
    if bearded:
        meshes.append(build(f"{name}_Beard", keys, beard()))
        hair = [str(material) for material in demo()["material_names"]].index("hair")
        meshes[-1].data.polygons.foreach_set("material_index", np.full(len(meshes[-1].data.polygons), hair))
        meshes[-1].location = _BEARD_OUT_M
    meshes.append(build(f"{name}_Head", keys, ~made_of(_OF_PARTS)))
    for mesh in meshes:
        mesh.parent = rig
        mesh.modifiers.new("Armature", "ARMATURE").object = rig  # type: ignore[attr-defined]
    bpy.context.view_layer.update()
    return _active(meshes[-1])


def mirrored() -> bpy.types.Object:
    """Half a head with a Mirror modifier; its keys move that half."""
    face = build("Half Head", list(characters.ARKIT_CHANNELS), half())
    face.modifiers.new("Mirror", "MIRROR")
    return _active(face)


def overridden() -> bpy.types.Object:
    """A head from another file, with a library override of its object and of its mesh."""
    made = build("Linked Head", KINDS["ARKit, Apple's 52"])
    collection = bpy.data.collections.new("Linked Character")
    collection.objects.link(made)
    path = Path(tempfile.mkdtemp()) / "character.blend"
    bpy.data.libraries.write(str(path), {collection})
    mesh = made.data
    bpy.data.objects.remove(made)
    bpy.data.collections.remove(collection)
    bpy.data.meshes.remove(mesh)
    with bpy.data.libraries.load(str(path), link=True) as (_, wanted):
        wanted.collections = ["Linked Character"]
    wanted.collections[0].override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    face = next(found for found in bpy.data.objects if found.name == "Linked Head" and found.library is None)
    face.data.override_create(remap_local_usages=True)
    return _active(face)


def duplicated() -> bpy.types.Object:
    """The second of two copies, each with a mesh of its own, as Shift D makes them."""
    first = build("Anna", KINDS["ARKit, Apple's 52"])
    second = first.copy()
    second.data = first.data.copy()
    second.name, second.location.x = "Ben", _BESIDE_M
    bpy.context.scene.collection.objects.link(second)
    bpy.context.view_layer.update()
    return _active(second)


def parts_of(face: bpy.types.Object) -> list[bpy.types.Object]:
    """The other meshes of a character that `in_parts` built."""
    return [mesh for mesh in (face.parent.children if face.parent else ()) if mesh != face]


def _active(face: bpy.types.Object) -> bpy.types.Object:
    bpy.context.view_layer.objects.active = face
    return face


WHOLE: dict[str, Callable[[], bpy.types.Object]] = {
    "Character Creator 4 in parts": lambda: in_parts("CC_Base", KINDS["Character Creator 4"]),
    "Ready Player Me with teeth and beard": lambda: in_parts("Wolf3D", list(characters.ARKIT_CHANNELS), bearded=True),
    "Mixamo, `MouthOpen` alone": lambda: _active(build("Mixamo", ["MouthOpen"])),
    "Half a head with Mirror": mirrored,
    "Linked, with an override": overridden,
    "The second of two copies": duplicated,
}
