# SPDX-License-Identifier: GPL-3.0-or-later
"""The same mouth with fewer channels: a face that lacks `mouthClose` closes its lips with the jaw.

ARKit's channels correct one another, so leaving out one spoils the others: without `mouthClose` the lips never meet,
and without `jawOpen` they go through each other. The channels that a face has are changed so that the mouth keeps its
visible measures (`visemes.MEASURES`): by least squares, with one matrix for the whole motion; then the opening is put
right exactly.

Shapes: T animation frames, K channels of the mouth that the face has, M measures.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from .motion import Motion
from .visemes import MEASURE_NAMES, MEASURES, NOTICEABLE_MM, measured, sealed

__all__ = ["composed", "not_shown"]

# Cost of a change of a weight by 1, against squared smallest noticeable differences.
_RIDGE = 10.0
_OPENING = MEASURE_NAMES.index("opening")
# What a viewer calls the measures, and how much of a measure's motion must be kept to call it shown.
_CALLED = {"width": "rounded and spread lips", "tuck": "the lower lip under the teeth", "upper lip": "the upper lip"}
_SHOWN = 0.5


def composed(motion: Motion, available: Collection[str]) -> Motion:
    """The motion for a face that has only the available channels.

    Args:
        motion: Curves with ARKit's names; channels that do not move the mouth stay as they are.
        available: The channels that the face has.

    Returns:
        The motion with the same channels; those that are not available are 0.
    """
    missing = [name for name in motion.channels if name in MEASURES and name not in available]
    mine = [name for name in motion.channels if name in MEASURES and name in available]
    if not missing or not mine:
        return motion
    described_KM = np.stack([MEASURES[name] for name in mine])
    columns = [motion.channels.index(name) for name in mine]
    before_TK = motion.weights_TK[:, columns].astype(float)
    target_TM = sealed(measured(motion), motion.fps)
    scaled_KM = described_KM / NOTICEABLE_MM
    solution_KK = scaled_KM @ scaled_KM.T + _RIDGE * np.eye(len(mine))
    correction_MK = np.linalg.solve(solution_KK, scaled_KM / NOTICEABLE_MM).T
    highest_K = np.maximum(before_TK.max(axis=0, initial=0.0), 1.0)
    weights_TK = (before_TK + (target_TM - before_TK @ described_KM) @ correction_MK).clip(0, highest_K)
    _set_opening(weights_TK, described_KM[:, _OPENING], target_TM[:, _OPENING].clip(0), highest_K)
    all_TK = motion.weights_TK.copy()
    all_TK[:, columns] = weights_TK
    all_TK[:, [motion.channels.index(name) for name in missing]] = 0.0
    return replace(motion, weights_TK=all_TK)


def _set_opening(weights_TK: np.ndarray, opening_K: np.ndarray, target_T: np.ndarray, highest_K: np.ndarray) -> None:
    """Open the lips as far as they should be, in place: first the widest openers give way, then the closers."""
    for sign in (1, -1):  # too far open, then crossing
        for k in np.argsort(-np.abs(opening_K)):
            excess_T = sign * (weights_TK @ opening_K - target_T)
            if sign * opening_K[k] > 0:  # less of what causes the excess
                weights_TK[:, k] -= np.minimum(weights_TK[:, k], excess_T.clip(0) / abs(opening_K[k]))
    # More of the widest opener where nothing else opens the lips far enough.
    k = int(np.argmax(opening_K))
    if opening_K[k] > 0:
        lacking_T = (target_T - weights_TK @ opening_K).clip(0)
        weights_TK[:, k] = np.minimum(weights_TK[:, k] + lacking_T / opening_K[k], highest_K[k])


def not_shown(motion: Motion, played: Motion) -> list[str]:
    """What of a motion a face with fewer channels cannot show, in words: nothing of it, or less than half."""
    wanted_TM, shown_TM = measured(motion), measured(played)
    lost = []
    for name, words in _CALLED.items():
        m = MEASURE_NAMES.index(name)
        spread = float(wanted_TM[:, m].std())
        if spread > NOTICEABLE_MM[m] / 2 and float(shown_TM[:, m].std()) < _SHOWN * spread:
            lost.append(words)
    return lost
