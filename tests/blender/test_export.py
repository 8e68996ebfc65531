# SPDX-License-Identifier: GPL-3.0-or-later
"""The Export panel: the files contain what plays, and a failed export leaves no file."""

import csv
import json
import struct

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.scene import exports
from wav2sem_blender.pipeline.motion import Motion

from .applied import apply_motion  # noqa: TID252

# Debian's build is; there the button is off and says so (tests/gui/scenarios_result.py).
needs_alembic = pytest.mark.skipif(not bpy.app.build_options.alembic, reason="this Blender was built without Alembic")

N_FRAMES, FIRST = 25, 11


@pytest.fixture
def face(head):
    """A face that speaks from frame 11 to 35, teeth that follow by a driver, and an unrelated cube."""
    for block in head.data.shape_keys.key_blocks:
        block.value = 0.0
    bpy.context.scene.render.fps = 25
    teeth = head.copy()
    teeth.name, teeth.data = "Teeth", head.data.copy()
    teeth.location.x = 3.0
    bpy.context.scene.collection.objects.link(teeth)
    driver = teeth.data.shape_keys.key_blocks["jawOpen"].driver_add("value").driver
    driver.type = "SUM"
    target = driver.variables.new().targets[0]
    target.id_type, target.id = "KEY", head.data.shape_keys
    target.data_path = 'key_blocks["jawOpen"].value'
    cube = bpy.data.objects.new("Cube", head.data.copy())
    bpy.context.scene.collection.objects.link(cube)
    cube.select_set(True)
    speak(head)
    bpy.context.view_layer.update()
    return head


def speak(target, channels=("jawOpen", "mouthPucker", "mouthSmileLeft")):
    time_T = np.arange(N_FRAMES) / 25
    weights_TK = np.stack([0.1 + 0.8 * time_T, 0.5 * np.sin(6 * time_T) ** 2, 0.2 * time_T], axis=1)
    info = {"audio": "talk.wav", "audio_sha256": "ab" * 32}
    apply_motion(
        bpy.context, target, Motion(weights_TK=weights_TK, channels=channels, fps=25.0, info=info), start_frame=FIRST
    )


def values(face) -> dict[str, list[float]]:
    """The evaluated values at every frame."""
    found = {block.name: [] for block in face.data.shape_keys.key_blocks[1:]}
    for frame in range(FIRST, FIRST + N_FRAMES):
        bpy.context.scene.frame_set(frame)
        for name, heights in found.items():
            heights.append(face.data.shape_keys.key_blocks[name].value)
    return found


def scene_state():
    scene, layer = bpy.context.scene, bpy.context.view_layer
    return (
        [thing.name for thing in bpy.context.selected_objects],
        layer.objects.active.name,
        (scene.frame_start, scene.frame_end, scene.frame_current),
    )


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, np.array(rows, dtype=float)


class TestCurves:
    def test_csv(self, face, tmp_path):
        assert bpy.ops.wav2sem.export_csv(filepath=str(tmp_path / "a.csv")) == {"FINISHED"}
        header, table = read_csv(tmp_path / "a.csv")
        assert header == ["time", "frame", "jawOpen", "mouthPucker", "mouthSmileLeft"]
        np.testing.assert_allclose(table[:, 0], np.arange(N_FRAMES) / 25, atol=1e-6)
        np.testing.assert_array_equal(table[:, 1], np.arange(FIRST, FIRST + N_FRAMES))
        shown = values(face)
        for column, key in enumerate(("jawOpen", "mouthPucker", "mouthSmile_L"), start=2):
            np.testing.assert_allclose(table[:, column], shown[key], atol=1e-5)

    def test_csv_for_live_link(self, face, tmp_path):
        bpy.ops.wav2sem.export_csv(filepath=str(tmp_path / "a.csv"), columns="LIVE_LINK")
        with (tmp_path / "a.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == N_FRAMES
        np.testing.assert_allclose([float(row["JawOpen"]) for row in rows], values(face)["jawOpen"], atol=1e-5)

    def test_npz_is_a_motion(self, face, tmp_path):
        bpy.ops.wav2sem.export_npz(filepath=str(tmp_path / "a"))
        motion = Motion.load(tmp_path / "a.npz")
        assert (motion.channels, motion.fps, motion.n_frames) == (
            ("jawOpen", "mouthPucker", "mouthSmileLeft"),
            25.0,
            N_FRAMES,
        )
        np.testing.assert_allclose(motion.weights_TK[:, 2], values(face)["mouthSmile_L"], atol=1e-5)
        assert motion.info["audio"] == "talk.wav" and motion.info["first_scene_frame"] == "11"

    def test_after_reduction_and_from_the_nla_where_the_strip_lies(self, face, tmp_path):
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=50.0)
        shown = values(face)["mouthPucker"]
        bpy.ops.wav2sem.push_to_nla()
        strip = face.data.shape_keys.animation_data.nla_tracks["talk"].strips[0]
        strip.frame_end += 40
        strip.frame_start, strip.frame_end = FIRST + 40, FIRST + 40 + N_FRAMES - 1
        bpy.ops.wav2sem.export_csv(filepath=str(tmp_path / "a.csv"))
        _, table = read_csv(tmp_path / "a.csv")
        np.testing.assert_array_equal(table[:, 1], np.arange(FIRST + 40, FIRST + 40 + N_FRAMES))
        np.testing.assert_allclose(table[:, 3], shown, atol=1e-5)

    def test_an_action_without_curves_is_named(self, face, tmp_path):
        bpy.ops.wav2sem.push_to_nla()
        action = bpy.data.actions["talk"]
        action.layers[0].strips[0].channelbag(action.slots[0]).fcurves.clear()
        with pytest.raises(RuntimeError, match='The action "talk" has no curve for a shape key of "Head"'):
            bpy.ops.wav2sem.export_npz(filepath=str(tmp_path / "a.npz"))
        assert list(tmp_path.iterdir()) == []

    def test_a_key_that_a_mapping_scales_keeps_its_own_name(self, face):
        bpy.ops.wav2sem.guess_mapping()
        row = next(row for row in face.wav2sem_mapping if row.key == "mouthSmile_L")
        row.gain = 0.5
        assert exports.sampled(face, bpy.context.scene).channels == ("jawOpen", "mouthPucker", "mouthSmile_L")

    def test_muted_takes_are_left_out(self, face, tmp_path):
        bpy.ops.wav2sem.mute_take()
        with pytest.raises(RuntimeError, match='"Head" plays no speech animation'):
            bpy.ops.wav2sem.export_csv(filepath=str(tmp_path / "a.csv"))


