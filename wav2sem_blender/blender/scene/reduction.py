# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes keyframes from a take as far as a tolerance on the mesh's surface allows.

The first reduction stores the dense curves with the action. A later one starts from them, so errors do not add up; a
curve that was edited since is taken as it is. Shapes: T frames, K keys, V vertices.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from math import ceil, floor

import bpy
import numpy as np

from ...errors import Text, UserError
from ...pipeline.key_reduction import CLOSED_MM, closure_frames, reducing_keys, with_keys_only
from ...pipeline.motion import Motion
from ...pipeline.time_slicing import Steps, at_once
from .. import compat
from ..tasks.task import Task
from . import actions, controls, players, takes
from .custom_properties import as_dict, described, group, record
from .key_offsets import metres_per_unit, offset_of, opening_mm
from .takes import Take

# Custom properties of an Action: the dense curves; their first frame and a hash of each reduced curve; what the last
# reduction did.
_DENSE = "wav2sem_dense"
_WRITTEN = "wav2sem_dense_of"
_OUTCOME = "wav2sem_reduction"
# The share of the progress bar for reading curves and keys.
_READ = 0.1


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What a reduction did; `closures` is None where the keys do not tell how far the lips open."""

    keys_before: int
    keys_after: int
    error_mm: float
    closures: int | None
    closures_kept: int | None

    def words(self) -> list[Text]:
        """As sentences for the user."""
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
    """The dense motion from `first_frame` on, the keyframes to keep, and the hash of each curve when it was read."""

    first_frame: int
    motion: Motion
    kept: tuple[np.ndarray, ...]
    hashes: dict[str, str]
    outcome: Reduction


class Reducing(Task):
    """A reduction in progress. Until it writes, it keeps no reference to Blender data between two slices."""

    doing = "Keys are being reduced"
    poll_interval_s = 0.005
    writing_slice_s = 0.004  # Blender redraws every keyframe after each slice

    def __init__(self, face: bpy.types.Object, take: Take, scene: bpy.types.Scene, tolerance_mm: float) -> None:
        """Begin to reduce a take so that every vertex stays within `tolerance_mm` at every whole frame.

        Raises:
            UserError: There is nothing to reduce, or another task runs; nothing was changed.
        """
        super().__init__("Reducing Keys")
        if not _reducible(face, take):
            raise UserError(
                'The action "{action}" has no curve for a shape key of "{face}".',
                action=take.action.name,
                face=face.name,
            )
        # session_uid survives rename and undo.
        self._face_uid, self._action_uid, self._name = face.session_uid, take.action.session_uid, take.action.name
        self._choosing = self._choose(compat.frame_rate_hz(scene), metres_per_unit(face, scene), tolerance_mm)
        self._chosen: _Chosen | None = None
        self._begin()

    def _go_on(self) -> bool:
        if self._chosen is None:
            self._chosen = self._for_a_slice(self._choosing, self.slice_s)
        return self._chosen is not None

    def _release(self) -> None:
        self._choosing.close()

    def _found(self) -> tuple[bpy.types.Object, Take]:
        """The face and the take, looked up anew."""
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
            if not any(curve_name == name for curve_name in _reducible(*self._found())):
                raise self._edited()
            offsets.append(offset_of(face, name, dense[name], metres_33))
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
        """First frame, dense values (T,) of each curve, and its hash."""
        ranges = {name: curve.range()[:] for name, curve in _reducible(*self._found()).items()}
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

    def _write(self, _context: bpy.types.Context) -> Steps[Reduction]:
        """Check every curve, then write one curve a step. If closed after the first write, it writes the rest."""
        chosen, (face, take) = self._chosen, self._found()
        assert chosen is not None
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

    def _edited(self, _error: ReferenceError | None = None) -> UserError:
        return UserError(
            '"{name}" or its face was edited while its keys were reduced. Reduce them again.', name=self._name
        )


def last_outcome(take: Take) -> Reduction | None:
    """What the last reduction of a take did; None if the number of its keyframes has changed since."""
    if _OUTCOME not in take.action:
        return None
    outcome = described(Reduction, record(take.action, _OUTCOME))
    if outcome is None:
        return None
    n_keys = sum(len(curve.keyframe_points) for _, curve in take.curves())
    return outcome if n_keys == outcome.keys_after else None


def _reducible(face: bpy.types.Object, take: Take) -> dict[str, bpy.types.FCurve]:
    keys, rig = takes.shape_keys_of(face), controls.rig_of(face)
    owners = [owner for owner in (keys, rig) if owner is not None]
    return {name: curve for name, curve in take.curves() if any(players.has(owner, name) for owner in owners)}


def _dense(
    action: bpy.types.Action, name: str, curve: bpy.types.FCurve, hash_now: str, first: int, last: int
) -> np.ndarray:
    """A curve's value at every frame (T,): the stored dense values unless the curve was edited since."""
    stored, written = group(action, _DENSE), record(action, _WRITTEN)
    is_unchanged = written.get("first") == first and as_dict(written.get("curves")).get(name) == hash_now
    kept = stored.get(name) if is_unchanged else None
    if isinstance(kept, bytes) and len(kept) == 4 * (last - first + 1):
        values_T = np.frombuffer(kept, dtype="<f4")
        if np.isfinite(values_T).all():
            return values_T
    return np.array([curve.evaluate(frame) for frame in range(first, last + 1)], dtype="<f4")


def _write(take: Take, chosen: _Chosen) -> Steps[None]:
    hashes, action = {}, take.action
    bags = {name: bag for name, bag, _ in take.located()}
    action[_DENSE] = {}
    for name, values_T, frames in zip(chosen.motion.channels, chosen.motion.weights_TK.T, chosen.kept, strict=True):
        path, index = players.path_of(name)
        is_muted = bags[name].fcurves.find(path, index=index).mute
        actions.write_curve(bags[name], path, chosen.first_frame + frames, values_T[frames], index)
        curve = bags[name].fcurves.find(path, index=index)
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
