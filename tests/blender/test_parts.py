# SPDX-License-Identifier: GPL-3.0-or-later
"""A character of several meshes: teeth, beard and lashes with keys of the same names move with the face."""

import json
import struct

import bpy
import pytest

from wav2sem_blender.blender.scene import exports, parts, takes, upper_face_strips

from .applied import apply_motion
from .conftest import add_mesh
from .test_result import blink, state, talking


def keyed(name, keys=("jawOpen", "mouthPucker", "mouthSmile_L"), at=(0, 0, 0), parent=None):
    part = add_mesh(name, [(0, 0, 0), (1, 0, 0), (0, 0, 1)], [(0, 1, 2)])
    part.shape_key_add(name="Basis", from_mix=False)
    for number, key in enumerate(keys):
        block = part.shape_key_add(name=key, from_mix=False)
        block.value, block.data[0].co = 0.0, (0, 0, -1 - number)
    part.location, part.parent = at, parent
    bpy.context.view_layer.update()
    return part


@pytest.fixture
def rig():
    armature = bpy.data.objects.new("Rig", bpy.data.armatures.new("Rig"))
    bpy.context.scene.collection.objects.link(armature)
    return armature


@pytest.fixture
def character(rig):
    """Head, Teeth with the same keys, Beard with one of them, Eyes with others; all below the rig."""
    teeth = keyed("Teeth", parent=rig)
    beard = keyed("Beard", ("jawOpen",), parent=rig)
    eyes = keyed("Eyes", ("eyeLookUpLeft",), parent=rig)
    return keyed("Head", parent=rig), teeth, beard, eyes


def speak(face, **options):
    return apply_motion(bpy.context, face, talking(), settings={"filepath": "/nowhere/talk.wav"}, **options)


def names_of(found):
    return [part.name for part in found]


def jaw(part, frame=40):
    bpy.context.scene.frame_set(frame)
    return round(part.data.shape_keys.key_blocks["jawOpen"].value, 4)


def test_the_parts_play_the_action_of_the_face(character):
    head, teeth, beard, eyes = character
    outcome = speak(head)
    action = head.data.shape_keys.animation_data.action
    assert "These parts move with the face: Beard, Teeth." in outcome.notes
    for part in (teeth, beard):
        assert part.data.shape_keys.animation_data.action == action
        assert jaw(part) == jaw(head) > 0
    assert eyes.data.shape_keys.animation_data is None
    speak(head)
    assert head.data.shape_keys.animation_data.action == action and len(bpy.data.actions) == 1, "made again in place"


def test_where_parts_are_found(rig):
    root = bpy.data.objects.new("Root", None)
    bpy.context.scene.collection.objects.link(root)
    rig.parent = root
    head = keyed("Head", parent=rig)
    keyed("Child", parent=head)
    keyed("Beside the Rig", parent=root)
    skinned = keyed("Skinned")
    skinned.modifiers.new("Armature", "ARMATURE").object = rig
    head.modifiers.new("Armature", "ARMATURE").object = rig
    keyed("Stranger")
    keyed("Other Head", at=(50, 0, 0), parent=root)
    collection = bpy.data.collections.new("Character")
    bpy.context.scene.collection.children.link(collection)
    collection.objects.link(head)
    member = keyed("Member")
    collection.objects.link(member)
    scene = bpy.context.scene
    found = ["Beside the Rig", "Child", "Skinned"]
    assert names_of(parts.candidates(head, scene)) == found
    scene.wav2sem.same_collection = True
    assert set(names_of(parts.candidates(head, scene))) >= {*found, "Member"}
    assert "Other Head" not in names_of(parts.candidates(head, scene)), "a second character of one rig"


def test_what_is_unticked_linked_driven_or_hidden(character, tmp_path):
    head, teeth, beard, eyes = character
    scene = bpy.context.scene
    driver = teeth.data.shape_keys.key_blocks["jawOpen"].driver_add("value").driver
    driver.expression = "0.25"
    beard.hide_set(True)
    speak(head)
    assert jaw(teeth) == 0.25, "the driver wins"
    bpy.context.scene.frame_set(40)
    blocks = teeth.data.shape_keys.key_blocks, head.data.shape_keys.key_blocks
    assert blocks[0]["mouthPucker"].value == blocks[1]["mouthPucker"].value > 0
    assert jaw(beard) == jaw(head), "hidden parts follow, too"
    beard.wav2sem_follows = False
    assert names_of(parts.candidates(head, scene)) == ["Beard", "Teeth"]
    speak(head)
    assert jaw(beard) == 0.0 and beard.data.shape_keys.animation_data is None


