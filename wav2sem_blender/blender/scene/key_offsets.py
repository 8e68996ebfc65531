# SPDX-License-Identifier: GPL-3.0-or-later
"""How far shape keys move a mesh's vertices, and how far they open the mouth. Shapes: T frames, V vertices."""

from __future__ import annotations

import bpy
import numpy as np

from ...pipeline.motion import Motion
from ...pipeline.visemes import VISEME_SETS, as_arkit, measured
from . import key_mapping


def metres_per_unit(face: bpy.types.Object, scene: bpy.types.Scene) -> np.ndarray:
    """The matrix (3, 3) from the object's own units to metres of the scene."""
    return np.array(face.matrix_world.to_3x3(), dtype=np.float32) * scene.unit_settings.scale_length


def key_offset(face: bpy.types.Object, name: str, metres_33: np.ndarray) -> np.ndarray:
    """How far the key at value 1 moves every vertex, (V, 3) in metres; `metres_33` comes from `metres_per_unit`."""
    block = face.data.shape_keys.key_blocks[name]
    offset_V3 = (_points(block) - _points(block.relative_key)) @ metres_33.T
    if block.vertex_group:
        offset_V3 *= _group_weights(face, block.vertex_group)[:, None]
    return offset_V3


def opening_mm(face: bpy.types.Object, motion: Motion) -> np.ndarray | None:
    """Distance between the lips at every frame (T,), as the bundled model's face would show these keys.

    None where the key mapping does not tell how far the keys open the mouth.
    """
    table = key_mapping.in_use(face)
    by_channel = {row.channel: row for row in reversed(table.rows) if row.key in motion.channels and row.gain}
    if not by_channel:
        return None
    columns = [motion.weights_TK[:, motion.channels.index(row.key)] / row.gain for row in by_channel.values()]
    played = Motion(weights_TK=np.stack(columns, axis=1), channels=tuple(by_channel), fps=motion.fps)
    if table.visemes:
        played = as_arkit(played, VISEME_SETS[table.visemes])
    opening_T: np.ndarray = measured(played)[:, 0]
    return opening_T if opening_T.any() else None


def _points(block: bpy.types.ShapeKey) -> np.ndarray:
    points_V3 = np.empty(3 * len(block.data), dtype=np.float32)
    block.data.foreach_get("co", points_V3)
    return points_V3.reshape(-1, 3)


def _group_weights(face: bpy.types.Object, name: str) -> np.ndarray:
    index = face.vertex_groups[name].index
    return np.array(
        [sum(member.weight for member in vertex.groups if member.group == index) for vertex in face.data.vertices],
        dtype=np.float32,
    )
