# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that can be wrong with the mesh, found before the model runs and before anything is written.

All functions only look; they raise ValueError with a sentence that names the object, the fault and the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np

from ..pipeline.face_names import match_channels
from ..pipeline.geometry import Similarity
from ..pipeline.motion import ARKIT_CHANNELS, Motion
from . import flame
from .flame import FlameMismatchError, FlameReference

# A mesh with eye shapes alone cannot speak.
_SPEECH_CHANNELS = tuple(name for name in ARKIT_CHANNELS if name.startswith(("jaw", "mouth")))

# Custom properties of a mesh's shape-key data-block: the keys that this add-on made, and from which basis.
OWN_KEYS_PROPERTY = "wav2sem_keys"
OWN_BASIS_PROPERTY = "wav2sem_basis_sha256"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `apply` will do to a mesh.

    Attributes:
        key_of_channel: Existing shape key of each channel that is driven through one.
        new_channels: Channels for which a key is made or, when it is our own, brought up to date.
        similarity: From FLAME's frame to the mesh's; None when no key is made.
        warnings: Sentences for the user.
    """

    key_of_channel: dict[str, str]
    new_channels: tuple[str, ...] = ()
    similarity: Similarity | None = None
    warnings: tuple[str, ...] = ()


def find_object(context: bpy.types.Context, name: str) -> bpy.types.Object:
    """The object of that name, or the active one when the name is empty."""
    if not name:
        if context.view_layer.objects.active is None:
            raise ValueError("No object is active. Select the mesh that shall speak, or choose it in the panel.")
        return context.view_layer.objects.active
    found = bpy.data.objects.get(name)
    if found is None:
        raise ValueError(f'There is no object named "{name}" in this file.')
    return found


def check_target(context: bpy.types.Context, target: bpy.types.Object) -> None:
    """Can this object speak at all? Run before the model, so that a wrong choice costs no time."""
    _check_editable(context, target)
    _check_mesh(target)
    if _matches(_SPEECH_CHANNELS, target) or own_keys(target.data):
        return
    try:
        flame_similarity(target.data)
    except FlameMismatchError as error:
        raise ValueError(
            f'"{target.name}" has no shape keys with ARKit names (such as jawOpen) and is no FLAME mesh. {error}'
        ) from error


def make_plan(target: bpy.types.Object, motion: Motion) -> Plan:
    """Decide which key each channel drives.

    Keys that the mesh has keep their shape. On a FLAME mesh the missing ones are made from the motion's basis.
    """
    own = own_keys(target.data)
    every_match = _matches(motion.channels, target)
    matches = {channel: key for channel, key in every_match.items() if key not in own}
    similarity, mismatch = None, "."
    if motion.basis_KV3 is not None and len(matches) < len(motion.channels):
        try:
            similarity = flame_similarity(target.data)
        except FlameMismatchError as error:
            mismatch = f", and it is no FLAME mesh. {error}"
    if similarity is None:
        matches = every_match
    if not matches and similarity is None:
        raise ValueError(
            f'"{target.name}" has no shape key for any of the model\'s {len(motion.channels)} channels '
            f"({_listed(motion.channels)}){mismatch}"
        )
    missing = tuple(channel for channel in motion.channels if channel not in matches)
    warnings = _check_keys(target, matches)
    if missing and similarity is None:
        warnings.append(f"No shape key for {_listed(missing)}; those channels are left out.")
    return Plan(
        key_of_channel=matches,
        new_channels=missing if similarity is not None else (),
        similarity=similarity,
        warnings=tuple(warnings),
    )


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
        raise ValueError(f"{name} is no mesh but of the type {target.type.title()}. Choose the head's mesh.")
    keys = target.data.shape_keys
    blocks = [target, target.data] + ([keys] if keys else [])
    if any(block.library for block in blocks):
        raise ValueError(f"{name} is linked from another file. Make it local first (Object > Relations > Make Local).")
    if any(block.override_library for block in blocks):
        raise ValueError(f"{name} is a library override, which cannot take new keys. Make it local first.")
    if target.name not in context.view_layer.objects:
        raise ValueError(f'{name} is not in the view layer "{context.view_layer.name}" of this scene.')
    if not target.visible_get(view_layer=context.view_layer):
        raise ValueError(f"{name} is hidden. Show it, and the collection it is in, first.")
    if target.hide_select:
        raise ValueError(f"{name} is locked against selection. Unlock it in the Outliner first.")
    if target.mode in {"EDIT", "SCULPT"}:
        raise ValueError(f"{name} is in {target.mode.title()} Mode. Return to Object Mode first.")


def _check_mesh(target: bpy.types.Object) -> None:
    mesh, keys = target.data, target.data.shape_keys
    if len(mesh.polygons) == 0:
        raise ValueError(f'"{target.name}" has no faces ({len(mesh.vertices)} vertices). Import it with its faces.')
    if keys is None:
        return
    if not keys.use_relative:
        raise ValueError(f'"{target.name}" has absolute shape keys. Switch on Relative in its Shape Keys panel first.')
    animation = keys.animation_data
    if animation is None:
        return
    if animation.use_tweak_mode:
        raise ValueError(f'"{target.name}": an NLA strip is being tweaked. Leave Tweak Mode in the NLA editor first.')
    if animation.use_nla and any(track.is_solo for track in animation.nla_tracks):
        raise ValueError(f'"{target.name}": an NLA track is solo, so no action would play. Switch its star off first.')


def _check_keys(target: bpy.types.Object, matches: dict[str, str]) -> list[str]:
    """Faults of the keys that shall be driven: an error when nothing would move, otherwise warnings."""
    keys = target.data.shape_keys
    if not matches or keys is None:
        return []
    muted = [key for key in matches.values() if keys.key_blocks[key].mute]
    if muted:
        raise ValueError(f'"{target.name}": the shape key {_listed(muted)} is muted. Unmute it first.')
    driven = _driven_keys(keys)
    blocked = [key for key in matches.values() if key in driven]
    if blocked:
        raise ValueError(
            f'"{target.name}": a driver controls the shape key {_listed(blocked)}. Remove the driver, or choose the '
            "mesh that it follows."
        )
    if target.show_only_shape_key:
        return [f'"{target.name}" shows one pinned shape key only; switch off the pin to see the animation.']
    return []


def _driven_keys(keys: bpy.types.Key) -> frozenset[str]:
    if keys.animation_data is None:
        return frozenset()
    paths = {curve.data_path for curve in keys.animation_data.drivers}
    return frozenset(block.name for block in keys.key_blocks if value_path(block.name) in paths)


def value_path(key_name: str) -> str:
    """The data path of a shape key's value, from the shape-key data-block."""
    return f'key_blocks["{bpy.utils.escape_identifier(key_name)}"].value'


def _matches(channels: tuple[str, ...], target: bpy.types.Object) -> dict[str, str]:
    """Existing shape key of each channel that has one; the reference key stays at rest."""
    keys = target.data.shape_keys
    if keys is None:
        return {}
    names = [block.name for block in keys.key_blocks if block != keys.reference_key]
    return match_channels(channels, names)


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
