# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech: formats, resampling, normalisation, bad input, constant memory; utterances are cut at pauses."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline import audio as audio_module
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ, Speech, split_utterances

ROOT = Path(__file__).parents[2]
LIBRISPEECH = ROOT.parent / "shared" / "data" / "librispeech_251"
RNG = np.random.default_rng(3)


def tone(duration_s=1.0, rate_hz=16_000, pitch_hz=220.0, noise=0.02):
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    envelope = 0.3 + 0.2 * np.sin(2 * np.pi * 3 * time_s)
    return (envelope * np.sin(2 * np.pi * pitch_hz * time_s) + noise * RNG.normal(size=time_s.size)).astype(np.float32)


def normalised(samples):
    samples = np.asarray(samples, dtype=np.float64)
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)


def whole(speech):
    with speech:
        return speech.read(0, speech.n_samples)


class TestNormalisation:
    def test_equals_the_formula_over_the_whole_recording(self):
        waveform = tone(3.1)
        with Speech.from_array(waveform, 16_000) as speech:
            assert speech.n_samples == len(waveform) and speech.duration_s == pytest.approx(3.1)
            samples = speech.read(0, speech.n_samples)
            assert samples.dtype == np.float32
            np.testing.assert_allclose(samples, normalised(waveform), atol=2e-6)

    def test_pieces_are_slices_of_the_whole(self):
        with Speech.from_array(tone(12.0), 16_000) as speech:
            samples = speech.read(0, speech.n_samples)
            for start, stop in [(0, 0), (5, 6), (1000, 70_001), (speech.n_samples - 1, speech.n_samples)]:
                np.testing.assert_array_equal(speech.read(start, stop), samples[start:stop])
            with pytest.raises(AssertionError):
                speech.read(0, speech.n_samples + 1)

    @pytest.mark.parametrize("rate_hz", [16_000, 44_100])
    def test_a_dc_offset_makes_no_difference_not_even_at_the_ends(self, rate_hz):
        waveform = 0.3 * tone(2.0, rate_hz)
        plain = whole(Speech.from_array(waveform, rate_hz))
        shifted = whole(Speech.from_array(waveform + np.float32(0.5), rate_hz))
        np.testing.assert_allclose(shifted, plain, atol=2e-4)  # float32 at 0.5 rounds to 3e-8, amplified by 1 / std

    def test_loudness_makes_no_difference(self):
        waveform = tone(1.0)
        np.testing.assert_allclose(
            whole(Speech.from_array(0.1 * waveform, 16_000)), whole(Speech.from_array(waveform, 16_000)), atol=1e-3
        )

    def test_statistics_are_exact_for_hours_on_an_offset(self):
        stream = audio_module._Stream("x", 16_000)
        pieces = [(1e3 + RNG.normal(size=n)).astype(np.float32) for n in (1, 65_536, 17, 300_000)]
        for piece in pieces:
            stream._counted(piece)
        everything = np.concatenate(pieces).astype(np.float64)
        assert stream.mean == pytest.approx(everything.mean(), rel=1e-12)
        assert stream.squares / stream.n_samples == pytest.approx(everything.var(), rel=1e-9)


class TestResampling:
    @pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 24_000, 44_100, 44_101, 48_000, 96_000, 192_000])
    @pytest.mark.parametrize("block", [997, 65_536])
    def test_streaming_equals_one_call_for_any_block(self, monkeypatch, rate_hz, block):
        monkeypatch.setattr(audio_module, "BLOCK", block)
        n_source = int(RNG.integers(rate_hz, 2 * rate_hz))
        waveform = tone(3.0, rate_hz)[:n_source]
        waveform -= waveform[:block].mean(dtype=np.float64).astype(np.float32)
        expected = normalised(soxr.resample(waveform, rate_hz, SAMPLE_RATE_HZ))
        streamed = whole(Speech.from_array(waveform, rate_hz))
        assert abs(streamed.size - n_source * SAMPLE_RATE_HZ / rate_hz) < 1
        np.testing.assert_allclose(streamed, expected, atol=5e-6)

    def test_above_8_khz_nothing_folds_back(self):
        waveform = tone(1.0, 48_000, 220.0, noise=0) + 0.3 * np.sin(np.arange(48_000) * 2 * np.pi * 11_000 / 48_000)
        spectrum = np.abs(np.fft.rfft(whole(Speech.from_array(waveform, 48_000)) * np.hanning(16_000)))
        assert spectrum[4900:5100].max() < 1e-3 * spectrum.max()  # 11 kHz would appear at 5 kHz

    def test_seconds_are_kept(self):
        seconds = whole(Speech.from_array(tone(30.0, 44_100), 44_100)).size / SAMPLE_RATE_HZ
        assert seconds == pytest.approx(30.0, abs=1e-4)


