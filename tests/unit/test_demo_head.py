# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head: 52 symmetric keys, lips that seal, lids that meet, and a file that its script reproduces."""

from __future__ import annotations

import numpy as np
import pytest

from tools.demo_head import __main__ as demo_head
from tools.demo_head.sculpt import EYE_CENTRE_CM
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS

PAIRED = [name[:-4] for name in ARKIT_CHANNELS if name.endswith("Left") and name[:-4] + "Right" in ARKIT_CHANNELS]


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    """The committed file."""
    with np.load(demo_head.DEMO_HEAD, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def offsets(head: dict[str, np.ndarray], name: str) -> np.ndarray:
    """(V, 3) metres of one key."""
    index = head["key_names"].tolist().index(name)
    span = slice(int(head["key_starts"][index]), int(head["key_starts"][index + 1]))
    out = np.zeros(head["points"].shape)
    out[head["key_vertices"][span]] = head["key_offsets"][span] * float(head["key_unit_m"])
    return out


def posed(head: dict[str, np.ndarray], **weights: float) -> np.ndarray:
    """(V, 3) metres with keys at the given weights."""
    return head["points"] + sum(weight * offsets(head, name) for name, weight in weights.items())


def lip_gap_m(head: dict[str, np.ndarray], **weights: float) -> float:
    """The widest gap between the lips where they touch at rest, in front and behind."""
    points = posed(head, **weights)
    upper, lower = points[head["lip_pairs"][:, 0]], points[head["lip_pairs"][:, 1]]
    return float(np.linalg.norm(upper - lower, axis=1).max())


def test_has_exactly_the_52_arkit_keys(head):
    apple = """
    browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff cheekSquintLeft
    cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft eyeLookInRight
    eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft
    eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft
    mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight
    mouthPucker mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft
    mouthSmileRight mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft
    noseSneerRight tongueOut""".split()
    assert len(apple) == 52
    assert sorted(head["key_names"].tolist()) == sorted(apple)


def test_file_is_small_finite_and_well_formed(head):
    assert demo_head.DEMO_HEAD.stat().st_size <= 1_000_000
    for name, array in head.items():
        if array.dtype.kind == "f":
            assert np.isfinite(array).all(), name
    assert head["quads"].max() == len(head["points"]) - 1
    assert all(len(set(quad)) == 4 for quad in head["quads"].tolist())
    assert len(head["material"]) == len(head["quads"])
    assert head["material"].max() < len(head["material_names"])
    # Life size: a head of 20 to 30 cm on a bust that stands on z = 0.
    assert head["points"][:, 2].min() == pytest.approx(0.0, abs=1e-4)
    assert 0.35 < head["points"][:, 2].max() < 0.50


def test_every_key_moves_something_by_a_plausible_amount(head):
    for name in ARKIT_CHANNELS:
        largest_m = np.linalg.norm(offsets(head, name), axis=1).max()
        assert 0.001 < largest_m < 0.06, f"{name}: {1000 * largest_m:.1f} mm"


@pytest.mark.parametrize("stem", PAIRED)
def test_right_key_is_the_left_key_mirrored(head, stem):
    mirror = head["skin_mirror"].astype(int)
    skin = len(mirror)
    np.testing.assert_allclose(head["points"][:skin][mirror] * [-1, 1, 1], head["points"][:skin], atol=1e-6)
    left, right = offsets(head, stem + "Left")[:skin], offsets(head, stem + "Right")[:skin]
    np.testing.assert_allclose(left[mirror] * [-1, 1, 1], right, atol=3 * demo_head.KEY_UNIT_M)


@pytest.mark.parametrize("name", ["mouthSmileLeft", "eyeBlinkLeft", "browDownLeft", "noseSneerLeft"])
def test_left_means_the_characters_own_left(head, name):
    move = np.linalg.norm(offsets(head, name), axis=1)
    assert (move * head["points"][:, 0]).sum() / move.sum() > 0.01


def test_face_looks_along_minus_y_and_jaw_drops(head):
    pupils = np.unique(head["quads"][head["material"] == head["material_names"].tolist().index("pupil")])
    assert head["points"][pupils, 1].max() < -0.06
    assert offsets(head, "jawOpen")[:, 2].min() < -0.02
    assert offsets(head, "jawLeft")[:, 0].max() > 0.004
    assert offsets(head, "jawForward")[:, 1].min() < -0.004


def test_lips_touch_at_rest(head):
    assert lip_gap_m(head) < 1e-5


def test_jaw_opens_the_lips_and_mouth_close_seals_them(head):
    opened_m = lip_gap_m(head, jawOpen=1.0)
    assert 0.015 < opened_m < 0.04
    assert lip_gap_m(head, jawOpen=1.0, mouthClose=1.0) < 0.1 * opened_m
    assert lip_gap_m(head, jawOpen=0.4, mouthClose=0.4) < 0.04 * opened_m
    teeth = head["material"] == head["material_names"].tolist().index("teeth")
    dropped_m = -offsets(head, "jawOpen")[np.unique(head["quads"][teeth]), 2].min()
    chin_m = -(offsets(head, "jawOpen") + offsets(head, "mouthClose"))[:, 2].min()
    assert dropped_m > 0.015 and chin_m > 0.015, "the jaw stays dropped behind closed lips"


@pytest.mark.parametrize("name", ["mouthSmileLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthPucker", "mouthLeft",
                                  "cheekPuff", "browInnerUp", "mouthShrugLower", "mouthShrugUpper"])  # fmt: skip
def test_keys_that_keep_the_lips_sealed(head, name):
    assert lip_gap_m(head, **{name: 1.0}) < 0.0025


@pytest.mark.parametrize("name", ["mouthFunnel", "mouthLowerDownLeft", "mouthUpperUpRight", "tongueOut"])
def test_keys_that_part_the_lips(head, name):
    assert lip_gap_m(head, **{name: 1.0}) > 0.004


@pytest.mark.parametrize("eye, side", [(0, "Left"), (1, "Right")])
def test_lids_meet_in_a_blink(head, eye, side):
    pairs = head["lid_pairs"][eye].astype(int)

    def gap_m(**weights: float) -> float:
        points = posed(head, **weights)
        return float(np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1).max())

    rest_m = gap_m()
    assert rest_m > 0.015
    assert gap_m(**{f"eyeBlink{side}": 1.0}) < 0.02 * rest_m
    assert gap_m(**{f"eyeWide{side}": 1.0}) > 1.05 * rest_m


