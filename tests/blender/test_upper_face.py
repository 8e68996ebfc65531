# SPDX-License-Identifier: GPL-3.0-or-later
"""The upper face in Blender: its own curves on its own track; everything of the user's is left alone."""

from pathlib import Path

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix, Quaternion, Vector

from wav2sem_blender.blender import compat
from wav2sem_blender.blender.scene import actions, head_sway, upper_face, upper_face_strips
from wav2sem_blender.blender.scene.head_sway import SwayTarget
from wav2sem_blender.blender.ui import upper_face_properties
from wav2sem_blender.pipeline.prosody import Prosody
from wav2sem_blender.pipeline.upper_face import UPPER_FACE_CHANNELS, Settings, perform

from . import rna_dump  # noqa: TID252

ROOT = Path(__file__).parents[2]
DEMO_SPEECH = ROOT / "wav2sem_blender" / "assets" / "demo_speech.flac"
MODEL = ROOT / "wav2sem_blender" / "assets" / "models" / "default" / "model.safetensors"
KEYS = {"eyeBlinkLeft": "eyeBlink_L", "eyeBlinkRight": "eyeBlink_R", "browInnerUp": "Brow_Inner_Up"}


def talk(duration_s: float = 20.0) -> Prosody:
    """Syllables at 4 Hz, some louder and higher, and a pause every four seconds."""
    time_s = np.arange(int(duration_s * 100)) / 100
    stress = np.maximum(0, np.sin(2 * np.pi * 0.53 * time_s)) ** 4
    level = -4 + 5 * np.cos(2 * np.pi * 4 * time_s) + 6 * stress
    starts = np.arange(200, len(time_s) - 60, 400)
    for start in starts:
        level[start : start + 50] = -40
    return Prosody(
        level_db_P=level.astype(np.float32),
        pitch_st_P=(4 * stress).astype(np.float32),
        pauses_N2=np.stack([starts, starts + 50], axis=1),
        duration_s=duration_s,
    )


@pytest.fixture
def face(head):
    """The speaking triangle with lids and a brow."""
    for number, name in enumerate(KEYS.values()):
        head.shape_key_add(name=name, from_mix=False).data[1].co[number] += 1.0
    return head


def live(target, speech=None, settings=None, **options):
    return upper_face.apply_upper_face(
        bpy.context, target, speech or talk(), settings or Settings(), name="talk.wav", **options
    )


def own_strips(owner):
    tracks = owner.animation_data.nla_tracks if owner.animation_data else ()
    return [strip for track in tracks for strip in track.strips if upper_face_strips.MARK in strip.action]


def curves(strip) -> dict[tuple[str, int], np.ndarray]:
    """(data path, index) -> points (n, 2) of a strip's action."""
    found = {}
    for curve in compat.channelbag(strip.action, strip.action_slot).fcurves:
        co_n2 = np.empty(2 * len(curve.keyframe_points), dtype=np.float32)
        curve.keyframe_points.foreach_get("co", co_n2)
        found[curve.data_path, curve.array_index] = co_n2.reshape(-1, 2)
    return found


def users_action(keys, name, values) -> bpy.types.Action:
    for frame, value in enumerate(values, start=1):
        keys.key_blocks[name].value = value
        keys.key_blocks[name].keyframe_insert("value", frame=frame)
    return keys.animation_data.action


@pytest.mark.parametrize(("fps", "fps_base"), [(24, 1.001), (30, 1.0), (60, 1.0)])
def test_every_frame_shows_the_performance(face, fps, fps_base):
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = fps, fps_base
    outcome = live(face, settings=Settings(seed=2), start_frame=11)
    expected = perform(talk(), Settings(seed=2), fps / fps_base).motion
    assert (outcome.first_frame, outcome.n_frames) == (11, round(20 * fps / fps_base))
    (strip,) = own_strips(face.data.shape_keys)
    assert (strip.frame_start, strip.frame_end) == (11, 10 + expected.n_frames)
    blocks = face.data.shape_keys.key_blocks
    blink_T = expected.weights_TK[:, expected.channels.index("eyeBlinkLeft")]
    looked_at = {0, expected.n_frames - 1, *range(0, expected.n_frames, 37), *np.flatnonzero(blink_T)[:12].tolist()}
    for frame in sorted(looked_at):
        scene.frame_set(11 + frame)
        for channel, key in KEYS.items():
            value = expected.weights_TK[frame, expected.channels.index(channel)]
            assert blocks[key].value == pytest.approx(value, abs=1e-5), (frame, channel)
    for outside in (1, 11 + expected.n_frames + 50):
        scene.frame_set(outside)
        assert [blocks[key].value for key in KEYS.values()] == [0, 0, 0]


