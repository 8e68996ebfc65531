# SPDX-License-Identifier: GPL-3.0-or-later
"""The jaw bone's driver: the bone found by name, the direction, removal without a trace, and nothing overwritten."""

from math import radians

import bpy
import numpy as np
import pytest
from mathutils import Matrix, Vector

from wav2sem_blender.blender.scene import jaw_bone
from wav2sem_blender.blender.ui import jaw_bone as jaw_bone_panel
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.visemes import OCULUS, as_visemes

from .applied import apply_motion  # noqa: TID252

HINGE = (0.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("names", "jaw"),
    [
        ("spine head jaw eye.L", "jaw"),
        ("Head Jaw", "Jaw"),
        ("CC_Base_Head CC_Base_JawRoot CC_Base_UpperJaw CC_Base_Teeth02", "CC_Base_JawRoot"),
        ("DEF-jaw ORG-jaw MCH-jaw_master jaw_master jaw", "jaw_master"),
        ("c_jawbone.x jawbone.x head.x", "c_jawbone.x"),
        ("mixamorig:Head mixamorig:Jaw", "mixamorig:Jaw"),
        ("FACIAL_C_FacialRoot FACIAL_C_Jaw", "FACIAL_C_Jaw"),
        ("Head Jaw_M JawEnd_M", "Jaw_M"),
        ("head lowerJaw upperJaw", "lowerJaw"),
        ("DEF-jaw DEF-jaw.L DEF-jaw.R ORG-jaw", "DEF-jaw"),
        ("Bip01_Head Bip01_Mandible", "Bip01_Mandible"),
        ("頭 顎", "顎"),
        ("head jaw_end JawTip jaw.L jaw.R chin teeth.B", None),
        ("head", None),
        ("", None),
    ],
)
def test_names(names, jaw):
    assert jaw_bone.guess_jaw_bone(names.split()) == jaw


@pytest.fixture
def head(head):
    """A face with its keys at rest; Blender adds keys with the value 1."""
    for block in head.data.shape_keys.key_blocks:
        block.value = 0.0
    return head


def add_rig(face, tail=(0.0, -0.1, 0.45), roll=0.0, name="jaw"):
    """An armature that deforms the face, with a jaw bone at the hinge; the character looks along -y."""
    data = bpy.data.armatures.new("Rig")
    rig = bpy.data.objects.new("Rig", data)
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    bone = data.edit_bones.new(name)
    bone.head, bone.tail, bone.roll = HINGE, tail, roll
    bpy.ops.object.mode_set(mode="OBJECT")
    face.modifiers.new("Armature", "ARMATURE").object = rig
    bpy.context.view_layer.objects.active = face
    return rig


def chin_height(rig, name="jaw", front=(0, -1, 0)):
    """World height of a point 0.1 in front of the hinge that rotates with the bone."""
    bpy.context.view_layer.update()
    posed = rig.evaluated_get(bpy.context.evaluated_depsgraph_get())
    bone = posed.pose.bones[name]
    at_rest = rig.matrix_world @ Vector(HINGE) + 0.1 * Vector(front)
    turned = rig.matrix_world @ bone.matrix @ bone.bone.matrix_local.inverted() @ rig.matrix_world.inverted()
    return (turned @ at_rest).z - at_rest.z


def rotation(rig, name="jaw"):
    bpy.context.view_layer.update()
    return rig.evaluated_get(bpy.context.evaluated_depsgraph_get()).pose.bones[name].matrix_basis.to_3x3()


def turned_by(rig, name="jaw"):
    return rotation(rig, name).to_quaternion().angle


@pytest.mark.parametrize("roll", [0.0, 1.0, np.pi / 2, np.pi, -2.5])
@pytest.mark.parametrize(
    "tail",
    [(0, -0.1, 0.45), (0, -0.1, 0.5), (0, -0.05, 0.3), (0, 0, 0.4), (0, 0, 0.6)],
    ids="chin level steep down up".split(),
)
def test_the_chin_goes_down_however_the_bone_lies(head, tail, roll):
    rig = add_rig(head, tail, roll)
    assert bpy.ops.wav2sem.drive_jaw_bone() == {"FINISHED"}
    assert turned_by(rig) == pytest.approx(0, abs=1e-5)
    head.data.shape_keys.key_blocks["jawOpen"].value = 1.0
    assert chin_height(rig) < -0.02
    assert turned_by(rig) == pytest.approx(radians(17), abs=1e-4)


def test_a_character_that_looks_the_other_way(head):
    rig = add_rig(head, tail=(0, 0.1, 0.45))
    rig.matrix_world = Matrix.Rotation(np.pi / 2, 4, "Z") @ Matrix.Scale(2, 4)
    bpy.ops.wav2sem.drive_jaw_bone()
    head.data.shape_keys.key_blocks["jawOpen"].value = 1.0
    assert chin_height(rig, front=(-1, 0, 0)) < -0.02


