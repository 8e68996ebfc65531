# SPDX-License-Identifier: GPL-3.0-or-later
"""Characters linked from another file, and several characters in one scene."""

from math import radians

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.scene import actions, checks, key_mapping
from wav2sem_blender.pipeline.motion import Motion

from . import rna_dump  # noqa: TID252
from .applied import apply_motion  # noqa: TID252


def motion_of(audio="a.wav", peak=0.8, channels=("jawOpen", "mouthPucker"), n_frames=11):
    curve_T = np.concatenate([np.linspace(0, peak, n_frames // 2), np.linspace(peak, 0, n_frames - n_frames // 2)])
    weights_TK = np.stack([curve_T] * len(channels), axis=1)
    info = {"audio": audio, "audio_sha256": audio * 8}
    return Motion(weights_TK=weights_TK, channels=channels, fps=24.0, info=info)


@pytest.fixture
def library(head, tmp_path):
    """A file with a character: a head, a rig with a jaw bone, and a collection of both."""
    for block in head.data.shape_keys.key_blocks:
        block.value = 0.0
    data = bpy.data.armatures.new("Rig")
    rig = bpy.data.objects.new("Rig", data)
    collection = bpy.data.collections.new("Character")
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    bone = data.edit_bones.new("jaw")
    bone.head, bone.tail = (0, 0, 0.5), (0, -0.1, 0.45)
    bpy.ops.object.mode_set(mode="OBJECT")
    head.modifiers.new("Armature", "ARMATURE").object = rig
    for thing in (head, rig):
        collection.objects.link(thing)
        bpy.context.scene.collection.objects.unlink(thing)
    bpy.context.scene.collection.children.link(collection)
    path = tmp_path / "character.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return path


def link(library):
    with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
        wanted.collections = ["Character"]
    return wanted.collections[0]


def override(library, with_mesh=True, name="Head"):
    """Object > Library Override > Make, then Shift-click on the mesh's link icon."""
    link(library).override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    made = local(name)
    if with_mesh:
        made.data.override_create(remap_local_usages=True)
    bpy.context.view_layer.objects.active = made
    return made


def local(name):
    return next(thing for thing in bpy.data.objects if thing.name == name and thing.library is None)


def reopened(tmp_path):
    path = str(tmp_path / "shot.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    return local("Head")


class TestOverride:
    def test_the_action_is_local_and_survives(self, library, tmp_path, curves_of, point_at):
        head = override(library)
        outcome = apply_motion(bpy.context, head, motion_of())
        assert outcome.warnings == ()
        head = reopened(tmp_path)
        action = head.data.shape_keys.animation_data.action
        assert action.library is None and action.name == "a"
        assert set(curves_of(head)) == {"jawOpen", "mouthPucker"}
        assert point_at(head, 6)[2] == pytest.approx(-0.8, abs=1e-4)
        assert point_at(head, 1)[2] == pytest.approx(0.0, abs=1e-4)

    def test_running_again_replaces_the_curves(self, library, curves_of):
        head = override(library)
        apply_motion(bpy.context, head, motion_of())
        apply_motion(bpy.context, head, motion_of(peak=0.4))
        assert len(bpy.data.actions) == 1
        assert curves_of(head)["jawOpen"][1].max() == pytest.approx(0.4)

    def test_the_operator_too(self, library, animate):
        override(library)
        assert animate("ok") == {"FINISHED"}

    def test_its_table_survives(self, library, tmp_path, curves_of):
        head = override(library)
        bpy.ops.wav2sem.guess_mapping()
        head.wav2sem_mapping[0].gain = 0.5
        head = reopened(tmp_path)
        assert [tuple(row) for row in key_mapping.stored(head).rows][0] == ("jawOpen", "jawOpen", 0.5)
        apply_motion(bpy.context, head, motion_of())
        assert curves_of(head)["jawOpen"][1].max() == pytest.approx(0.4)

    def test_a_table_of_the_library_is_used_and_can_be_edited(self, library, tmp_path):
        bpy.ops.wm.open_mainfile(filepath=str(library))
        bpy.context.view_layer.objects.active = bpy.data.objects["Head"]
        bpy.ops.wav2sem.guess_mapping()
        bpy.ops.wm.save_mainfile()
        bpy.ops.wm.read_factory_settings(use_empty=True)
        head = override(library)
        assert len(key_mapping.stored(head).rows) == 3
        head.wav2sem_mapping[0].gain = 0.25
        bpy.ops.wav2sem.add_mapping_row()
        head.wav2sem_mapping[3].channel = "mouthFunnel"
        head.wav2sem_mapping[3].key = "mouthPucker"
        rows = key_mapping.stored(reopened(tmp_path)).rows
        assert rows[0] == ("jawOpen", "jawOpen", 0.25)
        assert rows[3] == ("mouthFunnel", "mouthPucker", 1.0)

    def test_a_range_that_is_too_narrow_is_said(self, library):
        head = override(library)
        outcome = apply_motion(bpy.context, head, motion_of(peak=1.4))
        assert any("cannot be changed, so jawOpen, mouthPucker will be clamped" in text for text in outcome.warnings)
        assert head.data.shape_keys.key_blocks["jawOpen"].slider_max == 1.0

    def test_the_jaw_bone_is_driven_and_stays_so(self, library, tmp_path):
        override(library)
        bpy.ops.wav2sem.drive_jaw_bone(angle=radians(20))
        head = reopened(tmp_path)
        bpy.context.view_layer.objects.active = head
        apply_motion(bpy.context, head, motion_of())
        bpy.context.scene.frame_set(6)
        rig = local("Rig").evaluated_get(bpy.context.evaluated_depsgraph_get())
        turned = rig.pose.bones["jaw"].matrix_basis.to_quaternion().angle
        assert turned == pytest.approx(radians(20 * 0.8), abs=1e-3)
        assert bpy.ops.wav2sem.release_jaw_bone() == {"FINISHED"}
        assert local("Rig").pose.bones["jaw"].rotation_mode == "QUATERNION"

    def test_no_key_is_added_to_it(self, library):
        head = override(library)
        with pytest.raises(ValueError, match="no shape key for any of the model's 1 channels"):
            apply_motion(bpy.context, head, motion_of(channels=("key_00",)))
        assert len(head.data.shape_keys.key_blocks) == 4


class TestRefusals:
    """Each message names the remedy, and nothing changes."""

    def refused(self, head, message):
        before = rna_dump.dump()
        with pytest.raises(ValueError, match=message):
            checks.check_target(bpy.context, head)
        with pytest.raises(ValueError, match=message):
            apply_motion(bpy.context, head, motion_of())
        assert rna_dump.dump() == before

    def test_linked(self, library):
        collection = link(library)
        bpy.context.scene.collection.children.link(collection)
        self.refused(collection.objects["Head"], r'"Head" is linked from another file\. Make a library override')

    def test_an_override_of_the_object_alone(self, library):
        head = override(library, with_mesh=False)
        self.refused(head, r'The mesh "Head" of "Head" is linked .* Shift-click the link icon beside the mesh\'s name')

    def test_a_local_object_with_a_linked_mesh(self, library):
        with bpy.data.libraries.load(str(library), link=True) as (_, wanted):
            wanted.meshes = ["Head"]
        head = bpy.data.objects.new("Head", wanted.meshes[0])
        bpy.context.scene.collection.objects.link(head)
        self.refused(head, "shape keys belong to the mesh. In the Object Data tab, Shift-click")

    def test_an_override_that_is_not_editable(self, library):
        head = override(library)
        head.data.override_library.is_system_override = True
        self.refused(head, "is not editable.*Library Override > Make Editable")

    def test_buttons_on_a_linked_character(self, library):
        collection = link(library)
        bpy.context.scene.collection.children.link(collection)
        bpy.context.scene.wav2sem.target = collection.objects["Head"]
        for button in (bpy.ops.wav2sem.guess_mapping, bpy.ops.wav2sem.load_mapping, bpy.ops.wav2sem.drive_jaw_bone):
            assert not button.poll()

    def test_flame_keys_are_not_made_on_an_override(self, flame_head, tmp_path):
        flame_head.shape_key_add(name="Basis")
        path = tmp_path / "flame.blend"
        bpy.ops.wm.save_as_mainfile(filepath=str(path))
        bpy.ops.wm.read_factory_settings(use_empty=True)
        with bpy.data.libraries.load(str(path), link=True) as (_, wanted):
            wanted.objects = ["Head"]
        bpy.context.scene.collection.objects.link(wanted.objects[0])
        head = wanted.objects[0].override_create(remap_local_usages=True)
        head.data.override_create(remap_local_usages=True)
        basis = np.zeros((1, 5023, 3), dtype=np.float32)
        motion = Motion(weights_TK=np.ones((3, 1)), channels=("jawOpen",), fps=24.0, basis_KV3=basis)
        with pytest.raises(ValueError, match="library override, which cannot take new shape keys. Animate it once"):
            apply_motion(bpy.context, head, motion)


class TestSeveralCharacters:
    def test_each_has_its_own_audio_and_action(self, head, curves_of, point_at):
        other = head.copy()
        other.data = head.data.copy()
        other.name = "Other"
        bpy.context.scene.collection.objects.link(other)
        apply_motion(bpy.context, head, motion_of("first.wav", peak=0.9), start_frame=1)
        apply_motion(bpy.context, other, motion_of("second.wav", peak=0.3), start_frame=21)
        first, second = (thing.data.shape_keys.animation_data.action for thing in (head, other))
        assert (first.name, second.name) == ("first", "second")
        assert first[actions.AUDIO_HASH] != second[actions.AUDIO_HASH]
        assert point_at(head, 6)[2] == pytest.approx(-0.9, abs=1e-4)
        assert point_at(other, 26)[2] == pytest.approx(-0.3, abs=1e-4)
        apply_motion(bpy.context, other, motion_of("second.wav", peak=0.5), start_frame=21)
        assert curves_of(head)["jawOpen"][1].max() == pytest.approx(0.9)
        assert curves_of(other)["jawOpen"][1].max() == pytest.approx(0.5)
        assert len(bpy.data.actions) == 2

    def test_the_same_character_overridden_twice(self, library, tmp_path):
        """The overrides keep Blender's names: 5.0 loses the mesh of an override whose object was renamed."""
        first = override(library)
        second = override(library, name="Head.001")
        apply_motion(bpy.context, first, motion_of("first.wav", peak=0.9))
        apply_motion(bpy.context, second, motion_of("second.wav", peak=0.3))
        assert {action.name for action in bpy.data.actions} == {"first", "second"}
        reopened(tmp_path)
        bpy.context.scene.frame_set(6)
        graph = bpy.context.evaluated_depsgraph_get()
        heights = [local(name).evaluated_get(graph).data.vertices[0].co.z for name in ("Head", "Head.001")]
        assert heights == pytest.approx([-0.9, -0.3], abs=1e-4)
