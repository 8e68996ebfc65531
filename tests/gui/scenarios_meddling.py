# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person may do during a job, and input that cannot be used: the message is clear and the scene unchanged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import bpy
import stage
from checks import Figures, Scenario, heard, snapshot, unchanged
from harness import Gui, Steps
from stalls import LONGEST_STALL_MS, watch_run


def escape_cancels(gui: Gui) -> Steps[None]:
    """Esc ends the job and its process; the next click works."""
    yield from stage.ready(gui, stage.demo_speech())
    before, already = snapshot(), len(gui.reports())
    with (yield from stage.start_held(gui)):
        pid = stage.worker_pid()
        yield 0.5
        yield from gui.key("ESC")
        yield from stage.finish(gui, 10)
    unchanged(before)
    heard(gui, "Cancelled", already)
    assert not Path(f"/proc/{pid}").exists(), f"the worker {pid} outlives the cancelled job"
    yield from gui.picture("cancelled")
    yield from stage.start(gui)
    yield from stage.finish(gui)
    assert stage.curves(), "the click after a cancelled job made nothing"


def two_jobs_at_once(gui: Gui) -> Steps[Figures]:
    """During a job, no second one starts, and the reason is given."""
    yield from stage.ready(gui, stage.demo_speech())
    before = snapshot()
    with (yield from stage.start_held(gui)):
        try:
            with gui.override():
                bpy.ops.wav2sem.animate("INVOKE_DEFAULT")
        except RuntimeError as error:
            reason = str(error).strip()
        else:
            raise AssertionError("a second job was accepted")
        yield from gui.picture("second_job_refused")
        yield from gui.key("ESC")
        yield from stage.finish(gui, 10)
    unchanged(before)
    assert "Esc" in reason, reason
    return {"reason": reason}


def mesh_deleted(gui: Gui) -> Steps[Figures]:
    """The head is deleted during the job."""

    def delete() -> Steps[None]:
        yield from gui.key("DEL")
        yield from gui.until(lambda: stage.head() is None, "the head's end", 5)

    said = yield from _meddle(gui, "mesh_deleted", delete, f'The mesh "{stage.HEAD}" was deleted meanwhile')
    assert not bpy.data.actions, bpy.data.actions.keys()
    return said


def mesh_renamed(gui: Gui) -> Steps[Figures]:
    """The head is renamed during the job, and speaks under the new name."""

    def rename() -> Steps[None]:
        stage.head().name = "Renamed"
        yield 0.1

    said = yield from _meddle(gui, "mesh_renamed", rename, '"Renamed" speaks from frame 1')
    assert bpy.data.objects["Renamed"].data.shape_keys.animation_data.action, "no action"
    return said


def edit_mode(gui: Gui) -> Steps[Figures]:
    """Tab enters Edit Mode during the job; after the message Tab leaves it, and nothing has changed."""
    seen = {}

    def enter() -> Steps[None]:
        seen["before"] = snapshot()
        yield from gui.key("TAB")
        yield from gui.until(lambda: stage.head().mode == "EDIT", "Edit Mode", 5)

    said = yield from _meddle(gui, "edit_mode", enter, "is in Edit Mode. Return to Object Mode first")
    yield from gui.dismiss()
    yield from gui.key("TAB")
    yield from gui.until(lambda: stage.head().mode == "OBJECT", "Object Mode", 5)
    unchanged(seen["before"])
    return said


def scene_switched(gui: Gui) -> Steps[Figures]:
    """Another scene is opened during the job: the head speaks in the scene where the job began."""
    other = bpy.data.scenes.new("Other Scene")

    def switch() -> Steps[None]:
        gui.window.scene = other
        yield 0.2

    said = yield from _meddle(gui, "scene_switched", switch, "speaks from frame 1")
    assert stage.curves() and gui.window.scene == other
    return said


def audio_deleted(gui: Gui) -> Steps[Figures]:
    """The audio file is deleted before the worker has opened it."""
    audio = stage.audio_folder() / "fleeting.flac"
    shutil.copy(stage.demo_speech(), audio)

    def delete() -> Steps[None]:
        audio.unlink()
        yield 0.1

    return (yield from _meddle(gui, "audio_deleted", delete, "fleeting.flac: there is no such audio file", audio=audio))


