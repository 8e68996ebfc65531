# SPDX-License-Identifier: GPL-3.0-or-later
"""The Result panel: takes are found, muted, pushed down, made again, reduced and removed; the user's keys survive."""

import json
import time
from types import SimpleNamespace
from unittest.mock import MagicMock

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender import compat
from wav2sem_blender.blender.animate import jobs
from wav2sem_blender.blender.animate.settings import AnimateSettings
from wav2sem_blender.blender.scene import actions, original_state, reduction, takes, upper_face
from wav2sem_blender.blender.scene.key_offsets import key_offset, metres_per_unit
from wav2sem_blender.blender.tasks.task import running_task
from wav2sem_blender.blender.ui import export, result, result_operators
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.prosody import Prosody
from wav2sem_blender.pipeline.upper_face import Settings

from . import rna_dump  # noqa: TID252
from .applied import apply_motion  # noqa: TID252

CHANNELS = ("jawOpen", "mouthPucker", "mouthSmileLeft")
RNG = np.random.default_rng(3)


@pytest.fixture
def face(head):
    """The triangle with a lid; its keys are at rest as on a character, except for the smile."""
    head.shape_key_add(name="eyeBlinkLeft", from_mix=False).data[1].co = (1, 0, 1)
    for block in head.data.shape_keys.key_blocks:
        block.value = 0.0
    head.data.shape_keys.key_blocks["mouthSmile_L"].value = 0.25
    bpy.context.scene.render.fps = 30
    return head


def talking(n_frames=90, audio="talk.wav", seed=1):
    """Curves that vary as in speech and are never at rest."""
    noise = np.random.default_rng(seed).normal(size=(n_frames + 20, 3))
    smooth = np.stack([np.convolve(column, np.hanning(9) / 4, mode="same") for column in noise.T], axis=1)
    weights_TK = 0.2 + 0.3 * np.abs(smooth[10 : 10 + n_frames])
    info = {"audio": audio, "audio_sha256": audio * 4}
    return Motion(weights_TK=weights_TK, channels=CHANNELS, fps=30.0, info=info)


def speak(face, **options):
    settings = {"filepath": "/nowhere/talk.wav", "strength": 1.0}
    return apply_motion(bpy.context, face, talking(**options.pop("motion", {})), settings=settings, **options)


def blink(face):
    level = np.zeros(1000, dtype=np.float32)
    heard = Prosody(level_db_P=level, pitch_st_P=level, pauses_N2=np.zeros((0, 2), dtype=int), duration_s=10.0)
    upper_face.apply_upper_face(
        bpy.context, face, heard, Settings(), name="talk.wav", recording={"filepath": "/nowhere/talk.wav"}
    )


def values(face, frame) -> dict[str, float]:
    bpy.context.scene.frame_set(frame)
    blocks = face.data.shape_keys.key_blocks
    return {block.name: round(block.value, 4) for block in blocks[1:]}


def users_action(face, key="jawOpen"):
    keys = face.data.shape_keys
    for frame, value in ((1, 0.1), (40, 0.3)):
        keys.key_blocks[key].value = value
        keys.key_blocks[key].keyframe_insert("value", frame=frame)
    keys.animation_data.action.name = "Mine"
    return keys.animation_data.action


def state(face):
    """Everything that a run may change: keys, animation data, actions."""
    keys = face.data.shape_keys
    bpy.context.scene.frame_set(1)
    custom = {name: str(value) for name, value in keys.items()}
    properties = _flat(rna_dump.dump()[repr(keys)])
    # The selection of the user's tracks may change.
    properties = {path: value for path, value in properties.items() if not path.endswith("/active")}
    return {**properties, "custom": custom, "actions": sorted(bpy.data.actions.keys())}


def state_of_curves(face):
    return dict(takes.of_face(face)[0].curves())


def _flat(value, path=""):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, inner in items for name, leaf in _flat(inner, f"{path}/{key}").items()}
    return {path: value}


def select(name):
    bpy.context.window_manager.wav2sem_take = name


def names(face):
    return [take.action.name for take in takes.of_face(face)]


