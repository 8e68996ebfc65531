# SPDX-License-Identifier: GPL-3.0-or-later
"""Convolutions over frames in NumPy: one product of neighbouring frames, side by side.

Shapes: R frames, D inputs, M outputs, W taps.
"""

from __future__ import annotations

import numpy as np


class Convolution:
    """Equal to torch's `Conv1d` without padding."""

    def __init__(self, weight_MDW: np.ndarray, bias_M: np.ndarray) -> None:
        self.width, self.taps = weight_MDW.shape[1:]
        self._bias_M = bias_M
        self._weight = np.ascontiguousarray(weight_MDW.transpose(2, 1, 0).reshape(-1, len(bias_M)))

    def __call__(self, frames_RD: np.ndarray) -> np.ndarray:
        """Those frames (R - W + 1, M) that have all neighbours."""
        if len(frames_RD) < self.taps:
            return np.zeros((0, len(self._bias_M)), np.float32)
        row, flat = self.taps * self.width, np.ascontiguousarray(frames_RD).ravel()
        neighbours_RW = np.lib.stride_tricks.sliding_window_view(flat, row)[:: self.width]
        # Overlapping rows would keep NumPy from BLAS.
        return np.ascontiguousarray(neighbours_RW) @ self._weight + self._bias_M
