# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports what a face plays for other programs. A failed export leaves no partial file. Shapes: T frames, K keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ...errors import Text, UserError
from ...files import atomic_path
from ...pipeline.motion import Motion
from .. import compat
from . import actions, export_meshes, export_time, key_mapping, parts, takes
from .custom_properties import text


def playing(face: bpy.types.Object | None) -> tuple[takes.Take, ...]:
    """The takes that play on a face, from the top down."""
    return tuple(take for take in takes.of_face(face) if not (take.is_kept or take.is_muted))


def frame_range(face: bpy.types.Object) -> tuple[int, int]:
    """First and last frame of the current scene at which one of the takes plays."""
    ranges = [_scene_frames(take, bpy.context.scene) for take in playing(face)]
    return min(first for first, _ in ranges), max(last for _, last in ranges)


def _scene_frames(take: takes.Take, scene: bpy.types.Scene) -> tuple[int, int]:
    """The take's range, which Time Stretching makes shorter or longer in the scene than in the action or the NLA."""
    first, last = take.frames
    stretch = compat.time_stretch(scene)
    return math.floor(first / stretch), math.ceil(last / stretch)


def sampled(face: bpy.types.Object, scene: bpy.types.Scene) -> Motion:
    """Values of the keys at every scene frame of `frame_range`, with the channel names of the key mapping."""
    first, last = frame_range(face)
    stretch = compat.time_stretch(scene)
    values: dict[str, np.ndarray] = {}
    for take in reversed(playing(face)):
        begin, end = _scene_frames(take, scene)
        for key, curve in take.curves():
            values_T = values.setdefault(key, np.zeros(last - first + 1, dtype=np.float32))
            values_T[begin - first : end - first + 1] = [
                curve.evaluate(take.action_frame(frame * stretch)) for frame in range(begin, end + 1)
            ]
    top = playing(face)[0].action
    if not values:
        raise UserError(
            'The action "{action}" has no curve for a shape key of "{face}".', action=top.name, face=face.name
        )
    info = {"audio": text(top, "wav2sem_audio"), "audio_sha256": text(top, actions.AUDIO_HASH)}
    names = _channel_names(face, tuple(values))
    return Motion(
        weights_TK=np.stack(list(values.values()), axis=1),
        channels=tuple(names[key] for key in values),
        fps=compat.frame_rate_hz(scene),
        info={**info, "object": face.name, "first_scene_frame": str(first)},
    )


def chosen(face: bpy.types.Object, context: bpy.types.Context) -> list[bpy.types.Object]:
    """The visible objects that belong to the face, by name; see `parts.belonging`."""
    known = set(context.view_layer.objects)
    found = parts.belonging(face, context.scene) & known
    return sorted((part for part in found if part.visible_get()), key=lambda part: part.name)


def write_gltf(
    context: bpy.types.Context, face: bpy.types.Object, path: Path, *, apply_modifiers: bool = True
) -> list[Text]:
    """Write a .glb: the shape keys as morph targets, and all that plays as one animation that begins at 0 s.

    Returns:
        What the user should know of the file; see `export_meshes.baked`.

    Raises:
        OSError: It cannot be written.
    """
    return _write_baked(
        context,
        face,
        path,
        bpy.ops.export_scene.gltf,
        apply_modifiers,
        export_format="GLB",
        use_selection=True,
        export_animations=True,
        export_animation_mode="SCENE",
        export_anim_scene_split_object=False,
        export_anim_slide_to_zero=True,
        export_morph=True,
        export_morph_animation=True,
    )


def write_fbx(
    context: bpy.types.Context, face: bpy.types.Object, path: Path, *, apply_modifiers: bool = True
) -> list[Text]:
    """Write an .fbx: shape keys as blend shapes, with a key at every frame; its times are as those of `write_usd`.

    Returns and raises as `write_gltf`.
    """
    return _write_baked(
        context,
        face,
        path,
        bpy.ops.export_scene.fbx,
        apply_modifiers,
        use_selection=True,
        object_types={"EMPTY", "ARMATURE", "MESH", "OTHER"},
        use_mesh_modifiers=False,
        mesh_smooth_type="FACE",
        add_leaf_bones=False,
        bake_anim=True,
        bake_anim_use_nla_strips=False,
        bake_anim_use_all_actions=False,
        bake_anim_force_startend_keying=True,
        bake_anim_step=1.0,
        bake_anim_simplify_factor=0.0,
    )


