# SPDX-License-Identifier: GPL-3.0-or-later
"""Timing and intensity of lips: known shifts and gains, and the alignment against a plain reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trainer.evaluation.timing import LipSequence, LipTotals, alignment, chance, find_lips, loudness, misalignment
from trainer.motion.shapes import flame_middle_lips

FPS = 30


def opening(n_frames: int = 120, seed: int = 0) -> np.ndarray:
    """A mouth that opens and closes between two rests."""
    rng = np.random.default_rng(seed)
    inside = np.convolve(rng.random(n_frames - 40), np.hanning(11), mode="same")
    return np.pad(inside * np.hanning(n_frames - 40) ** 0.25, 20)


def face(opening_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A column of ten vertices whose upper five move up and lower five down; the middle two touch at rest."""
    rest_V3 = np.zeros((10, 3))
    rest_V3[:, 1] = [5, 4, 3, 2, 1e-6, -1e-6, -2, -3, -4, -5]
    weight_V = np.array([0, 0.1, 0.2, 0.3, 0.5, -0.5, -0.3, -0.2, -0.1, 0])
    moved_TV3 = np.repeat(rest_V3[None], len(opening_T), 0)
    moved_TV3[:, :, 1] += opening_T[:, None] * weight_V
    return rest_V3, moved_TV3


