# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape measure: by hand on made-up lips, and equal to the project's own tool on real films."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from trainer.evaluation.mouth_shape import (
    CLASSES,
    SpokenLips,
    at_film_rate,
    class_means,
    distances,
    judge_shapes,
    learn_to_read,
    visemes,
)
from trainer.motion.landmarks import LIPS, filmed_lips
from trainer.speech.phones import Timing

SHARED = Path(__file__).parents[2].parent / "shared"
TOOL = SHARED / "tools" / "evaluate_mouth_shape.py"


def lips(width_mm: np.ndarray, gap_mm: np.ndarray, noise_mm: float = 0.0) -> np.ndarray:
    """(T, 16, 2): corners `width_mm` apart, inner lips `gap_mm` apart, lips 6 mm thick."""
    lips_TP2 = np.random.default_rng(0).normal(0, noise_mm, (len(width_mm), len(LIPS), 2))
    lips_TP2[:, LIPS.index(61), 0] += -width_mm / 2
    lips_TP2[:, LIPS.index(291), 0] += width_mm / 2
    lips_TP2[:, LIPS.index(13), 1] += gap_mm / 2
    lips_TP2[:, LIPS.index(14), 1] -= gap_mm / 2
    lips_TP2[:, LIPS.index(0), 1] += gap_mm / 2 + 6
    lips_TP2[:, LIPS.index(17), 1] -= gap_mm / 2 + 6
    return lips_TP2


def told(names: str, each_s: float = 0.4) -> list[Timing]:
    return [(name, i * each_s, (i + 1) * each_s) for i, name in enumerate(names.split())]


def test_distances_are_those_of_the_lips() -> None:
    found = distances(lips(np.array([50.0, 46.0]), np.array([1.0, 9.0])))
    expected = {"width": [50, 46], "gap": [1, 9], "upper": [6, 6], "lower": [6, 6]}
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values)


def test_every_phone_has_one_class_at_most_and_its_middle_frame() -> None:
    phones = [phone for some in CLASSES.values() for phone in some]
    assert len(phones) == len(set(phones))
    spoken = SpokenLips(lips_TP2=lips(np.full(30, 50.0), np.ones(30)), phones=[("SIL", 0, 0.4), *told("AA1 W")[1:]])
    assert visemes(spoken) == [("round", 15)]
    first = SpokenLips(lips_TP2=spoken.lips_TP2, phones=[("W", 0.0, 0.08)])
    assert visemes(first) == [], "the reader sees two frames before it"


def test_motion_is_compared_at_the_films_rate() -> None:
    ramp_T = np.arange(31.0)
    at_25 = at_film_rate(np.tile(ramp_T[:, None, None], (1, 16, 2)), 30.0, 25)
    np.testing.assert_allclose(at_25[:, 3, 1], np.arange(25) * 1.2)


def test_means_are_of_the_difference_from_the_clip() -> None:
    width = np.where(np.arange(40) < 20, 44.0, 52.0)
    spoken = SpokenLips(lips_TP2=lips(width, np.ones(40)), phones=told("W IY", 0.8))
    means = class_means([spoken])
    assert means["round"]["width"] == pytest.approx(-4) and means["i"]["width"] == pytest.approx(4)
    assert means["round"]["gap"] == pytest.approx(0) and means["round"]["n"] == 1


def test_a_reader_tells_shapes_that_differ_and_guesses_at_a_still_mouth() -> None:
    phones = told("W IY AA " * 10)
    shapes = {"W": (44.0, 1.0), "IY": (54.0, 4.0), "AA": (48.0, 14.0)}
    width, gap = (np.repeat([shapes[phone][k] for phone, _, _ in phones], 10) for k in (0, 1))
    film = SpokenLips(lips_TP2=lips(width, gap, noise_mm=0.3), phones=phones)
    reader = learn_to_read([film])
    halved = SpokenLips(lips_TP2=lips(49 + (width - 49) / 2, gap), phones=phones)
    scores = judge_shapes(reader, [(halved, film)])
    assert scores["legibility_film"] == 1 and scores["legibility"] > 0.6
    assert scores["width_r"] == pytest.approx(1, abs=0.01) and scores["width_sd_ratio"] == pytest.approx(0.5, abs=0.01)
    still = SpokenLips(lips_TP2=lips(np.full(300, 49.0), np.full(300, 5.0)), phones=phones)
    assert judge_shapes(reader, [(still, film)])["legibility"] == pytest.approx(1 / 3)


@pytest.mark.skipif(not TOOL.is_file(), reason="the shared tool and films are not here")
def test_the_scores_equal_the_tools() -> None:
    """On ten films: halved motion against the film, with made-up phone times."""
    spec = importlib.util.spec_from_file_location("evaluate_mouth_shape", TOOL)
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tuple(tool.LIPS) == LIPS and {k: tuple(v.split()) for k, v in tool.CLASSES.items()} == CLASSES
    phones = [(phone, i * 0.1, (i + 1) * 0.1) for i, phone in enumerate([p for some in CLASSES.values() for p in some])]
    phones = phones[:28]
    ours, theirs = [], []
    for path in sorted((SHARED / "data" / "grid_s1").glob("*.npz"))[:10]:
        film = filmed_lips(path)
        assert film is not None
        np.testing.assert_allclose(film, tool.film(path), atol=1e-9)
        half = film.mean(0) + 0.5 * (film - film.mean(0)) + np.random.default_rng(0).normal(0, 0.2, film.shape)
        half_30 = half[np.arange(int(len(half) * 1.2)) * 25 // 30]
        np.testing.assert_allclose(
            at_film_rate(half_30, 30, len(film)), tool.resampled(half_30, 30, len(film)), atol=1e-9
        )
        ours.append((SpokenLips(lips_TP2=half, phones=phones), SpokenLips(lips_TP2=film, phones=phones)))
        theirs.append((half, film))
    reader = learn_to_read([film for _, film in ours])
    scores = judge_shapes(reader, ours)
    predicted = [(half, phones) for half, _ in theirs]
    assert scores["legibility"] == pytest.approx(tool.legibility(reader, predicted), abs=1e-6)
    means = tool.class_means(predicted)  # rounded to 0.01
    assert set(means) == set(scores["means"])
    for name, row in means.items():
        assert row == pytest.approx(scores["means"][name], abs=0.00501)
    widths = [(tool.measures(half)["width"], tool.measures(film)["width"]) for half, film in theirs]
    assert scores["width_r"] == pytest.approx(np.mean([np.corrcoef(*pair)[0, 1] for pair in widths]), abs=1e-6)
    assert scores["width_sd_ratio"] == pytest.approx(np.mean([a.std() / b.std() for a, b in widths]), abs=1e-6)
