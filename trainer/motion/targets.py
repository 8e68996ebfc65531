# SPDX-License-Identifier: GPL-3.0-or-later
"""Corrections of training targets by phone: lips meet on p, b and m, the lower lip goes to the upper teeth on f and v,
and the mouth rests in silence.

Captured motion needs them: the tracker leaves closed lips about 1 mm apart and misses lips that roll in, and speakers
open the mouth for breath without any sound. A model trained on it has lips that never seal, no f, and a mouth that
gapes before the first word. Errors are still measured against the uncorrected motion.

Shapes: T animation frames, K channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wav2sem_blender.errors import UserError

from ..speech.phones import BILABIALS, LABIODENTALS, Timing
from .curves import FPS

ONSET_S, RELEASE_S = 0.07, 0.06  # lips start to close before the sound stops, and part when it bursts
SEALING_S = 0.035  # shorter, for captured motion, whose lips already close and part
MIN_PAUSE_S = 0.25
SETTLE_S, PREPARE_S = 0.15, 0.12  # a mouth settles more slowly than it prepares to speak
BREATH_S = 0.25  # filmed mouths open earlier
NEARLY_MET_M = 0.0035  # inner-lip gap; a wider one on p, b, m is an error of the alignment, not of the tracker
PRESSED_M = 0.0003
# f and v, chosen by eye on the basis and the demo head: the lower lip is at the upper teeth, whose edge shows.
TUCKED = {"mouthRollLower": 0.8, "mouthUpperUpLeft": 0.25, "mouthUpperUpRight": 0.25}
TUCKED_GAP_M = 0.0012  # the gap then; filmed lips are 2 to 4 mm apart on f and v, and up to 1.6 on p, b, m
AGAINST_THE_TUCK = ("mouthRollUpper", "mouthShrugLower", "mouthLowerDownLeft", "mouthLowerDownRight")
# Filmed lips are still half open when an f begins, and nearest in its second half.
TUCK_AFTER_S, TUCKING_S, UNTUCKING_S = 0.025, 0.07, 0.07
WHOLE_TUCK_S, LEAST_TUCK = 0.07, 0.6  # in a shorter f or v the lip moves less
NEARLY_TUCKED_M = 0.006  # with a far wider gap, the sound was swallowed or misaligned

# Phones with nearly closed or rounded lips; in all others the lips are at least `PARTED_M` apart.
NEARLY_CLOSED = frozenset((*BILABIALS, *LABIODENTALS, *"W UW UH OW OY AO R SIL".split()))
PARTED_M = 0.003
PARTING_S = 0.03


def closures(n_frames: int, phones: list[Timing], onset_s: float, release_s: float) -> np.ndarray:
    """(T,) 0..1: 1 during every p, b, m, with smooth flanks outside."""
    spans = [(start, end, 1.0) for phone, start, end in phones if phone in BILABIALS]
    return _held(n_frames, spans, onset_s, release_s)


def tucks(n_frames: int, phones: list[Timing]) -> np.ndarray:
    """(T,) 0..1: how far the lower lip goes to the teeth on f and v; 0 on p, b, m."""
    spans = [
        (min(start + TUCK_AFTER_S, end), end, float(np.clip((end - start) / WHOLE_TUCK_S, LEAST_TUCK, 1)))
        for phone, start, end in phones
        if phone in LABIODENTALS
    ]
    return _held(n_frames, spans, TUCKING_S, UNTUCKING_S) * (1 - closures(n_frames, phones, SEALING_S, SEALING_S))


def _held(n_frames: int, spans: list[tuple[float, float, float]], onset_s: float, release_s: float) -> np.ndarray:
    """(T,): the amount of every span from its start to its end, with smooth flanks outside."""
    times_s = np.arange(n_frames) / FPS
    held_T = np.zeros(n_frames)
    for start, end, amount in spans:
        rise = np.clip((times_s - start + onset_s) / onset_s, 0, 1)
        fall = np.clip((end + release_s - times_s) / release_s, 0, 1)
        share_T = np.minimum(rise, fall)
        held_T = np.maximum(held_T, amount * share_T * share_T * (3 - 2 * share_T))
    return held_T


def close_lips(average_TK: np.ndarray, phones: list[Timing], closed_K: np.ndarray) -> np.ndarray:
    """Blend to closed lips during every p, b, m."""
    closed_T1 = closures(len(average_TK), phones, ONSET_S, RELEASE_S)[:, None]
    return average_TK * (1 - closed_T1) + closed_K * closed_T1


def seal_lips(target_TK: np.ndarray, phones: list[Timing], gap_K: np.ndarray, mouth_close: int) -> np.ndarray:
    """Close, by channel `mouth_close`, the gap that the tracker leaves on p, b, m.

    Args:
        gap_K: change of the inner lips' gap per channel, in metres; negative for `mouth_close`.
    """
    gap_T = target_TK @ gap_K
    met_T = np.clip(2 - gap_T / NEARLY_MET_M, 0, 1)
    closed_T = closures(len(target_TK), phones, SEALING_S, SEALING_S)
    missing_T = closed_T * met_T * np.maximum(gap_T + PRESSED_M, 0)
    sealed_TK = np.array(target_TK)
    sealed_TK[:, mouth_close] += missing_T / -gap_K[mouth_close]
    return sealed_TK


def tuck_lower_lip(
    target_TK: np.ndarray, phones: list[Timing], gap_K: np.ndarray, channels: tuple[str, ...]
) -> np.ndarray:
    """Move the lower lip in and up to the edge of the upper teeth on f and v, without changing the mouth's width.

    The lips do not meet: `mouthClose` sets the final gap, or the jaw if the gap is too small.

    Args:
        gap_K: change of the inner lips' gap per channel, in metres; negative for `mouthClose`.
    """
    gap_T = target_TK @ gap_K
    tuck_T = tucks(len(target_TK), phones) * np.clip(2 - gap_T / NEARLY_TUCKED_M, 0, 1)
    tucked_TK = np.array(target_TK)
    for name, weight in TUCKED.items():
        k = channels.index(name)
        tucked_TK[:, k] += tuck_T * np.maximum(weight - target_TK[:, k], 0)
    tucked_TK[:, [channels.index(name) for name in AGAINST_THE_TUCK]] *= 1 - tuck_T[:, None]
    jaw, close = channels.index("jawOpen"), channels.index("mouthClose")
    wanted_T = gap_T + tuck_T * (TUCKED_GAP_M - gap_T)
    closing_T = tucked_TK[:, close] + (tucked_TK @ gap_K - wanted_T) / -gap_K[close]
    tucked_TK[:, close] = np.maximum(closing_T, 0)
    tucked_TK[:, jaw] += np.minimum(closing_T, 0) * gap_K[close] / gap_K[jaw]
    return tucked_TK


def part_lips(moving_TK: np.ndarray, phones: list[Timing], gap_K: np.ndarray, jaw_open: int) -> np.ndarray:
    """Keep the lips apart, by channel `jaw_open`, in all phones that need neither closed nor rounded lips.

    A tongue between the teeth, as in "the", needs room, which an average of one speaker's few words may not show.

    Args:
        gap_K: change of the inner lips' gap per channel, in metres; positive for `jaw_open`.
    """
    n_frames = len(moving_TK)
    spans = [(start, end, 1.0) for phone, start, end in phones if phone not in NEARLY_CLOSED]
    closed_T = closures(n_frames, phones, ONSET_S, RELEASE_S)
    apart_T = _held(n_frames, spans, PARTING_S, PARTING_S) * (1 - closed_T) * (1 - tucks(n_frames, phones))
    parted_TK = np.array(moving_TK)
    parted_TK[:, jaw_open] += apart_T * np.maximum(PARTED_M - moving_TK @ gap_K, 0) / gap_K[jaw_open]
    return parted_TK


def rest_pose(captured: Iterable[tuple[np.ndarray, list[Timing]]]) -> np.ndarray:
    """Median channels (K,) of the first frames of clips that begin in silence."""
    begun = [target_TK[:4] for target_TK, phones in captured if min(s for p, s, _ in phones if p != "SIL") > 10 / FPS]
    if not begun:
        raise UserError("no captured clip begins in silence, so the speaker's mouth at rest is unknown")
    return np.median(np.concatenate(begun), axis=0)


def rest_in_pauses(
    moving_TK: np.ndarray, phones: list[Timing], duration_s: float, rest_K: np.ndarray, prepare_s: float = PREPARE_S
) -> np.ndarray:
    """Blend to the rest pose in pauses, before the first sound (up to `prepare_s` before it) and after the last."""
    times_s = np.arange(len(moving_TK)) / FPS
    sounds = [(start, end) for phone, start, end in phones if phone != "SIL"]
    edges = [0.0, *(edge for sound in sounds for edge in sound), duration_s]
    resting_T = np.zeros(len(moving_TK))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start > MIN_PAUSE_S:
            rise = np.clip((times_s - start) / SETTLE_S, 0, 1) if start else 1.0
            fall = np.clip((end - times_s) / prepare_s, 0, 1) if end < duration_s else 1.0
            inside = (times_s >= start) & (times_s <= end)
            resting_T = np.maximum(resting_T, np.minimum(rise, fall) * inside)
    return moving_TK * (1 - resting_T[:, None]) + rest_K * resting_T[:, None]