@pytest.mark.parametrize(("axis", "index"), [("X", 0), ("Y", 1), ("Z", 2)])
def test_axis_and_angle(head, axis, index):
    rig = add_rig(head)
    bpy.ops.wav2sem.drive_jaw_bone(axis=axis, angle=radians(-30))
    head.data.shape_keys.key_blocks["jawOpen"].value = 0.5
    euler = np.array(rotation(rig).to_euler("XYZ"))
    assert euler[index] == pytest.approx(radians(-15), abs=1e-4)
    assert np.delete(euler, index) == pytest.approx(0, abs=1e-5)


def test_it_follows_the_speech(head):
    rig = add_rig(head)
    bpy.ops.wav2sem.drive_jaw_bone(angle=radians(20))
    jaw_T = np.sin(np.linspace(0, np.pi, 25))
    motion = Motion(weights_TK=jaw_T[:, None], channels=("jawOpen",), fps=24.0)
    apply_motion(bpy.context, head, motion, start_frame=1)
    for frame in (6, 13, 18):
        bpy.context.scene.frame_set(frame)
        assert turned_by(rig) == pytest.approx(radians(20) * jaw_T[frame - 1], abs=1e-4)


def test_a_gain_of_the_mapping_changes_the_key_not_the_bone(head):
    rig = add_rig(head)
    bpy.ops.wav2sem.guess_mapping()
    head.wav2sem_mapping[0].gain = 0.5
    bpy.ops.wav2sem.drive_jaw_bone(angle=radians(20))
    apply_motion(bpy.context, head, Motion(weights_TK=np.ones((11, 1)), channels=("jawOpen",), fps=24.0))
    bpy.context.scene.frame_set(6)
    assert head.data.shape_keys.key_blocks["jawOpen"].value == 0.5
    assert turned_by(rig) == pytest.approx(radians(20), abs=1e-4)


def test_visemes_open_the_jaw_too(head):
    for block in head.data.shape_keys.key_blocks[1:]:
        block.name = "other"
    for name in OCULUS.names:
        head.shape_key_add(name=f"viseme_{name}", from_mix=False)
    rig = add_rig(head)
    bpy.ops.wav2sem.drive_jaw_bone(angle=radians(20))
    jaw_T = 0.5 * np.square(np.sin(np.arange(48) / 48 * np.pi))
    motion = Motion(weights_TK=jaw_T[:, None], channels=("jawOpen",), fps=24.0)
    apply_motion(bpy.context, head, motion)
    played = as_visemes(motion, OCULUS)
    opened_K = [OCULUS.weights[name].get("jawOpen", 0) for name in played.channels]
    for t in (6, 12, 24, 40):
        bpy.context.scene.frame_set(t + 1)
        assert turned_by(rig) == pytest.approx(radians(20) * played.weights_TK[t] @ opened_K, abs=2e-3)
    bpy.context.scene.frame_set(25)
    assert turned_by(rig) > radians(5)


def test_a_face_without_a_key_for_the_jaw_gets_one_without_a_shape(head):
    keys = head.data.shape_keys
    head.shape_key_remove(keys.key_blocks["jawOpen"])
    rig = add_rig(head)
    bpy.ops.wav2sem.drive_jaw_bone()
    rest, carrier = (np.array([p.co for p in keys.key_blocks[name].data]) for name in ("Basis", "jawOpen"))
    np.testing.assert_array_equal(rest, carrier)
    keys.key_blocks["jawOpen"].value = 1.0
    assert turned_by(rig) == pytest.approx(radians(17), abs=1e-4)
    bpy.ops.wav2sem.release_jaw_bone()
    assert "jawOpen" not in keys.key_blocks
    assert turned_by(rig) == pytest.approx(0, abs=1e-5)


def test_a_face_whose_only_key_is_the_jaw_bones():
    mesh = bpy.data.meshes.new("Puppet")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    puppet = bpy.data.objects.new("Puppet", mesh)
    bpy.context.scene.collection.objects.link(puppet)
    rig = add_rig(puppet)
    bpy.ops.wav2sem.drive_jaw_bone()
    apply_motion(bpy.context, puppet, Motion(weights_TK=np.ones((11, 1)), channels=("jawOpen",), fps=24.0))
    bpy.context.scene.frame_set(6)
    assert turned_by(rig) == pytest.approx(radians(17), abs=1e-4)


def state_of(rig, name="jaw"):
    bone = rig.pose.bones[name]
    return (
        bone.rotation_mode,
        [round(value, 5) for value in (*bone.rotation_euler, *bone.rotation_quaternion)],
        len(rig.animation_data.drivers) if rig.animation_data else 0,
    )


