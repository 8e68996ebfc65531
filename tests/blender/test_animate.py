# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's result: curve values, evaluated positions, actions, and running it again."""

import json

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender import compat
from wav2sem_blender.blender.animate import idle_worker, jobs


def test_curves_and_positions_equal_the_motion(head, animate, curves_of, point_at):
    bpy.context.scene.render.fps = 30
    assert animate(start_frame=11) == {"FINISHED"}
    curves = curves_of(head)
    assert sorted(curves) == ["jawOpen", "mouthPucker", "mouthSmile_L"]
    frames_T, jaw_T = curves["jawOpen"]
    time_s = np.arange(61) / 30
    np.testing.assert_array_equal(frames_T, np.arange(11, 72))
    np.testing.assert_allclose(jaw_T[2:-2], (1 - np.abs(time_s - 1))[2:-2], atol=1e-6)
    assert jaw_T[[0, 1, -2, -1]].tolist() == [0, 0, 0, 0], "the face rests before and after"
    np.testing.assert_allclose(point_at(head, 41), [-0.25, -0.9, -1.0], atol=2e-6)
    np.testing.assert_allclose(point_at(head, 67), [-0.25 * 4 / 30, -0.9 * 56 / 30, -4 / 30], atol=2e-6)
    for frame in (-100, 11, 71, 500):
        np.testing.assert_allclose(point_at(head, frame), 0.0, atol=2e-6)


@pytest.mark.parametrize(("fps", "fps_base"), [(24, 1.0), (24, 1.001), (25, 1.0), (30, 1.001), (60, 1.0)])
def test_seconds_are_kept_at_any_scene_rate(head, animate, point_at, curves_of, fps, fps_base):
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = fps, fps_base
    animate()
    frames_T, _ = curves_of(head)["jawOpen"]
    assert np.array_equal(frames_T, np.round(frames_T))
    rate_hz = fps / fps_base
    pucker = -point_at(head, 1 + round(1.5 * rate_hz))[1]
    assert pucker == pytest.approx(0.9 * round(1.5 * rate_hz) / rate_hz, abs=1e-3)
    opened = [-point_at(head, frame)[2] for frame in (int(1 + rate_hz), int(2 + rate_hz))]
    assert max(opened) == pytest.approx(1.0, abs=1.0 / rate_hz)


@pytest.mark.parametrize(("old", "new"), [(100, 200), (200, 100), (100, 50)])
def test_the_face_keeps_time_with_the_sound_in_a_stretched_scene(head, animate, point_at, old, new):
    """Time Stretching changes when curves play, but no sound."""
    render = bpy.context.scene.render
    render.fps, render.frame_map_old, render.frame_map_new = 30, old, new
    animate(start_frame=11)
    for time_s in (0.5, 1.0, 1.5):
        opened = -point_at(head, 11 + round(30 * time_s))[2]
        assert opened == pytest.approx(1 - abs(time_s - 1), abs=0.04)


def test_no_value_is_clamped(head, animate):
    animate()
    blocks = head.data.shape_keys.key_blocks
    assert blocks["mouthPucker"].slider_max == np.float32(1.65), "at 24 fps"
    assert blocks["mouthSmile_L"].slider_min <= -0.25
    assert (blocks["jawOpen"].slider_min, blocks["jawOpen"].slider_max) == (0.0, 1.0)


def test_strength_scales_every_curve(head, animate, curves_of):
    animate(strength=0.5)
    assert curves_of(head)["jawOpen"][1].max() == pytest.approx(0.5, abs=0.02)


def test_a_value_beyond_blenders_limit_is_an_error(head, animate, scene_bytes):
    before = scene_bytes()
    with pytest.raises(RuntimeError, match=r"mouthPucker.*16\.5.*Lower the strength"):
        animate(strength=10.0)
    assert scene_bytes() == before


def test_the_action_tells_where_it_came_from(head, animate):
    animate(model="default", semantic_strength=0.5, style="calm")
    action = head.data.shape_keys.animation_data.action
    assert action.name == "ok"
    assert action["wav2sem_audio"] == "ok.wav"
    assert action["wav2sem_audio_sha256"] == "ab" * 32
    settings = json.loads(action["wav2sem_settings"])
    assert (settings["semantic_strength"], settings["style"], settings["engine"]) == (0.5, "calm", "fake")
    assert action["wav2sem_version"] == compat.addon_version() != "unknown"


