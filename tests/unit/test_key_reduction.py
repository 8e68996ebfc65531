# SPDX-License-Identifier: GPL-3.0-or-later
"""Key reduction: the bounds hold at every frame and vertex and are used; closures stay closed."""

from __future__ import annotations

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.key_reduction import closure_frames, reduce_keys, reduction_error, with_keys_only
from wav2sem_blender.pipeline.motion import Motion

from .made_up_motions import as_motion, wandering  # noqa: TID252


class TestReduceKeys:
    @pytest.mark.parametrize("tolerance", [0.0, 1e-4, 0.005, 0.02, 0.3])
    @pytest.mark.parametrize("smoothness", [1, 6])
    def test_the_bound_holds_on_random_motions(self, tolerance, smoothness):
        for n_frames in (1, 2, 3, 97, 601):
            motion = as_motion(wandering(n_frames, 5, smoothness))
            keys = reduce_keys(motion, tolerance)
            for frames in keys:
                assert frames[0] == 0 and frames[-1] == n_frames - 1 and np.all(np.diff(frames) > 0)
            assert reduction_error(motion, keys)[0] <= tolerance + 1e-7
            assert reduction_error(motion, keys)[1] is None

    @pytest.mark.parametrize("tolerance_mm", [0.05, 0.5, 3.0])
    def test_the_bound_in_millimetres_holds_on_every_vertex(self, tolerance_mm):
        for n_channels in (1, 3, 20):
            motion = as_motion(wandering(333, n_channels), n_vertices=40)
            keys = reduce_keys(motion, tolerance_mm=tolerance_mm)
            difference = with_keys_only(motion, keys).vertex_offsets() - motion.vertex_offsets()
            worst_mm = 1000 * np.linalg.norm(difference.astype(np.float64), axis=2).max()
            assert worst_mm <= tolerance_mm + 1e-3
            assert reduction_error(motion, keys)[1] == pytest.approx(worst_mm, abs=2e-4)
            assert worst_mm >= 0.2 * tolerance_mm  # the tolerance is used

    def test_errors_that_all_add_up_stay_within_the_bound(self):
        # 30 equal curves that move the same vertex the same way: the worst case for one tolerance per channel.
        basis = np.tile(np.array([[[0.01, 0, 0]]]), (30, 1, 1))
        motion = Motion(
            weights_TK=np.repeat(wandering(300, 1), 30, axis=1),
            channels=[str(k) for k in range(30)],
            fps=30,
            basis_KV3=basis,
        )
        keys = reduce_keys(motion, tolerance_mm=0.5)
        assert reduction_error(motion, keys)[1] <= 0.5 + 1e-4

    def test_straight_lines_need_two_keys_and_corners_one_each(self):
        zigzag = np.interp(np.arange(101), [0, 20, 50, 51, 100], [0, 1, 0.2, 0.9, 0.9])
        (frames,) = reduce_keys(as_motion(zigzag), 1e-4)
        assert frames.tolist() == [0, 20, 50, 51, 100]

    def test_fewer_keys_for_more_tolerance(self):
        motion = as_motion(wandering(2000, 3))
        counts = [sum(map(len, reduce_keys(motion, tolerance))) for tolerance in (0.0, 0.002, 0.01, 0.05, 0.2)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] == 6000 and counts[3] < 0.5 * counts[0]

    def test_channels_that_move_no_vertex_keep_two_keys(self):
        motion = Motion(weights_TK=wandering(50, 2), channels=("a", "b"), fps=30, basis_KV3=np.zeros((2, 4, 3)))
        assert [frames.tolist() for frames in reduce_keys(motion, tolerance_mm=0.1)] == [[0, 49], [0, 49]]

    def test_wrong_arguments(self):
        motion = as_motion(wandering(5))
        with pytest.raises(UserError, match="needs a motion with a basis"):
            reduce_keys(motion, tolerance_mm=0.1)
        with pytest.raises(UserError, match="tolerance is -1"):
            reduce_keys(motion, -1)

    def test_empty(self):
        motion = as_motion(np.zeros((0, 2)), n_vertices=3)
        assert [frames.size for frames in reduce_keys(motion, tolerance_mm=1.0)] == [0, 0]

    def test_exact_frames_keep_their_values(self):
        motion = as_motion(wandering(700, 6), n_vertices=30)
        exact = np.arange(13, 700, 37)
        free, kept = (reduce_keys(motion, tolerance_mm=2.0, exact_frames=frames) for frames in ((), exact))
        loose = with_keys_only(motion, free).weights_TK[exact] - motion.weights_TK[exact]
        assert np.abs(loose).max() > 0.01
        np.testing.assert_allclose(with_keys_only(motion, kept).weights_TK[exact], motion.weights_TK[exact], atol=1e-6)
        assert reduction_error(motion, kept)[1] <= 2.0
        assert sum(map(len, kept)) < sum(map(len, free)) + 2 * 6 * len(exact)

    def test_an_error_that_few_frames_hold_is_found(self):
        """The measurement skips only frames that cannot have the largest error."""
        motion = as_motion(0.001 * wandering(5000, 3), n_vertices=20)
        motion.weights_TK[4321, 1] = 1.0
        every_other = np.append(np.arange(0, 4999, 2), 4999)
        difference = with_keys_only(motion, [every_other] * 3).vertex_offsets() - motion.vertex_offsets()
        worst_mm = 1000 * np.linalg.norm(difference.astype(np.float64), axis=2).max()
        assert reduction_error(motion, [every_other] * 3)[1] == pytest.approx(worst_mm, rel=1e-5)


class TestClosures:
    def test_the_deepest_frame_of_each(self):
        opening = np.array([0.5, 0.2, 4.0, 8.0, 0.9, 0.1, 0.3, 5.0, 1.0, 6.0, 0.0])
        assert closure_frames(opening).tolist() == [1, 5, 10]
        assert closure_frames(opening, 0.15).tolist() == [5, 10]
        assert closure_frames(np.full(5, 3.0)).size == 0
        assert closure_frames(np.zeros(0)).size == 0
