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

needs_usd = pytest.mark.skipif(not bpy.app.build_options.usd, reason="this Blender was built without USD")

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


def speak(target, channels=("jawOpen", "mouthPucker", "mouthSmileLeft"), first=FIRST):
    time_T = np.arange(N_FRAMES) / 25
    weights_TK = np.stack([0.1 + 0.8 * time_T, 0.5 * np.sin(6 * time_T) ** 2, 0.2 * time_T], axis=1)
    info = {"audio": "talk.wav", "audio_sha256": "ab" * 32}
    apply_motion(
        bpy.context, target, Motion(weights_TK=weights_TK, channels=channels, fps=25.0, info=info), start_frame=first
    )


def values(face, first=FIRST, n_frames=N_FRAMES) -> dict[str, list[float]]:
    """The evaluated values at every frame."""
    found = {block.name: [] for block in face.data.shape_keys.key_blocks[1:]}
    for frame in range(first, first + n_frames):
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
        assert len(rows) == round(N_FRAMES * 60 / 25), "60 rows a second, as the app writes them"
        shown_T, jaw_T = values(face)["jawOpen"], [float(row["JawOpen"]) for row in rows]
        at_60_T = np.interp(np.arange(len(rows)) * 25 / 60, np.arange(N_FRAMES), shown_T)
        assert np.corrcoef(jaw_T, at_60_T)[0, 1] > 0.99 and max(jaw_T) == pytest.approx(max(shown_T), abs=1e-5)

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

    def test_stretched_time(self, head, tmp_path):
        bpy.context.scene.render.frame_map_new = 50  # half a scene frame for each of the action
        before_zero(head)
        shown = values(head, -50, 26)
        bpy.ops.wav2sem.export_csv(filepath=str(tmp_path / "a.csv"))
        _, table = read_csv(tmp_path / "a.csv")
        np.testing.assert_array_equal(table[:, 1], np.arange(-50, -24))
        np.testing.assert_allclose(table[:, 2], shown["jawOpen"], atol=1e-5)

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


def shown_points(names, frame):
    """Points of these objects in world space, as Blender shows them."""
    bpy.context.scene.frame_set(frame)
    graph = bpy.context.evaluated_depsgraph_get()
    found = []
    for name in names:
        evaluated = bpy.data.objects[name].evaluated_get(graph)
        found += [evaluated.matrix_world @ vertex.co for vertex in evaluated.to_mesh().vertices]
    return np.array(found)


def distance(some_V3, others_V3):
    """How far a point of one set is from the other set at most; importers order and split points as they like."""
    apart_VV = np.linalg.norm(some_V3[:, None] - others_V3[None], axis=2)
    return max(apart_VV.min(0).max(), apart_VV.min(1).max())


SUFFIXES = {"gltf": "glb", "fbx": "fbx", "usd": "usdc", "alembic": "abc"}
SHAPES = ("gltf", "fbx", pytest.param("usd", marks=needs_usd))