def test_ten_minutes_blink_at_the_rate_and_flat_stretches_need_no_keys(face):
    bpy.context.scene.render.fps = 30
    live(face, talk(600.0), Settings(blinks_per_minute=20.0))
    (strip,) = own_strips(face.data.shape_keys)
    points_n2 = curves(strip)['key_blocks["eyeBlink_L"].value', 0]
    closed = points_n2[points_n2[:, 1] > 0.999, 0]
    assert len(closed) == pytest.approx(200, rel=0.2)
    intervals_s = np.diff(closed) / 30
    assert intervals_s.std() > 0.3 * intervals_s.mean(), "no clockwork"
    assert len(points_n2) < 18_000 / 7


def test_a_seed_is_one_performance_and_running_again_replaces_only_ours(face):
    keys = face.data.shape_keys
    users_action(keys, "mouthSmile_L", (0.0, 0.5))
    mine = keys.animation_data.action
    below = keys.animation_data.nla_tracks.new()
    below.name = "Mine"
    performances = []
    for seed in (1, 1, 2):
        live(face, settings=Settings(seed=seed))
        (strip,) = own_strips(keys)
        assert strip.action.name == "talk Upper Face"
        performances.append({path: points.tobytes() for path, points in curves(strip).items()})
    assert performances[0] == performances[1] != performances[2]
    assert keys.animation_data.action == mine
    assert [track.name for track in keys.animation_data.nla_tracks] == ["Mine", "Upper Face"]
    assert len(bpy.data.actions) == 2


def test_speech_and_upper_face_leave_each_other_alone(face, animate, curves_of):
    animate(start_frame=5)
    speech = curves_of(face)
    live(face)
    assert {name: values.tobytes() for name, (_, values) in curves_of(face).items()} == {
        name: values.tobytes() for name, (_, values) in speech.items()
    }
    (strip,) = own_strips(face.data.shape_keys)
    before = {path: points.tobytes() for path, points in curves(strip).items()}
    assert not {path.split('"')[1] for path, _ in before} & set(speech)
    animate(start_frame=5, strength=0.5)
    (strip,) = own_strips(face.data.shape_keys)
    assert {path: points.tobytes() for path, points in curves(strip).items()} == before
    assert face.data.shape_keys.animation_data.action.name == "ok"


def test_what_the_user_animates_drives_or_mutes_stays_so(face):
    keys = face.data.shape_keys
    mine = users_action(keys, "eyeBlink_L", (0.0, 0.25))
    mine.name = "Mine"
    keys.key_blocks["eyeBlink_R"].driver_add("value").driver.expression = "0.5"
    outcome = live(face)
    assert outcome.notes[1:] == (
        'eyeBlink_L left alone: animated by the action "Mine".',
        "eyeBlink_R left alone: controlled by a driver.",
    )
    (strip,) = own_strips(keys)
    assert [path for path, _ in curves(strip)] == ['key_blocks["Brow_Inner_Up"].value']
    bpy.context.scene.frame_set(2)
    assert keys.key_blocks["eyeBlink_L"].value == 0.25
    keys.key_blocks["Brow_Inner_Up"].mute = True
    with pytest.raises(
        ValueError, match=r'No shape key of the upper face of "Head" can be animated.*Brow_Inner_Up left alone'
    ):
        live(face)


def test_an_nla_strip_of_the_user_counts_unless_it_is_muted(face):
    keys = face.data.shape_keys
    mine = users_action(keys, "eyeBlink_L", (0.0, 0.25))
    slot = keys.animation_data.action_slot
    keys.animation_data.action = None
    strip = keys.animation_data.nla_tracks.new().strips.new("mine", 1, mine)
    strip.action_slot = slot
    live(face)
    assert ('key_blocks["eyeBlink_L"].value', 0) not in curves(own_strips(keys)[0])
    strip.mute = True
    live(face)
    assert ('key_blocks["eyeBlink_L"].value', 0) in curves(own_strips(keys)[0])


