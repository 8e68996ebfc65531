# SPDX-License-Identifier: GPL-3.0-or-later
"""Two measures that follow people's judgement of lip motion: is it in time, and is it as strong as the speech?

Source: Chae-Yeon et al., "Perceptually Accurate 3D Talking Head Generation", CVPR 2025 (arXiv 2503.20308), supplement
E.1; where the paper leaves a setting open, as in its released code.

**MTM**, mean temporal misalignment (ms, lower is better). The curve is the distance of the two vertices in the middle
of the lips, smoothed by a Gaussian of 2 frames. Derivative dynamic time warping aligns the predicted curve with the
recorded one. Where it joins two peaks or two valleys, and the predicted one lies no further away than the recorded
one's neighbours, their difference in time counts. Mean of a sequence, then over the sequences that have such pairs.

**SLCC**, speech-lip intensity correlation (-1 to 1). Pearson's r over sequences of the speech's loudness (RMS) and of
the lips' speed (mean over their vertices, RMS over frames). Both are first standardised within each speaker and style,
so the gain of a microphone and the size of a mouth do not matter. Best is the recorded face's own value, not 1.

Shapes: S samples, T animation frames, V vertices, R vertices of the lips, N sequences, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from ..motion.shapes import flame_middle_lips

SMOOTHING_FRAMES = 2.0
FEWEST_SEQUENCES = 3  # of a speaker and style: two points always correlate by 1 or -1
NEAR = 0.02  # of the lips' size: vertices nearer than this count as so far apart, or a split vertex would stretch most


@dataclass(frozen=True, kw_only=True)
class LipSequence:
    """What one sequence adds to `LipTotals`; `misaligned_s` is None if no peak or valley was matched."""

    group: str
    loudness: float
    intensity: float
    misaligned_s: float | None


@dataclass(kw_only=True)
class LipTotals:
    """The sequences of a test set."""

    sequences: list[LipSequence] = field(default_factory=list)

    def means(self) -> dict[str, float | None]:
        """`mtm_ms` and `slcc`, None where there was nothing to measure; in how many sequences some peak or valley was
        matched, and of how many."""
        delays_s = [s.misaligned_s for s in self.sequences if s.misaligned_s is not None]
        return {
            "mtm_ms": 1000 * float(np.mean(delays_s)) if delays_s else None,
            "slcc": self.correlation(),
            "matched_sequences": len(delays_s),
            "sequences": len(self.sequences),
        }

    def correlation(self) -> float | None:
        """SLCC, or None if no speaker and style has three sequences that differ in loudness and in speed."""
        groups: dict[str, list[LipSequence]] = {}
        for sequence in self.sequences:
            groups.setdefault(sequence.group, []).append(sequence)
        standardised = [
            values_N2
            for some in groups.values()
            for values_N2 in [_standardised(np.array([(s.loudness, s.intensity) for s in some]))]
            if values_N2 is not None
        ]
        return float(np.corrcoef(np.concatenate(standardised).T)[0, 1]) if standardised else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Lips:
    """Where a mesh has its lips: the vertices of the region, and the two in the middle, if known; its frame rate."""

    region_R: np.ndarray
    middle: tuple[int, int] | None
    fps: float

    def sequence(self, group: str, loudness: float, predicted_TV3: np.ndarray, recorded_TV3: np.ndarray) -> LipSequence:
        """Measure one predicted sequence over the common length."""
        n_frames = min(len(predicted_TV3), len(recorded_TV3))
        frames = misalignment(*(self.opening(motion_TV3[:n_frames]) for motion_TV3 in (predicted_TV3, recorded_TV3)))
        return LipSequence(
            group=group,
            loudness=loudness,
            intensity=self.intensity(predicted_TV3[:n_frames]),
            misaligned_s=None if frames is None else frames / self.fps,
        )

    def opening(self, vertices_TV3: np.ndarray) -> np.ndarray:
        """Distance (T,) of the two middle vertices; 0 if they are unknown."""
        if self.middle is None:
            return np.zeros(len(vertices_TV3))
        upper, lower = self.middle
        return np.linalg.norm(vertices_TV3[:, upper] - vertices_TV3[:, lower], axis=-1)

    def intensity(self, vertices_TV3: np.ndarray) -> float:
        """How fast the lips move: RMS over frames of the vertices' mean step; 0 for a single frame."""
        if len(vertices_TV3) < 2:
            return 0.0
        steps_TR = np.linalg.norm(np.diff(vertices_TV3[:, self.region_R], axis=0), axis=-1)
        return _rms(steps_TR.mean(1))


def loudness(samples_S: np.ndarray) -> float:
    """RMS of a recording."""
    return _rms(samples_S)


