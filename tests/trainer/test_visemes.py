# SPDX-License-Identifier: GPL-3.0-or-later
"""The contact sheet of visemes: which mouth is drawn, and that two sounds do not look alike."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("torch")

from trainer.analysis.visemes import SOUNDS, DemoMouth, contact_sheet, mean_poses  # noqa: E402
from trainer.motion.curves import FPS  # noqa: E402


def test_a_pose_is_the_mean_at_the_middles_of_long_enough_sounds() -> None:
    weights_TK = np.arange(60.0)[:, None]
    phones = [("UW", 0.2, 0.4), ("IY", 0.5, 0.55), ("UW", 1.0, 1.2), ("AA", 5.0, 6.0)]
    poses = mean_poses(iter([({"clear": weights_TK}, phones)]))
    assert list(poses["clear"]) == ["oo"], "the ee is too short, the ah is beyond the motion"
    assert poses["clear"]["oo"][0] == pytest.approx((round(0.3 * FPS) + round(1.1 * FPS)) / 2)


def test_the_heads_channels_move_it() -> None:
    head = DemoMouth()
    still, opened = head.moved({}), head.moved({"jawOpen": 0.5, "unknown": 1.0})
    lowest_mm = (opened - still)[:, 1].min()
    assert -40 < lowest_mm < -5, "the chin sinks by centimetres"
    narrowed = head.moved({"mouthPucker": 1.0}) - still
    assert np.abs(narrowed).max() > 2


def test_the_sheet_shows_an_open_mouth_darker_than_a_closed_one(tmp_path) -> None:
    head = DemoMouth()
    middle = np.s_[230:262, 160:192]  # just below where the lips meet
    closed, opened = (head.picture(weights)[middle][..., :3].mean() for weights in ({}, {"jawOpen": 0.6}))
    assert opened < closed
    contact_sheet(tmp_path / "a" / "sheet.png", ("jawOpen",), {"natural": {sound: np.zeros(1) for sound in SOUNDS}})
    assert (tmp_path / "a" / "sheet.png").stat().st_size > 10_000
