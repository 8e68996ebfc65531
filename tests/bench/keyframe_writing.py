# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the add-on's way to write keyframes, in bulk, with `keyframe_insert` in a loop.

python tests/bench/keyframe_writing.py [--short]
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

import bpy
import numpy as np
from report import Row, best_s, run_alone

from wav2sem_blender.blender import compat
from wav2sem_blender.blender.scene.actions import AUDIO_HASH, write_action
from wav2sem_blender.pipeline.time_slicing import at_once

N_KEYS, N_FRAMES = 52, 1800


def mesh_with_keys() -> bpy.types.Object:
    """A cube with `N_KEYS` shape keys. The mesh's size does not matter for curves."""
    bpy.ops.wm.read_factory_settings()
    obj = bpy.data.objects["Cube"]
    obj.shape_key_add(name="Basis")
    for i in range(N_KEYS):
        obj.shape_key_add(name=f"key_{i:02d}")
    return obj


def write_in_bulk(obj: bpy.types.Object, values_TK: np.ndarray) -> bpy.types.Action:
    """As the add-on does."""
    curves = {f"key_{k:02d}": values_TK[:, k] for k in range(values_TK.shape[1])}
    with ExitStack() as rollback:
        keys, scene = obj.data.shape_keys, bpy.context.scene
        action, _ = at_once(write_action(keys, "bulk", {AUDIO_HASH: "bench"}, curves, 1, scene, rollback))
        rollback.pop_all()
    return action


def write_in_a_loop(obj: bpy.types.Object, values_TK: np.ndarray) -> bpy.types.Action:
    """As most scripts do."""
    blocks = obj.data.shape_keys.key_blocks
    for k in range(values_TK.shape[1]):
        block = blocks[f"key_{k:02d}"]
        for t, value in enumerate(values_TK[:, k].tolist()):
            block.value = value
            block.keyframe_insert("value", frame=t + 1)
    return obj.data.shape_keys.animation_data.action


def read_values(action: bpy.types.Action, obj: bpy.types.Object) -> np.ndarray:
    """The curves' key values (T, K)."""
    curves = compat.channelbag(action, obj.data.shape_keys.animation_data.action_slot).fcurves
    columns = []
    for k in range(N_KEYS):
        points = curves.find(f'key_blocks["key_{k:02d}"].value').keyframe_points
        co = np.empty(2 * len(points), np.float32)
        points.foreach_get("co", co)
        columns.append(co[1::2])
    return np.stack(columns, 1)


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Write the same values both ways and compare the curves."""
    values_TK = np.random.default_rng(0).random((N_FRAMES, N_KEYS), np.float32)
    obj = mesh_with_keys()
    bulk_s = best_s(lambda: write_in_bulk(obj, values_TK), repeats=5)
    bulk_TK = read_values(obj.data.shape_keys.animation_data.action, obj)
    obj = mesh_with_keys()
    start = time.perf_counter()
    action = write_in_a_loop(obj, values_TK)
    loop_s = time.perf_counter() - start
    difference = float(np.abs(bulk_TK - read_values(action, obj)).max())
    size = f"{N_KEYS} keys x {N_FRAMES} frames"
    return [
        Row(name=f"keyframe_insert, {size}", value=loop_s, unit="s"),
        Row(name=f"keyframes in bulk, {size}", value=bulk_s, unit="s"),
        Row(name="keyframe_insert / bulk", value=loop_s / bulk_s, unit="x", aim=">= 200", met=loop_s / bulk_s >= 200),
        Row(name="keyframes, difference", value=difference, unit="", aim="0", met=difference == 0),
    ]


if __name__ == "__main__":
    run_alone(measure)
