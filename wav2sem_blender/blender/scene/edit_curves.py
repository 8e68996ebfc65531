# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds the change of an edited span to the curves of a take, so that the animator's own edits of keys stay on top.

Keys outside the span are not touched. Shapes: T frames of the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from typing import Any

import bpy
import numpy as np

from ...pipeline.face_names import Row
from ...pipeline.motion import Motion
from ...pipeline.retarget import resample, rested
from . import controls, shape_keys
from .plan import make_plan
from .speech_track import Place
from .takes import Take

# Smaller differences cannot be seen; with 32-bit numbers they are everywhere.
_SAME = 2e-4
# A key that is so far from what was computed was edited by hand, or moved by Reduce Keys.
_BY_HAND = 2e-3
_ROUNDING_FRAMES = 1e-3
_FAR_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class Edited:
    """What was changed: the first and last frame of the action, and on how many the animator had edited keys."""

    first: int
    last: int
    n_by_hand: int


@dataclass(frozen=True, eq=False)
class CurveChange:
    """The values (T,) of one curve before and after an edit, from frame `first` on."""

    name: str
    curve: Any
    first: int
    before_T: np.ndarray
    after_T: np.ndarray

    @property
    def last(self) -> int:
        """The last frame."""
        return self.first + len(self.before_T) - 1


def curve_values(target: bpy.types.Object, motion: Motion) -> dict[str, np.ndarray]:
    """The values (T,) of the keys and controls by which a face shows a motion."""
    plan = make_plan(target, motion)
    rows = (*plan.rows, *(Row(channel, channel) for channel in plan.new_channels))
    keys, moves = shape_keys.split(target, shape_keys.curves(plan.motion, rows))
    rig = controls.rig_of(target) if moves else None
    return {**keys, **(controls.curves_for(rig, moves)[0] if rig is not None else {})}


def at_frames(motion: Motion, first_s: float, place: Place) -> tuple[int, Motion]:
    """A part of a take at the frames of its action; returns the first of them.

    Args:
        motion: The part, at any rate.
        first_s: Time of its first frame, from the beginning of the take.
        place: Of the take.
    """
    exact = place.action_frame + first_s * place.action_rate_hz
    first = ceil(exact - _ROUNDING_FRAMES)
    resampled = resample(motion, place.action_rate_hz, (exact - first) / place.action_rate_hz)
    before = first - round(place.action_frame)
    after = round(place.duration_s * place.action_rate_hz) - before - resampled.n_frames
    return first, rested(resampled, max(0, before), max(0, after))


def planned(
    target: bpy.types.Object, take: Take, place: Place, first_s: float, old: Motion, new: Motion
) -> list[CurveChange]:
    """What to change on the curves of a take where two motions differ; nothing is changed yet.

    Args:
        target: The face.
        take: Its take.
        place: Of the take.
        first_s: Time of the motions' first frame, from the beginning of the take.
        old, new: The same part before and after an edit.

    Raises:
        UserError: The face cannot show it.
    """
    first, old = at_frames(old, first_s, place)
    before, after = curve_values(target, old), curve_values(target, at_frames(new, first_s, place)[1])
    return where_they_differ(take.curves(), before, after, first)


def where_they_differ(
    curves: Iterable[tuple[str, Any]], before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], first: int
) -> list[CurveChange]:
    """The changes of curves, by name, from the values (T,) before and after an edit, from frame `first` on.

    Spans that are far from each other are changes of their own: the keys between them stay as they are.
    """
    changes = []
    for name, curve in curves:
        if name in before and name in after:
            differs = np.flatnonzero(np.abs(after[name] - before[name]) > _SAME)
            for part in np.split(differs, np.flatnonzero(np.diff(differs) > _FAR_FRAMES) + 1):
                if len(part):
                    span = slice(int(part[0]), int(part[-1]) + 1)
                    changes.append(CurveChange(name, curve, first + span.start, before[name][span], after[name][span]))
    return changes


