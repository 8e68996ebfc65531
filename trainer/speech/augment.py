# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to recordings for training: rooms, noise, music, other voices, narrow bands, codecs. Everything is seeded."""

from __future__ import annotations

import io

import numpy as np
import soundfile as sf
from scipy import fft

from .augmentation import Augmentation
from .prepared import SAMPLE_RATE_HZ, Speech

MUSIC_SHARE = 0.15


class Augmenter:
    """Changes the sound of a recording but not its timing; the sampler changes speed, as it must also move the
    labels."""

    def __init__(self, store: Speech, settings: Augmentation, seed: int) -> None:
        self._store, self._settings = store, settings
        self._rng = np.random.default_rng((seed, 1))
        voices = [record for record in store.records if record.split == "train"]
        self._voices = [record for record in voices if record.corpus == "librispeech_251"] or voices

    def __call__(self, samples_S: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """A changed copy (S,) of the same length and timing, drawn from `rng` or else from the seed's own stream."""
        rng, settings = rng or self._rng, self._settings
        if rng.random() < settings.room_chance:
            samples_S = self._room(samples_S, rng)
        if rng.random() < settings.clip_chance:
            peak = np.abs(samples_S).max() * rng.uniform(0.2, 0.7)
            samples_S = np.clip(samples_S, -peak, peak)
        if rng.random() < settings.noise_chance:
            noise_S = self._disturbance(len(samples_S), rng)
            snr_db = rng.uniform(*settings.noise_snr_db)
            level = samples_S.std() / max(1e-9, noise_S.std()) * 10 ** (-snr_db / 20)
            samples_S = samples_S + level * noise_S
        band = rng.random() < settings.band_chance
        if band or settings.equaliser_db:
            samples_S = self._filtered(samples_S, band, rng)
        if rng.random() < settings.codec_chance:
            samples_S = self._coded(samples_S, rng)
        return samples_S

    def passages(self, samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A copy (S,) in which some parts are quieter, as when somebody turns away or another person speaks."""
        if rng.random() >= self._settings.passage_chance:
            return samples_S
        seconds = len(samples_S) / SAMPLE_RATE_HZ
        knots = np.sort(rng.uniform(0, len(samples_S), max(2, int(rng.uniform(0.5, 2) * seconds))))
        knots_S = np.repeat(knots, 2)[1:-1] + np.tile([0, 0.05 * SAMPLE_RATE_HZ], len(knots) - 1)
        gains_db = np.repeat(rng.uniform(-self._settings.passage_db, 0, len(knots) - 1), 2)
        return samples_S * 10 ** (np.interp(np.arange(len(samples_S)), knots_S, gains_db) / 20)

    def speechless(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Noise or music (S,) of any level, at which a mouth should not move."""
        sound_S = self._music(n_samples, rng) if rng.random() < 0.4 else self._noise(n_samples, rng)
        return sound_S / max(1e-9, float(sound_S.std())) * 10 ** rng.uniform(-3, 0)

    def _disturbance(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Noise, another voice, several voices, or music."""
        kind, one, crowd = rng.random(), self._settings.one_voice_share, self._settings.crowd_share
        if kind < MUSIC_SHARE:
            return self._music(n_samples, rng)
        if kind < MUSIC_SHARE + one + crowd:
            n_voices = 1 if kind < MUSIC_SHARE + one else int(rng.integers(3, 6))
            voices = [self._voices[i] for i in rng.integers(len(self._voices), size=n_voices)]
            return sum((np.resize(self._store.samples(voice), n_samples) for voice in voices), np.zeros(n_samples))
        return self._noise(n_samples, rng)

    def _noise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Coloured noise (1/f^0 .. 1/f^1.2 in power)."""
        spectrum = fft.rfft(rng.standard_normal(n_samples))
        return fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** rng.uniform(0, 0.6), n_samples)

    def _music(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Struck chords with a few overtones that fade, sometimes with a beat."""
        music_S = np.zeros(n_samples)
        beat = int(rng.uniform(0.25, 0.8) * SAMPLE_RATE_HZ)
        root_hz = rng.uniform(80, 300)
        for start in range(0, n_samples, beat):
            times = np.arange(min(3 * beat, n_samples - start)) / SAMPLE_RATE_HZ
            fade = np.exp(-times * rng.uniform(1, 6))
            for semitones in rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 16, 19], size=3, replace=False):
                hz = root_hz * 2 ** (semitones / 12)
                overtones = rng.uniform(0, 1, 4) / np.arange(1, 5)
                tone = sum(a * np.sin(2 * np.pi * hz * k * times) for k, a in enumerate(overtones, 1))
                music_S[start : start + len(times)] += fade * tone
            if rng.random() < 0.3:
                hit = rng.standard_normal(min(1600, n_samples - start))
                music_S[start : start + len(hit)] += hit * np.exp(-np.arange(len(hit)) / 300)
        return music_S

    def _room(self, samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The direct sound and a tail of decaying noise."""
        decay_s = rng.uniform(0.05, 0.6)
        n = int(decay_s * 1.2 * SAMPLE_RATE_HZ)
        response = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / (decay_s * SAMPLE_RATE_HZ))
        response *= rng.uniform(0.02, 0.08)
        response[0] = 1.0
        size = fft.next_fast_len(len(samples_S) + n, real=True)
        return fft.irfft(fft.rfft(samples_S, size) * fft.rfft(response, size), size)[: len(samples_S)]

    def _filtered(self, samples_S: np.ndarray, band: bool, rng: np.random.Generator) -> np.ndarray:
        """Random equalisation, as by microphones and rooms; with `band`, also a band from 50..300 Hz to 3.2..7 kHz, as
        in telephones and old recordings."""
        hz = fft.rfftfreq(len(samples_S), 1 / SAMPLE_RATE_HZ)
        knots_hz = [0, 150, 300, 600, 1200, 2400, 4000, 6000, 8000]
        gain = 10 ** (np.interp(hz, knots_hz, rng.normal(0, 0.5, 9)) * self._settings.equaliser_db / 20)
        if band:
            low_hz, high_hz = rng.uniform(50, 300), rng.uniform(3200, 7000)
            gain[(hz < low_hz) | (hz > high_hz)] *= 0.02
        return fft.irfft(fft.rfft(samples_S) * gain, len(samples_S))

    def _coded(self, samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """mu-law as in telephones, or Ogg Vorbis at a low bit rate."""
        loud_S = samples_S / max(1e-9, np.abs(samples_S).max())
        if rng.random() < 0.6:
            companded_S = np.sign(loud_S) * np.log1p(255 * np.abs(loud_S)) / np.log(256)
            coarse_S = np.round(companded_S * 127) / 127
            return np.sign(coarse_S) * np.expm1(np.abs(coarse_S) * np.log(256)) / 255
        file = io.BytesIO()
        sf.write(file, 0.9 * loud_S, SAMPLE_RATE_HZ, "VORBIS", format="OGG", compression_level=rng.uniform(0.7, 1.0))
        file.seek(0)
        return np.resize(sf.read(file)[0], len(samples_S))
