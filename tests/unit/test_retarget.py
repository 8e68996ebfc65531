# SPDX-License-Identifier: GPL-3.0-or-later
"""Retargeting: events keep their time and extremes their value at every rate; smoothing has zero phase."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.retarget import covering, gain, resample, rested, shift, smooth

from .made_up_motions import RNG, as_motion, wandering  # noqa: TID252

FACEGOOD = Path(__file__).parents[2].parent / "shared" / "data" / "facegood"
RATES = [24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 60]


def unchanged_except(before, after, *names):
    for field in fields(Motion):
        if field.name not in names:
            assert getattr(before, field.name) is getattr(after, field.name) or np.all(
                getattr(before, field.name) == getattr(after, field.name)
            )


class TestResample:
    @pytest.mark.parametrize("fps", RATES)
    @pytest.mark.parametrize("source_fps", [25, 30])
    def test_seconds_are_kept_to_the_last_frame_of_ten_minutes(self, fps, source_fps):
        n_frames = 600 * source_fps
        ramp = as_motion(np.arange(n_frames) / source_fps / 600, fps=source_fps)
        out = resample(ramp, fps)
        assert out.fps == fps
        assert abs(out.duration_s - ramp.duration_s) <= 0.5 / fps
        seconds = np.minimum(np.arange(out.n_frames) / fps, (n_frames - 1) / source_fps)
        np.testing.assert_allclose(out.weights_TK[:, 0] * 600, seconds, atol=600 * 1e-7)
        unchanged_except(ramp, out, "weights_TK", "fps")

    @pytest.mark.parametrize("fps", RATES)
    def test_every_closure_stays_closed_and_in_place(self, fps):
        events_s = np.sort(RNG.choice(np.arange(5, 17_990, 8), 800, replace=False)) / 30
        curve = np.full(18_000, 0.7)
        curve[np.round(events_s * 30).astype(int)] = 0.0
        out = resample(as_motion(curve), fps).weights_TK[:, 0]
        closed_s = np.flatnonzero(out < 1e-6) / fps
        assert len(closed_s) == 800
        assert np.abs(closed_s - events_s).max() <= 0.5 / fps + 1e-9

    @pytest.mark.parametrize("first", [7, 10, 22, 31])
    def test_a_part_is_resampled_as_in_the_whole(self, first):
        # A minimum and a maximum side by side fall on one frame of 24 a second, and miss it alike.
        whole = as_motion(RNG.normal(size=(400, 40)))
        frame = int(np.ceil(first * 24 / 30))
        part = replace(whole, weights_TK=whole.weights_TK[first:])
        out = resample(part, 24, (first / 30 * 24 - frame) / 24).weights_TK
        expected = resample(whole, 24).weights_TK[frame:]
        np.testing.assert_allclose(out[2:200], expected[2:200], atol=1e-5)

    def test_plateaus_are_kept_too(self):
        curve = np.full(301, 0.7)
        starts = np.arange(4, 290, 11)
        for start in starts:
            curve[start : start + 2] = 0.0
        out = resample(as_motion(curve, fps=60), 24).weights_TK[:, 0]
        assert np.sum(out == 0) == len(starts)

    def test_values_stay_inside_the_source(self):
        motion = as_motion(wandering(500))
        for fps in RATES:
            out = resample(motion, fps)
            assert np.all(out.weights_TK.max(axis=0) <= motion.weights_TK.max(axis=0))
            assert np.all(out.weights_TK.min(axis=0) >= motion.weights_TK.min(axis=0))
            assert out.weights_TK.max() == motion.weights_TK[1:-1].max()

    def test_doubling_keeps_every_source_frame(self):
        motion = as_motion(wandering(77))
        np.testing.assert_array_equal(resample(motion, 60).weights_TK[::2], motion.weights_TK)

    @pytest.mark.parametrize("n_frames", [0, 1, 2, 3])
    def test_tiny_motions(self, n_frames):
        for fps in (1, *RATES, 120):
            out = resample(as_motion(wandering(n_frames, smoothness=1)[:n_frames]), fps)
            assert out.n_frames == (max(1, round(n_frames * fps / 30)) if n_frames else 0)

    def test_the_same_rate_changes_nothing(self):
        motion = as_motion(wandering(40))
        np.testing.assert_array_equal(resample(motion, 30).weights_TK, motion.weights_TK)

    @pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
    def test_impossible_rates(self, fps):
        with pytest.raises(UserError, match="frame rate"):
            resample(as_motion(wandering(4)), fps)

    @pytest.mark.skipif(not FACEGOOD.is_dir(), reason="../shared/data/facegood is not there")
    def test_artists_curves_lose_no_peak_and_come_closer_than_plain_interpolation(self):
        curves = np.load(FACEGOOD / "bs_1114_2_01.npz")["bs"].astype(np.float32)
        curves = curves[:, curves.std(axis=0) > 0.02]
        out = resample(as_motion(curves), 24)
        plain = np.stack(
            [np.interp(np.arange(out.n_frames) * 1.25, np.arange(len(curves)), c) for c in curves.T], axis=1
        )

        def missed(new):
            back = [np.interp(np.arange(len(curves)) * 0.8, np.arange(len(new)), c) for c in new.T]
            return np.sqrt(np.mean((np.stack(back, axis=1) - curves) ** 2))

        assert missed(out.weights_TK) < missed(plain)


class TestShift:
    @pytest.mark.parametrize("n_shift", [-7, 3, 0, 500, -500])
    def test_whole_frames_are_exact(self, n_shift):
        weights = wandering(50).astype(np.float32)
        out = shift(as_motion(weights), n_shift * 1000 / 30).weights_TK
        np.testing.assert_allclose(out, weights[np.clip(np.arange(50) - n_shift, 0, 49)], atol=1e-6)

    def test_positive_is_later(self):
        curve = np.zeros(60)
        curve[30] = 1
        assert np.argmax(shift(as_motion(curve), 100).weights_TK) == 33
        assert np.argmax(shift(as_motion(curve), -100).weights_TK) == 27

    def test_parts_of_a_frame_move_slopes_and_keep_peaks(self):
        ramp = np.arange(100) / 100
        np.testing.assert_allclose(
            shift(as_motion(ramp), 10).weights_TK[1:, 0], ramp[1:] - 0.3 / 100, atol=1e-6
        )  # 10 ms are 0.3 frames
        motion = as_motion(wandering(200))
        assert shift(motion, 17).weights_TK.max() == motion.weights_TK[1:-1].max()

    @pytest.mark.parametrize("fps", [24, 25, 30, 60])
    def test_resampling_and_a_part_of_a_frame_at_once(self, fps):
        n_frames = 300
        ramp = as_motion(np.arange(n_frames) / n_frames)
        out = resample(ramp, fps, later_s=0.4 / fps).weights_TK[:, 0]
        seconds = np.clip((np.arange(len(out)) - 0.4) / fps, 0, (n_frames - 1) / 30)
        np.testing.assert_allclose(out, seconds * 30 / n_frames, atol=1e-6)

    def test_not_a_number(self):
        with pytest.raises(UserError, match="shift"):
            shift(as_motion(wandering(4)), float("nan"))


class TestRested:
    @pytest.mark.parametrize("fps", [24.0, 30.0, 60.0])
    def test_a_cut_in_the_middle_of_a_word_ends_at_rest(self, fps):
        motion = as_motion(np.full((40, 2), (0.8, -0.4)), fps)
        weights_TK = rested(motion).weights_TK
        assert weights_TK[[0, 1, -2, -1]].tolist() == [[0, 0]] * 4
        n_between = round(0.1 * fps) + 1
        np.testing.assert_allclose(
            weights_TK[1 + n_between : -1 - n_between], motion.weights_TK[: 40 - 2 - 2 * n_between]
        )
        assert (np.diff(weights_TK[: n_between + 2, 0]) >= 0).all() and np.diff(weights_TK[:, 0]).max() < 0.5
        np.testing.assert_array_equal(weights_TK, weights_TK[::-1])

    def test_what_begins_at_rest_is_not_changed(self):
        motion = as_motion(0.9 * np.sin(np.linspace(0, np.pi, 60)[:, None]) ** 2, 30.0)
        np.testing.assert_allclose(rested(motion).weights_TK[2:-2], motion.weights_TK[2:-2])
        again = rested(rested(motion))
        np.testing.assert_array_equal(again.weights_TK, rested(motion).weights_TK)

    @pytest.mark.parametrize("n_frames", range(5))
    def test_the_shortest(self, n_frames):
        assert rested(as_motion(np.ones((n_frames, 1)), 30.0)).weights_TK.tolist() == [[0]] * n_frames


class TestGainAndSmooth:
    def test_gain(self):
        motion = as_motion(wandering(20), n_vertices=3)
        np.testing.assert_allclose(gain(motion, 1.5).vertex_offsets(), 1.5 * motion.vertex_offsets(), atol=1e-7)
        assert not gain(motion, 0).weights_TK.any()
        unchanged_except(motion, gain(motion, 2), "weights_TK")
        with pytest.raises(UserError, match="strength"):
            gain(motion, float("inf"))

    @pytest.mark.parametrize("fps", [24, 30, 60])
    @pytest.mark.parametrize("seconds", [0.05, 0.1, 0.4])
    def test_a_pulse_becomes_symmetric_as_wide_as_asked_and_keeps_its_area(self, fps, seconds):
        pulse = np.zeros(6 * fps + 1)
        pulse[3 * fps] = 1
        out = smooth(as_motion(pulse, fps=fps), seconds).weights_TK[:, 0]
        np.testing.assert_allclose(out, out[::-1], atol=1e-7)
        assert out.sum() == pytest.approx(1, abs=1e-5)
        if seconds * fps >= 3:
            fine = np.interp(np.arange(0, 6, 1e-3), np.arange(len(out)) / fps, out)
            assert np.sum(fine > out.max() / 2) * 1e-3 == pytest.approx(seconds, rel=0.08)

    def test_smoothing_commutes_with_reversal_and_keeps_constants(self):
        motion = as_motion(wandering(101))
        backwards = as_motion(motion.weights_TK[::-1])
        np.testing.assert_allclose(smooth(backwards, 0.2).weights_TK[::-1], smooth(motion, 0.2).weights_TK, atol=1e-7)
        np.testing.assert_allclose(smooth(as_motion(np.full(9, 0.3)), 2.0).weights_TK, 0.3, atol=1e-7)

    @pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2])
    def test_lips_that_close_in_speech_stay_closed_and_the_rest_is_calmer(self, seconds):
        jaw = 0.5 + 0.1 * (-1.0) ** np.arange(120)  # trembles
        closed = np.array([30, 31, 60, 90])
        jaw[closed] = 0.0
        jaw[[29, 32, 59, 61, 89, 91]] = 0.25
        motion = Motion(weights_TK=np.stack([jaw, 0.3 * jaw], 1), channels=("jawOpen", "mouthPucker"), fps=30)
        out = smooth(motion, seconds).weights_TK
        np.testing.assert_allclose(out[closed], motion.weights_TK[closed], atol=1e-6)
        assert np.ptp(out[70:80, 0]) < 0.5 * np.ptp(jaw[70:80])
        without_names = smooth(as_motion(motion.weights_TK), seconds).weights_TK
        assert np.all(without_names[closed, 0] > 0.03), "else this test cannot fail"

    def test_zero_changes_nothing_and_negative_is_refused(self):
        motion = as_motion(wandering(10))
        assert smooth(motion, 0) is motion
        with pytest.raises(UserError, match="0 or more"):
            smooth(motion, -0.1)

    def test_empty(self):
        assert smooth(as_motion(np.zeros((0, 3))), 0.1).n_frames == 0


@pytest.mark.parametrize("fps", [24, 24000 / 1001, 25, 30, 60])
@pytest.mark.parametrize("audio_s", [0.2, 1.0, 2.5, 10.0])
def test_a_sound_is_covered_to_its_end_by_the_last_pose(fps, audio_s):
    n_frames = int(audio_s * fps + 1e-3)
    weights_TK = np.arange(2.0 * (n_frames - 1)).reshape(-1, 2)
    motion = Motion(weights_TK=weights_TK, channels=("a", "b"), fps=fps, info={"audio_s": str(audio_s)})
    covered = covering(motion)
    np.testing.assert_array_equal(covered.weights_TK, np.concatenate([weights_TK, weights_TK[-1:]]))
    assert covering(covered) is covered
    assert covering(replace(motion, info={})).n_frames == n_frames - 1
    assert covering(replace(motion, info={"audio_s": "3600"})).n_frames == n_frames - 1 + round(fps / 4)