class TestTakes:
    def test_all_of_a_face_and_none_of_another(self, face):
        other = face.copy()
        other.name, other.data = "Other", face.data.copy()
        bpy.context.scene.collection.objects.link(other)
        bpy.data.actions.new("Somebody's")
        assert takes.of_face(face) == ()
        speak(face, motion={"audio": "first.wav"})
        speak(face, motion={"audio": "second.wav"}, start_frame=11)
        blink(face)
        assert names(face) == ["second", "talk Upper Face", "first"]
        top, lids, kept = takes.of_face(face)
        assert (top.is_active, lids.is_upper_face, kept.is_kept) == (True, True, True)
        assert (top.frames, kept.frames) == ((11, 100), (1, 90))
        assert takes.of_face(other) == ()
        assert takes.of_face(None) == ()

    def test_a_copy_of_a_character_owns_its_own_takes(self, face):
        speak(face, motion={"audio": "first.wav"})
        for other in bpy.context.selected_objects:
            other.select_set(False)
        face.select_set(True)
        bpy.context.view_layer.objects.active = face
        bpy.ops.object.duplicate()
        copy = bpy.context.view_layer.objects.active
        copied = copy.data.shape_keys.animation_data.action.name
        assert copied != "first" and names(copy) == [copied]
        speak(copy, motion={"audio": "second.wav"})
        speak(copy, motion={"audio": "third.wav"})
        assert names(copy) == ["third", copied, "second"] or names(copy) == ["third", "second", copied]
        assert names(face) == ["first"]
        speak(face, motion={"audio": "fourth.wav"})
        copy.data.shape_keys.name = "Renamed"
        assert names(face) == ["fourth", "first"]
        assert set(names(copy)) == {"third", "second", copied}

    @pytest.mark.parametrize("new_name", ["Jaw Drop", 'a "quote" and a \\', "口"])
    def test_a_renamed_key_stays_a_part_of_its_take(self, face, new_name):
        at_rest = list(values(face, 1).values())
        speak(face)
        before = state_of_curves(face)
        face.data.shape_keys.key_blocks["jawOpen"].name = new_name
        (take,) = takes.of_face(face)
        assert new_name in take.key_names and len(dict(take.curves())) == len(before)
        bpy.ops.wav2sem.mute_take()
        assert set(values(face, 40).values()) == {0.0}
        bpy.ops.wav2sem.mute_take()
        assert values(face, 40)[new_name] > 0
        assert bpy.ops.wav2sem.reduce_keys(tolerance_mm=5.0) == {"FINISHED"}
        (take,) = takes.of_face(face)
        assert len(dict(take.curves())[new_name].keyframe_points) < 90
        assert bpy.ops.wav2sem.remove_take() == {"FINISHED"}
        assert list(values(face, 40).values()) == at_rest and not bpy.data.actions

    def test_renamed_lids_return_to_rest(self, face):
        blink(face)
        lid = next(block for block in face.data.shape_keys.key_blocks if "Blink" in block.name)
        lid.name = "Lid"
        (take,) = takes.of_face(face)
        assert "Lid" in take.key_names
        lid.value = 0.7
        bpy.ops.wav2sem.remove_take()
        assert lid.value == 0.0

    @pytest.mark.parametrize("operator", ["mute_take", "reduce_keys", "push_to_nla", "remove_take", "rebake"])
    def test_a_take_that_has_lost_its_slot_works_on(self, face, operator):
        """Appending an action or a click in the Action editor takes the slot away."""
        speak(face)
        face.data.shape_keys.animation_data.action_slot = None
        (take,) = takes.of_face(face)
        assert take.slot is not None and len(dict(take.curves())) == 3
        if operator == "rebake":
            with pytest.raises(RuntimeError, match="no such audio file"):
                bpy.ops.wav2sem.rebake()
            return
        assert getattr(bpy.ops.wav2sem, operator)() == {"FINISHED"}
        if operator == "mute_take":
            assert face.data.shape_keys.animation_data.action_slot == take.slot

    def test_an_action_without_any_slot(self, face):
        speak(face)
        action = face.data.shape_keys.animation_data.action
        action.slots.remove(action.slots[0])
        assert [take.key_names for take in takes.of_face(face)] == [[]] or takes.of_face(face)[0].fcurves is None
        for operator in ("mute_take", "push_to_nla", "remove_take"):
            assert getattr(bpy.ops.wav2sem, operator)() == {"FINISHED"}

    def test_the_list_shows_them_and_remembers_the_selection(self, face):
        speak(face, motion={"audio": "first.wav"})
        speak(face, motion={"audio": "second.wav"})
        manager = bpy.context.window_manager
        assert result_operators.selected(bpy.context).action.name == "second"
        manager.wav2sem_take_index = bpy.data.actions.find("first")
        assert result_operators.selected(bpy.context).action.name == "first"
        bpy.data.actions.new("A New One")
        assert bpy.data.actions[manager.wav2sem_take_index].name == "first"
        bpy.ops.wav2sem.remove_take()
        assert result_operators.selected(bpy.context).action.name == "second"

    def test_disabled_buttons_say_why(self, face):
        def reason(operator):
            with pytest.raises(RuntimeError) as caught:
                getattr(bpy.ops.wav2sem, operator)()
            return str(caught.value)

        for operator in ("make_active", "mute_take", "rebake", "reduce_keys", "push_to_nla", "remove_take"):
            assert '"Head" has no speech animation yet' in reason(operator)
        speak(face)
        assert "already the active action" in reason("make_active")
        bpy.ops.wav2sem.push_to_nla()
        assert "already in the NLA" in reason("push_to_nla")
        assert "Make it active first" in reason("rebake")
        bpy.context.view_layer.objects.active = None
        assert "Choose a mesh" in reason("remove_take")


