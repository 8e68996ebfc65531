# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can be wrong with the mesh, found before the model runs and before anything is written.

All functions only look; they raise ValueError with a sentence that names the object, the fault and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from ...errors import Text, UserError
from ...pipeline import flame
from ...pipeline.any_head.geometry import Similarity
from ...pipeline.face_names import SPEECH_CHANNELS, KeyMap, Row, listed, match_channels
from ...pipeline.flame import FlameMismatchError, FlameReference
from ...pipeline.motion import Motion
from ...pipeline.visemes import VISEME_SETS, as_visemes
from . import key_mapping

# Custom properties of a mesh's shape-key data-block: the keys that this add-on made, and from which basis.
OWN_KEYS_PROPERTY = "wav2sem_keys"
OWN_BASIS_PROPERTY = "wav2sem_basis_sha256"

# Enough for the panel's words; a run looks closely.
_FLAME_VERTICES = 5023


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `apply` will do to a mesh.

    Attributes:
        motion: The motion in the channels of the face: the model's own, or visemes.
        rows: Existing shape keys and the channels that drive them.
        new_channels: Channels for which a key is made or, when it is our own, brought up to date.
        similarity: From FLAME's frame to the mesh's; None when no key is made.
        warnings: Sentences for the user.
    """

    motion: Motion
    rows: tuple[Row, ...]
    new_channels: tuple[str, ...] = ()
    similarity: Similarity | None = None
    warnings: tuple[str, ...] = ()


def find_object(context: bpy.types.Context, name: str) -> bpy.types.Object:
    """The object of that name, or the active one when the name is empty."""
    if not name:
        if context.view_layer.objects.active is None:
            raise UserError("No object is active. Select the mesh that shall speak, or choose it in the panel.")
        return context.view_layer.objects.active
    found = bpy.data.objects.get(name)
    if found is None:
        raise UserError('There is no object named "{name}" in this file. Choose another mesh.', name=name)
    return found


def check_target(context: bpy.types.Context, target: bpy.types.Object) -> None:
    """Can this object speak at all? Run before the model, so that a wrong choice costs no time."""
    check_usable(context, target)
    if _has_mouth_keys(target) or own_keys(target.data):
        return
    try:
        flame_similarity(target.data)
    except FlameMismatchError as error:
        raise UserError(
            '"{target}" has no shape keys with ARKit names (such as jawOpen) or viseme names (such as '
            "viseme_aa). Make some by Face > Any Head, or fill in Key Mapping.{nearly_flame}",
            target=target.name,
            nearly_flame=_nearly_flame(target.data, error),
        ) from error


def _nearly_flame(mesh: bpy.types.Mesh, error: FlameMismatchError) -> str:
    """What is wrong with a mesh that probably should be FLAME's, and nothing of others."""
    is_near = abs(len(mesh.vertices) - _FLAME_VERTICES) < _FLAME_VERTICES // 20
    return Text(" It is no FLAME mesh either. {error}", error=error) if is_near else ""


def check_usable(context: bpy.types.Context, target: bpy.types.Object) -> None:
    """Is this a mesh whose shape keys can be animated, whatever they are for?"""
    _check_editable(context, target)
    _check_mesh(target)


def make_plan(target: bpy.types.Object, motion: Motion, visemes: Motion | None = None) -> Plan:
    """Decide which keys each channel drives.

    The user's table decides, or else the names. Keys that the mesh has keep their shape; on a FLAME mesh without a
    table the missing ones are made from the motion's basis.

    Args:
        target: The mesh.
        motion: In the model's channels.
        visemes: The motion's visemes if they were made beforehand; of no use when the face takes others by now.
    """
    table = _table_in_use(target, motion.channels)
    if table is None:
        return _plan_by_names(target, motion, key_mapping.guessed(target))
    wanted = _visemes_of(target, table)
    if wanted is not None:
        if visemes is None or visemes.channels != wanted[1]:
            visemes = as_visemes(motion, VISEME_SETS[wanted[0]], wanted[1])
        motion = visemes
    return _plan_by_table(target, motion, table)


