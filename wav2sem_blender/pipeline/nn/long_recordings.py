# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings longer than a host is defined for: windows of its motion, cross-faded where they meet.

Shapes: B batch, T animation frames, t frames of a window, X outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .host_network import Progress


def window_starts(n_frames: int, longest: int, overlap: int) -> list[int]:
    """First frames of windows of at most `longest` frames, equally spaced, that overlap by `overlap` or more."""
    if n_frames <= longest:
        return [0]
    count = -(-(n_frames - overlap) // (longest - overlap))
    return [i * (n_frames - longest) // (count - 1) for i in range(count)]


def cross_faded(
    n_frames: int,
    make: Callable[[int, int, Progress], Tensor],
    progress: Progress | None,
    *,
    longest: int,
    overlap: int,
) -> Tensor:
    """Motion (B, T, X) of `make(start, stop, progress)`, which gives that of the frames [start, stop)."""
    starts, motion_BTX = window_starts(n_frames, longest, overlap), torch.empty(0)
    for index, start in enumerate(starts):

        def report(fraction: float, done: int = index) -> None:
            if progress:
                progress((done + fraction) / len(starts))

        stop = min(start + longest, n_frames)
        window_BtX = make(start, stop, report)
        if len(starts) == 1:
            return window_BtX
        if index == 0:
            motion_BTX = window_BtX.new_zeros(len(window_BtX), n_frames, window_BtX.shape[-1])
        shared = starts[index - 1] + longest - start if index else 0
        ramp_t = torch.linspace(0, 1, shared + 2, device=window_BtX.device, dtype=window_BtX.dtype)[1:-1]
        share_t1 = F.pad(ramp_t, (0, stop - start - shared), value=1.0)[:, None]
        motion_BTX[:, start:stop] = torch.lerp(motion_BTX[:, start:stop], window_BtX, share_t1)
    return motion_BTX