def test_the_users_action_on_a_part_comes_back(character):
    head, teeth, *_ = character
    block = teeth.data.shape_keys.key_blocks["mouthPucker"]
    for frame, value in ((1, 0.1), (40, 0.7)):
        block.value = value
        block.keyframe_insert("value", frame=frame)
    mine = teeth.data.shape_keys.animation_data.action
    speak(head)
    assert jaw(teeth) == jaw(head)
    bpy.context.view_layer.objects.active = head
    bpy.ops.wav2sem.remove_take()
    assert teeth.data.shape_keys.animation_data.action == mine
    assert jaw(teeth) == 0.0 and round(block.value, 3) == 0.7


@pytest.mark.parametrize("in_nla", [False, True])
def test_result_works_on_the_whole_character(character, in_nla):
    head, teeth, beard, _ = character
    before = [state(part) for part in (head, teeth, beard)]
    speak(head)
    bpy.context.view_layer.objects.active = head
    if in_nla:
        bpy.ops.wav2sem.push_to_nla()
        assert jaw(teeth) == jaw(head) > 0 and jaw(beard) > 0
        assert teeth.data.shape_keys.animation_data.action is None
    bpy.ops.wav2sem.mute_take()
    assert (jaw(head), jaw(teeth), jaw(beard)) == (0, 0, 0)
    bpy.ops.wav2sem.mute_take()
    assert jaw(teeth) == jaw(beard) == jaw(head) > 0
    if in_nla:
        bpy.ops.wav2sem.make_active()
        assert jaw(teeth) == jaw(beard) == jaw(head) > 0
        assert teeth.data.shape_keys.animation_data.action == head.data.shape_keys.animation_data.action
    bpy.ops.wav2sem.reduce_keys(tolerance_mm=50.0)
    assert jaw(teeth) == jaw(beard) == jaw(head) > 0
    apply_motion(bpy.context, head, talking(audio="other.wav"), settings={})
    kept = next(take for take in takes.of_face(head) if take.is_kept)
    assert takes.of_face(teeth)[0].action == takes.of_face(head)[0].action
    bpy.context.window_manager.wav2sem_take = kept.action.name
    bpy.ops.wav2sem.make_active()
    assert teeth.data.shape_keys.animation_data.action == kept.action
    for _ in range(2):
        bpy.context.window_manager.wav2sem_take = ""
        bpy.ops.wav2sem.remove_take()
    for part, was in zip((head, teeth, beard), before, strict=True):
        now = state(part)
        assert {path: (was.get(path), value) for path, value in now.items() if was.get(path) != value} == {}, part.name
        assert was.keys() == now.keys()
    assert not bpy.data.actions


def test_lashes_blink_with_the_lids(rig):
    lids = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight")
    lashes = keyed("Lashes", lids[1:], parent=rig)
    head = keyed("Head", lids, parent=rig)
    blink(head)
    strips = {owner.user.name for owner, *_ in upper_face_strips.strips_with(head)}
    assert strips == {head.data.name, lashes.data.name}
    peak = 0.0
    for frame in range(1, 300):
        bpy.context.scene.frame_set(frame)
        values = [part.data.shape_keys.key_blocks["eyeBlinkLeft"].value for part in (head, lashes)]
        assert values[0] == values[1]
        peak = max(peak, values[0])
    assert peak > 0.5
    upper_face_strips.remove_upper_face(head)
    assert not any(part.data.shape_keys.animation_data.nla_tracks for part in (head, lashes))


def test_exports_have_every_part(character, tmp_path, rig):
    head, teeth, beard, eyes = character
    beard.hide_select = True
    driven = keyed("Driven", ("other",))
    variable = driven.driver_add("location", 2).driver.variables.new()
    variable.targets[0].id, variable.targets[0].data_path = head, 'data.shape_keys.key_blocks["jawOpen"].value'
    speak(head)
    bpy.context.view_layer.objects.active = head
    assert {"Head", "Teeth", "Beard", "Driven"} <= set(names_of(exports.chosen(head, bpy.context)))
    path = tmp_path / "out.glb"
    assert bpy.ops.wav2sem.export_gltf(filepath=str(path)) == {"FINISHED"}
    content = path.read_bytes()
    described = json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])
    meshes = {node["name"] for node in described["nodes"] if "mesh" in node}
    assert {"Head", "Teeth", "Beard", "Driven"} <= meshes
    assert beard.hide_select and not beard.select_get()