def blender_quit(gui: Gui) -> Steps[None]:
    """Blender quits during the job: its worker and its temporary folder are gone."""
    yield from _end_another(gui, "quit")


def window_closed(gui: Gui) -> Steps[None]:
    """Blender's only window is closed during the job: the same."""
    yield from _end_another(gui, "close")


def blender_killed(gui: Gui) -> Steps[None]:
    """Blender is killed during the job: the worker ends and removes its folder."""
    yield from _end_another(gui, "kill")


def ten_minutes_of_visemes(gui: Gui) -> Steps[Figures]:
    """The longest stall while a face with visemes gets ten minutes of speech; solver and writing could stall."""
    yield from stage.ready(gui, stage.long_speech(600))
    head = stage.head()
    for block in head.data.shape_keys.key_blocks[1:]:
        head.shape_key_remove(block)
    for name in "sil PP FF TH DD kk CH SS nn RR aa E I O U".split():
        head.shape_key_add(name=f"viseme_{name}", from_mix=False)
    watch = yield from watch_run(gui, 400)
    assert len(stage.curves()) == 15, sorted(stage.curves())
    # Without a GPU, a redraw alone takes about as long as the limit.
    limit_ms = LONGEST_STALL_MS + 1e3 * watch.thread_s["rest"]
    for name in ("job", "job to writing", "writing"):
        assert 1e3 * watch.thread_s.get(name, 0.0) < limit_ms, f"{name}: {watch.figures()}"
    yield from gui.picture("ten_minutes_of_visemes")
    return watch.figures()


def frame_changed(gui: Gui) -> Steps[None]:
    """Arrow keys change the current frame during the job, which ends as usual."""

    def forward() -> Steps[None]:
        for _ in range(5):
            yield from gui.key("RIGHT_ARROW")

    yield from _meddle(gui, "frame_changed", forward, "speaks from frame 1")
    assert gui.window.scene.frame_current == 6, gui.window.scene.frame_current
    assert stage.curves()


def rate_changed(gui: Gui) -> Steps[None]:
    """The frame rate changes during the job; the curves have a key on every frame of the new rate."""

    def faster() -> Steps[None]:
        gui.window.scene.render.fps = 60
        yield 0.1

    yield from _meddle(gui, "rate_changed", faster, "speaks from frame 1")
    n_keys = stage.curves()[stage.JAW]
    expected = stage.duration_s(stage.demo_speech()) * 60
    assert abs(n_keys - expected) <= 4, f"{n_keys} keys, {expected:.0f} frames of speech"


def undone(gui: Gui) -> Steps[None]:
    """Ctrl Z during the job undoes what the user did before it; the job ends as usual."""

    def undo() -> Steps[None]:
        yield from gui.key("Z", ctrl=True)
        yield from gui.until(lambda: abs(stage.head().location.x) < 1e-6, "the undone move", 5)

    def move() -> None:
        stage.head().location.x = 0.5
        bpy.ops.ed.undo_push(message="Move")

    yield from _meddle(gui, "undone", undo, "speaks from frame 1", prepare=move)
    assert stage.curves()


def file_opened(gui: Gui) -> Steps[None]:
    """Another file is opened during the job, which ends with its own file."""
    yield from stage.ready(gui, stage.demo_speech())
    with (yield from stage.start_held(gui)):
        pid = stage.worker_pid()
        yield from stage.fresh_scene(gui)
        assert not stage.running(), "the job outlives its file"
    assert not Path(f"/proc/{pid}").exists(), f"the worker {pid} outlives the cancelled job"
    assert not bpy.data.actions
    yield from gui.picture("file_opened")


def saved_in_mid_job(gui: Gui) -> Steps[None]:
    """A file saved during the job opens in a Blender without the add-on."""
    yield from stage.ready(gui, stage.demo_speech())
    path = stage.audio_folder() / "saved_in_mid_job.blend"
    with (yield from stage.start_held(gui)):
        with gui.override():
            bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)
        yield from gui.key("ESC")
        yield from stage.finish(gui, 10)
    ask = f"import bpy; print('opened', {stage.HEAD!r} in bpy.data.objects, len(bpy.data.actions))"
    other = {**os.environ, "BLENDER_USER_RESOURCES": str(stage.audio_folder() / "nothing")}
    command = [bpy.app.binary_path, "--background", "--factory-startup", str(path), "--python-expr", ask]
    opened = subprocess.run(command, env=other, capture_output=True, text=True)
    assert "opened True 0" in opened.stdout, f"{opened.stdout}{opened.stderr}"


