# SPDX-License-Identifier: GPL-3.0-or-later
"""Equal-length training crops of prepared speech, augmented, every draw seeded.

A crop strings together clips of one speaker until it is full, so that any crop length can be trained on and no batch
needs padding (group norm statistics would see it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wav2sem_blender.pipeline.grid import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES

from .align import Timing, frame_labels
from .speech import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Chances (0..1) and ranges of what happens to a crop."""

    speed: tuple[float, float] = (0.85, 1.18)
    noise_chance: float = 0.5
    noise_snr_db: tuple[float, float] = (4.0, 35.0)
    band_chance: float = 0.2
    room_chance: float = 0.25


def frame_times_s(positions_T: np.ndarray) -> np.ndarray:
    """The moment (s) that an encoder frame position looks at: the middle of its receptive field."""
    return (positions_T * HOP_SAMPLES + RECEPTIVE_FIELD_SAMPLES / 2) / SAMPLE_RATE_HZ


def normalise(samples_S: np.ndarray) -> np.ndarray:
    """Zero mean, unit variance, as the pipeline does for a whole recording."""
    return ((samples_S - samples_S.mean()) / np.sqrt(samples_S.var() + 1e-7)).astype(np.float32)


class CropSampler:
    """Draws crops: a corpus by weight, a speaker of it, clips of that speaker."""

    def __init__(
        self,
        store: SpeechStore,
        records: list[SpeechRecord],
        corpus_weights: Mapping[str, float],
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self._store, self._augmentation = store, augmentation
        self._rng = np.random.default_rng(seed)
        self._speakers: dict[str, dict[str, list[SpeechRecord]]] = {}
        for record in records:
            self._speakers.setdefault(record.corpus, {}).setdefault(record.speaker, []).append(record)
        missing = sorted(set(corpus_weights) - set(self._speakers))
        if missing:
            raise ValueError(
                f"no prepared speech of {', '.join(missing)}; run `python -m trainer prepare speech` again"
            )
        self._corpora = sorted(corpus_weights)
        weights = np.array([corpus_weights[corpus] for corpus in self._corpora])
        self._weights = weights / weights.sum()
        self._noises = [record for record in store.records if record.corpus == "librispeech_251"] or records

    def batch(self, size: int, n_samples: int, positions_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normalised waveforms float32 (B, S) and phone labels int64 (B, T) at the given encoder positions."""
        crops = [self._crop(n_samples) for _ in range(size)]
        times_T = frame_times_s(positions_T)
        waveform_BS = np.stack([normalise(self._augment(samples_S)) for samples_S, _ in crops])
        return waveform_BS, np.stack([frame_labels(phones, times_T) for _, phones in crops])

    def _crop(self, n_samples: int) -> tuple[np.ndarray, list[Timing]]:
        rng = self._rng
        speakers = self._speakers[self._corpora[rng.choice(len(self._corpora), p=self._weights)]]
        records = speakers[sorted(speakers)[rng.integers(len(speakers))]]
        speed = rng.uniform(*self._augmentation.speed)
        wanted = int(np.ceil(n_samples * speed)) + 1
        parts: list[np.ndarray] = []
        phones: list[Timing] = []
        filled = 0
        while filled < wanted:
            record = records[rng.integers(len(records))]
            samples_S = self._store.samples(record)
            skip = int(rng.integers(max(1, len(samples_S) - wanted + 1))) if not parts else 0
            offset_s = (filled - skip) / SAMPLE_RATE_HZ
            phones += [
                (phone, (start + offset_s) / speed, (end + offset_s) / speed)
                for phone, start, end in record.phones or []
                if end + offset_s > filled / SAMPLE_RATE_HZ
            ]
            parts.append(samples_S[skip:] / max(1e-4, float(np.abs(samples_S).max())))
            filled += len(parts[-1])
        source_S = np.concatenate(parts)
        return np.interp(np.arange(n_samples) * speed, np.arange(len(source_S)), source_S), phones

    def _augment(self, samples_S: np.ndarray) -> np.ndarray:
        rng, settings = self._rng, self._augmentation
        if rng.random() < settings.room_chance:
            samples_S = self._room(samples_S)
        if rng.random() < settings.noise_chance:
            noise_S = self._noise(len(samples_S))
            snr_db = rng.uniform(*settings.noise_snr_db)
            level = samples_S.std() / max(1e-9, noise_S.std()) * 10 ** (-snr_db / 20)
            samples_S = samples_S + level * noise_S
        if rng.random() < settings.band_chance:
            samples_S = self._band(samples_S)
        return samples_S

    def _noise(self, n_samples: int) -> np.ndarray:
        """Coloured noise (1/f^0 .. 1/f^1 in power), or another voice."""
        if self._rng.random() < 0.3:
            voice_S = self._store.samples(self._noises[self._rng.integers(len(self._noises))])
            return np.resize(voice_S, n_samples)
        spectrum = np.fft.rfft(self._rng.standard_normal(n_samples))
        return np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** self._rng.uniform(0, 0.6), n_samples)

    def _room(self, samples_S: np.ndarray) -> np.ndarray:
        """A decaying-noise tail behind the direct sound."""
        decay_s = self._rng.uniform(0.05, 0.35)
        n = int(decay_s * 1.5 * SAMPLE_RATE_HZ)
        response = self._rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / (decay_s * SAMPLE_RATE_HZ)) * 0.06
        response[0] = 1.0
        size = len(samples_S) + n
        return np.fft.irfft(np.fft.rfft(samples_S, size) * np.fft.rfft(response, size), size)[: len(samples_S)]

    def _band(self, samples_S: np.ndarray) -> np.ndarray:
        """Keep 50..300 Hz up to 3.2..7 kHz: telephones, lavaliers, old recordings."""
        spectrum = np.fft.rfft(samples_S)
        hz = np.fft.rfftfreq(len(samples_S), 1 / SAMPLE_RATE_HZ)
        low_hz, high_hz = self._rng.uniform(50, 300), self._rng.uniform(3200, 7000)
        spectrum[(hz < low_hz) | (hz > high_hz)] *= 0.03
        return np.fft.irfft(spectrum, len(samples_S))