def apply(target: bpy.types.Object, take: Take, changes: Sequence[CurveChange], *, replaces: bool) -> Edited:
    """Change the curves.

    Args:
        target: The face.
        take: Its take.
        changes: From `planned`.
        replaces: Replace what the animator has edited there, instead of adding the change to it.
    """
    by_hand: set[int] = set()
    highest: dict[str, np.ndarray] = {}
    for change in changes:
        values, frames = _change_curve(change, replaces)
        highest[change.name] = np.concatenate([highest.get(change.name, np.zeros(0)), values])
        by_hand |= frames
    _make_room(target, take, highest)
    return Edited(
        first=min((change.first for change in changes), default=0),
        last=max((change.last for change in changes), default=-1),
        n_by_hand=len(by_hand),
    )


def _change_curve(change: CurveChange, replaces: bool) -> tuple[np.ndarray, set[int]]:
    """Move the keyframes of one curve; returns their values, and the frames that the animator had edited."""
    curve, first, last = change.curve, change.first, change.last
    own, values_N = _points(curve)
    missing = np.setdiff1d(np.arange(first, last + 1), np.rint(own[np.abs(own - np.rint(own)) < _ROUNDING_FRAMES]))
    if len(missing):  # Reduce Keys left them out; neighbours keep the curve beside the span as it is
        edges = [frame for frame in (first - 1, last + 1) if len(own) and own[0] < frame < own[-1] and frame not in own]
        values = {int(frame): curve.evaluate(frame) for frame in (*missing, *edges)}
        for frame, value in values.items():
            curve.keyframe_points.insert(frame, value, options={"FAST"}).interpolation = "LINEAR"
        curve.update()
        own, values_N = _points(curve)
    begin, end = np.searchsorted(own, (first - _ROUNDING_FRAMES, last + _ROUNDING_FRAMES)).tolist()
    frames, values_N = own[begin:end], values_N[begin:end]
    at, steps = frames - first, np.arange(len(change.before_T))
    old_N, new_N = np.interp(at, steps, change.before_T), np.interp(at, steps, change.after_T)
    by_hand = (np.abs(values_N - old_N) > _BY_HAND) & ~np.isin(frames, missing)
    shift = np.where(by_hand, new_N - values_N, new_N - old_N) if replaces else new_N - old_N
    # Only these points are written: a long take has very many.
    for index, by in zip(range(begin, end), shift.tolist(), strict=True):
        point = curve.keyframe_points[index]
        for name in ("co", "handle_left", "handle_right"):
            getattr(point, name)[1] += by
    curve.update()
    return values_N + shift, {round(frame) for frame in frames[by_hand].tolist()}


def _points(curve: Any) -> tuple[np.ndarray, np.ndarray]:
    """Frames and values of a curve's keyframes."""
    both = np.empty(2 * len(curve.keyframe_points), np.float32)
    curve.keyframe_points.foreach_get("co", both)
    frames, values = both.reshape(-1, 2).T.astype(float)
    return frames, values


def _make_room(target: bpy.types.Object, take: Take, values: Mapping[str, np.ndarray]) -> None:
    """Widen the sliders of the keys for their new values, and show them."""
    for mesh in {target.data, *(found.data for found in bpy.data.objects if _plays(found, take.action))}:
        blocks = mesh.shape_keys.key_blocks if mesh.shape_keys is not None else ()
        own = {name: some for name, some in values.items() if name in blocks}
        with ExitStack() as rollback:
            if own:
                shape_keys.fit_sliders(mesh, own, rollback)
            rollback.pop_all()
        mesh.update_tag()
    take.player.update_tag()


def _plays(found: bpy.types.Object, action: bpy.types.Action) -> bool:
    keys = found.data.shape_keys if found.type == "MESH" else None
    animation = keys.animation_data if keys is not None else None
    return animation is not None and animation.action == action
