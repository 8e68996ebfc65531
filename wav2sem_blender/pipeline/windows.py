# SPDX-License-Identifier: GPL-3.0-or-later
"""Long recordings for the encoders: overlapping windows on one time grid, cross-faded where they meet.

A recording that fits one window is encoded whole, as published. In a longer one each window reads its memory frames on
the recording's own grid, and a frame in an overlap mixes both windows. The fusion is linear, so fading its output fades
the features.

Shapes: S samples, R memory frames, M decoder width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .audio import SAMPLE_RATE_HZ
from .frame_timing import HOP_SAMPLES, OVERLAP_S, WINDOW_S, FrameGrid, encoder_frames

MARGIN_S = 1.0
"""Near its cut end a window lacks context; there only the other window counts."""


@dataclass(frozen=True)
class Window:
    """Samples [start, stop) and the memory frames [first, last) that are read from them.

    The whole of an overlap fades if `margin` is 0, and its middle if it is the share of the overlap without weight.
    `first_frame` and `last_frame` bound the encoder frames of the recording that no other window answers for, where
    windows are utterances.
    """

    start: int
    stop: int
    first: int
    last: int
    first_frame: int = 0
    last_frame: int = 0
    margin: float = MARGIN_S / OVERLAP_S

    def local_positions(self, positions_R: np.ndarray) -> np.ndarray:
        """Where the window's memory frames lie among its own encoder frames, float64 (r,)."""
        local_r = positions_R[self.first : self.last] - self.start / HOP_SAMPLES
        return local_r.clip(0, encoder_frames(self.stop - self.start) - 1)

    def own_frames(self, n_frames: int) -> tuple[int, int]:
        """The own frames [first, last) among the window's `n_frames` encoder frames."""
        before = self.start // HOP_SAMPLES
        return self.first_frame - before, min(self.last_frame - before, n_frames)


def plan(
    n_samples: int, positions_R: np.ndarray, window_s: float = WINDOW_S, overlap_s: float = OVERLAP_S
) -> list[Window]:
    """Windows of at most `window_s`, equally spaced, that start on encoder frames; one if the recording fits."""
    size = int(window_s * SAMPLE_RATE_HZ)
    if n_samples <= size:
        return [Window(0, n_samples, 0, len(positions_R))]
    overlap = int(min(overlap_s, window_s / 3) * SAMPLE_RATE_HZ)
    count = -(-(n_samples - overlap) // (size - overlap))
    windows = []
    for i in range(count):
        start = math.ceil(i * (n_samples - size) / (count - 1) / HOP_SAMPLES) * HOP_SAMPLES
        stop = n_samples if i == count - 1 else start + size
        enc_first = start / HOP_SAMPLES
        enc_last = enc_first + encoder_frames(stop - start) - 1
        first = int(np.searchsorted(positions_R, enc_first))
        last = int(np.searchsorted(positions_R, enc_last, side="right"))
        windows.append(Window(start, stop, first, last if i < count - 1 else len(positions_R)))
    return windows


def plan_separate(n_samples: int, grid: FrameGrid, window_s: float) -> list[Window]:
    """Windows of `window_s` at steps of whole seconds, the last one shorter; each has the frames of a recording of its
    length."""
    size = int(window_s * SAMPLE_RATE_HZ)
    step = int(window_s - min(grid.overlap_s, window_s / 3)) * SAMPLE_RATE_HZ
    windows = []
    for start in range(0, max(1, n_samples - size + step), step):
        stop, first = min(n_samples, start + size), round(start / SAMPLE_RATE_HZ * grid.fps)
        windows.append(Window(start, stop, first, first + grid.animation_frames(stop - start), margin=0.0))
    return windows


def run_windows(
    windows: list[Window],
    n_frames: int,
    encode: Callable[[Window], np.ndarray],
    progress: Callable[[float], None],
) -> np.ndarray:
    """Encode every window, (last - first, M) each, and cross-fade the results into (R, M)."""
    if len(windows) == 1:
        return encode(windows[0])
    mixed_RM: np.ndarray | None = None
    total_R = np.zeros(n_frames, np.float32)
    for i, window in enumerate(windows):
        memory_rM = encode(window)
        weight_r = _fade(windows, i)
        if mixed_RM is None:
            mixed_RM = np.zeros((n_frames, memory_rM.shape[1]), np.float32)
        mixed_RM[window.first : window.last] += weight_r[:, None] * memory_rM
        total_R[window.first : window.last] += weight_r
        progress((i + 1) / len(windows))
    assert mixed_RM is not None and (total_R > 0).all()
    mixed_RM /= total_R[:, None]
    return mixed_RM


def _fade(windows: list[Window], i: int) -> np.ndarray:
    """Weights (r,) of a window's frames: 1 inside, a ramp in the middle of each overlap, 0 at the cut ends."""
    window = windows[i]
    frames = np.arange(window.first, window.last, dtype=np.float32)
    weight_r = np.ones(len(frames), np.float32)
    if i > 0:
        weight_r *= _ramp(frames, window.first, windows[i - 1].last, window.margin)
    if i < len(windows) - 1:
        weight_r *= 1 - _ramp(frames, windows[i + 1].first, window.last, window.margin)
    return weight_r


def _ramp(frames: np.ndarray, begin: int, end: int, margin: float) -> np.ndarray:
    """0 up to a margin after `begin`, 1 from the same margin before `end`, linear between."""
    unused = (end - begin) * margin
    length = end - begin - 2 * unused if unused else end - begin - 1  # without a margin, both ends are frames
    return np.clip((frames - begin - unused) / max(1.0, length), 0, 1)
