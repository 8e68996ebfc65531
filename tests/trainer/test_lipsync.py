# SPDX-License-Identifier: GPL-3.0-or-later
"""Lip-sync scores: by hand on short curves, and equal to the acceptance tool's if that exists."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from trainer.evaluation.lipsync import Counts, correlations, judge, pool_closures, pool_correlations
from trainer.motion.curves import TRACKED, MotionStore, write_motion, write_tracked
from trainer.motion.landmarks import IMAGE_PX, LipGap, lip_gap
from trainer.speech.phones import PHONES, Timing

TOOL = Path(__file__).parents[2].parent / "shared" / "tools" / "evaluate_lipsync.py"
needs_tool = pytest.mark.skipif(not TOOL.is_file(), reason="the acceptance scorer (../shared/tools) is not here")

SENTENCE: list[Timing] = [
    ("SIL", 0.0, 0.5), ("AA1", 0.5, 1.0), ("M", 1.0, 1.1), ("AE0", 1.1, 1.6), ("T", 1.6, 1.7), ("AA", 1.7, 2.2),
    ("B", 2.2, 2.3), ("IY", 2.3, 2.8), ("SIL", 2.8, 2.85), ("AO", 2.85, 3.0), ("SIL", 3.0, 3.5),
]  # fmt: skip


def curve(*closed: tuple[float, float], depth: float = 0.0) -> np.ndarray:
    """3.5 s at 100 fps: 1, and `depth` in these intervals."""
    times_T = np.arange(350) / 100
    return np.where(np.any([(times_T >= b) & (times_T < e) for b, e in closed], axis=0), depth, 1.0)


def scores(aperture_T: np.ndarray, phones: list[Timing] = SENTENCE):
    return pool_closures([judge(aperture_T, 100, phones, 3.5)])


def test_a_mouth_that_closes_where_it_should() -> None:
    found = scores(curve((0, 0.5), (1.0, 1.1), (2.2, 2.3), (3.0, 3.5)))
    assert (found.bilabials, found.recall, found.precision, found.f1, found.auc) == (2, 1, 1, 1, 1)
    assert found.silence_residual == 0
    assert found.closed == pytest.approx(20 / 245)  # 20 steps of the 2.5 s less the 50 ms silence
    # M and B with 60 ms on both sides, and 60 ms beside each pause; the silence of 50 ms does not count.
    assert found.chance == pytest.approx((22 + 22 + 6 + 6) / 245, abs=2.1 / 245)


def test_a_mouth_that_misses_one_and_closes_elsewhere() -> None:
    found = scores(curve((1.0, 1.1), (1.3, 1.4)))
    assert found.recall == 0.5 and found.precision == pytest.approx(0.5) and found.f1 == pytest.approx(0.5)
    assert found.auc == 0.75  # M is below T, B is level with it
    assert found.silence_residual == 1


def test_a_closure_counts_40_ms_off_but_not_70() -> None:
    assert scores(curve((1.12, 1.13))).recall == 0.5
    assert scores(curve((1.16, 1.17))).recall == 0
    assert scores(curve((1.14, 1.15))).precision == 1 and scores(curve((1.20, 1.21))).precision == 0


def test_closed_is_a_fifth_of_what_the_clip_opens_to() -> None:
    for scale in (0.003, 1.0, 50.0):
        assert scores(scale * curve((1.0, 1.1), (2.2, 2.3), depth=0.19)).recall == 1
        assert scores(scale * curve((1.0, 1.1), (2.2, 2.3), depth=0.21)).recall == 0


def test_a_mouth_that_never_opens_is_no_better_than_chance() -> None:
    found = scores(np.zeros(350))
    assert found.recall == found.closed == 1 and found.precision == found.chance and found.auc == 0.5
    assert found.openness is None


def test_openness_is_of_open_vowels_over_close_phones() -> None:
    assert scores(curve((1.6, 1.7), (2.3, 2.8), depth=0.5)).openness == pytest.approx(2)


def test_long_clips_weigh_more_but_silences_are_means_of_clips() -> None:
    long = Counts(clips=1, bilabials=9, bilabials_closed=9, silent_clips=1, residual_sum=0.1)
    short = Counts(clips=1, bilabials=1, bilabials_closed=0, silent_clips=1, residual_sum=0.3)
    mute = Counts(clips=1)
    found = pool_closures([long, short, mute])
    assert (found.clips, found.recall, found.silence_residual) == (3, 0.9, pytest.approx(0.2))
    assert found.precision is found.auc is None and found.f1 == 0


def test_the_lag_is_positive_for_an_early_mouth() -> None:
    rng = np.random.default_rng(0)
    gap_T = np.convolve(rng.random(104), np.ones(3), "valid")
    tracked = LipGap(gap_T=gap_T[2:], found_T=np.ones(100, bool), fps=25.0)
    early = pool_correlations([correlations(gap_T[4:], 25, tracked)])
    assert early.best_lag == 2 and early.r_by_lag[5] == pytest.approx(1) and early.r < 0.9
    exact = pool_correlations([correlations(3 * gap_T[2:] + 1, 25, tracked), np.zeros(7)])
    assert exact.best_lag == 0 and exact.r == pytest.approx(0.5) and exact.clips == 2


def test_frames_without_a_face_are_left_out() -> None:
    gap_T = np.random.default_rng(0).random(75)
    seen_T = np.arange(75) % 5 != 0
    lost = LipGap(gap_T=np.where(seen_T, gap_T, 9.0), found_T=seen_T, fps=25.0)
    assert correlations(gap_T, 25, lost)[3] == pytest.approx(1)
    assert not correlations(gap_T, 25, LipGap(gap_T=gap_T, found_T=np.zeros(75, bool), fps=25.0)).any()


def test_prepared_motion_keeps_the_tracked_lips(tmp_path) -> None:
    lips = {
        name: LipGap(gap_T=np.random.default_rng(n).random(n), found_T=np.arange(n) > 1, fps=25.0)
        for name, n in (("one", 3), ("two", 5))
    }
    write_motion(tmp_path, ("jawOpen",), [("one", "grid_s1", "valid", np.zeros((4, 1), np.float32))])
    with pytest.raises(FileNotFoundError, match=r"tracked.npz: no tracked lips; run .*prepare motion` again"):
        MotionStore(tmp_path).tracked_lips()
    for kept in ({}, lips):
        write_tracked(tmp_path, kept)
        read = MotionStore(tmp_path).tracked_lips()
        assert list(read) == list(kept)
    assert (tmp_path / TRACKED).is_file()
    for name, lip in lips.items():
        np.testing.assert_array_equal(read[name].gap_T, lip.gap_T)
        np.testing.assert_array_equal(read[name].found_T, lip.found_T)
        assert read[name].fps == 25


def test_the_lip_gap_is_relative_to_the_eyes(tmp_path) -> None:
    points_px = np.array([[100, 50, 0], [200, 50, 0], [150, 100, 5], [150, 130, 9]], float)  # 33, 263, 13, 14
    write_track(tmp_path / "track.npz", np.stack([points_px, 2 * points_px]), np.array([True, False]))
    found = lip_gap(tmp_path / "track.npz")
    np.testing.assert_allclose(found.gap_T, 0.3, atol=0.01)
    assert found.found_T.tolist() == [True, False] and found.fps == 25


def write_track(path: Path, points_px: np.ndarray, found_T: np.ndarray) -> None:
    """A track (T, 4, 3) of the landmarks 33, 263, 13, 14 in the corpora's layout."""
    steps = np.diff(np.round(points_px / IMAGE_PX * 10_000), axis=0, prepend=0)
    np.savez(
        path,
        lm_idx=np.array([33, 263, 13, 14], np.int16),
        lm_dq=steps.astype(np.int16),
        lm_scale=np.float32(1e-4),
        ok=found_T.astype(np.uint8),
        fps=np.int64(25),
    )