def test_lids_stay_outside_the_eyeball_during_a_blink(head):
    sclera = head["material"] == head["material_names"].tolist().index("sclera")
    ball = head["points"][np.unique(head["quads"][sclera])]
    ball = ball[ball[:, 0] > 0]
    centre_m = (EYE_CENTRE_CM - [0.0, 0.0, demo_head.BUST_BOTTOM_CM]) / 100
    radius_m = np.linalg.norm(ball - centre_m, axis=1).max()
    margins = np.unique(head["lid_pairs"][0])
    for weight in (0.25, 0.5, 0.75, 1.0):
        points = posed(head, eyeBlinkLeft=weight)[margins]
        assert np.linalg.norm(points - centre_m, axis=1).min() > radius_m


def test_file_equals_what_the_script_builds(head):
    built = demo_head.build()
    assert sorted(built) == sorted(head)
    for name, array in built.items():
        if name == "points":
            np.testing.assert_allclose(array, head[name], atol=2e-6)
        elif name == "tint":
            np.testing.assert_allclose(array.astype(int), head[name].astype(int), atol=1)
        elif name not in ("key_starts", "key_vertices", "key_offsets"):
            np.testing.assert_array_equal(array, head[name], err_msg=name)
    # Compare displacements: rounding decides whether a vertex at the threshold is stored.
    for name in ARKIT_CHANNELS:
        np.testing.assert_allclose(
            offsets(built, name), offsets(head, name), atol=3 * demo_head.KEY_UNIT_M, err_msg=name
        )
