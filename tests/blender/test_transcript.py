# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said: a line, a text or a file reaches the worker, and the take has its words."""

from pathlib import Path

import bpy
import pytest

from wav2sem_blender.blender.scene import speech_track
from wav2sem_blender.blender.ui import status, transcript
from wav2sem_blender.errors import UserError


@pytest.fixture
def panel(head, fake_worker, audio):
    """The scene's settings, ready to animate."""
    settings = bpy.context.scene.wav2sem
    settings.filepath = audio("phones")
    settings.target = head
    return settings


def words_of(head):
    return [word.text for word in speech_track.recorded(head.data.shape_keys.animation_data.action).words]


def test_a_line_of_the_panel_becomes_the_words_of_the_take(head, panel):
    panel.transcript = "Hello there"
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    assert words_of(head) == ["Hello", "there"]
    assert bpy.ops.wav2sem.show_words() == {"FINISHED"}
    _, strips = speech_track.strips_of(head.data.shape_keys.animation_data.action)
    shown = {strip.text for strip in strips if strip.type == "TEXT"}
    assert shown == {"Hello", "there", "L"}


def test_a_text_of_the_file_and_its_language(head, panel):
    text = bpy.data.texts.new("Said")
    text.write("Guten Morgen\n")
    panel.said, panel.transcript_text, panel.language = "TEXT", text, "German"
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    assert words_of(head) == ["Guten", "Morgen"]
    assert speech_track.recorded(head.data.shape_keys.animation_data.action).language == "de"


def test_a_file_of_subtitles_counts_from_the_part_that_is_heard(head, panel, tmp_path):
    path = tmp_path / "line.srt"
    path.write_text("1\n00:00:00,100 --> 00:00:01,000\nHello there\n")
    panel.said, panel.transcript_file = "FILE", str(path)
    assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    assert words_of(head) == ["Hello", "there"]


def test_a_script_gives_the_words_itself_or_none(head, panel, animate):
    panel.transcript = "Of another sound"
    assert animate("phones", transcript="Mine") == {"FINISHED"}
    assert words_of(head) == ["Mine"]
    assert animate("phones") == {"FINISHED"}
    assert words_of(head) == [], "the panel's words are of the panel's sound"


def test_making_a_take_again_hears_the_same_words(head, panel):
    panel.transcript = "Hello {clear}there{/}"
    bpy.ops.wav2sem.animate()
    panel.transcript = ""
    assert bpy.ops.wav2sem.rebake() == {"FINISHED"}
    assert words_of(head) == ["Hello", "there"]


@pytest.mark.parametrize(
    ("said", "name", "value", "problem"),
    [
        ("LINE", "transcript", "...", "no words"),
        ("FILE", "transcript_file", "missing.txt", "there is no such file"),
        ("FILE", "transcript_file", "binary.txt", "is no text file"),
        ("FILE", "transcript_file", "empty.srt", "no subtitles"),
    ],
)
def test_bad_words_are_one_sentence_at_the_button_and_in_a_script(
    panel, tmp_path, monkeypatch, said, name, value, problem
):
    monkeypatch.setattr(status, "sound_problem", lambda _: "")  # the fake sound is empty
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "empty.srt").write_text("Hello")
    panel.said = said
    setattr(panel, name, value if said == "LINE" else str(tmp_path / value))
    assert problem in str(transcript.problem(bpy.context))
    assert problem in str(status.speak_disabled_reason(bpy.context))
    with pytest.raises(RuntimeError, match=str(problem)):
        bpy.ops.wav2sem.animate()
    assert not bpy.data.actions


def test_a_language_that_is_not_known_is_named(panel):
    panel.transcript, panel.language = "Hello", "Klingon"
    assert "Klingon" in str(transcript.problem(bpy.context))
    with pytest.raises(RuntimeError, match="Klingon"):
        bpy.ops.wav2sem.animate()
    assert [transcript.language_code(name) for name in ("German", "de", "pt_BR")] == ["de", "de", "pt"]
    with pytest.raises(UserError):
        transcript.language_code("x")


def test_pasting_several_lines_makes_a_text(panel, monkeypatch):
    class Manager:
        clipboard = "ANNA: Hello\nBERT: There"

    class Context:
        scene, window_manager = bpy.context.scene, Manager

    class Operator:
        _failed = staticmethod(lambda error: str(error))

    paste = transcript.WAV2SEM_OT_paste_transcript.execute
    assert paste(Operator, Context) == {"FINISHED"}
    assert (panel.said, panel.transcript_text.as_string()) == ("TEXT", "ANNA: Hello\nBERT: There\n")
    Manager.clipboard = "  One line\n"
    assert paste(Operator, Context) == {"FINISHED"}
    assert (panel.said, panel.transcript) == ("LINE", "One line")
    Manager.clipboard = "\n"
    assert "no text" in paste(Operator, Context)


def test_the_file_beside_the_sound_is_offered(panel, monkeypatch):
    sound = Path(panel.filepath)
    monkeypatch.setattr(transcript.info, "chosen_info", lambda _: None)  # the fake sound is empty
    transcript._found_beside.cache_clear()
    assert transcript._beside(bpy.context) is None
    sound.with_suffix(".txt").write_text("Hello there")
    transcript._found_beside.cache_clear()
    beside = transcript._beside(bpy.context)
    assert beside == sound.with_suffix(".txt")
    assert bpy.ops.wav2sem.use_transcript(filepath=str(beside)) == {"FINISHED"}
    assert panel.said == "FILE" and transcript.problem(bpy.context) == ""


def test_a_relative_path_follows_the_file(panel, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a" / "scene.blend"))
    panel.transcript_file = "//line.txt"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "b" / "scene.blend"))
    assert bpy.path.abspath(panel.transcript_file).replace("\\", "/").endswith("a/line.txt")
