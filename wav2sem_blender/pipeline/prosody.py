# SPDX-License-Identifier: GPL-3.0-or-later
"""The prosody of speech, which drives the upper face: loudness, pitch, pauses and stressed syllables.

`listen` runs in the worker; everything else is NumPy and runs anywhere.
Shapes: P hops of 10 ms, N pauses or syllables, F pitch frames, J samples of a pitch frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..files import atomic_file
from .array_file import read_arrays, write_arrays

if TYPE_CHECKING:
    from .audio import Speech

# Pitch by autocorrelation at 4 kHz: 40 ms frames hold three periods of the lowest voice.
_DECIMATION = 4
_FRAME_SAMPLES = 160
_FFT_SAMPLES = 512
_MIN_LAG, _MAX_LAG = 10, 57  # 400 Hz … 70 Hz
_MIN_PERIODICITY = 0.5
_MIN_VOICED_DB = -25.0  # relative to the recording's RMS
_HOPS_PER_READ = 1000

_SYLLABLE_REACH_HOPS = 8  # a syllable's nucleus is the loudest hop within 80 ms on both sides
_MIN_SYLLABLE_DB = -12.0
_SURROUNDINGS_S = 3.0  # prominence compares a syllable with those within this time


@dataclass(frozen=True, kw_only=True, eq=False)
class Prosody:
    """The prosody of one recording.

    Attributes:
        level_db_P: Loudness relative to the recording's RMS, float32.
        pitch_st_P: Pitch in semitones above the speaker's median, float32; NaN where unvoiced.
        pauses_N2: First hop of every pause, and one past its last.
        duration_s: Length of the recording.
        hop_s: Time between hops.
    """

    level_db_P: np.ndarray
    pitch_st_P: np.ndarray
    pauses_N2: np.ndarray
    duration_s: float
    hop_s: float = 0.01

    def at_speed(self, speed: float) -> Prosody:
        """The same recording played `speed` times as fast."""
        return replace(self, duration_s=self.duration_s / speed, hop_s=self.hop_s / speed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz of 3 MB per hour; an existing file is replaced in one step.

        Raises:
            UserError: The file cannot be written.
        """
        with atomic_file(Path(path)) as file:
            write_arrays(
                file,
                level_db_P=self.level_db_P,
                pitch_st_P=self.pitch_st_P,
                pauses_N2=self.pauses_N2,
                times_s=np.array([self.duration_s, self.hop_s]),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prosody:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            UserError: The file is damaged or no prosody.
            OSError: It cannot be read.
        """
        try:
            file = read_arrays(Path(path))
            duration_s, hop_s = file["times_s"].tolist()
            level_db_P, pitch_st_P, pauses_N2 = (file[name] for name in ("level_db_P", "pitch_st_P", "pauses_N2"))
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                "{file}: damaged, or no prosody file ({reason}).", file=Path(path).name, reason=error
            ) from error
        return cls(
            level_db_P=level_db_P, pitch_st_P=pitch_st_P, pauses_N2=pauses_N2, duration_s=duration_s, hop_s=hop_s
        )

    def speaking(self) -> np.ndarray:
        """1 during speech, 0 in the pauses, float32 (P,)."""
        edges_P = np.zeros(len(self.level_db_P) + 1, np.float32)
        np.add.at(edges_P, self.pauses_N2[:, 0], -1.0)
        np.add.at(edges_P, self.pauses_N2[:, 1], 1.0)
        return 1.0 + np.cumsum(edges_P[:-1])

    def stresses(self) -> tuple[np.ndarray, np.ndarray]:
        """The syllables and their prominence.

        Loudness and pitch count equally (both mark prominence: Kochanski et al., JASA 118, 2005), each in standard
        deviations of the syllables within three seconds.

        Returns:
            Times (N,) in seconds, increasing, and prominence (N,): 0 is average, 1 a clear stress.
        """
        smooth = np.hanning(13)[1:-1]
        reach = len(smooth) // 2
        level_P = np.convolve(np.pad(self.level_db_P, reach, mode="edge"), smooth / smooth.sum(), mode="valid")
        window = 2 * _SYLLABLE_REACH_HOPS + 1
        padded_P = np.pad(level_P, _SYLLABLE_REACH_HOPS, constant_values=-np.inf)
        loudest_P = np.lib.stride_tricks.sliding_window_view(padded_P, window).max(axis=1)
        found_P = (level_P == loudest_P) & (level_P > _MIN_SYLLABLE_DB) & (self.speaking() > 0)
        hops_N = np.flatnonzero(found_P)
        if not len(hops_N):
            return np.zeros(0), np.zeros(0)
        around = np.clip(hops_N[:, None] + np.arange(-6, 7), 0, len(level_P) - 1)
        pitch_N13 = self.pitch_st_P[around]
        pitch_N = np.where(np.isnan(pitch_N13), -np.inf, pitch_N13).max(axis=1)
        times_N = hops_N * self.hop_s
        prominence_N = 0.5 * _deviation(times_N, level_P[hops_N], least=1.5)
        prominence_N += 0.5 * _deviation(times_N, pitch_N, least=1.0)
        return times_N, prominence_N


def listen(speech: Speech, progress: Callable[[str, float], None] | None = None) -> Prosody:
    """Analyse a recording in pieces; only values at every 10 ms are kept, 3 MB per hour.

    Args:
        speech: The recording.
        progress: Called with ("prosody", fraction).
    """
    from .audio import SAMPLE_RATE_HZ, Pauses, level_db

    level_P = level_db(speech)
    pauses = Pauses(level_P)
    hop = SAMPLE_RATE_HZ // 100
    pieces = []
    for start in range(0, len(level_P), _HOPS_PER_READ):
        stop = min(start + _HOPS_PER_READ, len(level_P))
        pieces.append(_pitch_hz(_around(speech, start * hop, stop * hop), SAMPLE_RATE_HZ))
        if progress:
            progress("prosody", stop / len(level_P))
    pitch_P = np.concatenate(pieces)
    pitch_P[level_P < _MIN_VOICED_DB] = np.nan
    voiced_P = np.isfinite(pitch_P)
    if voiced_P.any():
        pitch_P = 12 * np.log2(pitch_P / np.median(pitch_P[voiced_P]))
    return Prosody(
        level_db_P=level_P.astype(np.float32),
        pitch_st_P=pitch_P.astype(np.float32),
        pauses_N2=np.stack([pauses.starts, pauses.stops], axis=1).astype(np.int64),
        duration_s=speech.duration_s,
    )


def _around(speech: Speech, start: int, stop: int) -> np.ndarray:
    """Samples start … stop - 1 with half a pitch frame on both sides, padded with silence."""
    reach = _FRAME_SAMPLES * _DECIMATION // 2
    first, last = max(0, start - reach), min(speech.n_samples, stop + reach)
    return np.pad(speech.read(first, last), (first - (start - reach), stop + reach - last))


def _pitch_hz(samples_S: np.ndarray, rate_hz: int) -> np.ndarray:
    """Pitch at every 10 ms, (F,) in Hz, NaN where the sound is not periodic.

    By autocorrelation divided by that of the window, which removes the window's slope from the peaks (Boersma 1993).
    """
    low_S = samples_S[: len(samples_S) // _DECIMATION * _DECIMATION].reshape(-1, _DECIMATION).mean(axis=1)
    rate_hz //= _DECIMATION
    frames_FJ = np.lib.stride_tricks.sliding_window_view(low_S, _FRAME_SAMPLES)[:: rate_hz // 100][:-1]
    window_J = np.hanning(_FRAME_SAMPLES)
    own_FJ = _autocorrelation((frames_FJ - frames_FJ.mean(axis=1, keepdims=True)) * window_J)
    own_FJ = own_FJ / _autocorrelation(window_J)
    lags = slice(_MIN_LAG - 1, _MAX_LAG + 2)
    periodicity_FL = own_FJ[:, lags] / np.maximum(own_FJ[:, :1], 1e-12)
    inner_FL = periodicity_FL[:, 1:-1]
    is_peak_FL = (inner_FL > periodicity_FL[:, :-2]) & (inner_FL >= periodicity_FL[:, 2:])
    peaks_FL = np.where(is_peak_FL, inner_FL, 0.0)
    # Multiples of a period are periods too: take the shortest that is nearly as good as the best.
    best_F = np.argmax(peaks_FL > np.maximum(0.9 * peaks_FL.max(axis=1, keepdims=True), _MIN_PERIODICITY), axis=1)
    rows = np.arange(len(best_F))
    before, at, after = (periodicity_FL[rows, best_F + k] for k in range(3))
    curvature = before - 2 * at + after
    lag_F = _MIN_LAG + best_F + np.where(curvature < 0, 0.5 * (before - after) / np.minimum(curvature, -1e-12), 0.0)
    return np.where(peaks_FL[rows, best_F] > _MIN_PERIODICITY, rate_hz / lag_F, np.nan)


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(frames, _FFT_SAMPLES, axis=-1)
    return np.fft.irfft(np.square(np.abs(spectrum)), _FFT_SAMPLES, axis=-1)[..., : _MAX_LAG + 2]


def _deviation(times_N: np.ndarray, values_N: np.ndarray, least: float) -> np.ndarray:
    """Each value's distance from the mean of those near it, in standard deviations of at least `least`; 0 for -inf."""
    known_N = np.isfinite(values_N)
    filled_N = np.where(known_N, values_N, 0.0)
    first_N = np.searchsorted(times_N, times_N - _SURROUNDINGS_S)
    last_N = np.searchsorted(times_N, times_N + _SURROUNDINGS_S, side="right")
    sums = np.concatenate(
        [np.zeros((3, 1)), np.cumsum([known_N.astype(float), filled_N, np.square(filled_N)], axis=1)], axis=1
    )
    count_N, sum_N, squares_N = sums[:, last_N] - sums[:, first_N]
    mean_N = sum_N / np.maximum(count_N, 1)
    deviation_N = np.sqrt(np.maximum(squares_N / np.maximum(count_N, 1) - np.square(mean_N), 0.0))
    return np.where(known_N, (filled_N - mean_N) / np.maximum(deviation_N, least), 0.0)
