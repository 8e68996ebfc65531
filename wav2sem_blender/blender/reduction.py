# SPDX-License-Identifier: GPL-3.0-or-later
"""Fewer keys for a take, as many as a tolerance on the mesh's surface allows.

The first reduction stores the dense curves with the action, so that the next one starts from them and errors never add
up; curves that were edited in between count as they are. Shapes: T frames, K keys, V vertices.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from math import ceil, floor

import bpy
import numpy as np

from ..pipeline.key_reduction import CLOSED_MM, closure_frames, reduce_keys, reduction_error, with_keys_only
from ..pipeline.motion import Motion
from ..pipeline.visemes import VISEME_SETS, as_arkit, measured
from . import actions, compat, mapping
from .preflight import value_path
from .takes import Take

# Custom properties of an Action: the dense curves, their first frame with what was written last, and the last outcome.
_DENSE = "wav2sem_dense"
_WRITTEN = "wav2sem_dense_of"
_OUTCOME = "wav2sem_reduction"


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What a reduction did; `closures` is None where the face's keys do not tell how far the lips open."""

    keys_before: int
    keys_after: int
    error_mm: float
    closures: int | None
    closures_kept: int | None

    def words(self) -> list[str]:
        """In sentences."""
        said = [f"{self.keys_after:,} of {self.keys_before:,} keys, at most {self.error_mm:.2f} mm off"]
        if self.closures:
            said.append(f"{self.closures_kept} of {self.closures} closures stay closed")
        return said


def reduce(face: bpy.types.Object, take: Take, scene: bpy.types.Scene, tolerance_mm: float) -> Reduction:
    """Replace a take's keys by as few as stay within `tolerance_mm` at every vertex and whole frame.

    Raises:
        ValueError: There is nothing to reduce; nothing was changed.
    """
    found = {name: curve for name, curve in take.curves() if name in face.data.shape_keys.key_blocks}
    if not found:
        raise ValueError(f'The action "{take.action.name}" has no curve for a shape key of "{face.name}".')
    first_frame, dense = _dense_curves(take.action, found)
    names = tuple(dense)
    motion = Motion(
        weights_TK=np.stack(list(dense.values()), axis=1),
        channels=names,
        fps=compat.frame_rate_hz(scene),
        basis_KV3=offsets(face, scene, names),
    )
    opening_T = opening_mm(face, motion)
    closed = closure_frames(opening_T) if opening_T is not None else np.zeros(0, dtype=np.int64)
    kept = reduce_keys(motion, tolerance_mm=tolerance_mm, exact_frames=closed)
    error_mm = reduction_error(motion, kept)[1]
    after_T = opening_mm(face, with_keys_only(motion, kept))
    _write(take, first_frame, motion, kept)
    outcome = Reduction(
        keys_before=motion.weights_TK.size,
        keys_after=sum(map(len, kept)),
        error_mm=float(error_mm or 0.0),
        closures=len(closed) if opening_T is not None else None,
        closures_kept=int(np.sum(after_T[closed] < CLOSED_MM)) if after_T is not None else None,
    )
    take.action[_OUTCOME] = json.dumps(asdict(outcome))
    face.data.update_tag()
    return outcome


def last_outcome(take: Take) -> Reduction | None:
    """What the last reduction of a take did; None where its keys are others by now."""
    if _OUTCOME not in take.action:
        return None
    outcome = Reduction(**json.loads(take.action[_OUTCOME]))
    n_keys = sum(len(curve.keyframe_points) for _, curve in take.curves())
    return outcome if n_keys == outcome.keys_after else None


def offsets(face: bpy.types.Object, scene: bpy.types.Scene, names: tuple[str, ...]) -> np.ndarray:
    """How far each key moves every vertex of the object at value 1, (K, V, 3) in metres of the scene."""
    mesh = face.data
    metres_33 = np.array(face.matrix_world.to_3x3(), dtype=np.float32) * scene.unit_settings.scale_length
    offsets_KV3 = np.empty((len(names), len(mesh.vertices), 3), dtype=np.float32)
    for offset_V3, name in zip(offsets_KV3, names, strict=True):
        block = mesh.shape_keys.key_blocks[name]
        offset_V3[:] = (_points(block) - _points(block.relative_key)) @ metres_33.T
        if block.vertex_group:
            offset_V3 *= _group_weights(face, block.vertex_group)[:, None]
    return offsets_KV3


def opening_mm(face: bpy.types.Object, motion: Motion) -> np.ndarray | None:
    """How far the lips are apart at every frame (T,), as the bundled model's face would show these keys."""
    table = mapping.in_use(face)
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


def _dense_curves(action: bpy.types.Action, found: dict[str, bpy.types.FCurve]) -> tuple[int, dict[str, np.ndarray]]:
    """First frame and values of each curve, those from before its first reduction where it is as we left it."""
    ranges = [curve.range() for curve in found.values()]
    first, last = floor(min(low for low, _ in ranges)), ceil(max(high for _, high in ranges))
    written = json.loads(action.get(_WRITTEN, '{"first": 0, "curves": {}}'))
    stored = action.get(_DENSE, {})
    dense = {}
    for name, curve in found.items():
        if name in stored and written["first"] == first and written["curves"].get(name) == _hash(curve):
            values_T = np.frombuffer(stored[name], dtype="<f4")
            if len(values_T) == last - first + 1:
                dense[name] = values_T
                continue
        dense[name] = np.array([curve.evaluate(frame) for frame in range(first, last + 1)], dtype="<f4")
    return first, dense


def _write(take: Take, first_frame: int, motion: Motion, kept: tuple[np.ndarray, ...]) -> None:
    fcurves, hashes = take.fcurves, {}
    for name, values_T, frames in zip(motion.channels, motion.weights_TK.T, kept, strict=True):
        is_muted = fcurves.find(value_path(name)).mute
        actions.write_curve(fcurves, value_path(name), first_frame + frames, values_T[frames])
        curve = fcurves.find(value_path(name))
        curve.mute = is_muted
        hashes[name] = _hash(curve)
    take.action[_DENSE] = {
        name: values_T.astype("<f4").tobytes()
        for name, values_T in zip(motion.channels, motion.weights_TK.T, strict=True)
    }
    take.action[_WRITTEN] = json.dumps({"first": first_frame, "curves": hashes})


def _hash(curve: bpy.types.FCurve) -> str:
    points = np.empty(2 * len(curve.keyframe_points), dtype=np.float32)
    curve.keyframe_points.foreach_get("co", points)
    kinds = np.empty(len(curve.keyframe_points), dtype=np.int32)
    curve.keyframe_points.foreach_get("interpolation", kinds)
    return hashlib.sha256(points.tobytes() + kinds.tobytes()).hexdigest()[:16]
