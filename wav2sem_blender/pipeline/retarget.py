# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapts a Motion to a character: frame rate, strength, smoothing, timing.

Pure functions that return a new Motion. Shape suffixes: T animation frames, K channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import UserError
from .motion import Motion
from .visemes import closures

__all__ = ["covering", "gain", "prepared", "resample", "rested", "shift", "smooth"]

# Smaller shifts, in frames, are rounding: the interface has 32-bit numbers.
_SAME_FRAME = 1e-4
# How long the face takes from rest to the first pose, and from the last pose to rest.
_REST_S = 0.1
# The longest time for which the last pose is held; a host that leaves out more than this is not covered up.
_HELD_S = 0.25
# Poses with lips at least this closed are not smoothed.
_KEPT_CLOSED = 0.5


def prepared(motion: Motion, *, strength: float = 1.0, smoothing_s: float = 0.0) -> Motion:
    """The model's motion with the settings that do not depend on the face."""
    return gain(smooth(motion, smoothing_s), strength)


def resample(motion: Motion, fps: float, later_s: float = 0.0) -> Motion:
    """The same motion at another frame rate; its length changes by half a frame at most.

    `later_s` delays every event (below 0: advances it); the first or last pose fills the gap.

    Curves are interpolated linearly. Then each local extreme of the source (a closure, a peak) is put on the nearest
    new frame with its exact value, at most half a new frame off its time. From 30 to 24 fps on artists' curves, plain
    interpolation, area averaging and windowed sinc lost up to 42, 41 and 27 percent of single peaks; this loses none.
    """
    if not (np.isfinite(fps) and fps > 0):
        raise UserError("The frame rate {fps} is impossible; it must be a finite number above 0.", fps=fps)
    if not np.isfinite(later_s):
        raise UserError(
            "The shift of {milliseconds} ms is impossible; it must be a finite number.", milliseconds=1000 * later_s
        )
    offset = later_s * motion.fps
    if motion.n_frames == 0 or (fps == motion.fps and abs(offset) < _SAME_FRAME):
        return replace(motion, fps=float(fps))
    n_frames = max(1, round(motion.n_frames * fps / motion.fps))
    positions_T = np.arange(n_frames) * (motion.fps / fps) - offset
    phones, track = motion.phones and motion.phones.later(later_s), motion.track and motion.track.later(later_s)
    weights_TK = _sampled(motion.weights_TK, positions_T)
    return replace(motion, weights_TK=weights_TK, fps=float(fps), phones=phones, track=track)


def rested(motion: Motion, before: int = 0, after: int = 0) -> Motion:
    """The same motion with rest as its first two and its last two poses; weights are limited in the 0.1 s beside them.

    A recording may begin or end in the middle of a word. Before its first key and after its last one a curve goes on as
    it begins or ends, so the mouth would stay open. Two equal keys stay so under linear extrapolation, too.

    Args:
        motion: The motion, or a part of it.
        before, after: Frames of the whole motion that are before and after this part.
    """
    n_frames = motion.n_frames
    from_end_T = np.minimum(np.arange(n_frames) + before, np.arange(n_frames)[::-1] + after)
    limit_T1 = ((from_end_T - 1) / max(1.0, _REST_S * motion.fps)).clip(0)[:, None].astype(np.float32)
    limit_T1[limit_T1 >= 1] = np.inf
    return replace(motion, weights_TK=np.clip(motion.weights_TK, -limit_T1, limit_T1))


def covering(motion: Motion) -> Motion:
    """The same motion for every whole frame of its sound, whose length is in `info`: the last pose is held.

    The published models are a frame short, because an encoder frame needs samples on both sides.
    """
    n_frames = int(float(motion.info.get("audio_s", 0)) * motion.fps + 1e-3)
    n_missing = min(n_frames - motion.n_frames, round(_HELD_S * motion.fps))
    if n_missing <= 0 or motion.n_frames == 0:
        return motion
    return replace(motion, weights_TK=np.pad(motion.weights_TK, ((0, n_missing), (0, 0)), mode="edge"))