def write_usd(
    context: bpy.types.Context, face: bpy.types.Object, path: Path, *, apply_modifiers: bool = True
) -> list[Text]:
    """Write a .usdc: shape keys as blend shapes of a UsdSkel, at the scene's frames or from 0 if they begin before it.

    Returns and raises as `write_gltf`.
    """
    return _write_baked(
        context,
        face,
        path,
        bpy.ops.wm.usd_export,
        apply_modifiers,
        selected_objects_only=True,
        export_animation=True,
        export_shapekeys=True,
        export_armatures=True,
        evaluation_mode="VIEWPORT",
        # New copies of the textures would lie beside the file, and stay there when it fails.
        export_textures_mode="KEEP",
    )


def write_alembic(context: bpy.types.Context, face: bpy.types.Object, path: Path) -> None:
    """Write an .abc with the points of every frame.

    Raises:
        OSError: It cannot be written.
    """
    first, last = frame_range(face)
    with _scene_of(context, face):
        _write(
            path,
            lambda temporary: bpy.ops.wm.alembic_export(filepath=temporary, start=first, end=last, selected=True),
        )


def _write_baked(
    context: bpy.types.Context,
    face: bpy.types.Object,
    path: Path,
    operator: Any,
    apply_modifiers: bool,
    **options: Any,
) -> list[Text]:
    """Let one of Blender's exporters write what the scene plays, with those of the options that this version has."""
    first, _ = frame_range(face)
    known = operator.get_rna_type().properties
    options = {name: value for name, value in options.items() if name in known}
    with (
        _scene_of(context, face, max(0, -first)) as exported,
        export_time.moved(context, max(0, -first)),
        export_meshes.baked(exported, apply_modifiers) as notes,
    ):
        _write(path, lambda temporary: operator(filepath=temporary, **options))
    return notes


def _channel_names(face: bpy.types.Object, keys: tuple[str, ...]) -> dict[str, str]:
    """The channel of each key if the mapping pairs the two exclusively and with gain 1; else the key's own name."""
    rows = [row for row in key_mapping.in_use(face).rows if row.key in keys]
    named = {}
    for row in rows:
        is_only = sum(other.key == row.key or other.channel == row.channel for other in rows) == 1
        if is_only and row.gain == 1.0 and row.channel not in keys:
            named[row.key] = row.channel
    return {key: named.get(key, key) for key in keys}


def _write(path: Path, export: Callable[[str], Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.open("xb").close()  # raises an OSError that says what is wrong with the folder
        try:
            result = export(str(temporary))
        except RuntimeError as error:
            raise OSError(str(error).strip().splitlines()[-1]) from error
        if result != {"FINISHED"} or temporary.stat().st_size == 0:
            raise OSError("the exporter gave up")


@contextmanager
def _scene_of(context: bpy.types.Context, face: bpy.types.Object, moved: int = 0) -> Iterator[list[bpy.types.Object]]:
    """Select only the face's objects and set the scene's range to what plays, `moved` frames later; restore both.

    Yields:
        The selected objects.
    """
    scene, layer = context.scene, context.view_layer
    first, last = frame_range(face)
    times = scene.frame_start, scene.frame_end, scene.frame_current, scene.frame_subframe
    selection, active = list(context.selected_objects), layer.objects.active
    for other in selection:
        other.select_set(False)
    exported = chosen(face, context)
    locked = [part for part in exported if part.hide_select]
    for part in locked:
        part.hide_select = False
    for part in exported:
        part.select_set(True)
    layer.objects.active = face
    scene.frame_start, scene.frame_end = first + moved, last + moved
    try:
        yield exported
    finally:
        scene.frame_start, scene.frame_end = times[0], times[1]
        scene.frame_set(times[2], subframe=times[3])
        for part in exported:
            part.select_set(False)
        for part in locked:
            part.hide_select = True
        for other in selection:
            other.select_set(True)
        layer.objects.active = active