def wanted_visemes(target: bpy.types.Object, channels: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    """Into which set's visemes, and which of them, `make_plan` turns a motion of these channels; None for no set's."""
    table = _table_in_use(target, channels)
    return None if table is None else _visemes_of(target, table)


def _table_in_use(target: bpy.types.Object, channels: Sequence[str]) -> KeyMap | None:
    """The user's table, or that of a face with visemes; None where the names of the keys decide."""
    table = key_mapping.stored(target)
    if table is not None:
        return table
    found = key_mapping.guessed(target)
    return found if found.visemes and set(SPEECH_CHANNELS) & set(channels) else None


def _visemes_of(target: bpy.types.Object, table: KeyMap) -> tuple[str, tuple[str, ...]] | None:
    """A table's set of visemes, and those of them that have a key; None when it is of other channels, or none has."""
    if not table.visemes:
        return None
    present = set(key_mapping.key_names(target))
    played = {row.channel for row in table.rows if row.key in present}
    available = tuple(name for name in VISEME_SETS[table.visemes].names if name in played)
    return (table.visemes, available) if available else None


def _plan_by_table(target: bpy.types.Object, motion: Motion, table: KeyMap) -> Plan:
    """Follow a table of the motion's channels."""
    present = set(key_mapping.key_names(target))
    usable = [row for row in table.rows if row.key in present]
    rows = tuple(row for row in usable if row.channel in motion.channels)
    problems = table.problems(present)
    if not rows:
        faults = ". ".join(problems) or Text(
            "None of its channels is the model's ({listed})",
            listed=listed(motion.channels),
        )
        raise UserError(
            '"{target}": the key mapping moves nothing. {faults}. Edit it under Key Mapping, or clear it.',
            target=target.name,
            faults=faults,
        )
    warnings = [
        Text('"{target}": {problem}.', target=target.name, problem=problem) for problem in problems
    ] + check_keys(target, rows)
    missing = [channel for channel in motion.channels if all(row.channel != channel for row in rows)]
    if missing:
        warnings.append(Text("No shape key for {listed}; those channels are left out.", listed=listed(missing)))
    return Plan(motion=motion, rows=rows, warnings=tuple(warnings))


def _plan_by_names(target: bpy.types.Object, motion: Motion, found: KeyMap) -> Plan:
    own = own_keys(target.data)
    every_row = _matches(motion.channels, target)
    if len({row.channel for row in found.rows} & set(motion.channels)) > len(every_row):  # MetaHuman's names
        every_row = tuple(row for row in found.rows if row.channel in motion.channels)
    rows = tuple(row for row in every_row if row.key not in own)
    similarity, mismatch = None, ". Use another model, or fill in Key Mapping."
    if motion.basis_KV3 is not None and len(_channels(rows)) < len(motion.channels):
        try:
            similarity = flame_similarity(target.data)
        except FlameMismatchError as error:
            mismatch = Text(
                ". Use another model, or fill in Key Mapping.{nearly_flame}",
                nearly_flame=_nearly_flame(target.data, error),
            )
    if similarity is None:
        rows = every_row
    if not rows and similarity is None:
        raise UserError(
            '"{target}" has no shape key for any of the model\'s {n_channels} channels ({listed}){mismatch}',
            target=target.name,
            n_channels=len(motion.channels),
            listed=listed(motion.channels),
            mismatch=mismatch,
        )
    missing = tuple(channel for channel in motion.channels if channel not in _channels(rows))
    warnings = check_keys(target, rows)
    if missing and similarity is None:
        warnings.append(Text("No shape key for {listed}; those channels are left out.", listed=listed(missing)))
    if missing and similarity is not None and target.data.override_library:
        raise UserError(
            '"{target}" is a library override, which cannot take new shape keys. Animate it once in its own '
            "file, or make it local (Object > Relations > Make Local).",
            target=target.name,
        )
    return Plan(
        motion=motion,
        rows=rows,
        new_channels=missing if similarity is not None else (),
        similarity=similarity,
        warnings=tuple(warnings),
    )


def recognised(target: bpy.types.Object) -> tuple[str, bool]:
    """In words what kind of face this is, and what to do when it cannot speak; and whether it can. Cheap."""
    if target.type != "MESH":
        return "No mesh; choose the head's mesh", False
    table = key_mapping.stored(target)
    if table is not None:
        n_keys = len({row.key for row in table.rows} & set(key_mapping.key_names(target)))
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
        return "FLAME mesh; its shape keys are made when it speaks", True
    return "No mouth keys; make some by Any Head, or fill in Key Mapping", False


def flame_similarity(mesh: bpy.types.Mesh) -> Similarity:
    """Where FLAME lies in the mesh's frame.

    Raises:
        FlameMismatchError: The mesh is not FLAME at rest.
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
    """Names of the shape keys on this mesh that this add-on made."""
    keys = mesh.shape_keys
    if keys is None or OWN_KEYS_PROPERTY not in keys:
        return frozenset()
    return frozenset(keys[OWN_KEYS_PROPERTY].split("\n")) & frozenset(keys.key_blocks.keys())


def _check_editable(context: bpy.types.Context, target: bpy.types.Object) -> None:
    name = f'"{target.name}"'
    if target.type != "MESH":
        raise UserError(
            "{name} is no mesh but of the type {title}. Choose the head's mesh.",
            name=name,
            title=target.type.title(),
        )
    _check_library(target)
    if target.name not in context.view_layer.objects:
        raise UserError(
            '{name} is not in the view layer "{view_layer}". Switch its collection on in the Outliner.',
            name=name,
            view_layer=context.view_layer.name,
        )
    if not target.visible_get(view_layer=context.view_layer):
        raise UserError("{name} is hidden. Show it, and the collection it is in, first.", name=name)
    if target.hide_select:
        raise UserError("{name} is locked against selection. Unlock it in the Outliner first.", name=name)
    if target.mode in {"EDIT", "SCULPT"}:
        raise UserError(
            "{name} is in {title} Mode. Return to Object Mode first.",
            name=name,
            title=target.mode.title(),
        )


def _check_library(target: bpy.types.Object) -> None:
    """A mesh that is linked cannot be animated; a library override can, and keeps the action in this file."""
    name, mesh = f'"{target.name}"', target.data
    if target.library:
        raise UserError(
            "{name} is linked from another file. Make a library override of it (Object > Library Override > "
            "Make), or make it local (Object > Relations > Make Local).",
            name=name,
        )
    if mesh.library:
        raise UserError(
            '{name}: its mesh "{mesh}" is linked from another file, and shape keys belong to the mesh. In the '
            "Object Data tab, Shift-click the link icon beside the mesh's name to make a library override of it.",
            name=name,
            mesh=mesh.name,
        )
    if mesh.override_library and mesh.override_library.is_system_override:
        raise UserError(
            '{name}: the library override of its mesh "{mesh}" is not editable. In the Outliner\'s Library '
            "Overrides view, right-click it: Library Override > Make Editable.",
            name=name,
            mesh=mesh.name,
        )


def _check_mesh(target: bpy.types.Object) -> None:
    mesh, keys = target.data, target.data.shape_keys
    if len(mesh.polygons) == 0:
        raise UserError(
            '"{target}" has no faces ({n_vertices} vertices). Import it with its faces.',
            target=target.name,
            n_vertices=len(mesh.vertices),
        )
    if keys is None:
        return
    if not keys.use_relative:
        raise UserError(
            '"{target}" has absolute shape keys. Switch on Relative in its Shape Keys panel first.',
            target=target.name,
        )
    animation = keys.animation_data
    if animation is None:
        return
    if animation.use_tweak_mode:
        raise UserError(
            '"{target}": an NLA strip is being tweaked. Leave Tweak Mode in the NLA editor first.',
            target=target.name,
        )
    if animation.use_nla and any(track.is_solo for track in animation.nla_tracks):
        raise UserError(
            '"{target}": an NLA track is solo, so no action would play. Switch its star off first.',
            target=target.name,
        )


def check_keys(target: bpy.types.Object, rows: tuple[Row, ...]) -> list[str]:
    """Faults of the keys that shall be driven: an error when nothing would move, otherwise warnings."""
    keys = target.data.shape_keys
    if not rows or keys is None:
        return []
    names = list(dict.fromkeys(row.key for row in rows))
    muted = [key for key in names if keys.key_blocks[key].mute]
    if muted:
        raise UserError(
            '"{target}": the shape key {listed} is muted. Unmute it first.',
            target=target.name,
            listed=listed(muted),
        )
    driven = _driven_keys(keys)
    blocked = [key for key in names if key in driven]
    if blocked:
        raise UserError(
            '"{target}": a driver controls the shape key {listed}. Remove the driver, or choose the mesh that '
            "it follows.",
            target=target.name,
            listed=listed(blocked),
        )
    if target.show_only_shape_key:
        return [
            Text(
                '"{target}" shows one pinned shape key only; switch off the pin to see the animation.',
                target=target.name,
            )
        ]
    return []


def _driven_keys(keys: bpy.types.Key) -> frozenset[str]:
    if keys.animation_data is None:
        return frozenset()
    paths = {curve.data_path for curve in keys.animation_data.drivers}
    return frozenset(block.name for block in keys.key_blocks if value_path(block.name) in paths)


def value_path(key_name: str) -> str:
    """The data path of a shape key's value, from the shape-key data-block."""
    return f'key_blocks["{bpy.utils.escape_identifier(key_name)}"].value'


def _matches(channels: tuple[str, ...], target: bpy.types.Object) -> tuple[Row, ...]:
    """Existing shape key of each channel that has one by its name."""
    return tuple(Row(channel, key) for channel, key in match_channels(channels, key_mapping.key_names(target)).items())


def _has_mouth_keys(target: bpy.types.Object) -> bool:
    table = key_mapping.stored(target)
    if table is not None:  # its channels may be those of any model
        return any(row.key in key_mapping.key_names(target) for row in table.rows)
    return key_mapping.guessed(target).can_speak()


def _channels(rows: tuple[Row, ...]) -> set[str]:
    return {row.channel for row in rows}