def unusable_audio(gui: Gui) -> Steps[Figures]:
    """A missing file or a text file disables the button with a reason; too short a sound gives one message."""
    text, short = stage.audio_folder() / "text.wav", stage.long_speech(0.0)
    text.write_text("no sound at all", encoding="utf-8")
    yield from stage.add_head(gui)
    figures = {}
    for path, sentence in ((Path("/nowhere.wav"), 'no file "nowhere.wav"'), (text, "no sound")):
        yield from stage.choose_audio(gui, path)
        figures[path.name] = stage.why_off(gui)
        assert sentence in figures[path.name], figures
        yield from gui.picture(f"unusable_{path.stem}")
    yield from stage.choose_audio(gui, short)
    before, already = snapshot(), len(gui.reports())
    yield from stage.press_animate(gui)
    yield from stage.finish(gui)
    figures[short.name] = heard(gui, short.name, already)
    unchanged(before)
    yield from gui.picture("unusable_short")
    yield from gui.dismiss()
    return figures


def worker_killed(gui: Gui) -> Steps[Figures]:
    """The worker's process dies during the job."""

    def kill() -> Steps[None]:
        os.kill(stage.worker_pid() or 0, signal.SIGKILL)
        yield 0.1

    said = yield from _meddle(gui, "worker_killed", kill, "The worker was ended from outside")
    yield from gui.dismiss()
    yield from stage.start(gui)
    yield from stage.finish(gui)
    assert stage.curves(), "the click after a dead worker made nothing"
    return said


def _meddle(
    gui: Gui,
    name: str,
    meddle: Callable[[], Steps[None]],
    sentence: str,
    prepare: Callable[[], None] | None = None,
    audio: Path | None = None,
) -> Steps[Figures]:
    """Start a job, hold its worker, run `meddle`, let the job go on, and return the message with `sentence`.

    Where the message is no success, the scene is as `meddle` left it.
    """
    yield from stage.ready(gui, audio or stage.demo_speech())
    if prepare is not None:
        with gui.override():
            prepare()
        yield 0.1
    already = len(gui.reports())
    with (yield from stage.start_held(gui)):
        yield from meddle()
        meddled = snapshot()
    yield from stage.finish(gui)
    said = heard(gui, sentence, already)
    yield from gui.picture(name)
    if "speaks" not in said:
        unchanged(meddled)
    return {"said": said}


def _end_another(gui: Gui, way: str) -> Steps[None]:
    """Start a second Blender, end it during its job, and look for what it leaves behind."""
    news = stage.audio_folder() / f"{way}.json"
    news.unlink(missing_ok=True)
    script = Path(__file__).with_name("doomed.py")
    options = ["--factory-startup", "--enable-event-simulate", "-p", "0", "0", "1600", "900", "--python", str(script)]
    # It writes to this process's output.
    process = subprocess.Popen([bpy.app.binary_path, *options, "--", str(news), way])
    try:
        yield from gui.until(lambda: news.is_file() or process.poll() is not None, "the other Blender's job", 180)
        told = json.loads(news.read_text(encoding="utf-8"))
        assert _is_running(told["worker"]), "there is no worker to end"
        if way == "kill":
            process.kill()
        yield from gui.until(lambda: process.poll() is not None, "the other Blender's end", 60)
        if _is_running(told["worker"]):
            os.kill(told["worker"], signal.SIGCONT)
        yield from gui.until(lambda: not _is_running(told["worker"]), "the worker's end", 10)
        yield from gui.until(lambda: not Path(told["session"]).exists(), f"the end of {told['session']}", 10)
        # A killed Blender leaves its own folder.
        assert way == "kill" or not Path(told["temporary"]).exists(), told["temporary"]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


ALL: tuple[Scenario, ...] = (
    escape_cancels,
    two_jobs_at_once,
    mesh_deleted,
    mesh_renamed,
    edit_mode,
    scene_switched,
    audio_deleted,
    frame_changed,
    rate_changed,
    undone,
    file_opened,
    saved_in_mid_job,
    unusable_audio,
    worker_killed,
    blender_quit,
    window_closed,
    blender_killed,
    ten_minutes_of_visemes,
)
