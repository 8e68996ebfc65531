# SPDX-License-Identifier: GPL-3.0-or-later
"""Sounds of strangers: damaged, endless or no sound at all; none is opened in Blender's own process before a click."""

import os
import random
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.sound import decode, look, playback, source
from wav2sem_blender.blender.sound import info as sound_info
from wav2sem_blender.blender.ui import panels, status
from wav2sem_blender.worker.task import TaskProcess

import aud  # isort: skip  (found only beside bpy)

RATE_HZ = 8000


@pytest.fixture(autouse=True)
def forgotten():
    look._known.clear()
    yield
    look.shut_down()


@pytest.fixture(autouse=True)
def no_decoder_in_this_process(monkeypatch):
    """Every way in which `aud` opens a file here fails the test."""

    def opened(*_arguments):
        raise AssertionError("a stranger's file was opened in Blender's process")

    for module in (decode, sound_info, playback):
        monkeypatch.setattr(module, "aud", SimpleNamespace(Sound=SimpleNamespace(file=opened), error=aud.error))


@pytest.fixture
def windowed(monkeypatch):
    """Blender with a window: the panel never waits. The timer is called by hand."""
    monkeypatch.setattr(
        look,
        "bpy",
        SimpleNamespace(
            app=SimpleNamespace(background=False, timers=bpy.app.timers, binary_path=""),
            context=bpy.context,
            path=bpy.path,
        ),
    )


def wav_bytes(n_channels=1, rate_hz=RATE_HZ, seconds=1.0):
    data = bytes(2 * n_channels * round(RATE_HZ * seconds))
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, n_channels, rate_hz, 2 * rate_hz, 2 * n_channels & 0xFFFF, 16)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def sentence_of(file: Path) -> str:
    """What the panel says about a file that is no sound."""
    with pytest.raises(ValueError, match=file.name) as error:
        look.at_file(file)
    assert "Internal error" not in str(error.value)
    return str(error.value)


def crashing(monkeypatch, code: str):
    """Let the looking process run this code instead."""
    import sys  # noqa: PLC0415

    def start(command, variables, text, limit_s=None, **names):
        return TaskProcess([sys.executable, "-c", code], variables, text, limit_s, **names)

    monkeypatch.setattr(look, "TaskProcess", start)


@pytest.mark.parametrize(("n_channels", "rate_hz"), [(0, RATE_HZ), (1, 0), (1, 1_946_721_669), (513, RATE_HZ)])
@pytest.mark.parametrize("suffix", [".wav", ".mkv"])
def test_headers_that_would_crash_the_player(tmp_path, n_channels, rate_hz, suffix):
    """They are refused before Play can be clicked, whoever looks: libsndfile or the second Blender."""
    file = tmp_path / f"absurd{suffix}"
    file.write_bytes(wav_bytes(n_channels, rate_hz, 0.01))
    sentence_of(file)
    bpy.context.scene.wav2sem.filepath = str(file)
    with pytest.raises(RuntimeError, match=file.name):
        bpy.ops.wav2sem.play_speech()


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGFPE", "SIGABRT", "SIGKILL"])
def test_a_crash_is_one_sentence(tmp_path, monkeypatch, signal):
    file = tmp_path / "bad.wav"
    file.write_bytes(wav_bytes())
    crashing(monkeypatch, f"import os, signal; os.kill(os.getpid(), signal.{signal})")
    damaged = '"bad.wav" is damaged: the program that read it crashed or did not end; choose another file'
    assert sentence_of(file) == damaged
    crashing(monkeypatch, "raise SystemExit('looked at twice')")
    bpy.context.scene.wav2sem.filepath = str(file)
    assert status.sound_problem(bpy.context) == damaged


