# SPDX-License-Identifier: GPL-3.0-or-later
"""Exact values of audio.py: samples as stored, levels, thresholds, and the hop at which an utterance is cut."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import audio
from wav2sem_blender.pipeline.audio import Pauses, Speech, level_db, split_utterances

RNG = np.random.default_rng(11)


def stored(speech: Speech) -> np.ndarray:
    """All samples in -1 … 1, before normalisation."""
    with speech:
        return speech.read(0, speech.n_samples, normalised=False)


class TestSamples:
    @pytest.mark.parametrize(
        ("dtype", "rest", "full"),
        [(np.int8, 0, 2**7), (np.int16, 0, 2**15), (np.int32, 0, 2**31), (np.uint8, 128, 128), (np.float64, 0, 1)],
    )
    def test_full_scale_of_every_type_is_one(self, dtype, rest, full):
        values_N = (rest + full * RNG.uniform(-0.9, 0.9, 4001)).astype(dtype)
        expected_N = (values_N - values_N.mean(dtype=float)) / full  # the first block's mean is taken off
        np.testing.assert_allclose(stored(Speech.from_array(values_N, 16_000)), expected_N, atol=1e-6)

    @pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
    @pytest.mark.parametrize("n_channels", [1, 2, 3])
    @pytest.mark.parametrize("block", [331, 4096])
    def test_a_file_in_blocks_is_the_array_at_once(self, tmp_path, monkeypatch, rate_hz, n_channels, block):
        n_source = int(RNG.integers(rate_hz // 2, rate_hz)) | 1
        channels_NC = RNG.integers(-9000, 9000, (n_source, n_channels)).astype(np.int16)
        soundfile.write(tmp_path / "x.wav", channels_NC, rate_hz)
        whole_S = stored(Speech.from_array(channels_NC.T, rate_hz))
        monkeypatch.setattr(audio, "BLOCK", block)
        monkeypatch.setattr("wav2sem_blender.pipeline.sound_file.BLOCK", block)
        for speech in (Speech.from_array(channels_NC.T, rate_hz), Speech.from_file(tmp_path / "x.wav")):
            pieces_S = stored(speech)
            assert len(pieces_S) == len(whole_S)
            # Only the constant that is taken off depends on the block, and at 16 kHz it shifts every sample alike.
            inner = slice(0, None) if rate_hz == 16_000 else slice(200, -200)
            offset_S = (pieces_S - whole_S)[inner]
            assert np.ptp(offset_S) < 2e-6

    @pytest.mark.parametrize("n_channels", [1, 2, 8, 9])
    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
    def test_a_file_is_mixed_with_equal_weights(self, tmp_path, n_channels, subtype):
        soundfile.write(tmp_path / "x.wav", RNG.uniform(-0.9, 0.9, (5000, n_channels)), 16_000, subtype=subtype)
        mean_N = soundfile.read(tmp_path / "x.wav", always_2d=True)[0].mean(1)
        np.testing.assert_allclose(stored(Speech.from_file(tmp_path / "x.wav")), mean_N - mean_N.mean(), atol=1e-7)

    def test_channels_that_cancel_are_no_silence(self):
        square_N = np.where(np.arange(16_000) // 40 % 2, 32_767, -32_767).astype(np.int16)
        with Speech.from_array(np.stack([square_N, -square_N]), 16_000) as speech:
            (note,) = speech.notes
            assert note == "channel 2 was inverted before mixing, because it is the opposite of channel 1"
            inverted_S = speech.read(0, speech.n_samples)
        with Speech.from_array(square_N, 16_000) as speech:
            np.testing.assert_allclose(inverted_S, speech.read(0, speech.n_samples), atol=1e-6)
        many_CN = np.stack([square_N, -square_N] * 5)
        with pytest.raises(UserError, match="channels cancel each other"):
            Speech.from_array(many_CN, 16_000)

    def test_limits_are_included(self):
        tone_N = np.sin(np.arange(1_600_000) * 0.01)
        for rate_hz in (4_000, 1_600_000):
            Speech.from_array(tone_N[: rate_hz // 2], rate_hz).close()
        for rate_hz in (3_999, 1_600_001):
            with pytest.raises(UserError, match=f"the sample rate is {rate_hz} Hz; 4000 to 1600000 Hz is supported"):
                Speech.from_array(tone_N, rate_hz)
        Speech.from_array(np.tile(tone_N[:4000], (256, 1)), 16_000).close()
        with pytest.raises(UserError, match="257 channels"):
            Speech.from_array(np.tile(tone_N[:4000], (257, 1)), 16_000)


class TestLevels:
    @pytest.mark.parametrize("n_samples", [160 * 250, 160 * 2003 + 77])
    def test_a_level_is_the_mean_power_of_five_hops_in_db(self, n_samples):
        waveform_S = RNG.normal(size=n_samples) * np.linspace(0, 1, n_samples) ** 4
        with Speech.from_array(waveform_S, 16_000) as speech:
            level_P, samples_S = level_db(speech), speech.read(0, speech.n_samples).astype(float)
        power_P = [np.mean(samples_S[start : start + 160] ** 2) for start in range(0, n_samples, 160)]
        padded_P = [power_P[0]] * 2 + power_P + [power_P[-1]] * 2
        expected_P = [10 * np.log10(np.mean(padded_P[p : p + 5]) + 1e-8) for p in range(len(power_P))]
        np.testing.assert_allclose(level_P, expected_P, atol=2e-3)

    def test_a_threshold_is_of_the_blocks_around(self):
        level_P = RNG.uniform(-60, 0, 3500) * np.repeat([1, 0.5, 1, 0.2], 1000)[:3500]
        threshold_P = audio._local_thresholds_db(level_P)
        for hop, around in (
            (0, (0, 2000)),
            (999, (0, 2000)),
            (1000, (0, 3000)),
            (2500, (1000, 3500)),
            (3499, (2000, 3500)),
        ):
            quiet, loud = np.percentile(level_P[slice(*around)], [10, 90])
            assert threshold_P[hop] == pytest.approx(quiet + 0.35 * (loud - quiet), abs=1e-9)

    def test_where_all_is_about_as_loud_nothing_is_a_pause(self):
        for contrast_db, n_pauses in ((5.9, 0), (6.1, 1)):
            level_P = np.zeros(1000)
            level_P[400:600] = -contrast_db
            pauses = Pauses(level_P)
            assert (len(pauses.starts), len(pauses.stops)) == (n_pauses, n_pauses)

    def test_a_pause_has_15_hops_and_its_depth_is_summed(self):
        level_P = np.zeros(1000)
        level_P[100:250], level_P[500:514], level_P[700:715] = -40, -40, -40
        pauses = Pauses(level_P)
        assert (pauses.starts.tolist(), pauses.stops.tolist()) == ([100, 700], [250, 715])
        np.testing.assert_allclose(
            np.diff(pauses.area[[100, 101, 250, 700, 715, 1000]]), np.multiply([1, 149, 14, 15, 0], 14)
        )


class TestBestCut:
    def test_without_a_pause_the_middle_or_what_is_quieter_there(self):
        """The middle third is hops 200 to 300. A hop counts a decibel louder for every 100 hops off its centre."""
        flat_P = np.zeros(1000)
        assert Pauses(flat_P).best_cut(100, 400) == 250
        for hop, depth_db, cut in ((220, 0.29, 250), (220, 0.31, 220), (280, 0.29, 250), (280, 0.31, 280)):
            level_P = flat_P.copy()
            level_P[hop] = -depth_db
            assert Pauses(level_P).best_cut(100, 400) == cut
        for hop, cut in ((199, 250), (200, 200), (300, 300), (301, 250)):
            level_P = flat_P.copy()
            level_P[hop] = -5
            assert Pauses(level_P).best_cut(100, 400) == cut

    @pytest.mark.parametrize(
        ("first", "last", "cut"), [(0, 0, 0), (7, 7, 7), (10, 12, 11), (0, 1001, 500), (998, 1000, 999)]
    )
    def test_of_a_few_hops_or_up_to_the_end(self, first, last, cut):
        assert Pauses(np.zeros(1000)).best_cut(first, last) == cut

    def test_only_the_part_of_a_pause_that_may_be_cut_counts(self):
        level_P = np.zeros(1000)
        level_P[100:200], level_P[400:460] = -40, -40
        pauses = Pauses(level_P)
        for first, last, cut in (
            (0, 999, 150),
            (120, 999, 160),
            (150, 999, 430),
            (0, 440, 150),
            (150, 420, 175),
            (200, 400, 300),
        ):
            assert pauses.best_cut(first, last) == cut

    def test_the_area_decides_between_pauses_of_one_length(self):
        for second_db, cut in ((-40.02, 410), (-39.98, 10)):
            level_P = np.zeros(1000)
            level_P[0:20], level_P[400:420], level_P[600:700] = -40, second_db, -40
            assert Pauses(level_P).best_cut(0, 500) == cut

    @pytest.mark.parametrize(
        ("quieter", "depth_db", "cut"),
        [
            ([(500, 600)], -60, 550),  # a soft voice around silence: the silence
            ([(420, 450), (500, 600)], -60, 550),  # the longer silence
            ([(420, 450), (527, 545)], -60, 435),
            ([(500, 600)], -41, 500),  # within 12 dB all is one pause
            ([(500, 600)], -43, 550),
            ([(410 + 20 * n, 420 + 20 * n) for n in range(9)], -60, 500),  # silences below 150 ms
        ],
    )
    def test_an_uneven_pause_is_cut_in_its_longest_silence(self, quieter, depth_db, cut):
        level_P = np.zeros(1000)
        level_P[400:600] = -30
        for start, stop in quieter:
            level_P[start:stop] = depth_db
        assert Pauses(level_P).best_cut(300, 700) == cut


class TestUtterances:
    def test_limits(self):
        with Speech.from_array(np.sin(np.arange(16_000 * 9) * 0.1), 16_000) as speech:
            for max_s, min_s in ((4, 2.1), (4, 0), (4, -1), (0, 0)):
                with pytest.raises(UserError, match=f"Utterances of {min_s} to {max_s} s are impossible"):
                    split_utterances(speech, max_s, min_s)
            assert np.diff(split_utterances(speech, 4.0, 2.0), axis=1).min() >= 32_000