def find_lips(topology: str, lips_R: np.ndarray, template_V3: np.ndarray, moved_TV3: np.ndarray, fps: float) -> Lips:
    """The lips of a mesh. FLAME's middle is known; elsewhere it is the two
    vertices that a recording pulls apart most, or unknown if none do.

    Args:
        topology: "flame", "biwi", or a studio's own.
        lips_R: vertices of the lips.
        template_V3: the subject at rest.
        moved_TV3: a recording of the same subject.
        fps: its frame rate.
    """
    region_R = np.unique(lips_R)
    if topology == "flame":
        return Lips(region_R=region_R, middle=flame_middle_lips(), fps=fps)
    rest_R3, moved_TR3 = template_V3[region_R], moved_TV3[:, region_R]
    opened_R3 = moved_TR3[np.square(moved_TR3 - rest_R3).sum((1, 2)).argmax()]
    near = NEAR * float(np.linalg.norm(np.ptp(rest_R3, axis=0)))
    best, middle = 0.0, None
    for i in range(len(region_R)):
        rest_R = np.linalg.norm(rest_R3 - rest_R3[i], axis=-1)
        stretch_R = (np.linalg.norm(opened_R3 - opened_R3[i], axis=-1) - rest_R) / (rest_R + near)
        j = int(stretch_R.argmax())
        if stretch_R[j] > best:
            best, middle = float(stretch_R[j]), (int(region_R[i]), int(region_R[j]))
    return Lips(region_R=region_R, middle=middle, fps=fps)


def chance(openings: Sequence[np.ndarray], fps: float) -> float | None:
    """MTM (ms) of a face that moves as in another recording: each curve (T,) against the next one's."""
    delays = [
        misalignment(other_T[:n_frames], own_T[:n_frames])
        for own_T, other_T in zip(openings, [*openings[1:], *openings[:1]], strict=True)
        for n_frames in [min(len(own_T), len(other_T))]
    ]
    matched = [delay for delay in delays if delay is not None]
    return 1000 / fps * float(np.mean(matched)) if matched and len(openings) > 1 else None


def misalignment(predicted_T: np.ndarray, recorded_T: np.ndarray) -> float | None:
    """Mean difference in frames between matched peaks and valleys of two curves, or None if none match."""
    predicted_T, recorded_T = (gaussian_filter1d(curve_T, SMOOTHING_FRAMES) for curve_T in (predicted_T, recorded_T))
    steps = (np.diff(curve_T, prepend=curve_T[:1]) for curve_T in (recorded_T, predicted_T))
    recorded_kinds, predicted_kinds = _extrema(recorded_T), _extrema(predicted_T)
    turns = np.array([0, *sorted(recorded_kinds), len(recorded_T) - 1])
    delays = []
    for i, j in alignment(*steps).tolist():
        if i in recorded_kinds and recorded_kinds[i] == predicted_kinds.get(j):
            before, after = turns[np.searchsorted(turns, i) - 1], turns[np.searchsorted(turns, i, "right")]
            if before <= j <= after:
                delays.append(abs(i - j))
    return float(np.mean(delays)) if delays else None


def alignment(first_T: np.ndarray, second_T: np.ndarray) -> np.ndarray:
    """Dynamic time warping: the cheapest path (P, 2) of pairs from both starts to both ends; a pair costs |a - b|.

    One anti-diagonal of the table is computed at a time. Of equal ways back the diagonal is taken.
    """
    n, m = len(first_T), len(second_T)
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(n + m - 1):
        i = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        j = diagonal - i
        before = np.minimum(np.minimum(total[i, j], total[i, j + 1]), total[i + 1, j])
        total[i + 1, j + 1] = np.abs(first_T[i] - second_T[j]) + before
    path, at, other = [], n, m
    while at and other:
        path.append((at - 1, other - 1))
        step = int(np.argmin((total[at - 1, other - 1], total[at - 1, other], total[at, other - 1])))
        at, other = at - (step < 2), other - (step != 1)
    return np.array(path[::-1], np.int64).reshape(-1, 2)


def _extrema(curve_T: np.ndarray) -> dict[int, int]:
    """Frame -> 1 for a peak, -1 for a valley."""
    return {int(frame): sign for sign in (1, -1) for frame in find_peaks(sign * curve_T)[0]}


def _standardised(values_N2: np.ndarray) -> np.ndarray | None:
    """Mean 0 and standard deviation 1 in each column, or None where a column is constant or there are too few rows."""
    if len(values_N2) < FEWEST_SEQUENCES:
        return None
    spread_2 = values_N2.std(0, ddof=1)
    still = spread_2 <= 1e-9 * np.abs(values_N2).max(0)
    return None if still.any() else (values_N2 - values_N2.mean(0)) / spread_2


def _rms(values: Sequence[float] | np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
