# SPDX-License-Identifier: GPL-3.0-or-later
"""How far ARKit's channels open the lips, and how they are made to meet.

Shapes: T animation frames, K channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .phones import BILABIALS
from .words.directions import AMOUNTS
from .words.track import Direction

ONSET_S, RELEASE_S = 0.07, 0.06  # lips start to close before the sound stops, and part when it bursts
PRESSED_M = 0.0003
KEPT_WHEN_CLOSING = ("jawOpen", "mouthPucker")

Timing = tuple[str, float, float]
"""A phone, its start and its end in seconds."""


@dataclass(frozen=True, kw_only=True)
class Mouth:
    """The channels (K), and how much each of them opens the lips (K,), in metres."""

    channels: tuple[str, ...]
    gap_K: np.ndarray

    def __post_init__(self) -> None:
        assert self.gap_K[self["jawOpen"]] > 0 > self.gap_K[self["mouthClose"]]

    def __getitem__(self, name: str) -> int:
        return self.channels.index(name)

    def gap(self, weights_TK: np.ndarray) -> np.ndarray:
        """The opening (T,) in metres."""
        return weights_TK @ self.gap_K

    def widest(self, weights_TK: np.ndarray) -> float:
        """How far the lips open in the loudest sounds, in metres: the 95th percentile, as closures are judged by."""
        return float(np.percentile(np.maximum(self.gap(weights_TK), 0), 95))

    def with_gap(self, weights_TK: np.ndarray, wanted_T: np.ndarray) -> np.ndarray:
        """Open or close the lips to a gap in metres.

        Opening lets go of `mouthClose` and then drops the jaw. Closing takes `mouthClose` as far as the jaw is open,
        then less of what draws the lips apart, then a press.
        """
        set_TK = np.array(weights_TK, dtype=float)
        jaw, close = self["jawOpen"], self["mouthClose"]
        missing_T = np.maximum(wanted_T - self.gap(set_TK), 0)
        let_go_T = np.minimum(set_TK[:, close], missing_T / -self.gap_K[close])
        set_TK[:, close] -= let_go_T
        missing_T += let_go_T * self.gap_K[close]
        set_TK[:, jaw] = np.minimum(set_TK[:, jaw] + missing_T / self.gap_K[jaw], 1)
        surplus_T = np.maximum(self.gap(set_TK) - wanted_T, 0)
        room_T = np.maximum(set_TK[:, jaw] - set_TK[:, close], 0)
        set_TK[:, close] += np.minimum(surplus_T / -self.gap_K[close], room_T)
        surplus_T = np.maximum(self.gap(set_TK) - wanted_T, 0)
        openers = [k for k, name in enumerate(self.channels) if self.gap_K[k] > 0 and name not in KEPT_WHEN_CLOSING]
        opened_T = set_TK[:, openers] @ self.gap_K[openers]
        set_TK[:, openers] *= 1 - np.minimum(surplus_T / np.maximum(opened_T, 1e-9), 1)[:, None]
        surplus_T = np.maximum(self.gap(set_TK) - wanted_T, 0)
        presses = [self[name] for name in ("mouthPressLeft", "mouthPressRight")]
        set_TK[:, presses] += (surplus_T / -self.gap_K[presses].sum())[:, None]
        return set_TK.clip(0, 1)


def closures(n_frames: int, phones: Iterable[Timing], onset_s: float, release_s: float, fps: float) -> np.ndarray:
    """(T,) 0..1: 1 during every p, b, m, with smooth flanks outside."""
    spans = [(start, end, 1.0) for phone, start, end in phones if phone in BILABIALS]
    return held(n_frames, spans, onset_s, release_s, fps)


def held(
    n_frames: int, spans: Iterable[tuple[float, float, float]], onset_s: float, release_s: float, fps: float
) -> np.ndarray:
    """(T,): the amount of every span (start, end, amount) from its start to its end, with smooth flanks outside."""
    times_s = np.arange(n_frames) / fps
    held_T = np.zeros(n_frames)
    for start, end, amount in spans:
        rise = np.clip((times_s - start + onset_s) / onset_s, 0, 1)
        fall = np.clip((end + release_s - times_s) / release_s, 0, 1)
        share_T = np.minimum(rise, fall)
        held_T = np.maximum(held_T, amount * share_T * share_T * (3 - 2 * share_T))
    return held_T


def directed(
    directions: Iterable[Direction], name: str, n_frames: int, fps: float, fade_s: float, begins_s: float = 0.0
) -> np.ndarray:
    """(T,): how far the directions of a name lead away from its neutral value, with smooth flanks outside.

    Where several overlap, the largest above neutral counts and the largest below it.

    Args:
        directions: All of them.
        name: Which ones.
        n_frames, fps: Of the result.
        fade_s: Length of a flank.
        begins_s: Time of the first frame.
    """
    neutral = AMOUNTS[name].neutral if name in AMOUNTS else 0.0
    above_T, below_T = np.zeros(n_frames), np.zeros(n_frames)
    for direction in directions:
        first = max(0, int((direction.start_s - fade_s - begins_s) * fps))
        last = min(n_frames, int((direction.end_s + fade_s - begins_s) * fps) + 2)
        if direction.name != name or first >= last:
            continue
        at_s = begins_s + first / fps
        share_T = held(last - first, [(direction.start_s - at_s, direction.end_s - at_s, 1.0)], fade_s, fade_s, fps)
        amount_T = (direction.values(at_s + np.arange(last - first) / fps) - neutral) * share_T
        above_T[first:last] = np.maximum(above_T[first:last], amount_T)
        below_T[first:last] = np.minimum(below_T[first:last], amount_T)
    return above_T + below_T


def close_lips(moving_TK: np.ndarray, phones: Iterable[Timing], mouth: Mouth, fps: float) -> np.ndarray:
    """Bring the lips together during every p, b, m; the mouth's width stays."""
    gap_T = mouth.gap(moving_TK)
    closing_T = closures(len(moving_TK), phones, ONSET_S, RELEASE_S, fps) * np.maximum(gap_T + PRESSED_M, 0)
    return np.where(closing_T[:, None] > 0, mouth.with_gap(moving_TK, gap_T - closing_T), moving_TK)
