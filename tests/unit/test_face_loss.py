# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundled model's loss: which mistakes cost how much, and that no channel gets stuck outside [0, 1]."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceWeights  # noqa: E402
from wav2sem_blender.pipeline.nn.face_loss import (  # noqa: E402
    LEFT_CORNER,
    LOWER_INNER,
    LOWER_OUTER,
    RIGHT_CORNER,
    UPPER_INNER,
    UPPER_OUTER,
    FaceLoss,
    mouth_measures,
)

NAMES = ("jaw", "pucker", "roll")


@pytest.fixture(scope="module")
def mouth() -> tuple[np.ndarray, np.ndarray]:
    """Three channels (K, V, 3) and their gaps (K,): a jaw of 30 mm, a pucker, and an upper lip that rolls in."""
    basis_KV3 = np.zeros((3, 5023, 3), np.float32)
    basis_KV3[0, [LOWER_INNER, LOWER_OUTER], 1] = -0.03
    basis_KV3[1, LEFT_CORNER, 0], basis_KV3[1, RIGHT_CORNER, 0] = -0.004, 0.004
    basis_KV3[1, [UPPER_OUTER, LOWER_OUTER], 2] = 0.006
    basis_KV3[2, UPPER_OUTER, 1], basis_KV3[2, UPPER_INNER, 1] = -0.003, 0.001
    return basis_KV3, np.array([0.03, 0.0, 0.001])


def loss(mouth, predicted, target, **weights: float) -> float:
    zero = dict.fromkeys(("velocity_weight", "aperture_weight", "spread_weight", "outside_weight"), 0.0)
    both = (torch.tensor(motion, dtype=torch.float32)[None] for motion in (predicted, target))
    return float(FaceLoss(FaceWeights(**(zero | weights)), *mouth)(*both))


def moving(**channels: float) -> np.ndarray:
    """(T, K): these amplitudes, at 20 moments of a wave between 0 and 1."""
    wave_T = 0.5 - 0.5 * np.cos(np.linspace(0, 4 * np.pi, 20))
    return wave_T[:, None] * [channels.get(name, 0.0) for name in NAMES]


def test_measures_are_those_of_the_mouth_in_mm(mouth) -> None:
    """Gap, width, upper lip, lower lip, protrusion before the corners, height of the upper lip and of the corners."""
    measures_KM, scale_M = mouth_measures(*mouth)
    expected_KM = [[30, 0, 0, 0, 0, 0, 0], [0, -8, 0, 0, 6, 0, 0], [1, 0, -4, 0, 0, 1, 0]]
    np.testing.assert_allclose(measures_KM, expected_KM, atol=1e-5)
    np.testing.assert_array_equal(scale_M, [1, 2, 4, 4, 2, 2, 3])


def test_an_error_of_the_width_counts_by_its_scale(mouth) -> None:
    target = np.full((4, 3), 0.5)
    wrong = target + [0, 0.1, 0]
    with_measures = loss(mouth, wrong, target, aperture_weight=1.0) - loss(mouth, wrong, target)
    assert with_measures == pytest.approx(0.1 * ((0.8 * 2) ** 2 + (0.6 * 2) ** 2), rel=1e-4)


def test_an_open_gap_costs_more_where_lips_should_touch(mouth) -> None:
    closed, opened = np.zeros((4, 3)), np.full((4, 3), [0.3, 0, 0])
    ajar = [0.1, 0, 0]
    costs = [
        loss(mouth, target + ajar, target, aperture_weight=1.0, closed_factor=5.0) - loss(mouth, target + ajar, target)
        for target in (closed, opened)
    ]
    assert costs[0] == pytest.approx(5 * costs[1], rel=1e-4) and costs[1] == pytest.approx(0.1 * 9, rel=1e-4)


def test_parted_lips_that_nearly_close_cost_more_the_nearer_they_come(mouth) -> None:
    """A w of 3.6 mm beside vowels of 12 mm: 3 mm apart are enough, 1 mm less costs 8 times as much again, and nothing
    does beside a closure."""
    target = np.full((20, 3), [0.4, 0, 0])
    target[8:12, 0] = 0.12

    def cost(gap_mm: float, target: np.ndarray, parted_factor: float) -> float:
        predicted = np.array(target)
        predicted[9:11, 0] = gap_mm / 30
        return loss(mouth, predicted, target, aperture_weight=1.0, parted_factor=parted_factor)

    added = {mm: cost(mm, target, 8.0) - cost(mm, target, 0.0) for mm in (3.0, 2.0, 1.0)}
    assert added[3.0] == pytest.approx(0, abs=1e-6)
    assert added[2.0] == pytest.approx(0.1 * 8 * 2 / 20, rel=1e-3) and added[1.0] == pytest.approx(
        4 * added[2.0], rel=1e-3
    )
    target[[8, 11], 0] = 0
    assert cost(1.0, target, 8.0) == pytest.approx(cost(1.0, target, 0.0))


@pytest.mark.parametrize(("channel", "millimetres"), [("jaw", 30), ("pucker", 20), ("roll", 16.16)])
def test_too_small_a_movement_costs_by_its_spread(mouth, channel: str, millimetres: float) -> None:
    """Half the movement: half the standard deviation of each measure, times its scale."""
    target = moving(**{channel: 0.8})
    spread = loss(mouth, target / 2, target, spread_weight=1.0) - loss(mouth, target / 2, target)
    deviation = moving(**{channel: 0.4})[:, NAMES.index(channel)].std(ddof=1)
    assert spread == pytest.approx(0.1 * (millimetres * deviation) ** 2, rel=1e-2)


def test_outside_its_range_a_channel_counts_as_decoded_and_comes_back(mouth) -> None:
    target = torch.tensor(moving(jaw=0.5), dtype=torch.float32)[None]
    predicted = torch.full_like(target, -0.2).requires_grad_()
    criterion = FaceLoss(FaceWeights(outside_weight=0.0), *mouth)
    assert float(criterion(predicted, target)) == pytest.approx(float(criterion(torch.zeros_like(target), target)))
    criterion(predicted, target).backward()
    assert predicted.grad[0, 5:15, 0].mean() < 0, "the jaw should open: its weight must rise"
    assert loss(mouth, np.full((4, 3), 1.1), np.ones((4, 3)), outside_weight=10.0) == pytest.approx(
        10 * 3 * 0.01, rel=1e-3
    )
