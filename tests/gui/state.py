# SPDX-License-Identifier: GPL-3.0-or-later
"""A summary of the open file, small enough to compare after every step; each shape key is one hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import bpy
import numpy as np

# The interface, and data that Blender itself adds and removes (brushes, palettes, console texts).
_NOT_THE_SCENE = set("screens workspaces window_managers brushes palettes libraries images linestyles".split())


def snapshot() -> dict[str, Any]:
    """Return the names of all data-blocks, each mesh's keys and animation, each action's curves, each scene's times."""
    collections = [prop.identifier for prop in bpy.data.bl_rna.properties if prop.type == "COLLECTION"]
    return {
        "names": {name: sorted(getattr(bpy.data, name).keys()) for name in collections if name not in _NOT_THE_SCENE},
        "objects": {block.name: _object(block) for block in bpy.data.objects},
        "keys": {block.name: _keys(block) for block in bpy.data.shape_keys},
        "actions": {block.name: _action(block) for block in bpy.data.actions},
        "scenes": {
            scene.name: [scene.render.fps, scene.render.fps_base, scene.frame_start, scene.frame_end]
            for scene in bpy.data.scenes
        },
    }


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Name the differences; empty when there are none."""
    parts = []
    for kind in before:
        for name in sorted({*before[kind], *after[kind]}):
            old, new = before[kind].get(name), after[kind].get(name)
            if old != new:
                parts.append(f"{kind}/{name}: {json.dumps(old)[:200]} -> {json.dumps(new)[:200]}")
    return "\n".join(parts)


def _object(block: Any) -> list[Any]:
    data = block.data.name if block.data else None
    return [block.type, data, [list(row) for row in block.matrix_world], [m.name for m in block.modifiers]]


def _keys(block: Any) -> dict[str, Any]:
    animation = block.animation_data
    action = animation.action.name if animation and animation.action else None
    tracks = [[strip.name for strip in track.strips] for track in animation.nla_tracks] if animation else []
    return {
        "blocks": [[k.name, k.slider_min, k.slider_max, k.mute, _hash(k.data, 3)] for k in block.key_blocks],
        "animation": [animation is not None, action, tracks],
        "custom": {name: str(value) for name, value in block.items()},
    }


def _hash(points: Any, n_coordinates: int) -> str:
    values = np.empty(n_coordinates * len(points), dtype=np.float32)
    points.foreach_get("co", values)
    return hashlib.sha256(values.tobytes()).hexdigest()[:12]


def _action(block: Any) -> dict[str, str]:
    curves = {}
    for layer in block.layers:
        for bag in (bag for strip in layer.strips for bag in strip.channelbags):
            for curve in bag.fcurves:
                curves[curve.data_path] = f"{len(curve.keyframe_points)} keys, {_hash(curve.keyframe_points, 2)}"
    return curves
