# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes for exporters, which know neither what limits a shape key nor a modifier on a mesh that has keys.

While a file is written, such a mesh is replaced by a copy: its modifiers are applied to every key, and a key has what
Blender shows of it (its vertex group's part, against the key that it is relative to, nothing if it is muted). Each
value follows the original's by a driver. Shapes: V points, K keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import bpy
import numpy as np

from ...errors import Text

# These give every key a shape of its own. What a simulation or another object does over time cannot be a shape key.
_APPLICABLE = frozenset(
    (
        "ARRAY",
        "BEVEL",
        "BOOLEAN",
        "CAST",
        "DATA_TRANSFER",
        "DECIMATE",
        "DISPLACE",
        "EDGE_SPLIT",
        "LAPLACIANSMOOTH",
        "MASK",
        "MIRROR",
        "MULTIRES",
        "NODES",
        "NORMAL_EDIT",
        "SCREW",
        "SIMPLE_DEFORM",
        "SMOOTH",
        "SOLIDIFY",
        "SUBSURF",
        "TRIANGULATE",
        "UV_PROJECT",
        "UV_WARP",
        "VERTEX_WEIGHT_EDIT",
        "VERTEX_WEIGHT_MIX",
        "VERTEX_WEIGHT_PROXIMITY",
        "WEIGHTED_NORMAL",
        "WELD",
        "WIREFRAME",
    )
)
_BY_OTHERS = frozenset({"ARMATURE", "PARTICLE_SYSTEM", "COLLISION"})  # exported as a skin, or not part of the mesh
_TOLERANCE = 1e-3  # of the mesh's size
_APPLIED = 'Applied to every shape key of "{mesh}" in the file: {modifiers}'
_PARTED = 'The halves of "{mesh}" are not merged in the file, because keys part them: {modifiers}'
_NEARLY = 'Keys of "{mesh}" that play together look nearly as in Blender, because of these modifiers: {modifiers}'
_LACKS = 'The file lacks what these modifiers of "{mesh}" do: {modifiers}'


@contextmanager
def baked(objects: Iterable[bpy.types.Object], apply_modifiers: bool) -> Iterator[list[Text]]:
    """Give the objects meshes that exporters write as Blender shows them, and their own ones afterwards.

    Args:
        objects: Those that are exported.
        apply_modifiers: Whether the keys get what the modifiers do to them.

    Yields:
        What was applied, and what the file cannot have.
    """
    notes: list[Text] = []
    names: dict[bpy.types.Mesh, str] = {}
    with ExitStack() as undo:
        for shown in objects:
            if shown.type == "MESH" and (_differs(shown) or _modifiers(shown)):
                _replace(shown, names, notes, undo, _APPLICABLE if apply_modifiers else frozenset())
        yield notes


def key_shapes(shown: bpy.types.Object) -> dict[str, np.ndarray]:
    """Points (V, 3) of the basis and of each key alone at 1, without modifiers; a muted key has none."""
    blocks = shown.data.shape_keys.key_blocks
    basis = shown.data.shape_keys.reference_key
    basis_V3 = _points(basis.data)
    shapes = {basis.name: basis_V3}
    weights = {group: _weights(shown, group) for group in {block.vertex_group for block in blocks}}
    for block in blocks:
        if block != basis and not block.mute:
            change_V3 = _points(block.data) - _points(block.relative_key.data)
            shapes[block.name] = basis_V3 + weights[block.vertex_group] * change_V3
    return shapes


def _modifiers(shown: bpy.types.Object) -> list[Any]:
    return [modifier for modifier in shown.modifiers if modifier.show_viewport and modifier.type not in _BY_OTHERS]


def _differs(shown: bpy.types.Object) -> bool:
    """Whether exporters write its keys otherwise than Blender shows them, modifiers aside."""
    keys = shown.data.shape_keys
    if keys is None or not keys.use_relative:
        return False
    basis = keys.reference_key
    # FBX copies a mesh whose object has materials of its own, and the copy's values stay still.
    return any(slot.link == "OBJECT" for slot in shown.material_slots) or any(
        block.mute or block.vertex_group in shown.vertex_groups or block.relative_key != basis
        for block in keys.key_blocks
        if block != basis
    )


def _weights(shown: bpy.types.Object, group: str) -> np.ndarray:
    """How much of a key each point has, (V, 1); all of it if the group is not there."""
    found = shown.vertex_groups.get(group)
    if found is None:
        return np.ones((len(shown.data.vertices), 1))
    weights_V1 = np.zeros((len(shown.data.vertices), 1))
    for vertex in shown.data.vertices:
        weights_V1[vertex.index] = sum(member.weight for member in vertex.groups if member.group == found.index)
    return weights_V1


def _replace(
    shown: bpy.types.Object,
    names: dict[bpy.types.Mesh, str],
    notes: list[Text],
    undo: ExitStack,
    applicable: frozenset[str],
) -> None:
    """Put a baked copy in the place of the object's mesh; it also takes its name, which exporters write."""
    own, index = shown.data, shown.active_shape_key_index
    copy, applied, found = _bake(shown, applicable)
    notes += [
        Text(sentence, mesh=shown.name, modifiers=", ".join(modifiers)) for sentence, modifiers in found if modifiers
    ]
    if copy is None:
        return
    if own not in names:
        names[own] = own.name
        if own.library is None:
            undo.callback(setattr, own, "name", own.name)
            own.name = own.name + "_original"
    copy.name = names[own]
    undo.callback(_remove, copy)
    switched = [(shown.modifiers[name], shown.modifiers[name].show_render) for name in applied]
    slots = [(slot, slot.material) for slot in shown.material_slots if slot.link == "OBJECT"]

    def restore() -> None:
        shown.data = own
        shown.active_shape_key_index = index
        for modifier, is_rendered in switched:
            modifier.show_viewport, modifier.show_render = True, is_rendered
        for slot, material in slots:
            slot.link = "OBJECT"
            slot.material = material

    undo.callback(restore)
    shown.data = copy
    for modifier, _ in switched:
        modifier.show_viewport = modifier.show_render = False
    for slot, material in slots:
        slot.link = "DATA"
        slot.material = material


def _bake(
    shown: bpy.types.Object, applicable: frozenset[str]
) -> tuple[bpy.types.Mesh | None, list[str], list[tuple[str, list[str]]]]:
    """The new mesh, None if there is nothing to change; the modifiers in it; sentences, each with modifiers' names."""
    keys = shown.data.shape_keys
    enabled = [modifier.name for modifier in _modifiers(shown)]
    applied = [modifier.name for modifier in _modifiers(shown) if modifier.type in applicable]
    parted: list[str] = []
    is_exact = True
    if keys is not None and not keys.use_relative:
        return None, [], [(_LACKS, enabled)]
    shapes = key_shapes(shown) if keys is not None else {"": _points(shown.data.vertices)}
    with _stage(shown, applied) as (probe, layer):
        mesh, moved = None, shapes
        if applied:
            mesh, moved, is_exact = _through_modifiers(probe, layer, shapes)
            if mesh is None and (parted := _unmerged(probe)):
                mesh, moved, is_exact = _through_modifiers(probe, layer, shapes)
        if mesh is None:
            applied, parted, moved, is_exact = [], [], shapes, True
            if _differs(shown):
                mesh = probe.data.copy()
        if mesh is not None:
            _write_keys(probe, mesh, moved, keys)
    lacking = [name for name in enabled if name not in applied]
    return (
        mesh,
        applied,
        [(_APPLIED, applied), (_PARTED, parted), (_NEARLY, [] if is_exact else applied), (_LACKS, lacking)],
    )


@contextmanager
def _stage(shown: bpy.types.Object, usable: list[str]) -> Iterator[tuple[bpy.types.Object, Any]]:
    """A copy of the object without keys, motion and other modifiers, where nothing else is."""
    scene = bpy.data.scenes.new("Export")
    probe = shown.copy()
    probe.data = mesh = shown.data.copy()
    try:
        for copy in (probe, mesh):
            if copy.override_library is not None:  # nothing could be written on it
                copy.make_local(clear_liboverride=True)
        scene.collection.objects.link(probe)
        probe.animation_data_clear()
        probe.constraints.clear()
        probe.parent = None
        probe.matrix_world = shown.matrix_world
        if mesh.shape_keys is not None:
            uid = mesh.shape_keys.session_uid
            probe.shape_key_clear()
            _drop_keys(uid)
        for modifier in list(probe.modifiers):
            if modifier.name not in usable:
                probe.modifiers.remove(modifier)
        yield probe, scene.view_layers[0]
    finally:
        bpy.data.objects.remove(probe)
        _remove(mesh)
        bpy.data.scenes.remove(scene)


def _unmerged(probe: bpy.types.Object) -> list[str]:
    """Merge no points at a mirror's plane: keys that move them apart have other numbers of points. Names what did."""
    mirrors: list[Any] = [modifier for modifier in probe.modifiers if modifier.type == "MIRROR"]
    merging = [modifier for modifier in mirrors if modifier.use_mirror_merge]
    for modifier in merging:
        modifier.use_mirror_merge = False
    return [modifier.name for modifier in merging]


def _through_modifiers(
    probe: bpy.types.Object, layer: Any, shapes: dict[str, np.ndarray]
) -> tuple[bpy.types.Mesh | None, dict[str, np.ndarray], bool]:
    """The basis as a mesh with the modifiers applied, each shape's points, and whether mixtures of them are exact.

    There is no mesh if the shapes have different numbers of points.
    """
    basis, *others = shapes
    # Merging may also depend on what keys do together.
    mixture_V3 = _evaluated(probe, layer, _mixture(shapes, basis))
    moved = {name: _evaluated(probe, layer, shapes[name]) for name in (*others, basis)}
    if {len(moved_V3) for moved_V3 in moved.values()} != {len(mixture_V3)}:
        return None, {}, True
    size = float(np.ptp(mixture_V3, axis=0).max(initial=0.0))
    is_exact = np.abs(_mixture(moved, basis) - mixture_V3).max(initial=0.0) <= _TOLERANCE * size
    graph = layer.depsgraph
    mesh = bpy.data.meshes.new_from_object(probe.evaluated_get(graph), preserve_all_data_layers=True, depsgraph=graph)
    return mesh, {name: moved[name] for name in shapes}, bool(is_exact)


def _mixture(shapes: dict[str, np.ndarray], basis: str) -> np.ndarray:
    """All keys at 0.5."""
    return shapes[basis] + 0.5 * sum(shape_V3 - shapes[basis] for shape_V3 in shapes.values())


def _evaluated(probe: bpy.types.Object, layer: Any, points_V3: np.ndarray) -> np.ndarray:
    probe.data.vertices.foreach_set("co", points_V3.ravel())
    probe.data.update()
    layer.update()
    evaluated = probe.evaluated_get(layer.depsgraph)
    moved_V3 = _points(evaluated.to_mesh().vertices)
    evaluated.to_mesh_clear()
    return moved_V3


def _write_keys(
    probe: bpy.types.Object, mesh: bpy.types.Mesh, shapes: dict[str, np.ndarray], keys: bpy.types.Key | None
) -> None:
    """Give the mesh the shapes as keys that follow the values of `keys`."""
    if keys is None:
        return
    probe.modifiers.clear()
    probe.data = mesh
    basis, *others = shapes
    mesh.vertices.foreach_set("co", shapes[basis].ravel())
    for name in (basis, *others):
        block = probe.shape_key_add(name=name, from_mix=False)
        block.data.foreach_set("co", shapes[name].ravel())
        if name == basis:
            continue
        original = keys.key_blocks[name]
        block.slider_min, block.slider_max = original.slider_min, original.slider_max
        curve: Any = block.driver_add("value")
        driver = curve.driver
        driver.type = "SUM"
        target = driver.variables.new().targets[0]
        target.id_type, target.id = "KEY", keys
        target.data_path = f'key_blocks["{bpy.utils.escape_identifier(name)}"].value'


def _remove(mesh: bpy.types.Mesh) -> None:
    uid = mesh.shape_keys.session_uid if mesh.shape_keys is not None else 0
    bpy.data.meshes.remove(mesh)
    _drop_keys(uid)


def _drop_keys(uid: int) -> None:
    """Remove shape keys whose mesh is gone: 5.0 keeps them, 5.2 has freed them, so they are looked up anew."""
    left = [keys for keys in bpy.data.shape_keys if keys.session_uid == uid]
    if left:
        bpy.data.batch_remove(left)


def _points(vertices: Any) -> np.ndarray:
    points_V3 = np.empty(len(vertices) * 3, dtype=np.float32)
    vertices.foreach_get("co", points_V3)
    return points_V3.reshape(-1, 3)
