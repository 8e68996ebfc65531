# SPDX-License-Identifier: GPL-3.0-or-later
"""Brows and head follow directions: only there, and the animator's own keys stay."""

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.animate import mouth_state, update_mouth, update_upper_face
from wav2sem_blender.blender.scene import actions, speech_track, takes, upper_face_strips
from wav2sem_blender.blender.ui import speech_track as panel
from wav2sem_blender.blender.ui import track_watch

from .test_update_mouth import FakeSteering  # noqa: TID252

BROW = "browInnerUp"
SPAN = (16, 31)  # frames of the directions, from 0.5 to 1 s


@pytest.fixture(autouse=True)
def fake_steering(monkeypatch):
    update_mouth.forget()
    monkeypatch.setattr(mouth_state, "_steering", lambda *_: (FakeSteering(), ("natural",)))
    monkeypatch.setattr(panel, "steering_problem", lambda *_: "")
    yield
    update_mouth.forget()


@pytest.fixture
def face(head):
    head.shape_key_add(name=BROW, from_mix=False).data[1].co[0] += 1.0
    bpy.context.scene.render.fps = 30
    return head


@pytest.fixture
def spoken(face, animate):
    """A face after a run with its upper face and a swaying head, and directions that want nothing yet."""
    sways = bpy.context.scene.wav2sem_upper_face
    sways.head_sway, sways.sway_object = 1.0, face
    assert animate("phones", upper_face=True) == {"FINISHED"}
    assert bpy.ops.wav2sem.show_words() == {"FINISHED"}
    speech_track.add_directions(speech_of(face).action, SPAN)
    return face


def speech_of(face):
    return next(take for take in takes.of_face(face) if not take.is_upper_face)


def upper_of(face):
    return next(take for take in takes.of_face(face) if take.is_upper_face)


def directed(face):
    """The strip of directions."""
    shown = speech_track.strips_of(speech_of(face).action)[1]
    return next(s for s in shown if (item := speech_track.item_of(s)) and item.tier == "directions")


def curve_of(face, path, index=0):
    found = actions.curves_of(upper_of(face).action)
    return next(c for c in found if path in c.data_path and c.array_index == index)


def values(face, path=BROW, index=0):
    curve = curve_of(face, path, index)
    return np.array([curve.evaluate(frame) for frame in range(1, 61)])


def turned(face):
    return np.stack([values(face, "delta_rotation", index) for index in range(3)])


def update(face, **options):
    assert bpy.ops.wav2sem.update_mouth(**options) == {"FINISHED"}


def test_brows_rise_in_the_span_alone_and_the_mouth_stays(spoken, curves_of):
    before, mouth, still = values(spoken), curves_of(spoken), turned(spoken)
    directed(spoken).wav2sem_brows = 1.0
    update(spoken)
    after = values(spoken)
    assert after[SPAN[0] - 1 : SPAN[1]].max() > before[SPAN[0] - 1 : SPAN[1]].max() + 0.2
    changed = 1 + np.flatnonzero(np.abs(after - before) > 1e-4)
    assert SPAN[0] - 18 < changed.min() and changed.max() < SPAN[1] + 18
    for name, (_, points) in curves_of(spoken).items():
        np.testing.assert_array_equal(points, mouth[name][1])
    np.testing.assert_array_equal(turned(spoken), still)
    assert not speech_track.read(speech_of(spoken).action).is_edited
    directed(spoken).wav2sem_brows = 0.0
    update(spoken)
    np.testing.assert_allclose(values(spoken), before, atol=1e-5)


def test_the_head_nods_and_keeps_still(spoken):
    before, brows = turned(spoken), values(spoken)
    directed(spoken).wav2sem_head = 2.0
    update(spoken)
    nod_deg = np.degrees(np.abs(turned(spoken) - before).max())
    assert 3 < nod_deg < 6
    directed(spoken).wav2sem_head = -1.0
    update(spoken)
    middle = slice(SPAN[0] - 1, SPAN[1])
    assert np.degrees(np.abs(turned(spoken)[:, middle]).max()) < 0.05 < np.degrees(np.abs(before[:, middle]).max())
    np.testing.assert_array_equal(values(spoken), brows)


@pytest.mark.parametrize("replaces", [False, True])
def test_own_keys_are_moved_along_or_replaced(spoken, replaces):
    directed(spoken).wav2sem_brows = 1.0
    update(spoken)
    computed = values(spoken)
    curve = curve_of(spoken, BROW)
    peak = int(np.argmax(computed)) + 1
    next(p for p in curve.keyframe_points if p.co[0] == peak).co[1] += 0.3
    last = curve.keyframe_points[-1]
    last.co[1] = 0.7
    curve.update()
    directed(spoken).wav2sem_brows = 0.5
    update(spoken, replaces=replaces)
    assert values(spoken)[peak - 1] == pytest.approx(computed[peak - 1] / 2 + 0.3 * (not replaces), abs=1e-3)
    assert curve_of(spoken, BROW).keyframe_points[-1].co[1] == pytest.approx(0.7)


