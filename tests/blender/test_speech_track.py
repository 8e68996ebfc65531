# SPDX-License-Identifier: GPL-3.0-or-later
"""Words and phones as strips of the sequencer: written, edited, read back; what an edit means, and bad edits."""

import json
import wave
from itertools import pairwise

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender import compat
from wav2sem_blender.blender.scene import speech_track, track_edits
from wav2sem_blender.blender.scene.actions import SETTINGS
from wav2sem_blender.blender.scene.speech_track import Place
from wav2sem_blender.blender.ui import speech_track as panel
from wav2sem_blender.pipeline.words.track import Direction, Phone, Track, Word

WORDS = (Word("my", 0.5, 0.8, 0.9), Word("boat", 0.8, 1.31, 0.6))
PHONES = (
    Phone("SIL", 0.0, 0.5, 0.9, False),
    Phone("M", 0.5, 0.61, 0.9),
    Phone("AY", 0.61, 0.8, 0.9),
    Phone("B", 0.8, 0.87, 0.3),
    Phone("OW", 0.87, 1.2, 0.7),
    Phone("T", 1.2, 1.31, 0.9),
    Phone("SIL", 1.31, 2.0, 0.9, False),
)
TRACK = Track(words=WORDS, phones=PHONES, language="en")
FPS = 24.0


def make_action(track=TRACK, frame=13.0, name="Take", **settings):
    action = bpy.data.actions.new(name)
    action.use_fake_user = True
    action[SETTINGS] = json.dumps(settings)
    place = Place(frame=frame, action_frame=frame, action_rate_hz=FPS, duration_s=2.0)
    speech_track.remember(action, track, place)
    return action


@pytest.fixture
def action():
    made = make_action()
    speech_track.show(bpy.context, made)
    return made


def strips(action, tier):
    """Text -> strip, in the order of their times; a text that occurs again gets a number."""
    _, found = speech_track.strips_of(action)
    shown = [(compat.strip_span(s), s) for s in found if (item := speech_track.item_of(s)) and item.tier == tier]
    named = {}
    for _, strip in sorted(shown, key=lambda pair: pair[0]):
        named[strip.text if strip.text not in named else f"{strip.text} {len(named)}"] = strip
    return named


def move(strip, by):
    """What the mouse does: both edges move by some frames."""
    name = "content_start" if hasattr(strip, "content_start") else "frame_start"
    setattr(strip, name, getattr(strip, name) + by)


def drag(strip, *, left=0, right=0):
    first, last = compat.strip_span(strip)
    names = (
        ("left_handle", "right_handle") if hasattr(strip, "right_handle") else ("frame_final_start", "frame_final_end")
    )
    if left:
        setattr(strip, names[0], first + left)
    if right:
        setattr(strip, names[1], last + right)


def read_track(action, **options):
    return speech_track.read(action, **options).settled.track("en")


def times(track, tier="phones"):
    return {item[0]: (round(item.start_s, 3), round(item.end_s, 3)) for item in getattr(track, tier)}


def test_what_is_written_is_read_back_exactly(action):
    reading = speech_track.read(action)
    assert reading.settled.track("en") == TRACK
    assert not reading.is_edited


def test_strips_lie_where_they_are_spoken_and_are_muted(action):
    words, phones = strips(action, "words"), strips(action, "phones")
    assert {text: compat.strip_span(strip) for text, strip in words.items()} == {"my": (25, 32), "boat": (32, 44)}
    assert all(strip.mute for strip in (*words.values(), *phones.values()))
    word_channel = {strip.channel for strip in words.values()}
    phone_channels = [strip.channel for strip in phones.values()]
    assert len(word_channel) == 1 and len(set(phone_channels)) == 2 and max(phone_channels) < word_channel.pop()
    assert all(a != b for a, b in pairwise(phone_channels)), "neighbours meet"


def test_colours_tell_the_confidence(action):
    phones = strips(action, "phones")
    assert [phones[name].color_tag for name in ("B", "OW", "T")] == ["COLOR_01", "COLOR_03", "COLOR_04"]