def test_running_again_replaces_only_what_we_made(head, animate, curves_of):
    animate()
    animation = head.data.shape_keys.animation_data
    action = animation.action
    bag = compat.channelbag(action, animation.action_slot)
    bag.fcurves.new('key_blocks["blink"].value').keyframe_points.insert(3, 0.25)
    animate(strength=0.5, start_frame=100)
    assert animation.action == action
    assert len(bpy.data.actions) == 1
    curves = curves_of(head)
    assert curves["jawOpen"][0][0] == 100
    assert curves["blink"][1].tolist() == [0.25]


def test_other_audio_gets_its_own_action_and_the_earlier_one_is_kept(head, fake_worker, audio, tmp_path):
    bpy.ops.wav2sem.animate(filepath=audio("ok"), object="Head")
    first = head.data.shape_keys.animation_data.action
    first["wav2sem_audio_sha256"] = "cd" * 32
    bpy.ops.wav2sem.animate(filepath=audio("second"), object="Head")
    second = head.data.shape_keys.animation_data.action
    assert (first.name, second.name) == ("ok", "second")
    assert first.use_fake_user
    assert len(compat.channelbag(first, first.slots[0]).fcurves) == 3


def users_action(head):
    """The user's own action: jawOpen 0.3, blink from 0 to 1 over frames 1-11."""
    head.shape_key_add(name="blink", from_mix=False).data[1].co = (1, 0, 1)
    keys = head.data.shape_keys
    for name, values in (("jawOpen", (0.3, 0.3)), ("blink", (0.0, 1.0))):
        for frame, value in zip((1, 11), values, strict=True):
            keys.key_blocks[name].value = value
            keys.key_blocks[name].keyframe_insert("value", frame=frame)
    return keys.animation_data.action


def test_the_users_action_plays_on_below(head, animate, point_at):
    bpy.context.scene.render.fps = 30
    mine = users_action(head)
    mine.name = "Mine"
    assert point_at(head, 6, vertex=1)[2] == pytest.approx(0.5, abs=0.02)
    animate(start_frame=201)
    animation = head.data.shape_keys.animation_data
    assert animation.action.name == "ok"
    assert [strip.action for track in animation.nla_tracks for strip in track.strips] == [
        mine,
        bpy.data.actions["Speech Rest"],
    ]
    assert point_at(head, 6, vertex=1)[2] == pytest.approx(0.5, abs=0.02), "the user's blink"
    assert point_at(head, 6)[2] == pytest.approx(-0.3, abs=1e-5), "the user's jaw outside the speech"
    assert point_at(head, 231)[2] == pytest.approx(-1.0, abs=1e-5), "our jaw inside the speech"
    assert point_at(head, 231, vertex=1)[2] == pytest.approx(1.0, abs=1e-5), "the blink is held"
    animate(start_frame=201)
    assert len(animation.nla_tracks) == 2
    assert mine.use_fake_user or mine.users == 1


def test_an_action_that_also_moves_the_object_keeps_moving_it(head, animate, point_at):
    """Since 4.4 one action has a slot for the object and one for its shape keys."""
    bpy.context.scene.render.fps = 30
    mine = users_action(head)
    slot = mine.slots.new(id_type="OBJECT", name="Head")
    curve = compat.channelbag(mine, slot).fcurves.new("location", index=0)
    curve.keyframe_points.insert(1, 0.0)
    curve.keyframe_points.insert(11, 5.0)
    head.animation_data_create().action = mine
    head.animation_data.action_slot = slot
    animate(start_frame=1)
    bpy.context.scene.frame_set(11)
    assert head.location.x == pytest.approx(5.0)
    assert head.animation_data.action == mine
    assert point_at(head, 31)[2] == pytest.approx(-1.0, abs=1e-5)


def test_a_linked_action_of_the_user_plays_on_below(head, animate, point_at, tmp_path):
    mine = users_action(head)
    mine.name = "Mine"
    library = tmp_path / "library.blend"
    bpy.data.libraries.write(str(library), {mine})
    head.data.shape_keys.animation_data.action = None
    bpy.data.actions.remove(mine)
    with bpy.data.libraries.load(str(library), link=True) as (_, target):
        target.actions = ["Mine"]
    animation = head.data.shape_keys.animation_data
    animation.action = target.actions[0]
    animation.action_slot = target.actions[0].slots[0]
    animate(start_frame=201)
    assert animation.action.name == "ok"
    assert animation.nla_tracks[0].strips[0].action.library is not None
    assert point_at(head, 6)[2] == pytest.approx(-0.3, abs=1e-5)


