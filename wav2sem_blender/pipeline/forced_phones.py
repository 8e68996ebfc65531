# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones that the user wants, in place of those that were heard.

A small network, trained with the face model, turns phones into the memory that hearing them would have given. Where
phones are forced, the decoder reads that memory; elsewhere what was heard.

Shapes: R memory frames, P phones, M memory width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from .convolution import Convolution
from .mouth import Timing
from .phones import PHONES, SILENCE, Phones
from .words.track import Phone

HIDDEN, TAPS = 96, (9, 9, 5)
"""Width of the network between its three convolutions, and their taps."""
REACH = sum(taps // 2 for taps in TAPS)
"""How many frames the network sees on either side."""


def reader_shapes(n_phones: int, memory_width: int) -> dict[str, tuple[int, ...]]:
    """The network's weights by name."""
    widths = (n_phones, HIDDEN, HIDDEN, memory_width)
    shapes: dict[str, tuple[int, ...]] = {}
    for i, taps in enumerate(TAPS):
        shapes |= {f"{2 * i}.weight": (widths[i + 1], widths[i], taps), f"{2 * i}.bias": (widths[i + 1],)}
    return shapes


class PhoneReader:
    """Equal to `nn.forced_phones.PhoneReader`."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        """`tensors` is its state dict."""
        self._layers = [
            Convolution(tensors[f"{layer}.weight"], tensors[f"{layer}.bias"])
            for layer in sorted({int(name.partition(".")[0]) for name in tensors})
        ]

    def memory(self, shares_RP: np.ndarray) -> np.ndarray:
        """The memory (R - 2 REACH, M) of phone shares, which begin and end `REACH` frames further out."""
        hidden = shares_RP.astype(np.float32)
        for layer in self._layers[:-1]:
            hidden = np.maximum(layer(hidden), 0)
        return self._layers[-1](hidden)


def spoken(phones: Phones, wanted: Iterable[Phone]) -> Phones:
    """What is spoken: what was heard, and in its place those of the wanted phones that are forced."""
    forced = [(p.name, p.start_s - phones.first_s, p.end_s - phones.first_s) for p in wanted if p.forced]
    if not forced:
        return phones
    forced_LP, share_L1 = forced_shares(forced, 0, len(phones.posteriors_LP), phones.rate_hz)
    mixed_LP = phones.posteriors_LP * (1 - share_L1)
    for column, name in enumerate(phones.names):
        if name in PHONES:
            mixed_LP[:, column] += forced_LP[:, PHONES.index(name)]
    return replace(phones, posteriors_LP=mixed_LP.clip(0, 1))


def forced_shares(forced: Iterable[Timing], first: int, last: int, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """As `phone_shares`, without silence beside the phones (R, P); and which part of a frame they fill (R, 1)."""
    forced, offset_s = list(forced), first / fps
    share_R1 = covered([(s - offset_s, e - offset_s) for _, s, e in forced], last - first, fps)[:, None]
    forced_RP = phone_shares(forced, first, last, fps)
    forced_RP[:, PHONES.index(SILENCE)] -= (1 - share_R1[:, 0]).clip(0)
    return forced_RP.clip(0), share_R1


def phone_shares(timings: Iterable[Timing], first: int, last: int, fps: float) -> np.ndarray:
    """Shares (last - first, P): the part of every frame that each phone fills; the rest of it is silence.

    Frame i is as long as 1 / fps and has its middle at i / fps seconds; frames before 0 and after the end are allowed.
    """
    shares_RP = np.zeros((last - first, len(PHONES)), np.float32)
    for phone, start_s, end_s in timings:
        begin, end = max(first, int(np.floor(start_s * fps - 0.5))), min(last, int(np.ceil(end_s * fps + 1.5)))
        if begin < end:
            shares_RP[begin - first : end - first, PHONES.index(phone)] += _overlap(start_s, end_s, begin, end, fps)
    shares_RP[:, PHONES.index(SILENCE)] += (1 - shares_RP.sum(1)).clip(0)
    return shares_RP


def covered(spans_s: Iterable[tuple[float, float]], n_frames: int, fps: float) -> np.ndarray:
    """The part (R,) of every frame that the spans cover."""
    covered_R = np.zeros(n_frames, np.float32)
    for start_s, end_s in spans_s:
        begin, end = max(0, int(np.floor(start_s * fps - 0.5))), min(n_frames, int(np.ceil(end_s * fps + 1.5)))
        if begin < end:
            covered_R[begin:end] += _overlap(start_s, end_s, begin, end, fps)
    return covered_R.clip(0, 1)


def _overlap(start_s: float, end_s: float, begin: int, end: int, fps: float) -> np.ndarray:
    frames = np.arange(begin, end)
    return (np.minimum(frames + 0.5, end_s * fps) - np.maximum(frames - 0.5, start_s * fps)).clip(0, 1)