def shift(motion: Motion, milliseconds: float) -> Motion:
    """Move the motion later (positive) or earlier (negative), at the same length; see `resample`."""
    return resample(motion, motion.fps, milliseconds / 1000)


def gain(motion: Motion, strength: float) -> Motion:
    """Scale all weights: 0 is the rest pose, 1 no change; above 1 exaggerates, and weights may exceed 1."""
    if not np.isfinite(strength):
        raise UserError("The strength {strength} is impossible; it must be a finite number.", strength=strength)
    return replace(motion, weights_TK=motion.weights_TK * np.float32(strength))


def smooth(motion: Motion, seconds: float) -> Motion:
    """Smooth with a zero-phase Gaussian that is `seconds` wide at half its height; 0 changes nothing.

    Where lips close in speech, the whole pose is kept, and smoothing sets in gradually around it: a closure of one
    frame, as in "p", would open otherwise. Other peaks become shallower: 0.05 s is gentle, 0.2 s slurs.
    """
    if not (np.isfinite(seconds) and seconds >= 0):
        raise UserError("A smoothing of {seconds} s is impossible; it must be 0 or more.", seconds=seconds)
    sigma = seconds * motion.fps / 2.3548  # full width at half maximum, in frames
    if sigma < 1e-3 or motion.n_frames < 2:
        return motion
    reach = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    kernel /= kernel.sum()
    padded_TK = np.pad(motion.weights_TK.astype(np.float64), ((reach, reach), (0, 0)), mode="edge")
    columns = [np.convolve(column_T, kernel, mode="valid") for column_T in padded_TK.T]
    if not columns:
        return motion
    smoothed_TK = np.stack(columns, axis=1)
    kept_T = np.pad(np.clip(closures(motion) / _KEPT_CLOSED, 0, 1), reach)
    kept_T1 = (sliding_window_view(kept_T, 2 * reach + 1) * (kernel / kernel.max())).max(axis=1)[:, None]
    return replace(motion, weights_TK=smoothed_TK + kept_T1 * (motion.weights_TK - smoothed_TK))


def _sampled(weights_TK: np.ndarray, positions_T: np.ndarray) -> np.ndarray:
    """Curves at fractional, evenly spaced source frames; the ends are held, local extremes are kept."""
    n_source = len(weights_TK)
    step = positions_T[1] - positions_T[0] if len(positions_T) > 1 else 1.0
    source_T = np.arange(n_source)
    sampled_TK = np.empty((len(positions_T), weights_TK.shape[1]), np.float32)
    for k, curve_T in enumerate(weights_TK.T):
        sampled_T = np.interp(positions_T, source_T, curve_T)
        extremes = _extremes(curve_T)
        nearest = np.rint((extremes.mean(axis=0) - positions_T[0]) / step).astype(int)
        inside = (nearest >= 0) & (nearest < len(positions_T))
        nearest, values = nearest[inside], curve_T[extremes[0][inside]]
        # If two extremes fall on one new frame, the one that interpolation misses most is written last. A frame in the
        # middle misses both alike: then rounding must not decide, or a part would differ from the whole.
        order = np.argsort(np.round(np.abs(values - sampled_T[nearest]), 5), kind="stable")
        sampled_T[nearest[order]] = values[order]
        sampled_TK[:, k] = sampled_T
    return sampled_TK


def _extremes(curve_T: np.ndarray) -> np.ndarray:
    """First and last frame of every local extreme, plateaus included, (2, n)."""
    starts = np.flatnonzero(np.diff(curve_T, prepend=np.nan) != 0)  # runs of equal values; NaN != 0 opens the first
    stops = np.append(starts[1:], len(curve_T)) - 1
    slope = np.sign(np.diff(curve_T[starts]))
    turns = np.flatnonzero(slope[1:] != slope[:-1]) + 1
    return np.stack([starts[turns], stops[turns]])
