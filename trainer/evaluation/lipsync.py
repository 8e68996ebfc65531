# SPDX-License-Identifier: GPL-3.0-or-later
"""How well a mouth follows speech, measured on one curve: the lip opening.

The curve may have any scale; 0 is closed; sample i is at i / fps seconds. It is compared with two references, where
available:

**A filmed face** (`correlations`). Pearson's r of the curve with the tracked lip gap at the track's frame rate, over
the frames in which a face was found, at lags of -3 to 3 frames: lag k compares the curve at t with the track at t + k,
so a best lag above 0 means that the mouth is early. Pooled: mean over clips, lag by lag.

**Phone times** (`judge`), at 100 Hz, the curve divided by its clip's 95th percentile. Closed is below 0.2 of that.
A pause is a silence of at least 80 ms: aligners put shorter ones into the closures of stops.

- `recall`: share of P, B, M with a closed curve in the phone or 40 ms around it.
- `precision`: share of closed steps, outside silence, that lie within 60 ms of P, B, M, F, V or a pause.
- `f1`: harmonic mean of the two; 0 where either is 0.
- `chance`: that share over all steps outside silence: the precision of closing anywhere.
- `closed`: share of steps outside silence that are closed.
- `auc`: probability that the lowest value at a P, B, M away from pauses is below that at another consonant of the same
  clip away from labials and pauses; ties count half. 0.5 is a mouth without closures. No threshold matters.
- `silence_residual`: mean of the curve in silences above 200 ms, averaged over the clips with such silences.
- `openness`: mean of the curve in open vowels over its mean in close phones.

All but the silence residual are pooled by counts: a long clip weighs more.

Shapes: T curve frames, G steps of 10 ms, N intervals, L lags.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..motion.landmarks import LipGap
from ..speech.phones import BILABIALS, LABIODENTALS, Timing

GRID_HZ = 100
CLOSED = 0.2
NEAR_BILABIAL_S = 0.040
NEAR_LABIAL_S = 0.060
PAUSE_S = 0.080
SILENCE_S = 0.200
TIMING_ERROR_S = 1e-6  # phone times are decimal fractions
LAGS = range(-3, 4)

SILENCES = frozenset(("SIL", "SP"))
LABIALS = frozenset((*BILABIALS, *LABIODENTALS))
OTHER_CONSONANTS = frozenset("T D K G N L R S Z Y CH JH SH ZH TH DH NG HH".split())
OPEN_VOWELS = frozenset("AA AE AO AW AY".split())
CLOSE_PHONES = frozenset("IY IH UW S Z SH CH JH T D".split())


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The sums that phone-time scores are made of: of one clip, or of several after `+`."""

    clips: int = 0
    bilabials: int = 0
    bilabials_closed: int = 0
    pairs: int = 0
    pairs_told: float = 0.0
    speech_steps: int = 0
    closed_steps: int = 0
    excused_steps: int = 0
    closed_excused_steps: int = 0
    open_steps: int = 0
    open_sum: float = 0.0
    close_steps: int = 0
    close_sum: float = 0.0
    silent_clips: int = 0
    residual_sum: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        """Sum of both."""
        return Counts(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class ClosureScores:
    """Pooled phone-time scores, defined above; None if there was nothing to count."""

    clips: int
    bilabials: int
    recall: float | None
    precision: float | None
    f1: float
    auc: float | None
    chance: float | None
    closed: float | None
    silence_residual: float | None
    openness: float | None


@dataclass(frozen=True, kw_only=True)
class CorrelationScores:
    """Pooled correlation with filmed faces: Pearson's r at lag 0, at every lag (L,), and the best lag in frames."""

    clips: int
    r: float
    r_by_lag: tuple[float, ...]
    best_lag: int


def correlations(aperture_T: np.ndarray, fps: float, tracked: LipGap) -> np.ndarray:
    """Pearson's r (L,) of a curve with filmed lips at every lag of `LAGS`; 0 if either is constant."""
    n_frames = len(tracked.gap_T)
    curve_T = _at_rate(aperture_T, fps, n_frames, tracked.fps)
    frames = np.arange(n_frames)
    r_L = np.zeros(len(LAGS))
    for i, lag in enumerate(LAGS):
        track_frames = frames[max(0, lag) : n_frames + min(0, lag)]
        track_frames = track_frames[tracked.found_T[track_frames]]
        r_L[i] = _pearson(curve_T[track_frames - lag], tracked.gap_T[track_frames])
    return r_L


def judge(aperture_T: np.ndarray, fps: float, phones: Sequence[Timing], duration_s: float) -> Counts:
    """Count one clip: a curve (T,) against phone times of a recording of `duration_s`.

    Phones are ARPABET, with or without stress; SIL and SP are silence.
    """
    grid = _Grid(aperture_T, fps, phones, duration_s)
    pause_G = grid.inside(grid.spans(SILENCES, PAUSE_S - TIMING_ERROR_S), NEAR_LABIAL_S)
    excused_G = grid.inside(grid.spans(LABIALS), NEAR_LABIAL_S) | pause_G
    speech_G = grid.inside(grid.spans(grid.names - SILENCES))
    closed_G = grid.curve_G < CLOSED
    bilabials = grid.spans(BILABIALS)
    told, pairs = _told_apart(
        grid.lowest(grid.clear_of(pause_G, bilabials)),
        grid.lowest(grid.clear_of(excused_G, grid.spans(OTHER_CONSONANTS))),
    )
    silence = grid.curve_G[grid.inside(grid.spans(SILENCES, SILENCE_S + TIMING_ERROR_S))]
    opened = grid.curve_G[grid.inside(grid.spans(OPEN_VOWELS))]
    closing = grid.curve_G[grid.inside(grid.spans(CLOSE_PHONES))]
    return Counts(
        clips=1,
        bilabials=len(bilabials),
        bilabials_closed=int((grid.lowest(bilabials) < CLOSED).sum()),
        pairs=pairs,
        pairs_told=told,
        speech_steps=int(speech_G.sum()),
        closed_steps=int((closed_G & speech_G).sum()),
        excused_steps=int((speech_G & excused_G).sum()),
        closed_excused_steps=int((closed_G & speech_G & excused_G).sum()),
        open_steps=len(opened),
        open_sum=float(opened.sum()),
        close_steps=len(closing),
        close_sum=float(closing.sum()),
        silent_clips=int(len(silence) > 0),
        residual_sum=float(silence.mean()) if len(silence) else 0.0,
    )


def pool_closures(clips: Iterable[Counts]) -> ClosureScores:
    """The scores of all clips together."""
    total = sum(clips, Counts())
    recall = _share(total.bilabials_closed, total.bilabials)
    precision = _share(total.closed_excused_steps, total.closed_steps)
    opened, closing = _share(total.open_sum, total.open_steps), _share(total.close_sum, total.close_steps)
    return ClosureScores(
        clips=total.clips,
        bilabials=total.bilabials,
        recall=recall,
        precision=precision,
        f1=2 * recall * precision / (recall + precision) if recall and precision else 0.0,
        auc=_share(total.pairs_told, total.pairs),
        chance=_share(total.excused_steps, total.speech_steps),
        closed=_share(total.closed_steps, total.speech_steps),
        silence_residual=_share(total.residual_sum, total.silent_clips),
        openness=None if opened is None or closing is None else _share(opened, closing),
    )


def pool_correlations(clips: Sequence[np.ndarray]) -> CorrelationScores:
    """The mean of the clips' r (L,), lag by lag."""
    r_L = np.mean(clips, axis=0)
    return CorrelationScores(
        clips=len(clips),
        r=float(r_L[LAGS.index(0)]),
        r_by_lag=tuple(float(r) for r in r_L),
        best_lag=LAGS[int(r_L.argmax())],
    )


class _Grid:
    """One clip in steps of 10 ms: its curve (G,), divided by the 95th percentile, and its phones."""

    def __init__(self, aperture_T: np.ndarray, fps: float, phones: Sequence[Timing], duration_s: float) -> None:
        n_steps = int(duration_s * GRID_HZ)
        curve_G = _at_rate(aperture_T, fps, n_steps, GRID_HZ)
        self.curve_G = curve_G / max(np.percentile(curve_G, 95), 1e-9)
        self._times_G = np.arange(n_steps) / GRID_HZ
        self._phones = [(name.upper().rstrip("012"), start, end) for name, start, end in phones]
        self.names = {name for name, _, _ in self._phones}

    def spans(self, names: Iterable[str], longer_than_s: float = 0.0) -> np.ndarray:
        """Starts and ends (N, 2) in seconds of the phones of these names."""
        wanted = set(names)
        found = [(b, e) for name, b, e in self._phones if name in wanted and e - b > longer_than_s]
        return np.array(found).reshape(-1, 2)

    def inside(self, spans_N2: np.ndarray, around_s: float = 0.0) -> np.ndarray:
        """Which steps (G,) lie in the spans or `around_s` before or after."""
        entered = np.zeros(len(self._times_G) + 1, int)
        first_N, last_N = self._steps(spans_N2, around_s)
        np.add.at(entered, first_N, 1)
        np.add.at(entered, np.maximum(first_N, last_N), -1)
        return entered.cumsum()[:-1] > 0

    def lowest(self, spans_N2: np.ndarray) -> np.ndarray:
        """The curve's lowest value in and 40 ms around each span, for spans with at least one step."""
        pieces = zip(*self._steps(spans_N2, NEAR_BILABIAL_S), strict=True)
        return np.array([self.curve_G[first:last].min() for first, last in pieces if last > first])

    def clear_of(self, steps_G: np.ndarray, spans_N2: np.ndarray) -> np.ndarray:
        """The spans with none of `steps_G` inside."""
        pieces = zip(*self._steps(spans_N2, 0.0), strict=True)
        return spans_N2[np.array([not steps_G[first:last].any() for first, last in pieces], dtype=bool)]

    def _steps(self, spans_N2: np.ndarray, around_s: float) -> tuple[np.ndarray, np.ndarray]:
        """First step of each span, and the step after its last."""
        starts_N = np.searchsorted(self._times_G, spans_N2[:, 0] - around_s)
        return starts_N, np.searchsorted(self._times_G, spans_N2[:, 1] + around_s)


def _told_apart(bilabials: np.ndarray, others: np.ndarray) -> tuple[float, int]:
    """Number of pairs in which the bilabial is lower (ties count half), and number of pairs."""
    lower, equal = bilabials[:, None] < others, bilabials[:, None] == others
    return float(lower.sum() + 0.5 * equal.sum()), lower.size


def _at_rate(curve_T: np.ndarray, fps: float, n_samples: int, rate_hz: float) -> np.ndarray:
    return np.interp(np.arange(n_samples) / rate_hz, np.arange(len(curve_T)) / fps, curve_T)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if not len(x):  # no face was found in any frame
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 1e-12 else 0.0


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