def test_one_switch_rests_the_face_and_brings_it_back(face):
    live(face)
    (strip,) = own_strips(face.data.shape_keys)
    points_n2 = curves(strip)['key_blocks["eyeBlink_L"].value', 0]
    closed = int(points_n2[np.argmax(points_n2[:, 1]), 0])
    block = face.data.shape_keys.key_blocks["eyeBlink_L"]
    panel = bpy.context.scene.wav2sem_upper_face
    panel.enabled = True
    bpy.context.scene.frame_set(closed)
    assert block.value == pytest.approx(1.0)
    panel.enabled = False
    assert block.value == 0.0
    bpy.context.scene.frame_set(closed)
    assert block.value == 0.0
    panel.enabled = True
    bpy.context.scene.frame_set(closed)
    assert block.value == pytest.approx(1.0)


def test_remove_leaves_the_user_and_nothing_of_ours(face):
    keys = face.data.shape_keys
    mine = users_action(keys, "jawOpen", (0.0, 0.5))
    live(face, sway=SwayTarget(object_name="Head"), settings=Settings(head_sway=1.0))
    bpy.context.scene.frame_set(100)
    assert any(face.delta_rotation_euler)
    assert bpy.ops.wav2sem.remove_upper_face(object="Head") == {"FINISHED"}
    assert list(bpy.data.actions) == [mine] and keys.animation_data.action == mine
    assert not keys.animation_data.nla_tracks and not face.animation_data.nla_tracks
    assert not any(face.delta_rotation_euler)
    assert [keys.key_blocks[key].value for key in KEYS.values()] == [0, 0, 0]
    assert not bpy.ops.wav2sem.remove_upper_face.poll()


def test_undo_takes_it_back(face):
    bpy.ops.ed.undo_push(message="before")
    live(face)
    bpy.ops.ed.undo_push(message="after")
    bpy.ops.ed.undo()
    keys = bpy.data.objects["Head"].data.shape_keys
    assert not own_strips(keys) and not bpy.data.actions
    bpy.ops.ed.redo()
    assert len(own_strips(bpy.data.objects["Head"].data.shape_keys)) == 1


def test_a_head_without_lids_and_brows_is_an_error_and_untouched(head, scene_bytes):
    before = scene_bytes()
    with pytest.raises(ValueError, match=r'"Head" has no shape keys for lids, eyes or brows.*fill in Key Mapping'):
        live(head)
    with pytest.raises(RuntimeError, match="has no shape keys for lids"):
        bpy.ops.wav2sem.add_upper_face(filepath=str(DEMO_SPEECH), object="Head")
    assert scene_bytes() == before


