# SPDX-License-Identifier: GPL-3.0-or-later
"""Words by a recogniser, in Blender: a child with a test double of faster-whisper, and once with the real one."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import shutil
import signal
import sys
import time
import wave
from pathlib import Path

import bpy
import numpy as np
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH
from wav2sem_blender.blender.animate import batch_command, command, recognise
from wav2sem_blender.blender.scene import speech_track
from wav2sem_blender.blender.tasks.task import running_task
from wav2sem_blender.blender.ui.recognise import WAV2SEM_OT_recognise_words
from wav2sem_blender.pipeline.recognise import MODULE
from wav2sem_blender.worker.runtime import RECOGNISER, Runtime

says = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))["says"]
SAID = "Please put the paper boat by the pond.\nMy mother , made me.\n"
needs_model = pytest.mark.skipif(not (DEFAULT_MODEL / "config.json").is_file(), reason="needs the bundled model")


@pytest.fixture
def line(tmp_path) -> Path:
    """Four seconds of noise."""
    path = tmp_path / "hero line 7.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-3000, 3000, 64_000).astype("<i2").tobytes())
    return path


@pytest.fixture
def panel(addon_preferences, faster_whisper, whisper_model, line):
    """The scene's settings, with a sound and a recogniser."""
    addon_preferences.recogniser_folder = str(whisper_model)
    settings = bpy.context.scene.wav2sem
    settings.filepath = str(line)
    return settings


def recognised(**options) -> None:
    assert bpy.ops.wav2sem.recognise_words(**options) == {"FINISHED"}


def test_the_words_become_a_text_and_the_transcript(panel):
    mine = bpy.data.texts.new("hero line 7")
    mine.write("What I wrote\n")
    panel.said, panel.transcript_text = "TEXT", mine
    recognised()
    assert panel.said == "TEXT" and panel.transcript_text.name == "hero line 7.001", "the user's text stays"
    assert panel.transcript_text.as_string().strip() == SAID.strip(), "a line for each of the recogniser's, no markup"
    assert mine.as_string().strip() == "What I wrote"
    assert panel.language == "en"


def test_the_language_that_was_heard_binds_no_other_sound_but_the_users_does(panel, whisper_model):
    recognised()
    says(whisper_model, language="de", lines=["Guten Morgen."])
    recognised()
    assert panel.language == "de", "English was heard, not chosen"
    panel.language = "French"
    recognised()
    assert panel.language == "fr"
    recognised(language="es")
    assert panel.language == "es"


@pytest.mark.parametrize("kind", ["STRIP", "SOUND", "packed"])
def test_every_source_is_decoded_as_for_a_run(panel, kind, monkeypatch):
    heard = []
    process = recognise.process
    monkeypatch.setattr(recognise, "process", lambda *given: heard.append(given[1]) or process(*given))
    scene = bpy.context.scene
    if kind == "STRIP":
        editor = scene.sequence_editor_create()
        strips = editor.strips if hasattr(editor, "strips") else editor.sequences
        strip = strips.new_sound("Take 3", panel.filepath, 1, 1)
        strip.frame_final_end = 1 + scene.render.fps
        panel.source, panel.strip = "STRIP", strip.name
    else:
        sound = bpy.data.sounds.load(panel.filepath)
        if kind == "packed":
            sound.pack()
            os.unlink(panel.filepath)
        panel.source, panel.sound = "SOUND", sound
    recognised()
    assert panel.transcript_text.name == {"STRIP": "Take 3"}.get(kind, "hero line 7")
    (path,) = heard
    assert not path.exists() or kind == "SOUND", "what was decoded is removed"
    assert (str(path) != panel.filepath) == (kind != "SOUND")


def test_undo_takes_the_words_away_and_brings_the_old_ones_back(panel):
    panel.transcript = "Old words"
    bpy.ops.ed.undo_push(message="before")
    recognised()
    bpy.ops.ed.undo_push(message="after")
    bpy.ops.ed.undo()
    settings = bpy.context.scene.wav2sem
    assert (settings.said, settings.transcript, settings.language) == ("LINE", "Old words", "")