def drawn(panel) -> list[str]:
    """The texts of the labels and the names of the operators that a panel draws."""
    layout = MagicMock()
    panel.draw(SimpleNamespace(layout=layout), bpy.context)
    labels = [call.kwargs["text"] for call in layout.mock_calls if call[0].endswith("label")]
    return labels + [call.args[0] for call in layout.mock_calls if call[0].endswith("operator")]


class TestPanels:
    def test_before_there_is_anything(self, face):
        assert " ".join(drawn(result.WAV2SEM_PT_result)) == '"Head" has no speech animation yet'
        assert '"Head" plays no speech animation; animate it first' in " ".join(drawn(export.WAV2SEM_PT_export))

    def test_with_a_take(self, face):
        speak(face, start_frame=11)
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=20.0)
        shown = drawn(result.WAV2SEM_PT_result)
        assert {"wav2sem.rebake", "wav2sem.reduce_keys", "wav2sem.remove_take"} <= set(shown)
        assert "of 270 keys, at most" in " ".join(shown)
        assert "talk, frames 11 to 100" in " ".join(drawn(export.WAV2SEM_PT_export))

    def test_the_list_shows_only_this_faces(self, face):
        bpy.data.actions.new("Another")
        speak(face)
        blink(face)
        listed = MagicMock(filter_name="", bitflag_filter_item=1)
        flags, order = result.WAV2SEM_UL_takes.filter_items(listed, bpy.context, bpy.data, "actions")
        shown = [action.name for action, flag in zip(bpy.data.actions, flags, strict=True) if flag]
        assert (shown, order) == (["talk", "talk Upper Face"], [])
        layout = MagicMock()
        action = bpy.data.actions["talk"]
        result.WAV2SEM_UL_takes.draw_item(listed, bpy.context, layout, bpy.data, action, 0, None, "")
        assert "1\N{EN DASH}90" in str(layout.mock_calls)


class TestNames:
    """In a sidebar of the default width, a name has room for about ten letters."""

    @staticmethod
    def shown(*names, room=10):
        return [result.shortened(name, [n for n in names if n != name], room, len) for name in names]

    def test_what_fits_stays_as_it_is(self):
        assert self.shown("talk", "talk.001") == ["talk", "talk.001"]

    def test_takes_of_one_sound_keep_their_ends(self):
        assert self.shown("demo_speech", "demo_speech.001", "demo_speech.002", "demo_speech Upper Face") == [
            "de…_speech",
            "demo_….001",
            "demo_….002",
            "demo… Face",
        ]

    def test_what_differs_may_be_in_the_middle_or_long(self):
        assert self.shown("interview_take_1_final", "interview_take_2_final") == ["i…_1_final", "i…_2_final"]
        assert self.shown("a_very_long_name", "another_name") == ["a_very_lo…", "another_n…"]
        assert self.shown("interviewwithoutblanks1", "interviewwithoutblanks2") == ["intervie…1", "intervie…2"]
        assert self.shown("scene_1_take_of_today", "scene_2_take_of_today") == ["scene_1_t…", "scene_2_t…"]

    @pytest.mark.parametrize("room", range(6, 20))
    def test_takes_are_never_alike_nor_too_wide(self, room):
        shown = self.shown("demo_speech", *(f"demo_speech.{number:03}" for number in range(1, 30)), room=room)
        assert len(set(shown)) == 30 and max(map(len, shown)) <= room, shown

    def test_a_room_for_nothing(self):
        assert self.shown("demo_speech", room=0) == ["…"]

    def test_the_list_shows_them(self, face, monkeypatch):
        monkeypatch.setattr(result, "text_width", lambda _context: lambda words: 25 * len(words))
        for _ in range(2):
            speak(face, motion={"audio": "demo_speech_of_long_name.wav"})
            bpy.ops.wav2sem.push_to_nla()
        labels = []
        for take in takes.of_face(face):
            layout = MagicMock()
            result.WAV2SEM_UL_takes.draw_item(MagicMock(), bpy.context, layout, bpy.data, take.action, 0, None, "")
            labels.append(layout.split.return_value.label.call_args.kwargs["text"])
        assert len(set(labels)) == 2 and labels[0].endswith(".001"), labels


