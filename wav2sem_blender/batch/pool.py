# SPDX-License-Identifier: GPL-3.0-or-later
"""Warm workers, one a core with one thread each, that make the lines of a batch. Standard library only.

Which worker makes a line, and beside which others, changes none of its bytes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import Text
from ..leftovers import MadeFolder
from ..worker import protocol
from ..worker.client import JobFailedError, JobLimitError, WorkerClient, WorkerDiedError, answer_of, new_job_id
from ..worker.environment import WorkerEnvironment
from .manifest import Row

_LINE = "batch.line"
_POLL_S = 0.005
# A recording of at most so many bytes is soon made: two minutes of wav, five of mp3.
_SOON_BYTES = 4 << 20
# A worker that dies may have been ended by the system in another's place, so its line gets a second one.
_TRIES = 2
_ENDING = (signal.SIGINT, signal.SIGTERM)

Answer = Mapping[str, Any]


def one_thread_each(environment: WorkerEnvironment) -> WorkerEnvironment:
    """The Python of workers of which there is one a core."""
    return replace(environment, one_thread=True)


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many worker processes make the lines, and their Python."""

    n: int
    environment: WorkerEnvironment

    def made(
        self, rows: Iterable[Row], arguments_of: Callable[[Row], Mapping[str, Any]]
    ) -> Generator[tuple[Row, Answer], None, None]:
        """Make lines, and yield each with its answer as soon as it is made; closing the iterator ends all workers.

        Args:
            rows: The lines.
            arguments_of: What `line.run` is told of a row.

        Raises:
            UserError: A worker cannot be started.
            OSError: The temporary folder cannot be written.
        """
        folder, workers = None, list[_Worker]()
        try:
            with _undisturbed():
                folder = MadeFolder("wav2sem_batch_")
                workers = [_Worker(self.environment, folder.path / f"worker{number}") for number in range(self.n)]
            yield from _made(rows, arguments_of, workers)
        finally:
            for worker in workers:
                worker.client.close()
            if folder is not None:
                folder.remove()


def _made(
    rows: Iterable[Row], arguments_of: Callable[[Row], Mapping[str, Any]], workers: Sequence[_Worker]
) -> Iterator[tuple[Row, Answer]]:
    waiting, again = iter(rows), deque[_Line]()
    while True:
        for has_room in (lambda worker: not worker.lines, _Worker.may_wait_behind):
            for worker in filter(has_room, workers):
                line = again.popleft() if again else _Line.of(next(waiting, None))
                if line is not None:
                    worker.begin(line, arguments_of(line.row))
        busy = [worker for worker in workers if worker.lines]
        if not busy:
            return
        news = False
        for worker in busy:
            answer = worker.poll()
            if answer is None:
                continue
            news = True
            line = worker.lines.popleft()
            if answer.get("ended"):  # the line that waited behind it was dropped
                again += worker.lines
                worker.lines.clear()
            line.tries += 1
            if answer.get("died") and line.tries < _TRIES:
                again.append(line)
            else:
                yield line.row, answer
        if not news:
            time.sleep(_POLL_S)


@dataclass
class _Line:
    """A row, its job, and how many workers have died of it."""

    row: Row
    job: str = ""
    tries: int = 0

    @classmethod
    def of(cls, row: Row | None) -> _Line | None:
        return None if row is None else cls(row)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C wait: of a process that is half started, or a folder half made, nobody knows, so it would stay."""
    if threading.current_thread() is not threading.main_thread():  # no other thread gets signals
        yield
        return
    came: list[int] = []
    # Blender's program handles Ctrl-C itself; such a handler, which Python does not know, could not be put back.
    known = [number for number in _ENDING if signal.getsignal(number) is not None]
    before = {number: signal.signal(number, lambda sent, _frame: came.append(sent)) for number in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


class _Worker:
    """A worker, the line that it makes, and the line that waits behind it, so that the worker never waits."""

    def __init__(self, environment: WorkerEnvironment, folder: Path) -> None:
        self.client = WorkerClient(environment, folder)
        self.lines = deque[_Line]()

    def may_wait_behind(self) -> bool:
        """Whether the worker makes a line that is soon made: behind an hour, a line would wait while others idle."""
        try:
            return len(self.lines) == 1 and os.stat(self.lines[0].row.audio).st_size < _SOON_BYTES
        except OSError:
            return False

    def begin(self, line: _Line, arguments: Mapping[str, Any]) -> None:
        line.job = new_job_id()
        call = protocol.Call(
            job=line.job,
            module=_LINE,
            arguments=json.dumps(dict(arguments)),
            audio=arguments["audio"],
            model=arguments["model"],
        )
        self.lines.append(line)
        with _undisturbed():
            self.client.submit(call, behind=True)

    def poll(self) -> Answer | None:
        """The answer, if there is one; a line whose worker died has an answer, too."""
        job = self.lines[0].job
        try:
            for event in self.client.poll():
                if isinstance(event, protocol.Done):
                    answer = answer_of(event)
                    self.client.remove_job(job)
                    return answer
        except WorkerDiedError as error:
            again = not isinstance(error, JobLimitError)  # which it would exceed again
            return {"error": error.text, "cause": "engine", "ended": True, "died": again}
        except JobFailedError as error:
            return {"error": error.text, "cause": "internal"}
        except (OSError, ValueError) as error:
            return {"error": Text("{reason}", reason=error), "cause": "disk"}
        return None
