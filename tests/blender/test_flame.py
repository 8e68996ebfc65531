# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of a FLAME mesh, and the keys that are made on it."""

from pathlib import Path

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.scene import checks
from wav2sem_blender.pipeline import flame
from wav2sem_blender.pipeline.any_head.geometry import face_edges

FLAME_FILE = Path(__file__).parents[2].parent / "shared" / "data" / "flame2023_open" / "flame2023_open.npz"
BASIS_KV3 = np.random.default_rng(0).normal(0, 0.01, (3, 5023, 3)).astype(np.float32)
CHANNELS = ("jawOpen", "mouthPucker", "mouthSmileLeft")


def rotation(degrees_x, degrees_y):
    x, y = np.radians([degrees_x, degrees_y])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    return about_x @ about_y


def set_points(target, points_V3):
    target.data.vertices.foreach_set("co", np.asarray(points_V3, dtype=np.float32).ravel())
    target.data.update()


def points_of(target):
    points_V3 = np.empty((len(target.data.vertices), 3), dtype=np.float32)
    target.data.vertices.foreach_get("co", points_V3.ravel())
    return points_V3


def all_positions(target, frame):
    bpy.context.scene.frame_set(frame)
    return points_of(target.evaluated_get(bpy.context.evaluated_depsgraph_get()))


def weights_at(time_s):
    jaw = 1 - abs(time_s - 1)
    return np.array([jaw, 0.9 * time_s, -0.25 * jaw])


@pytest.mark.parametrize(("degrees", "scale"), [((0, 0), 1.0), ((90, 0), 1.0), ((90, 35), 100.0), ((0, 180), 0.01)])
def test_positions_equal_the_motion_in_any_frame(flame_head, animate, degrees, scale):
    """An importer may turn y up into z up and metres into centimetres; the displacements follow."""
    turn_33 = rotation(*degrees)
    rest_V3 = scale * points_of(flame_head) @ turn_33.T + 3.0
    set_points(flame_head, rest_V3)
    bpy.context.scene.render.fps = 30
    assert animate(model=model_folder("flame")) == {"FINISHED"}
    for frame in (1, 31, 46):
        offsets_V3 = np.tensordot(weights_at((frame - 1) / 30), BASIS_KV3, 1)
        expected_V3 = rest_V3 + scale * offsets_V3 @ turn_33.T
        np.testing.assert_allclose(all_positions(flame_head, frame), expected_V3, atol=4e-6 * max(1, scale))


def test_keys_are_named_and_at_rest(flame_head, animate):
    animate(model=model_folder("flame"))
    blocks = flame_head.data.shape_keys.key_blocks
    assert [block.name for block in blocks] == ["Basis", *CHANNELS]
    assert checks.own_keys(flame_head.data) == set(CHANNELS)


def test_running_again_makes_no_second_keys_and_keeps_sculpting(flame_head, animate):
    animate(model=model_folder("flame"))
    block = flame_head.data.shape_keys.key_blocks["jawOpen"]
    block.data[0].co = (7, 7, 7)
    animate(model=model_folder("flame"), strength=0.5)
    blocks = flame_head.data.shape_keys.key_blocks
    assert len(blocks) == 4
    assert tuple(blocks["jawOpen"].data[0].co) == (7, 7, 7)


def test_the_users_own_keys_are_used_and_not_reshaped(flame_head, animate):
    flame_head.shape_key_add(name="Basis")
    mine = flame_head.shape_key_add(name="jaw_open", from_mix=False)
    mine.data[0].co = (7, 7, 7)
    animate(model=model_folder("flame"))
    blocks = flame_head.data.shape_keys.key_blocks
    assert [block.name for block in blocks] == ["Basis", "jaw_open", "mouthPucker", "mouthSmileLeft"]
    assert tuple(blocks["jaw_open"].data[0].co) == (7, 7, 7)
    assert checks.own_keys(flame_head.data) == {"mouthPucker", "mouthSmileLeft"}


def test_a_curve_beyond_blenders_limit_makes_a_larger_key(flame_head, animate):
    bpy.context.scene.render.fps = 30
    rest_V3 = points_of(flame_head)
    animate(model=model_folder("flame"), strength=10.0)
    offsets_V3 = np.tensordot(10 * weights_at(1.5), BASIS_KV3, 1)
    np.testing.assert_allclose(all_positions(flame_head, 46), rest_V3 + offsets_V3, atol=1e-5)
    assert flame_head.data.shape_keys.key_blocks["mouthPucker"].slider_max == pytest.approx(8.4)