def test_a_failure_half_way_leaves_no_trace(face, monkeypatch):
    """Compared as Python sees it: a data-block that once had a custom property keeps an empty group for them."""
    bpy.context.scene.frame_set(1)
    before = rna_dump.dump()
    monkeypatch.setattr(compat, "channelbag", lambda *_: (_ for _ in ()).throw(ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        live(face, sway=SwayTarget(object_name="Head"), settings=Settings(head_sway=1.0))
    assert rna_dump.dump() == before


def test_all_switched_off_is_an_error(face):
    with pytest.raises(ValueError, match="all switched off"):
        live(face, settings=Settings(blinks_per_minute=0.0, brows=0.0, eye_darts=0.0))


def test_a_flame_mesh_gets_the_keys_it_lacks(flame_head):
    outcome = live(flame_head)
    blocks = flame_head.data.shape_keys.key_blocks
    assert outcome.n_new_keys == 15 and set(UPPER_FACE_CHANNELS) <= set(blocks.keys())
    with np.load(upper_face.UPPER_FACE) as file:
        names, basis_KV3 = file["names"].tolist(), file["basis_KV3"].astype(np.float32)
    rest_V3 = np.array([point.co for point in flame_head.data.vertices])
    for channel in ("eyeBlinkLeft", "browInnerUp"):
        moved_V3 = np.array([point.co for point in blocks[channel].data])
        np.testing.assert_allclose(moved_V3 - rest_V3, basis_KV3[names.index(channel)], atol=1e-6)
    assert not [block.name for block in blocks[1:] if block.value]
    assert flame_head.active_shape_key_index == 0
    blocks["browInnerUp"].data[0].co.x += 1.0
    sculpted = blocks["browInnerUp"].data[0].co.x
    assert live(flame_head).n_new_keys == 0
    assert blocks["browInnerUp"].data[0].co.x == sculpted


def test_a_failure_on_a_flame_mesh_leaves_no_keys(flame_head, monkeypatch):
    monkeypatch.setattr(actions, "write_curve", lambda *_: (_ for _ in ()).throw(ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        live(flame_head)
    assert flame_head.data.shape_keys is None and flame_head.animation_data is None
    assert not bpy.data.actions and not bpy.data.shape_keys


def looks_along(owner_turn: Quaternion, sway: head_sway.Sway, rest_turn: Quaternion, degrees) -> Vector:
    """The world direction of a face that looked along -y, after a rotation in the owner's frame."""
    values = sway.values(np.array([degrees], dtype=np.float32))[0].tolist()
    turned = Quaternion(values) if sway.order == "QUATERNION" else Euler(values, sway.order).to_quaternion()
    in_world = owner_turn @ (turned @ rest_turn.inverted()) @ owner_turn.inverted()
    return in_world @ Vector((0.0, -1.0, 0.0))


@pytest.mark.parametrize("mode", ["XYZ", "ZXY", "QUATERNION"])
@pytest.mark.parametrize("y_up", [False, True])
@pytest.mark.parametrize("parent_turn", [0.0, 70.0])
def test_an_object_sways_the_named_way_whatever_its_axes(head, mode, y_up, parent_turn):
    parent = bpy.data.objects.new("Parent", None)
    bpy.context.scene.collection.objects.link(parent)
    parent.rotation_euler.z = np.radians(parent_turn)
    head.parent = parent
    head.rotation_mode = "QUATERNION"
    turn = Matrix.Rotation(np.radians(90), 3, "X") if y_up else Matrix.Identity(3)
    bpy.context.view_layer.update()
    head.matrix_world = turn.to_4x4()
    own_turn = head.rotation_quaternion.copy()
    head.rotation_mode = mode
    bpy.context.view_layer.update()
    sway = head_sway.find(head, SwayTarget(object_name="Head"), {}, upper_face_strips.MARK)
    parent_frame = (head.matrix_world @ head.matrix_basis.inverted()).to_quaternion()
    none = Quaternion()
    for degrees, expected in (
        ((20, 0, 0), (np.sin(np.radians(20)), -np.cos(np.radians(20)), 0)),
        ((0, 20, 0), (0, -np.cos(np.radians(20)), np.sin(np.radians(20)))),
        ((0, 0, 20), (0, -1, 0)),
    ):
        np.testing.assert_allclose(looks_along(parent_frame, sway, none, degrees), expected, atol=1e-5)
    set_to = sway.values(np.array([(15, 0, 0)], dtype=np.float32))[0]
    head_sway.set_values(head, sway.path, set_to.tolist())
    bpy.context.view_layer.update()
    direction = head.matrix_world.to_quaternion() @ turn.to_quaternion().inverted() @ Vector((0, -1, 0))
    np.testing.assert_allclose(direction, (np.sin(np.radians(15)), -np.cos(np.radians(15)), 0), atol=1e-5)
    assert head.matrix_world.translation.length < 1e-6
    if mode == "QUATERNION":
        assert head.rotation_quaternion.rotation_difference(own_turn).angle == pytest.approx(0, abs=1e-3)


def test_an_object_keeps_its_own_rotation_and_running_again_starts_at_rest(face):
    face.rotation_euler.z = 0.5
    face.keyframe_insert("rotation_euler", frame=1)
    face.delta_rotation_euler = (0.0, 0.1, 0.0)
    settings, sway = Settings(head_sway=1.0), SwayTarget(object_name="Head")
    first = None
    for _ in range(2):
        live(face, settings=settings, sway=sway)
        (strip,) = own_strips(face)
        points = curves(strip)["delta_rotation_euler", 1]
        assert points[0, 1] == pytest.approx(0.1, abs=1e-5) and points[-1, 1] == pytest.approx(0.1, abs=1e-5)
        bpy.context.scene.frame_set(200)
        assert face.rotation_euler.z == pytest.approx(0.5)
        first = points if first is None else first
        np.testing.assert_allclose(points, first, atol=2e-3)
    upper_face_strips.remove_upper_face(face)
    np.testing.assert_allclose(face.delta_rotation_euler, (0.0, 0.1, 0.0), atol=1e-6)


@pytest.fixture
def armature():
    """A neck bone that leans forward and rolls, in a rotated armature."""
    data = bpy.data.armatures.new("Rig")
    rig = bpy.data.objects.new("Rig", data)
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    rig.rotation_euler.z = 0.4
    bpy.ops.object.mode_set(mode="EDIT")
    bone = data.edit_bones.new("neck")
    bone.head, bone.tail, bone.roll = (0, 0, 1), (0, -0.1, 1.3), 0.7
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


@pytest.mark.parametrize("mode", ["QUATERNION", "YZX"])
def test_a_bone_sways_about_its_pose(face, armature, mode):
    bone = armature.pose.bones["neck"]
    bone.rotation_mode = mode
    setattr(
        bone,
        "rotation_quaternion" if mode == "QUATERNION" else "rotation_euler",
        (0.9, 0.1, 0.2, 0.1)[-len(bone.rotation_quaternion if mode == "QUATERNION" else bone.rotation_euler) :],
    )
    bpy.context.view_layer.update()
    posed = (armature.matrix_world @ bone.matrix).to_quaternion()
    sway = head_sway.find(face, SwayTarget(object_name="Rig", bone_name="neck"), {}, upper_face_strips.MARK)
    for degrees, expected in (((20, 0, 0), (0.342020, -0.939693, 0)), ((0, -20, 0), (0, -0.939693, -0.342020))):
        head_sway.set_values(armature, sway.path, sway.values(np.array([degrees], dtype=np.float32))[0].tolist())
        bpy.context.view_layer.update()
        turn = (armature.matrix_world @ bone.matrix).to_quaternion() @ posed.inverted()
        np.testing.assert_allclose(turn @ Vector((0, -1, 0)), expected, atol=2e-4)


def test_a_renamed_rig_and_bone_are_still_those_that_sway(face, armature):
    bone = armature.pose.bones["neck"]
    bone.rotation_mode = "XYZ"
    sway = SwayTarget(object_name="Rig", bone_name="neck")
    live(face, settings=Settings(head_sway=1.0), sway=sway)
    (strip,) = own_strips(armature)
    armature.name, armature.data.bones["neck"].name = "Renamed", 'a "neck"'
    now = upper_face_strips.sway_of(strip.action)
    assert now == SwayTarget(object_name="Renamed", bone_name='a "neck"')
    bone = armature.pose.bones['a "neck"']
    bone.rotation_euler.x = 0.5
    upper_face_strips.remove_upper_face(face)
    assert bone.rotation_euler.x == 0.0 and own_strips(armature) == []


def test_a_bone_that_the_user_animates(face, armature):
    bone = armature.pose.bones["neck"]
    bone.rotation_mode = "XYZ"
    bone.rotation_euler.x = 0.3
    bone.keyframe_insert("rotation_euler", frame=1)
    walk = armature.animation_data.action
    walk.name = "Walk"
    sway, settings = SwayTarget(object_name="Rig", bone_name="neck"), Settings(head_sway=1.0)
    with pytest.raises(ValueError, match='"Walk" turns the bone "neck". Push it down'):
        live(face, settings=settings, sway=sway)
    assert len(bpy.data.actions) == 1
    slot = armature.animation_data.action_slot
    armature.animation_data.action = None
    armature.animation_data.nla_tracks.new().strips.new("walk", 1, walk).action_slot = slot
    live(face, settings=settings, sway=sway)
    (strip,) = own_strips(armature)
    swings = [curves(strip)['pose.bones["neck"].rotation_euler', axis] for axis in range(3)]
    frame = int(np.argmax(np.abs(swings[0][:, 1])))
    bpy.context.scene.frame_set(int(swings[0][frame, 0]))
    assert abs(swings[0][frame, 1]) > 0.01
    assert bone.rotation_euler.x == pytest.approx(0.3 + swings[0][frame, 1], abs=1e-4)


@pytest.mark.parametrize(
    ("sway", "message"),
    [
        (SwayTarget(object_name="Nobody"), 'no object named "Nobody"'),
        (SwayTarget(object_name="Rig", bone_name="tail"), '"Rig" has no bone named "tail"'),
        (SwayTarget(object_name="Head", bone_name="neck"), '"Head" has no bone named "neck"'),
    ],
)
def test_a_sway_target_that_is_not_there(face, armature, scene_bytes, sway, message):
    before = scene_bytes()
    with pytest.raises(ValueError, match=message):
        live(face, settings=Settings(head_sway=1.0), sway=sway)
    assert scene_bytes() == before


def test_an_axis_angle_rotation_cannot_sway(face):
    face.rotation_mode = "AXIS_ANGLE"
    with pytest.raises(ValueError, match="Choose Euler or Quaternion"):
        live(face, settings=Settings(head_sway=1.0), sway=SwayTarget(object_name="Head"))


def test_the_button_listens_to_real_speech(face, addon_preferences):
    pytest.importorskip("soxr")
    panel = bpy.context.scene.wav2sem_upper_face
    panel.seed, panel.brows = 7, 0.0
    assert bpy.ops.wav2sem.add_upper_face(filepath=str(DEMO_SPEECH), object="Head", start_frame=3) == {"FINISHED"}
    (strip,) = own_strips(face.data.shape_keys)
    assert sorted(path for path, _ in curves(strip)) == [
        'key_blocks["eyeBlink_L"].value',
        'key_blocks["eyeBlink_R"].value',
    ]
    assert upper_face_strips.recorded_settings(strip.action) == Settings(seed=7, brows=0.0)
    assert strip.frame_start == 3


@pytest.mark.skipif(not MODEL.is_file(), reason="the repository has no bundled model")
def test_animate_brings_the_upper_face_along_in_one_step(face, addon_preferences):
    pytest.importorskip("onnxruntime")
    bpy.context.scene.render.fps = 30  # the model gives this recording 197 frames, its length rounds to 198
    bpy.context.scene.wav2sem_upper_face.enabled = True
    assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object="Head") == {"FINISHED"}
    animation = face.data.shape_keys.animation_data
    assert animation.action.name == "demo_speech"
    (strip,) = own_strips(face.data.shape_keys)
    assert strip.frame_end == animation.action.curve_frame_range[1]


@pytest.mark.skipif(not MODEL.is_file(), reason="the repository has no bundled model")
def test_brows_rise_on_the_word_that_the_transcript_stresses(face, addon_preferences):
    pytest.importorskip("onnxruntime")

    def raised(words: str) -> float:
        """How far the inner brows are up while "boat" is said."""
        options = {"upper_face": True, "object": "Head", "transcript": words}
        assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), **options) == {"FINISHED"}
        (strip,) = own_strips(face.data.shape_keys)
        points_n2 = curves(strip)[f'key_blocks["{KEYS["browInnerUp"]}"].value', 0]
        times_s = (points_n2[:, 0] - 1) / compat.frame_rate_hz(bpy.context.scene)
        return float(np.interp(np.arange(1.45, 1.7, 0.02), times_s, points_n2[:, 1]).max())

    assert (
        raised("Please put the paper boat by the pond") < 0.2 < 0.3 < raised("Please put the paper *boat* by the pond")
    )


@pytest.mark.skipif(not MODEL.is_file(), reason="the repository has no bundled model")
def test_a_mouth_alone_still_speaks(head, addon_preferences):
    pytest.importorskip("onnxruntime")
    assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object="Head", upper_face=True) == {"FINISHED"}
    assert head.data.shape_keys.animation_data.action.name == "demo_speech"
    assert not own_strips(head.data.shape_keys)


