# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's loop: commands in, motion out, the model kept warm between jobs.

A job's error becomes one event; the log gets the traceback.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import report, user_text
from ..files import check_ours
from . import child, environment, protocol

if TYPE_CHECKING:
    from ..pipeline.audio import Speech
    from ..pipeline.infer import SpeechAnimator
    from ..pipeline.motion import Motion
    from ..pipeline.words.transcript import Line, Transcript

_PROGRESS_INTERVAL_S = 0.05
_REMOVALS = 10


class JobProgress:
    """Reports progress, at most every 50 ms: an hour of audio has very many steps."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._stage, self._sent_s = "", 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        now_s = time.monotonic()
        if stage == self._stage and fraction < 1.0 and now_s - self._sent_s < _PROGRESS_INTERVAL_S:
            return
        self._stage, self._sent_s = stage, now_s
        fraction = min(1.0, max(0.0, float(fraction)))
        _tell(protocol.Progress(job=self._job, stage=stage, fraction=fraction))


class ModelCache:
    """Keeps the model that was used last; two would not fit many GPUs."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._animator: SpeechAnimator | None = None

    def get(self, model: str, engine: str, device: str) -> SpeechAnimator:
        """The animator for these settings; it is loaded again if they or the model's files changed.

        Raises:
            UserError: A library is missing, or as `SpeechAnimator.load`.
        """
        key = (model, engine, device, _fingerprint(model))
        if self._animator is None or key != self._key:
            self._animator = None
            environment.check_modules()
            from ..pipeline.infer import SpeechAnimator

            self._animator = SpeechAnimator.load(model, engine=engine, device=device)
            self._key = key
        return self._animator


def serve(folder: Path, stream: BinaryIO) -> None:
    """Run the commands of `stream`; the process ends when that closes."""
    # The folder is removed at the end, with everything in it.
    check_ours(folder, "a worker", lambda _folder: (protocol.EVENTS_FILE, protocol.LOG_FILE, f"{protocol.JOB}*"))
    folder.mkdir(parents=True, exist_ok=True)
    models, commands = ModelCache(), CommandReader(folder, stream)
    _tell(protocol.Ready())
    for command in commands:
        _tell(_answer(command, folder, models))


def _tell(event: protocol.Event) -> None:
    child.write_event(protocol.encode(event))


class CommandReader(Iterable[protocol.Command]):
    """Reads commands in a thread, so that the end of the stream (Blender is gone) also ends a running job."""

    def __init__(self, folder: Path, stream: BinaryIO) -> None:
        self._folder, self._stream = folder, stream
        self._queue: queue.Queue[protocol.Command] = queue.Queue()
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def __iter__(self) -> Iterator[protocol.Command]:
        while True:
            yield self._queue.get()

    def _read(self) -> None:
        try:
            for line in self._stream:
                if line.strip():
                    self._queue.put(protocol.decode_command(line))
        except Exception:  # without this thread the process would outlive Blender
            _log(traceback.format_exc())
            os._exit(2)
        # Blender is gone, or about to remove the folder itself. A running job may still write into the folder; under
        # another name it gets no new files. Windows refuses to rename it while a file is open, hence the repetitions.
        aside = protocol.aside(self._folder)
        with contextlib.suppress(OSError):
            os.rename(self._folder, aside)
        for _ in range(_REMOVALS):
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(self._folder, ignore_errors=True)
            if not (aside.exists() or self._folder.exists()):
                break
        os._exit(0)  # nobody waits for what the main thread computes


def _answer(command: protocol.Command, folder: Path, models: ModelCache) -> protocol.Event:
    """Run one job; never raises."""
    job_folder = folder / command.job
    try:
        job_folder.mkdir(exist_ok=True)  # never its parent, which is gone if Blender is
        progress = JobProgress(command.job)
        if isinstance(command, protocol.Animate):
            return _animate(command, job_folder, models, progress)
        if isinstance(command, protocol.Call):
            return _call(command, job_folder, models)
        environment.check_modules()
        with _opened(command.audio, job_folder, progress) as speech:
            result = _listen(speech, job_folder, progress)
        return protocol.Done(job=command.job, result=str(result), engine="", device="", notes=[])
    except Exception as error:
        # First of all, because the job's files may be what filled the disk.
        shutil.rmtree(job_folder, ignore_errors=True)
        if user_text(error) is not None:
            _log(traceback.format_exc())
        message = report(error, folder / protocol.LOG_FILE)
    return protocol.Error(job=command.job, message=message)