def read_back(kind, path):
    """Import a file into an empty one."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = 25
    if kind == "gltf":
        bpy.ops.import_scene.gltf(filepath=str(path), disable_bone_shape=True)
    elif kind == "fbx":
        bpy.ops.import_scene.fbx(filepath=str(path), anim_offset=0.0)
    elif kind == "usd":
        bpy.ops.wm.usd_import(filepath=str(path), set_frame_range=False)
    else:
        bpy.ops.wm.alembic_import(filepath=str(path), set_frame_range=False)


def everything():
    """The state that an export leaves alone, and how many data-blocks there are."""
    blocks = [
        (group, sorted(block.name for block in getattr(bpy.data, group)))
        for group in ("actions", "meshes", "objects", "scenes", "shape_keys", "materials")
    ]
    objects = [
        (thing.name, thing.data and thing.data.name, thing.active_shape_key_index, thing.hide_select)
        + tuple((slot.link, slot.material.name) for slot in thing.material_slots)
        + tuple((modifier.show_viewport, modifier.show_render) for modifier in thing.modifiers)
        for thing in bpy.data.objects
    ]
    times = []
    for owner in (*bpy.data.objects, *bpy.data.shape_keys):
        if animation := owner.animation_data:
            strips = [strip for track in animation.nla_tracks for strip in track.strips]
            times.append((owner.name, animation.action and animation.action.name, animation.action_slot_handle))
            times += [
                tuple(getattr(strip, name) for name in ("frame_start", "frame_end", "scale", "repeat"))
                + (strip.action_frame_start, strip.action_frame_end)
                for strip in strips
            ]
    curves = [
        curve for action in bpy.data.actions for bag in action.layers[0].strips[0].channelbags for curve in bag.fcurves
    ]
    keyed = [(curve.data_path, [tuple(point.co) for point in curve.keyframe_points]) for curve in curves]
    return scene_state(), blocks, objects, times, keyed


def check_file(kind, face, tmp_path, names=("Head", "Teeth"), tolerance=2e-4):
    """Export, read back, and compare all points at three frames with what Blender shows."""
    first, last = exports.frame_range(face)
    frames = (first, (first + last) // 2, last)
    expected = [shown_points(names, frame) for frame in frames]
    assert distance(expected[0], expected[1]) > 0.05, "the face does not move"
    before = everything()
    path = tmp_path / f"a.{SUFFIXES[kind]}"
    assert getattr(bpy.ops.wav2sem, f"export_{kind}")(filepath=str(path)) == {"FINISHED"}
    assert everything() == before
    assert list(tmp_path.iterdir()) == [path]
    read_back(kind, path)
    begins = 0 if kind == "gltf" else max(first, 0)
    meshes = [thing.name for thing in bpy.data.objects if thing.type == "MESH"]
    for frame, points_V3 in zip(frames, expected, strict=True):
        assert distance(points_V3, shown_points(meshes, frame - first + begins)) < tolerance


@pytest.mark.parametrize("kind", SHAPES)
class TestReadBack:
    def test_as_it_is(self, face, kind, tmp_path):
        check_file(kind, face, tmp_path)

    def test_frames_before_zero(self, head, kind, tmp_path):
        face = before_zero(head)
        assert exports.frame_range(face) == (-50, -26)
        check_file(kind, face, tmp_path, ["Head"])

    def test_frames_before_zero_in_the_nla(self, head, kind, tmp_path):
        face = before_zero(head)
        bpy.ops.wav2sem.push_to_nla()
        check_file(kind, face, tmp_path, ["Head"])

    def test_a_moving_object_before_zero(self, head, kind, tmp_path):
        face = before_zero(head)
        for frame, height in ((-50, 0.0), (-26, 2.0)):
            face.location.x = height
            face.keyframe_insert("location", frame=frame)
        check_file(kind, face, tmp_path, ["Head"])

    @pytest.mark.parametrize("in_nla", [False, True])
    def test_stretched_time(self, head, kind, in_nla, tmp_path):
        bpy.context.scene.render.frame_map_new = 200  # two scene frames for each of the action
        face = before_zero(head)
        if in_nla:
            bpy.ops.wav2sem.push_to_nla()
        first, last = exports.frame_range(face)
        assert (first, last) == (-50, -28)  # frames -25 to -14 of the action
        check_file(kind, face, tmp_path, ["Head"])

    def test_keys_with_vertex_groups(self, face, kind, tmp_path):
        group = face.vertex_groups.new(name="lips")
        group.add([0], 0.5, "REPLACE")
        for block in face.data.shape_keys.key_blocks[1:]:
            for point in block.data:
                point.co.y -= 1.0
            block.vertex_group = "lips"
        check_file(kind, face, tmp_path)

    def test_relative_and_muted_keys(self, face, kind, tmp_path):
        blocks = face.data.shape_keys.key_blocks
        blocks["mouthPucker"].relative_key = blocks["jawOpen"]
        blocks["mouthSmile_L"].mute = True
        check_file(kind, face, tmp_path)

    def test_mirror(self, face, kind, tmp_path):
        face.modifiers.new("Mirror", "MIRROR")
        check_file(kind, face, tmp_path)

    def test_subdivision_over_mirror_and_vertex_groups_before_zero(self, head, kind, tmp_path):
        face = before_zero(head)
        face.data.shape_keys.key_blocks["mouthSmile_L"].data[0].co.x = 0.0  # the middle stays on the mirror's plane
        face.modifiers.new("Mirror", "MIRROR")
        face.modifiers.new("Subdivision", "SUBSURF").levels = 1
        face.vertex_groups.new(name="lips").add([0, 1], 0.7, "REPLACE")
        face.data.shape_keys.key_blocks["jawOpen"].vertex_group = "lips"
        check_file(kind, face, tmp_path, ["Head"])

    def test_materials_of_the_object_instead_of_the_mesh(self, face, kind, tmp_path):
        face.data.materials.append(bpy.data.materials.new("Mesh's"))
        slot = face.material_slots[0]
        slot.link = "OBJECT"
        slot.material = bpy.data.materials.new("Object's")
        check_file(kind, face, tmp_path)
        meshes = [thing for thing in bpy.data.objects if thing.type == "MESH"]
        materials = [slot.material.name for thing in meshes for slot in thing.material_slots]
        assert [name[:6] for name in materials] == ["Object"]

    def test_a_mirrored_part_without_keys(self, face, kind, tmp_path):
        eyes = bpy.data.objects.new("Eyes", bpy.data.objects["Cube"].data.copy())
        bpy.context.scene.collection.objects.link(eyes)
        eyes.shape_key_clear()
        eyes.parent, eyes.location.z = face, 2.0
        eyes.modifiers.new("Mirror", "MIRROR")
        check_file(kind, face, tmp_path, ["Head", "Teeth", "Eyes"])

    def test_mirror_under_an_armature(self, face, kind, tmp_path):
        rig = bpy.data.objects.new("Rig", bpy.data.armatures.new("Rig"))
        bpy.context.scene.collection.objects.link(rig)
        bpy.context.view_layer.objects.active = rig
        bpy.ops.object.mode_set(mode="EDIT")
        bone = rig.data.edit_bones.new("jaw")
        bone.head, bone.tail = (0, 0, 0), (0, 0, 1)
        bpy.ops.object.mode_set(mode="OBJECT")
        for frame, angle in ((FIRST, 0.0), (FIRST + N_FRAMES - 1, 0.5)):
            rig.pose.bones["jaw"].rotation_mode = "XYZ"
            rig.pose.bones["jaw"].rotation_euler.x = angle
            rig.pose.bones["jaw"].keyframe_insert("rotation_euler", frame=frame)
        face.vertex_groups.new(name="jaw").add([0, 1, 2], 1.0, "REPLACE")
        face.modifiers.new("Mirror", "MIRROR").use_axis = (False, True, False)
        face.modifiers.new("Armature", "ARMATURE").object = rig
        face.parent = rig
        bpy.context.view_layer.objects.active = face
        check_file(kind, face, tmp_path)

    def test_a_mirrored_library_override(self, head, kind, tmp_path, tmp_path_factory):
        head.modifiers.new("Mirror", "MIRROR")
        library = tmp_path_factory.mktemp("library") / "head.blend"
        bpy.data.libraries.write(str(library), {head})
        bpy.ops.wm.read_factory_settings(use_empty=True)
        with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
            wanted.objects = ["Head"]
        face = bpy.data.objects["Head"].override_create(remap_local_usages=True)
        face.data.override_create(remap_local_usages=True)
        bpy.context.scene.collection.objects.link(face)
        bpy.context.view_layer.objects.active = face
        before_zero(face)
        bpy.context.view_layer.update()
        check_file(kind, face, tmp_path, ["Head"])

    def test_a_failure_restores_everything(self, head, kind, tmp_path):
        before_zero(head)
        bpy.ops.wav2sem.push_to_nla()
        head.modifiers.new("Mirror", "MIRROR")
        before = everything()
        with pytest.raises(RuntimeError, match="cannot be written"):
            getattr(bpy.ops.wav2sem, f"export_{kind}")(filepath=str(tmp_path / "nowhere" / "a"))
        assert everything() == before


def before_zero(head):
    """The head speaks from frame -50 to -26."""
    bpy.context.scene.render.fps = 25
    for block in head.data.shape_keys.key_blocks:
        block.value = 0.0
    speak(head, first=-50)
    return head


@needs_alembic
def test_alembic_keeps_frames_before_zero(head, tmp_path):
    before_zero(head)
    expected = [shown_points(["Head"], frame) for frame in (-50, -38, -26)]
    bpy.ops.wav2sem.export_alembic(filepath=str(tmp_path / "a.abc"))
    read_back("alembic", tmp_path / "a.abc")
    for frame, points_V3 in zip((-50, -38, -26), expected, strict=True):
        assert distance(points_V3, shown_points(["Head"], frame)) < 1e-4


def test_modifiers_can_be_left_out(face, tmp_path):
    face.modifiers.new("Half", "MIRROR")
    notes = exports.write_gltf(bpy.context, face, tmp_path / "a.glb", apply_modifiers=False)
    assert notes == ['The file lacks what these modifiers of "Head" do: Half']
    scene, _ = read_glb(tmp_path / "a.glb")
    assert scene["accessors"][scene["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]["count"] == 3


def test_a_note_says_where_a_modifier_does_more_than_shapes(face, tmp_path):
    face.modifiers.new("Thick", "SOLIDIFY").thickness = 0.1
    notes = exports.write_gltf(bpy.context, face, tmp_path / "a.glb")
    assert [note.partition(" ")[0] for note in notes] == ["Applied", "Keys"]


def test_a_note_says_what_was_applied_and_what_is_missing(face, tmp_path):
    face.modifiers.new("Half", "MIRROR")
    face.modifiers.new("Wobble", "WAVE")
    notes = exports.write_gltf(bpy.context, face, tmp_path / "a.glb")
    assert notes == [
        'Applied to every shape key of "Head" in the file: Half',
        'The halves of "Head" are not merged in the file, because keys part them: Half',
        'The file lacks what these modifiers of "Head" do: Wobble',
    ]


KINDS = ("csv", "npz", *SHAPES, pytest.param("alembic", marks=needs_alembic))


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

        suffix = SUFFIXES.get(kind, kind)
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