def speak(rng: np.random.Generator, n_phones: int) -> list[Timing]:
    """Random phones of 30 to 300 ms, on a grid of 10 ms as aligners give them."""
    ends = np.cumsum(rng.integers(3, 30, n_phones)) / 100
    names = rng.choice([*PHONES, "SIL", "SIL", "P", "B", "M", "AA1", "IY0"], n_phones)
    return [(str(name), float(b), float(e)) for name, b, e in zip(names, [0, *ends[:-1]], ends, strict=True)]


@needs_tool
def test_equal_to_the_acceptance_scorer(tmp_path) -> None:
    """Two corpora, one with tracks; frame rates of 25, 30 and 60, curves shorter and longer than the recording."""
    rng = np.random.default_rng(7)
    counts: dict[str, list[Counts]] = {}
    lags: dict[str, list[np.ndarray]] = {}
    for i in range(12):
        corpus, clip = ("filmed", "heard")[i % 2], f"clip{i}"
        (tmp_path / "data" / corpus).mkdir(parents=True, exist_ok=True)
        (tmp_path / "align" / corpus).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pred" / corpus).mkdir(parents=True, exist_ok=True)
        phones = speak(rng, 40)
        duration_s = phones[-1][2] + 0.123
        sf.write(tmp_path / "data" / corpus / f"{clip}.wav", np.zeros(int(duration_s * 16_000)), 16_000)
        duration_s = int(duration_s * 16_000) / 16_000
        (tmp_path / "align" / corpus / f"{clip}.json").write_text(json.dumps(phones))
        fps = (25.0, 30.0, 60.0)[i % 3]
        noise_T = rng.random(int(fps * duration_s) + rng.integers(-9, 9))
        aperture_T = np.maximum(np.convolve(noise_T, np.ones(4), "same") - 1.3, 0)
        np.savez(tmp_path / "pred" / corpus / f"{clip}.npz", aperture=aperture_T, fps=fps)
        counts.setdefault(corpus, []).append(judge(aperture_T, fps, phones, duration_s))
        if corpus == "filmed":
            track = tmp_path / "data" / corpus / f"{clip}.npz"
            points_px = np.array([[100, 50, 0], [200, 50, 0], [150, 100, 5], [150, 130, 9]], float)
            moved = points_px + rng.normal(0, 5, (int(25 * duration_s), 4, 3))
            write_track(track, moved, rng.random(len(moved)) > 0.1)
            lags.setdefault(corpus, []).append(correlations(aperture_T, fps, lip_gap(track)))
    command = [sys.executable, str(TOOL), str(tmp_path / "pred"), str(tmp_path / "data")]
    command += ["--align", str(tmp_path / "align"), "--json", str(tmp_path / "theirs.json")]
    subprocess.run(command, check=True, capture_output=True)
    theirs = json.loads((tmp_path / "theirs.json").read_text())
    for corpus, clips in counts.items():
        ours = asdict(pool_closures(clips))
        assert ours == pytest.approx({key: theirs["phones"][corpus][key] for key in ours}, abs=1e-6)
        assert ours["bilabials"] > 20 and 0 < ours["recall"] < 1 and 0 < ours["precision"] < 1
    ours = pool_correlations(lags["filmed"])
    assert ours.r_by_lag == pytest.approx(theirs["M1"]["filmed"]["r_by_lag"], abs=1e-6)
    assert ours.best_lag == theirs["best_lag_frames"] and ours.r == pytest.approx(theirs["M1"]["filmed"]["r_lag0"])
