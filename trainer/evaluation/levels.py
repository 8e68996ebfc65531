# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a passage move as it does alone? The level of a recording, of a passage in it, and what surrounds it.

Each held-out clip is animated alone, and again in a place where it is harder to hear. The figures are the standard
deviation of the lip opening against that of the clip alone, and Pearson's r between both, means over the clips.

Shapes: S samples at 16 kHz, T animation frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..speech.prepared import SAMPLE_RATE_HZ

PAUSE_S = 0.5
FLOOR_DB = -50  # of the noise under everything, against the first clip
BANG_S, BANG_AT_S = 0.3, 0.5
Place = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, int]]


class Moved(NamedTuple):
    """How a passage moves against itself alone."""

    share: float
    r: float


def after_another(level_db: float) -> Place:
    """After another speaker, so much quieter, with room noise under both."""

    def place(clip_S: np.ndarray, other_S: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        quiet_S = clip_S * (other_S.std() / max(clip_S.std(), 1e-9)) * 10 ** (level_db / 20)
        whole_S = np.concatenate([other_S, np.zeros(int(PAUSE_S * SAMPLE_RATE_HZ)), quiet_S])
        floor_S = rng.standard_normal(len(whole_S)) * other_S.std() * 10 ** (FLOOR_DB / 20)
        return whole_S + floor_S, len(whole_S) - len(clip_S)

    return place


def at_level(level_db: float) -> Place:
    """The whole recording at another level."""
    return lambda clip_S, other_S, rng: (clip_S * 10 ** (level_db / 20), 0)


def clipped(clip_S: np.ndarray, other_S: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Cut off at a tenth of its peak, as by a recorder set far too high."""
    limit = 0.1 * np.abs(clip_S).max()
    return clip_S.clip(-limit, limit), 0


def with_bang(clip_S: np.ndarray, other_S: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """With a bump of full scale near its beginning."""
    loud_S = clip_S * 0.2 / max(np.abs(clip_S).max(), 1e-9)
    first = int(BANG_AT_S * SAMPLE_RATE_HZ)
    bang = loud_S[first : first + int(BANG_S * SAMPLE_RATE_HZ)]
    bang += 0.9 * np.sign(rng.standard_normal(len(bang)))
    return loud_S, 0


def after_silence(clip_S: np.ndarray, other_S: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """After a minute of digital silence."""
    silence_S = np.zeros(60 * SAMPLE_RATE_HZ)
    return np.concatenate([silence_S, clip_S]), len(silence_S)


PLACES: Mapping[str, Place] = {
    "10 dB below another speaker": after_another(-10),
    "20 dB below another speaker": after_another(-20),
    "at -60 dB": at_level(-60),
    "clipped at a tenth of the peak": clipped,
    "with a bang of 0.3 s": with_bang,
    "after a minute of silence": after_silence,
}


def judge_levels(
    aperture: Callable[[np.ndarray], np.ndarray], clips_S: Sequence[np.ndarray], fps: float, seed: int
) -> dict[str, Moved]:
    """Every place's figures; `aperture` gives the lip opening (T,) of samples. Two clips at least."""
    alone = [aperture(clip_S) for clip_S in clips_S]
    moved: dict[str, Moved] = {}
    for name, place in PLACES.items():
        rows = []
        for i, clip_S in enumerate(clips_S):
            whole_S, first = place(clip_S.astype(float), clips_S[i - 1], np.random.default_rng([seed, i]))
            there_T = aperture(whole_S.astype(np.float32))[round(first / SAMPLE_RATE_HZ * fps) :]
            skipped = round((BANG_AT_S + BANG_S) * fps) if place is with_bang else 0
            n_frames = min(len(there_T), len(alone[i]))
            there_T, alone_T = there_T[skipped:n_frames], alone[i][skipped:n_frames]
            rows.append((there_T.std() / alone_T.std(), np.corrcoef(there_T, alone_T)[0, 1]))
        moved[name] = Moved(*np.nanmean(rows, axis=0).tolist())
    return moved
