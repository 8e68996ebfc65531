# SPDX-License-Identifier: GPL-3.0-or-later
"""Heads that a rig moves: its bones and properties are found, mapped, animated, and taken back; faults are named."""

import json
from math import radians

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.scene import checks, controls, drivers, key_mapping, takes
from wav2sem_blender.blender.scene.controls import Control
from wav2sem_blender.blender.ui import key_mapping_panel, status
from wav2sem_blender.pipeline.face_names import KeyMap, Row
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.visemes import OCULUS

from . import rna_dump  # noqa: TID252
from .applied import apply_motion  # noqa: TID252
from .conftest import add_mesh  # noqa: TID252
from .test_result import _flat  # noqa: TID252

JAW, LIPS = 'pose.bones["c_jaw"].location[1]', 'pose.bones["c_jaw"].location[0]'
TURN = 'pose.bones["c_jaw"].rotation_euler[0]'


def add_rig(*bones, name="Rig"):
    """An armature with these bones, upright so that a bone's axes are the world's."""
    data = bpy.data.armatures.new(name)
    rig = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for number, bone in enumerate(bones):
        made = data.edit_bones.new(bone)
        made.head, made.tail = (number, 0, 0), (number, 1, 0)
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


def add_head(*keys, name="Head"):
    """A triangle with keys that move its first vertex down."""
    head = add_mesh(name, [(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    head.shape_key_add(name="Basis")
    for key in keys:
        block = head.shape_key_add(name=key, from_mix=False)
        block.value, block.data[0].co = 0.0, (0, 0, -1)
    return head


def drive(head, key, rig, path="", bone="", transform="LOC_Y", expression="var", kind="SCRIPTED"):
    """Let a key follow a property or a bone of the rig."""
    driver = head.data.shape_keys.key_blocks[key].driver_add("value").driver
    driver.type, driver.expression = kind, expression
    read(driver, rig, path, bone, transform)
    return driver


def read(driver, rig, path="", bone="", transform="LOC_Y"):
    if driver.expression == "0.0":  # as Blender makes it
        driver.expression = "var"
    variable = driver.variables.new()
    target = variable.targets[0]
    if bone:
        variable.type = "TRANSFORMS"
        target.id, target.bone_target, target.transform_type = rig, bone, transform
        target.transform_space = "LOCAL_SPACE"
    else:
        target.id_type = "ARMATURE" if isinstance(rig, bpy.types.Armature) else "OBJECT"
        target.id, target.data_path = rig, path


def motion_of(audio="a.wav", n_frames=24, **peaks):
    """Channels that rise from rest to their peaks and fall again."""
    shape_T = np.sin(np.linspace(0, np.pi, n_frames))
    weights_TK = np.stack([peak * shape_T for peak in peaks.values()], axis=1)
    info = {"audio": audio, "audio_sha256": audio * 8}
    return Motion(weights_TK=weights_TK, channels=tuple(peaks), fps=24.0, info=info)


def speak(head, motion=None, **options):
    return apply_motion(bpy.context, head, motion or motion_of(jawOpen=0.5, mouthPucker=0.4), **options)


def curves_of_rig(rig):
    animation = rig.animation_data
    bag = animation.action.layers[0].strips[0].channelbag(animation.action_slot)
    found = {}
    for curve in bag.fcurves:
        co_T2 = np.empty(2 * len(curve.keyframe_points), dtype=np.float32)
        curve.keyframe_points.foreach_get("co", co_T2)
        found[controls.of_curve(curve).address] = co_T2.reshape(-1, 2)[:, 1]
    return found


def height(head, frame):
    bpy.context.scene.frame_set(frame)
    return head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.vertices[0].co.z


def state(*owners):
    """Everything that a run may change of these objects and their keys."""
    bpy.context.scene.frame_set(1)
    blocks = [block for owner in owners for block in (owner, getattr(owner.data, "shape_keys", None)) if block]
    dumped = rna_dump.dump()
    found = {f"{block!r}{path}": value for block in blocks for path, value in _flat(dumped[repr(block)]).items()}
    found = {path: value for path, value in found.items() if not path.endswith("/active")}
    customs = [{name: str(value) for name, value in block.items()} for block in blocks]
    return found, customs, sorted(bpy.data.actions.keys())


@pytest.fixture
def driven():
    """A head whose two keys are driven: the jaw by a bone's location, the lips by a property."""
    rig = add_rig("c_jaw", "c_head")
    rig["lips"] = 0.0
    rig.id_properties_ui("lips").update(min=0.0, max=1.0)
    head = add_head("jawOpen", "mouthPucker")
    drive(head, "jawOpen", rig, bone="c_jaw", expression="var * 20")
    drive(head, "mouthPucker", rig, '["lips"]')
    return head, rig


class TestAddresses:
    @pytest.mark.parametrize("bone", ["jaw", 'a"b', "back\\slash", "顎.L", "", "x]"])
    def test_there_and_back(self, bone):
        for control in (Control(bone, "prop"), Control(bone, "口 [1]"), Control(bone or "b", "location", 2)):
            assert controls.parsed(control.address) == control

    @pytest.mark.parametrize("name", ["jawOpen", "a.location[1]", "[1]", 'pose.bones["a"].hide', "location[0]", ""])
    def test_names_of_keys_are_none(self, name):
        assert controls.parsed(name) is None


class TestExpressions:
    @pytest.mark.parametrize(
        ("expression", "value"),
        [("var*2+1", 7.0), ("max(0, -var)", 0.0), ("var if var > 1 else 0", 3.0), ("clamp(var, 0, 1)", 1.0)],
    )
    def test_arithmetic(self, expression, value):
        assert drivers.evaluated(expression, {"var": 3.0}) == value

    @pytest.mark.parametrize(
        "expression",
        ["__import__('os').getcwd()", "frame", "self.x", "var.real", "[x for x in (1,)]", "1/0", "(", "9**9**9", ""],
    )
    def test_nothing_else_is_run(self, expression):
        with pytest.raises(drivers.UnknownError):
            drivers.evaluated(expression, {"var": 3.0})


class TestFound:
    def test_a_bone_and_a_property(self, driven):
        head, _ = driven
        found = key_mapping.guessed(head)
        assert found.rows == (Row("jawOpen", JAW, 0.05), Row("mouthPucker", '["lips"]', 1.0))
        words = status.face_words(bpy.context)
        assert ('2 controls of "Rig" move the face', "ARMATURE_DATA") in words
        assert status.face_problem(bpy.context) == ""

    @pytest.mark.parametrize(
        ("transform", "expression", "kind", "row"),
        [
            ("LOC_X", "-var", "SCRIPTED", Row("jawOpen", LIPS, -1.0)),
            ("ROT_X", "var / 0.3", "SCRIPTED", Row("jawOpen", TURN, 0.3)),
            ("LOC_Y", "", "SUM", Row("jawOpen", JAW, 1.0)),
            ("LOC_Y", "max(0, -var * 4)", "SCRIPTED", Row("jawOpen", JAW, -0.25)),
            ("SCALE_Y", "(var - 1) * 2", "SCRIPTED", Row("jawOpen", 'pose.bones["c_jaw"].scale[1]', 0.5)),
            ("LOC_Y", "min(var, 0.6)", "SCRIPTED", Row("jawOpen", JAW, 1.0)),
        ],
    )
    def test_how_far(self, transform, expression, kind, row):
        rig, head = add_rig("c_jaw"), add_head("jawOpen")
        drive(head, "jawOpen", rig, bone="c_jaw", transform=transform, expression=expression, kind=kind)
        assert key_mapping.guessed(head).rows == (row,)

    def test_through_the_armatures_data(self):
        rig, head = add_rig("c_jaw"), add_head("jawOpen")
        rig["facs_JawOpen"], rig.data["facs_JawOpen(fin)"] = 0.0, 0.0
        read(rig.data.driver_add('["facs_JawOpen(fin)"]').driver, rig, '["facs_JawOpen"]')
        drive(head, "jawOpen", rig.data, '["facs_JawOpen(fin)"]', expression="2 * var")
        assert key_mapping.guessed(head).rows == (Row("jawOpen", '["facs_JawOpen"]', 0.5),)

    def test_one_axis_for_two_directions_and_one_for_both_sides(self):
        rig, head = add_rig("c_jaw"), add_head("jawOpen", "jawLeft", "jawRight", "mouthSmileLeft", "mouthSmileRight")
        rig["smile"] = 0.0
        drive(head, "jawOpen", rig, bone="c_jaw")
        drive(head, "jawLeft", rig, bone="c_jaw", transform="LOC_X", expression="max(0, var)")
        drive(head, "jawRight", rig, bone="c_jaw", transform="LOC_X", expression="max(0, -var)")
        for side in ("Left", "Right"):
            drive(head, f"mouthSmile{side}", rig, '["smile"]')
        rows = {row.channel: row for row in key_mapping.guessed(head).rows}
        assert rows["jawLeft"] == Row("jawLeft", LIPS, 1.0) and rows["jawRight"] == Row("jawRight", LIPS, -1.0)
        assert rows["mouthSmileLeft"].gain == rows["mouthSmileRight"].gain == 0.5

    def test_a_bone_that_moves_correctives_too_plays_the_jaw_alone(self):
        rig, head = add_rig("c_jaw"), add_head("jawOpen", "mouthFunnel", "mouthStretchLeft")
        for key in ("jawOpen", "mouthFunnel", "mouthStretchLeft"):
            drive(head, key, rig, bone="c_jaw")
        assert key_mapping.guessed(head).rows == (Row("jawOpen", JAW, 1.0),)

    def test_a_property_that_only_bones_read(self):
        rig, head = add_rig("lowerJaw"), add_head("mouthPucker")
        rig["facs_jnt_JawOpen"], rig["facs_jnt_JawLeft"] = 0.0, 0.0
        rig.pose.bones["lowerJaw"].rotation_mode = "XYZ"
        read(rig.pose.bones["lowerJaw"].driver_add("rotation_euler", 0).driver, rig, '["facs_jnt_JawOpen"]')
        head.parent = rig
        rows = key_mapping.guessed(head).rows
        assert rows == (Row("mouthPucker", "mouthPucker"), Row("jawOpen", '["facs_jnt_JawOpen"]', 1.0)), "not JawLeft"

    def test_percent(self):
        rig, head = add_rig("jaw"), add_head("other")
        rig["jawOpen"] = 0.0
        rig.id_properties_ui("jawOpen").update(min=0.0, max=100.0)
        rig.pose.bones["jaw"].rotation_mode = "XYZ"
        read(rig.pose.bones["jaw"].driver_add("rotation_euler", 0).driver, rig, '["jawOpen"]')
        head.parent = rig
        assert key_mapping.guessed(head).rows == (Row("jawOpen", '["jawOpen"]', 100.0),)

    def test_visemes_by_properties(self):
        rig, head = add_rig("b"), add_head(*(f"viseme_{name}" for name in OCULUS.names))
        for name in OCULUS.names:
            rig[name] = 0.0
            drive(head, f"viseme_{name}", rig, f'["{name}"]')
        found = key_mapping.guessed(head)
        assert found.visemes == "OCULUS" and found.rows[10].key == '["aa"]'
        speak(head)
        assert curves_of_rig(rig)['["aa"]'].max() > 0.3

    def test_a_head_without_controls_stays_as_it_is(self):
        rig, head = add_rig("jaw"), add_head("jawOpen", "mouthPucker")
        rig["jawOpen"] = 0.0
        head.parent = rig
        assert key_mapping.guessed(head).rows == (Row("jawOpen", "jawOpen"), Row("mouthPucker", "mouthPucker"))


class TestWritten:
    def test_curves_with_rest_at_both_ends(self, driven):
        head, rig = driven
        outcome = speak(head)
        curves = curves_of_rig(rig)
        assert set(curves) == {JAW, '["lips"]'} and outcome.n_curves == 2
        for values_T in curves.values():
            assert (values_T[[0, 1, -2, -1]] == 0).all()
        assert curves[JAW].max() == pytest.approx(0.025, abs=1e-3)
        assert head.data.shape_keys.animation_data.action is None, "the driven keys are not keyed"
        assert height(head, 12) == pytest.approx(-0.9, abs=0.02)
        action = rig.animation_data.action
        assert {curve.group.name for curve in action.layers[0].strips[0].channelbags[0].fcurves} == {
            "Speech c_jaw",
            "Speech",
        }
        assert rig.animation_data.action_slot.target_id_type == "OBJECT"

    def test_keys_and_controls_play_one_action(self, driven):
        head, rig = driven
        head.shape_key_add(name="mouthFunnel", from_mix=False).data[0].co = (0, 0, -1)
        speak(head, motion_of(jawOpen=0.5, mouthFunnel=0.3))
        keys = head.data.shape_keys
        assert keys.animation_data.action == rig.animation_data.action
        assert [slot.target_id_type for slot in rig.animation_data.action.slots] == ["KEY", "OBJECT"]
        assert takes.of_face(head)[0].key_names == ["mouthFunnel", JAW]
        assert height(head, 12) == pytest.approx(-0.8, abs=0.02)

    def test_again_replaces_and_another_line_plays_on(self, driven):
        head, rig = driven
        speak(head)
        speak(head, motion_of(jawOpen=0.2, mouthPucker=0.1))
        assert len(bpy.data.actions) == 1 and curves_of_rig(rig)[JAW].max() == pytest.approx(0.01, abs=1e-3)
        outcome = speak(head, motion_of("b.wav", jawOpen=0.4, mouthPucker=0.1), start_frame=101)
        assert '"a" plays on in the NLA, as it is spoken at another time.' in outcome.notes
        assert height(head, 12) == pytest.approx(-0.3, abs=0.02) and height(head, 112) == pytest.approx(-0.5, abs=0.02)
        assert height(head, 60) == 0

    def test_a_bone_that_turns_by_quaternions(self):
        rig, head = add_rig("c_jaw"), add_head("jawOpen")
        drive(head, "jawOpen", rig, bone="c_jaw", transform="ROT_X", expression="var / 0.3")
        speak(head, motion_of(jawOpen=0.5))
        assert set(curves_of_rig(rig)) == {f'pose.bones["c_jaw"].rotation_quaternion[{axis}]' for axis in range(4)}
        assert rig.pose.bones["c_jaw"].rotation_mode == "QUATERNION"
        assert height(head, 12) == pytest.approx(-0.5, abs=0.02)
        bpy.ops.wav2sem.remove_take()
        assert rig.pose.bones["c_jaw"].rotation_quaternion[:] == (1, 0, 0, 0)

    def test_limits_cut_off_and_that_is_said(self, driven):
        head, rig = driven
        rig.id_properties_ui("lips").update(max=0.25)
        limit = rig.pose.bones["c_jaw"].constraints.new("LIMIT_LOCATION")
        limit.use_max_y, limit.max_y, limit.owner_space = True, 0.02, "LOCAL"
        outcome = speak(head)
        curves = curves_of_rig(rig)
        assert curves['["lips"]'].max() == 0.25 and curves[JAW].max() == pytest.approx(0.02)
        text = 'Limits of "Rig" cut off the motion of c_jaw location Y, lips. Widen them, or lower the gain'
        assert any(warning.startswith(text) for warning in outcome.warnings)

    def test_from_keys_to_controls_and_back(self, driven):
        head, rig = driven
        head.shape_key_add(name="free", from_mix=False)
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", "free"),)))
        speak(head, motion_of(jawOpen=0.5))
        key_mapping.store(head, KeyMap(rows=()))
        speak(head)
        keys = head.data.shape_keys
        assert keys.animation_data is None or keys.animation_data.action is None
        assert keys.key_blocks["free"].value == 0 and rig.animation_data.action.name == "a.001"
        bpy.context.window_manager.wav2sem_take = "a"
        assert bpy.ops.wav2sem.make_active() == {"FINISHED"}
        assert rig.animation_data.action is None and keys.animation_data.action.name == "a"
        assert rig.pose.bones["c_jaw"].location[1] == 0


class TestTakes:
    def test_remove_restores_everything(self, driven):
        head, rig = driven
        rig.pose.bones["c_jaw"].location[1] = 0.013
        rig["lips"] = 0.125
        for frame in (1, 40):
            rig.pose.bones["c_head"].keyframe_insert("location", frame=frame)
        rig.animation_data.action.name = "Walk"
        before = state(head, rig)
        outcome = speak(head)
        assert 'Your action "Walk" moved to an NLA track below the speech.' in outcome.notes
        assert rig.animation_data.nla_tracks["Walk"].strips[0].action.name == "Walk"
        assert bpy.ops.wav2sem.remove_take() == {"FINISHED"}
        assert state(head, rig) == before

    def test_remove_of_the_only_take_leaves_no_animation_data(self, driven):
        head, rig = driven
        before = state(head, rig)
        speak(head)
        bpy.ops.wav2sem.remove_take()
        assert state(head, rig) == before and rig.animation_data is None

    def test_mute_and_nla(self, driven):
        head, _ = driven
        speak(head)
        bpy.ops.wav2sem.mute_take()
        assert takes.of_face(head)[0].is_muted and height(head, 12) == 0
        bpy.ops.wav2sem.mute_take()
        assert height(head, 12) < -0.8
        assert bpy.ops.wav2sem.push_to_nla() == {"FINISHED"}
        assert takes.of_face(head)[0].strip is not None and height(head, 12) < -0.8 and height(head, 60) == 0
        bpy.ops.wav2sem.mute_take()
        assert height(head, 12) == 0
        assert bpy.ops.wav2sem.make_active() == {"FINISHED"}
        assert takes.of_face(head)[0].is_active and height(head, 12) < -0.8

    def test_fewer_keys_within_the_tolerance(self, driven):
        head, rig = driven
        speak(head)
        before = [height(head, frame) for frame in range(1, 25)]
        n_keys = sum(map(len, curves_of_rig(rig).values()))
        pose = rig.pose.bones["c_jaw"].location[1]
        assert bpy.ops.wav2sem.reduce_keys(tolerance_mm=20.0) == {"FINISHED"}
        assert rig.pose.bones["c_jaw"].location[1] == pytest.approx(pose)
        after = [height(head, frame) for frame in range(1, 25)]
        assert sum(map(len, curves_of_rig(rig).values())) < n_keys / 2
        assert 0 < np.abs(np.subtract(before, after)).max() < 0.0205

    def test_a_renamed_bone_is_followed(self, driven):
        head, rig = driven
        speak(head)
        rig.pose.bones["c_jaw"].name = "Kiefer"
        assert takes.of_face(head)[0].key_names == ['["lips"]', 'pose.bones["Kiefer"].location[1]']
        bpy.ops.wav2sem.remove_take()
        assert not bpy.data.actions

    def test_a_copy_owns_its_own(self, driven):
        head, rig = driven
        speak(head)
        for thing in bpy.context.scene.objects:
            thing.select_set(True)
        bpy.ops.object.duplicate()
        other = next(thing for thing in bpy.context.selected_objects if thing.type == "MESH")
        other_rig = next(thing for thing in bpy.context.selected_objects if thing.type == "ARMATURE")
        assert controls.rig_of(other) == other_rig != rig
        speak(other, motion_of("b.wav", jawOpen=0.2, mouthPucker=0.1))
        assert height(head, 12) == pytest.approx(-0.9, abs=0.02) and height(other, 12) == pytest.approx(-0.3, abs=0.02)
        assert [take.action.name for take in takes.of_face(other)] == ["b", "a.001"], "Blender copied the first take"
        assert [take.action.name for take in takes.of_face(head)] == ["a"]

    def test_undo(self, driven):
        head, _ = driven
        bpy.ops.ed.undo_push(message="before")
        speak(head)
        bpy.ops.ed.undo_push(message="spoken")
        bpy.ops.ed.undo()
        assert takes.of_face(bpy.data.objects["Head"]) == () and not bpy.data.actions
        bpy.ops.ed.redo()
        assert [take.action.name for take in takes.of_face(bpy.data.objects["Head"])] == ["a"]

    def test_it_is_saved_with_the_file(self, driven, tmp_path):
        speak(driven[0])
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
        head = bpy.data.objects["Head"]
        assert takes.of_face(head)[0].is_active and height(head, 12) < -0.8
        assert bpy.ops.wav2sem.remove_take() == {"FINISHED"} and not bpy.data.actions

    def test_a_failure_half_way_leaves_no_trace(self, driven, monkeypatch):
        head, rig = driven
        before = state(head, rig)

        def fail(*_arguments, **_options):
            raise RuntimeError("half way")

        monkeypatch.setattr(takes, "shelve", fail)
        with pytest.raises(RuntimeError, match="half way"):
            speak(head)
        assert state(head, rig) == before


class TestTable:
    def test_a_row_in_the_panel(self, driven):
        head, rig = driven
        bpy.ops.wav2sem.guess_mapping()
        row = head.wav2sem_mapping[0]
        assert (row.kind, row.bone, row.axis, row.key) == ("BONE", "c_jaw", "location[1]", JAW)
        row.axis = "rotation_euler[0]"
        row.angle = radians(20)
        assert row.key == TURN and row.gain == pytest.approx(radians(20))
        row.kind = "PROPERTY"
        row.property, row.gain = "lips", 0.5
        assert row.key == '["lips"]' and row.kind == "PROPERTY"
        row.kind = "KEY"
        assert row.key == ""
        row.key = "jawOpen"
        assert row.kind == "KEY" and row.bone == "" and row.property == ""

    def test_preview_poses_the_face(self, driven):
        head, rig = driven
        bpy.ops.wav2sem.guess_mapping()
        jaw, lips = head.wav2sem_mapping
        jaw.preview = 0.5
        assert rig.pose.bones["c_jaw"].location[1] == pytest.approx(0.025) and jaw.preview == pytest.approx(0.5)
        bpy.context.view_layer.update()
        assert head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.vertices[0].co.z == pytest.approx(-0.5)
        rig.id_properties_ui("lips").update(max=0.5)
        lips.preview = 1.0
        assert rig["lips"] == 0.5, "within its limits"
        jaw.preview = lips.preview = 0.0
        assert rig.pose.bones["c_jaw"].location[1] == 0 and rig["lips"] == 0

    def test_saved_and_loaded(self, driven, tmp_path):
        head, _ = driven
        bpy.ops.wav2sem.guess_mapping()
        bpy.ops.wav2sem.save_mapping(filepath=str(tmp_path / "a.json"))
        assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["key"] == JAW
        bpy.ops.wav2sem.clear_mapping()
        bpy.ops.wav2sem.load_mapping(filepath=str(tmp_path / "a.json"))
        assert [row[:2] for row in key_mapping.stored(head).rows] == [("jawOpen", JAW), ("mouthPucker", '["lips"]')]
        assert head.wav2sem_mapping[0].gain == pytest.approx(0.05)

    def test_a_key_may_have_the_name_of_a_control(self):
        rig, head = add_rig("c_jaw"), add_head('["lips"]')
        rig["lips"] = 0.0
        head.parent = rig
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", '["lips"]'),)))
        speak(head, motion_of(jawOpen=0.5))
        assert rig.animation_data is None and head.data.shape_keys.animation_data.action is not None

    def test_another_rig_by_choice(self, driven):
        head, rig = driven
        board = add_rig("slider", name="Board")
        head.wav2sem_rig = board
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", 'pose.bones["slider"].location[0]', 2.0),)))
        speak(head, motion_of(jawOpen=0.5))
        assert curves_of_rig(board)['pose.bones["slider"].location[0]'].max() == pytest.approx(1.0, abs=0.02)
        assert rig.animation_data is None


class TestRefusals:
    def refused(self, head, rig, message):
        before = state(head, rig)
        with pytest.raises(ValueError, match=message):
            speak(head)
        assert state(head, rig) == before

    def test_what_is_gone(self, driven):
        head, rig = driven
        key_mapping.store(
            head, KeyMap(rows=(Row("jawOpen", 'pose.bones["gone"].location[1]'), Row("jawOpen", '["no"]')))
        )
        message = 'The rig "Rig" has no bone or property for gone location Y, no'
        self.refused(head, rig, message)
        assert (message, "ERROR") in status.face_words(bpy.context)

    def test_no_rig(self):
        head = add_head("other")
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", '["jaw"]'),)))
        with pytest.raises(ValueError, match="There is no rig for jaw; choose the armature under Rig"):
            speak(head)

    def test_a_control_that_a_driver_moves(self, driven):
        head, rig = driven
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", JAW),)))
        rig.pose.bones["c_jaw"].driver_add("location", 1)
        self.refused(head, rig, 'A driver of the rig "Rig" moves c_jaw location Y. Remove the driver, or map what it')

    def test_axis_and_angle(self, driven):
        head, rig = driven
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", TURN),)))
        rig.pose.bones["c_jaw"].rotation_mode = "AXIS_ANGLE"
        self.refused(head, rig, 'The bone "c_jaw" rotates by axis and angle')

    def test_tweak_mode_and_solo(self, driven):
        head, rig = driven
        track = rig.animation_data_create().nla_tracks.new()
        track.is_solo = True
        self.refused(head, rig, '"Rig": an NLA track is solo')

    def test_drivers_in_a_circle(self):
        rig, head = add_rig("c_jaw"), add_head("jawOpen", "mouthPucker")
        rig["a"], rig["b"] = 0.0, 0.0
        read(rig.driver_add('["a"]').driver, rig, '["b"]')
        read(rig.driver_add('["b"]').driver, rig, '["a"]')
        drive(head, "jawOpen", rig, '["a"]')
        words = status.face_words(bpy.context)
        assert ("The drivers of jawOpen read each other in a circle; remove one of them", "ERROR") in words
        self.refused(head, rig, "a driver controls the shape key jawOpen")

    def test_a_driver_that_nothing_is_known_of(self):
        rig, head = add_rig("c_jaw"), add_head("jawOpen", "mouthPucker")
        drive(head, "jawOpen", rig, bone="c_jaw", expression="frame * noise(var)")
        self.refused(head, rig, "a driver controls the shape key jawOpen")

    def test_a_linked_rig(self, driven, tmp_path):
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "rig.blend"))
        bpy.ops.wm.read_factory_settings(use_empty=True)
        with bpy.data.libraries.load(str(tmp_path / "rig.blend"), link=True) as (_, wanted):
            wanted.objects = ["Rig"]
        rig = wanted.objects[0]
        bpy.context.scene.collection.objects.link(rig)
        head = add_head("jawOpen")
        drive(head, "jawOpen", rig, bone="c_jaw")
        with pytest.raises(
            ValueError, match='The rig "Rig" of "Head" is linked from another file. Make a library override'
        ):
            speak(head)
        with pytest.raises(ValueError, match="is linked from another file"):
            checks.animatable(head, key_mapping.guessed(head).rows)


def test_an_overridden_character(driven, tmp_path):
    head, rig = driven
    collection = bpy.data.collections.new("Character")
    for thing in (head, rig):
        bpy.context.scene.collection.objects.unlink(thing)
        collection.objects.link(thing)
    bpy.context.scene.collection.children.link(collection)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "character.blend"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "character.blend"), link=True) as (_, wanted):
        wanted.collections = ["Character"]
    wanted.collections[0].override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    head = next(thing for thing in bpy.data.objects if thing.name == "Head" and thing.library is None)
    head.data.override_library.is_system_override = False
    bpy.context.view_layer.objects.active = head
    speak(head)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    head = next(thing for thing in bpy.data.objects if thing.name == "Head" and thing.library is None)
    assert height(head, 12) == pytest.approx(-0.9, abs=0.02)


def test_two_hundred_keys_of_any_script():
    names = [f"形状 {number} ж" for number in range(198)]
    rig, head = add_rig("顎"), add_head("jawOpen", "mouthPucker", *names)
    for name in ("jawOpen", "mouthPucker", *names):
        rig[f"プロパティ {name}"] = 0.0
        drive(head, name, rig, f'["プロパティ {name}"]')
    found = key_mapping.guessed(head)
    assert [row.key for row in found.rows] == ['["プロパティ jawOpen"]', '["プロパティ mouthPucker"]']
    speak(head)
    assert height(head, 12) == pytest.approx(-0.9, abs=0.02)


def test_the_list_shows_words_and_marks_what_is_gone(driven):
    from .test_mapping import drawn  # noqa: TID252

    head, _ = driven
    bpy.ops.wav2sem.guess_mapping()
    words = drawn(key_mapping_panel.WAV2SEM_PT_key_mapping)
    assert "0.05 × c_jaw location Y" in words and "lips" in words