def test_cycles_of_the_users_action_go_on(head, animate, point_at):
    """The strip spans the scene, so a curve that repeats beyond its keys still repeats."""
    mine = users_action(head)
    bag = compat.channelbag(mine, mine.slots[0])
    bag.fcurves.find('key_blocks["blink"].value').modifiers.new("CYCLES")
    bpy.context.scene.frame_end = 250
    before = point_at(head, 126, vertex=1)[2]
    assert 0.2 < before < 0.8
    animate(start_frame=1)
    assert point_at(head, 126, vertex=1)[2] == pytest.approx(before, abs=1e-5)


def test_an_action_that_two_meshes_share_is_not_changed_for_both(head, animate, curves_of):
    animate()
    action = head.data.shape_keys.animation_data.action
    other = head.copy()
    other.data = head.data.copy()
    bpy.context.scene.collection.objects.link(other)
    other.data.shape_keys.animation_data.action = action
    animate(start_frame=50)
    assert head.data.shape_keys.animation_data.action != action
    assert curves_of(other)["jawOpen"][0][0] == 1


def test_a_channel_that_the_next_model_lacks_returns_to_rest(head, animate, point_at, curves_of):
    """The previous model had one more channel."""
    animate()
    head.shape_key_add(name="cheekPuff", from_mix=False).data[2].co = (0, 1, 5)
    animation = head.data.shape_keys.animation_data
    bag = compat.channelbag(animation.action, animation.action_slot)
    curve = bag.fcurves.new('key_blocks["cheekPuff"].value')
    curve.keyframe_points.insert(1, 0.8)
    curve.group = bag.groups["Speech"]
    assert point_at(head, 20, vertex=2)[2] == pytest.approx(4.0)
    animate()
    assert "cheekPuff" not in curves_of(head)
    assert point_at(head, 20, vertex=2)[2] == 0.0


def test_undo_and_redo(head, animate):
    bpy.ops.ed.undo_push(message="before")
    animate()
    bpy.ops.ed.undo_push(message="after")
    bpy.ops.ed.undo()
    keys = bpy.data.objects["Head"].data.shape_keys
    assert keys.animation_data is None or keys.animation_data.action is None
    assert keys.key_blocks["mouthPucker"].slider_max == 1.0
    bpy.ops.ed.redo()
    assert bpy.data.objects["Head"].data.shape_keys.animation_data.action.name == "ok"


def test_settings_come_from_the_panel_when_the_call_leaves_them_open(head, fake_worker, audio, curves_of):
    settings = bpy.context.scene.wav2sem
    settings.filepath, settings.target = audio("ok"), head
    settings.start_frame, settings.strength = 7, 0.5
    bpy.context.view_layer.objects.active = None
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    frames_T, jaw_T = curves_of(head)["jawOpen"]
    assert frames_T[0] == 7
    assert jaw_T.max() == pytest.approx(0.5, abs=0.02)
    assert bpy.ops.wav2sem.animate(start_frame=9) == {"FINISHED"}
    assert curves_of(head)["jawOpen"][0][0] == 9


def test_the_active_object_is_the_default_target(head, fake_worker, audio, curves_of):
    assert bpy.ops.wav2sem.animate(filepath=audio("ok")) == {"FINISHED"}
    assert len(curves_of(head)) == 3


def test_the_value_shows_without_a_frame_change(head, animate):
    bpy.context.scene.render.fps = 30
    bpy.context.scene.frame_set(31)
    animate()
    evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
    assert evaluated.data.vertices[0].co[2] == pytest.approx(-1.0, abs=1e-5)


def test_an_idle_worker_ends_but_not_under_a_task(head, animate, monkeypatch):
    animate()
    worker = jobs._client
    assert idle_worker.look() > 0 and worker.alive, "it is not idle yet"
    monkeypatch.setattr(idle_worker, "IDLE_S", 0.0)
    with monkeypatch.context() as while_writing:
        while_writing.setattr(idle_worker, "running_task", object)
        assert idle_worker.look() > 0 and worker.alive, "a task may still read its files"
    idle_worker.look()
    assert not worker.alive
    animate()
    assert jobs._client.alive
