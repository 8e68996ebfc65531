# SPDX-License-Identifier: GPL-3.0-or-later
"""The spectrogram that the ear reads: Whisper's filters, and every passage at its own level."""

from __future__ import annotations

import numpy as np
import pytest

from wav2sem_blender.pipeline import log_mel
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.frame_timing import encoder_frames
from wav2sem_blender.pipeline.listening import _levels

RATE_HZ = 16_000


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise with the rhythm of syllables, float32."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE_HZ)
    rhythm = np.interp(np.arange(n), np.arange(0, n, 2400), rng.uniform(0.05, 1, -(-n // 2400)))
    return (0.1 * rhythm * rng.standard_normal(n)).astype(np.float32)


def test_the_filters_are_whispers() -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    theirs = audio_utils.mel_filter_bank(201, 80, 0.0, 8000.0, RATE_HZ, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(log_mel.mel_filters(), theirs, atol=1e-8)


def test_a_tone_is_in_its_band() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    spectrogram = log_mel.hear(tone)
    assert spectrogram.shape == (log_mel.frame_count(RATE_HZ), 80) == (98, 80)
    edges_hz = log_mel._mel_to_hz(np.linspace(0, log_mel._hz_to_mel(8000), 82))
    assert set(spectrogram.argmax(1)) == {int(np.abs(edges_hz[1:-1] - 1000).argmin())}


@pytest.mark.parametrize("n_samples", (400, 719, 720, 3200, 16_000, 16_319))
def test_two_frames_are_one_encoder_frame(n_samples: int) -> None:
    assert -(-log_mel.frame_count(n_samples) // 2) == encoder_frames(n_samples)


@pytest.mark.parametrize("gain_db", (-60, -20, 20))
def test_the_level_of_a_recording_does_not_matter(gain_db: float) -> None:
    speech = babble(4)
    np.testing.assert_allclose(log_mel.hear(speech * 10 ** (gain_db / 20)), log_mel.hear(speech), atol=2e-3)


def test_a_quiet_passage_looks_as_it_does_alone() -> None:
    loud, quiet = babble(6), babble(6, seed=1)
    together = log_mel.hear(np.concatenate([loud, 0.1 * quiet]))
    alone = log_mel.hear(quiet)
    inside = slice(200, -10)  # beyond the reach of the loud passage
    np.testing.assert_allclose(together[-len(alone) :][inside], alone[inside], atol=0.02)


def test_a_minute_of_silence_before_changes_nothing() -> None:
    speech = babble(4)
    silence = np.zeros(60 * RATE_HZ, np.float32)
    after = log_mel.hear(np.concatenate([silence, speech]))[-log_mel.frame_count(len(speech)) :]
    np.testing.assert_allclose(after, log_mel.hear(speech), atol=1e-4)


def test_a_bang_hardly_moves_the_level() -> None:
    speech = babble(8)
    with_bang = speech.copy()
    with_bang[4 * RATE_HZ : int(4.3 * RATE_HZ)] *= 10
    before = log_mel.levels(log_mel.powers(speech))
    after = log_mel.levels(log_mel.powers(with_bang))
    assert 0.1 < (after - before).max() < 1  # of the bang's 2 (20 dB)
    assert np.abs(after - before)[:250].max() < 1e-6


def test_pauses_are_not_raised_to_speech() -> None:
    speech = babble(4)
    with_noise = np.concatenate([speech, 1e-4 * babble(6, seed=1)])
    pause = log_mel.hear(with_noise)[-300:]
    assert pause.max() < log_mel.hear(speech).mean() - 0.5


def test_a_part_equals_the_whole() -> None:
    speech = babble(5)
    level = log_mel.padded_levels(log_mel.levels(log_mel.powers(speech)), len(speech))
    whole = log_mel.log_mel(speech, level)
    part = log_mel.log_mel(speech[32_000:64_000], level[200:])
    np.testing.assert_allclose(part, whole[200 : 200 + len(part)], atol=1e-6)


def test_levels_are_the_same_read_in_pieces() -> None:
    samples = babble(31)
    with Speech.from_array(samples, RATE_HZ) as speech:
        whole = log_mel.levels(log_mel.powers(speech.read(0, speech.n_samples)))
        np.testing.assert_allclose(_levels(speech)[: len(whole)], whole, atol=1e-5)


def test_how_many_spectra_are_made_at_once_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    samples_S = np.random.default_rng(4).normal(size=20_000).astype(np.float32)
    expected_FM = log_mel.hear(samples_S)
    for n_spectra in (1, 7, 10_000):
        monkeypatch.setattr(log_mel, "_SPECTRA_AT_ONCE", n_spectra)
        assert np.array_equal(log_mel.hear(samples_S), expected_FM)
