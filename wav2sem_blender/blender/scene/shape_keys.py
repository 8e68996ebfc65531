# SPDX-License-Identifier: GPL-3.0-or-later
"""The curve of each shape key, and keys made on a FLAME mesh from a motion's basis. Shapes: T frames, V vertices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

import bpy
import numpy as np

from ...errors import Text, UserError
from ...pipeline.face_names import Row, listed
from ...pipeline.motion import Motion
from . import key_mapping, original_state
from .checks import OWN_BASIS_PROPERTY, OWN_KEYS_PROPERTY, own_keys, rest_points
from .custom_properties import text
from .plan import Plan

# Blender's hard limit of a shape key's value.
LIMIT = 10.0
# The smallest visible difference of a shape key's value.
_VISIBLE = 0.02


def make_keys(target: bpy.types.Object, motion: Motion, plan: Plan, rollback: ExitStack) -> tuple[Row, ...]:
    """Create the plan's new keys, or update those that the add-on made earlier.

    If a curve would exceed Blender's limit of 10, the key is made larger and its curve smaller by the same factor.
    Keys that were made from the same basis are not touched: they may have been sculpted since.

    Returns:
        For each new channel a row with the key's name and, as the gain, the factor for its curve.
    """
    assert plan.similarity is not None and motion.basis_KV3 is not None
    existing = own_keys(target.data)
    rest_V3 = rest_points(target.data)
    factors = {channel: _curve_factor(motion, channel) for channel in plan.new_channels}
    basis_hash = _basis_hash(motion, plan, factors)
    keys = target.data.shape_keys
    active_index = target.active_shape_key_index
    rollback.callback(setattr, target, "active_shape_key_index", active_index)
    is_current = keys is not None and text(keys, OWN_BASIS_PROPERTY) == basis_hash
    made: list[Row] = []
    for channel in plan.new_channels:
        factor = factors[channel]
        if channel in existing and is_current:
            made.append(Row(channel, channel, factor))
            continue
        block = _key_block(target, channel, channel in existing, rollback)
        offsets_V3 = plan.similarity.apply_to_offsets(motion.basis_KV3[motion.channels.index(channel)])
        block.data.foreach_set("co", (rest_V3 + offsets_V3 / factor).astype(np.float32).ravel())
        made.append(Row(channel, block.name, factor))
    target.active_shape_key_index = active_index
    keys = target.data.shape_keys
    keys[OWN_KEYS_PROPERTY] = "\n".join(sorted(existing | {row.key for row in made}))
    keys[OWN_BASIS_PROPERTY] = basis_hash
    return tuple(made)


def curves(motion: Motion, rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Values (T,) of every key: the sum of its channels' curves, each times its gain."""
    values: dict[str, np.ndarray] = {}
    for channel, key, factor in rows:
        played_T = motion.weights_TK[:, motion.channels.index(channel)] * np.float32(factor)
        values[key] = values[key] + played_T if key in values else played_T
    return values


def split(
    target: bpy.types.Object, values: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The curves of the mesh's keys, and those of its rig's controls, as distances from rest."""
    named = {row.key for row in key_mapping.control_rows(target, (Row("", name) for name in values))}
    return (
        {name: values_T for name, values_T in values.items() if name not in named},
        {name: values_T for name, values_T in values.items() if name in named},
    )


def check_limit(values: Mapping[str, np.ndarray]) -> None:
    """Raise UserError if a curve exceeds Blender's limit; existing keys cannot be rescaled."""
    for key, values_T in values.items():
        highest = float(np.abs(values_T).max(initial=0.0))
        if highest > LIMIT:
            raise UserError(
                'The shape key "{key}" would need the value {highest:.1f}; Blender allows {limit:g}. Lower the '
                "strength, or the key's gain under Key Mapping.",
                key=key,
                highest=highest,
                limit=LIMIT,
            )


def fit_sliders(mesh: bpy.types.Mesh, values: Mapping[str, np.ndarray], rollback: ExitStack) -> list[str]:
    """Widen the keys' slider ranges so that no value is clamped; they are never narrowed.

    Returns:
        Warnings: a library override does not store slider ranges, so they stay as they are there.
    """
    original_state.put_back_later(mesh.shape_keys, rollback)
    original_state.note_sliders(mesh.shape_keys, list(values))
    narrow = []
    for key, values_T in values.items():
        block = mesh.shape_keys.key_blocks[key]
        lowest, highest = float(values_T.min(initial=0.0)), float(values_T.max(initial=0.0))
        if not mesh.override_library:
            rollback.callback(setattr, block, "slider_min", block.slider_min)
            rollback.callback(setattr, block, "slider_max", block.slider_max)
            block.slider_min = min(block.slider_min, lowest)
            block.slider_max = max(block.slider_max, highest)
        elif lowest < block.slider_min - _VISIBLE or highest > block.slider_max + _VISIBLE:
            narrow.append(key)
    if not narrow:
        return []
    return [
        Text(
            "The slider ranges of a library override cannot be changed, so {keys} will be clamped. Widen Range Min and "
            "Max in the linked file.",
            keys=listed(narrow),
        )
    ]


def _key_block(target: bpy.types.Object, name: str, exists: bool, rollback: ExitStack) -> bpy.types.ShapeKey:
    if exists:
        return target.data.shape_keys.key_blocks[name]
    if target.data.shape_keys is None:
        target.shape_key_add(name="Basis", from_mix=False)
        rollback.callback(target.shape_key_clear)
    block = target.shape_key_add(name=name, from_mix=False)
    block.value = 0.0
    rollback.callback(_remove_key, target, block.name)
    return block


def _remove_key(target: bpy.types.Object, name: str) -> None:
    target.shape_key_remove(target.data.shape_keys.key_blocks[name])


def _curve_factor(motion: Motion, channel: str) -> float:
    """1, or the power of two that brings the channel's curve within the limit."""
    highest = float(np.abs(motion.weights_TK[:, motion.channels.index(channel)]).max(initial=0.0))
    return 1.0 if highest <= LIMIT else 2.0 ** -np.ceil(np.log2(highest / LIMIT))


def _basis_hash(motion: Motion, plan: Plan, factors: dict[str, float]) -> str:
    assert plan.similarity is not None and motion.basis_KV3 is not None
    content = hashlib.sha256(repr((plan.new_channels, tuple(factors.values()))).encode())
    content.update(np.round(plan.similarity.rotation_33 * plan.similarity.scale, 5).tobytes())
    content.update(motion.basis_KV3.tobytes())
    return content.hexdigest()
