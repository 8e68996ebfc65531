# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening conditions for evaluation: the same words at the same times, harder to hear.

Training uses none of these rooms and noises (it has `speech/augment.py`), so that no figure measures what was learnt by
heart. Every change is seeded by the clip's name, so a clip sounds the same in every evaluation.

Shapes: S samples at 16 kHz, F bins and T frames of a spectrogram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import soxr
from scipy import fft, signal

from wav2sem_blender.errors import UserError

from ..speech.prepared import SAMPLE_RATE_HZ, Speech

CLEAN, BABBLE = "clean", "babble"
SNR_DB = 10.0
N_BABBLERS = 4
TELEPHONE_HZ = (300, 3400)
TELEPHONE_RATE_HZ = 8000
MU = 255
RT60_S = 0.5
DIRECT_TO_REVERBERANT_DB = 3.0
FIRST_ECHO_S = 0.002
CHILD_PITCH, CHILD_FORMANTS = 1.5, 1.3

STRETCH_HOP = 256  # 16 ms, half of a window
STRETCH_SEARCH = 160  # 10 ms to each side: a whole period of the lowest voices
STRETCH_COST = 0.5  # similarity that the largest shift costs; without it windows drift ahead or behind
SPECTRUM_WINDOW, SPECTRUM_HOP = 512, 128
ENVELOPE_QUEFRENCIES = 28  # 1.75 ms: below a child's pitch period, enough for formants
MAX_ENVELOPE_GAIN = 30.0


class Conditions:
    """Records of one split of `speech`, under the conditions in `CONDITIONS`.

    The voices of `babble` come from the same split, so they are held out as the clip is.
    """

    def __init__(self, speech: Speech, split: str, seed: int) -> None:
        self._speech, self._seed = speech, seed
        self._by_speaker: dict[str, list[Any]] = {}
        for record in speech.records:
            if record.split == split:
                self._by_speaker.setdefault(record.speaker, []).append(record)

    def samples(self, record: Any, condition: str) -> np.ndarray:
        """A record as heard under a condition: float32 (S,), same length and timing.

        Raises:
            UserError: an unknown condition, or babble in a split with one speaker.
        """
        if condition not in CONDITIONS:
            raise UserError(
                "condition {condition!r}: choose from {conditions}",
                condition=condition,
                conditions=", ".join(CONDITIONS),
            )
        samples_S = self._speech.samples(record)
        if condition == CLEAN:
            return samples_S
        rng = np.random.default_rng([self._seed, crc32(condition.encode()), crc32(record.name.encode())])
        if condition == BABBLE:
            return add_noise(samples_S, self._babble(record, rng)).astype(np.float32)
        return CHANGES[condition](samples_S, rng).astype(np.float32)

    def _babble(self, record: Any, rng: np.random.Generator) -> np.ndarray:
        """`N_BABBLERS` other voices at once, equally loud (S,)."""
        others = sorted(self._by_speaker.keys() - {record.speaker})
        if not others:
            raise UserError(
                "{record}: nobody else speaks in this split; leave 'babble' out of the conditions",
                record=record.name,
            )
        voices = []
        for speaker in rng.choice(others, N_BABBLERS, replace=len(others) < N_BABBLERS):
            clips = self._by_speaker[speaker]
            voice_S = self._speech.samples(clips[rng.integers(len(clips))])
            voices.append(np.roll(np.resize(voice_S, record.n_samples), rng.integers(record.n_samples)))
        return equally_loud(voices, record.n_samples)


def equally_loud(voices: Iterable[np.ndarray], n_samples: int) -> np.ndarray:
    """Voices (S,) at once, each with the same deviation; silence without any."""
    babble_S = np.zeros(n_samples)
    for voice_S in voices:
        babble_S += voice_S / max(1e-9, float(voice_S.std()))
    return babble_S


def add_noise(samples_S: np.ndarray, noise_S: np.ndarray, snr_db: float = SNR_DB) -> np.ndarray:
    """Noise under speech, so far below the whole recording's level, pauses included."""
    level = float(samples_S.std()) / max(1e-9, float(noise_S.std())) * 10 ** (-snr_db / 20)
    return samples_S + level * noise_S