@pytest.mark.parametrize("rate", [8, 24, 60])
def test_the_shortest_phones_keep_their_times_at_any_frame_rate(rate):
    bpy.context.scene.render.fps = rate
    edges = [round(0.02 * i, 2) for i in range(60)]
    track = Track(phones=tuple(Phone("AA" if i % 2 else "T", a, b, 0.5) for i, (a, b) in enumerate(pairwise(edges))))
    action = make_action(track)
    speech_track.show(bpy.context, action)
    reading = speech_track.read(action)
    assert reading.settled.track() == track and not reading.is_edited
    _, found = speech_track.strips_of(action)
    spans = sorted((strip.channel, *compat.strip_span(strip)) for strip in found)
    for (channel, _, end), (other, start, _) in pairwise(spans):
        assert channel != other or end <= start, "strips overlap on a channel"


def test_phones_follow_a_word_that_is_moved(action):
    move(strips(action, "words")["boat"], 6)
    reading = speech_track.read(action)
    track = reading.settled.track("en")
    assert reading.is_edited
    assert times(track, "words") == {"my": (0.5, 0.8), "boat": (1.05, 1.56)}
    assert times(track)["OW"] == (1.12, 1.45)
    # Its pause opens, the silence after it gives room; the mouth does not go on with what was heard there.
    between = [p for p in track.phones if p.end_s > 0.8 and p.start_s < 1.05]
    assert [(p.name, p.forced) for p in between] == [("SIL", True)]
    assert track.phones[-1][:3] == ("SIL", pytest.approx(1.56), 2.0)
    assert track_edits.changed_spans(TRACK, track) == [(0.8, pytest.approx(1.56))]


def test_the_strips_follow_when_the_edit_is_kept(action):
    move(strips(action, "words")["boat"], 6)
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert compat.strip_span(strips(action, "phones")["OW"]) == (40, 48)
    again = speech_track.read(action)
    assert not again.is_edited and again.settled.track("en") == speech_track.recorded(action)


def test_phones_stretch_with_their_word(action):
    drag(strips(action, "words")["boat"], right=12)
    track = read_track(action)
    end_s = (44 + 12 - 13) / FPS
    assert times(track, "words")["boat"] == (0.8, round(end_s, 3))
    assert times(track)["T"][1] == round(end_s, 3)
    assert times(track)["B"][1] > 0.87


def test_a_neighbour_moves_along_with_an_edge(action):
    drag(strips(action, "phones")["OW"], left=2)
    track = read_track(action)
    edge_s = times(track)["OW"][0]
    assert edge_s > 0.87 and times(track)["B"] == (0.8, edge_s)
    assert {p.name: p.forced for p in track.phones}["B"]


def test_silence_gives_room(action):
    drag(strips(action, "phones")["M"], left=-4)
    track = read_track(action)
    assert track.phones[0][:3] == ("SIL", 0.0, pytest.approx(times(track)["M"][0], abs=1e-3))


def test_a_sound_that_is_covered_is_named(action):
    drag(strips(action, "phones")["OW"], right=6)
    problems = speech_track.read(action).settled.problems
    assert len(problems) == 1 and "OW" in problems[0] and "T" in problems[0] and "overlap" in problems[0]


def test_a_deleted_word_takes_its_phones_along(action):
    scene = bpy.context.scene
    compat.sequencer_strips(scene.sequence_editor).remove(strips(action, "words")["boat"])
    reading = speech_track.read(action)
    assert reading.is_edited
    assert [p.label for p in reading.settled.phones] == ["SIL", "M", "AY", "SIL"]
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert list(strips(action, "phones")) == ["SIL", "M", "AY", "SIL 3"]


@pytest.mark.parametrize("how", ["text", "name"])
def test_a_renamed_phone(action, how):
    strip = strips(action, "phones")["AY"]
    setattr(strip, how, "oy1")
    track = read_track(action)
    assert [p.name for p in track.phones][:3] == ["SIL", "M", "OY"]
    assert track_edits.changed_spans(TRACK, track) == [(0.61, 0.8)]


def test_a_renamed_word_is_pronounced_anew(action):
    strips(action, "words")["boat"].text = "goat"
    asked = []

    def pronounce(text, language):
        asked.append((text, language))
        return ["G", "OW", "T"]

    reading = speech_track.read(action, pronounce)
    track = reading.settled.track("en")
    assert asked == [("goat", "en")]
    assert [p.name for p in track.phones] == ["SIL", "M", "AY", "G", "OW", "T", "SIL"]
    assert (track.phones[3].start_s, track.phones[5].end_s) == (0.8, 1.31)
    speech_track.keep(action, reading, track)
    assert list(strips(action, "phones"))[3] == "G"
    assert not speech_track.read(action, pronounce).is_edited


