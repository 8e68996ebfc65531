# SPDX-License-Identifier: GPL-3.0-or-later
"""No channel's speech is lost in the mix: inverted, delayed, silent and noisy channels, two speakers."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from wav2sem_blender.assets import DEMO_SPEECH
from wav2sem_blender.pipeline.audio import Speech

RNG = np.random.default_rng(9)
SPEECH, RATE_HZ = soundfile.read(DEMO_SPEECH, dtype="float32")


def noise(level_db, rng=RNG):
    return (10 ** (level_db / 20) * rng.normal(size=len(SPEECH))).astype(np.float32)


def later(samples, n):
    return np.concatenate([np.zeros(n, np.float32), samples])[: len(samples)]


def mixed(*channels):
    with Speech.from_array(np.stack(channels), RATE_HZ) as speech:
        return speech.read(0, speech.n_samples), [str(note) for note in speech.notes]


def likeness(samples, of=SPEECH):
    """Correlation, high frequencies as loud as low ones."""
    n = min(len(samples), len(of))
    return np.corrcoef(np.diff(samples[:n]), np.diff(of[:n]))[0, 1]


@pytest.mark.parametrize("level", [1.0, 0.5])
@pytest.mark.parametrize("noise_db", [-120, -70, -50])
def test_an_inverted_channel(level, noise_db):
    samples, notes = mixed(SPEECH + noise(noise_db), noise(noise_db) - level * SPEECH)
    assert notes == ["channel 2 was inverted before mixing, because it is the opposite of channel 1"]
    assert likeness(samples) > 0.97


@pytest.mark.parametrize("milliseconds", [0.5, 1, 3, 10, 30, 100, 200])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_delayed_channel(milliseconds, sign):
    n = round(milliseconds / 1000 * RATE_HZ)
    for channels in ((SPEECH, sign * later(SPEECH, n)), (later(sign * SPEECH, n), SPEECH)):
        samples, notes = mixed(*(channel + noise(-70) for channel in channels))
        assert abs(likeness(samples)) > 0.99
        assert f"moved by {'-' if channels[0] is SPEECH else ''}{n / RATE_HZ * 1000:.1f} ms" in notes[-1]
        assert len(notes) == (2 if sign < 0 else 1)


@pytest.mark.parametrize("speech_first", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        noise(-20),
        noise(0),
        0.5 * np.sin(np.arange(len(SPEECH)) / RATE_HZ * 2 * np.pi * 50),
        np.cumsum(noise(-40)),
        SPEECH + noise(-25),
    ],
)
def test_a_noisy_channel_is_left_out(other, speech_first):
    channels = (SPEECH, other) if speech_first else (other, SPEECH)
    samples, (note,) = mixed(*(channel.astype(np.float32) for channel in channels))
    assert note.startswith(f"channel {2 if speech_first else 1} was left out of the mix, because")
    assert likeness(samples) > 0.999


@pytest.mark.parametrize("other", [0 * SPEECH, noise(-75)])
def test_a_silent_channel_does_no_harm(other):
    samples, notes = mixed(SPEECH, other)
    assert likeness(samples) > 0.99 and notes == []


def test_two_speakers_are_both_heard():
    half = len(SPEECH) // 2
    first, second = SPEECH.copy(), SPEECH.copy()
    first[half:], second[:half] = 0, 0
    samples, notes = mixed(first + noise(-65), second + noise(-65))
    assert likeness(samples) > 0.98 and notes == []
    at_once, notes = mixed(SPEECH, np.roll(SPEECH, len(SPEECH) // 3))
    assert notes == []
    assert likeness(at_once) == pytest.approx(likeness(at_once, np.roll(SPEECH, len(SPEECH) // 3)), abs=0.05)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("wav", "PCM_16"), ("ogg", "VORBIS"), ("flac", "PCM_24"), ("mp3", None)]
)
def test_files_are_read_again_for_a_better_mix(tmp_path, suffix, subtype):
    both = np.stack([SPEECH, -later(SPEECH, 160)], axis=1) + np.stack([noise(-70), noise(-70)], axis=1)
    soundfile.write(tmp_path / f"x.{suffix}", both, RATE_HZ, subtype=subtype)
    with Speech.from_file(tmp_path / f"x.{suffix}") as speech:
        assert likeness(speech.read(0, speech.n_samples)) > 0.95
        assert [note.split(" was ")[1][:8] for note in speech.notes] == ["inverted", "moved by"]
        assert abs(speech.n_samples - len(SPEECH)) <= 200
