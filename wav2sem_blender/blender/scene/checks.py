# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a mesh before the model runs. Nothing is changed; a `UserError` names the object, the fault and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

import bpy
import numpy as np

from ...errors import Text, UserError
from ...pipeline import flame
from ...pipeline.any_head.geometry import Similarity
from ...pipeline.face_names import Row, listed
from ...pipeline.flame import FlameMismatchError, FlameReference
from . import controls, key_mapping
from .custom_properties import lines

# Custom properties of a shape-key data-block: the keys that this add-on made, and the hash of their basis.
OWN_KEYS_PROPERTY = "wav2sem_keys"
OWN_BASIS_PROPERTY = "wav2sem_basis_sha256"

# The largest share of a face's keys that may be muted or driven.
_MAX_BLOCKED = 0.25
# The panel goes by this number; a run compares points and edges.
_FLAME_VERTICES = 5023


def find_object(context: bpy.types.Context, name: str, uid: int = 0) -> bpy.types.Object:
    """The object of that session_uid or else of that name, or the active object if there is neither."""
    if uid:
        by_uid = next((candidate for candidate in bpy.data.objects if candidate.session_uid == uid), None)
        if by_uid is not None:
            return by_uid
    if not name:
        active = context.view_layer.objects.active
        if active is None:
            raise UserError("No object is active. Select the mesh to animate, or choose it in the panel.")
        return active
    found = bpy.data.objects.get(name)
    if found is None:
        raise UserError('There is no object named "{name}" in this file. Choose another mesh.', name=name)
    return found


def check_target(context: bpy.types.Context, target: bpy.types.Object) -> None:
    """Raise UserError unless this object can speak. Runs before the model, so that a wrong choice costs no time."""
    check_usable(context, target)
    if _has_mouth_keys(target) or own_keys(target.data):
        return
    table = key_mapping.stored(target)
    if table is not None:
        raise moves_nothing(target, key_mapping.problems(target, table))
    try:
        flame_similarity(target.data)
    except FlameMismatchError as error:
        raise UserError(
            '"{target}" has no shape keys with ARKit names (such as jawOpen) or viseme names (such as '
            "viseme_aa). Make some with Face > Any Head, or fill in Key Mapping.{nearly_flame}",
            target=target.name,
            nearly_flame=nearly_flame(target.data, error),
        ) from error


def moves_nothing(target: bpy.types.Object, problems: Sequence[str]) -> UserError:
    """The error about a key mapping that cannot be followed."""
    return UserError(
        '"{name}": the key mapping moves nothing. {problems}. Edit it under Key Mapping, or clear it.',
        name=target.name,
        problems=Text.joined(problems, ". "),
    )


def nearly_flame(mesh: bpy.types.Mesh, error: FlameMismatchError) -> str:
    """Why a mesh with about as many vertices as FLAME is not FLAME; nothing for other meshes."""
    is_near = abs(len(mesh.vertices) - _FLAME_VERTICES) < _FLAME_VERTICES // 20
    return Text(" It is not a FLAME mesh either. {error}", error=error.text) if is_near else ""


def instance_of(target: bpy.types.Object) -> bpy.types.Collection | None:
    """The collection that an empty shows, as a linked character usually is; None for other objects."""
    shows = target.type == "EMPTY" and target.instance_type == "COLLECTION"
    return target.instance_collection if shows else None


def check_usable(context: bpy.types.Context, target: bpy.types.Object) -> None:
    """Raise UserError unless this is a mesh whose shape keys can be animated."""
    _check_editable(context, target)
    _check_mesh(target)


def recognised(target: bpy.types.Object) -> tuple[str, bool]:
    """What kind of face this is or what it lacks, as a sentence, and whether it can speak. Fast enough for a panel."""
    if target.type != "MESH":
        return "Not a mesh; choose the head's mesh", False
    table = key_mapping.stored(target)
    if table is not None:
        n_keys = len(key_mapping.playable(target, table.rows))
        if key_mapping.control_rows(target, table.rows):
            return Text(
                "Key mapping, {n_channels} channels on {n_keys} shape keys and controls",
                n_channels=len(table.channels),
                n_keys=n_keys,
            ), _has_mouth_keys(target)
        return Text(
            "Key mapping, {n_channels} channels on {n_keys} shape keys",
            n_channels=len(table.channels),
            n_keys=n_keys,
        ), _has_mouth_keys(target)
    if own_keys(target.data):
        return Text("FLAME mesh, {n_own_keys} shape keys made", n_own_keys=len(own_keys(target.data))), True
    found = key_mapping.guessed(target)
    if found.can_speak():
        return found.summary(), True
    if len(target.data.vertices) == _FLAME_VERTICES:
        return "FLAME mesh; its shape keys are made by the first run", True
    return "No mouth keys; make some with Any Head, or fill in Key Mapping", False