def read_glb(path):
    """The JSON of a .glb, and a function that reads an accessor."""
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    scene, binary = json.loads(content[20 : 20 + length]), content[28 + length :]

    def accessor(index):
        entry = scene["accessors"][index]
        view = scene["bufferViews"][entry["bufferView"]]
        assert entry["componentType"] == 5126
        start = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
        return np.frombuffer(binary, "<f4", entry["count"], start)

    return scene, accessor


class TestCharacter:
    def test_gltf(self, face, tmp_path):
        before = scene_state()
        assert bpy.ops.wav2sem.export_gltf(filepath=str(tmp_path / "a.glb")) == {"FINISHED"}
        assert scene_state() == before
        scene, accessor = read_glb(tmp_path / "a.glb")
        assert sorted(node["name"] for node in scene["nodes"]) == ["Head", "Teeth"]
        head = next(index for index, node in enumerate(scene["nodes"]) if node["name"] == "Head")
        names = scene["meshes"][scene["nodes"][head]["mesh"]]["extras"]["targetNames"]
        assert names == ["jawOpen", "mouthPucker", "mouthSmile_L"]
        (animation,) = scene["animations"]
        channels = {channel["target"]["node"]: channel for channel in animation["channels"]}
        assert {channel["target"]["path"] for channel in animation["channels"]} == {"weights"}
        shown = values(face)
        for node in range(2):
            sampler = animation["samplers"][channels[node]["sampler"]]
            times, weights = accessor(sampler["input"]), accessor(sampler["output"]).reshape(-1, 3)
            sampled = np.interp(np.arange(N_FRAMES) / 25, times, weights[:, 0])
            np.testing.assert_allclose(sampled, shown["jawOpen"], atol=1e-4)
            if node == head:
                pucker = np.interp(np.arange(N_FRAMES) / 25, times, weights[:, 1])
                np.testing.assert_allclose(pucker, shown["mouthPucker"], atol=1e-4)

    @needs_alembic
    def test_alembic_moves_when_it_is_imported(self, face, tmp_path):
        shown = values(face)
        before = scene_state()
        assert bpy.ops.wav2sem.export_alembic(filepath=str(tmp_path / "a.abc")) == {"FINISHED"}
        assert scene_state() == before
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.context.scene.render.fps = 25
        bpy.ops.wm.alembic_import(filepath=str(tmp_path / "a.abc"))
        assert sorted(bpy.data.objects.keys()) == ["Head", "Teeth"]
        head = bpy.data.objects["Head"]
        for frame in (FIRST, FIRST + 9, FIRST + N_FRAMES - 1):
            bpy.context.scene.frame_set(frame)
            evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
            moved = [-evaluated.data.vertices[0].co[axis] for axis in (2, 1)]
            expected = [shown[key][frame - FIRST] for key in ("jawOpen", "mouthPucker")]
            np.testing.assert_allclose(moved, expected, atol=1e-4)


KINDS = ("csv", "npz", "gltf", pytest.param("alembic", marks=needs_alembic))


class TestErrors:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_folder_that_cannot_be_written_is_one_error(self, face, kind, tmp_path):
        before = scene_state()
        with pytest.raises(RuntimeError) as caught:
            getattr(bpy.ops.wav2sem, f"export_{kind}")(filepath=str(tmp_path / "nowhere" / "a"))
        said = str(caught.value)
        assert "cannot be written" in said and "choose another folder" in said and said.count("Error:") == 1
        assert scene_state() == before

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_full_disk_keeps_the_older_file(self, face, kind, tmp_path, monkeypatch):
        def full(*_arguments):
            raise OSError(28, "No space left on device")

        suffix = {"gltf": "glb", "alembic": "abc"}.get(kind, kind)
        older = tmp_path / f"a.{suffix}"
        older.write_bytes(b"older")
        monkeypatch.setattr("os.replace", full)
        with pytest.raises(RuntimeError, match="No space left on device.*free some space"):
            getattr(bpy.ops.wav2sem, f"export_{kind}")(filepath=str(older))
        assert older.read_bytes() == b"older"
        assert list(tmp_path.iterdir()) == [older]

    def test_disabled_buttons_say_why(self, face, tmp_path):
        def reason(kind):
            with pytest.raises(RuntimeError) as caught:
                getattr(bpy.ops.wav2sem, f"export_{kind}")(filepath=str(tmp_path / "a"))
            return str(caught.value)

        bpy.ops.object.mode_set(mode="EDIT")
        assert "Object Mode" in reason("csv")
        bpy.ops.object.mode_set(mode="OBJECT")
        bpy.context.view_layer.objects.active = bpy.data.objects["Cube"]
        assert '"Cube"' in reason("gltf")
        bpy.context.view_layer.objects.active = None
        assert "Choose a mesh" in reason("npz")
        assert list(tmp_path.iterdir()) == []