def test_panel_operator_and_settings_agree():
    operator = bpy.ops.wav2sem.add_upper_face.get_rna_type()
    panel = upper_face_properties.WAV2SEM_PG_upper_face.bl_rna.properties
    for name in upper_face_properties.AMOUNTS:
        assert (operator.properties[name].default, operator.properties[name].name) == (
            panel[name].default,
            panel[name].name,
        )
        if name != "head_sway":
            assert panel[name].default == getattr(Settings(), name), name
    assert panel["enabled"].default is True and panel["sway_object"].type == "POINTER"
    for prop in (*operator.properties, *panel):
        if prop.identifier not in ("rna_type", "name"):
            assert prop.name[0].isupper() and prop.description and not prop.description.endswith("."), prop.identifier
    for name in ("add_upper_face", "remove_upper_face"):
        description = getattr(bpy.ops.wav2sem, name).get_rna_type().description
        assert description and not description.endswith(".")


def test_looking_at_the_settings_stores_nothing(face, scene_bytes):
    before = scene_bytes()
    assert upper_face_properties.panel_settings(bpy.context.scene) == (Settings(), SwayTarget())
    assert upper_face_properties.is_enabled(bpy.context.scene, by_hand=True)
    assert not upper_face_properties.is_enabled(bpy.context.scene, by_hand=False)
    assert scene_bytes() == before


@pytest.mark.parametrize("is_on", [True, False])
def test_a_switch_that_was_moved_counts_for_scripts_too(is_on):
    panel = bpy.context.scene.wav2sem_upper_face
    assert panel.enabled and not upper_face_properties.is_enabled(bpy.context.scene, by_hand=False)
    panel.enabled = is_on
    for by_hand in (True, False):
        assert upper_face_properties.is_enabled(bpy.context.scene, by_hand) is is_on
