# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of a stranger names a sound and a model: nothing outside of it is opened before the user acts."""

from __future__ import annotations

import builtins
import io
import os
import subprocess
from types import SimpleNamespace

import bpy
import pytest

from wav2sem_blender.blender.animate import settings as animate_settings
from wav2sem_blender.blender.sound import info, look
from wav2sem_blender.blender.tasks import asked
from wav2sem_blender.blender.ui import panels, properties, status, transcript
from wav2sem_blender.blender.ui.playback import WAV2SEM_OT_play_speech

PLACE = "/nowhere/stranger"
SOURCES = ("FILE", "STRIP", "SOUND", "SPEAKER")


class Layout:
    """Draws nothing, and remembers the operators."""

    def __init__(self):
        self.operators, self.enabled = [], True

    def operator(self, name, **_options):
        self.operators.append(name)
        return SimpleNamespace()

    def __getattr__(self, _name):
        return lambda *_args, **_options: self


def draw(panel) -> list[str]:
    layout = Layout()
    panel.draw(SimpleNamespace(layout=layout), bpy.context)
    return layout.operators


@pytest.fixture
def attended(monkeypatch):
    """As in a window; what was asked for before is forgotten."""
    monkeypatch.setattr(asked, "_is_unattended", lambda: False)
    monkeypatch.setattr(asked, "_asked", set())


@pytest.fixture
def touched(monkeypatch):
    """Every path of the stranger that anything looks at, opens or gives to a process."""
    found = []

    def watch(module, name):
        real = getattr(module, name)

        def watched(path, *args, **options):
            if "stranger" in str(path):
                found.append(f"{name} {path}")
            return real(path, *args, **options)

        monkeypatch.setattr(module, name, watched)

    for module, name in (
        *((os, name) for name in ("stat", "lstat", "open", "scandir", "listdir")),
        *((io, "open"), (builtins, "open"), (subprocess, "Popen")),
    ):
        watch(module, name)
    return found


@pytest.fixture
def stranger(tmp_path, attended):
    """A file that is opened, whose scene names a sound in four ways, and a model; nothing of it exists."""

    def opened(source: str):
        scene, settings = bpy.context.scene, bpy.context.scene.wav2sem
        block = bpy.data.sounds.new(f"{PLACE}/line.wav") if hasattr(bpy.data.sounds, "new") else None
        if block is None:
            wav = tmp_path / "line.wav"
            look_file(wav)
            block = bpy.data.sounds.load(str(wav))
            block.filepath = f"{PLACE}/line.wav"
        strips = scene.sequence_editor_create()
        strips = strips.strips if hasattr(strips, "strips") else strips.sequences
        wav = tmp_path / "other.wav"
        look_file(wav)
        strips.new_sound("line", str(wav), 1, 1).sound = block
        speaker = bpy.data.objects.new("Speaker", bpy.data.speakers.new("Speaker"))
        speaker.data.sound = block
        scene.collection.objects.link(speaker)
        mesh = bpy.data.objects.new("Head", bpy.data.meshes.new("Head"))
        scene.collection.objects.link(mesh)
        settings.source, settings.filepath, settings.model = source, f"{PLACE}/line.wav", f"{PLACE}/model"
        settings.strip, settings.sound, settings.speaker, settings.target = "line", block, speaker, mesh
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "file.blend"))
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "file.blend"))
        asked._asked.clear()
        return bpy.context.scene

    return opened


def look_file(path):
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


@pytest.mark.parametrize("source", SOURCES)
def test_drawing_opens_nothing(source, stranger, touched):
    scene = stranger(source)
    touched.clear()
    assert scene.wav2sem.model == f"{PLACE}/model"
    assert draw(panels.WAV2SEM_PT_speech) == ["wav2sem.read_sound"]
    draw(panels.WAV2SEM_PT_face)
    assert "wav2sem.animate" in draw(panels.WAV2SEM_PT_animate)
    assert status.sound_problem(bpy.context) == "" and status.run_words(bpy.context) is None
    assert WAV2SEM_OT_play_speech.disabled_reason(bpy.context) == ""
    assert animate_settings.style_names(bpy.context, scene.wav2sem.model) == []
    assert touched == []


