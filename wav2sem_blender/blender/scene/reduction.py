# SPDX-License-Identifier: GPL-3.0-or-later
"""Fewer keys for a take, as many as a tolerance on the mesh's surface allows.

The first reduction stores the dense curves with the action, so that the next one starts from them and errors never add
up; curves that were edited in between count as they are. Shapes: T frames, K keys, V vertices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from math import ceil, floor

import bpy
import numpy as np

from ...errors import Text, UserError
from ...pipeline.key_reduction import CLOSED_MM, closure_frames, reducing_keys, with_keys_only
from ...pipeline.motion import Motion
from ...pipeline.time_slicing import Steps, at_once, for_a_while
from ...pipeline.visemes import VISEME_SETS, as_arkit, measured
from .. import compat
from ..tasks.running import SLICE_S, Running
from . import actions, key_mapping, takes
from .checks import value_path
from .takes import Take

# Custom properties of an Action: the dense curves, their first frame with what was written last, and the last outcome.
_DENSE = "wav2sem_dense"
_WRITTEN = "wav2sem_dense_of"
_OUTCOME = "wav2sem_reduction"
# What of the whole it takes to read curves and keys.
_READ = 0.1
# Shorter than other slices: after each, Blender draws every key anew.
_WRITING_SLICE_S = 0.004


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
        said = [
            Text(
                "{keys_after:,} of {keys_before:,} keys, at most {error_mm:.2f} mm off",
                keys_after=self.keys_after,
                keys_before=self.keys_before,
                error_mm=self.error_mm,
            )
        ]
        if self.closures:
            said.append(
                Text(
                    "{closures_kept} of {closures} closures stay closed",
                    closures_kept=self.closures_kept,
                    closures=self.closures,
                )
            )
        return said


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The dense motion from `first_frame` on, the keys to keep of it, and what the curves were when they were read."""

    first_frame: int
    motion: Motion
    kept: tuple[np.ndarray, ...]
    hashes: dict[str, str]
    outcome: Reduction