class TestMute:
    def test_the_active_action_muted_shows_the_rest_pose(self, face, point_at):
        speak(face)
        spoken = point_at(face, 30)
        assert np.linalg.norm(spoken) > 0.1
        bpy.ops.wav2sem.mute_take()
        assert takes.of_face(face)[0].is_muted
        np.testing.assert_allclose(point_at(face, 30), 0, atol=1e-6)
        np.testing.assert_allclose(point_at(face, 60), 0, atol=1e-6)
        bpy.ops.wav2sem.mute_take()
        np.testing.assert_allclose(point_at(face, 30), spoken, atol=1e-6)

    def test_in_the_nla_too_by_our_button_and_by_blenders_own(self, face, point_at):
        speak(face)
        spoken = point_at(face, 30)
        bpy.ops.wav2sem.push_to_nla()
        np.testing.assert_allclose(point_at(face, 30), spoken, atol=1e-6)
        (take,) = takes.of_face(face)
        for owner in (take.track, take.strip):
            owner.mute = True
            np.testing.assert_allclose(point_at(face, 31), 0, atol=1e-6)
            assert takes.of_face(face)[0].is_muted
            bpy.ops.wav2sem.mute_take()
            assert not takes.of_face(face)[0].is_muted
            np.testing.assert_allclose(point_at(face, 30), spoken, atol=1e-6)
        bpy.ops.wav2sem.mute_take()
        np.testing.assert_allclose(point_at(face, 30), 0, atol=1e-6)

    def test_the_upper_face_by_itself(self, face):
        speak(face)
        blink(face)
        bpy.ops.wav2sem.mute_take(action="talk Upper Face")
        assert [take.is_muted for take in takes.of_face(face)] == [False, True]
        assert all(values(face, frame)["eyeBlinkLeft"] == 0 for frame in range(1, 300, 3))
        assert values(face, 30)["jawOpen"] > 0.1


class TestOutsideTheSpeech:
    def test_keys_rest_beside_an_action_of_the_user(self, face):
        """Blender gives a shape key that no strip plays the value 1."""
        users_action(face, "eyeBlinkLeft")
        speak(face, start_frame=101)
        for frame in (1, 95, 250):
            assert {values(face, frame)[key] for key in ("jawOpen", "mouthPucker", "mouthSmile_L")} == {0.0}, frame
        assert values(face, 130)["jawOpen"] > 0.1
        assert values(face, 40)["eyeBlinkLeft"] == pytest.approx(0.3, abs=1e-4)

    def test_the_users_keys_play_there(self, face):
        users_action(face, "jawOpen")
        speak(face, start_frame=101)
        assert values(face, 40)["jawOpen"] == pytest.approx(0.3, abs=1e-4)
        assert values(face, 40)["mouthPucker"] == 0.0


class TestPush:
    def test_one_take_after_the_other(self, face, curves_of):
        speak(face, motion={"audio": "first.wav"})
        heard = {frame: values(face, frame) for frame in (1, 30, 90)}
        slot = face.data.shape_keys.animation_data.action_slot.handle
        bpy.ops.wav2sem.push_to_nla()
        animation = face.data.shape_keys.animation_data
        assert animation.action is None
        (take,) = takes.of_face(face)
        assert take.track.name == take.action.name == "first"
        assert (take.strip.action_slot.handle, take.frames) == (slot, (1, 90))
        assert {frame: values(face, frame) for frame in heard} == heard
        speak(face, motion={"audio": "second.wav", "seed": 2}, start_frame=201)
        speak(face, motion={"audio": "second.wav", "seed": 3}, start_frame=201)
        assert names(face) == ["second", "first"]
        assert {frame: values(face, frame) for frame in heard} == heard
        assert set(values(face, 150).values()) == {0.0}
        assert values(face, 230)["jawOpen"] == pytest.approx(float(curves_of(face)["jawOpen"][1][29]), abs=1e-4)

    def test_the_same_audio_again_does_not_touch_it(self, face):
        speak(face)
        bpy.ops.wav2sem.push_to_nla()
        before = values(face, 30)
        speak(face, strength=0.5, start_frame=301)
        assert names(face) == ["talk.001", "talk"]
        assert values(face, 30) == before

    def test_back_to_active(self, face):
        speak(face)
        before = {frame: values(face, frame) for frame in (1, 30, 90)}
        everything = state(face)
        bpy.ops.wav2sem.push_to_nla()
        bpy.ops.wav2sem.make_active()
        assert {frame: values(face, frame) for frame in before} == before
        assert state(face) == everything

    def test_a_strip_that_was_moved_stays_where_it_is(self, face):
        speak(face)
        bpy.ops.wav2sem.push_to_nla()
        strip = takes.of_face(face)[0].strip
        strip.frame_start, strip.frame_end = 51, 140
        assert takes.of_face(face)[0].frames == (51, 140)
        with pytest.raises(RuntimeError, match="moved or scaled"):
            bpy.ops.wav2sem.make_active()

    def test_a_kept_take_comes_back_and_the_other_is_kept(self, face):
        speak(face, motion={"audio": "first.wav"})
        first = values(face, 30)
        speak(face, motion={"audio": "second.wav", "seed": 2})
        select("first")
        bpy.ops.wav2sem.make_active()
        assert values(face, 30) == first
        assert [(take.action.name, take.is_kept) for take in takes.of_face(face)] == [
            ("first", False),
            ("second", True),
        ]
        assert bpy.data.actions["second"].use_fake_user


