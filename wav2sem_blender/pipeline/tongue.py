# SPDX-License-Identifier: GPL-3.0-or-later
"""The tongue by rule: its tip shows between the teeth in th, and touches the ridge behind them in l, t, d and n.

Nothing here is learnt: no camera saw a tongue. The places are those of English phonetics; heights and times are our
choice. Each phone is a block of its height as long as it was heard, smoothed over `_GLIDE_S`: the tip sets off before
the phone, is back after it, stays up through neighbours such as "nt", and does not reach its goal in a short phone.
A phone that was heard with little confidence moves the tongue less.

Shape suffixes: T animation frames, K channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .forced_phones import spoken
from .motion import Motion
from .visemes import MEASURE_NAMES, MEASURES, measured

__all__ = ["TONGUE_CHANNELS", "with_tongue"]

# Height of each channel in each phone. `tongueOut` is ARKit's: at 1 the tongue is fully out.
_HEIGHTS: dict[str, dict[str, float]] = {
    "tongueOut": {"TH": 0.35, "DH": 0.25},
    "tongueTipUp": {"L": 0.8, "T": 0.9, "D": 0.9, "N": 0.9},
}
TONGUE_CHANNELS = tuple(_HEIGHTS)
_GLIDE_S = 0.08
_SURE = 0.6  # confidence from which a phone moves the tongue fully
# The tongue comes out as far as the lips are open, fully from here.
_LIPS_OPEN_MM = 3.0


def with_tongue(motion: Motion, channels: Sequence[str] = TONGUE_CHANNELS) -> Motion:
    """The motion with these channels added; unchanged where the model tells no phones, or moves the tongue itself.

    Args:
        motion: With `Motion.phones`, in place of which those count that `Motion.track` forces. Times are seconds as
            the motion plays.
        channels: Some of `TONGUE_CHANNELS`; the basis gets zeros for them.
    """
    added = tuple(channel for channel in channels if channel not in motion.channels)
    if motion.phones is None or not added:
        return motion
    times_s = np.arange(motion.n_frames) / motion.fps
    phones = motion.phones if motion.track is None else spoken(motion.phones, motion.track.phones)
    spans = phones.spans()
    curves_TK = np.zeros((motion.n_frames, len(added)), np.float32)
    for k, channel in enumerate(added):
        for span in spans:
            if span.name in _HEIGHTS[channel]:
                height = _HEIGHTS[channel][span.name] * min(1.0, span.confidence / _SURE)
                first, last = np.searchsorted(times_s, [span.start_s - _GLIDE_S, span.end_s + _GLIDE_S])
                at_s = times_s[first:last]
                curves_TK[first:last, k] += height * (_passed(at_s - span.start_s) - _passed(at_s - span.end_s))
    if "tongueOut" in added and not set(MEASURES).isdisjoint(motion.channels):
        opening_T = measured(motion)[:, MEASURE_NAMES.index("opening")]
        curves_TK[:, added.index("tongueOut")] *= np.clip(opening_T / _LIPS_OPEN_MM, 0.0, 1.0)
    basis_KV3 = motion.basis_KV3
    if basis_KV3 is not None:
        basis_KV3 = np.concatenate([basis_KV3, np.zeros((len(added), *basis_KV3.shape[1:]), np.float32)])
    return replace(
        motion,
        weights_TK=np.concatenate([motion.weights_TK, curves_TK], axis=1),
        channels=(*motion.channels, *added),
        basis_KV3=basis_KV3,
        info={**motion.info, "by_rule": ", ".join(added)},
    )


def _passed(time_s: np.ndarray) -> np.ndarray:
    """From 0 to 1 around time 0, within `_GLIDE_S`."""
    x = np.clip(time_s / _GLIDE_S + 0.5, 0.0, 1.0)
    return x * x * (3 - 2 * x)