def test_blenders_split_makes_two(action):
    strip = strips(action, "phones")["OW"]
    frame = compat.strip_span(strip)[0] + 3
    with bpy.context.temp_override(scene=bpy.context.scene):
        strip.split(frame=frame, split_method="SOFT")
    reading = speech_track.read(action)
    assert reading.is_edited
    halves = [p for p in reading.settled.phones if p.label == "OW"]
    assert [(round(p.start_s, 3), round(p.end_s, 3)) for p in halves] == [
        (0.87, round((frame - 13) / FPS, 3)),
        (round((frame - 13) / FPS, 3), 1.2),
    ]
    assert len({p.key for p in halves}) == 2


def test_an_added_strip_counts(action):
    """A text strip on the channel of the phones, as Add > Text makes it."""
    last = strips(action, "phones")["SIL 6"]
    made = compat.new_text_strip(bpy.context.scene.sequence_editor, "Text", last.channel, 55, 58)
    made.text = "p"
    track = read_track(action)
    assert ("P", 1.75, 1.875) in [p[:3] for p in track.phones]
    assert [p.name for p in track.phones][-2:] == ["SIL", "P"], "the silence keeps its longer part"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda a: setattr(strips(a, "words")["boat"], "text", "  "), "has no text"),
        (lambda a: setattr(strips(a, "phones")["AY"], "text", "QQ"), '"QQ" at 0.61 s is no sound'),
        (lambda a: move(strips(a, "words")["boat"], 400), '"boat" lies outside the sound'),
    ],
)
def test_an_edit_that_cannot_be_followed_is_one_sentence(action, edit, said):
    edit(action)
    reading = speech_track.read(action)
    assert len(reading.settled.problems) == 1 and said in reading.settled.problems[0]
    with pytest.raises(ValueError, match="no text|no sound|outside"):
        reading.settled.track()
    assert speech_track.recorded(action) == TRACK, "nothing is lost"


def test_moving_everything_is_no_edit(action):
    _, found = speech_track.strips_of(action)
    for strip in sorted(found, key=lambda strip: -compat.strip_span(strip)[0]):
        move(strip, 48)
    reading = speech_track.read(action)
    assert not reading.is_edited and reading.settled.track("en") == TRACK and reading.place.frame == 61.0


def test_a_copy_of_the_action_shows_its_own_strips(action):
    copy = action.copy()
    assert speech_track.strips_of(copy) == (None, []) and speech_track.recorded(copy) == TRACK
    speech_track.show(bpy.context, copy)
    assert len(speech_track.strips_of(copy)[1]) == len(speech_track.strips_of(action)[1]) == 9
    speech_track.remove(copy)
    assert len(speech_track.strips_of(action)[1]) == 9


def test_another_line_shares_the_channels_if_it_is_spoken_later(action):
    later = make_action(frame=100.0)
    speech_track.show(bpy.context, later)
    channels = {strip.channel for strip in speech_track.strips_of(later)[1]}
    assert channels == {strip.channel for strip in speech_track.strips_of(action)[1]}
    assert speech_track.read(action).settled.track("en") == TRACK
    meanwhile = make_action(frame=30.0)
    speech_track.show(bpy.context, meanwhile)
    assert channels.isdisjoint(strip.channel for strip in speech_track.strips_of(meanwhile)[1])


def test_the_words_lie_above_the_sound_that_was_heard(tmp_path):
    path = tmp_path / "line.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(32000))
    action = make_action(filepath=str(path))
    speech_track.show(bpy.context, action)
    sounds = compat.sound_strips(bpy.context.scene)
    assert [(compat.strip_span(s)[0], s.show_waveform) for s in sounds] == [(13, True)]
    assert min(s.channel for s in speech_track.strips_of(action)[1] if s.type == "TEXT") == sounds[0].channel + 1
    speech_track.show(bpy.context, action)
    assert len(compat.sound_strips(bpy.context.scene)) == 1
    speech_track.remove(action)
    assert not compat.all_strips(bpy.context.scene)
    assert bpy.context.scene.sequence_editor.channels[2].name == "Channel 2"


