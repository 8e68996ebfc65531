# SPDX-License-Identifier: GPL-3.0-or-later
"""Words without a transcript: a task lets the recogniser of the preferences write down what is said in the sound."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import bpy

from ...errors import Text, UserError
from ...leftovers import MadeFolder
from ...pipeline.recognise import MODULE, NoLibraryError, check_folder
from ...pipeline.time_slicing import Steps
from ...worker import environment
from ...worker.environment import WorkerEnvironment
from ...worker.job_limits import size_bytes
from ...worker.runtime import RECOGNISER, Runtime
from ...worker.task import TaskProcess
from .. import addon_preferences
from ..tasks.task import Task
from . import recording
from .settings import AnimateSettings, worker_environment

# Property of a text: the language that the recogniser heard.
HEARD = "wav2sem_heard"
# Decoding by a second Blender tells no progress.
_DECODED = 0.1
# A recognition that takes longer hangs: a large model needs some seconds for each of speech, which has 32 kB.
_LIMIT_S, _S_PER_SOUND_BYTE = 1800.0, 1 / 1000


class Words(NamedTuple):
    """What was recognised.

    Attributes:
        text: A text of this file, a line for each of the recogniser's.
        language: As in `LANGUAGES`, or "".
        n: How many words there are.
    """

    text: bpy.types.Text
    language: str
    n: int


class Recognition(Task):
    """A recognition in progress. Its end makes a text of the file, which the scene's panel then takes."""

    doing = "Words are being recognised"

    def __init__(self, context: bpy.types.Context, settings: AnimateSettings, folder: Path | None = None) -> None:
        """Begin.

        Args:
            context: The scene in which the sound is.
            settings: The sound, its range and the language; "" lets the recogniser hear it.
            folder: The recogniser's; None for that of the preferences.

        Raises:
            UserError, OSError: It cannot start; nothing was changed.
        """
        super().__init__("Reading the Audio")
        self._model = chosen_folder(context) if folder is None else folder
        check_folder(self._model)
        recogniser_environment(context)  # what is missing is told before a sound is decoded
        self._device, self._language = settings.device, settings.language
        self._scene_uid, self._scene_name = context.scene.session_uid, context.scene.name
        self._task: TaskProcess | None = None
        self._decoding = None
        self._folder = MadeFolder("wav2sem_words_")
        try:
            self._audio, _ = recording.of_run(context.scene, settings, self._folder.path)
            self._decoding = self._audio.decoding()
        except BaseException:
            self.cancel()
            raise
        self._begin()

    def _go_on(self) -> bool:
        if self._task is None:
            if self._decoding is not None and not self._decoding.poll():
                return False
            audio = self._audio.for_worker
            self._task = process(bpy.context, audio, self._model, self._device, self._language)
        is_done = self._task.poll()
        self.title, self.fraction = self._task.text, _DECODED + (1 - _DECODED) * self._task.fraction
        return is_done

    def _write(self, _context: bpy.types.Context) -> Steps[Words]:
        assert self._task is not None
        scene = next((scene for scene in bpy.data.scenes if scene.session_uid == self._scene_uid), None)
        if scene is None:
            raise UserError(
                'The scene "{scene}" was deleted meanwhile. Undo that, or go to another scene, and run it again.',
                scene=self._scene_name,
            )
        found = self._task.result
        if not found.get("words"):
            raise UserError("No words were recognised in this sound. Is it speech, and is the range right?")
        yield
        text = bpy.data.texts.new(Path(self._audio.name).stem)
        text.write(f"{found['text']}\n")
        text[HEARD] = found["language"]
        panel = scene.wav2sem
        panel.said, panel.transcript_text, panel.language = "TEXT", text, found["language"]
        return Words(text, found["language"], found["words"])

    def _release(self) -> None:
        for part in (self._decoding, self._task):
            if part is not None:
                part.cancel()
        self._folder.remove()


def process(context: bpy.types.Context, audio: Path, model: Path, device: str, language: str) -> TaskProcess:
    """Begin to recognise; the result is that of `worker.recognise`.

    Raises:
        UserError: As `recogniser_environment`.
    """
    worker = recogniser_environment(context)
    if installed_runtime() is not None:
        device = "cpu"  # it has none of NVIDIA's libraries
    elif device == "auto":
        device = addon_preferences.get(context).device
    command = worker.run("worker.recognise", str(audio), str(model), device, language)
    limit_s = _LIMIT_S + size_bytes(audio) * _S_PER_SOUND_BYTE
    return TaskProcess(command, worker.variables(), "Loading the Recogniser", limit_s)


def words_told(words: Words) -> Text:
    """How many words there are, and what to do with them."""
    template = '{n} words were recognised, in the text "{text}"; correct them and animate'
    return Text(template, n=words.n, text=words.text.name)


def disabled_reason(context: bpy.types.Context) -> str:
    """Why no words can be recognised, whatever the sound; empty when they can."""
    try:
        check_folder(chosen_folder(context))
        recogniser_environment(context)
    except UserError as error:
        return error.text
    return ""


def chosen_folder(context: bpy.types.Context) -> Path:
    """The recogniser's folder of the preferences; UserError without one."""
    chosen = addon_preferences.get(context).recogniser_folder
    if not chosen:
        raise UserError("No recogniser is chosen; choose the folder of a Whisper model in the add-on's preferences")
    return Path(bpy.path.abspath(chosen)).absolute()


def recogniser_environment(context: bpy.types.Context) -> WorkerEnvironment:
    """The Python that recognises: the installed runtime, else the one that the user named, else Blender's own.

    Raises:
        NoLibraryError: Blender's own has no faster-whisper. Whether the user's has, a run tells.
        UserError: The user's is not there.
    """
    if (installed := installed_runtime()) is not None:
        return environment.from_python(installed.python)
    if not addon_preferences.get(context).torch_python and find_spec(MODULE) is None:
        raise NoLibraryError(
            "faster-whisper is not installed; install the Recogniser Runtime in the add-on's preferences"
        )
    return worker_environment(context)


def installed_runtime() -> Runtime | None:
    """The recogniser's runtime, if it is complete."""
    folder = addon_preferences.runtime_folder(RECOGNISER.name)
    made = None if folder is None else Runtime(folder, RECOGNISER)
    return made if made is not None and made.is_complete else None
