# SPDX-License-Identifier: GPL-3.0-or-later
"""What recordings go through on their way to a listener: rooms, noise, other voices, narrow bands. Seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .speech import SAMPLE_RATE_HZ, Speech


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Chances (0..1) and ranges of what happens to a crop."""

    speed: tuple[float, float] = (0.85, 1.18)
    noise_chance: float = 0.5
    noise_snr_db: tuple[float, float] = (4.0, 35.0)
    band_chance: float = 0.2
    room_chance: float = 0.25


class Augmenter:
    """Changes the sound of a recording but not its timing (speed is the sampler's, which also moves the labels)."""

    def __init__(self, store: Speech, settings: Augmentation, seed: int) -> None:
        self._store, self._settings = store, settings
        self._rng = np.random.default_rng((seed, 1))
        voices = [record for record in store.records if record.split == "train"]
        self._noises = [record for record in voices if record.corpus == "librispeech_251"] or voices

    def __call__(self, samples_S: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """A changed copy (S,), same length, same timing; drawn from `rng`, by default from the seed's own stream."""
        rng, settings = rng or self._rng, self._settings
        if rng.random() < settings.room_chance:
            samples_S = self._room(samples_S, rng)
        if rng.random() < settings.noise_chance:
            noise_S = self._noise(len(samples_S), rng)
            snr_db = rng.uniform(*settings.noise_snr_db)
            level = samples_S.std() / max(1e-9, noise_S.std()) * 10 ** (-snr_db / 20)
            samples_S = samples_S + level * noise_S
        if rng.random() < settings.band_chance:
            samples_S = self._band(samples_S, rng)
        return samples_S

    def _noise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Coloured noise (1/f^0 .. 1/f^1 in power), or another voice."""
        if rng.random() < 0.3:
            voice_S = self._store.samples(self._noises[rng.integers(len(self._noises))])
            return np.resize(voice_S, n_samples)
        spectrum = np.fft.rfft(rng.standard_normal(n_samples))
        return np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** rng.uniform(0, 0.6), n_samples)

    def _room(self, samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A decaying-noise tail behind the direct sound."""
        decay_s = rng.uniform(0.05, 0.35)
        n = int(decay_s * 1.5 * SAMPLE_RATE_HZ)
        response = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / (decay_s * SAMPLE_RATE_HZ)) * 0.06
        response[0] = 1.0
        size = len(samples_S) + n
        return np.fft.irfft(np.fft.rfft(samples_S, size) * np.fft.rfft(response, size), size)[: len(samples_S)]

    def _band(self, samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Keep 50..300 Hz up to 3.2..7 kHz: telephones, lavaliers, old recordings."""
        spectrum = np.fft.rfft(samples_S)
        hz = np.fft.rfftfreq(len(samples_S), 1 / SAMPLE_RATE_HZ)
        low_hz, high_hz = rng.uniform(50, 300), rng.uniform(3200, 7000)
        spectrum[(hz < low_hz) | (hz > high_hz)] *= 0.03
        return np.fft.irfft(spectrum, len(samples_S))
