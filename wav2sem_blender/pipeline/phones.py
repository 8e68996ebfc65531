# SPDX-License-Identifier: GPL-3.0-or-later
"""What was heard: the probability of each phone over time, spans of phones, and a table of them as text.

Shape suffixes: L encoder frames, P phones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..files import atomic_file
from .frame_timing import ENCODER_RATE_HZ, HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES

SILENCE = "SIL"
PHONES = (
    SILENCE,
    *"AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split(),
)
"""Silence and the 39 phones of the CMU Pronouncing Dictionary, without stress."""

BILABIALS = ("P", "B", "M")

# An encoder frame hears 400 samples, of which the first begins at 0; its time is their middle.
FIRST_TIME_S = RECEPTIVE_FIELD_SAMPLES / 2 / HOP_SAMPLES / ENCODER_RATE_HZ
# What a change of phone costs, in nats: a phone of one frame (20 ms) needs e^4 times the probability of its neighbours.
_CHANGE_COST = 2.0
_FLOOR = 1e-4
_TABLE_HEADER = b"start_s\tend_s\tphone\tconfidence\n"


class PhoneSpan(NamedTuple):
    """A phone from `start_s` to `end_s`; `confidence` is the mean of its probability there."""

    name: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Phones:
    """How probable each phone is in every encoder frame; frame l is centred at `first_s + l / rate_hz` seconds.

    Attributes:
        names: P distinct names; those of `PHONES`, if the model does not say otherwise.
        posteriors_LP: Probabilities, float16 in 0..1.
        rate_hz: Encoder frames per second.
        first_s: Time of frame 0, from the beginning of the motion.

    Raises:
        UserError: The parts do not fit together; the message names the part.
    """

    names: tuple[str, ...] = PHONES
    posteriors_LP: np.ndarray
    rate_hz: float = float(ENCODER_RATE_HZ)
    first_s: float = FIRST_TIME_S

    def __post_init__(self) -> None:
        names, posteriors_LP = tuple(self.names), np.asarray(self.posteriors_LP)
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
            raise UserError("The names of the phones must be different, non-empty texts.")
        if posteriors_LP.ndim != 2 or posteriors_LP.dtype.kind not in "fiu" or posteriors_LP.shape[1] != len(names):
            raise UserError(
                "posteriors_LP has the shape {shape} and type {dtype}; numbers of the shape {expected} are needed.",
                shape=posteriors_LP.shape,
                dtype=posteriors_LP.dtype,
                expected=f"(frames, {len(names)})",
            )
        if not ((posteriors_LP >= 0) & (posteriors_LP <= 1)).all():
            raise UserError("posteriors_LP has values outside 0 to 1, or NaN.")
        rate_hz, first_s = float(self.rate_hz), float(self.first_s)
        if not (np.isfinite(rate_hz) and rate_hz > 0 and np.isfinite(first_s)):
            raise UserError(
                "The phones have {rate_hz} frames per second from {first_s} s; a finite rate above 0 and a finite time "
                "are needed.",
                rate_hz=self.rate_hz,
                first_s=self.first_s,
            )
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "posteriors_LP", np.ascontiguousarray(posteriors_LP, dtype=np.float16))
        object.__setattr__(self, "rate_hz", rate_hz)
        object.__setattr__(self, "first_s", first_s)

    def at_speed(self, speed: float) -> Phones:
        """The same phones played `speed` times as fast."""
        return replace(self, rate_hz=self.rate_hz * speed, first_s=self.first_s / speed)

    def later(self, seconds: float) -> Phones:
        """The same phones, moved by `seconds`."""
        return replace(self, first_s=self.first_s + seconds)

    def spans(self) -> tuple[PhoneSpan, ...]:
        """The phones one after another, without gaps: the likeliest sequence in which each change has a cost."""
        return self._spans

    @cached_property
    def _spans(self) -> tuple[PhoneSpan, ...]:
        path_L = _likeliest_path(self.posteriors_LP)
        if len(path_L) == 0:
            return ()
        starts = np.flatnonzero(np.diff(path_L, prepend=-1))
        stops = np.append(starts[1:], len(path_L))
        return tuple(
            PhoneSpan(
                name=self.names[path_L[start]],
                start_s=self.first_s + (start - 0.5) / self.rate_hz,
                end_s=self.first_s + (stop - 0.5) / self.rate_hz,
                confidence=float(self.posteriors_LP[start:stop, path_L[start]].mean(dtype=np.float64)),
            )
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
        )

    def save_table(self, path: str | os.PathLike[str]) -> None:
        """Write the spans as tab-separated text: start and end in seconds, phone, confidence.

        Raises:
            UserError: The file cannot be written.
        """
        rows = [f"{max(0.0, s.start_s):.3f}\t{s.end_s:.3f}\t{s.name}\t{s.confidence:.2f}\n" for s in self.spans()]
        with atomic_file(Path(path)) as file:
            file.write(_TABLE_HEADER + "".join(rows).encode())


def is_phone_table(path: Path) -> bool:
    """Whether `save_table` wrote this file, so that it may be replaced; True for an empty file."""
    with path.open("rb") as file:
        return file.readline(len(_TABLE_HEADER)) in (b"", _TABLE_HEADER)


def _likeliest_path(posteriors_LP: np.ndarray) -> np.ndarray:
    """Viterbi's path (L,) through frames whose states are all joined by one cost."""
    n_frames, n_phones = posteriors_LP.shape
    log_LP = np.log(np.maximum(posteriors_LP.astype(np.float32), _FLOOR))
    # Before each frame and after the last one; the best score is always 0.
    best_LP = np.zeros((n_frames + 1, n_phones))
    for log_P, before_P, after_P in zip(log_LP, best_LP[:-1], best_LP[1:], strict=True):
        np.maximum(before_P, -_CHANGE_COST, out=after_P)
        after_P += log_P
        after_P -= np.maximum.reduce(after_P)
    likeliest_L = best_LP.argmax(1)
    path_L = np.zeros(n_frames, np.int64)
    phone = likeliest_L[-1]
    for i in range(n_frames - 1, -1, -1):
        path_L[i] = phone
        if best_LP[i, phone] < -_CHANGE_COST:
            phone = likeliest_L[i]
    return path_L
