# SPDX-License-Identifier: GPL-3.0-or-later
"""Transferred keys: exact on the template face, near the true keys on other heads, lips kept apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.demo_head import __main__ as demo
from wav2sem_blender.assets import TEMPLATE_FACE
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.any_head.landmarks import guess_landmarks
from wav2sem_blender.pipeline.any_head.surface import Neighbours, edge_distance, islands
from wav2sem_blender.pipeline.any_head.transfer import LANDMARKS, TemplateFace, transfer
from wav2sem_blender.pipeline.upper_face import UPPER_FACE_CHANNELS

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
MODEL = ROOT / "wav2sem_blender" / "assets" / "models" / "default"
TURN_33 = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the development data in {DATA}")


@pytest.fixture(scope="module")
def face() -> TemplateFace:
    return TemplateFace.load()


@pytest.fixture(scope="module")
def marks(face) -> dict[str, np.ndarray]:
    return dict(zip(LANDMARKS, face.landmarks_L3, strict=True))


def box(middle_3, half_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners and triangles of a closed cube."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half_m + middle_3
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners, np.array([t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))])


@pytest.fixture(scope="module")
def with_parts(face, marks):
    """The template face with teeth, an eye and lashes on chin and lid, turned, moved and in inches; and its keys."""
    seam = (marks["upper_lip"] + marks["lower_lip"]) / 2
    eye = (marks["eye_inner_left"] + marks["eye_outer_left"]) / 2
    places = {
        "lower": (seam + [0, -0.007, -0.015], 0.003),
        "upper": (seam + [0, 0.007, -0.015], 0.003),
        "eye": (eye + [0, 0, -0.01], 0.01),
        "lash": (marks["chin"] + [0, 0, 0.001], 0.0005),
    }
    points, triangles, spans = [face.points_S3], [face.triangles_F3], {}
    for name, (middle, half) in places.items():
        corners, sides = box(middle, half)
        start = sum(map(len, points))
        spans[name] = slice(start, start + 8)
        points.append(corners)
        triangles.append(sides + start)
    # A stiff hair of 8 mm at the edge of the left upper lid, straight ahead.
    edge_3 = face.points_S3[face.offsets_KS3[face.channels.index("eyeBlinkLeft"), :, 1].argmin()]
    start = sum(map(len, points))
    spans["hair"] = slice(start, start + 3)
    points.append(edge_3 + np.array([[0.0, 0.0, 0.0], [0.0003, 0.0, 0.0], [0.0, 0.0, 0.008]]))
    triangles.append(np.array([[0, 1, 2]]) + start)
    place = lambda here: here @ TURN_33.T / 0.0254 + [5.0, -3.0, 40.0]  # noqa: E731
    got_KN3 = transfer(
        face, place(np.concatenate(points)), np.concatenate(triangles), {n: place(p) for n, p in marks.items()}
    )
    back_KN3 = got_KN3 @ TURN_33 * 0.0254
    return back_KN3, spans


def test_the_face_is_of_the_bundled_model(face):
    """If this fails, run python -m trainer.mesh_registration.template_face."""
    safetensors = pytest.importorskip("safetensors.numpy")
    with np.load(TEMPLATE_FACE, allow_pickle=False) as file:
        vertices_S2 = file["flame_vertices"].astype(int)
    basis_KV3 = safetensors.load_file(MODEL / "model.safetensors")["basis_KV3"].astype(float)
    n_speech = len(basis_KV3)
    np.testing.assert_allclose(face.offsets_KS3[:n_speech], basis_KV3[:, vertices_S2].mean(2), atol=1.1e-6)
    assert face.channels[n_speech:] == tuple(sorted(UPPER_FACE_CHANNELS, key=face.channels.index))


def test_the_face_gets_its_own_keys_back_in_any_frame_and_unit(face, with_parts):
    error_mm = 1000 * np.linalg.norm(with_parts[0][:, : len(face.points_S3)] - face.offsets_KS3, axis=2)
    assert np.median(error_mm) < 0.05 and np.percentile(error_mm, 95) < 0.4


def test_teeth_go_with_their_jaw_and_the_eye_only_turns(face, with_parts):
    got_KN3, spans = with_parts
    open_N3 = got_KN3[face.channels.index("jawOpen")]
    chin_3 = face.offsets_KS3[face.channels.index("jawOpen")][
        np.linalg.norm(face.points_S3 - face.landmarks_L3[LANDMARKS.index("chin")], axis=1).argmin()
    ]
    assert np.linalg.norm(open_N3[spans["lower"]], axis=1).min() > 0.6 * np.linalg.norm(chin_3)
    assert np.abs(got_KN3[:, spans["upper"]]).max() < 1e-9
    turns_K = np.array([name.startswith("eyeLook") and name.endswith("Left") for name in face.channels])
    assert np.abs(got_KN3[~turns_K, spans["eye"]]).max() < 1e-9
    # The left upper front corner moves left when the left eye looks out, and down when it looks down.
    assert got_KN3[face.channels.index("eyeLookOutLeft"), spans["eye"]][7, 0] > 0.003
    assert got_KN3[face.channels.index("eyeLookDownLeft"), spans["eye"]][7, 1] < -0.003
    assert np.abs(got_KN3[turns_K, spans["eye"]].mean(1)).max() < 1e-9
    np.testing.assert_allclose(open_N3[spans["lash"]].mean(0), chin_3, atol=0.002)
    # A tooth keeps its shape.
    corners, _ = box([0, 0, 0], 0.003)
    moved = corners + open_N3[spans["lower"]]
    assert np.linalg.norm(moved[0] - moved[7]) == pytest.approx(np.linalg.norm(corners[0] - corners[7]), rel=1e-3)


def test_a_lash_turns_with_its_lid(face, with_parts):
    got_KN3, spans = with_parts
    root_3, _, tip_3 = got_KN3[face.channels.index("eyeBlinkLeft"), spans["hair"]]
    hair_3 = np.array([0.0, 0.0, 0.008]) + tip_3 - root_3
    assert root_3[1] < -0.004, "the lid falls"
    assert np.linalg.norm(hair_3) == pytest.approx(0.008, rel=0.01)
    assert hair_3[1] < -0.002, "it points down"
    # Keys of the mouth and of the other eye do not move it.
    assert np.abs(got_KN3[face.channels.index("eyeBlinkRight"), spans["hair"]]).max() < 1e-4


def test_a_missing_landmark_is_named(face, marks):
    with pytest.raises(UserError, match="chin is missing"):
        transfer(face, face.points_S3, face.triangles_F3, {n: p for n, p in marks.items() if n != "chin"})


def test_left_for_right_is_refused(face, marks):
    swapped = {n.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right"): p for n, p in marks.items()}
    with pytest.raises(UserError, match="Left is the character's own left"):
        transfer(face, face.points_S3, face.triangles_F3, swapped)


def test_a_mouth_without_an_opening_is_refused(face, marks):
    upper, lower = (
        np.linalg.norm(face.points_S3 - marks[name], axis=1).argsort()[:3] for name in ("upper_lip", "lower_lip")
    )
    bridge = np.array([[upper[0], lower[0], lower[1]], [upper[0], lower[0], upper[1]]])
    with pytest.raises(UserError, match="one surface, so the mouth cannot open"):
        transfer(face, face.points_S3, np.concatenate([face.triangles_F3, bridge]), marks)


def test_no_face_is_found_on_a_box(face):
    points, triangles = box([0, 0, 0], 1.0)
    with pytest.raises(UserError, match="No face was found"):
        guess_landmarks(face, points, triangles)


@pytest.fixture(scope="module")
def demo_keys(face):
    """The demo head without its keys: points, lip pairs, guessed landmarks, transferred keys by channel."""
    with np.load(demo.DEMO_HEAD, allow_pickle=False) as file:
        points, quads, pairs = file["points"].astype(float), file["quads"].astype(int), file["lip_pairs"].astype(int)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    found = guess_landmarks(face, points, triangles)
    keys = dict(zip(face.channels, transfer(face, points, triangles, found), strict=True))
    return points, pairs, found, keys


def test_the_demo_heads_landmarks_are_guessed(demo_keys):
    points, pairs, found, _ = demo_keys
    lips = points[pairs.ravel()]
    assert np.linalg.norm(found["mouth_left"] - lips[lips[:, 0].argmax()]) < 0.006
    assert np.linalg.norm(found["mouth_right"] - lips[lips[:, 0].argmin()]) < 0.006
    assert found["upper_lip"][2] - 0.003 > found["lower_lip"][2] > found["chin"][2]
    assert found["nose_tip"][1] == pytest.approx(points[:3733, 1].min(), abs=1e-6)


def test_the_demo_heads_lips_part_and_meet(demo_keys):
    points, pairs, _, keys = demo_keys

    def gaps_mm(offsets):
        moved = points + offsets
        return 1000 * np.linalg.norm(moved[pairs[:, 0]] - moved[pairs[:, 1]], axis=1)

    at_rest = gaps_mm(0)
    assert np.percentile(gaps_mm(keys["jawOpen"]), 75) > 15
    # The lips stay together at the corners and part gradually from there.
    across_mm = 1000 * np.abs(points[pairs[:, 0], 0])
    assert gaps_mm(keys["jawOpen"])[across_mm > across_mm.max() - 0.1].max() < 5
    assert np.median(gaps_mm(keys["jawOpen"] + keys["mouthClose"]) - at_rest) < 1.5
    assert np.median(gaps_mm(keys["mouthPucker"]) - at_rest) < 1.5


@needs_data
@pytest.mark.parametrize(("head", "median_mm", "p95_mm"), [("flame", 0.1, 1.0), ("ict", 0.2, 2.5)])
def test_near_the_true_keys_of_other_heads(face, head, median_mm, p95_mm):
    pytest.importorskip("scipy", reason="the true landmarks come from the trainer")
    from trainer.mesh_registration import transfer_errors

    case = transfer_errors.flame_head(DATA, face, 1) if head == "flame" else transfer_errors.ict_head(DATA, face)
    assert case.landmarks is not None
    got_KN3 = transfer(face, case.points_N3, case.triangles_F3, case.landmarks)
    upper_K = transfer_errors.is_upper(face)
    errors, _ = transfer_errors.errors_mm(case, got_KN3, case.landmarks, ~upper_K)
    assert np.median(errors) < median_mm and np.percentile(errors, 95) < p95_mm
    errors, _ = transfer_errors.errors_mm(case, got_KN3, case.landmarks, upper_K)
    assert np.median(errors) < median_mm and np.percentile(errors, 95) < p95_mm


def test_neighbours_are_the_nearest():
    points = np.random.default_rng(0).normal(size=(2000, 3))
    queries = np.random.default_rng(1).normal(size=(50, 3))
    true = np.linalg.norm(points - queries[:, None], axis=2).argsort(1)[:, :5]
    found = Neighbours(points)(queries, 5)
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(true, found, strict=True)]) > 0.95


def test_walking_goes_round_a_gap_and_ends_at_an_island():
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [9, 9, 9]], dtype=float)
    edges = np.array([[0, 1], [1, 2], [2, 3]])
    np.testing.assert_allclose(edge_distance(points, edges, [0]), [0, 1, 2, 3, np.inf])
    np.testing.assert_allclose(edge_distance(points, edges, [0], limit=1.5)[:2], [0, 1])
    assert edge_distance(points, edges, [0], limit=1.5)[3] == np.inf
    np.testing.assert_array_equal(islands(5, edges), [0, 0, 0, 0, 4])
