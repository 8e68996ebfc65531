# SPDX-License-Identifier: GPL-3.0-or-later
"""Fewer keys for the same motion: straight lines that stay within a bound, measured on the vertices.

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

# Lips that are nearer than this are closed, in mm; as docs/model-card.md counts closures.
CLOSED_MM = 1.0
# The scale of the tolerances is found on this many vertices, those that move most; then all are measured.
_SEARCHED_VERTICES = 1500
# Vertices of one matrix product, all its frames together; 4 MB. And points of a curve in one step.
_VERTICES_IN_A_STEP = 1_000_000
_POINTS_IN_A_STEP = 4096


def closure_frames(opening_mm_T: np.ndarray, threshold_mm: float = CLOSED_MM) -> np.ndarray:
    """The deepest frame of every closure: of each time that the lips are nearer than `threshold_mm`, (n,)."""
    closed_T = np.concatenate([[False], opening_mm_T < threshold_mm, [False]])
    edges = np.flatnonzero(closed_T[1:] != closed_T[:-1]).reshape(-1, 2)
    return np.array([start + int(np.argmin(opening_mm_T[start:stop])) for start, stop in edges], dtype=np.int64)


def reduce_keys(
    motion: Motion,
    tolerance: float = 0.005,
    tolerance_mm: float | None = None,
    exact_frames: Sequence[int] | np.ndarray = (),
) -> tuple[np.ndarray, ...]:
    """Choose per channel the frames to key, so that straight lines between them stay within a bound at every frame.

    Args:
        motion: T frames; the first and last frame are always keyed.
        tolerance: Largest error of a weight. Ignored when `tolerance_mm` is given.
        tolerance_mm: Largest error of any vertex in millimetres, over all channels together; needs a basis.
        exact_frames: Here every channel keeps its value, as at the closures of the lips.

    Returns:
        K arrays of increasing frame indices.

    Raises:
        ValueError: A negative tolerance, or `tolerance_mm` for a motion without a basis.
    """
    return at_once(reducing_keys(motion, tolerance, tolerance_mm, exact_frames))[0]


def reducing_keys(
    motion: Motion,
    tolerance: float = 0.005,
    tolerance_mm: float | None = None,
    exact_frames: Sequence[int] | np.ndarray = (),
    progress: Progress = lambda _part: None,
) -> Steps[tuple[Keys, float | None]]:
    """`reduce_keys` in small steps; returns the largest error of a vertex in mm, too, None without a basis."""
    slack_T = np.full(motion.n_frames, 1 - 1e-6)  # a little tighter, for the rounding of whoever interpolates
    slack_T[np.asarray(exact_frames, dtype=np.int64)] = 0.0
    if tolerance_mm is None:
        _check_tolerance(tolerance, "tolerance")
        keys = yield from _reduce(motion, np.full(len(motion.channels), float(tolerance)), slack_T, progress)
        return keys, (yield from _measure(motion, keys))[1]
    _check_tolerance(tolerance_mm, "tolerance_mm")
    if motion.basis_KV3 is None:
        raise UserError("A tolerance in millimetres needs a motion with a basis; give a tolerance of the weights.")
    return (yield from _reduce_by_vertices(motion, tolerance_mm, slack_T, progress))


def _reduce_by_vertices(
    motion: Motion, tolerance_mm: float, slack_T: np.ndarray, progress: Progress
) -> Steps[tuple[Keys, float]]:
    """Channels share vertices: `scale` times what moves a channel's fastest vertex by the tolerance is each one's part.

    With the smallest scale even errors that all add up stay within the tolerance. Real errors rarely do, so larger
    scales are tried first, and taken when the measured error passes.
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
        # Nobody knows how many tries it takes: each one is half of what is left of the way.
        middle, end = begin + (1 - begin) / 4, begin + (1 - begin) / 2
        keys = yield from _reduce(motion, scale * alone_K, slack_T, _within(progress, begin, middle))
        error_mm = (yield from _measure(searched, keys))[1] or 0.0
        if error_mm <= tolerance_mm:
            error_mm = (yield from _measure(motion, keys, _within(progress, middle, end)))[1] or 0.0
            if error_mm <= tolerance_mm:
                return keys, error_mm
        # The error grows about as the scale does.
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
    """A channel that moves no vertex may do what it likes, at exact frames too."""
    return tolerance * slack_T if np.isfinite(tolerance) else np.full(len(slack_T), np.inf)


def _key_frames(curve: Sequence[float], bounds: Sequence[float]) -> Steps[list[int]]:
    """Longest straight pieces from key to key, one after the other, in linear time.

    The slopes that pass all points so far within their bounds form a cone that only narrows; a point whose own slope
    lies in it can end the piece.
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
    """The motion that remains when only these frames are keyed and straight lines join them."""
    return at_once(_join(motion, keys))


def _join(motion: Motion, keys: Sequence[np.ndarray]) -> Steps[Motion]:
    frames_T = np.arange(motion.n_frames)
    kept_TK = np.empty_like(motion.weights_TK)
    for k, frames in enumerate(keys):
        kept_TK[:, k] = np.interp(frames_T, frames, motion.weights_TK[frames, k])
        yield
    return replace(motion, weights_TK=kept_TK)


def reduction_error(motion: Motion, keys: Sequence[np.ndarray]) -> tuple[float, float | None]:
    """Measured error of `reduce_keys`: largest error of a weight, and of a vertex in mm (None without a basis)."""
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
    """The longest displacement of any vertex at any frame; frames that cannot hold it are left out."""
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