def pink_noise(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Steady noise with equal power in every octave above 20 Hz."""
    spectrum = fft.rfft(rng.standard_normal(len(samples_S)))
    hz = fft.rfftfreq(len(samples_S), 1 / SAMPLE_RATE_HZ)
    spectrum = np.where(hz < 20, 0, spectrum) / np.sqrt(np.maximum(hz, 20))
    return add_noise(samples_S, fft.irfft(spectrum, len(samples_S)))


def telephone(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """300 to 3400 Hz, 8 kHz, 8-bit mu-law, and back to 16 kHz; without delay."""
    band = signal.butter(4, TELEPHONE_HZ, "bandpass", fs=TELEPHONE_RATE_HZ, output="sos")
    narrow_S = signal.sosfiltfilt(band, soxr.resample(samples_S, SAMPLE_RATE_HZ, TELEPHONE_RATE_HZ)).clip(-1, 1)
    code_S = np.round(np.sign(narrow_S) * np.log1p(MU * np.abs(narrow_S)) / np.log1p(MU) * (MU // 2))
    decoded_S = np.sign(code_S) * np.expm1(np.abs(code_S) / (MU // 2) * np.log1p(MU)) / MU
    return _fitted(soxr.resample(decoded_S, TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ), len(samples_S))


def room(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The direct sound and, 3 dB below it, echoes that decay by 60 dB in 0.5 s."""
    times_S = np.arange(int(1.2 * RT60_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    echoes_S = rng.standard_normal(len(times_S)) * 10 ** (-3 * times_S / RT60_S) * (times_S >= FIRST_ECHO_S)
    level = 10 ** (-DIRECT_TO_REVERBERANT_DB / 20) / float(np.linalg.norm(echoes_S))
    return samples_S + signal.fftconvolve(samples_S, level * echoes_S)[: len(samples_S)]


def semitones(count: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Pitch and formants shifted together, as for a smaller or larger speaker."""
    return lambda samples_S, rng: change_pitch(samples_S, 2 ** (count / 12))


def child(samples_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pitch times 1.5, formants times 1.3: turns an adult's voice into a child's."""
    return change_formants(change_pitch(samples_S, CHILD_PITCH), CHILD_FORMANTS / CHILD_PITCH)


def change_pitch(samples_S: np.ndarray, ratio: float) -> np.ndarray:
    """All frequencies times `ratio` at constant tempo (S,)."""
    margin = 2 * (STRETCH_HOP + STRETCH_SEARCH)
    padded_S = np.pad(samples_S.astype(float), margin)
    played_S = soxr.resample(stretch(padded_S, ratio), SAMPLE_RATE_HZ * ratio, SAMPLE_RATE_HZ)
    return _fitted(played_S[margin:], len(samples_S))


def stretch(samples_S: np.ndarray, factor: float) -> np.ndarray:
    """`factor` times as long at the same pitch, by WSOLA (Verhelst and Roelands, ICASSP 1993).

    Windows are laid down evenly; each is taken near its place, at the shift where it best continues the one before. No
    shift exceeds 10 ms, so stops stay sharp.
    """
    hop, search = STRETCH_HOP, STRETCH_SEARCH
    window = np.hanning(2 * hop + 1)[:-1]
    cost = STRETCH_COST * np.linspace(-1, 1, 2 * search + 1) ** 2
    n_windows = int(len(samples_S) * factor / hop) + 2
    source_S = np.pad(samples_S, (hop + search, 4 * hop + 2 * search))
    out_S = np.zeros((n_windows + 1) * hop)
    at = search
    for k in range(n_windows):
        place = search + round(k * hop / factor)
        if k:
            shifts = source_S[place - search : place + search + hop]
            before = source_S[at + hop : at + 2 * hop]
            energy = np.convolve(shifts**2, np.ones(hop), "valid") * (before @ before)
            likeness = np.correlate(shifts, before, "valid") / np.sqrt(energy + 1e-9)
            at = place - search + int(np.argmax(likeness - cost))
        out_S[k * hop : (k + 2) * hop] += window * source_S[at : at + 2 * hop]
    return out_S[hop:]


def change_formants(samples_S: np.ndarray, ratio: float) -> np.ndarray:
    """The spectral envelope's frequencies times `ratio`; pitch and timing unchanged (S,)."""
    short_time = signal.ShortTimeFFT(np.hanning(SPECTRUM_WINDOW + 1)[:-1], SPECTRUM_HOP, SAMPLE_RATE_HZ)
    spectrum_FT = short_time.stft(samples_S)
    cepstrum_QT = fft.irfft(np.log(np.abs(spectrum_FT) + 1e-6), axis=0)
    cepstrum_QT[ENVELOPE_QUEFRENCIES : 1 - ENVELOPE_QUEFRENCIES] = 0
    envelope_FT = fft.rfft(cepstrum_QT, axis=0).real
    bins_F = np.arange(len(envelope_FT))
    lower_F = np.minimum((bins_F / ratio).astype(int), len(bins_F) - 2)
    part_F1 = np.minimum(bins_F / ratio - lower_F, 1)[:, None]
    moved_FT = envelope_FT[lower_F] * (1 - part_F1) + envelope_FT[lower_F + 1] * part_F1
    gain_FT = np.exp(moved_FT - envelope_FT).clip(1 / MAX_ENVELOPE_GAIN, MAX_ENVELOPE_GAIN)
    return short_time.istft(spectrum_FT * gain_FT, k1=len(samples_S))


def _fitted(samples_S: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut, or padded with silence."""
    return np.pad(samples_S[:n_samples], (0, max(0, n_samples - len(samples_S))))


CHANGES: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": pink_noise,
    "telephone": telephone,
    "room": room,
    "pitch +4": semitones(4),
    "pitch -4": semitones(-4),
    "child": child,
}
CONDITIONS = (CLEAN, BABBLE, *CHANGES)