def test_a_keyed_amount_raises_the_brows_as_its_curve_does(spoken):
    strip = directed(spoken)
    for frame, amount in ((16, 0.0), (24, 1.0), (31, 0.0)):
        strip.wav2sem_brows = amount
        strip.keyframe_insert("wav2sem_brows", frame=frame)
    track_watch.look_now(bpy.context)
    raised = values(spoken)
    assert int(np.argmax(raised)) + 1 == 24 and raised.max() == pytest.approx(0.46, abs=0.03)
    (curve,) = speech_track.directions.keys_of(bpy.context.scene).values()
    curve.keyframe_points[1].co[1] = 2.0
    curve.update()
    track_watch.look_now(bpy.context)
    assert values(spoken).max() == pytest.approx(0.92, abs=0.06)


def test_undo_brings_brows_and_strip_back(spoken):
    bpy.ops.ed.undo_push(message="before")
    before = values(spoken)
    directed(spoken).wav2sem_brows = 1.0
    track_watch.look_now(bpy.context)
    assert np.abs(values(spoken) - before).max() > 0.2
    bpy.ops.ed.undo_push(message="after")
    bpy.ops.ed.undo()
    face = bpy.data.objects["Head"]
    np.testing.assert_array_equal(values(face), before)
    assert directed(face).wav2sem_brows == 0.0
    track_watch.look_now(bpy.context)
    np.testing.assert_array_equal(values(face), before)
    directed(face).wav2sem_brows = 1.0
    track_watch.look_now(bpy.context)
    assert np.abs(values(face) - before).max() > 0.2


def test_after_loading_the_sound_is_heard_again(spoken, tmp_path):
    path, before = str(tmp_path / "take.blend"), values(spoken)
    directed(spoken).wav2sem_brows = 1.0
    bpy.ops.wm.save_as_mainfile(filepath=path)
    update_mouth.forget()
    bpy.ops.wm.open_mainfile(filepath=path)
    face = bpy.data.objects["Head"]
    assert not update_upper_face.is_ready(face, speech_of(face))
    update(face)
    assert np.abs(values(face) - before).max() > 0.2
    assert update_upper_face.is_ready(face, speech_of(face))


def test_an_upper_face_that_is_added_later_follows_the_take(face, animate, audio):
    assert animate("phones", transcript="*one* two") == {"FINISHED"}
    bpy.ops.wav2sem.show_words()
    speech = speech_of(face)
    names = [direction.name for direction in speech_track.recorded(speech.action).directions]
    assert names == ["articulation", "brows", "head"]
    wanted = (speech_track.directions.Wanted("brows", 1.0),)
    assert "there is no upper face" in update_upper_face.why_still(face, speech, wanted)
    assert update_upper_face.why_still(face, speech, ()) == ""
    assert bpy.ops.wav2sem.add_upper_face(filepath=audio("phones"), object="Head") == {"FINISHED"}
    made = upper_face_strips.made_of(upper_of(face).action)
    assert [direction.name for direction in made.directions] == ["brows", "head"]
    assert update_upper_face.why_still(face, speech, wanted) == ""
    assert "Choose what sways" in update_upper_face.why_still(face, speech, (wanted[0]._replace(name="head"),))
    assert values(face)[15:24].max() > 0.3
    word = next(s for s in speech_track.strips_of(speech.action)[1] if s.type == "TEXT" and s.text == "one")
    assert word.wav2sem_brows == 1.0
    word.wav2sem_brows = -1.0
    update(face)
    assert values(face)[16:22].max() < 1e-3


def test_an_upper_face_of_another_sound_is_left_alone(spoken, audio):
    bpy.ops.wav2sem.add_upper_face(filepath=audio("other"), object="Head")
    before = values(spoken)
    directed(spoken).wav2sem_brows = 1.0
    update(spoken)
    np.testing.assert_array_equal(values(spoken), before)
    wanted = (speech_track.directions.Wanted("brows", 1.0),)
    assert "there is no upper face" in update_upper_face.why_still(spoken, speech_of(spoken), wanted)


def test_without_brows_in_the_upper_face_the_panel_says_so(face, animate):
    face.shape_key_add(name="eyeBlinkLeft", from_mix=False).data[0].co[0] += 1.0
    bpy.context.scene.wav2sem_upper_face.brows = 0.0
    animate("phones", upper_face=True)
    bpy.ops.wav2sem.show_words()
    wanted = (speech_track.directions.Wanted("brows", 1.0),)
    assert "brows keep still" in update_upper_face.why_still(face, speech_of(face), wanted)
    assert update_upper_face.why_still(face, speech_of(face), (wanted[0]._replace(name="jaw"),)) == ""


def test_an_upper_face_that_is_behind_is_brought_along(spoken):
    """After undo Blender may keep an action whose change it has not seen."""
    before = values(spoken)
    directed(spoken).wav2sem_brows = 1.0
    track_watch.look_now(bpy.context)
    raised = values(spoken)
    speech = speech_of(spoken).action
    strip, track = directed(spoken), speech_track.recorded(speech)
    strip.wav2sem_brows = 0.0
    speech_track.remember(
        speech, track.__class__(phones=track.phones), speech_track.place_of(speech), speech[speech_track.IDENTITY]
    )
    assert not speech_track.read(speech).is_edited and np.abs(raised - before).max() > 0.2
    track_watch.look_now(bpy.context)
    np.testing.assert_allclose(values(spoken), before, atol=1e-5)