@pytest.mark.parametrize("source", SOURCES)
def test_a_click_opens_it(source, stranger, touched):
    scene = stranger(source)
    touched.clear()
    assert bpy.ops.wav2sem.read_sound() == {"FINISHED"}
    assert touched == [], "the panels look, when they are drawn"
    assert "wav2sem.read_sound" not in draw(panels.WAV2SEM_PT_speech)
    assert "There is no file" in status.sound_problem(bpy.context)
    draw(panels.WAV2SEM_PT_animate)
    assert any("line.wav" in path for path in touched) and any("model" in path for path in touched)
    assert scene.wav2sem.source == source


@pytest.mark.parametrize("source", SOURCES)
def test_animate_and_play_are_clicks_too(source, stranger, touched):
    stranger(source)
    touched.clear()
    with pytest.raises(RuntimeError):
        bpy.ops.wav2sem.play_speech()
    assert any("line.wav" in path for path in touched)
    asked._asked.clear()
    with pytest.raises(RuntimeError):
        bpy.ops.wav2sem.animate()
    assert asked.is_asked(f"{PLACE}/line.wav")
    assert asked.is_asked(f"{PLACE}/model")


def test_what_the_user_chooses_is_asked_for(attended, tmp_path):
    settings = bpy.context.scene.wav2sem
    settings.filepath = str(tmp_path / "voice.wav")
    assert asked.is_asked(settings.filepath) and not asked.is_asked(f"{PLACE}/line.wav")
    settings.source, settings.filepath = "SOUND", str(tmp_path / "other.wav")
    assert asked.is_asked(settings.filepath), "also if the source is chosen after it"
    settings.source, settings.filepath = "FILE", str(tmp_path / "voice.wav")
    settings.model = str(tmp_path / "model")
    assert asked.is_asked(settings.model)
    assert "There is no file" in status.sound_problem(bpy.context)


def test_a_relative_path_is_asked_for_in_its_folder_only(attended, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "one" / "file.blend"))
    bpy.context.scene.wav2sem.filepath = "//voice.wav"
    assert asked.is_asked("//voice.wav")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "two" / "file.blend"), relative_remap=False)
    assert not asked.is_asked("//voice.wav")


def test_a_packed_sound_is_in_the_file(attended, tmp_path):
    wav = tmp_path / "line.wav"
    look_file(wav)
    block = bpy.data.sounds.load(str(wav))
    block.pack()
    wav.unlink()
    bpy.context.scene.wav2sem.source, bpy.context.scene.wav2sem.sound = "SOUND", block
    asked._asked.clear()
    assert info.chosen_info(bpy.context.scene, look.PATIENCE_S).duration_s == pytest.approx(1.0)


@pytest.mark.parametrize("is_packed", [False, True])
def test_words_beside_the_sound_are_looked_for_when_the_sound_is_asked_for(is_packed, attended, touched, tmp_path):
    (tmp_path / "stranger").mkdir()
    wav = tmp_path / "stranger" / "line.wav"
    look_file(wav)
    wav.with_suffix(".txt").write_text("Hello")
    block = bpy.data.sounds.load(str(wav))
    if is_packed:
        block.pack()
    bpy.context.scene.wav2sem.source, bpy.context.scene.wav2sem.sound = "SOUND", block
    asked._asked.clear()
    touched.clear()
    assert transcript._beside(bpy.context) is None and touched == []
    info.ask_for_chosen(bpy.context.scene)
    assert transcript._beside(bpy.context) == wav.with_suffix(".txt")


def test_the_bundled_model_needs_no_question(attended):
    assert animate_settings.style_names(bpy.context, "default")
    assert properties.WAV2SEM_PG_settings.bl_rna.properties["model"].default == "default"