def _log(text: str) -> None:
    """Append to the log; a full disk must not hide the error itself."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _animate(command: protocol.Animate, job_folder: Path, models: ModelCache, progress: JobProgress) -> protocol.Done:
    progress("model", 0.0)
    animator = models.get(command.model, command.engine, command.device)
    progress("model", 1.0)
    from ..pipeline.delivery import save_words, words_of
    from ..pipeline.retarget import covering, prepared  # only now is NumPy known to be there
    from ..pipeline.tongue import with_tongue

    transcript = _transcript(command)
    n_old_notes = len(animator.notes)
    with _opened(command.audio, job_folder, progress) as speech:
        speech.recording = Path(command.recording) if command.recording else None
        speech.begins_s = command.begins_s
        if command.listen:
            _listen(speech, job_folder, progress)
        raw = animator.animate_speech(
            speech,
            style=command.style,
            semantic_strength=command.semantic_strength,
            progress=progress,
            articulation=command.articulation,
            track=command.track_file or None,
            transcript=transcript,
            language=command.language,
        )
    motion = with_tongue(covering(raw).at_speed(command.speed), command.tongue)
    motion = prepared(motion, strength=command.strength, smoothing_s=command.smoothing_s)
    result = job_folder / protocol.RESULT_FILE
    motion.save(result)
    if (track := words_of(motion)) is not None:
        save_words(track, job_folder / protocol.TRACK_FILE)
    if raw.memory_RM is not None:
        replace(raw, basis_KV3=None).save(job_folder / protocol.STATE_FILE)
    if command.visemes:
        _convert(motion, command, job_folder, progress)
    return protocol.Done(
        job=command.job,
        result=str(result),
        engine=motion.info.get("engine", command.engine),
        device=motion.info.get("device", command.device),
        notes=animator.notes[n_old_notes:],
    )


def _transcript(command: protocol.Animate) -> Transcript | None:
    """What is said, read before the recording is heard, so that a mistake in it is told at once."""
    from ..pipeline.words.transcript import load_transcript, parse_transcript

    if not command.transcript_file:
        return parse_transcript(command.transcript, language=command.language) if command.transcript else None
    transcript = load_transcript(Path(command.transcript_file), command.language)
    lines = [_in_part(line, command.begins_s or 0.0) for line in transcript.lines]
    return replace(transcript, lines=tuple(lines))


def _in_part(line: Line, begins_s: float) -> Line:
    """A line of a file in the times of a part of the sound; one that was spoken before has none."""
    if line.start_s is None or line.end_s is None:
        return line
    if line.end_s <= begins_s:
        return line._replace(start_s=None, end_s=None)
    return line._replace(start_s=max(0.0, line.start_s - begins_s), end_s=line.end_s - begins_s)


def _call(command: protocol.Call, job_folder: Path, models: ModelCache) -> protocol.Done:
    module = importlib.import_module(f"..{command.module}", __package__)
    answer = module.run(json.loads(command.arguments), models)
    result = job_folder / protocol.CALL_FILE
    result.write_text(json.dumps(protocol.plain(answer)), encoding="ascii")
    return protocol.Done(job=command.job, result=str(result), engine="", device="", notes=[])


def _opened(audio: str, job_folder: Path, progress: JobProgress) -> Speech:
    """The recording, decoded once; its file is not needed afterwards."""
    from ..pipeline.audio import Speech

    return Speech.from_file(audio, job_folder, progress)


def _listen(speech: Speech, job_folder: Path, progress: JobProgress) -> Path:
    from ..pipeline.prosody import listen

    result = job_folder / protocol.PROSODY_FILE
    listen(speech, progress).save(result)
    return result


def _convert(motion: Motion, command: protocol.Animate, job_folder: Path, progress: JobProgress) -> None:
    """Make visemes, unless the model has none of ARKit's channels: then the face's other keys may play them."""
    from ..pipeline.visemes import MEASURES, VISEME_SETS, as_visemes

    if set(motion.channels).isdisjoint(MEASURES):
        return
    progress("visemes", 0.0)
    visemes = as_visemes(motion, VISEME_SETS[command.visemes], tuple(command.available))
    visemes.save(job_folder / protocol.VISEMES_FILE)


def _fingerprint(model: str) -> tuple:
    """Names, sizes and times of a model folder's files, which change if it is trained again."""
    folder = Path(model)
    if model == "default" or not folder.is_dir():
        return ()
    return tuple(
        (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in sorted(folder.iterdir())
        if entry.is_file()
    )
