# SPDX-License-Identifier: GPL-3.0-or-later
"""Reduces keys: straight lines between the remaining keys stay within a bound, which is measured on the vertices.

Shape suffixes: T animation frames, K channels, V vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import UserError
from .motion import Motion
from .time_slicing import Progress, Steps, at_once

__all__ = ["closure_frames", "reduce_keys", "reducing_keys", "reduction_error", "with_keys_only"]

Keys = tuple[np.ndarray, ...]

# Lips nearer than this, in mm, are closed; docs/model-card.md counts closures by the same limit.
CLOSED_MM = 1.0
# The search for the scale of the tolerances uses only this many vertices, those that move most.
_SEARCHED_VERTICES = 1500
# Vertices (times frames) in one matrix product, 4 MB; and points of a curve in one step.
_VERTICES_IN_A_STEP = 1_000_000
_POINTS_IN_A_STEP = 4096


def closure_frames(opening_mm_T: np.ndarray, threshold_mm: float = CLOSED_MM) -> np.ndarray:
    """The deepest frame (n,) of every closure, in which the lips are nearer than `threshold_mm`."""
    closed_T = np.concatenate([[False], opening_mm_T < threshold_mm, [False]])
    edges = np.flatnonzero(closed_T[1:] != closed_T[:-1]).reshape(-1, 2)
    return np.array([start + int(np.argmin(opening_mm_T[start:stop])) for start, stop in edges], dtype=np.int64)


def reduce_keys(
    motion: Motion,
    tolerance: float = 0.005,
    tolerance_mm: float | None = None,
    exact_frames: Sequence[int] | np.ndarray = (),
) -> tuple[np.ndarray, ...]:
    """Choose the frames to key in each channel, so that straight lines between them stay within a bound.

    Args:
        motion: The motion; its first and last frames are always keyed.
        tolerance: Largest error of a weight. Ignored if `tolerance_mm` is given.
        tolerance_mm: Largest error of any vertex in millimetres, from all channels together; needs a basis.
        exact_frames: Frames at which every channel keeps its value, such as closures of the lips.

    Returns:
        K arrays of increasing frame indices.

    Raises:
        UserError: A negative tolerance, or `tolerance_mm` for a motion without a basis.
    """
    return at_once(reducing_keys(motion, tolerance, tolerance_mm, exact_frames))[0]


def reducing_keys(
    motion: Motion,
    tolerance: float = 0.005,
    tolerance_mm: float | None = None,
    exact_frames: Sequence[int] | np.ndarray = (),
    progress: Progress = lambda _part: None,
) -> Steps[tuple[Keys, float | None]]:
    """`reduce_keys` in small steps; also returns the largest error of a vertex in mm, or None without a basis."""
    slack_T = np.full(motion.n_frames, 1 - 1e-6)  # leaves room for rounding in the interpolation
    slack_T[np.asarray(exact_frames, dtype=np.int64)] = 0.0
    if tolerance_mm is None:
        _check_tolerance(tolerance, "tolerance")
        keys = yield from _reduce(motion, np.full(len(motion.channels), float(tolerance)), slack_T, progress)
        return keys, (yield from _measure(motion, keys))[1]
    _check_tolerance(tolerance_mm, "tolerance_mm")
    if motion.basis_KV3 is None:
        raise UserError("A tolerance in millimetres needs a motion with a basis. Use a tolerance of the weights.")
    return (yield from _reduce_by_vertices(motion, tolerance_mm, slack_T, progress))


def _reduce_by_vertices(
    motion: Motion, tolerance_mm: float, slack_T: np.ndarray, progress: Progress
) -> Steps[tuple[Keys, float]]:
    """Reduce with a bound on the vertices, which several channels move.

    Each channel's tolerance is `scale` times the weight that moves its fastest vertex by the tolerance. The safe scale
    is small enough for the case that all errors add up. They rarely do, so larger scales are tried first and used if
    the measured error is within the tolerance.
    """
    assert motion.basis_KV3 is not None
    reach_KV = np.linalg.norm(motion.basis_KV3, axis=2).astype(np.float64)
    yield
    furthest_K = reach_KV.max(axis=1, initial=0.0)
    alone_K = np.divide(tolerance_mm / 1000, furthest_K, out=np.full(len(furthest_K), np.inf), where=furthest_K > 0)
    # Largest possible error of every vertex at scale 1, in tolerances.
    possible_V = np.divide(reach_KV, furthest_K[:, None], where=furthest_K[:, None] > 0, out=reach_KV).sum(axis=0)
    safe = 1 / possible_V.max(initial=1.0)
    yield
    most_V = np.argsort(-possible_V, kind="stable")[:_SEARCHED_VERTICES]
    searched = replace(motion, basis_KV3=motion.basis_KV3[:, most_V])
    scale, begin = 1.0, 0.0
    while scale > safe:
        # The number of tries is unknown, so each one takes half of the remaining progress.
        middle, end = begin + (1 - begin) / 4, begin + (1 - begin) / 2
        keys = yield from _reduce(motion, scale * alone_K, slack_T, _within(progress, begin, middle))
        error_mm = (yield from _measure(searched, keys))[1] or 0.0
        if error_mm <= tolerance_mm:
            error_mm = (yield from _measure(motion, keys, _within(progress, middle, end)))[1] or 0.0
            if error_mm <= tolerance_mm:
                return keys, error_mm
        # The error is about proportional to the scale.
        scale *= min(0.9, 0.95 * tolerance_mm / error_mm)
        begin = end
    keys = yield from _reduce(motion, safe * alone_K, slack_T, _within(progress, begin, 1.0))
    return keys, (yield from _measure(motion, keys))[1] or 0.0


def _within(progress: Progress, begin: float, end: float) -> Progress:
    return lambda part: progress(begin + (end - begin) * part)


def _check_tolerance(value: float, name: str) -> None:
    if not (np.isfinite(value) and value >= 0):
        raise UserError("{name} is {value}; it must be 0 or more.", name=name, value=value)


def _reduce(motion: Motion, tolerance_K: np.ndarray, slack_T: np.ndarray, progress: Progress) -> Steps[Keys]:
    keys: list[np.ndarray] = []
    for weights_T, tolerance in zip(motion.weights_TK.T, tolerance_K.tolist(), strict=True):
        curve, bounds = weights_T.astype(np.float64).tolist(), _bounds(tolerance, slack_T).tolist()
        keys.append(np.array((yield from _key_frames(curve, bounds)), dtype=np.int64))
        progress(len(keys) / len(tolerance_K))
    return tuple(keys)


def _bounds(tolerance: float, slack_T: np.ndarray) -> np.ndarray:
    """Error bounds per frame; none for a channel that moves no vertex."""
    return tolerance * slack_T if np.isfinite(tolerance) else np.full(len(slack_T), np.inf)


def _key_frames(curve: Sequence[float], bounds: Sequence[float]) -> Steps[list[int]]:
    """Greedy choice of the longest straight pieces, in linear time.

    The slopes that pass all points so far within their bounds form a cone that only narrows. A piece can end at a point
    whose slope lies in the cone.
    """
    n_points = len(curve)
    if n_points == 0:
        return []
    keys, anchor = [0], 0
    while anchor < n_points - 1:
        lowest, highest = -np.inf, np.inf
        last, point, start = anchor + 1, anchor + 1, curve[anchor]
        while point < n_points and lowest <= highest:
            if point % _POINTS_IN_A_STEP == 0:
                yield
            distance = point - anchor
            slope, slack = (curve[point] - start) / distance, bounds[point] / distance
            if lowest <= slope <= highest:
                last = point
            lowest, highest = max(lowest, slope - slack), min(highest, slope + slack)
            point += 1
        keys.append(last)
        anchor = last
    return keys


def with_keys_only(motion: Motion, keys: Sequence[np.ndarray]) -> Motion:
    """The motion with only these frames keyed and straight lines between them."""
    return at_once(_join(motion, keys))


def _join(motion: Motion, keys: Sequence[np.ndarray]) -> Steps[Motion]:
    frames_T = np.arange(motion.n_frames)
    kept_TK = np.empty_like(motion.weights_TK)
    for k, frames in enumerate(keys):
        kept_TK[:, k] = np.interp(frames_T, frames, motion.weights_TK[frames, k])
        yield
    return replace(motion, weights_TK=kept_TK)


def reduction_error(motion: Motion, keys: Sequence[np.ndarray]) -> tuple[float, float | None]:
    """The largest error of a weight, and of a vertex in mm (None without a basis)."""
    return at_once(_measure(motion, keys))


def _measure(
    motion: Motion, keys: Sequence[np.ndarray], progress: Progress = lambda _part: None
) -> Steps[tuple[float, float | None]]:
    if motion.n_frames == 0:
        return 0.0, None if motion.basis_KV3 is None else 0.0
    difference_TK = (yield from _join(motion, keys)).weights_TK - motion.weights_TK
    weight_error = float(np.abs(difference_TK).max(initial=0.0))
    if motion.basis_KV3 is None:
        return weight_error, None
    yield
    return weight_error, 1000 * (yield from _furthest_m(difference_TK, motion.basis_KV3, progress))


def _furthest_m(weights_TK: np.ndarray, basis_KV3: np.ndarray, progress: Progress) -> Steps[float]:
    """The largest displacement of any vertex in any frame; frames whose bound is smaller are skipped."""
    axes_3KV = np.ascontiguousarray(basis_KV3.transpose(2, 0, 1))
    yield
    furthest_K = np.sqrt(np.square(axes_3KV).sum(axis=0).max(axis=1, initial=0.0))
    possible_T = np.abs(weights_TK) @ furthest_K
    order_T = np.argsort(-possible_T, kind="stable")
    largest_m2, n_in_a_step = 0.0, max(1, _VERTICES_IN_A_STEP // max(1, basis_KV3.shape[1]))
    for start in range(0, len(order_T), n_in_a_step):
        yield
        progress(start / len(order_T))
        frames = order_T[start : start + n_in_a_step]
        if possible_T[frames[0]] ** 2 <= largest_m2:
            break
        squares_TV = sum(np.square(weights_TK[frames] @ axis_KV) for axis_KV in axes_3KV)
        largest_m2 = max(largest_m2, float(np.max(squares_TV, initial=0.0)))
    return largest_m2**0.5
