# SPDX-License-Identifier: GPL-3.0-or-later
"""The time grids, and the windows of a long recording: which frames each one reads, and how much of them counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wav2sem_blender.pipeline.frame_timing import FrameGrid, encoder_frames
from wav2sem_blender.pipeline.windows import Window, plan, run_windows

RATE_HZ = 16_000
AT_30, AT_25 = FrameGrid.at_rate(30), FrameGrid.at_rate(25)


def samples_of(n_enc_frames: int) -> int:
    """The shortest recording of so many encoder frames."""
    return 400 + 320 * (n_enc_frames - 1) if n_enc_frames else 0


def shares(windows: list[Window], n_frames: int) -> np.ndarray:
    """How much of each memory frame comes from each window (R, windows)."""
    one_hot = np.eye(len(windows), dtype=np.float32)
    return run_windows(
        windows, n_frames, lambda w: one_hot[[windows.index(w)] * (w.last - w.first)], lambda fraction: None
    )


class TestFrameTiming:
    def test_encoder_frames_are_what_seven_convolutions_make(self):
        for n_samples in range(400, 3000, 7):
            n_frames = n_samples
            for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
                n_frames = (n_frames - kernel) // stride + 1
            assert encoder_frames(n_samples) == n_frames
        assert [encoder_frames(n) for n in (0, 1, 79, 80, 399, 400, 719, 720)] == [0, 0, 0, 0, 0, 1, 1, 2]

    @pytest.mark.parametrize(
        ("n_enc_frames", "at_30_fps", "at_25_fps"),
        [(0, 0, 0), (1, 0, 0), (2, 1, 1), (4, 2, 2), (50, 30, 25), (99, 59, 49), (205, 122, 102), (3149, 1889, 1574)],
    )
    def test_animation_frames_are_counted_in_floats(self, n_enc_frames, at_30_fps, at_25_fps):
        n_samples = samples_of(n_enc_frames)
        assert (AT_30.animation_frames(n_samples), AT_25.animation_frames(n_samples)) == (at_30_fps, at_25_fps)

    def test_positions(self):
        for n_enc_frames, expected in ((1, []), (2, [0]), (3, [0]), (4, [0, 3]), (6, [0, 2.5, 5]), (7, [0, 2, 4, 6])):
            np.testing.assert_array_equal(AT_30.positions(samples_of(n_enc_frames)), expected)
        for n_enc_frames, expected in ((1, []), (2, [0, 1]), (3, [0, 1]), (5, [0, 1, 2, 3])):
            np.testing.assert_array_equal(AT_25.positions(samples_of(n_enc_frames)), expected)

    def test_positions_for_as_many_frames_as_were_recorded(self):
        np.testing.assert_array_equal(AT_30.positions(samples_of(7), 4), [0, 2, 4, 6])
        np.testing.assert_array_equal(AT_30.positions(samples_of(7), 3), [0, 3, 6])
        np.testing.assert_array_equal(AT_25.positions(samples_of(7), 2), [0, 1, 2, 3])
        assert len(AT_30.positions(samples_of(7), 0)) == 0

    def test_half_the_encoders_rate_is_paired_and_any_other_interpolated(self):
        assert FrameGrid(fps=25, memory_per_frame=2, interpolated=False) == AT_25
        for fps in (24, 26, 30, 50, 60):
            assert FrameGrid.at_rate(fps) == FrameGrid(fps=fps, memory_per_frame=1, interpolated=True)
        assert AT_25.before_transformer and AT_30.before_transformer, "as FaceFormer reads them"

    def test_a_grid_is_a_value_that_nobody_changes(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            AT_30.fps = 25
        with pytest.raises(TypeError):
            FrameGrid(30)


class TestPlan:
    def test_a_minute_by_hand(self):
        """Starts: a third of 688,077 samples apart, rounded up to whole encoder frames."""
        positions_R = AT_30.positions(1_008_077)
        step = 3148 / 1888
        expected = []
        for start, n_samples in ((0, 320_000), (229_440, 320_000), (458_880, 320_000), (688_320, 319_757)):
            first, last = start / 320, start / 320 + (n_samples - 400) // 320
            expected.append((start, start + n_samples, int(np.ceil(first / step)), int(last / step + 1e-6) + 1))
        windows = plan(1_008_077, positions_R)
        assert [(w.start, w.stop, w.first, w.last) for w in windows] == expected
        assert windows[-1].last == len(positions_R)

    @pytest.mark.parametrize("grid", [AT_30, AT_25], ids=["30fps", "25fps"])
    @pytest.mark.parametrize("window_s", [5.0, 10.0, 20.0])
    def test_every_window_reads_all_frames_that_it_covers_and_no_other(self, grid, window_s):
        size, overlap = window_s * RATE_HZ, min(4, window_s / 3) * RATE_HZ
        for seconds in (window_s + 0.01, 1.5 * window_s, 63.0048, 180.5):
            n_samples = int(seconds * RATE_HZ)
            positions_R = grid.positions(n_samples)
            windows = plan(n_samples, positions_R, window_s)
            assert len(windows) == np.ceil((n_samples - overlap) / (size - overlap))
            assert windows[0].start == 0 and windows[-1].stop == n_samples
            for before, after in zip(windows, windows[1:], strict=False):
                assert before.stop - after.start > overlap - 321
            for window in windows:
                assert window.start % 320 == 0
                assert size - 320 < window.stop - window.start <= size
                local_R = positions_R - window.start / 320
                covered = (local_R >= 0) & (local_R <= encoder_frames(window.stop - window.start) - 1)
                if window is windows[-1]:
                    covered[-1] = True  # the last frame may lie beyond by a rounding error
                np.testing.assert_array_equal(np.flatnonzero(covered), np.arange(window.first, window.last))

    def test_one_window_up_to_its_length_and_two_beyond(self):
        for n_samples, count in ((320_000, 1), (320_001, 2), (576_000, 2), (576_001, 3)):
            positions_R = AT_30.positions(n_samples)
            assert len(plan(n_samples, positions_R)) == count
        assert plan(320_000, np.arange(599.0)) == [Window(0, 320_000, 0, 599)]


class TestCrossFade:
    def test_the_outer_quarters_of_an_overlap_count_for_one_window_alone(self):
        """An overlap of 80 frames: a margin of 20 next to either cut end, and a ramp of 40 between."""
        windows = [Window(0, 0, 0, 120), Window(0, 0, 40, 200)]
        frames = np.arange(200)
        later = np.where(frames < 60, 0, np.where(frames > 100, 1, (frames - 60) / 40))
        np.testing.assert_allclose(shares(windows, 200), np.stack([1 - later, later], 1), atol=1e-6)

    def test_a_second_beside_each_cut_end_counts_for_nothing(self):
        positions_R = AT_30.positions(60 * RATE_HZ)
        windows = plan(60 * RATE_HZ, positions_R)
        share_RW = shares(windows, len(positions_R))
        np.testing.assert_allclose(share_RW.sum(1), 1, atol=1e-6)
        for i, window in enumerate(windows):
            counted = np.flatnonzero(share_RW[:, i])
            assert i == 0 or 29 <= counted[0] - window.first <= 60
            assert i == len(windows) - 1 or 29 <= window.last - 1 - counted[-1] <= 60

    def test_three_windows_over_one_frame(self):
        windows = [Window(0, 0, 0, 80), Window(0, 0, 40, 120), Window(0, 0, 60, 140)]
        share_RW = shares(windows, 140)  # the ramps: frames 50 to 70, then 75 to 105
        np.testing.assert_allclose(share_RW.sum(1), 1, atol=1e-6)
        expected = [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
        np.testing.assert_allclose(share_RW[[45, 60, 73, 90, 110]], expected, atol=1e-6)

    def test_an_overlap_of_three_frames_or_one(self):
        three = shares([Window(0, 0, 0, 5), Window(0, 0, 2, 7)], 7)[:, 1]
        np.testing.assert_allclose(three, [0, 0, 0, 1 / 6, 5 / 6, 1, 1], atol=1e-6)
        np.testing.assert_array_equal(shares([Window(0, 0, 0, 3), Window(0, 0, 2, 5)], 5)[:, 1], [0, 0, 0, 1, 1])

    def test_a_frame_that_no_window_reads_is_our_own_bug(self):
        with pytest.raises(AssertionError):
            shares([Window(0, 0, 0, 2), Window(0, 0, 3, 5)], 5)

    def test_one_window_comes_back_as_it_is(self):
        encoded = np.ones((3, 2))
        assert run_windows([Window(0, 960, 0, 3)], 3, lambda w: encoded, lambda fraction: None) is encoded

    def test_progress_counts_windows(self):
        seen: list[float] = []
        windows = [Window(0, 0, 0, 4), Window(0, 0, 2, 6), Window(0, 0, 4, 8), Window(0, 0, 6, 10)]
        run_windows(windows, 10, lambda w: np.zeros((w.last - w.first, 1)), seen.append)
        assert seen == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("seconds", (0.5, 1, 6.6, 61.37))
def test_steady_frames_do_not_depend_on_the_length(seconds: float) -> None:
    grid = FrameGrid(fps=30, steady=True)
    n_samples = int(seconds * 16_000)
    positions = grid.positions(n_samples)
    last = encoder_frames(n_samples) - 1
    assert len(positions) == FrameGrid(fps=30).animation_frames(n_samples)
    np.testing.assert_allclose(positions, np.minimum(np.arange(len(positions)) / 0.6 + 0.5, last), atol=1e-9)
    # The published grid ends up to 1.7 encoder frames, an animation frame, later.
    stretched = FrameGrid(fps=30).positions(n_samples)
    assert np.abs(stretched - positions).max() < 1.7