def flame_similarity(mesh: bpy.types.Mesh) -> Similarity:
    """The transform from FLAME's frame to the mesh's.

    Raises:
        FlameMismatchError: The mesh is not FLAME in its rest pose.
    """
    edges_E2 = np.empty(2 * len(mesh.edges), dtype=np.int32)
    mesh.edges.foreach_get("vertices", edges_E2)
    return flame.check_mesh(rest_points(mesh), edges_E2.reshape(-1, 2), len(mesh.polygons), FlameReference.load())


def rest_points(mesh: bpy.types.Mesh) -> np.ndarray:
    """The mesh's points (V, 3) without any shape key applied."""
    points = mesh.shape_keys.reference_key.data if mesh.shape_keys else mesh.vertices
    points_V3 = np.empty(3 * len(points), dtype=np.float32)
    points.foreach_get("co", points_V3)
    return points_V3.reshape(-1, 3)


def own_keys(mesh: bpy.types.Mesh) -> frozenset[str]:
    """Names of the mesh's shape keys that a run of this add-on made."""
    keys = mesh.shape_keys
    return frozenset() if keys is None else lines(keys, OWN_KEYS_PROPERTY) & frozenset(keys.key_blocks.keys())


def _check_editable(context: bpy.types.Context, target: bpy.types.Object) -> None:
    name = target.name
    if (instance := instance_of(target)) is not None:
        raise UserError(
            '"{name}" shows the collection "{collection}", which cannot be animated so. Make a library override of it '
            "(Object > Library Override > Make) or make it real (Object > Apply > Make Instances Real), then choose "
            "the head's mesh.",
            name=name,
            collection=instance.name,
        )
    if target.type != "MESH":
        raise UserError(
            '"{name}" is not a mesh; its type is {type}. Choose the head\'s mesh.', name=name, type=target.type.title()
        )
    _check_library(target)
    if target.name not in context.view_layer.objects:
        raise UserError(
            '"{name}" is not in the view layer "{view_layer}". Switch on its collection in the Outliner.',
            name=name,
            view_layer=context.view_layer.name,
        )
    if not target.visible_get(view_layer=context.view_layer):
        raise UserError('"{name}" is hidden. Show it, and the collection it is in, first.', name=name)
    if target.hide_select:
        raise UserError('"{name}" cannot be selected. Make it selectable in the Outliner first.', name=name)
    if target.mode in {"EDIT", "SCULPT"}:
        raise UserError('"{name}" is in {mode} Mode. Return to Object Mode first.', name=name, mode=target.mode.title())


def _check_library(target: bpy.types.Object) -> None:
    """Raise UserError for a linked object or mesh. A library override can be animated: its action is in this file."""
    name, mesh = target.name, target.data
    if target.library:
        raise UserError(
            '"{name}" is linked from another file. Make a library override of it (Object > Library Override > '
            "Make), or make it local (Object > Relations > Make Local).",
            name=name,
        )
    if mesh.library:
        raise UserError(
            'The mesh "{mesh}" of "{name}" is linked from another file, and shape keys belong to the mesh. In the '
            "Object Data tab, Shift-click the link icon beside the mesh's name to make a library override of it.",
            name=name,
            mesh=mesh.name,
        )
    if mesh.override_library and mesh.override_library.is_system_override:
        raise UserError(
            'The library override of the mesh "{mesh}" of "{name}" is not editable. In the Outliner\'s Library '
            "Overrides view, right-click it: Library Override > Make Editable.",
            name=name,
            mesh=mesh.name,
        )


def _check_mesh(target: bpy.types.Object) -> None:
    mesh, keys = target.data, target.data.shape_keys
    if len(mesh.polygons) == 0:
        raise UserError(
            '"{name}" has no faces ({n_vertices} vertices). Import it with its faces.',
            name=target.name,
            n_vertices=len(mesh.vertices),
        )
    if keys is None:
        return
    if not keys.use_relative:
        raise UserError(
            '"{name}" has absolute shape keys. Switch on Relative in its Shape Keys panel first.', name=target.name
        )
    check_animation(keys, target.name)


