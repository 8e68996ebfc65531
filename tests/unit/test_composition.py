# SPDX-License-Identifier: GPL-3.0-or-later
"""Faces with fewer channels: lips that meet go on meeting, and do not go through each other."""

from __future__ import annotations

import numpy as np
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH
from wav2sem_blender.pipeline.composition import composed, not_shown
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.visemes import MEASURES, closures, measured

from .made_up_motions import as_motion

MOUTH = tuple(MEASURES)
NO_JAW = tuple(name for name in MOUTH if not name.startswith("jaw"))


@pytest.fixture(scope="module")
def motion() -> Motion:
    """The bundled model's demo sentence."""
    pytest.importorskip("onnxruntime")
    if not (DEFAULT_MODEL / "config.json").is_file():
        pytest.skip("the repository has no bundled model")
    from wav2sem_blender.pipeline import SpeechAnimator

    return SpeechAnimator.load("default", engine="onnx").animate_file(DEMO_SPEECH)


def opening(motion: Motion) -> np.ndarray:
    return measured(motion)[:, 0]


@pytest.mark.parametrize(
    "available",
    [
        [name for name in MOUTH if name != "mouthClose"],
        ["jawOpen"],
        ["jawOpen", "mouthFunnel", "mouthSmileLeft", "mouthSmileRight"],
        ["jawOpen", "mouthClose"],
        ["jawOpen", "mouthPucker", "mouthLowerDownLeft", "mouthLowerDownRight"],
        [name for name in MOUTH if name not in ("mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper")],
    ],
    ids=["no mouthClose", "jaw alone", "Ready Player Me", "jaw and close", "pucker", "no rounding"],
)
def test_lips_that_meet_go_on_meeting(motion: Motion, available: list[str]) -> None:
    played = composed(motion, available)
    closed_T = closures(motion) > 0.5
    assert closed_T.sum() > 20 and opening(motion)[closed_T].max() < 1
    assert opening(played)[closed_T].max() < 0.5
    wanted_T = opening(motion).clip(0)
    assert np.corrcoef(opening(played), wanted_T)[0, 1] > 0.95
    assert played.channels == motion.channels
    assert played.weights_TK.min() >= 0 and played.weights_TK.max() <= 1
    left = [k for k, name in enumerate(motion.channels) if name in MOUTH and name not in available]
    assert left and not played.weights_TK[:, left].any()


def test_without_a_jaw_the_lips_do_not_cross(motion: Motion) -> None:
    bare = opening(as_motion_of(motion, NO_JAW))
    assert bare.min() < -3, "as it was: mouthClose alone"
    assert opening(composed(motion, NO_JAW)).min() > -1


def as_motion_of(motion: Motion, names: tuple[str, ...]) -> Motion:
    """Only these channels, played alone."""
    columns = [motion.channels.index(name) for name in names if name in motion.channels]
    return Motion(
        weights_TK=motion.weights_TK[:, columns], channels=tuple(motion.channels[k] for k in columns), fps=motion.fps
    )


def test_a_funnel_rounds_where_there_is_no_pucker() -> None:
    names = ("jawOpen", "mouthPucker", "mouthFunnel")
    rounded = Motion(weights_TK=np.array([[0.1, 0.7, 0.0]]).repeat(9, 0), channels=names, fps=30.0)
    played = composed(rounded, ("jawOpen", "mouthFunnel"))
    assert (played.weights_TK[:, 2] > 0.2).all()
    width, protrusion = measured(played)[0, 3:5] / measured(rounded)[0, 3:5]
    assert 0.25 < width < 1.2 and 0.3 < protrusion < 1.2


def test_nothing_changes_where_nothing_is_missing(motion: Motion) -> None:
    assert composed(motion, motion.channels) is motion
    others = as_motion(np.zeros((3, 2)))
    assert composed(others, ("key_00",)) is others
    assert composed(motion, ("eyeBlinkLeft",)) is motion, "no channel of the mouth to compose with"


def test_what_cannot_be_shown_is_said(motion: Motion) -> None:
    assert "rounded and spread lips" in not_shown(motion, composed(motion, ("jawOpen",)))
    without_close = [name for name in MOUTH if name != "mouthClose"]
    assert not_shown(motion, composed(motion, without_close)) == []