def test_what_is_missing_turns_the_button_off_and_names_the_remedy(
    panel, addon_preferences, whisper_model, monkeypatch
):
    def reason() -> str:
        return str(WAV2SEM_OT_recognise_words.disabled_reason(bpy.context))

    assert reason() == ""
    (whisper_model / "tokenizer.json").unlink()
    assert reason().endswith("is no Whisper model for faster-whisper: it has no tokenizer.json.")
    addon_preferences.recogniser_folder = "/nowhere"
    assert reason() == "/nowhere: there is no such folder with a speech recogniser."
    addon_preferences.recogniser_folder = ""
    assert "choose the folder of a Whisper model in the add-on's preferences" in reason()
    addon_preferences.recogniser_folder = str(whisper_model)
    (whisper_model / "tokenizer.json").touch()
    monkeypatch.setattr(recognise, "find_spec", lambda _name: None)
    assert reason() == ("faster-whisper is not installed; install the Recogniser Runtime in the add-on's preferences")
    addon_preferences.torch_python = "/nowhere/python"
    assert "/nowhere/python: there is no such Python" in reason()
    addon_preferences.torch_python = sys.executable
    assert reason() == "", "only a run tells whether that Python has it"


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ({"error": "File model.bin is incomplete"}, r"this model cannot be loaded \(File model.bin is incomplete\)"),
        ({"language": "en", "lines": []}, "No words were recognised in this sound"),
        ({"language": "en", "lines": ["[Music]"]}, "No words were recognised in this sound"),
        ({"language": "en", "lines": ["Hello"], "crash": True}, "The task|ended"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_changes_nothing(panel, whisper_model, what, sentence):
    says(whisper_model, **what)
    with pytest.raises(RuntimeError, match=sentence):
        bpy.ops.wav2sem.recognise_words()
    assert not bpy.data.texts and panel.said == "LINE" and running_task() is None


def test_a_python_without_the_library_is_named(panel, addon_preferences, faster_whisper):
    (faster_whisper / "faster_whisper.py").write_text("raise ImportError('libctranslate2.so is broken')")
    with pytest.raises(RuntimeError, match=r"does not load \(libctranslate2\.so is broken\)\. In Blender, install it"):
        bpy.ops.wav2sem.recognise_words()
    panel.filepath = "/nowhere.wav"
    with pytest.raises(RuntimeError, match=r"/nowhere\.wav: there is no such audio file"):
        bpy.ops.wav2sem.recognise_words()


def test_an_unreadable_sound_is_named(panel, line):
    line.write_bytes(b"RIFF" + bytes(100))
    with pytest.raises(RuntimeError, match=r"hero line 7\.wav"):
        bpy.ops.wav2sem.recognise_words()


def test_it_can_be_cancelled_and_leaves_nothing(panel, whisper_model):
    says(whisper_model, language="en", lines=["One.", "Two.", "Three."], seconds=60.0)
    task = recognise.Recognition(bpy.context, recognise.AnimateSettings(filepath=panel.filepath))
    begin_s = time.monotonic()
    while "Recognising" not in task.title and time.monotonic() - begin_s < 60:
        assert not task.poll()
        time.sleep(0.02)
    assert 0.3 < task.fraction < 0.5
    child = task._task
    task.cancel()
    assert child.pid is None and running_task() is None and not task._folder.path.exists()
    assert not bpy.data.texts


def test_the_installed_runtime_comes_first(panel, addon_preferences, tmp_path, monkeypatch):
    monkeypatch.setattr(recognise.addon_preferences, "runtime_folder", lambda name: tmp_path / name)
    addon_preferences.torch_python = sys.executable
    assert recognise.recogniser_environment(bpy.context).python == Path(sys.executable)
    made = Runtime(tmp_path / RECOGNISER.name, RECOGNISER)
    made.python.parent.mkdir(parents=True)
    made.python.touch(mode=0o755)
    made.set_complete()
    assert recognise.recogniser_environment(bpy.context).python == made.python


@needs_model
def test_the_command_recognises_and_animates(head, panel, tmp_path, capsys):
    given = ["--audio", str(DEMO_SPEECH), "--object", "Head", "--output", str(tmp_path / "b.blend")]
    assert command.run_command([*given, "--recognise"]) == 0
    told = capsys.readouterr().out
    assert '12 words were recognised, in the text "demo_speech"' in told
    action = bpy.data.objects["Head"].data.shape_keys.animation_data.action
    words = [word.text for word in speech_track.recorded(action).words]
    assert words[:4] == ["Please", "put", "the", "paper"]
    assert command.run_command([*given, "--recognise", "/nowhere"]) == 1
    assert "/nowhere: there is no such folder" in capsys.readouterr().err
    assert command.run_command([*given, "--recognise", "--transcript", "x.txt"]) == 1
    assert "leave out --transcript" in capsys.readouterr().err


@needs_model
def test_a_batch_of_scenes_and_curves_recognises(head, panel, whisper_model, tmp_path, capsys):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "hero.blend"))
    shutil.copy(DEMO_SPEECH, tmp_path / "line.flac")
    (tmp_path / "m.csv").write_text(
        "audio,output,character,object,text\nline.flac,scene,hero.blend,Head,\nline.flac,curves,,,\n"
        "line.flac,said,,,Please put the paper boat by the pond.\n"
    )
    given = [str(tmp_path / "m.csv"), "--output", str(tmp_path / "out"), "--jobs", "1", "--recognise"]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert batch_command.run_command([*given, str(whisper_model)]) == 0
        records = [json.loads(text) for text in (tmp_path / "out" / "report.jsonl").open()]
        assert [record.get("recognised", "").partition("\n")[0] for record in records] == [
            SAID.partition("\n")[0]
        ] * 2 + [""]
        assert "recognised" not in records[2] and all(record["fit"] > 0.2 for record in records)
        capsys.readouterr()
        assert batch_command.run_command([*given, str(whisper_model)]) == 0
        assert "3 lines, 3 made before" in capsys.readouterr().out
        assert batch_command.run_command([*given, str(tmp_path)]) == 5
    finally:
        signal.signal(signal.SIGTERM, before)


@needs_model
@pytest.mark.skipif(
    importlib.util.find_spec(MODULE) is None or "WAV2SEM_WHISPER" not in os.environ,
    reason="needs faster-whisper, and WAV2SEM_WHISPER: the folder of a model",
)
def test_the_real_one(addon_preferences):
    addon_preferences.recogniser_folder = os.environ["WAV2SEM_WHISPER"]
    settings = bpy.context.scene.wav2sem
    settings.filepath = str(DEMO_SPEECH)
    recognised()
    assert "paper boat by the pond" in settings.transcript_text.as_string() and settings.language == "en"