def check_animation(owner: bpy.types.Key | bpy.types.Object, name: str = "") -> None:
    """Raise UserError if the NLA of these shape keys or of this rig hides what is written."""
    animation = owner.animation_data
    if animation is None:
        return
    if animation.use_tweak_mode:
        raise UserError(
            '"{name}": an NLA strip is in Tweak Mode. Leave Tweak Mode in the NLA editor first.',
            name=name or owner.name,
        )
    if animation.use_nla and any(track.is_solo for track in animation.nla_tracks):
        raise UserError(
            '"{name}": an NLA track is solo, so no action would play. Switch its star off first.',
            name=name or owner.name,
        )


def check_keys(target: bpy.types.Object, rows: tuple[Row, ...]) -> list[str]:
    """Warnings about the keys and controls of `rows`; raises UserError if one of them cannot be animated."""
    keys = target.data.shape_keys
    check_controls(target, key_mapping.control_rows(target, rows))
    if keys is None:
        return []
    names = [name for name in dict.fromkeys(row.key for row in rows) if name in keys.key_blocks]
    if not names:
        return []
    muted = [key for key in names if keys.key_blocks[key].mute]
    if muted:
        raise UserError(
            '"{name}": the shape key {keys} is muted. Unmute it first.', name=target.name, keys=listed(muted)
        )
    driven = key_mapping.driven_keys(keys)
    blocked = [key for key in names if key in driven]
    if blocked:
        raise UserError(
            '"{name}": a driver controls the shape key {keys}. Remove the driver, or choose the mesh that it follows.',
            name=target.name,
            keys=listed(blocked),
        )
    if target.show_only_shape_key:
        return [
            Text('"{name}" shows a pinned shape key only. Switch off the pin to see the animation.', name=target.name)
        ]
    return []


def check_controls(target: bpy.types.Object, rows: Sequence[Row]) -> None:
    """Raise UserError if a control of the rows cannot be animated."""
    rig = controls.rig_of(target) if rows else None
    if rig is None:
        return
    if rig.library:
        raise UserError(
            'The rig "{rig}" of "{name}" is linked from another file. Make a library override of it (Object > Library '
            "Override > Make).",
            rig=rig.name,
            name=target.name,
        )
    check_animation(rig)
    names = list(dict.fromkeys(row.key for row in rows))
    moved = controls.driven(rig)
    blocked = [name for name in names if name in moved]
    if blocked:
        raise UserError(
            'A driver of the rig "{rig}" moves {controls}. Remove the driver, or map what it follows.',
            rig=rig.name,
            controls=listed(controls.listed_words(blocked)),
        )
    for name in names:
        control = controls.parsed(name)
        if control is not None and control.is_turn and rig.pose.bones[control.bone].rotation_mode == "AXIS_ANGLE":
            raise UserError(
                'The bone "{bone}" rotates by axis and angle. Choose Euler or Quaternion as its rotation mode.',
                bone=control.bone,
            )


def animatable(target: bpy.types.Object, rows: tuple[Row, ...]) -> tuple[tuple[Row, ...], list[str]]:
    """The rows whose keys can be animated, and warnings.

    A few keys that are muted or driven, such as correctives, are left alone; the others make up for them.

    Raises:
        UserError: As `check_keys`, where the jaw or more than a quarter of the keys cannot be animated.
    """
    blocked = {row.key for row in rows if not is_free(target, row)}
    n_keys = len({row.key for row in rows})
    if any(row.key in blocked and row.channel == "jawOpen" for row in rows) or len(blocked) > _MAX_BLOCKED * n_keys:
        check_keys(target, rows)
    free = tuple(row for row in rows if row.key not in blocked)
    warnings = check_keys(target, free)
    if blocked:
        keys = listed(sorted(blocked))
        warnings.append(Text('"{name}": {keys} left alone: muted, or moved by a driver.', name=target.name, keys=keys))
    return free, warnings


def is_free(target: bpy.types.Object, row: Row) -> bool:
    """Whether the key of a row can be animated."""
    try:
        check_keys(target, (row,))
    except UserError:
        return False
    return True


def _has_mouth_keys(target: bpy.types.Object) -> bool:
    table = key_mapping.stored(target)
    if table is not None:  # any model's channels may be in it
        return bool(key_mapping.playable(target, table.rows))
    return key_mapping.guessed(target).can_speak()
