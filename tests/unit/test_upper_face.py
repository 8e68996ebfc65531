# SPDX-License-Identifier: GPL-3.0-or-later
"""The upper face: rates and speeds of its movements, their triggers, and one performance per seed."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.prosody import Prosody
from wav2sem_blender.pipeline.upper_face import UPPER_FACE_CHANNELS, Performance, Settings, perform
from wav2sem_blender.pipeline.words.track import Direction

DEMO_SPEECH = Path(__file__).parents[2] / "wav2sem_blender" / "assets" / "demo_speech.flac"
PAUSE_HOPS = 50


def talk(duration_s: float, seed: int = 0) -> Prosody:
    """Syllables at 4 Hz, a few of them loud and high, and a pause of half a second every 1.5 to 6 seconds."""
    random = np.random.default_rng(seed)
    n_hops = int(duration_s * 100)
    time_s = np.arange(n_hops) / 100
    stress = np.maximum(0, np.sin(2 * np.pi * 0.53 * time_s)) ** 4
    level = -4 + 5 * np.cos(2 * np.pi * 4 * time_s) + 6 * stress
    pauses, begin_s = [], 2.0
    while begin_s + 1 < duration_s:
        pauses.append((int(100 * begin_s), int(100 * begin_s) + PAUSE_HOPS))
        begin_s += random.uniform(1.5, 6.0)
    for start, stop in pauses:
        level[start:stop] = -40
    return Prosody(
        level_db_P=level.astype(np.float32),
        pitch_st_P=(4 * stress).astype(np.float32),
        pauses_N2=np.array(pauses, dtype=np.int64).reshape(-1, 2),
        duration_s=duration_s,
    )


def curve(result, channel: str) -> np.ndarray:
    return result.motion.weights_TK[:, result.motion.channels.index(channel)]


def events(values_T: np.ndarray, above: float = 0.0) -> np.ndarray:
    """First and last frame of every run above a value (N, 2)."""
    edges = np.flatnonzero(np.diff(values_T > above, prepend=False, append=False))
    return np.stack([edges[::2], edges[1::2] - 1], axis=1)


@pytest.fixture(scope="module")
def lively():
    """Twenty minutes at 120 frames per second, fine enough to measure blinks and saccades."""
    speech = talk(1200.0)
    return speech, perform(speech, Settings(seed=3, head_sway=1.0), 120.0)


@pytest.mark.parametrize("fps", [24000 / 1001, 24.0, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("duration_s", [0.2, 3.37, 60.0])
def test_length_ends_and_range(fps, duration_s):
    result = perform(talk(duration_s), Settings(head_sway=1.0, brows=3.0, eye_darts=3.0), fps)
    weights_TK = result.motion.weights_TK
    assert len(weights_TK) == len(result.head_deg_T3) == round(duration_s * fps)
    assert result.motion.channels == UPPER_FACE_CHANNELS and result.motion.fps == fps
    assert weights_TK.min() >= 0 and weights_TK.max() <= 1
    assert not weights_TK[[0, -1]].any() and np.abs(result.head_deg_T3[[0, -1]]).max() < 1e-6


def test_the_mouths_length_counts_where_it_is_given():
    result = perform(talk(6.585), Settings(head_sway=1.0), 30.0, n_frames=197)
    assert result.motion.n_frames == len(result.head_deg_T3) == 197
    assert not result.motion.weights_TK[-1].any() and not result.head_deg_T3[-1].any()


def test_a_seed_is_one_performance():
    speech = talk(60.0)
    once, again, other = (perform(speech, Settings(seed=seed, head_sway=1.0), 30.0) for seed in (5, 5, 6))
    np.testing.assert_array_equal(once.motion.weights_TK, again.motion.weights_TK)
    np.testing.assert_array_equal(once.head_deg_T3, again.head_deg_T3)
    for channel in ("eyeBlinkLeft", "eyeLookOutLeft", "browInnerUp"):
        assert (curve(once, channel) != curve(other, channel)).any(), channel


def test_a_feature_changes_nothing_of_the_others():
    speech, settings = talk(60.0), Settings(head_sway=1.0)
    whole = perform(speech, settings, 30.0)
    calm = perform(speech, replace(settings, brows=0.0, blinks_per_minute=30.0), 30.0)
    assert not [name for name in calm.motion.channels if name.startswith("brow")]
    np.testing.assert_array_equal(curve(calm, "eyeLookInRight"), curve(whole, "eyeLookInRight"))
    np.testing.assert_array_equal(calm.head_deg_T3, whole.head_deg_T3)


def test_all_amounts_at_zero_leave_nothing():
    settings = Settings(blinks_per_minute=0.0, brows=0.0, eye_darts=0.0, head_sway=0.0)
    result = perform(talk(10.0), settings, 30.0)
    assert result.motion.channels == () and not result.head_deg_T3.any()


def test_amounts_scale_heights_and_keep_times():
    speech = talk(60.0)
    one, half = (perform(speech, Settings(brows=a, eye_darts=a, head_sway=a), 30.0) for a in (1.0, 0.5))
    for channel in ("browInnerUp", "eyeLookOutLeft"):
        np.testing.assert_allclose(curve(half, channel), 0.5 * curve(one, channel), atol=1e-6)
    np.testing.assert_allclose(half.head_deg_T3, 0.5 * one.head_deg_T3, atol=1e-5)
    np.testing.assert_array_equal(curve(half, "eyeBlinkLeft"), curve(one, "eyeBlinkLeft"))


def test_blinks_are_log_normal_around_the_rate(lively):
    _, result = lively
    starts_s = events(curve(result, "eyeBlinkLeft"))[:, 0] / 120
    intervals_s = np.diff(starts_s)
    assert 3.0 < intervals_s.mean() < 4.0, "18 per minute are one in 3.3 s, and fewer in the pauses"
    logarithm = np.log(intervals_s)
    assert 0.35 < logarithm.std() < 0.7
    skew = np.mean(((intervals_s - intervals_s.mean()) / intervals_s.std()) ** 3)
    log_skew = np.mean(((logarithm - logarithm.mean()) / logarithm.std()) ** 3)
    assert skew > 0.5 and abs(log_skew) < skew / 2, "the logarithm is symmetric"
    np.testing.assert_array_equal(curve(result, "eyeBlinkLeft"), curve(result, "eyeBlinkRight"))


def test_a_blink_has_the_measured_shape(lively):
    """Between the phone's and the film's: closed by more than half for 0.13 and 0.16 s; 100 ms after the peak, 0.22 and
    0.5 are left."""
    _, result = lively
    lids_T = curve(result, "eyeBlinkLeft")
    halves_s, after = [], []
    for start, last in events(lids_T):
        peak = start + int(np.argmax(lids_T[start : last + 1]))
        assert lids_T[peak] == pytest.approx(1.0, abs=1e-6)
        assert 0.07 <= (peak - start + 1) / 120 <= 0.11 and 0.17 <= (last - peak + 1) / 120 <= 0.26
        halves_s.append((lids_T[start : last + 1] > 0.5).sum() / 120)
        after.append(lids_T[[peak + 3, peak + 12]])
    assert 0.12 < np.mean(halves_s) < 0.16
    soon, later = np.median(after, axis=0)
    assert 0.84 < soon < 0.95 and 0.22 < later < 0.5


@pytest.mark.parametrize("fps", [24.0, 30.0])
def test_lids_meet_on_a_frame_at_low_rates(fps):
    lids_T = curve(perform(talk(120.0), Settings(), fps), "eyeBlinkLeft")
    found = events(lids_T)
    assert len(found) > 20
    assert all(lids_T[start : last + 1].max() == pytest.approx(1.0) for start, last in found)


def test_blinks_gather_in_pauses(lively):
    speech, result = lively
    at_s = events(curve(result, "eyeBlinkLeft"))[:, 0] / 120
    pauses_s = speech.pauses_N2 * speech.hop_s
    share = np.mean([((pauses_s[:, 0] - 0.05 <= t) & (t < pauses_s[:, 1])).any() for t in at_s])
    by_chance = np.sum(pauses_s[:, 1] - pauses_s[:, 0]) / speech.duration_s
    assert share > 2.5 * by_chance


def test_blinks_in_silence_come_at_two_thirds_of_the_rate():
    """The same draws, so that every interval is 26 / 17 as long; where the first half is silent, the second is not."""

    def intervals_s(*pauses: tuple[int, int]) -> np.ndarray:
        speech = replace(talk(600.0), pauses_N2=np.array(pauses, np.int64).reshape(-1, 2))
        return np.diff(events(curve(perform(speech, Settings(seed=1), 500.0), "eyeBlinkLeft"))[:, 0]) / 500

    speaking_s, silent_s, later_s = intervals_s(), intervals_s((0, 60_000)), intervals_s((0, 30_000))
    assert 110 < len(silent_s) < len(later_s) < len(speaking_s)
    np.testing.assert_allclose(silent_s, 26 / 17 * speaking_s[: len(silent_s)], atol=0.05)
    n_silent = int(np.searchsorted(np.cumsum(later_s), 290))
    np.testing.assert_allclose(later_s[:n_silent], silent_s[:n_silent], atol=0.05)
    np.testing.assert_allclose(later_s[n_silent + 8 :], speaking_s[n_silent + 8 : len(later_s)], atol=0.05)


def test_brows_peak_with_a_stressed_syllable_and_begin_100_to_200_ms_ahead(lively):
    speech, result = lively
    times_s, prominence_N = speech.stresses()
    stressed_s = times_s[prominence_N > 0.4]
    brow_T = np.maximum(curve(result, "browInnerUp"), curve(result, "browDownLeft"))
    found = events(brow_T)
    assert 0.15 < len(found) / speech.duration_s < 0.7
    assert curve(result, "browInnerUp").max() < 0.6, "small"
    for start, last in found:
        peak_s = (start + int(np.argmax(brow_T[start : last + 1]))) / 120
        ahead_s = stressed_s - start / 120
        led = stressed_s[(ahead_s > 0.10 - 2 / 120) & (ahead_s < 0.20 + 2 / 120)]
        assert len(led) and np.abs(led - peak_s).min() < 0.03


def test_eyes_jump_together_fast_and_stay(lively):
    _, result = lively
    left_T = 30 * (curve(result, "eyeLookOutLeft") - curve(result, "eyeLookInLeft"))
    right_T = 30 * (curve(result, "eyeLookInRight") - curve(result, "eyeLookOutRight"))
    np.testing.assert_allclose(left_T, right_T, atol=1e-4)
    up_T = 20 * curve(result, "eyeLookUpLeft") - 25 * curve(result, "eyeLookDownLeft")
    assert np.abs(left_T).max() <= 6.001 and np.abs(up_T).max() <= 3.001
    moving_T = (np.abs(np.diff(left_T)) + np.abs(np.diff(up_T)) > 1e-4).astype(float)
    jumps = events(moving_T)
    lengths_s = (jumps[:-1, 1] - jumps[:-1, 0] + 1) / 120
    assert lengths_s.min() >= 0.02 - 1 / 120 and lengths_s.max() <= 0.05 + 2 / 120
    stays_s = (jumps[1:, 0] - jumps[:-1, 1]) / 120
    # Two rests at the listener in a row are one.
    assert stays_s.min() >= 0.3 - 2 / 120 and np.percentile(stays_s, 50) < 1.5


def test_the_head_moves_slowly_and_less_in_silence(lively):
    speech, result = lively
    yaw_T = result.head_deg_T3[:, 0].astype(float)
    assert 0.8 < yaw_T.std() < 2.0 and np.abs(result.head_deg_T3).max() < 8
    power = np.square(np.abs(np.fft.rfft(yaw_T)))
    hz = np.fft.rfftfreq(len(yaw_T), 1 / 120)
    assert power[hz > 1.5].sum() < 0.02 * power.sum()
    silent = replace(speech, pauses_N2=np.array([[0, len(speech.level_db_P)]]))
    still = perform(silent, Settings(seed=3, head_sway=1.0), 120.0).head_deg_T3
    assert still[:, 0].std() < 0.5 * yaw_T.std()


def test_faster_speech_keeps_the_pace_of_the_eyes():
    speech = talk(1200.0)
    blinks = [len(events(curve(perform(s, Settings(), 60.0), "eyeBlinkLeft"))) for s in (speech, speech.at_speed(2.0))]
    assert blinks[1] == pytest.approx(blinks[0] / 2, rel=0.2)


def test_an_hour_needs_little_memory():
    speech, settings = talk(3600.0), Settings(head_sway=1.0)
    tracemalloc.start()
    try:
        perform(speech, settings, 30.0)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 80e6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed -1"),
        ({"blinks_per_minute": 61.0}, "Blinks per minute is 61.0; choose 0 to 60"),
        ({"brows": float("nan")}, "Brows is nan"),
        ({"head_sway": -0.5}, "Head sway is -0.5"),
    ],
)
def test_bad_settings_are_named(values, message):
    with pytest.raises(UserError, match=message):
        Settings(**values)


def test_bad_rates_and_files_are_named(tmp_path):
    with pytest.raises(UserError, match="frame rate 0"):
        perform(talk(1.0), Settings(), 0.0)
    (tmp_path / "x.npz").write_bytes(b"PK nonsense")
    with pytest.raises(UserError, match=r"x\.npz: damaged"):
        Prosody.load(tmp_path / "x.npz")


def test_what_was_heard_survives_a_file(tmp_path):
    speech = talk(5.0)
    speech.save(tmp_path / "prosody.npz")
    read = Prosody.load(tmp_path / "prosody.npz")
    assert (read.duration_s, read.hop_s) == (5.0, 0.01)
    settings = Settings(seed=1)
    np.testing.assert_array_equal(
        perform(read, settings, 30.0).motion.weights_TK, perform(speech, settings, 30.0).motion.weights_TK
    )


def listen(waveform_S: np.ndarray) -> Prosody:
    pytest.importorskip("soxr")
    from wav2sem_blender.pipeline.audio import Speech
    from wav2sem_blender.pipeline.prosody import listen

    with Speech.from_array(waveform_S, 16_000) as speech:
        return listen(speech)


@pytest.mark.parametrize("pitch_hz", [90.0, 140.0, 220.0, 330.0])
def test_pitch_of_a_voice_that_jumps_an_octave_or_a_fifth(pitch_hz):
    other_hz = pitch_hz * (2.0 if pitch_hz < 200 else 2 / 3)
    hz_S = np.where(np.arange(48_000) < 32_000, pitch_hz, other_hz)
    phase_S = 2 * np.pi * np.cumsum(hz_S) / 16_000
    heard = listen(sum(np.sin(k * phase_S) / k for k in range(1, 9)))
    expected_st = 12 * np.log2(other_hz / pitch_hz)
    assert np.nanmedian(heard.pitch_st_P[20:180]) == pytest.approx(0.0, abs=0.05)
    assert np.nanmedian(heard.pitch_st_P[220:280]) == pytest.approx(expected_st, abs=0.3)


def test_noise_has_no_pitch_and_quiet_is_a_pause():
    random = np.random.default_rng(0)
    noise_S = random.normal(0, 0.1, 64_000)
    noise_S[24_000:40_000] *= 1e-4
    heard = listen(noise_S)
    assert np.mean(np.isfinite(heard.pitch_st_P)) < 0.05
    assert len(heard.level_db_P) == 400 and heard.duration_s == 4.0
    assert len(heard.pauses_N2) == 1
    np.testing.assert_allclose(heard.pauses_N2[0], (150, 250), atol=4)
    np.testing.assert_allclose(heard.speaking()[[50, 200, 350]], (1, 0, 1))


def test_the_louder_and_higher_syllable_is_the_stressed_one():
    time_s = np.arange(80_000) / 16_000
    bump = np.exp(-(((time_s - 2.375) / 0.1) ** 2))
    envelope = (0.3 + 0.3 * bump) * (0.05 + np.sin(np.pi * 4 * time_s) ** 2)
    phase = 2 * np.pi * np.cumsum(120 + 40 * bump) / 16_000
    heard = listen(envelope * sum(np.sin(k * phase) / k for k in range(1, 9)))
    times_s, prominence_N = heard.stresses()
    assert len(times_s) == pytest.approx(20, abs=1)
    assert times_s[np.argmax(prominence_N)] == pytest.approx(2.375, abs=0.03)
    assert np.sum(prominence_N > 0.4) <= 3


def test_the_demo_speech_gets_blinks_brows_and_darts():
    pytest.importorskip("soxr")
    from wav2sem_blender.pipeline.audio import Speech
    from wav2sem_blender.pipeline.prosody import listen

    with Speech.from_file(DEMO_SPEECH) as speech:
        heard = listen(speech)
        result = perform(heard, Settings(), 30.0)
        assert result.motion.n_frames == round(speech.duration_s * 30)
    assert 12 < len(heard.stresses()[0]) < 40
    assert curve(result, "eyeBlinkLeft").max() == pytest.approx(1.0)
    assert curve(result, "browInnerUp").max() > 0.1
    assert max(curve(result, "eyeLookOutLeft").max(), curve(result, "eyeLookInLeft").max()) > 0.05


def weakest(speech: Prosody) -> float:
    """Time of the weakest syllable in the middle of 20 s."""
    times_s, prominence_N = speech.stresses()
    middle = (times_s > 5) & (times_s < 15)
    return float(times_s[middle][np.argmin(prominence_N[middle])])


@pytest.mark.parametrize("seed", range(6))
def test_brows_and_head_mark_what_is_directed_and_nothing_else_changes(seed: int) -> None:
    speech, fps = talk(20.0), 60.0
    weak_s = weakest(speech)
    face, span_s = Performance(speech, Settings(seed=seed, head_sway=1.0), fps), (weak_s - 0.1, weak_s + 0.1)
    plain, marked = face.directed(), face.directed([Direction(name, *span_s, 1.0) for name in ("brows", "head")])
    inner = plain.motion.channels.index("browInnerUp")
    at = slice(round((weak_s - 0.05) * fps), round((weak_s + 0.05) * fps) + 1)
    assert marked.motion.weights_TK[at, inner].max() > 0.35
    assert (marked.head_deg_T3[at, 1] - plain.head_deg_T3[at, 1]).max() <= 1e-5, "the head nods, if it did not anyway"
    others = [k for k, name in enumerate(plain.motion.channels) if not name.startswith("brow")]
    np.testing.assert_array_equal(marked.motion.weights_TK[:, others], plain.motion.weights_TK[:, others])
    for before, after in (
        (plain.motion.weights_TK, marked.motion.weights_TK),
        (plain.head_deg_T3, marked.head_deg_T3),
    ):
        changed = np.flatnonzero((before != after).any(1)) / fps
        assert weak_s - 0.7 < changed.min() and changed.max() < weak_s + 0.8
    np.testing.assert_array_equal(marked.head_deg_T3[:, [0, 2]], plain.head_deg_T3[:, [0, 2]])


def test_the_amount_scales_the_movement_and_more_than_the_limit_is_cut_off() -> None:
    speech, quiet = talk(20.0), Settings(brows=1.0, head_sway=1.0)
    span_s = (weakest(speech) - 0.1, weakest(speech) + 0.1)
    face, inner = Performance(speech, quiet, 60.0), 0
    peaks, nods = [], []
    for amount in (0.5, 1.0, 2.0):
        result = face.directed([Direction(name, *span_s, amount) for name in ("brows", "head")])
        inner, at = result.motion.channels.index("browInnerUp"), slice(round(60 * span_s[0]), round(60 * span_s[1]))
        peaks.append(result.motion.weights_TK[at, inner].max())
        nods.append(np.min(result.head_deg_T3[at, 1] - face.directed().head_deg_T3[at, 1]))
    assert peaks[1] == pytest.approx(2 * peaks[0], rel=0.02) and peaks[2] == pytest.approx(2 * peaks[1], rel=0.02)
    assert nods[2] < nods[1] - 1 < 0
    lively = Performance(speech, Settings(brows=3.0), 60.0).directed([Direction("brows", *span_s, 2.0)])
    assert lively.motion.weights_TK.max() <= 1.0


def test_below_zero_brows_and_head_keep_still() -> None:
    speech, fps = talk(20.0), 60.0
    face = Performance(speech, Settings(head_sway=1.0), fps)
    still = face.directed([Direction(name, 5.0, 15.0, -1.0) for name in ("brows", "head")])
    brows = [k for k, name in enumerate(still.motion.channels) if name.startswith("brow")]
    inside = slice(round(5 * fps), round(15 * fps))
    assert np.abs(face.directed().motion.weights_TK[inside, brows]).max() > 0.1
    assert np.abs(still.motion.weights_TK[inside, brows]).max() == 0.0
    assert np.abs(still.head_deg_T3[inside]).max() < 1e-6 < np.abs(face.directed().head_deg_T3[inside]).max()


def test_a_curve_is_followed_as_it_is() -> None:
    speech, fps = talk(20.0), 60.0
    face = Performance(speech, Settings(head_sway=1.0), fps)
    ramp = tuple(np.linspace(0, 1, 61).tolist())
    posed = face.directed([Direction(name, 10.0, 11.0, None, ramp) for name in ("brows", "head")])
    inner = posed.motion.weights_TK[:, posed.motion.channels.index("browInnerUp")]
    at_T = np.arange(round(10.5 * fps), round(11 * fps))
    assert (inner[at_T] >= 0.46 * (at_T / fps - 10) - 1e-5).all() and inner[at_T[-1]] < 0.6
    assert posed.head_deg_T3[at_T[-1], 1] < face.directed().head_deg_T3[at_T[-1], 1] - 1


def test_a_long_direction_marks_several_syllables_that_are_apart() -> None:
    speech = talk(20.0)
    face = Performance(speech, Settings(), 60.0)
    times_s = sorted(face._stressed_in(Direction("brows", 4.0, 16.0, 1.0)))
    assert len(times_s) > 3 and np.diff(times_s).min() >= 0.7
    assert len(face._stressed_in(Direction("brows", times_s[0] - 0.2, times_s[0] + 0.2, 1.0))) == 1


def test_a_direction_in_silence_moves_its_middle_and_at_the_ends_the_face_rests() -> None:
    speech = replace(talk(10.0), level_db_P=np.full_like(talk(10.0).level_db_P, -80.0))
    for span_s, peak_s in (((4.0, 4.4), 4.2), ((0.0, 0.2), 0.1), ((9.7, 10.0), 9.85)):
        result = perform(speech, Settings(), 60.0, directions=[Direction("brows", *span_s, 1.0)])
        inner = result.motion.weights_TK[:, result.motion.channels.index("browInnerUp")]
        assert inner.max() > 0.3 and np.argmax(inner) / 60 == pytest.approx(peak_s, abs=0.17)
        assert inner[0] == inner[-1] == 0.0
    beyond = perform(speech, Settings(), 60.0, directions=[Direction("brows", 10.5, 11.0, 1.0)])
    np.testing.assert_array_equal(beyond.motion.weights_TK, perform(speech, Settings(), 60.0).motion.weights_TK)
