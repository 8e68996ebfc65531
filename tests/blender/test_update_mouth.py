# SPDX-License-Identifier: GPL-3.0-or-later
"""The mouth follows edited strips: only the edited span changes, and the animator's own keys stay."""

import json

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.animate import mouth_state, settings, update_mouth
from wav2sem_blender.blender.scene import speech_track, takes
from wav2sem_blender.blender.ui import speech_track as panel
from wav2sem_blender.blender.ui import track_watch
from wav2sem_blender.errors import UserError

SPAN_S = (0.5, 1.0)  # of the only phone that the fake animator hears


class FakeSteering:
    """A model whose forced R purses the lips and whose forced M closes the jaw, with no fading."""

    fps = 30.0
    heard_TK = None

    def changed(self, memory_RM, _phones, track, _style_N, weights_TK, span_s):
        first, last = (round(time_s * self.fps) for time_s in span_s)
        self.heard_TK = weights_TK.copy() if self.heard_TK is None else self.heard_TK
        part_TK = self.heard_TK[first : last + 1].copy()
        names = [p.name for p in track.phones if p.forced and p.start_s < span_s[1] and p.end_s > span_s[0]]
        if "R" in names:
            part_TK[:, 1] = 0.2
        if "M" in names:
            part_TK[:, 0] = 0.0
        return first, part_TK


@pytest.fixture(autouse=True)
def fake_steering(monkeypatch):
    update_mouth.forget()
    steering = FakeSteering()
    monkeypatch.setattr(mouth_state, "_steering", lambda *_: (steering, ("natural",)))
    monkeypatch.setattr(panel, "steering_problem", lambda *_: "")
    yield
    update_mouth.forget()


@pytest.fixture
def spoken(head, animate):
    """The head after a run, with its strips in the Sequencer."""
    bpy.context.scene.render.fps = 30
    assert animate("phones") == {"FINISHED"}
    assert bpy.ops.wav2sem.show_words() == {"FINISHED"}
    return head


def action_of(head):
    return head.data.shape_keys.animation_data.action


def strip_of(head, text):
    return next(s for s in speech_track.strips_of(action_of(head))[1] if s.type == "TEXT" and s.text == text)


def rename(head, text, new):
    strip_of(head, text).text = new


def test_only_the_edited_span_changes(spoken, curves_of):
    before = curves_of(spoken)
    rename(spoken, "L", "R")
    assert bpy.ops.wav2sem.update_mouth() == {"FINISHED"}
    after = curves_of(spoken)
    frames, pucker = after["mouthPucker"]
    inside = (frames >= 1 + 30 * SPAN_S[0]) & (frames <= 1 + 30 * SPAN_S[1])
    np.testing.assert_allclose(pucker[inside], 0.2, atol=1e-6)
    np.testing.assert_array_equal(pucker[~inside], before["mouthPucker"][1][~inside])
    for name in ("jawOpen", "mouthSmile_L"):
        np.testing.assert_array_equal(after[name][1], before[name][1])
    assert [p.name for p in speech_track.recorded(action_of(spoken)).phones] == ["SIL", "R", "SIL"]
    assert not speech_track.read(action_of(spoken)).is_edited


def test_editing_back_gives_the_first_curves(spoken, curves_of):
    before = curves_of(spoken)
    for old, new in (("L", "R"), ("R", "M"), ("M", "L")):
        rename(spoken, old, new)
        bpy.ops.wav2sem.update_mouth()
    # A phone that was renamed to what was heard is forced, and the fake model does nothing for a forced L.
    for name, (_, values) in curves_of(spoken).items():
        np.testing.assert_allclose(values, before[name][1], atol=1e-6)


@pytest.mark.parametrize("replaces", [False, True])
def test_own_keys_in_the_span_are_moved_along_or_replaced(spoken, curves_of, replaces):
    curve = next(c for c in speech_curves(spoken) if "mouthPucker" in c.data_path)
    point = next(p for p in curve.keyframe_points if p.co[0] == 22)
    computed = point.co[1]
    point.co[1] = computed + 0.1
    elsewhere = next(p for p in curve.keyframe_points if p.co[0] == 45)
    elsewhere.co[1] = 0.77
    rename(spoken, "L", "R")
    assert bpy.ops.wav2sem.update_mouth(replaces=replaces) == {"FINISHED"}
    frames, values = curves_of(spoken)["mouthPucker"]
    assert values[frames == 22][0] == pytest.approx(0.2 if replaces else 0.3, abs=1e-5)
    assert values[frames == 45][0] == pytest.approx(0.77)


def speech_curves(head):
    return action_of(head).layers[0].strips[0].channelbags[0].fcurves


def test_reduced_curves_get_the_keys_that_they_need(spoken, curves_of):
    assert bpy.ops.wav2sem.reduce_keys(tolerance_mm=1.0) == {"FINISHED"}
    before = {name: len(frames) for name, (frames, _) in curves_of(spoken).items()}
    rename(spoken, "L", "R")
    bpy.ops.wav2sem.update_mouth()
    frames, values = curves_of(spoken)["mouthPucker"]
    assert len(frames) > before["mouthPucker"]
    inside = (frames >= 16) & (frames <= 31)
    np.testing.assert_allclose(values[inside], 0.2, atol=0.05)
    assert {name: len(frames) for name, (frames, _) in curves_of(spoken).items() if name != "mouthPucker"} == {
        name: n for name, n in before.items() if name != "mouthPucker"
    }