@pytest.mark.parametrize("mode", ["QUATERNION", "XYZ", "ZYX"])
def test_release_puts_everything_back(head, mode):
    rig = add_rig(head)
    bone = rig.pose.bones["jaw"]
    bone.rotation_mode = "XYZ"
    bone.rotation_euler = (0.1, 0.0, -0.05)
    bone.rotation_mode = mode
    before, posed = state_of(rig), rotation(rig)
    bpy.ops.wav2sem.drive_jaw_bone()
    np.testing.assert_allclose(rotation(rig), posed, atol=1e-5)
    head.data.shape_keys.key_blocks["jawOpen"].value = 0.7
    assert not np.allclose(rotation(rig), posed, atol=1e-2)
    assert bpy.ops.wav2sem.release_jaw_bone() == {"FINISHED"}
    mode_after, values_after, n_drivers = state_of(rig)
    assert (mode_after, n_drivers) == (before[0], 0)
    np.testing.assert_allclose(rotation(rig), posed, atol=1e-5)
    assert jaw_bone.driven_bones(rig) == []


def test_driving_again_replaces_the_driver(head):
    rig = add_rig(head)
    bpy.ops.wav2sem.drive_jaw_bone(angle=radians(10))
    head.data.shape_keys.key_blocks["jawOpen"].value = 1.0
    bpy.context.view_layer.update()
    bpy.ops.wav2sem.drive_jaw_bone(angle=radians(25))
    assert len(rig.animation_data.drivers) == 1
    assert turned_by(rig) == pytest.approx(radians(25), abs=1e-4)
    bpy.ops.wav2sem.release_jaw_bone()
    assert rig.pose.bones["jaw"].rotation_mode == "QUATERNION"


def test_undo(head):
    add_rig(head)
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.wav2sem.drive_jaw_bone()
    bpy.ops.ed.undo_push(message="driven")
    assert jaw_bone.driven_bones(bpy.data.objects["Rig"]) == ["jaw"]
    bpy.ops.ed.undo()
    rig = bpy.data.objects["Rig"]
    assert jaw_bone.driven_bones(rig) == [] and rig.pose.bones["jaw"].rotation_mode == "QUATERNION"
    bpy.ops.ed.redo()
    assert jaw_bone.driven_bones(bpy.data.objects["Rig"]) == ["jaw"]


class TestRefusals:
    def test_keys_on_the_bone(self, head):
        rig = add_rig(head)
        rig.pose.bones["jaw"].keyframe_insert("rotation_quaternion", frame=1)
        before = state_of(rig)
        with pytest.raises(RuntimeError, match='The action ".*" turns the bone "jaw"'):
            bpy.ops.wav2sem.drive_jaw_bone()
        assert state_of(rig) == before

    def test_somebody_elses_driver(self, head):
        rig = add_rig(head)
        rig.pose.bones["jaw"].driver_add("rotation_quaternion", 1)
        with pytest.raises(RuntimeError, match='A driver already turns the bone "jaw"'):
            bpy.ops.wav2sem.drive_jaw_bone()

    def test_keys_on_other_bones_and_channels_are_welcome(self, head):
        rig = add_rig(head)
        rig.pose.bones["jaw"].keyframe_insert("location", frame=1)
        assert bpy.ops.wav2sem.drive_jaw_bone() == {"FINISHED"}

    def test_no_such_bone(self, head):
        add_rig(head, name="Bone")
        with pytest.raises(RuntimeError, match='"Rig" has no bone with a jaw\'s name. Give the name'):
            bpy.ops.wav2sem.drive_jaw_bone()
        with pytest.raises(RuntimeError, match='"Rig" has no bone "jaw"'):
            bpy.ops.wav2sem.drive_jaw_bone(bone="jaw")
        assert bpy.ops.wav2sem.drive_jaw_bone(bone="Bone") == {"FINISHED"}

    def test_no_armature_and_no_driver(self, head):
        assert jaw_bone_panel.WAV2SEM_OT_drive_jaw_bone.missing(head) == '"Head" has no armature'
        assert not bpy.ops.wav2sem.drive_jaw_bone.poll()
        add_rig(head)
        assert jaw_bone_panel.WAV2SEM_OT_release_jaw_bone.missing(head) == "No jaw bone is driven"
        assert not bpy.ops.wav2sem.release_jaw_bone.poll()


def test_teeth_that_hang_on_the_rig_by_a_bone(head):
    rig = add_rig(head)
    head.modifiers.clear()
    head.parent, head.parent_type, head.parent_bone = rig, "BONE", "jaw"
    assert jaw_bone.armature_of(head) == rig