class TestRemove:
    def test_the_scene_is_as_before_the_first_run(self, face):
        before = state(face)
        speak(face, strength=3.0)
        blink(face)
        assert face.data.shape_keys.key_blocks["jawOpen"].slider_max > 1
        assert state(face) != before
        select("talk")
        bpy.ops.wav2sem.remove_take()
        assert names(face) == ["talk Upper Face"]
        bpy.ops.wav2sem.remove_take()
        assert state(face) == before

    @pytest.mark.parametrize("pushed", [False, True])
    def test_the_users_action_is_active_again(self, face, pushed):
        mine = users_action(face)
        animation = face.data.shape_keys.animation_data
        animation.action_blend_type, animation.action_influence = "ADD", 0.5
        animation.action_extrapolation = "NOTHING"
        before = state(face)
        speak(face)
        bpy.context.scene.frame_set(20)
        assert animation.nla_tracks["Mine"].strips[0].influence == 0.5
        speak(face, motion={"audio": "second.wav"})
        if pushed:
            bpy.ops.wav2sem.push_to_nla()
        for _ in range(2):
            bpy.ops.wav2sem.remove_take()
        assert animation.action == mine
        assert not animation.nla_tracks
        assert state(face) == before

    def test_an_action_of_the_user_whose_strip_was_moved_stays_in_the_nla(self, face):
        users_action(face)
        speak(face)
        animation = face.data.shape_keys.animation_data
        animation.nla_tracks["Mine"].strips[0].frame_end += 20
        bpy.ops.wav2sem.remove_take()
        assert animation.action is None
        assert [track.name for track in animation.nla_tracks] == ["Mine"]

    def test_curves_of_the_user_in_our_action_survive(self, face):
        speak(face)
        action = face.data.shape_keys.animation_data.action
        bag = compat.channelbag(action, action.slots[0])
        bag.fcurves.new('key_blocks["eyeBlinkLeft"].value').keyframe_points.insert(5, 0.5)
        bpy.ops.wav2sem.remove_take()
        assert face.data.shape_keys.animation_data.action == action
        assert [curve.data_path for curve in bag.fcurves] == ['key_blocks["eyeBlinkLeft"].value']
        assert takes.of_face(face) == () and not [mark for mark in action.keys() if mark.startswith("wav2sem")]  # noqa: SIM118
        assert values(face, 30)["jawOpen"] == 0

    def test_tracks_of_the_user_stay_as_they_were(self, face):
        users_action(face, "eyeBlinkLeft")
        keys = face.data.shape_keys
        animation = keys.animation_data
        strip = animation.nla_tracks.new().strips.new("Mine", 1, animation.action)
        strip.action_slot, animation.action = animation.action_slot, None
        before = state(face)
        speak(face)
        bpy.ops.wav2sem.push_to_nla()
        bpy.ops.wav2sem.remove_take()
        assert state(face) == before

    def test_a_pushed_take_leaves_the_others(self, face):
        speak(face, motion={"audio": "first.wav"})
        bpy.ops.wav2sem.push_to_nla()
        speak(face, motion={"audio": "second.wav"}, start_frame=201)
        second = values(face, 230)
        select("first")
        bpy.ops.wav2sem.remove_take()
        assert names(face) == ["second"]
        assert values(face, 230) == second

    def test_made_keys_stay_or_go(self, flame_head):
        basis = np.random.default_rng(0).normal(0, 0.01, (3, 5023, 3))
        motion = Motion(
            weights_TK=talking().weights_TK, channels=CHANNELS, fps=30.0, basis_KV3=basis, info=talking().info
        )
        for with_keys in (False, True):
            apply_motion(bpy.context, flame_head, motion)
            bpy.ops.wav2sem.remove_take(with_keys=with_keys)
            assert (flame_head.data.shape_keys is None) == with_keys
        assert not bpy.data.actions

    def test_undo_brings_it_back(self, face):
        speak(face)
        bpy.ops.ed.undo_push(message="Spoken")
        bpy.ops.wav2sem.remove_take()
        bpy.ops.ed.undo_push(message="Removed")
        bpy.ops.ed.undo()
        assert names(bpy.data.objects["Head"]) == ["talk"]
        bpy.ops.ed.redo()
        assert names(bpy.data.objects["Head"]) == []


