# SPDX-License-Identifier: GPL-3.0-or-later
"""Lids meet for any opening of the eye and close in front of the eyeball; parts turn with their eye."""

import numpy as np
import pytest

from wav2sem_blender.pipeline.any_head import lids
from wav2sem_blender.pipeline.any_head.loose_parts import eyeballs, find_loose_parts, gaze

MARKS = {
    "eye_inner_left": np.array([0.015, 0.0, 0.0]),
    "eye_outer_left": np.array([0.045, 0.0, 0.0]),
    "eye_inner_right": np.array([-0.015, 0.0, 0.0]),
    "eye_outer_right": np.array([-0.045, 0.0, 0.0]),
}
N_COLUMNS, N_ROWS = 25, 9


@pytest.fixture
def eye():
    """Skin (2, columns, rows, 3) above and below the 10 mm opening of the left eye, edges first."""
    t_C = np.linspace(0.05, 0.95, N_COLUMNS)
    edge_C, row_R = 0.005 * np.sin(np.pi * t_C), 0.001 * np.arange(N_ROWS)
    skin = np.zeros((2, N_COLUMNS, N_ROWS, 3))
    skin[..., 0] = (0.015 + 0.030 * t_C)[:, None]
    for lid, sign in enumerate((1, -1)):
        skin[lid, ..., 1] = sign * (edge_C[:, None] + row_R)
    return skin


def blink(skin, fall):
    """The upper lid falls and the lower lid rises a little, both less with distance from the edge."""
    fade_R = np.linspace(1.0, 0.0, N_ROWS)
    moved = np.zeros_like(skin)
    opening = skin[0, :, :1, 1] - skin[1, :, :1, 1]
    moved[0, ..., 1] = -fall * opening * fade_R
    moved[1, ..., 1] = 0.05 * opening * fade_R
    return moved


def gap_mm(skin, moved):
    """Height of the gap that remains in each middle column."""
    after = skin + moved.reshape(skin.shape)
    return 1000 * (after[0, 5:-5, 0, 1] - after[1, 5:-5, 0, 1])


@pytest.mark.parametrize("fall", [0.8, 0.95, 1.2])
def test_lids_meet_where_the_carried_blink_falls_short_or_too_far(eye, fall):
    moved = blink(eye, fall)
    closed = lids.close_lids(moved.reshape(-1, 3), eye.reshape(-1, 3), MARKS, "left", None)
    assert np.abs(gap_mm(eye, closed)).max() < 0.3
    # Skin out of the lids' reach stays.
    assert np.abs(closed.reshape(eye.shape)[:, :, -1]).max() == 0


def test_one_column_that_meets_other_skin_does_not_make_the_eye_another_kind(eye):
    moved = blink(eye, 0.9)
    moved[:, :5] *= 0.5
    closed = lids.close_lids(moved.reshape(-1, 3), eye.reshape(-1, 3), MARKS, "left", None)
    assert np.abs(closed[:, 2]).max() == 0, "the transferred motion was scaled, not replaced"
    assert np.abs(gap_mm(eye, closed)).max() < 0.3


def test_lids_meet_by_their_shape_where_the_carried_blink_is_of_no_use(eye):
    closed = lids.close_lids(blink(eye, 0.1).reshape(-1, 3), eye.reshape(-1, 3), MARKS, "left", None)
    assert np.abs(gap_mm(eye, closed)).max() < 0.3
    fall_CR = -closed.reshape(eye.shape)[0, ..., 1]
    assert (np.diff(fall_CR, axis=1) < 1e-9).all(), "less with distance from the edge"


def test_an_eye_without_a_lower_lid_keeps_its_blink(eye):
    moved = blink(eye, 0.7)[0].reshape(-1, 3)
    np.testing.assert_array_equal(lids.close_lids(moved, eye[0].reshape(-1, 3), MARKS, "left", None), moved)


def test_closed_lids_lie_in_front_of_the_eyeball(eye):
    ball = lids.Eyeball(centre_3=np.array([0.030, 0.0, -0.010]), radius_m=0.0125)
    skin = eye.copy()
    above = (skin[..., :2] - ball.centre_3[:2]) ** 2
    skin[..., 2] = -0.010 + np.sqrt(np.maximum(0.0130**2 - above.sum(-1), 0))
    moved = blink(skin, 0.9).reshape(-1, 3)
    points = skin.reshape(-1, 3)
    before = np.linalg.norm(points + moved - ball.centre_3, axis=1)
    closed = lids.close_lids(moved, points, MARKS, "left", ball)
    after = np.linalg.norm(points + closed - ball.centre_3, axis=1)
    reached = np.linalg.norm(moved, axis=1) > 0
    least = np.minimum(np.linalg.norm(points - ball.centre_3, axis=1), 0.0129)
    assert (before[reached] < least[reached] - 1e-6).any(), "the test moves no skin into the ball"
    assert (after[reached] > least[reached] - 1e-9).all()


def sphere(middle_3, radius_m, least_z=-1.0, n=200):
    """Points of a ball, or of its front part, and triangles that connect them."""
    z = np.linspace(1.0, least_z, n)
    angle = np.arange(n) * 2.4
    radius = np.sqrt(1 - z**2)
    points = middle_3 + radius_m * np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)
    first = np.arange(n - 2)
    return points, np.stack([first, first + 1, first + 2], 1)


def test_eyeballs_are_found_even_by_their_front_and_turn_about_their_middle():
    centre = np.array([0.030, 0.001, -0.012])
    ball, triangles = sphere(centre, 0.012, least_z=-0.1)
    pupil = centre + [0, 0, 0.0121] + 0.002 * np.array([[0, 1, 0], [1, 0, 0], [0, -1, 0], [-1, 0, 0]])
    points = np.concatenate([ball, pupil])
    triangles = np.concatenate([triangles, np.array([[0, 1, 2], [0, 2, 3]]) + len(ball)])
    parts = find_loose_parts(len(points), triangles, np.array([], dtype=int))
    assert [len(part) for part in parts] == [len(ball), 4]
    found = eyeballs(points, parts, MARKS)
    assert set(found) == {"left"}
    np.testing.assert_allclose(found["left"].centre_3, centre, atol=1e-6)
    assert found["left"].radius_m == pytest.approx(0.012)
    moved = gaze(pupil, found["left"], "left", ("eyeLookInLeft", "eyeLookUpLeft", "eyeLookUpRight", "jawOpen"))
    assert (moved[0, :, 0] < -0.004).all(), "the left eye looks in, to the right"
    assert (moved[1, :, 1] > 0.003).all(), "and up"
    assert np.abs(moved[2:]).max() == 0
