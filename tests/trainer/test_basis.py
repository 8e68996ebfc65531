# SPDX-License-Identifier: GPL-3.0-or-later
"""The ARKit basis on FLAME's topology: lips, lids, symmetry, and the parts that must not move. Lengths in
millimetres."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
FLAME = DATA / "flame2023_open" / "flame2023_open.npz"
REFERENCE = ROOT / "wav2sem_blender" / "assets" / "flame_reference.json"
UPPER_FACE = ROOT / "wav2sem_blender" / "assets" / "upper_face.npz"
EYEBALLS = slice(3931, 5023)
UPPER_LIP, LOWER_LIP, CHIN = 3531, 3504, 3414  # middle of the seam, front of the chin

needs_data = pytest.mark.skipif(not FLAME.is_file(), reason=f"needs the development data in {DATA}")


@pytest.fixture(scope="module")
def flame():
    with np.load(FLAME, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


@pytest.fixture(scope="module")
def keys():
    """{name: displacement (V, 3) in mm}"""
    pytest.importorskip("scipy")
    from trainer.mesh_registration.basis import build_basis

    basis = build_basis(DATA)
    assert basis.basis_KV3.dtype == np.float32 and basis.basis_KV3.shape == (len(basis.names), 5023, 3)
    return {name: 1000.0 * key.astype(float) for name, key in zip(basis.names, basis.basis_KV3, strict=True)}


@pytest.fixture(scope="module")
def skin():
    from trainer.mesh_registration.registration import load_flame

    return load_flame(DATA)[1]


def lip_gap_mm(flame, displacement_mm):
    """Heights of the opening at three places, from MediaPipe landmarks on the inner lips."""
    points = 1000.0 * flame["v_template"] + displacement_mm

    def landmark(number):
        row = int(np.flatnonzero(flame["mediapipe_landmark_ids"] == number)[0])
        triangle = flame["faces"][flame["mediapipe_face_index"][row]]
        return flame["mediapipe_barycentric"][row] @ points[triangle]

    return np.array([(landmark(upper) - landmark(lower))[1] for upper, lower in ((82, 87), (13, 14), (312, 317))])


@needs_data
def test_names_are_arkit_without_tongue_out(keys):
    assert len(keys) == 51 and "tongueOut" not in keys
    said = (DATA / "regions" / "said_ARKit_blendshapes.txt").read_text().split()
    assert set(said) <= set(keys)


@needs_data
@pytest.mark.parametrize("weight", [0.3, 0.6, 1.0])
def test_mouth_close_shuts_the_lips_of_an_open_jaw(flame, keys, weight):
    rest = lip_gap_mm(flame, 0.0)
    opened = lip_gap_mm(flame, weight * keys["jawOpen"])
    closed = lip_gap_mm(flame, weight * (keys["jawOpen"] + keys["mouthClose"]))
    assert (opened - rest > 25 * weight).all()
    np.testing.assert_allclose(closed, rest, atol=0.3)


@needs_data
def test_jaw_open_moves_the_chin_down_and_leaves_the_upper_lip(keys):
    opening = keys["jawOpen"]
    assert opening[CHIN, 1] < -20 and opening[CHIN, 2] < -15  # the chin swings down and back about the joint
    assert opening[LOWER_LIP, 1] < -25
    assert np.linalg.norm(opening[UPPER_LIP]) < 2


@needs_data
def test_jaw_open_matches_the_chin_of_the_source(keys, flame):
    """ICT's chin moves by 4.2 cm; FLAME's jaw turns by the same angle, which gives 3.5 to 4 cm on its smaller head."""
    assert 33 < np.linalg.norm(keys["jawOpen"][CHIN]) < 42


@needs_data
@pytest.mark.parametrize(
    ("name", "axis", "sign"),
    [("jawLeft", 0, 1), ("jawRight", 0, -1), ("jawForward", 2, 1)],
)
def test_chin_goes_the_named_way(keys, name, axis, sign):
    chin = keys[name][CHIN]
    assert sign * chin[axis] > 5
    assert np.abs(chin).argmax() == axis


@needs_data
def test_left_keys_move_the_characters_left(flame, keys):
    x = flame["v_template"][:, 0]
    for name in keys:
        if name.endswith(("Left", "Right")) and not name.startswith(("jaw", "mouthLeft", "mouthRight")):
            amount = np.linalg.norm(keys[name], axis=1)
            centre = (amount**2 @ x) / (amount**2).sum()
            assert centre * (1 if name.endswith("Left") else -1) > 0.005, name


@needs_data
def test_mirrored_pairs_are_mirror_images(keys, skin):
    from trainer.mesh_registration.basis import other_side
    from trainer.mesh_registration.registration import HEAD_VERTICES, MIRROR, mirror_map

    twin = mirror_map(skin)
    for name, key in keys.items():
        error = np.linalg.norm(MIRROR * key[:HEAD_VERTICES][twin] - keys[other_side(name)][:HEAD_VERTICES], axis=1)
        # The lids follow the template's own eyeballs and eye openings, which differ by 1.5 mm.
        assert error.max() < (1.2 if name.startswith("eye") else 0.4), name
        assert np.percentile(error, 95) < 0.05, name


@needs_data
def test_neck_border_back_of_head_and_eyeballs_stay(flame, keys, skin):
    edges = np.concatenate([skin.triangles_F3[:, [0, 1]], skin.triangles_F3[:, [1, 2]], skin.triangles_F3[:, [2, 0]]])
    edges, count = np.unique(np.sort(edges, 1), axis=0, return_counts=True)
    border = np.unique(edges[count == 1])
    border = border[flame["v_template"][border, 1] < -0.1]
    back = np.flatnonzero(flame["v_template"][:, 2] < -0.08)
    assert len(border) == 30 and len(back) > 100
    for name, key in keys.items():
        assert np.abs(key[border]).max() == 0, name
        assert np.abs(key[back]).max() == 0, name
        if not name.startswith("eyeLook"):
            assert np.abs(key[EYEBALLS]).max() == 0, name


@needs_data
@pytest.mark.parametrize("side", ["Left", "Right"])
def test_gaze_turns_the_eyeball_about_its_centre(flame, keys, side):
    eye = slice(3931, 4477) if side == "Left" else slice(4477, 5023)
    front = eye.start + int(flame["v_template"][eye, 2].argmax())
    outward = 1 if side == "Left" else -1
    for direction, axis, sign in (("Up", 1, 1), ("Down", 1, -1), ("In", 0, -outward), ("Out", 0, outward)):
        key = keys[f"eyeLook{direction}{side}"]
        assert sign * key[front, axis] > 3, direction
        points = 1000.0 * flame["v_template"][eye]
        centre = 1000.0 * flame["J_regressor"][3 if side == "Left" else 4] @ flame["v_template"]
        before, after = (np.linalg.norm(p - centre, axis=1) for p in (points, points + key[eye]))
        np.testing.assert_allclose(after, before, atol=1e-3)


@needs_data
@pytest.mark.parametrize("side", ["Left", "Right"])
def test_blink_closes_the_lids_in_front_of_the_eyeball(flame, keys, skin, side):
    from trainer.mesh_registration.basis import LID_RUNS, Seam, eyeball

    seam = Seam(skin, LID_RUNS[side])
    moved = skin.points_V3 + keys[f"eyeBlink{side}"][: len(skin.points_V3)] / 1000
    assert np.linalg.norm(seam.gaps(skin.points_V3), axis=1).max() > 0.006
    assert np.linalg.norm(seam.gaps(moved), axis=1).max() < 0.0006
    centre, radius = eyeball(flame, side)
    assert (np.linalg.norm(moved[seam.ids] - centre, axis=1) > radius).all()


@needs_data
def test_reference_describes_the_template(flame):
    content = json.loads(REFERENCE.read_text(encoding="utf-8"))
    faces = flame["faces"]
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges = np.ascontiguousarray(np.unique(edges, axis=0), dtype="<i4")
    assert content["vertex_count"] == len(flame["v_template"]) == 5023
    assert content["face_count"] == len(faces)
    assert content["edges_sha256"] == hashlib.sha256(edges.tobytes()).hexdigest()
    np.testing.assert_allclose(content["points"], flame["v_template"][content["vertex_ids"]], atol=6e-6)
    upper, lower = flame["v_template"][np.array(content["lip_pairs"]).T]
    assert (upper[:, 1] > lower[:, 1]).all()
    np.testing.assert_allclose(content["lip_gaps_m"], np.linalg.norm(upper - lower, axis=1), atol=6e-6)
    assert content["height_m"] == pytest.approx(np.ptp(flame["v_template"][:, 1]), abs=6e-6)


def test_reference_is_small_and_spread():
    content = json.loads(REFERENCE.read_text(encoding="utf-8"))
    assert REFERENCE.stat().st_size < 40_000
    assert len(content["vertex_ids"]) == len(set(content["vertex_ids"])) == len(content["points"]) == 80
    extent = np.ptp(np.array(content["points"]), axis=0)
    assert extent[1] > 0.9 * content["height_m"] and extent.min() > 0.15


@needs_data
def test_command_line_writes_a_plain_npz(tmp_path, monkeypatch, keys):
    from trainer.mesh_registration import basis

    result = basis.Basis(names=tuple(keys), basis_KV3=np.stack(list(keys.values())).astype(np.float32) / 1000)
    monkeypatch.setattr(basis, "build_basis", lambda data_dir: result)
    out, reference = tmp_path / "basis.npz", tmp_path / "reference.json"
    assert basis.main(["--data", str(DATA), "--out", str(out), "--reference", str(reference)]) == 0
    with np.load(out, allow_pickle=False) as arrays:
        assert tuple(arrays["names"]) == result.names
        np.testing.assert_array_equal(arrays["basis_KV3"], result.basis_KV3)
    assert json.loads(reference.read_text()) == json.loads(REFERENCE.read_text())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["basis.npz", "reference.json"]


@needs_data
def test_the_add_ons_upper_face_is_this_basis(keys, tmp_path):
    from trainer.mesh_registration import basis

    whole = basis.Basis(names=tuple(keys), basis_KV3=np.stack(list(keys.values())).astype(np.float32) / 1000)
    basis.save_upper_face(whole, tmp_path / "upper_face.npz")
    with np.load(tmp_path / "upper_face.npz") as made, np.load(UPPER_FACE, allow_pickle=False) as bundled:
        assert bundled["names"].tolist() == made["names"].tolist()
        assert not [name for name in bundled["names"] if not name.startswith(("eye", "brow"))]
        for name, offsets_V3, key_V3 in zip(bundled["names"], bundled["basis_KV3"], made["basis_KV3"], strict=True):
            np.testing.assert_allclose(1000.0 * offsets_V3.astype(float), keys[str(name)], atol=0.02, err_msg=name)
            np.testing.assert_allclose(key_V3.astype(float), offsets_V3.astype(float), atol=2e-5, err_msg=name)