def test_saving_and_loading_keeps_the_strips(action, tmp_path):
    move(strips(action, "words")["boat"], 6)
    path = str(tmp_path / "take.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    loaded = bpy.data.actions["Take"]
    assert speech_track.recorded(loaded) == TRACK
    assert times(read_track(loaded), "words")["boat"] == (1.05, 1.56)


@pytest.mark.parametrize("is_muted", [True, False])
def test_muted_strips_leave_the_scene_to_be_rendered(action, tmp_path, is_muted):
    """Blender renders the sequencer instead of the scene if one picture strip in it is not muted."""
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples = "CYCLES", 1
    scene.render.resolution_x = scene.render.resolution_y = 16
    scene.view_settings.view_transform = "Raw"
    scene.world = bpy.data.worlds.new("Red")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 0, 0, 1)
    scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(scene.camera)
    for strip in speech_track.strips_of(action)[1]:
        strip.mute = is_muted
    scene.frame_set(35)
    compat.set_image_output(scene.render, tmp_path / "still")
    scene.render.filepath = str(tmp_path / "still.png")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(tmp_path / "still.png"))
    red = np.array(image.pixels[:]).reshape(-1, 4)[:, 0].mean()
    assert (red > 0.9) == is_muted


def test_three_minutes_of_phones():
    """Names are given without Blender's search for a free one, which takes minutes for so many."""
    n = 2000
    edges = [i / 10 for i in range(n + 1)]
    track = Track(phones=tuple(Phone("AA" if i % 2 else "T", a, b, 0.5) for i, (a, b) in enumerate(pairwise(edges))))
    action = make_action(track)
    assert speech_track.show(bpy.context, action) == n
    assert speech_track.read(action).settled.track() == track
    assert len({strip.name for strip in speech_track.strips_of(action)[1]}) == n


def test_animating_keeps_what_was_heard(head, animate):
    bpy.context.scene.render.fps = 25
    assert animate("phones", start_frame=11, delay_s=0.2) == {"FINISHED"}
    made = head.data.shape_keys.animation_data.action
    track = speech_track.recorded(made)
    assert [(p.name, p.forced, *p[1:3]) for p in track.phones] == [
        ("SIL", False, 0.0, 0.5),
        ("L", False, 0.5, 1.0),
        ("SIL", False, 1.0, 2.0),
    ]
    place = speech_track.place_of(made)
    found = place.frame, place.action_frame, place.action_rate_hz
    assert found == pytest.approx((11.0, 16.0, 25.0)), "words lie on the sound, the face lags behind it"
    speech_track.show(bpy.context, made)
    assert compat.strip_span(strips(made, "phones")["L"]) == (24, 36)
    assert animate("phones", start_frame=31) == {"FINISHED"}
    assert compat.strip_span(strips(made, "phones")["L"]) == (44, 56), "its strips come along"


def test_a_model_that_tells_no_phones_leaves_no_track(head, animate):
    animate()
    assert not speech_track.has_track(head.data.shape_keys.animation_data.action)


def test_removing_a_take_removes_its_strips(head, animate):
    animate("phones")
    action = head.data.shape_keys.animation_data.action
    speech_track.show(bpy.context, action)
    assert bpy.ops.wav2sem.remove_take() == {"FINISHED"}
    assert not [strip for strip in compat.all_strips(bpy.context.scene) if strip.type == "TEXT"]


@pytest.mark.parametrize("suffix", [".TextGrid", ".csv", ".json"])
def test_a_track_is_exported_as_edited_and_imported_again(head, animate, tmp_path, suffix):
    animate("phones")
    action = head.data.shape_keys.animation_data.action
    assert bpy.ops.wav2sem.show_words() == {"FINISHED"}
    strips(action, "phones")["L"].text = "R"
    path = tmp_path / f"line{suffix}"
    assert bpy.ops.wav2sem.export_words(filepath=str(path)) == {"FINISHED"}
    strips(action, "phones")["R"].text = "M"
    assert bpy.ops.wav2sem.import_words(filepath=str(path)) == {"FINISHED"}
    assert [p.label for p in speech_track.read(action).settled.phones] == ["SIL", "R", "SIL"]
    assert [p.name for p in speech_track.recorded(action).phones] == ["SIL", "L", "SIL"], "the mouth follows later"


def test_times_in_a_file_are_those_of_the_sound():
    place = Place(frame=1.0, action_frame=1.0, action_rate_hz=24.0, duration_s=2.0, begins_s=3.0, speed=2.0)
    action = make_action()
    speech_track.remember(action, TRACK, place)
    there = speech_track.current(action)
    assert (there.words[0].start_s, there.words[0].end_s) == (4.0, pytest.approx(4.6))
    speech_track.replace_shown(bpy.context, action, there, "line.json")
    assert not speech_track.read(action).is_edited


