# SPDX-License-Identifier: GPL-3.0-or-later
"""`blender -b --command wav2sem_batch lines.csv --output night`: the batch of `batch/`, also for rows with a character.

Scenes are made one after the other in this Blender, with one warm worker; rows without a character by workers, as
`python -m wav2sem_blender batch` makes them. For more cores, start a Blender for each of several chunks.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bpy

from ...assets import DEFAULT_MODEL
from ...batch import command as batch_command
from ...batch import pool, run
from ...batch.exit_codes import CODES, is_of_the_disk
from ...batch.manifest import Row
from ...batch.pool import Answer
from ...errors import Text, UserError, report, user_text
from ...pipeline import delivery
from ...pipeline.checkpoint import CONFIG_FILE, ModelFolder, open_folder
from ...pipeline.curve_formats import SUFFIXES
from ...pipeline.motion import LIVE_LINK_FPS
from ...pipeline.recognise import NoLibraryError, check_folder
from ...pipeline.retarget import resample
from ...worker.client import JobFailedError, WorkerDiedError
from ...worker.environment import WorkerEnvironment, pip_command
from ...worker.task import TaskDiedError, TaskFailedError, TaskProcess
from .. import addon_preferences
from ..scene import exports, speech_track
from ..scene.checks import find_object
from . import jobs, recognise
from .settings import AnimateSettings, resolve_model, worker_environment

NAME = "wav2sem_batch"  # Blender takes identifiers alone
SCENE_SUFFIXES = {"blend": ".blend", "glb": ".glb", "fbx": ".fbx", "usd": ".usdc", "abc": ".abc"}
# Names the scene that is being made, because a file may end Blender itself, and how many runs ended in it. One may have
# been killed for another reason, so a scene is left out after two.
_CURRENT = ".wav2sem_batch.scene"
_ENDS = 2


def run_command(arguments: list[str]) -> int:
    """Run a batch and return its exit code (`batch/exit_codes.py`).

    Args:
        arguments: The command line after `--command wav2sem_batch`.
    """
    parser = argparse.ArgumentParser(prog=f"blender -b --command {NAME}")
    batch_command.add_arguments(parser, {**SCENE_SUFFIXES, **SUFFIXES}, default="blend")
    try:
        options = batch_command.options_of(parser.parse_args(arguments))
    except SystemExit as end:  # argparse has printed an error or the help
        return CODES["usage"] if end.code else 0
    batch_command.end_by_signal()
    context = bpy.context
    try:
        folder = _model_folder(context, options)
        worker = _worker_environment(context, options, folder)
    except NoLibraryError as error:
        return batch_command.failed("engine", report(error))
    except UserError as error:
        return batch_command.failed("model", report(error))
    scenes = _Scenes(options, pool.Workers(n=options.n_workers, environment=pool.one_thread_each(worker)))
    try:
        return run.run(options, _model(options, folder), scenes.made, functools.partial(_files, options), scenes=True)
    finally:
        jobs.shut_down()


def _model_folder(context: bpy.types.Context, options: run.Options) -> ModelFolder:
    name = resolve_model(context, options.model)
    path = DEFAULT_MODEL if name == "default" else Path(name)
    folder = open_folder(path)
    if not isinstance(folder, ModelFolder):
        raise UserError("{path}: a Wav2Sem alone has no face; choose another model.", path=path)
    return folder


def _worker_environment(context: bpy.types.Context, options: run.Options, folder: ModelFolder) -> WorkerEnvironment:
    """The Python of the workers. Where they recognise words, it has faster-whisper and runs the model, too.

    Raises:
        NoLibraryError: It has no faster-whisper.
        UserError: The recogniser or the Python is not there.
    """
    own = worker_environment(context)
    if not options.recognise:
        return own
    check_folder(Path(options.recognise))
    recogniser = recognise.recogniser_environment(context)
    if recogniser != own and folder.has_onnx and options.engine != "torch" and options.device in ("auto", "cpu"):
        return recogniser
    found = TaskProcess(own.run("worker.probe"), own.variables(), "").wait()
    if not found.get("recogniser"):
        raise NoLibraryError(
            "{python} runs the model, and has no faster-whisper for --recognise. Install it there: {command}",
            python=own.python,
            command=pip_command(str(own.python), ["faster-whisper"]),
        )
    return own


def _model(options: run.Options, folder: ModelFolder) -> run.Model:
    return run.Model(
        sha256=hashlib.sha256((folder.path / CONFIG_FILE).read_bytes()).hexdigest(),
        engine=options.engine,
        channels=folder.config.channels,
        tells_phones=bool(folder.config.phones),
        check_settings=lambda _settings: None,
    )


def _files(options: run.Options, row: Row) -> dict[str, Path]:
    """The result files of a row; one without a character has curves alone."""
    suffixes = {**SUFFIXES, **(SCENE_SUFFIXES if row.character else {})}
    names = [name for name in options.formats if name in suffixes] or ["npz"]
    return {name: options.output / f"{row.name}{suffixes[name]}" for name in names}


@dataclass(frozen=True)
class _Scenes:
    """Makes the lines of a manifest: first those without a character, then the scenes."""

    options: run.Options
    workers: pool.Workers

    def made(
        self, rows: Iterable[Row], arguments_of: Callable[[Row], Mapping[str, Any]]
    ) -> Generator[tuple[Row, Answer], None, None]:
        """Yield each line with its answer as soon as it is made."""
        rows = list(rows)
        curves = [row for row in rows if not row.character]
        if curves:
            with closing(self.workers.made(curves, arguments_of)) as answers:
                yield from answers
        current = self.options.output / f"{_CURRENT}{self.options.chunk[0]}"
        n_ends, _, ended = _content(current).partition(" ")
        try:
            for row in rows:
                if not row.character:
                    continue
                ends = int(n_ends) if row.name == ended and n_ends.isdecimal() else 0
                if ends >= _ENDS:
                    text = Text(
                        "{file} ended Blender {n} times; it is tried again by the next run.", file=row.character, n=ends
                    )
                    yield row, {"error": text, "cause": "target"}
                    continue
                current.write_text(f"{ends + 1} {row.name}", encoding="utf-8")
                yield row, self._answer(row, arguments_of(row))
        finally:  # Blender itself goes on
            with suppress(OSError):
                current.unlink()

    def _answer(self, row: Row, arguments: Mapping[str, Any]) -> Answer:
        """Make a scene. The worker first hears the recording alone, for the report; it then has the model warm."""
        recognised: dict[str, str] = {}
        try:
            if arguments["recognise"]:
                row, arguments, recognised = self._recognised(row, arguments)
            heard = jobs.call(bpy.context, "batch.line", {**arguments, "files": {}, "memory_bytes": 0})
        except TaskFailedError as error:
            return {"error": error.text, "cause": "engine" if isinstance(error, TaskDiedError) else "audio"}
        except UserError as error:
            return {"error": error.text, "cause": "engine"}
        if "error" in heard:
            return heard
        files = {name: Path(file) for name, file in arguments["files"].items()}
        try:
            notes = _made_scene(row, self.options, files)
            sizes = {name: file.stat().st_size for name, file in files.items()}
            return {**heard, **recognised, "bytes": sizes, "notes": [*heard["notes"], *map(str, notes)]}
        except Exception as error:
            return {"error": Text("{text}", text=report(error)), "cause": _cause(error)}

    def _recognised(self, row: Row, arguments: Mapping[str, Any]) -> tuple[Row, Mapping[str, Any], dict[str, str]]:
        """The row and its arguments with the words that are recognised, and what the report says of them."""
        model, language = Path(self.options.recognise), row.settings["language"]
        found = recognise.process(bpy.context, Path(row.audio), model, self.options.device, language).wait()
        text, settings = found["text"], {**row.settings, "language": found["language"] or language}
        row = replace(row, text=text, settings=settings)
        arguments = {**arguments, "recognise": "", "text": text, "settings": settings}
        return row, arguments, {"recognised": text, "transcript_sha256": ""}  # nobody said what is said


def _cause(error: Exception) -> str:
    if is_of_the_disk(error):
        return "disk"
    if isinstance(error, JobFailedError | WorkerDiedError):
        return "engine"
    return "internal" if user_text(error) is None else "target"


def _made_scene(row: Row, options: run.Options, files: Mapping[str, Path]) -> list[str]:
    """Open the character, animate it, write the files; returns what the user should know."""
    _open(Path(row.character))
    context, given = bpy.context, row.settings
    settings = AnimateSettings(
        filepath=row.audio,
        object_name=row.object,
        model=options.model,
        engine=options.engine,
        device=options.device if options.device != "auto" else addon_preferences.get(context).device,
        style=given["style"] if isinstance(given["style"], str) else str(given["style"]),
        articulation=given["articulation"],
        semantic_strength=given["semantic_strength"],
        strength=given["strength"],
        smoothing_s=given["smoothing"],
        tongue=given["tongue"],
        delay_s=given["delay"],
        start_frame=given["start_frame"],
        transcript=row.text,
        transcript_file=row.transcript,
        language=given["language"],
        track_file=row.track,
    )
    outcome, notes = jobs.run(context, settings)
    face = find_object(context, row.object, 0)
    told: list[str] = [*outcome.warnings, *notes, *outcome.notes]
    for name, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        told += _write(context, face, bpy.data.actions[outcome.action_name], name, file)
    return told


def _open(character: Path) -> None:
    try:
        bpy.ops.wm.open_mainfile(filepath=str(character), load_ui=False)
    except RuntimeError as error:
        raise UserError("{file} cannot be opened ({reason}).", file=character, reason=str(error).strip()) from error
    if bpy.data.version[:2] > bpy.app.version[:2]:
        raise UserError(
            "{file} was saved by Blender {saved}, and this is Blender {own}, which would lose a part of it.",
            file=character,
            saved=".".join(map(str, bpy.data.version[:2])),
            own=".".join(map(str, bpy.app.version[:2])),
        )


def _write(
    context: bpy.types.Context, face: bpy.types.Object, action: bpy.types.Action, name: str, file: Path
) -> list[str]:
    writers = {"glb": exports.write_gltf, "fbx": exports.write_fbx, "usd": exports.write_usd}
    if name in writers:
        return list(writers[name](context, face, file))
    if name == "abc":
        exports.write_alembic(context, face, file)
    elif name == "blend":
        try:
            bpy.ops.wm.save_as_mainfile(filepath=str(file), check_existing=False)
        except RuntimeError as error:
            raise UserError("{output} cannot be saved ({reason}).", output=file, reason=str(error).strip()) from error
    elif name == "textgrid":
        delivery.save_words(speech_track.current(action) if speech_track.has_track(action) else None, file)
    else:
        motion = exports.sampled(face, context.scene)
        delivery.save(resample(motion, LIVE_LINK_FPS) if name == "csv" else motion, file, name)
    return []


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