def test_a_reader_that_does_not_end(tmp_path, monkeypatch):
    file = tmp_path / "endless.wav"
    file.write_bytes(wav_bytes())
    crashing(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(look, "_LIMIT_S", 0.3)
    assert "did not end" in sentence_of(file)


def test_a_pipe_is_never_opened(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.wav")
    assert sentence_of(tmp_path / "pipe.wav") == '"pipe.wav" is no file; choose one'


def test_a_name_with_a_null_character():
    assert "There is no file" in sentence_of(Path("/a\0b.wav"))


def test_the_panel_waits_for_nothing(tmp_path, windowed):
    """It says that it reads, the buttons stay on, and one process answers all redraws."""
    file, settings = tmp_path / "voice.wav", bpy.context.scene.wav2sem
    file.write_bytes(wav_bytes())
    settings.filepath = str(file)
    began_s = time.thread_time()
    for _ in range(20):
        with pytest.raises(look.BeingReadError):
            sound_info.chosen_info(bpy.context.scene)
    assert time.thread_time() - began_s < 0.2
    assert len(look._running) == 1 and look.any_running()
    assert status.sound_problem(bpy.context) == ""
    assert bpy.app.timers.is_registered(look._watch)
    while look._watch() is not None:
        time.sleep(0.02)
    assert sound_info.chosen_info(bpy.context.scene).words() == "1.0 s, 8 kHz, mono"
    assert not look.any_running()


def test_what_the_panel_draws_meanwhile(tmp_path, windowed):
    from .test_panels import drawn  # noqa: PLC0415, TID252

    file = tmp_path / "voice.wav"
    file.write_bytes(wav_bytes())
    bpy.context.scene.wav2sem.filepath = str(file)
    assert ("label", "Reading the Sound", True) in (rows := drawn(panels.WAV2SEM_PT_speech))
    look.at_file(file, patience_s=30)
    assert ("label", "1.0 s, 8 kHz, mono", True) in (then := drawn(panels.WAV2SEM_PT_speech))
    assert [kind for kind, *_ in rows] == [kind for kind, *_ in then], "nothing moves"


def test_not_more_than_a_few_at_once(tmp_path, windowed):
    files = [tmp_path / f"{number}.wav" for number in range(10)]
    for file in files:
        file.write_bytes(wav_bytes())
        with pytest.raises(look.BeingReadError):
            look.at_file(file)
    assert len(look._running) == 4
    assert all(look.at_file(file, patience_s=60).duration_s == 1 for file in files)


def test_a_packed_sound(tmp_path):
    file = tmp_path / "voice.wav"
    file.write_bytes(wav_bytes(seconds=2))
    block = bpy.data.sounds.load(str(file))
    block.pack()
    file.unlink()
    settings = bpy.context.scene.wav2sem
    settings.source, settings.sound = "SOUND", block
    assert sound_info.chosen_info(bpy.context.scene).words() == "2.0 s, 8 kHz, mono"
    assert not look.any_running()


def test_a_film_that_crashes_its_decoder(tmp_path, monkeypatch):
    film = tmp_path / "film.mkv"
    film.write_bytes(wav_bytes())
    monkeypatch.setattr(look, "second_blender", lambda *_task: ["/bin/sh", "-c", "kill -SEGV $$"])
    decoding = source.audio_file(film, tmp_path / "job").decoding()
    with pytest.raises(ValueError, match=r"^The second Blender ended unexpectedly \(SIGSEGV\)\. Convert the sound"):
        while not decoding.poll():
            time.sleep(0.02)


def test_a_short_film_is_decoded_by_the_second_blender(tmp_path):
    aud.Sound.buffer(np.zeros((RATE_HZ, 1), np.float32), RATE_HZ).write(
        str(tmp_path / "film.mkv"), RATE_HZ, 1, aud.FORMAT_S16, aud.CONTAINER_MATROSKA, aud.CODEC_PCM
    )
    audio = source.audio_file(tmp_path / "film.mkv", tmp_path / "job")
    assert look.at_file(tmp_path / "film.mkv").n_channels == 1
    decoding = audio.decoding()
    while not decoding.poll():
        time.sleep(0.02)
    assert audio.for_worker.stat().st_size >= 44 + 4 * RATE_HZ


def test_mutated_sounds(tmp_path):
    """A few mutations of each format, through what the panel does: an answer or a sentence, and no process is left."""
    chance, n_threads = random.Random(15), threading.active_count()
    for number in range(6):
        content = bytearray(wav_bytes())
        for _ in range(8):
            content[chance.randrange(64)] = chance.randrange(256)
        file = tmp_path / f"{number}.wav"
        file.write_bytes(content)
        try:
            assert look.at_file(file).rate_hz >= 0
        except ValueError as error:
            assert "Internal error" not in str(error)
    assert not look.any_running() and threading.active_count() == n_threads