def test_a_track_of_another_sound_is_refused_or_doubted(action):
    longer = Track(phones=(Phone("AA", 7.0, 9.0),))
    with pytest.raises(ValueError, match=r"ends at 9.0 s, but the sound at 2.0 s"):
        speech_track.replace_shown(bpy.context, action, longer, "other.csv")
    assert not speech_track.read(action).is_edited
    other = Track(phones=(Phone("UW", 0.1, 0.9), Phone("Z", 0.9, 1.9)))
    assert "another recording" in speech_track.replace_shown(bpy.context, action, other, "other.csv")[0]
    assert not speech_track.replace_shown(bpy.context, action, TRACK, "same.csv")


def test_hiding_waits_for_edits_that_the_mouth_does_not_follow(head, animate, monkeypatch):
    monkeypatch.setattr(panel, "steering_problem", lambda *_: "")
    animate("phones")
    action = head.data.shape_keys.animation_data.action
    bpy.ops.wav2sem.show_words()
    strips(action, "phones")["L"].text = "R"
    assert not bpy.ops.wav2sem.hide_words.poll()
    strips(action, "phones")["R"].text = "L"
    assert bpy.ops.wav2sem.hide_words() == {"FINISHED"}
    assert speech_track.strips_of(action) == (None, []) and speech_track.has_track(action)


DIRECTED = Track(
    words=WORDS,
    phones=PHONES,
    directions=(
        Direction("articulation", 0.5, 1.31, 0.5),
        Direction("jaw", 0.8, 1.31, 1.5),
        Direction("brows", 0.8, 1.31, 1.0),
        Direction("rest", 1.31, 1.6, None),
    ),
    language="en",
)


def test_directions_of_words_and_of_other_spans_are_read_back():
    action = make_action(DIRECTED)
    speech_track.show(bpy.context, action)
    words, spans = strips(action, "words"), strips(action, "directions")
    assert words["my"].wav2sem_articulation == 0.0
    assert words["boat"].wav2sem_jaw == pytest.approx(1.5) and words["boat"].wav2sem_brows == 1.0
    assert [(text, compat.strip_span(strip)) for text, strip in spans.items()] == [
        ("clear 0.5", (25, 44)),
        ("rest", (44, 51)),
    ]
    assert all(strip.mute for strip in spans.values())
    assert {strip.channel for strip in spans.values()} == {words["my"].channel + 1}
    reading = speech_track.read(action)
    assert not reading.is_edited
    assert set(reading.settled.track("en").directions) == set(DIRECTED.directions)


def test_a_direction_given_in_the_panel_is_an_edit(action):
    strips(action, "words")["my"].wav2sem_closed = True
    strips(action, "words")["boat"].wav2sem_lips = 0.5
    reading = speech_track.read(action)
    track = reading.settled.track("en")
    assert reading.is_edited
    assert track.directions == (Direction("closed", 0.5, 0.8), Direction("lips", 0.8, 1.31, 0.5))
    assert track_edits.changed_spans(TRACK, track) == [(0.5, 1.31)]
    speech_track.keep(action, reading, track)
    assert not speech_track.read(action).is_edited
    assert speech_track.recorded(action).directions == track.directions


def test_each_word_has_directions_of_its_own_and_a_moved_word_takes_them_along(action):
    for word in strips(action, "words").values():
        word.wav2sem_strength = 2.0
    own = Direction("strength", 0.5, 0.8, 2.0)
    assert read_track(action).directions == (own, Direction("strength", 0.8, 1.31, 2.0))
    move(strips(action, "words")["boat"], 6)
    assert read_track(action).directions == (own, Direction("strength", 1.05, 1.56, 2.0))


@pytest.fixture
def span(action):
    """New directions over both words."""
    select(action, "my", "boat")
    strip = speech_track.add_directions(action, (25, 44))
    assert (strip.text, strip.mute, compat.strip_span(strip)) == ("neutral", True, (25, 44))
    assert not speech_track.read(action).is_edited
    return strip


def select(action, *texts):
    for strip in compat.all_strips(bpy.context.scene):
        strip.select = strip.text in texts if strip.type == "TEXT" else False


