# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's loop: commands in, motion out, the model kept warm between jobs.

What the user can mend becomes a message; anything else is a bug of ours, reported as an internal error with the
traceback in the log.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import report, user_text
from ..files import check_ours
from . import environment, protocol

if TYPE_CHECKING:
    from ..pipeline.audio import Speech
    from ..pipeline.infer import SpeechAnimator

_PROGRESS_INTERVAL_S = 0.05
_REMOVALS = 10


class EventLog:
    """Appends events to the session's file, each in one write, so that lines never mix."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / protocol.EVENTS_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, event: protocol.Event) -> None:
        """Write one event; a worker that cannot report has nothing left to do, so failing to write ends it."""
        line = protocol.encode(event)
        try:
            if os.write(self._descriptor, line) == len(line):
                return
        except OSError:
            _log(traceback.format_exc())
        os._exit(protocol.EXIT_EVENTS_LOST)


class JobProgress:
    """Passes progress on, at most every 50 ms, because an hour of audio has very many steps."""

    def __init__(self, events: EventLog, job: str) -> None:
        self._events, self._job = events, job
        self._stage, self._sent_s = "", 0.0

    def __call__(self, stage: str, fraction: float) -> None:
        now_s = time.monotonic()
        if stage == self._stage and fraction < 1.0 and now_s - self._sent_s < _PROGRESS_INTERVAL_S:
            return
        self._stage, self._sent_s = stage, now_s
        fraction = min(1.0, max(0.0, float(fraction)))
        self._events.append(protocol.Progress(job=self._job, stage=stage, fraction=fraction))


class ModelCache:
    """The last model that was used; one is kept, two would not fit many GPUs."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._animator: SpeechAnimator | None = None

    def get(self, model: str, engine: str, device: str) -> SpeechAnimator:
        """The animator for these settings, loaded anew when the settings or the model's files changed.

        Raises:
            ValueError, OSError: From `SpeechAnimator.load`, or a library is missing.
        """
        key = (model, engine, device, _fingerprint(model))
        if self._animator is None or key != self._key:
            self._animator = None
            environment.check_modules()
            from ..pipeline.infer import SpeechAnimator

            self._animator = SpeechAnimator.load(model, engine=engine, device=device)
            self._key = key
        return self._animator


def serve(folder: Path, stream: BinaryIO) -> int:
    """Answer commands from `stream` until it ends; returns the exit status."""
    # The session's end removes the folder with all that is in it.
    check_ours(folder, "a worker", lambda _folder: (protocol.EVENTS_FILE, protocol.LOG_FILE, f"{protocol.JOB}*"))
    folder.mkdir(parents=True, exist_ok=True)
    events = EventLog(folder)
    models = ModelCache()
    commands = CommandReader(folder, stream)
    events.append(protocol.Ready())
    for command in commands:
        if isinstance(command, protocol.Shutdown):
            break
        events.append(_answer(command, folder, models, events))
    return 0


class CommandReader(Iterable[protocol.Command]):
    """Reads commands in a thread, so that the end of the stream (Blender is gone) ends even a running job."""

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
        except ValueError:
            _log(traceback.format_exc())
            os._exit(2)
        # Blender is gone, or about to remove the folder itself. A running job may still write into it: under another
        # name it gets no new files. Windows refuses that while a file is open; there the job has to be outrun.
        aside = protocol.aside(self._folder)
        with contextlib.suppress(OSError):
            os.rename(self._folder, aside)
        for _ in range(_REMOVALS):
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(self._folder, ignore_errors=True)
            if not (aside.exists() or self._folder.exists()):
                break
        os._exit(0)  # whatever the main thread computes: nobody waits for it


def _answer(command: protocol.Job, folder: Path, models: ModelCache, events: EventLog) -> protocol.Event:
    """Run one job; never raises."""
    job_folder = folder / command.job
    try:
        job_folder.mkdir(exist_ok=True)  # and never its parent, which is gone where Blender is
        progress = JobProgress(events, command.job)
        if isinstance(command, protocol.Animate):
            return _animate(command, job_folder, models, progress)
        environment.check_modules()
        if isinstance(command, protocol.Convert):
            result = _convert(command, job_folder, progress)
        else:
            with _opened(command.audio, job_folder, progress) as speech:
                result = _listen(speech, job_folder, progress)
        return protocol.Done(job=command.job, result=str(result), engine="", device="", notes=[])
    except Exception as error:  # the last barrier: a bug of ours must become one event, too
        # Before anything is written: what a failed job leaves behind may be what filled the disk.
        shutil.rmtree(job_folder, ignore_errors=True)
        if user_text(error) is not None:
            _log(traceback.format_exc())
        message = report(error, folder / protocol.LOG_FILE)
    return protocol.Error(job=command.job, message=message)


def _log(text: str) -> None:
    """Append to the log, which is this process's stderr; a full disk must not hide the error itself."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _animate(command: protocol.Animate, job_folder: Path, models: ModelCache, progress: JobProgress) -> protocol.Done:
    progress("model", 0.0)
    animator = models.get(command.model, command.engine, command.device)
    progress("model", 1.0)
    n_old_notes = len(animator.notes)
    with _opened(command.audio, job_folder, progress) as speech:
        if command.listen:
            _listen(speech, job_folder, progress)
        motion = animator.animate_speech(
            speech, style=command.style, semantic_strength=command.semantic_strength, progress=progress
        )
    result = job_folder / protocol.RESULT_FILE
    motion.save(result)
    return protocol.Done(
        job=command.job,
        result=str(result),
        engine=motion.info.get("engine", command.engine),
        device=motion.info.get("device", command.device),
        notes=animator.notes[n_old_notes:],
    )


def _opened(audio: str, job_folder: Path, progress: JobProgress) -> Speech:
    """The recording, decoded once: from here on nobody needs its file."""
    from ..pipeline.audio import Speech

    return Speech.from_file(audio, job_folder, progress)


def _listen(speech: Speech, job_folder: Path, progress: JobProgress) -> Path:
    from ..pipeline.prosody import listen

    result = job_folder / protocol.PROSODY_FILE
    listen(speech, progress).save(result)
    return result


def _convert(command: protocol.Convert, job_folder: Path, progress: JobProgress) -> Path:
    from ..pipeline.motion import Motion
    from ..pipeline.visemes import VISEME_SETS, as_visemes

    progress("visemes", 0.0)
    result = job_folder / protocol.VISEMES_FILE
    as_visemes(Motion.load(command.motion), VISEME_SETS[command.visemes], tuple(command.available)).save(result)
    return result


def _fingerprint(model: str) -> tuple:
    """Names, sizes and times of a model folder's files: a retrained model at the same place is another model."""
    folder = Path(model)
    if model == "default" or not folder.is_dir():
        return ()
    return tuple(
        (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in sorted(folder.iterdir())
        if entry.is_file()
    )