class TestRebake:
    def test_the_recorded_settings_make_the_same_curves(self, face, animate, curves_of):
        animate(strength=0.5, start_frame=21)
        made = {name: curve[1].tobytes() for name, curve in curves_of(face).items()}
        recorded = json.loads(face.data.shape_keys.animation_data.action["wav2sem_settings"])
        curve = takes.of_face(face)[0].fcurves[0]
        curve.keyframe_points[7].co[1] = 9.0
        bpy.context.scene.wav2sem.strength = 2.0
        assert bpy.ops.wav2sem.rebake() == {"FINISHED"}
        assert names(face) == ["ok"]
        assert {name: curve[1].tobytes() for name, curve in curves_of(face).items()} == made
        assert json.loads(face.data.shape_keys.animation_data.action["wav2sem_settings"]) == recorded

    def test_dense_keys_come_back_after_a_reduction(self, face, animate, curves_of):
        animate()
        made = {name: curve[1].tobytes() for name, curve in curves_of(face).items()}
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=50.0)
        assert {name: curve[1].tobytes() for name, curve in curves_of(face).items()} != made
        bpy.ops.wav2sem.rebake()
        assert {name: curve[1].tobytes() for name, curve in curves_of(face).items()} == made
        assert "wav2sem_dense" not in face.data.shape_keys.animation_data.action

    def test_audio_that_is_gone_is_named(self, face, scene_bytes):
        speak(face)
        before = scene_bytes()
        with pytest.raises(RuntimeError, match=r"/nowhere/talk\.wav: there is no such audio file"):
            bpy.ops.wav2sem.rebake()
        assert scene_bytes() == before

    def test_an_action_that_does_not_tell(self, face):
        apply_motion(bpy.context, face, talking())
        with pytest.raises(RuntimeError, match=r'"talk" has no record of its audio'):
            bpy.ops.wav2sem.rebake()

    def test_the_upper_face_knows_its_settings(self, face):
        blink(face)
        settings = result_operators.rebake_settings(takes.of_face(face)[0], face, "cpu")
        assert settings.upper_face_only and settings.upper_face == Settings(head_sway=0.0)
        assert (settings.filepath, settings.object_name) == ("/nowhere/talk.wav", "Head")


def positions(face, frames):
    scene, found = bpy.context.scene, []
    for frame in frames:
        scene.frame_set(int(frame))
        evaluated = face.evaluated_get(bpy.context.evaluated_depsgraph_get())
        points = np.empty(3 * len(evaluated.data.vertices), dtype=np.float32)
        evaluated.data.vertices.foreach_get("co", points)
        matrix = np.array(face.matrix_world)
        found.append(points.reshape(-1, 3) @ matrix[:3, :3].T)
    return np.stack(found).astype(np.float64)