def test_directions_of_a_span_are_edited_as_a_strip(action, span):
    span.wav2sem_jaw = 1.5
    span.wav2sem_rest = True
    assert span.text == span.name == "jaw 1.5, rest"
    assert read_track(action).directions == (
        Direction("jaw", 0.5, pytest.approx(31 / 24, abs=1e-4), 1.5),
        Direction("rest", 0.5, pytest.approx(31 / 24, abs=1e-4)),
    )
    drag(span, right=-7)
    assert {d.end_s for d in read_track(action).directions} == {1.0}
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert not speech_track.read(action).is_edited
    move(span, 240)
    assert read_track(action).directions == (), "beyond the sound"
    move(span, -216)
    assert {(d.start_s, d.end_s) for d in read_track(action).directions} == {(1.5, 2.0)}, "cut off at its end"
    compat.sequencer_strips(bpy.context.scene.sequence_editor).remove(span)
    assert read_track(action).directions == () and speech_track.read(action).is_edited


def test_the_operator_adds_directions_over_what_is_selected_or_from_the_playhead_on(head, animate):
    animate("phones")
    bpy.ops.wav2sem.show_words()
    action, scene = head.data.shape_keys.animation_data.action, bpy.context.scene
    select(action, "L")
    assert bpy.ops.wav2sem.add_directions() == {"FINISHED"}
    first = scene.sequence_editor.active_strip
    assert compat.strip_span(first) == compat.strip_span(strips(action, "phones")["L"])
    first.select, scene.frame_current = False, 20
    bpy.ops.wav2sem.add_directions()
    second = scene.sequence_editor.active_strip
    assert compat.strip_span(second) == (20, 20 + round(0.5 * compat.frame_rate_hz(scene)))
    assert second.channel == first.channel + 1, "they overlap"
    scene.frame_current = 900
    second.select = False
    with pytest.raises(RuntimeError, match="outside the sound"):
        bpy.ops.wav2sem.add_directions()


def test_the_ends_of_directions_follow_the_words_on_which_they_lie():
    action = make_action(DIRECTED)
    speech_track.show(bpy.context, action)
    move(strips(action, "words")["boat"], 6)
    clear = next(d for d in read_track(action).directions if d.name == "articulation")
    assert (clear.start_s, clear.end_s) == (0.5, pytest.approx(1.56))
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert compat.strip_span(strips(action, "directions")["clear 0.5"]) == (25, 50)
    assert not speech_track.read(action).is_edited


def test_a_neutral_strip_does_nothing_and_stays(action, span):
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert list(strips(action, "directions")) == ["neutral"]
    assert speech_track.recorded(action).directions == ()


def key(strip, name, *points):
    """What Insert Keyframe does in the panel at some frames."""
    for frame, value in points:
        setattr(strip, f"wav2sem_{name}", value)
        assert strip.keyframe_insert(f"wav2sem_{name}", frame=frame)
    for curve in speech_track.directions.keys_of(bpy.context.scene).values():
        for point in curve.keyframe_points:
            point.interpolation = "LINEAR"


@pytest.mark.parametrize("of_a_word", [False, True])
def test_a_keyed_amount_is_a_curve(action, span, of_a_word, tmp_path):
    strip = strips(action, "words")["boat"] if of_a_word else span
    first, last = compat.strip_span(strip)
    key(strip, "jaw", (first, 1.0), (last, 2.0))
    (jaw,) = read_track(action).directions
    assert jaw.name == "jaw" and jaw.value is None and len(jaw.curve) == last - first + 1
    assert jaw.curve == pytest.approx(np.linspace(1, 2, len(jaw.curve)), abs=1e-4)
    if not of_a_word:
        assert speech_track.read(action).settled.directions[0].label == "jaw ~"
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert not speech_track.read(action).is_edited
    bpy.context.scene.frame_set(last)  # Blender animates the property, which is no edit
    assert not speech_track.read(action).is_edited
    (curve,) = speech_track.directions.keys_of(bpy.context.scene).values()
    curve.keyframe_points[1].co[1] = 3.0
    curve.update()
    assert speech_track.read(action).is_edited
    assert read_track(action).directions[0].curve[-1] == pytest.approx(3.0)
    curve.keyframe_points[1].co[1] = 2.0
    curve.update()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "keyed.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "keyed.blend"))
    loaded = bpy.data.actions["Take"]
    assert not speech_track.read(loaded).is_edited and read_track(loaded).directions == (jaw,)


