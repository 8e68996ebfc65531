# SPDX-License-Identifier: GPL-3.0-or-later
"""Passages at other levels, judged with mouths whose behaviour is known."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation.levels import PLACES, judge_levels

RATE_HZ, FPS = 16_000, 30


def syllables(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rhythm = np.repeat(rng.uniform(0.02, 1, 16), RATE_HZ // 8)
    return (0.2 * rhythm * rng.standard_normal(len(rhythm))).astype(np.float32)


def loudness(samples_S: np.ndarray) -> np.ndarray:
    """A mouth that opens with the level of each frame."""
    frames = int(len(samples_S) / RATE_HZ * FPS)
    edges = np.linspace(0, len(samples_S), frames + 1).astype(int)
    return np.array([samples_S[a:b].std() for a, b in zip(edges, edges[1:], strict=False)])


def relative(samples_S: np.ndarray) -> np.ndarray:
    """A mouth with one normalisation for the whole recording."""
    return loudness(samples_S) / samples_S.std()


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [syllables(0), syllables(1), syllables(2)]


def test_a_mouth_that_follows_the_level_moves_less_where_it_is_quiet(clips) -> None:
    found = judge_levels(loudness, clips, FPS, 0)
    assert list(found) == list(PLACES)
    assert found["at -60 dB"].share == pytest.approx(1e-3, rel=1e-3) and found["at -60 dB"].r > 0.999
    assert 0.05 < found["20 dB below another speaker"].share < 0.2
    assert 0.2 < found["10 dB below another speaker"].share < 0.5
    assert found["after a minute of silence"].share == pytest.approx(1, abs=1e-6)
    assert found["clipped at a tenth of the peak"].share < 0.6


def test_one_normalisation_fails_after_silence_and_beside_a_bang(clips) -> None:
    found = judge_levels(relative, clips, FPS, 0)
    assert found["at -60 dB"].share == pytest.approx(1, abs=1e-3)
    assert found["after a minute of silence"].share > 4
    assert found["with a bang of 0.3 s"].share < 0.4