class TestReduce:
    @pytest.mark.parametrize("scale_length", [1.0, 0.01])
    def test_the_error_is_measured_on_the_surface(self, face, scale_length):
        """The tolerance is in millimetres of the scene and includes the object's scale."""
        face.scale = (2.0, 0.5, 1.0)
        bpy.context.scene.unit_settings.scale_length = scale_length
        bpy.context.view_layer.update()
        speak(face)
        frames = np.arange(1, 91)
        before = positions(face, frames)
        tolerance_mm = 40.0 * scale_length
        outcome = reduction.Reducing(face, takes.of_face(face)[0], bpy.context.scene, tolerance_mm).finish(bpy.context)
        worst_mm = 1000 * scale_length * np.linalg.norm(positions(face, frames) - before, axis=2).max()
        assert 0.3 * tolerance_mm < worst_mm <= tolerance_mm
        assert outcome.error_mm == pytest.approx(worst_mm, rel=1e-3)
        n_keys = sum(len(curve.keyframe_points) for _, curve in takes.of_face(face)[0].curves())
        assert (outcome.keys_before, outcome.keys_after) == (270, n_keys)
        assert n_keys < 200

    def test_relative_keys_and_vertex_groups_count(self, face):
        keys = face.data.shape_keys
        keys.key_blocks["mouthPucker"].relative_key = keys.key_blocks["jawOpen"]
        group = face.vertex_groups.new(name="Half")
        group.add([0], 0.5, "REPLACE")
        keys.key_blocks["mouthPucker"].vertex_group = "Half"
        metres_33 = metres_per_unit(face, bpy.context.scene)
        offsets_KV3 = np.stack([key_offset(face, name, metres_33) for name in ("jawOpen", "mouthPucker")])
        np.testing.assert_allclose(offsets_KV3[:, 0], [[0, 0, -1], [0, -0.5, 0.5]], atol=1e-6)
        np.testing.assert_allclose(offsets_KV3[:, 1:], 0, atol=1e-6)

    def test_another_try_starts_from_all_keys_again(self, face, curves_of):
        speak(face)
        dense = curves_of(face)
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=20.0)
        once = curves_of(face)
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=200.0)
        assert sum(len(curve[0]) for curve in curves_of(face).values()) < sum(len(curve[0]) for curve in once.values())
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=20.0)
        for name, (frames, heights) in curves_of(face).items():
            np.testing.assert_array_equal(frames, once[name][0])
            np.testing.assert_array_equal(heights, once[name][1])
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=0.0)
        for name, (frames, heights) in curves_of(face).items():
            np.testing.assert_allclose(heights, dense[name][1][frames.astype(int) - 1])
            assert len(frames) >= 0.9 * len(dense[name][0])

    def test_all_keys_come_with_the_file(self, face, curves_of, tmp_path):
        speak(face)
        dense = curves_of(face)
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=100.0)
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
        bpy.context.view_layer.objects.active = bpy.data.objects["Head"]
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=0.0)
        for name, (frames, heights) in curves_of(bpy.data.objects["Head"]).items():
            np.testing.assert_allclose(np.interp(dense[name][0], frames, heights), dense[name][1], atol=1e-6)

    def test_what_was_edited_in_between_counts_as_it_is(self, face, curves_of):
        speak(face)
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=20.0)
        (take,) = takes.of_face(face)
        curve = next(curve for name, curve in take.curves() if name == "jawOpen")
        frame = curve.keyframe_points[4].co[0]
        curve.keyframe_points[4].co[1] = 0.9
        curve.update()
        assert reduction.last_outcome(take) is not None
        bpy.ops.wav2sem.reduce_keys(tolerance_mm=20.0)
        frames, heights = curves_of(face)["jawOpen"]
        assert np.interp(frame, frames, heights) == pytest.approx(0.9, abs=0.021)

    def test_closures_keep_their_deepest_frame(self, face, curves_of):
        motion = talking(300)
        closed = np.arange(20, 290, 31)
        motion.weights_TK[closed] = 0.0
        motion.weights_TK[:, 2] = 0.0
        apply_motion(bpy.context, face, motion)
        (take,) = takes.of_face(face)
        outcome = reduction.Reducing(face, take, bpy.context.scene, 100.0).finish(bpy.context)
        n_closed = len(closed) + 2  # it rests before and after
        assert (outcome.closures, outcome.closures_kept) == (n_closed, n_closed)
        assert f"{n_closed} of {n_closed} closures stay closed" in outcome.words()
        frames, heights = curves_of(face)["jawOpen"]
        np.testing.assert_allclose(np.interp(closed + 1, frames, heights), 0.0, atol=1e-6)
        assert outcome.keys_after < 0.7 * outcome.keys_before

    def test_the_panels_tolerance_a_muted_curve_and_the_upper_face(self, face):
        speak(face)
        blink(face)
        bpy.ops.wav2sem.mute_take(action="talk")
        bpy.context.scene.wav2sem_tolerance_mm = 80.0
        select("talk")
        assert bpy.ops.wav2sem.reduce_keys() == {"FINISHED"}
        speech, lids = takes.of_face(face)
        assert speech.is_muted
        assert 0 < reduction.last_outcome(speech).error_mm <= 80.0
        select("talk Upper Face")
        assert bpy.ops.wav2sem.reduce_keys() == {"FINISHED"}
        assert reduction.last_outcome(lids).keys_after < 100

    def test_after_a_push_it_reduces_the_strips_action(self, face):
        speak(face)
        bpy.ops.wav2sem.push_to_nla()
        assert bpy.ops.wav2sem.reduce_keys(tolerance_mm=50.0) == {"FINISHED"}
        assert values(face, 30)["jawOpen"] > 0.1


