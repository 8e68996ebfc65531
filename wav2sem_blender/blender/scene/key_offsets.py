# SPDX-License-Identifier: GPL-3.0-or-later
"""How far shape keys move a mesh's vertices, and how far they open the mouth. Shapes: T frames, V vertices."""

from __future__ import annotations

from collections.abc import Iterable

import bpy
import numpy as np

from ...errors import Text, UserError
from ...pipeline.face_names import Row, listed
from ...pipeline.motion import Motion
from ...pipeline.visemes import VISEME_SETS, as_arkit, measured, openings_mm
from . import controls, key_mapping, players

# A key opens the mouth if it parts the lips of the bundled model's face this far.
_OPENS_MM = 8.0
# An open jaw moves a head by a tenth of its size, or a whole figure by a hundredth; less than this is nothing.
_LEAST_SHARE = 0.004


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


def offset_of(face: bpy.types.Object, name: str, values_T: np.ndarray, metres_33: np.ndarray) -> np.ndarray:
    """The same of a key or a control.

    A control is posed for a moment at the value that is farthest from rest, and the mesh is read as it shows then.
    """
    rig, control = controls.rig_of(face), controls.parsed(name)
    if rig is None or control is None or not key_mapping.control_rows(face, [Row("", name)]):
        return key_offset(face, name, metres_33)
    at_rest = controls.rest(rig, control)
    step = float(values_T[np.abs(values_T - at_rest).argmax()] - at_rest) or 1.0
    before = players.value(rig, name)
    shown = []
    try:
        for value in (at_rest, at_rest + step):
            players.set_value(rig, name, value)
            shown.append(_shown_points(face))
    finally:
        players.set_value(rig, name, before)
        bpy.context.view_layer.update()
    if len(shown[0]) != len(shown[1]) or len(shown[0]) != len(face.data.vertices):
        raise UserError(
            'Modifiers change the number of vertices of "{face}", so the effect of {control} is not known. Switch '
            "them off in the viewport, and reduce the keys again.",
            face=face.name,
            control=controls.listed_words([name])[0],
        )
    return ((shown[1] - shown[0]) / np.float32(step)) @ metres_33.T


def _shown_points(face: bpy.types.Object) -> np.ndarray:
    bpy.context.view_layer.update()
    shown = face.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.vertices
    points_V3 = np.empty(3 * len(shown), dtype=np.float32)
    shown.foreach_get("co", points_V3)
    return points_V3.reshape(-1, 3)


def opening_mm(face: bpy.types.Object, motion: Motion) -> np.ndarray | None:
    """Distance between the lips at every frame (T,), as the bundled model's face would show these keys.

    None where the key mapping does not tell how far the keys open the mouth.
    """
    table = key_mapping.in_use(face)
    by_channel = {row.channel: row for row in reversed(table.rows) if row.key in motion.channels and row.gain}
    if not by_channel:
        return None
    columns = [_weights(face, motion, row) for row in by_channel.values()]
    played = Motion(weights_TK=np.stack(columns, axis=1), channels=tuple(by_channel), fps=motion.fps)
    if table.visemes:
        played = as_arkit(played, VISEME_SETS[table.visemes])
    opening_T: np.ndarray = measured(played)[:, 0]
    return opening_T if opening_T.any() else None


def _weights(face: bpy.types.Object, motion: Motion, row: Row) -> np.ndarray:
    """The weight of a row's channel at every frame (T,). A control may have two, one on each side of its rest."""
    values_T = motion.weights_TK[:, motion.channels.index(row.key)]
    control, rig = controls.parsed(row.key), controls.rig_of(face)
    if control is None or rig is None:
        return values_T / np.float32(row.gain)
    return ((values_T - controls.rest(rig, control)) / row.gain).clip(0)


def hardly_opens(face: bpy.types.Object, rows: Iterable[Row], visemes: str = "") -> list[Text]:
    """A warning if the keys of these rows cannot open the mouth: none is made for it, or those move next to nothing."""
    openings = openings_mm({row.channel for row in rows}, visemes)
    if not openings:  # a model's own channels
        return []
    openers = {row.key for row in rows if openings.get(row.channel, 0.0) >= _OPENS_MM and row.gain}
    if key_mapping.control_rows(face, (Row("", key) for key in openers)):
        return []  # only posing the rig would tell
    if not openers:
        text = 'No shape key of "{face}" opens the mouth, so it moves little. Is the jaw a bone? Then use Jaw Bone.'
        return [Text(text, face=face.name)]
    size = max(face.dimensions[:])
    metres_33 = np.array(face.matrix_world.to_3x3(), dtype=np.float32)
    largest = max(float(np.linalg.norm(key_offset(face, key, metres_33), axis=1).max(initial=0.0)) for key in openers)
    if largest >= _LEAST_SHARE * size:
        return []
    text = 'The mouth of "{face}" hardly opens: {keys} move it by {percent:.1g} % of its size at most.'
    return [Text(text, face=face.name, keys=listed(sorted(openers)), percent=100 * largest / size if size else 0.0)]


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
