# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones with their times (seconds), and their labels on frames."""

from __future__ import annotations

import numpy as np

from wav2sem_blender.pipeline.mouth import Timing
from wav2sem_blender.pipeline.phones import BILABIALS, PHONES

__all__ = ["BILABIALS", "LABIODENTALS", "PHONES", "Timing", "frame_labels"]

LABIODENTALS = ("F", "V")


def frame_labels(phones: list[Timing], times_T: np.ndarray) -> np.ndarray:
    """Index into PHONES (T,) of the phone at each time; SIL where there is none."""
    index = {phone: i for i, phone in enumerate(PHONES)}
    starts = np.array([start for _, start, _ in phones])
    ends = np.array([end for _, _, end in phones])
    labels = np.array([index[phone] for phone, _, _ in phones])
    at = np.searchsorted(starts, times_T, side="right") - 1
    inside = (at >= 0) & (times_T < ends[np.maximum(at, 0)])
    return np.where(inside, labels[np.maximum(at, 0)], 0).astype(np.int64)
