# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by the scenarios: a head to animate, speech of any length, and the add-on's running job."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import tempfile
import wave
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import aud
import bpy
import numpy as np
from harness import TURN_S, Gui, Steps

MODULE = "bl_ext.user_default.wav2sem_blender"
ANIMATE = "wav2sem.animate"
HEAD = "Demo Head"
JAW, LIPS = 'key_blocks["jawOpen"].value', 'key_blocks["mouthPucker"].value'
BLINK = 'key_blocks["eyeBlinkLeft"].value'


def part(name: str) -> Any:
    """A module of the installed add-on, by its name inside the package ("blender.animate.jobs")."""
    return importlib.import_module(f"{MODULE}.{name}")


def package() -> Path:
    """The installed add-on's folder."""
    return Path(importlib.import_module(MODULE).__file__ or "").parent


def demo_speech() -> Path:
    """The bundled speech, under a path that is short enough for the panel."""
    copy = audio_folder() / "demo_speech.flac"
    return copy if copy.is_file() else Path(shutil.copy(package() / "assets" / "demo_speech.flac", copy))


def audio_folder() -> Path:
    """Folder of the scenarios' sounds."""
    folder = Path(tempfile.gettempdir()) / "speech"
    folder.mkdir(exist_ok=True)
    return folder


def long_speech(duration_s: float) -> Path:
    """The bundled speech, repeated in a wave file of `duration_s` seconds."""
    sound = aud.Sound.file(str(demo_speech()))
    rate_hz, samples = int(sound.specs[0]), sound.data()[:, 0]
    repeated = np.resize(samples, int(duration_s * rate_hz))
    path = audio_folder() / f"speech_{duration_s:.0f}_s.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(repeated, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def fresh_scene(gui: Gui) -> Steps[None]:
    """Open Blender's first scene, as after a start, with the Speech tab open."""
    with gui.override():
        bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.5
    yield from gui.open_sidebar("Speech")


def head() -> Any:
    """The current demo head; undo replaces the object."""
    return bpy.data.objects.get(HEAD)


def add_head(gui: Gui) -> Steps[None]:
    """Replace the cube with the demo head, select it and look at it from the front."""
    with gui.override():
        bpy.data.objects.remove(bpy.data.objects["Cube"])
        made = part("blender.scene.demo_head").build_demo_head()
        bpy.context.view_layer.objects.active = made
        made.select_set(True)
        bpy.ops.ed.undo_push(message="Add Demo Head")
    yield from gui.key("NUMPAD_1")
    yield from gui.key("NUMPAD_PERIOD")
    yield 0.6


def choose_audio(gui: Gui, path: Path) -> Steps[None]:
    """Type a path into the panel's audio field."""
    place = yield from gui.find("wav2sem.filepath")
    yield from gui.write(str(path), place)
    chosen = gui.window.scene.wav2sem.filepath
    assert chosen == str(path), f"the audio field holds {chosen!r} after typing {path}"


def press_animate(gui: Gui) -> Steps[None]:
    """Click the big button and move the mouse away."""
    place = yield from gui.find(ANIMATE)
    yield from gui.click(place)
    yield from gui.move(gui.middle_of_view())


def why_off(gui: Gui) -> str:
    """Why the panel's big button is off, "" when it is on."""
    with gui.override("UI"):
        lacking = part("blender.ui.animate").WAV2SEM_OT_animate.disabled_reason(bpy.context)
        assert bpy.ops.wav2sem.animate.poll() == (not lacking)
    return str(lacking)


def ready(gui: Gui, audio: Path) -> Steps[None]:
    """Add a head and choose an audio file: all that the button needs."""
    yield from add_head(gui)
    yield from choose_audio(gui, audio)


def running() -> bool:
    """Whether a job is running."""
    return part("blender.tasks.task").running_task() is not None


def phase() -> str:
    """What occupies the main loop: nothing of the add-on, a job that waits for its worker, or writing curves."""
    job = part("blender.tasks.task").running_task()
    if job is None:
        return "rest"
    return "writing" if job.is_writing else "job"


def start(gui: Gui) -> Steps[None]:
    """Click the button and wait until the job runs."""
    with (yield from start_held(gui)):
        pass


def start_held(gui: Gui) -> Steps[AbstractContextManager[None]]:
    """Click the button, and stop the worker's process so that the job lasts as long as the scenario needs.

    Returns:
        A context; when it ends, the worker continues.
    """
    place = yield from gui.find(ANIMATE)
    already = worker_pid()
    # A warm worker may finish before the next look; a new one takes long to load its model.
    if already is not None:
        os.kill(already, signal.SIGSTOP)
    yield from gui.click(place)
    yield from gui.until(running, "the job's start")
    pid = yield from gui.until(worker_pid, "the worker's process")
    os.kill(pid, signal.SIGSTOP)
    yield from gui.move(gui.middle_of_view())
    return _continuing(pid)


def hold() -> AbstractContextManager[None]:
    """Stop the worker's process; when the context ends, it continues."""
    pid = worker_pid()
    assert pid is not None, "there is no worker to hold"
    os.kill(pid, signal.SIGSTOP)
    return _continuing(pid)


@contextmanager
def _continuing(pid: int) -> Iterator[None]:
    try:
        yield
    finally:
        # A cancelled job ends its worker.
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)


def worker_pid() -> int | None:
    """The id of the worker's process, or None."""
    client = part("blender.animate.jobs")._client
    return client.pid if client is not None and client.alive else None


def fraction() -> float:
    """The running job's progress, 0..1."""
    job = part("blender.tasks.task").running_task()
    return float(job.fraction) if job is not None else 1.0


def finish(gui: Gui, limit_s: float = 240.0) -> Steps[None]:
    """Wait until the job has ended in any way."""
    yield from gui.until(lambda: not running(), "the job's end", limit_s)
    yield 6 * TURN_S


def curves() -> dict[str, int]:
    """Number of keys of the head's active action, by data path; {} without an action."""
    animation = head().data.shape_keys.animation_data
    found = _fcurves(animation.action) if animation is not None and animation.action is not None else []
    return {curve.data_path: len(curve.keyframe_points) for curve in found}


def points_of(action: Any, path: str) -> list[tuple[float, float]]:
    """Frame and value of each key of one curve, [] without that curve."""
    found = [curve for curve in _fcurves(action) if curve.data_path == path]
    return [(point.co[0], point.co[1]) for curve in found for point in curve.keyframe_points]


def _fcurves(action: Any) -> list[Any]:
    bags = [bag for layer in action.layers for strip in layer.strips for bag in strip.channelbags]
    return [curve for bag in bags for curve in bag.fcurves]


def playing_actions() -> list[str]:
    """Names of the actions that animate the head's keys: the active one, then those in NLA tracks."""
    animation = head().data.shape_keys.animation_data
    strips = [strip for track in animation.nla_tracks for strip in track.strips]
    strips = [strip for strip in strips if part("blender.scene.actions").REST not in strip.action]
    return [action.name for action in (animation.action, *(strip.action for strip in strips)) if action]


def duration_s(audio: Path) -> float:
    """Length of a sound."""
    sound = aud.Sound.file(str(audio))
    return float(len(sound.data()) / sound.specs[0])
