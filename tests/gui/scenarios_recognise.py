# SPDX-License-Identifier: GPL-3.0-or-later
"""Words without a transcript by a click: the recogniser is a test double, its process is a real one."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import bpy
import scenarios_any_head as heads
import scenarios_guide as guide
import scenarios_result as results
import scenarios_words as words
import stage
from checks import Figures, Scenario
from harness import Gui, Steps

RECOGNISE, CANCEL = "wav2sem.recognise_words", "wav2sem.cancel"
LINES = ("Please put the paper boat by the pond.", "My mother made me five more ships.")


def recognise_words(gui: Gui) -> Steps[Figures]:
    """Off without a recogniser; with one, a click writes a text, while the interface lives; undo; cancel; animate."""
    yield from stage.ready(gui, stage.demo_speech())
    yield from heads.open_panel(gui, "wav2sem.transcript", below="wav2sem.play_speech")
    yield from results._press(gui, RECOGNISE)
    assert not stage.running(), "no recogniser is chosen, and the button works"
    yield from gui.picture("recognise_off")
    model = _choose_recogniser(seconds=1.5)
    settings = gui.window.scene.wav2sem
    yield from results._press(gui, RECOGNISE)
    yield from gui.until(lambda: stage.running() and _task().title == "Recognising Words", "the recogniser", 60)
    yield from gui.picture("recognise_running")
    yield from gui.until(lambda: not stage.running(), "the words", 60)
    settings = gui.window.scene.wav2sem
    assert (settings.said, settings.language) == ("TEXT", "en"), (settings.said, settings.language)
    assert settings.transcript_text.as_string().splitlines() == list(LINES)
    told = [line for line in gui.reports() if "words were recognised" in line]
    assert told, gui.reports()
    yield 0.5
    yield from gui.picture("recognise_done")
    yield from gui.key("Z", ctrl=True)
    yield from gui.until(lambda: gui.window.scene.wav2sem.said == "LINE", "the undone words", 10)
    yield from gui.key("Z", ctrl=True, shift=True)
    yield from gui.until(lambda: gui.window.scene.wav2sem.said == "TEXT", "the words again", 10)
    _say(model, seconds=60.0)
    n_texts = len(bpy.data.texts)
    yield from results._press(gui, RECOGNISE)
    yield from gui.until(lambda: stage.running() and _task().title == "Recognising Words", "the recogniser", 60)
    yield from results._press(gui, CANCEL)
    yield from gui.until(lambda: not stage.running(), "the end of the recogniser", 10)
    assert len(bpy.data.texts) == n_texts
    yield from words._scroll(gui)
    yield from stage.start(gui)
    yield from stage.finish(gui)
    action = stage.head().data.shape_keys.animation_data.action
    spoken = [word.text for word in stage.part("blender.scene.speech_track").recorded(action).words]
    assert spoken[:4] == ["Please", "put", "the", "paper"], spoken
    return {"told": told[0], "words of the take": len(spoken)}


def guide_recognise(gui: Gui) -> Steps[None]:
    """The guide's picture: What Is Said after the button."""
    yield from stage.ready(gui, stage.demo_speech())
    yield from heads.open_panel(gui, "wav2sem.transcript", below="wav2sem.play_speech")
    _choose_recogniser(seconds=0.0)
    yield from results._press(gui, RECOGNISE)
    yield from gui.until(lambda: gui.window.scene.wav2sem.said == "TEXT", "the words", 60)
    yield from guide._panel(gui, "recognise", "wav2sem.said", RECOGNISE, above=44, below=20)


def _task() -> Any:
    return stage.part("blender.tasks.task").running_task()


def _choose_recogniser(seconds: float) -> Path:
    """Put the double where Blender finds it, as faster-whisper in Blender's own Python would be."""
    libraries, model = (Path(tempfile.mkdtemp(prefix=f"{name}_")) for name in ("libraries", "whisper"))
    shutil.copy(Path(__file__).parents[1] / "fake_faster_whisper.py", libraries / "faster_whisper.py")
    sys.path.append(str(libraries))
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (model / name).write_text("{}", encoding="utf-8")
    _say(model, seconds)
    bpy.context.preferences.addons[stage.MODULE].preferences.recogniser_folder = str(model)
    return model


def _say(model: Path, seconds: float) -> None:
    says = {"language": "en", "lines": LINES, "seconds": seconds}
    (model / "model.bin").write_text(json.dumps(says), encoding="utf-8")


ALL: tuple[Scenario, ...] = (recognise_words,)
GUIDE: tuple[Scenario, ...] = (guide_recognise,)