def test_settings_of_the_take_hold_for_the_edit(head, animate, curves_of):
    bpy.context.scene.render.fps = 24
    animate("phones", strength=0.5, delay_s=0.1, start_frame=10)
    bpy.ops.wav2sem.show_words()
    before = curves_of(head)
    rename(head, "L", "R")
    bpy.ops.wav2sem.update_mouth()
    frames, pucker = curves_of(head)["mouthPucker"]
    first, last = (10 + 24 * (0.1 + time_s) for time_s in SPAN_S)
    inside = (frames > first + 1) & (frames < last - 1)
    np.testing.assert_allclose(pucker[inside], 0.1, atol=1e-5)
    outside = (frames < first - 1) | (frames > last + 1)
    np.testing.assert_allclose(pucker[outside], before["mouthPucker"][1][outside], atol=1e-6)
    update = update_mouth.follow(head, first_take(head))
    assert update.n_spans == 0


def first_take(head):
    return takes.of_face(head)[0]


def test_no_key_counts_as_edited_by_hand_if_none_was(spoken):
    rename(spoken, "L", "R")
    assert update_mouth.follow(spoken, first_take(spoken)).edited.n_by_hand == 0


def test_after_loading_the_sound_is_heard_again(spoken, curves_of, tmp_path):
    path = str(tmp_path / "take.blend")
    rename(spoken, "L", "R")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    update_mouth.forget()
    bpy.ops.wm.open_mainfile(filepath=path)
    head = bpy.data.objects["Head"]
    before = curves_of(head)
    assert not update_mouth.is_ready(head, first_take(head))
    assert bpy.ops.wav2sem.update_mouth() == {"FINISHED"}
    frames, pucker = curves_of(head)["mouthPucker"]
    inside = (frames >= 16) & (frames <= 31)
    np.testing.assert_allclose(pucker[inside], 0.2, atol=1e-6)
    np.testing.assert_array_equal(pucker[~inside], before["mouthPucker"][1][~inside])


def test_an_edit_that_cannot_be_followed_changes_nothing(spoken, curves_of):
    before = curves_of(spoken)
    rename(spoken, "L", "xx")
    assert not bpy.ops.wav2sem.update_mouth.poll()
    with pytest.raises(RuntimeError, match="no sound"):
        bpy.ops.wav2sem.update_mouth()
    for name, (_, values) in curves_of(spoken).items():
        np.testing.assert_array_equal(values, before[name][1])


def test_a_model_that_follows_no_track_says_so(spoken, monkeypatch, curves_of):
    def refuse(*_arguments):
        raise UserError("{model}: this model does not follow a track", model="old")

    monkeypatch.setattr(mouth_state, "_steering", refuse)
    rename(spoken, "L", "R")
    with pytest.raises(RuntimeError, match="does not follow a track"):
        bpy.ops.wav2sem.update_mouth()
    assert [p.name for p in speech_track.recorded(action_of(spoken)).phones] == ["SIL", "L", "SIL"], "still to follow"


def test_edits_are_kept_where_the_model_cannot_follow_them(spoken, curves_of, monkeypatch):
    monkeypatch.setattr(panel, "steering_problem", lambda *_: "This model cannot follow edited words and sounds")
    before = curves_of(spoken)
    rename(spoken, "L", "R")
    assert not bpy.ops.wav2sem.update_mouth.poll()
    with pytest.raises(RuntimeError, match="cannot follow edited words"):
        bpy.ops.wav2sem.update_mouth()
    assert bpy.ops.wav2sem.hide_words() == {"FINISHED"}
    assert [p.name for p in speech_track.recorded(action_of(spoken)).phones] == ["SIL", "R", "SIL"]
    for name, (_, values) in curves_of(spoken).items():
        np.testing.assert_array_equal(values, before[name][1])
    bpy.ops.wav2sem.show_words()
    assert strip_of(spoken, "R") is not None


@pytest.mark.parametrize(("steerable", "problem"), [(True, ""), (False, "cannot follow")])
def test_a_models_description_says_whether_it_can_follow(tmp_path, steerable, problem):
    (tmp_path / "config.json").write_text(json.dumps({"model": {"steerable": steerable}}))
    assert problem in settings.steering_problem(bpy.context, str(tmp_path))
    assert bool(settings.steering_problem(bpy.context, str(tmp_path))) == bool(problem)


def test_the_mouth_follows_while_editing(spoken, curves_of):
    rename(spoken, "L", "R")
    track_watch.look_now(bpy.context)
    frames, pucker = curves_of(spoken)["mouthPucker"]
    np.testing.assert_allclose(pucker[(frames >= 16) & (frames <= 31)], 0.2, atol=1e-6)
    bpy.context.scene.wav2sem_update_while_editing = False
    rename(spoken, "R", "M")
    track_watch.look_now(bpy.context)
    assert curves_of(spoken)["jawOpen"][1][20] > 0.1, "switched off"


def test_what_is_converted_does_not_grow_with_the_take(spoken):
    state = update_mouth._state(action_of(spoken))
    rename(spoken, "L", "R")
    reading = speech_track.read(action_of(spoken))
    new = reading.settled.track()
    (change,) = state.changes(speech_track.recorded(action_of(spoken)), new, [SPAN_S])
    assert change.old.n_frames == change.new.n_frames <= 30 * (SPAN_S[1] - SPAN_S[0] + 2)
