# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's page in the preferences, as seen by someone who wants larger models."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import bpy
import stage
from checks import Figures, Scenario
from harness import Gui, Steps


def preferences_page(gui: Gui) -> Steps[Figures]:
    """The engine in use; a model imported, verified and removed; the runtime's states, without a download."""
    with gui.override():
        bpy.ops.preferences.addon_show(module=stage.MODULE)
    runtime, tasks = stage.part("blender.preferences.python"), stage.part("blender.tasks.in_process")
    yield 1.0
    yield from gui.until(lambda: runtime.answer(bpy.context) is not None, "the Python's answer", 240)
    yield from gui.picture("preferences")
    answer = runtime.answer(bpy.context)
    assert answer.bundled.startswith("ONNX Runtime"), answer
    yield from _models(gui)
    yield from _runtime(gui, runtime, tasks)
    window = next(window for window in bpy.context.window_manager.windows if window != gui.window)
    with bpy.context.temp_override(window=window):
        bpy.ops.wm.window_close()
    yield 0.3
    return {"engine": answer.bundled, "Python": answer.python}


def _models(gui: Gui) -> Steps[None]:
    """From an empty models folder to one model and back."""
    folders, tasks = stage.part("blender.preferences.models"), stage.part("blender.tasks.in_process")
    folder = Path(tempfile.mkdtemp(prefix="models_"))
    source = _write_model(Path(tempfile.mkdtemp(prefix="elsewhere_")) / "interview_voice")
    bpy.context.preferences.addons[stage.MODULE].preferences.models_folder = str(folder)
    bpy.ops.wav2sem.import_checkpoint(filepath=str(source / "config.json"))
    yield from gui.until(lambda: not tasks.any_running(), "the import", 240)
    assert [model.name for model in folders.known(bpy.context)] == ["default", "interview_voice"]
    for name in ("default", "interview_voice"):
        (folder / "interview_voice" / "model.safetensors").write_bytes(b"five")
        bpy.ops.wav2sem.verify_model(name=name)
        yield from gui.until(lambda: not tasks.any_running(), "the hashes", 240)
    found = [folders.verify_result(model) for model in folders.known(bpy.context)]
    assert [bad for _, bad in found] == [False, True], found
    recogniser = Path(tempfile.mkdtemp(prefix="whisper_"))
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (recogniser / name).write_bytes(bytes(36_000_000))
    bpy.context.preferences.addons[stage.MODULE].preferences.recogniser_folder = str(recogniser)
    yield from _scroll_down()
    yield from gui.picture("preferences_models")
    bpy.ops.wav2sem.remove_model(name="interview_voice")
    assert list(folder.iterdir()) == []


def _runtime(gui: Gui, runtime: Any, tasks: Any) -> Steps[None]:
    """Offline, downloading, interrupted, complete."""
    assert not bpy.ops.wav2sem.install_runtime.poll(), "offline, nothing can be installed"
    packages = stage.part("worker.runtime").TORCH
    made, installing = runtime.runtime(packages), runtime.task_of(runtime.INSTALL, packages)
    place = made.folder
    task = stage.part("worker.task").TaskProcess(["sleep", "600"], {}, "Downloading torch (1.2 GB of about 3.1 GB)")
    task.fraction = 0.4
    tasks.start(installing, task, lambda result, error: None)
    yield from gui.picture("preferences_installing")
    made.python.parent.mkdir(parents=True)
    bpy.ops.wav2sem.cancel_task(name=installing)
    assert task.poll() and made.is_unfinished
    yield from gui.until(lambda: runtime.answer(bpy.context) and not tasks.any_running(), "the measure", 240)
    yield from gui.picture("preferences_unfinished")
    made.python.write_bytes(b"")
    made.set_complete()
    bpy.context.preferences.addons[stage.MODULE].preferences.torch_python = "/usr/bin/python3"
    runtime.forget()
    yield from _scroll_down(n_pages=-3)
    yield from gui.until(lambda: runtime.answer(bpy.context) is not None, "the other Python's answer", 240)
    yield from gui.picture("preferences_without_torch")
    bpy.ops.wav2sem.use_own_python()
    bpy.ops.wav2sem.remove_runtime()
    yield from gui.until(lambda: not tasks.any_running() and not place.exists(), "the removal", 240)
    shutil.rmtree(place, ignore_errors=True)


def _scroll_down(n_pages: int = 3) -> Steps[None]:
    """Scroll the page, which is longer than its window; a negative number scrolls up."""
    window = next(
        window for window in bpy.context.window_manager.windows if window.screen.areas[0].type == "PREFERENCES"
    )
    area = window.screen.areas[0]
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        for _ in range(abs(n_pages)):
            (bpy.ops.view2d.scroll_down if n_pages > 0 else bpy.ops.view2d.scroll_up)(page=True)
    area.tag_redraw()
    yield 0.3


def _write_model(folder: Path) -> Path:
    """A Wav2Sem of four bytes, which is enough for files and hashes."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"four")
    files = {"model.safetensors": hashlib.sha256(b"four").hexdigest()}
    config = {"format_version": 1, "wav2sem": {"config": {}, "target_dim": 4}, "files": files}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


ALL: tuple[Scenario, ...] = (preferences_page,)