def slow_alignment(first_T: np.ndarray, second_T: np.ndarray) -> tuple[float, int]:
    """Cost of the cheapest path and the table's size, cell by cell."""
    total = {(-1, -1): 0.0}
    for i, a in enumerate(first_T):
        for j, b in enumerate(second_T):
            ways = [total.get(before, np.inf) for before in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
            total[i, j] = abs(a - b) + min(ways)
    return total[len(first_T) - 1, len(second_T) - 1], len(total) - 1


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 7), (9, 4), (30, 33)])
def test_the_alignment_is_the_cheapest(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    first_T, second_T = rng.standard_normal(n), rng.standard_normal(m)
    path_P2 = alignment(first_T, second_T)
    assert path_P2[0].tolist() == [0, 0] and path_P2[-1].tolist() == [n - 1, m - 1]
    assert {tuple(step) for step in np.diff(path_P2, axis=0).tolist()} <= {(1, 1), (1, 0), (0, 1)}
    cost = np.abs(first_T[path_P2[:, 0]] - second_T[path_P2[:, 1]]).sum()
    assert cost == pytest.approx(slow_alignment(first_T, second_T)[0])


@pytest.mark.parametrize("frames", range(5))
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_shift_by_k_frames_is_a_misalignment_of_k_frames(frames: int, sign: int) -> None:
    rest_V3, recorded_TV3 = face(opening())
    lips = find_lips("own", np.arange(10), rest_V3, recorded_TV3, FPS)
    made = lips.sequence("a", 1.0, np.roll(recorded_TV3, sign * frames, axis=0), recorded_TV3)
    assert made.misaligned_s == pytest.approx(frames / FPS, abs=1e-12)


def test_size_and_pose_of_the_mouth_do_not_change_the_timing() -> None:
    curve_T = opening()
    shifted_T = np.roll(curve_T, 2)
    assert misalignment(curve_T, shifted_T) == misalignment(curve_T + 7.0, shifted_T + 7.0) == 2
    assert misalignment(1000 * curve_T, 1000 * shifted_T) == 2


def test_other_motion_is_further_off_than_the_same_motion_made_smaller() -> None:
    other = misalignment(opening(seed=1), opening())
    smaller = misalignment(0.9 * opening(), opening())
    assert other is not None and smaller is not None and other > 1 > smaller


def test_chance_is_what_another_recording_is_off_by() -> None:
    curves = [opening(seed=seed) for seed in range(3)]
    pairs = [misalignment(curves[1], curves[0]), misalignment(curves[2], curves[1]), misalignment(curves[0], curves[2])]
    assert chance(curves, FPS) == pytest.approx(1000 / FPS * np.mean([pair for pair in pairs if pair is not None]))
    assert chance(curves[:1], FPS) is chance([np.zeros(9)] * 3, FPS) is chance([], FPS) is None
    assert chance([curves[0], curves[1][:50]], FPS) == pytest.approx(chance([curves[0][:50], curves[1][:50]], FPS))


def test_still_lips_have_no_timing() -> None:
    rest_V3, recorded_TV3 = face(opening())
    lips = find_lips("own", np.arange(10), rest_V3, recorded_TV3, FPS)
    still = lips.sequence("a", 1.0, np.broadcast_to(rest_V3, recorded_TV3.shape), recorded_TV3)
    assert still.misaligned_s is None and still.intensity == 0
    totals = {"mtm_ms": None, "slcc": None, "matched_sequences": 0, "sequences": 4}
    assert LipTotals(sequences=[still] * 4).means() == totals
    one_frame = lips.sequence("a", 1.0, recorded_TV3[:1], recorded_TV3)
    assert one_frame.misaligned_s is None and one_frame.intensity == 0


def test_the_middle_of_the_lips_is_what_a_recording_pulls_apart() -> None:
    rest_V3, recorded_TV3 = face(opening())
    assert set(find_lips("own", np.array([9, 0, 3, 4, 4, 5, 6]), rest_V3, recorded_TV3, FPS).middle) == {4, 5}
    assert find_lips("flame", np.arange(10), rest_V3, recorded_TV3, FPS).middle == flame_middle_lips()
    unknown = find_lips("own", np.arange(10), rest_V3, rest_V3[None], FPS)
    assert unknown.middle is None and unknown.sequence("a", 1.0, recorded_TV3, recorded_TV3).misaligned_s is None


def test_neither_a_split_vertex_nor_a_chin_is_the_middle_of_the_lips() -> None:
    rest_V3 = np.zeros((6, 3))
    rest_V3[:, 1] = [5, 0.1, -0.1, -5, 2, 2]  # nose, lips, chin, and a vertex that is there twice
    opened_V3 = rest_V3.copy()
    opened_V3[:, 1] += [0, 0.5, -0.5, -1.5, 0, 0.01]
    lips = find_lips("own", np.arange(6), rest_V3, np.stack([rest_V3, opened_V3, rest_V3]), FPS)
    assert lips.middle is not None and set(lips.middle) == {1, 2}


def bumps(*at: tuple[int, float]) -> np.ndarray:
    """A curve (T,) with a bump of the given height at each of the given frames."""
    frames = np.arange(100)
    return sum(height * np.exp(-((frames - frame) ** 2) / 18) for frame, height in at)


@pytest.mark.parametrize(("small", "moved", "counted"), [(40, 22, True), (40, 36, False), (0, 36, True)])
def test_a_match_beyond_the_recorded_neighbours_does_not_count(small: int, moved: int, counted: bool) -> None:
    recorded_T = bumps((20, 1.0), (small, 0.2)) if small else bumps((20, 1.0))
    for predicted_T, truth_T in ((bumps((moved, 1.0)), recorded_T), (bumps((99 - moved, 1.0)), recorded_T[::-1])):
        assert misalignment(predicted_T, truth_T) == (pytest.approx(moved - 20) if counted else None)


def test_intensity_is_the_vertices_mean_speed() -> None:
    rest_V3, recorded_TV3 = face(np.array([0.0, 1.0, 0.0]))
    lips = find_lips("own", np.arange(10), rest_V3, recorded_TV3, FPS)
    assert lips.intensity(recorded_TV3) == pytest.approx(np.mean([0, 0.1, 0.2, 0.3, 0.5] * 2))
    assert lips.intensity(recorded_TV3[:2]) == lips.intensity(recorded_TV3)
    assert loudness(np.array([3.0, -3.0, 3.0])) == pytest.approx(3)


def sequences(seed: int = 0, group: str = "a", count: int = 12) -> list[LipSequence]:
    """Lips that are faster in louder speech, with noise."""
    rng = np.random.default_rng(seed)
    loud_N = rng.random(count) + 0.1
    intensity_N = loud_N + 0.3 * rng.standard_normal(count)
    return [
        LipSequence(group=group, loudness=loud, intensity=moved, misaligned_s=0.05)
        for loud, moved in zip(loud_N, intensity_N, strict=True)
    ]


@pytest.mark.parametrize("gain", [20, 1e-6])
def test_gain_and_size_of_a_speaker_do_not_change_the_correlation(gain: float) -> None:
    first, second = sequences(), sequences(1, "b")
    r = LipTotals(sequences=first + second).correlation()
    assert r is not None and 0.4 < r < 0.99
    louder = [dataclasses.replace(s, loudness=gain * s.loudness) for s in second]
    larger = [dataclasses.replace(s, intensity=7 * s.intensity) for s in first]
    assert LipTotals(sequences=larger + louder).correlation() == pytest.approx(r, abs=1e-12)
    one_group = [dataclasses.replace(s, group="a") for s in first + louder]
    assert LipTotals(sequences=one_group).correlation() != pytest.approx(r, abs=0.01)


def test_speakers_are_standardised_before_they_are_pooled() -> None:
    first, second = sequences(), sequences(1, "b", 5)
    values = [np.array([(10 * at + s.loudness, s.intensity) for s in some]) for at, some in enumerate((first, second))]
    second = [dataclasses.replace(s, loudness=10 + s.loudness) for s in second]
    pooled = np.concatenate([(some - some.mean(0)) / some.std(0, ddof=1) for some in values])
    r = np.corrcoef(pooled.T)[0, 1]
    assert LipTotals(sequences=first + second).correlation() == pytest.approx(r)


def test_the_correlation_of_one_speaker_is_pearsons_r() -> None:
    some = sequences()
    r = np.corrcoef([s.loudness for s in some], [s.intensity for s in some])[0, 1]
    unmatched = dataclasses.replace(some[0], misaligned_s=None)
    assert LipTotals(sequences=[unmatched, *some[1:]]).means() == {
        "mtm_ms": pytest.approx(50),
        "slcc": pytest.approx(r),
        "matched_sequences": 11,
        "sequences": 12,
    }


def test_a_correlation_needs_three_sequences_that_differ() -> None:
    some = sequences()
    assert LipTotals(sequences=some[:2]).correlation() is None
    pair = [dataclasses.replace(sequence, group="b") for sequence in some[:2]]
    assert LipTotals(sequences=[*some, *pair]).correlation() == LipTotals(sequences=some).correlation()
    assert LipTotals(sequences=[*some[:2], *pair]).correlation() is None
    for nothing in (0.0, 1e-13):
        same = [dataclasses.replace(s, loudness=1e-3 * (1 + i * nothing)) for i, s in enumerate(some)]
        assert LipTotals(sequences=same).correlation() is None
