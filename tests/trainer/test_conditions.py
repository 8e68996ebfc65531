# SPDX-License-Identifier: GPL-3.0-or-later
"""Listening conditions: the change by each condition is measured, and none moves the words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import soundfile as sf
from scipy import signal

from trainer.evaluation.conditions import (
    BABBLE,
    CLEAN,
    CONDITIONS,
    Conditions,
    change_formants,
    change_pitch,
    stretch,
)
from wav2sem_blender.assets import ASSETS

RATE_HZ = 16_000


@dataclass(frozen=True)
class Record:
    name: str
    speaker: str
    split: str
    n_samples: int


class Voices:
    """Six people in two splits; each says four seconds of the demo, from a different start."""

    def __init__(self, n_speakers: int = 6) -> None:
        demo_S, rate_hz = sf.read(ASSETS / "demo_speech.flac", dtype="float32")
        assert rate_hz == RATE_HZ
        self._demo_S = demo_S
        self.records = [Record(f"clip{i}", f"speaker{i}", "test", 4 * RATE_HZ) for i in range(n_speakers)]
        self.records.append(Record("learnt", "learner", "train", 4 * RATE_HZ))
        self.read: list[str] = []

    def samples(self, record: Record) -> np.ndarray:
        self.read.append(record.name)
        return np.roll(self._demo_S, -self.records.index(record) * 9_000)[: record.n_samples]

    def files(self) -> list:
        return []


@pytest.fixture(scope="module")
def heard() -> dict[str, np.ndarray]:
    voices = Voices()
    conditions = Conditions(voices, "test", seed=0)
    return {name: conditions.samples(voices.records[0], name) for name in CONDITIONS}


def lag_s(first_S: np.ndarray, second_S: np.ndarray) -> float:
    """The delay of the second's loudness against the first's."""
    smooth = np.hanning(320)
    first, second = (np.convolve(np.abs(x), smooth, "same") for x in (first_S, second_S))
    correlation = signal.correlate(second - second.mean(), first - first.mean())
    return float(signal.correlation_lags(len(second), len(first))[correlation.argmax()]) / RATE_HZ


def test_a_delay_would_be_seen(heard) -> None:
    assert lag_s(heard[CLEAN], np.roll(heard[CLEAN], 320)) == pytest.approx(0.020, abs=1e-4)


@pytest.mark.parametrize("name", CONDITIONS)
def test_no_condition_moves_the_words(heard, name: str) -> None:
    assert heard[name].dtype == np.float32 and heard[name].shape == heard[CLEAN].shape
    assert np.isfinite(heard[name]).all()
    assert abs(lag_s(heard[CLEAN], heard[name])) < 0.010
    if name != CLEAN:
        assert np.abs(heard[name] - heard[CLEAN]).max() > 0.01


def test_conditions_are_repeatable_and_differ_between_clips() -> None:
    voices = Voices()
    first, again = (Conditions(voices, "test", seed=0) for _ in range(2))
    other_seed = Conditions(voices, "test", seed=1)
    again.samples(voices.records[1], "noise")  # earlier calls must not matter
    for name in ("noise", "room", BABBLE):
        heard_S = first.samples(voices.records[0], name)
        np.testing.assert_array_equal(heard_S, again.samples(voices.records[0], name))
        assert np.abs(heard_S - other_seed.samples(voices.records[0], name)).max() > 1e-3


@pytest.mark.parametrize("name", ["noise", BABBLE])
def test_noise_is_10_db_below(heard, name: str) -> None:
    noise_S = heard[name] - heard[CLEAN]
    assert 20 * np.log10(heard[CLEAN].std() / noise_S.std()) == pytest.approx(10, abs=0.1)


def test_noise_has_equal_power_in_every_octave(heard) -> None:
    power = np.abs(np.fft.rfft(heard["noise"] - heard[CLEAN])) ** 2
    octaves_db = [10 * np.log10(power[4 * hz : 8 * hz].sum()) for hz in (125, 250, 500, 1000, 2000, 4000)]
    assert np.ptp(octaves_db) < 1


def test_babble_is_of_four_others_of_the_same_split() -> None:
    voices = Voices()
    Conditions(voices, "test", seed=0).samples(voices.records[2], BABBLE)
    assert voices.read[0] == "clip2" and len(set(voices.read)) == 5 and "learnt" not in voices.read
    alone = Voices(n_speakers=1)
    with pytest.raises(ValueError, match="nobody else speaks in this split; leave 'babble' out"):
        Conditions(alone, "test", seed=0).samples(alone.records[0], BABBLE)
    with pytest.raises(ValueError, match="condition 'under water': choose from clean, babble, noise"):
        Conditions(alone, "test", seed=0).samples(alone.records[0], "under water")


def test_a_telephone_has_a_narrow_band(heard) -> None:
    hz, power = signal.welch(heard["telephone"], RATE_HZ, nperseg=1024)
    _, before = signal.welch(heard[CLEAN], RATE_HZ, nperseg=1024)
    change_db = 10 * np.log10(power / before)
    assert change_db[(hz > 5000) & (hz < 7500)].max() < -10 and change_db[(hz > 90) & (hz < 150)].max() < -15
    assert np.abs(change_db[(hz > 600) & (hz < 2500)]).max() < 2


def test_a_room_reverberates(heard) -> None:
    """After a click: echoes 3 dB below it, which decay by 60 dB in half a second."""
    voices = Voices()
    click_S = np.zeros(RATE_HZ, np.float32)
    click_S[1000] = 1
    voices.samples = lambda record: click_S  # type: ignore[method-assign]
    echoes_S = Conditions(voices, "test", seed=0).samples(voices.records[0], "room")
    assert echoes_S[1000] == pytest.approx(1, abs=1e-3) and np.abs(echoes_S[:1000]).max() < 1e-6
    assert 10 * np.log10((echoes_S[1001:] ** 2).sum()) == pytest.approx(-3, abs=0.1)
    levels_db = [10 * np.log10((echoes_S[s : s + 800] ** 2).sum()) for s in (1100, 1100 + 4000)]
    assert levels_db[0] - levels_db[1] == pytest.approx(30, abs=2)


def vowel(pitch_hz: float, formant_hz: float) -> np.ndarray:
    """One second of pulses through a resonance."""
    pulses_S = np.zeros(RATE_HZ)
    pulses_S[np.arange(0, RATE_HZ, RATE_HZ / pitch_hz).astype(int)] = 1
    pole = np.exp((-60 + 2j * formant_hz) * np.pi / RATE_HZ)
    return signal.lfilter([1], np.poly([pole, pole.conjugate()]).real, pulses_S)


def pitch_hz(samples_S: np.ndarray) -> float:
    middle_S = samples_S[4000:12_000]
    likeness = signal.correlate(middle_S, middle_S, "full")[len(middle_S) - 1 :]
    return RATE_HZ / (40 + likeness[40:300].argmax())


def formant_hz(samples_S: np.ndarray) -> float:
    hz, power = signal.welch(samples_S[2000:-2000], RATE_HZ, nperseg=128)
    smooth = np.exp(-0.5 * ((hz[:, None] - hz) / 150) ** 2) @ power
    return float(hz[smooth.argmax()])


@pytest.mark.parametrize("ratio", [2 ** (4 / 12), 2 ** (-4 / 12), 1.5])
def test_pitch_and_formants_move_together_at_constant_tempo(ratio: float) -> None:
    vowel_S = vowel(120, 1500)
    moved_S = change_pitch(vowel_S, ratio)
    assert len(moved_S) == len(vowel_S)
    assert pitch_hz(moved_S) == pytest.approx(120 * ratio, rel=0.02)
    assert formant_hz(moved_S) == pytest.approx(1500 * ratio, rel=0.1)


def test_formants_move_alone() -> None:
    moved_S = change_formants(vowel(180, 1500), 1.3)
    assert pitch_hz(moved_S) == pytest.approx(180, rel=0.02)
    assert formant_hz(moved_S) == pytest.approx(1950, rel=0.1)


def test_stretched_speech_is_longer_and_otherwise_unchanged() -> None:
    speech_S = vowel(100, 800)
    np.testing.assert_allclose(stretch(speech_S, 1.0)[:RATE_HZ], speech_S, atol=1e-6)
    longer_S = stretch(speech_S, 1.5)
    assert abs(len(longer_S) - 1.5 * len(speech_S)) <= 1024 and pitch_hz(longer_S) == pytest.approx(100, rel=0.02)