class TestReduceBesideTheInterface:
    """As in a window: slices, between which the user goes on working."""

    @pytest.fixture
    def reducing(self, face, monkeypatch):
        """Make every slice a single step."""
        monkeypatch.setattr(reduction.Reducing, "slice_s", 0.0)

        def start(n_frames=900):
            speak(face, motion={"n_frames": n_frames})
            bpy.ops.ed.undo_push(message="Spoken")
            return reduction.Reducing(face, takes.of_face(face)[0], bpy.context.scene, 20.0)

        yield start
        if running_task() is not None:
            running_task().cancel()

    def test_it_is_what_a_script_gets(self, face, reducing, curves_of):
        job, before = reducing(), state(face)
        fractions = []
        while not job.poll():
            fractions.append(job.fraction)
        assert state(face) == before, "nothing is written before all is chosen"
        assert fractions == sorted(fractions) and 0 < job.fraction <= 1 and not job.is_writing
        while (outcome := job.write(bpy.context)) is None:
            assert job.is_writing
        assert running_task() is None
        assert reduction.last_outcome(takes.of_face(face)[0]) == outcome
        sliced = curves_of(face)
        assert sum(len(curve[0]) for curve in sliced.values()) == outcome.keys_after < outcome.keys_before
        bpy.ops.ed.undo_push(message="Reduced")
        bpy.ops.ed.undo()
        bpy.context.view_layer.objects.active = bpy.data.objects["Head"]
        assert reduction.last_outcome(takes.of_face(bpy.data.objects["Head"])[0]) is None
        assert bpy.ops.wav2sem.reduce_keys(tolerance_mm=20.0) == {"FINISHED"}
        for name, (frames, heights) in curves_of(bpy.data.objects["Head"]).items():
            np.testing.assert_array_equal(frames, sliced[name][0])
            np.testing.assert_array_equal(heights, sliced[name][1])

    def test_no_step_of_ten_minutes_is_long(self, reducing):
        job, longest_s, is_chosen = reducing(18_000), 0.0, False
        while True:
            begin_s = time.thread_time()
            outcome = job.write(bpy.context) if is_chosen else None
            is_chosen = is_chosen or job.poll()
            longest_s = max(longest_s, time.thread_time() - begin_s)
            if outcome is not None:
                break
        assert longest_s < 0.05
        assert outcome.keys_before == 3 * 18_000

    @pytest.mark.parametrize("n_slices", [0, 1, 3])
    def test_cancelled_it_changes_nothing(self, reducing, scene_bytes, n_slices):
        job = reducing(3000)
        before = scene_bytes()
        for _ in range(n_slices):
            assert not job.poll()
        assert bpy.ops.wav2sem.cancel() == {"FINISHED"}
        assert running_task() is None
        assert scene_bytes() == before

    def test_the_other_buttons_wait_and_say_so(self, face, reducing, audio):
        job = reducing()
        for operator in (bpy.ops.wav2sem.remove_take, bpy.ops.wav2sem.reduce_keys, bpy.ops.wav2sem.animate):
            with pytest.raises(RuntimeError, match="Keys are being reduced; press Esc to cancel it"):
                operator()
        with pytest.raises(ValueError, match=r"^Keys are being reduced already\. Wait for it"):
            jobs.Job(bpy.context, AnimateSettings(filepath=audio("ok"), object_name="Head"))
        shown = drawn(result.WAV2SEM_PT_result)
        assert "wav2sem.cancel" in shown and "wav2sem.reduce_keys" not in shown
        job.cancel()
        assert "wav2sem.reduce_keys" in drawn(result.WAV2SEM_PT_result)

    @pytest.mark.parametrize("when", [0, 1, 3])
    def test_edited_meanwhile(self, face, reducing, curves_of, when):
        job = reducing(3000)
        for _ in range(when):
            assert not job.poll()
        curve = takes.of_face(face)[0].fcurves[0]
        curve.keyframe_points[7].co[1] += 0.25
        if when == 3:
            takes.of_face(face)[0].fcurves.remove(takes.of_face(face)[0].fcurves[1])
        edited = {name: curve[1].tobytes() for name, curve in curves_of(face).items()}
        if when:
            with pytest.raises(ValueError, match=r'^"talk" or its face was edited while its keys were reduced\.'):
                to_the_end(job)
            assert {name: curve[1].tobytes() for name, curve in curves_of(face).items()} == edited
        else:  # before anything was read
            assert to_the_end(job).keys_before == 9000
        assert running_task() is None

    @pytest.mark.parametrize("what", ["the take", "the face", "the key"])
    def test_removed_meanwhile(self, face, reducing, what):
        job = reducing(3000)
        assert not job.poll()
        if what == "the take":
            takes.remove_take(face, takes.of_face(face)[0])
        elif what == "the face":
            bpy.data.objects.remove(face)
        else:
            face.shape_key_remove(face.data.shape_keys.key_blocks["mouthPucker"])
        with pytest.raises(ValueError, match=r'^"talk".* while its keys were reduced\.'):
            to_the_end(job)
        assert running_task() is None

    def test_undone_meanwhile(self, face, reducing):
        """Undo replaces the Python objects; they have other addresses."""
        job = reducing(3000)
        bpy.context.scene.frame_start = 3
        bpy.ops.ed.undo_push(message="Frame")
        assert not job.poll()
        bpy.ops.ed.undo()
        assert to_the_end(job).keys_before == 9000
        (take,) = takes.of_face(bpy.data.objects["Head"])
        assert reduction.last_outcome(take) is not None

    def test_ended_while_it_writes_it_is_whole(self, face, reducing):
        job = reducing()
        while not job.poll():
            pass
        job._writing = job._write(job._chosen)
        for _ in range(5):
            next(job._writing)
        job.cancel()
        assert reduction.last_outcome(takes.of_face(face)[0]) == job._chosen.outcome


def to_the_end(job):
    while not job.poll():
        pass
    while (outcome := job.write(bpy.context)) is None:
        pass
    return outcome


def test_the_rest_of_the_file_is_left_alone(face):
    """Using every button on one face changes nothing on another."""
    other = face.copy()
    other.name, other.data = "Other", face.data.copy()
    bpy.context.scene.collection.objects.link(other)
    users_action(other)
    before = rna_dump.dump()[repr(other.data.shape_keys)]
    speak(face)
    bpy.ops.wav2sem.push_to_nla()
    bpy.ops.wav2sem.mute_take()
    bpy.ops.wav2sem.remove_take()
    assert rna_dump.dump()[repr(other.data.shape_keys)] == before
    assert original_state.BEFORE not in other.data.shape_keys
    assert actions.REST not in str(list(bpy.data.actions.keys()))