class Reducing(Running):
    """A reduction in progress. Until it writes, it holds nothing of the scene from one slice to the next."""

    doing = "Keys are being reduced"
    poll_interval_s = 0.005

    def __init__(self, face: bpy.types.Object, take: Take, scene: bpy.types.Scene, tolerance_mm: float) -> None:
        """Begin to replace a take's keys by as few as stay within `tolerance_mm` at every vertex and whole frame.

        Raises:
            ValueError: There is nothing to reduce, or something runs already; nothing was changed.
        """
        super().__init__("Reducing Keys")
        if not _reducible(face, take):
            raise UserError(
                'The action "{action}" has no curve for a shape key of "{face}".',
                action=take.action.name,
                face=face.name,
            )
        # By what renaming and undo leave as they are.
        self._face_uid, self._action_uid, self._name = face.session_uid, take.action.session_uid, take.action.name
        self._choosing: Steps[_Chosen] = self._choose(compat.frame_rate_hz(scene), _metres(face, scene), tolerance_mm)
        self._chosen: _Chosen | None = None
        self._begin()

    def poll(self) -> bool:
        """Choose keys for a moment; True when they are chosen.

        Raises:
            ValueError: The face or the action is gone; nothing was changed.
        """
        with self._ending_on_errors():
            if self._chosen is None:
                self._chosen = for_a_while(self._choosing, SLICE_S)
        return self._chosen is not None

    def write(self, _context: bpy.types.Context) -> Reduction | None:
        """Write curves for a moment; None while there are more. The caller lets nobody touch the scene meanwhile.

        Raises:
            ValueError: The curves were edited meanwhile; nothing was changed.
        """
        with self._ending_on_errors():
            if self._writing is None:
                assert self._chosen is not None
                self._writing = self._write(self._chosen)
            outcome = for_a_while(self._writing, _WRITING_SLICE_S)
        if outcome is not None:
            self._end()
        return outcome

    def finish(self) -> Reduction:
        """Do it all without a pause; raises as `poll`."""
        try:
            return at_once(self._write(at_once(self._choosing)))
        finally:
            self._end()

    def cancel(self) -> None:
        """Give up; nothing was changed. Once it writes it goes to its end instead: half of it would be neither."""
        self._choosing.close()
        if self._writing is not None:
            with suppress(ReferenceError):  # another file is open by now
                self._writing.close()
        self._end()

    @contextmanager
    def _ending_on_errors(self) -> Iterator[None]:
        try:
            yield
        except ReferenceError as error:  # by a script's hand: a person's events are kept away
            self._end()
            raise self._edited() from error
        except BaseException:
            self._end()
            raise

    def _found(self) -> tuple[bpy.types.Object, Take]:
        """The face and its take as they are now."""
        face = next((found for found in bpy.data.objects if found.session_uid == self._face_uid), None)
        take = next((take for take in takes.of_face(face) if take.action.session_uid == self._action_uid), None)
        if face is None or take is None:
            raise UserError(
                '"{name}" was removed while its keys were reduced. Undo that, or select another.',
                name=self._name,
            )
        return face, take

    def _choose(self, rate_hz: float, metres_33: np.ndarray, tolerance_mm: float) -> Steps[_Chosen]:
        first_frame, dense, hashes = yield from self._read()
        names = tuple(dense)
        offsets: list[np.ndarray] = []
        for name in names:
            face, _ = self._found()
            if name not in face.data.shape_keys.key_blocks:
                raise self._edited()
            offsets.append(_offset(face, name, metres_33))
            if len(offsets[-1]) != len(offsets[0]):
                raise self._edited()
            yield
        motion = Motion(
            weights_TK=np.stack(list(dense.values()), axis=1),
            channels=names,
            fps=rate_hz,
            basis_KV3=np.stack(offsets),
        )
        yield
        opening_T = opening_mm(self._found()[0], motion)
        yield
        closed = closure_frames(opening_T) if opening_T is not None else np.zeros(0, dtype=np.int64)
        kept, error_mm = yield from reducing_keys(
            motion, tolerance_mm=tolerance_mm, exact_frames=closed, progress=self._show
        )
        after_T = opening_mm(self._found()[0], with_keys_only(motion, kept))
        outcome = Reduction(
            keys_before=motion.weights_TK.size,
            keys_after=sum(map(len, kept)),
            error_mm=float(error_mm or 0.0),
            closures=len(closed) if opening_T is not None else None,
            closures_kept=int(np.sum(after_T[closed] < CLOSED_MM)) if after_T is not None else None,
        )
        return _Chosen(first_frame=first_frame, motion=motion, kept=kept, hashes=hashes, outcome=outcome)

    def _show(self, part: float) -> None:
        self.fraction = _READ + (1 - _READ) * part

    def _read(self) -> Steps[tuple[int, dict[str, np.ndarray], dict[str, str]]]:
        """First frame and values of each curve, those from before its first reduction where it is as we left it."""
        ranges = {name: curve.range() for name, curve in _reducible(*self._found()).items()}
        first, last = floor(min(low for low, _ in ranges.values())), ceil(max(high for _, high in ranges.values()))
        dense: dict[str, np.ndarray] = {}
        hashes: dict[str, str] = {}
        for name in ranges:
            face, take = self._found()
            curve = _reducible(face, take).get(name)
            if curve is None:
                raise self._edited()
            hashes[name] = _hash(curve)
            dense[name] = _dense(take.action, name, curve, hashes[name], first, last)
            self.fraction = _READ * len(dense) / len(ranges)
            yield
        return first, dense, hashes

    def _write(self, chosen: _Chosen) -> Steps[Reduction]:
        """A step is a curve. From the first one on it is not left half done: closed, it goes to its end at once."""
        face, take = self._found()
        curves = _reducible(face, take)
        if curves.keys() != chosen.hashes.keys():
            raise self._edited()
        for name, curve in curves.items():
            if _hash(curve) != chosen.hashes[name]:
                raise self._edited()
            yield
        writing = _write(take, chosen)
        try:
            for _ in writing:
                yield
        except GeneratorExit:
            at_once(writing)
            raise
        finally:
            face.data.update_tag()
        return chosen.outcome

    def _edited(self) -> ValueError:
        return ValueError(
            Text(
                '"{name}" or its face was edited while its keys were reduced. Reduce them again.',
                name=self._name,
            )
        )