def test_a_failure_in_the_middle_takes_everything_back(flame_head, animate, monkeypatch):
    from wav2sem_blender.blender.scene import actions

    monkeypatch.setattr(actions, "_make_room", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        animate(model=model_folder("flame"))
    assert flame_head.data.shape_keys is None
    assert flame_head.active_shape_key_index == 0
    assert not bpy.data.actions and not bpy.data.shape_keys


_folders = {}


@pytest.fixture(autouse=True)
def _model_folders(tmp_path):
    _folders["root"] = tmp_path


def model_folder(name):
    """A model folder whose name makes the fake animator add a basis."""
    folder = _folders["root"] / name
    folder.mkdir(exist_ok=True)
    return str(folder)


def fail_with(flame_head, animate, scene_bytes, message):
    before = scene_bytes()
    with pytest.raises(RuntimeError, match=message):
        animate(model=model_folder("flame"))
    assert scene_bytes() == before


def test_shuffled_vertex_order(flame_reference, animate, scene_bytes):
    from .conftest import add_mesh  # noqa: TID252

    points_V3, faces_F3 = flame_reference
    order = np.random.default_rng(1).permutation(len(points_V3))
    place = np.argsort(order)
    head = add_mesh("Head", points_V3[order].tolist(), place[faces_F3].tolist())
    fail_with(head, animate, scene_bytes, "Vertex order: the edges do not connect")


def test_one_vertex_too_many(flame_reference, animate, scene_bytes):
    from .conftest import add_mesh  # noqa: TID252

    points_V3, faces_F3 = flame_reference
    head = add_mesh("Head", [*points_V3.tolist(), [0, 0, 0]], faces_F3.tolist())
    fail_with(head, animate, scene_bytes, "Vertex count: the mesh has 5024 vertices, FLAME has 5023")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points_V3: points_V3 * [1, 3, 1], "Scale: the head is stretched 3.0 times"),
        (lambda points_V3: points_V3 * 0, "Scale: the vertices lie on one point"),
        (lambda points_V3: points_V3 * [-1, 1, 1], "Orientation: the head is mirrored"),
        (lambda points_V3: points_V3 + 0.04 * np.sin(90 * points_V3[:, ::-1]), "Rest pose: the points are"),
    ],
)
def test_scale_orientation_and_rest_pose(flame_head, animate, scene_bytes, change, message):
    set_points(flame_head, change(points_of(flame_head)))
    fail_with(flame_head, animate, scene_bytes, message)


def test_a_posed_scene_does_not_hide_the_rest_points(flame_head, animate):
    """The rest points come from the reference key, whatever the values of the keys."""
    animate(model=model_folder("flame"))
    bpy.context.scene.frame_set(46)
    similarity = checks.flame_similarity(flame_head.data)
    assert similarity.residual < 1e-6
    assert similarity.scale == pytest.approx(1.0, abs=1e-5)


# The real topology, if the development data are present.


@pytest.fixture(scope="module")
def flame_data():
    if not FLAME_FILE.is_file():
        pytest.skip("needs ../shared/data/flame2023_open")
    return dict(np.load(FLAME_FILE))


@pytest.fixture(scope="module")
def check(flame_data):
    """Check points (V, 3) on FLAME's own faces."""
    edges_E2, n_faces, reference = (
        face_edges(flame_data["faces"]),
        len(flame_data["faces"]),
        flame.FlameReference.load(),
    )
    return lambda points_V3: flame.check_mesh(points_V3, edges_E2, n_faces, reference)


def test_the_real_template_passes(flame_data, check):
    similarity = check(100 * flame_data["v_template"] @ rotation(90, 0).T)
    assert similarity.scale == pytest.approx(100, rel=1e-3)
    assert similarity.residual < 1e-4
    np.testing.assert_allclose(similarity.rotation_33, rotation(90, 0), atol=1e-3)


def identity(flame_data, random, deviations):
    return flame_data["v_template"] + flame_data["shapedirs"] @ random.normal(0, deviations, 60)


def posed(flame_data, points_V3, joint, turn_33):
    """Rotate what is attached to a joint of FLAME: 1 neck, 2 jaw."""
    joint_3 = (flame_data["J_regressor"] @ points_V3)[joint]
    weight_V = flame_data["lbs_weights"][:, 1:].sum(1) if joint == 1 else flame_data["lbs_weights"][:, joint]
    return points_V3 + weight_V[:, None] * ((points_V3 - joint_3) @ turn_33.T + joint_3 - points_V3)


def refused(check, heads):
    n = 0
    for points_V3 in heads:
        try:
            check(points_V3)
        except flame.FlameMismatchError:
            n += 1
    return n / len(heads)


def test_other_identities_pass_in_any_unit(flame_data, check):
    """Three standard deviations in every component at once: at most one head in two hundred may be refused."""
    random = np.random.default_rng(0)
    heads = [identity(flame_data, random, 3) for _ in range(200)]
    assert refused(check, heads) <= 0.005
    assert refused(check, [scale * head for head in heads[:20] for scale in (100, 1000)]) == 0


@pytest.mark.parametrize(("joint", "degrees"), [(2, (6, 0)), (2, (0, 8)), (1, (0, 20)), (1, (20, 0))])
def test_another_pose_is_no_rest_pose(flame_data, check, joint, degrees):
    template_V3, turn_33 = flame_data["v_template"].astype(np.float64), rotation(*degrees)
    with pytest.raises(flame.FlameMismatchError, match="Rest pose"):
        check(100 * posed(flame_data, template_V3, joint, turn_33))


def test_an_open_mouth_is_seen_on_any_head(flame_data, check):
    random = np.random.default_rng(1)
    heads = [posed(flame_data, identity(flame_data, random, 2), 2, rotation(12, 0)) for _ in range(50)]
    assert refused(check, heads) == 1


def test_vertices_in_another_order_with_the_same_edges_are_seen(flame_data, check):
    """Only the points are shuffled; the hash of the edges is another test."""
    order = np.random.default_rng(2).permutation(5023)
    with pytest.raises(flame.FlameMismatchError, match="Scale|Orientation|Rest pose"):
        check(flame_data["v_template"][order])