class TestFormats:
    @pytest.mark.parametrize(
        ("suffix", "subtype", "rate_hz", "tolerance"),
        [
            ("wav", "PCM_U8", 16_000, 0.05),
            ("wav", "PCM_16", 16_000, 1e-3),
            ("wav", "PCM_24", 96_000, 1e-3),
            ("wav", "FLOAT", 44_100, 1e-3),
            ("wav", "DOUBLE", 8_000, 1e-3),
            ("wav", "ULAW", 16_000, 0.2),
            ("aiff", "PCM_16", 22_050, 1e-3),
            ("flac", "PCM_24", 48_000, 1e-3),
            ("ogg", "VORBIS", 44_100, 0.1),
            ("ogg", "OPUS", 48_000, 0.2),
            ("opus", "OPUS", 48_000, 0.2),
            ("mp3", "MPEG_LAYER_III", 44_100, 0.05),
        ],
    )
    def test_a_format_equals_the_array_it_was_written_from(self, tmp_path, suffix, subtype, rate_hz, tolerance):
        waveform = tone(2.0, rate_hz, noise=0.0)
        container = {"opus": "OGG"}.get(suffix, suffix.upper())
        path = tmp_path / f"grüße 声.{suffix}"
        soundfile.write(path, waveform, rate_hz, format=container, subtype=subtype)
        expected = whole(Speech.from_array(waveform, rate_hz))
        speech = Speech.from_file(path)
        assert speech.name == path.name
        assert speech.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        samples = whole(speech)
        assert abs(samples.size - expected.size) <= 1
        assert np.abs(samples - expected[: samples.size]).max() < tolerance

    @pytest.mark.parametrize("n_channels", [1, 2, 6, 8])
    def test_channels_are_averaged(self, tmp_path, n_channels):
        channels = np.stack([tone(1.0, pitch_hz=100 + 50 * i) for i in range(n_channels)])
        expected = normalised(channels.mean(axis=0))
        soundfile.write(tmp_path / "x.wav", channels.T, 16_000, subtype="FLOAT")
        np.testing.assert_allclose(whole(Speech.from_file(tmp_path / "x.wav")), expected, atol=1e-5)
        np.testing.assert_allclose(whole(Speech.from_array(channels, 16_000)), expected, atol=1e-5)

    @pytest.mark.skipif(not LIBRISPEECH.is_dir(), reason="../shared/data/librispeech_251 is not there")
    def test_real_speech(self):
        path = sorted(LIBRISPEECH.rglob("*.flac"))[0]
        waveform, rate_hz = soundfile.read(path, dtype="float32")
        assert rate_hz == 16_000
        np.testing.assert_allclose(whole(Speech.from_file(path)), normalised(waveform), atol=5e-6)

    def test_progress_grows_to_one(self, tmp_path):
        soundfile.write(tmp_path / "x.wav", tone(20.0), 16_000)
        calls = []
        Speech.from_file(tmp_path / "x.wav", progress=lambda stage, fraction: calls.append((stage, fraction))).close()
        fractions = [fraction for _, fraction in calls]
        assert {stage for stage, _ in calls} == {"audio"}
        assert len(calls) == 5 and fractions == sorted(fractions) and fractions[-1] == 1.0


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint8, np.float16, np.float64])
    def test_every_sample_type_means_the_same_sound(self, dtype):
        waveform = tone(1.0)
        if np.dtype(dtype).kind == "f":
            samples = waveform.astype(dtype)
        else:
            limits = np.iinfo(dtype)
            samples = np.round(waveform.astype(np.float64) * limits.max).astype(np.int64)
            samples = (samples // 2 + 128 if dtype == np.uint8 else samples).astype(dtype)
        tolerance = {1: 0.05, 2: 5e-3}.get(np.dtype(dtype).itemsize, 1e-3)
        expected = whole(Speech.from_array(waveform, 16_000))
        np.testing.assert_allclose(whole(Speech.from_array(samples, 16_000)), expected, atol=tolerance)

    def test_the_hash_is_of_the_bytes(self):
        waveform = tone(0.5)
        with Speech.from_array(waveform, 16_000) as speech:
            assert speech.sha256 == hashlib.sha256(waveform.tobytes()).hexdigest()

    @pytest.mark.parametrize(
        ("waveform", "rate_hz", "message"),
        [
            (np.zeros((2, 2, 9000)), 16_000, "3 axes"),
            (np.float32(1), 16_000, "0 axes"),
            (np.zeros((9000, 2)), 16_000, "9000 channels; channels come first"),
            (np.zeros(9000, complex), 16_000, "complex128 are not supported"),
            (np.zeros(9000, np.int64), 16_000, "int64 are not supported"),
            (np.zeros(9000, bool), 16_000, "bool are not supported"),
            (np.array(["a"] * 9000), 16_000, "not supported"),
            (tone(), 0, "sample rate is 0 Hz"),
            (tone(), -16_000, "sample rate"),
            (tone(), float("nan"), "sample rate is nan"),
            (tone(), None, "sample rate is None"),
            (np.zeros(0, np.float32), 16_000, "no samples"),
            (np.zeros((0, 9000), np.float32), 16_000, "no samples"),
            (tone(0.05), 16_000, r"0\.05 s of audio; at least 0\.2 s is needed"),
            (np.zeros(16_000), 16_000, "silent: every sample is zero"),
            (np.full(16_000, 0.25), 44_100, "silent: all samples have the same value"),
            (np.full(16_000, 1e39), 16_000, "not a number or infinite"),
        ],
    )
    def test_bad_arrays(self, waveform, rate_hz, message):
        with pytest.raises(UserError, match=message) as caught:
            Speech.from_array(waveform, rate_hz, name="mic")
        assert str(caught.value).startswith("mic: ")

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_the_second_of_a_bad_sample_is_named(self, bad):
        waveform = np.stack([tone(10.0, 44_100)] * 2)
        waveform[1, 44_100 * 7 + 4410] = bad
        with pytest.raises(UserError, match=r"the sample at 7\.100 s is not a number or infinite"):
            Speech.from_array(waveform, 44_100)

    def test_just_long_enough(self):
        assert Speech.from_array(tone(0.2), 16_000).n_samples == 3200


class TestBadFiles:
    def refused(self, path, message, error=UserError):
        with pytest.raises(error, match=message) as caught:
            Speech.from_file(path)
        assert path.name in str(caught.value)
        assert str(caught.value).endswith(".")

    def test_missing(self, tmp_path):
        self.refused(tmp_path / "x.wav", "there is no such audio file", MissingFileError)

    def test_a_folder(self, tmp_path):
        self.refused(tmp_path, "it is a folder")

    def test_empty(self, tmp_path):
        (tmp_path / "x.wav").write_bytes(b"")
        self.refused(tmp_path / "x.wav", r"the file is empty \(0 bytes\)")

    @pytest.mark.parametrize("text", ["hello world\n" * 50, "é" * 300, "short"])
    def test_text_renamed(self, tmp_path, text):
        (tmp_path / "x.wav").write_text(text, encoding="utf-8")
        self.refused(tmp_path / "x.wav", "no audio file .it contains text.")

    @pytest.mark.parametrize("suffix", ["wav", "raw", "mp3", "flac"])
    def test_noise(self, tmp_path, suffix):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(b"\x00\x80" + np.random.default_rng(1).bytes(5000))
        self.refused(path, "no audio file .no known format")

    @pytest.mark.parametrize(
        ("head", "kind"),
        [
            (b"\0\0\0\x20ftypM4A \0\0\0\0", "m4a, mp4, mov"),
            (b"\0\0\0\x20ftypqt  \0\0\0\0", "m4a, mp4, mov"),
            (b"\x1a\x45\xdf\xa3\x01\0\0\0", "mkv, webm"),
            (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wma"),
            (b"\xff\xf1\x50\x80", "AAC"),
        ],
    )
    def test_containers_only_blender_reads(self, tmp_path, head, kind):
        path = tmp_path / "x.wav"
        path.write_bytes(head + bytes(3000))
        self.refused(path, rf"{kind}.* Blender can decode it: choose it in the Speech panel, or convert it to wav")

    @pytest.mark.parametrize("suffix", ["flac", "mp3"])
    @pytest.mark.parametrize("kept", [0.3, 0.62, 0.95])
    def test_cut_off(self, tmp_path, suffix, kept):
        path = tmp_path / f"x.{suffix}"
        soundfile.write(path, tone(10.0, 44_100), 44_100)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        self.refused(path, r"damaged or cut off after \d+\.\d s of 10\.0 s")

    def test_a_whole_mp3_of_any_length_is_not_called_cut_off(self, tmp_path):
        for n_source in RNG.integers(10_000, 60_000, 12):
            soundfile.write(tmp_path / "x.mp3", tone(2.0, 44_100)[:n_source], 44_100)
            assert Speech.from_file(tmp_path / "x.mp3").n_samples == pytest.approx(n_source * 160 / 441, abs=1)

    @pytest.mark.parametrize("n_source", [0, 800])
    def test_too_short(self, tmp_path, n_source):
        soundfile.write(tmp_path / "x.wav", tone()[:n_source], 16_000)
        self.refused(tmp_path / "x.wav", r"no samples|0\.05 s of audio; at least 0\.2 s")

    def test_silence_and_nan(self, tmp_path):
        waveform = np.zeros((16_000, 2), np.float32)
        soundfile.write(tmp_path / "x.wav", waveform, 16_000, subtype="FLOAT")
        self.refused(tmp_path / "x.wav", "silent: every sample is zero")
        waveform[8000] = np.nan
        soundfile.write(tmp_path / "x.wav", waveform, 16_000, subtype="FLOAT")
        self.refused(tmp_path / "x.wav", r"at 0\.500 s")

    @pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
    def test_a_full_disk(self, tmp_path):
        import resource
        import signal

        soundfile.write(tmp_path / "x.wav", tone(20.0), 16_000)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
        try:
            with pytest.raises(UserError, match=r"x\.wav: the decoded audio cannot be stored in .*temp.* Free some"):
                Speech.from_file(tmp_path / "x.wav", temp_dir=make_folder(tmp_path / "temp"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert not list((tmp_path / "temp").iterdir())

    def test_a_missing_temporary_folder(self, tmp_path):
        soundfile.write(tmp_path / "x.wav", tone(), 16_000)
        with pytest.raises(UserError, match="cannot be stored in .*nowhere"):
            Speech.from_file(tmp_path / "x.wav", temp_dir=tmp_path / "nowhere")


def make_folder(path):
    path.mkdir()
    return path


def test_closing_leaves_nothing_behind(tmp_path):
    with Speech.from_array(tone(), 16_000, temp_dir=tmp_path) as speech:
        speech.read(0, 10)
    speech.close()
    assert not list(tmp_path.iterdir())


MEMORY_SCRIPT = """
import resource, sys
import numpy as np
from wav2sem_blender.pipeline.audio import Speech, split_utterances
with Speech.from_file(sys.argv[1]) as speech:
    n_ranges = len(split_utterances(speech))
    for start in range(0, speech.n_samples, 320_000):
        speech.read(start, min(start + 320_000, speech.n_samples))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, n_ranges)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="ru_maxrss is POSIX")
def test_an_hour_needs_little_more_memory_than_a_minute(tmp_path):
    peaks = []
    for minutes in (1, 60):
        path = tmp_path / f"{minutes}.wav"
        minute = np.concatenate([tone(8.0, noise=0.001), np.zeros(16_000 * 2, np.float32)] * 6)
        with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
        done = subprocess.run(
            [sys.executable, "-c", MEMORY_SCRIPT, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        peak, n_ranges = map(int, done.stdout.split())
        peaks.append(peak)
        assert minutes * 3 <= n_ranges <= minutes * 12
        path.unlink()
    assert peaks[1] <= 1.5 * peaks[0], peaks


class TestUtterances:
    def ranges(self, waveform, **limits):
        with Speech.from_array(waveform, 16_000) as speech:
            ranges = split_utterances(speech, **limits)
            assert ranges[0][0] == 0 and ranges[-1][1] == speech.n_samples
            assert all(before[1] == after[0] for before, after in zip(ranges, ranges[1:], strict=False))
            return ranges

    def test_up_to_20_s_is_one_range(self):
        assert self.ranges(tone(20.0)) == [(0, 320_000)]
        assert len(self.ranges(tone(20.5))) == 2

    def test_cuts_in_the_middle_of_the_longest_pause(self):
        waveform = 0.001 * RNG.normal(size=16_000 * 26).astype(np.float32)
        for start_s, stop_s in [(0, 5), (5.3, 11), (12, 18), (18.4, 26)]:
            a, b = int(start_s * 16_000), int(stop_s * 16_000)
            waveform[a:b] += tone((b - a) / 16_000)
        ((_, cut), _) = self.ranges(waveform)
        assert cut / 16_000 == pytest.approx(11.5, abs=0.05)

    def test_a_deep_pause_beats_a_shallow_one_of_the_same_length(self):
        waveform = tone(24.0)
        waveform[16_000 * 8 : 16_000 * 9] *= 0.15
        waveform[16_000 * 15 : 16_000 * 16] *= 0.005
        ((_, cut), _) = self.ranges(waveform)
        assert cut / 16_000 == pytest.approx(15.5, abs=0.05)

    def test_the_threshold_follows_the_level(self):
        # The quiet speaker after the loud one must not count as one long pause.
        loud, quiet = tone(30.0, noise=0.0), 0.03 * tone(60.0, noise=0.0)
        pauses_s = np.arange(3.0, 60.0, 5.0)
        for pause_s in pauses_s:
            quiet[int(pause_s * 16_000) : int((pause_s + 0.5) * 16_000)] *= 0.01
        cuts_s = np.array([stop for _, stop in self.ranges(np.concatenate([loud, quiet]))[:-1]]) / 16_000 - 30
        for cut_s in cuts_s[cuts_s > 8]:
            assert np.abs(pauses_s + 0.25 - cut_s).min() < 0.1

    @pytest.mark.parametrize("kind", ["noise", "tone", "long silence", "clicks", "words"])
    def test_every_range_keeps_its_limits(self, kind):
        for trial in range(4):
            n_samples = int(RNG.integers(16_000 * 20, 16_000 * 200))
            waveform = {
                "noise": lambda n: RNG.normal(size=n),
                "tone": lambda n: np.sin(np.arange(n) * 0.1),
                "long silence": lambda n: np.where(np.arange(n) < 16_000, np.sin(np.arange(n) * 0.1), 0),
                "clicks": lambda n: (RNG.random(n) < 1e-4).astype(float),
                "words": lambda n: np.sin(np.arange(n) * 0.1) * np.repeat(RNG.random(n // 4000 + 1) < 0.7, 4000)[:n],
            }[kind](n_samples)
            max_s, min_s = [(20.0, 2.0), (10.0, 5.0), (7.3, 0.5), (20.0, 9.99)][trial]
            lengths_s = np.diff(self.ranges(waveform, max_s=max_s, min_s=min_s), axis=1) / 16_000
            assert lengths_s.max() <= max_s
            assert lengths_s.min() >= min_s

    def test_steady_sound_is_cut_into_balanced_parts(self):
        lengths_s = np.diff(self.ranges(np.sin(np.arange(16_000 * 120) * 0.1)), axis=1) / 16_000
        assert lengths_s.min() > 6

    def test_impossible_limits(self):
        with pytest.raises(UserError, match="twice the shortest"):
            self.ranges(tone(), max_s=3, min_s=2)

    @pytest.mark.skipif(not LIBRISPEECH.is_dir(), reason="../shared/data/librispeech_251 is not there")
    def test_sentences_of_different_people_are_cut_where_it_is_quiet(self):
        clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(LIBRISPEECH.rglob("*.flac"))[:20]]
        waveform = np.concatenate(clips)
        level = np.sqrt(np.convolve(waveform**2, np.full(1600, 1 / 1600), mode="same"))
        cuts = [stop for _, stop in self.ranges(waveform)[:-1]]
        assert len(cuts) >= len(waveform) / 320_000 - 1
        assert np.median(level[cuts]) < 0.1 * np.sqrt(np.mean(waveform**2))