def reduce(face: bpy.types.Object, take: Take, scene: bpy.types.Scene, tolerance_mm: float) -> Reduction:
    """All of `Reducing` without a pause.

    Raises:
        ValueError: There is nothing to reduce; nothing was changed.
    """
    return Reducing(face, take, scene, tolerance_mm).finish()


def last_outcome(take: Take) -> Reduction | None:
    """What the last reduction of a take did; None where its keys are others by now."""
    if _OUTCOME not in take.action:
        return None
    outcome = Reduction(**json.loads(take.action[_OUTCOME]))
    n_keys = sum(len(curve.keyframe_points) for _, curve in take.curves())
    return outcome if n_keys == outcome.keys_after else None


def offsets(face: bpy.types.Object, scene: bpy.types.Scene, names: tuple[str, ...]) -> np.ndarray:
    """How far each key moves every vertex of the object at value 1, (K, V, 3) in metres of the scene."""
    return np.stack([_offset(face, name, _metres(face, scene)) for name in names])


def opening_mm(face: bpy.types.Object, motion: Motion) -> np.ndarray | None:
    """How far the lips are apart at every frame (T,), as the bundled model's face would show these keys."""
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


def _reducible(face: bpy.types.Object, take: Take) -> dict[str, bpy.types.FCurve]:
    return {name: curve for name, curve in take.curves() if name in face.data.shape_keys.key_blocks}


def _metres(face: bpy.types.Object, scene: bpy.types.Scene) -> np.ndarray:
    """From the object's own units to metres of the scene."""
    return np.array(face.matrix_world.to_3x3(), dtype=np.float32) * scene.unit_settings.scale_length


def _offset(face: bpy.types.Object, name: str, metres_33: np.ndarray) -> np.ndarray:
    block = face.data.shape_keys.key_blocks[name]
    offset_V3 = (_points(block) - _points(block.relative_key)) @ metres_33.T
    if block.vertex_group:
        offset_V3 *= _group_weights(face, block.vertex_group)[:, None]
    return offset_V3


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


def _dense(
    action: bpy.types.Action, name: str, curve: bpy.types.FCurve, hash_now: str, first: int, last: int
) -> np.ndarray:
    """A curve's value at every frame, from before its first reduction where it is as we left it."""
    stored = action.get(_DENSE, {})
    written = json.loads(action.get(_WRITTEN, '{"first": 0, "curves": {}}'))
    if name in stored and written["first"] == first and written["curves"].get(name) == hash_now:
        values_T = np.frombuffer(stored[name], dtype="<f4")
        if len(values_T) == last - first + 1:
            return values_T
    return np.array([curve.evaluate(frame) for frame in range(first, last + 1)], dtype="<f4")


def _write(take: Take, chosen: _Chosen) -> Steps[None]:
    fcurves, hashes, action = take.fcurves, {}, take.action
    action[_DENSE] = {}
    for name, values_T, frames in zip(chosen.motion.channels, chosen.motion.weights_TK.T, chosen.kept, strict=True):
        is_muted = fcurves.find(value_path(name)).mute
        actions.write_curve(fcurves, value_path(name), chosen.first_frame + frames, values_T[frames])
        curve = fcurves.find(value_path(name))
        curve.mute = is_muted
        hashes[name] = _hash(curve)
        action[_DENSE][name] = values_T.astype("<f4").tobytes()
        yield
    action[_WRITTEN] = json.dumps({"first": chosen.first_frame, "curves": hashes})
    action[_OUTCOME] = json.dumps(asdict(chosen.outcome))


def _hash(curve: bpy.types.FCurve) -> str:
    points = np.empty(2 * len(curve.keyframe_points), dtype=np.float32)
    curve.keyframe_points.foreach_get("co", points)
    kinds = np.empty(len(curve.keyframe_points), dtype=np.int32)
    curve.keyframe_points.foreach_get("interpolation", kinds)
    return hashlib.sha256(points.tobytes() + kinds.tobytes()).hexdigest()[:16]