def test_hidden_and_shown_again_a_curve_has_its_keys(action, span):
    key(span, "brows", (25, 0.0), (30, 1.0), (44, 0.0))
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    (brows,) = speech_track.recorded(action).directions
    speech_track.remove(action)
    assert not speech_track.directions.keys_of(bpy.context.scene)
    copy = action.copy()
    for take in (action, copy):
        speech_track.show(bpy.context, take)
        assert not speech_track.read(take).is_edited
        assert speech_track.recorded(take).directions[0].curve == pytest.approx(brows.curve, abs=1e-3)
    curves = speech_track.directions.keys_of(bpy.context.scene)
    assert sorted(len(curve.keyframe_points) for curve in curves.values()) == [3, 3]


def test_keys_stay_with_a_word_whose_strip_is_made_anew(action):
    key(strips(action, "words")["my"], "lips", (25, 1.0), (32, 2.0))
    drag(strips(action, "words")["boat"], left=-3)
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert compat.strip_span(strips(action, "words")["my"]) == (25, 29)
    assert not speech_track.read(action).is_edited
    (lips,) = speech_track.recorded(action).directions
    assert lips.curve[0] == pytest.approx(1.0) and lips.curve[-1] == pytest.approx(1 + 4 / 7, abs=1e-3)


def test_copying_takes_keys_along_and_replaces_others(action, span):
    words = strips(action, "words")
    key(words["my"], "jaw", (25, 1.0), (32, 2.0))
    key(span, "lips", (25, 1.0), (44, 2.0))
    select(action, "neutral", "lips ~", "boat")
    span.select = True
    bpy.context.scene.sequence_editor.active_strip = words["my"]
    assert bpy.ops.wav2sem.copy_directions() == {"FINISHED"}
    keyed = sorted(speech_track.directions.keys_of(bpy.context.scene))
    assert keyed == sorted([("my", "jaw"), ("boat", "jaw"), (span.name, "jaw")])
    assert {d.name for d in read_track(action).directions} == {"jaw"}
    assert len({(d.curve[0], d.curve[-1]) for d in read_track(action).directions}) == 1


def test_parts_of_split_directions_share_its_keys(action, span):
    key(span, "jaw", (25, 1.0), (44, 2.0))
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    (whole,) = speech_track.recorded(action).directions
    next(iter(strips(action, "directions").values())).split(frame=32, split_method="SOFT")
    left, right = read_track(action).directions
    assert (left.start_s, left.end_s, right.end_s) == (0.5, right.start_s, whole.end_s)
    assert left.curve + right.curve[1:] == whole.curve
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    assert not speech_track.read(action).is_edited and len(strips(action, "directions")) == 2


def test_parts_of_split_directions_are_two_and_a_duplicate_is_another(action, span):
    span.wav2sem_jaw = 2.0
    reading = speech_track.read(action)
    speech_track.keep(action, reading, reading.settled.track("en"))
    (span,) = strips(action, "directions").values()
    other = compat.new_text_strip(bpy.context.scene.sequence_editor, "copy", span.channel + 1, 46, 50)
    for name in (speech_track.TAKE, speech_track.ITEM):
        other[name] = span[name]
    other.wav2sem_jaw = 3.0
    assert [d.value for d in read_track(action).directions] == [2.0, 3.0]
    other.wav2sem_jaw = 2.0
    drag(span, right=-10)
    move(other, -12)
    assert [(d.start_s, d.value) for d in read_track(action).directions] == [(0.5, 2.0), (pytest.approx(0.875), 2.0)]


def test_directions_are_copied_to_the_selected_words(action):
    words = strips(action, "words")
    for strip in compat.all_strips(bpy.context.scene):
        strip.select = False
    words["my"].wav2sem_rest = True
    words["my"].wav2sem_jaw = 0.5
    bpy.context.scene.sequence_editor.active_strip = words["my"]
    assert not bpy.ops.wav2sem.copy_directions.poll()
    words["boat"].select = True
    strips(action, "phones")["OW"].select = True
    assert bpy.ops.wav2sem.copy_directions() == {"FINISHED"}
    copied = words["boat"]
    assert (copied.wav2sem_rest, copied.wav2sem_jaw, copied.wav2sem_lips) == (True, 0.5, 1.0)


def test_imported_directions_are_shown_with_their_words(action, tmp_path):
    speech_track.replace_shown(bpy.context, action, DIRECTED, "line.json")
    track = read_track(action)
    assert set(track.directions) == set(DIRECTED.directions)
    assert speech_track.recorded(action) == TRACK
