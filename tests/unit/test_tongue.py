# SPDX-License-Identifier: GPL-3.0-or-later
"""The tongue's rule: which phone moves it, how far and when, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.phones import PHONES, Phones
from wav2sem_blender.pipeline.tongue import TONGUE_CHANNELS, with_tongue
from wav2sem_blender.pipeline.words.track import Phone, Track

FPS = 100.0


def spoken(*runs: tuple[str, float], confidence: float = 1.0, jaw: float = 0.5) -> Motion:
    """Phones with their seconds, one after another from 0 s, with an open jaw."""
    rows = []
    for phone, duration_s in runs:
        row_P = np.full(len(PHONES), (1 - confidence) / (len(PHONES) - 1))
        row_P[PHONES.index(phone)] = confidence
        rows += [row_P] * round(duration_s * 50)
    n_frames = round(len(rows) / 50 * FPS)
    return Motion(
        weights_TK=np.tile([jaw, 0.25], (n_frames, 1)),
        channels=("jawOpen", "mouthPucker"),
        fps=FPS,
        phones=Phones(posteriors_LP=np.array(rows), first_s=0.01),
        basis_KV3=np.ones((2, 4, 3)),
    )


def tongue(motion: Motion, channel: str) -> np.ndarray:
    moved = with_tongue(motion)
    return moved.weights_TK[:, moved.channels.index(channel)]


@pytest.mark.parametrize(
    ("phone", "out", "up"),
    [("TH", 0.35, 0), ("DH", 0.25, 0), ("L", 0, 0.8), ("T", 0, 0.9), ("D", 0, 0.9), ("N", 0, 0.9)]
    + [(phone, 0, 0) for phone in PHONES if phone not in ("TH", "DH", "L", "T", "D", "N")],
)
def test_where_each_phone_puts_the_tip(phone, out, up):
    motion = spoken(("AA", 0.3), (phone, 0.2), ("AA", 0.3))
    assert tongue(motion, "tongueOut").max() == pytest.approx(out, abs=1e-6)
    assert tongue(motion, "tongueTipUp").max() == pytest.approx(up, abs=1e-6)


def test_the_tip_sets_off_before_the_phone_and_is_back_after_it():
    up_T = tongue(spoken(("AA", 0.3), ("L", 0.2), ("AA", 0.3)), "tongueTipUp")
    time_s = np.arange(len(up_T)) / FPS
    np.testing.assert_array_equal(up_T[(time_s < 0.259) | (time_s > 0.541)], 0)
    np.testing.assert_allclose(up_T[(time_s > 0.341) & (time_s < 0.459)], 0.8, atol=1e-6)
    assert up_T[30] == pytest.approx(0.4, abs=1e-6) and up_T[50] == pytest.approx(0.4, abs=1e-6)
    assert (np.diff(up_T[:40]) >= 0).all() and (np.diff(up_T[40:]) <= 0).all()


def test_neighbours_share_one_contact():
    up_T = tongue(spoken(("AA", 0.3), ("N", 0.1), ("T", 0.1), ("AA", 0.3)), "tongueTipUp")
    np.testing.assert_allclose(up_T[35:46], 0.9, atol=1e-6)
    assert up_T.max() <= 0.9 + 1e-6


def test_a_short_phone_does_not_reach_its_goal():
    short, long = (tongue(spoken(("AA", 0.3), ("D", s), ("AA", 0.3)), "tongueTipUp").max() for s in (0.04, 0.1))
    assert 0.5 < short < 0.7 < long == pytest.approx(0.9, abs=1e-6)


def test_little_confidence_moves_it_less():
    motion = spoken(("AA", 0.3), ("L", 0.2), ("AA", 0.3), confidence=0.3)
    assert tongue(motion, "tongueTipUp").max() == pytest.approx(0.4, abs=1e-3)


def test_it_stays_behind_closed_lips():
    runs = ("AA", 0.3), ("TH", 0.2), ("AA", 0.3)
    assert tongue(spoken(*runs, jaw=0.0), "tongueOut").max() < 0.05
    assert tongue(spoken(*runs, jaw=0.05), "tongueOut").max() == pytest.approx(0.35 * 1.605 / 3, abs=0.02)


def test_the_rest_of_the_motion_is_kept():
    motion = spoken(("AA", 0.2), ("N", 0.2))
    moved = with_tongue(motion)
    assert moved.channels == ("jawOpen", "mouthPucker", *TONGUE_CHANNELS)
    np.testing.assert_array_equal(moved.weights_TK[:, :2], motion.weights_TK)
    np.testing.assert_array_equal(moved.vertex_offsets(), motion.vertex_offsets())
    assert moved.phones is motion.phones and moved.info["by_rule"] == "tongueOut, tongueTipUp"
    assert with_tongue(motion, ["tongueTipUp"]).channels == ("jawOpen", "mouthPucker", "tongueTipUp")


def test_without_phones_or_with_a_tongue_of_its_own_nothing_changes():
    motion = spoken(("AA", 0.2), ("N", 0.2))
    silent = replace(motion, phones=None)
    assert with_tongue(silent) is silent
    own = replace(motion, channels=("jawOpen", "tongueOut"))
    np.testing.assert_array_equal(with_tongue(own).weights_TK[:, :2], own.weights_TK)
    assert with_tongue(own).channels == ("jawOpen", "tongueOut", "tongueTipUp")
    assert with_tongue(own, ["tongueOut"]) is own


def test_it_follows_the_speed_at_which_it_is_played():
    motion = spoken(("AA", 0.4), ("L", 0.4), ("AA", 0.4)).at_speed(2.0)
    up_T = tongue(motion, "tongueTipUp")
    middle_s = np.average(np.arange(len(up_T)) / motion.fps, weights=up_T)
    assert middle_s == pytest.approx(0.3, abs=0.005)


def test_it_follows_a_forced_phone():
    motion = spoken(("AA", 0.3), ("S", 0.2), ("AA", 0.3))
    assert tongue(motion, "tongueOut").max() == 0
    forced = replace(motion, track=Track(phones=(Phone("TH", 0.3, 0.5),)))
    out_T = tongue(forced, "tongueOut")
    np.testing.assert_allclose(out_T, tongue(spoken(("AA", 0.3), ("TH", 0.2), ("AA", 0.3)), "tongueOut"), atol=1e-3)
    heard = replace(motion, track=Track(phones=(Phone("TH", 0.3, 0.5, forced=False),)))
    assert tongue(heard, "tongueOut").max() == 0
    twice = tongue(forced.at_speed(2.0), "tongueOut")
    assert twice.max() > 0.2 and abs(int(twice.argmax()) - int(out_T.argmax())) <= 4, "the track is played as fast"
