# SPDX-License-Identifier: GPL-3.0-or-later
"""Warm workers, one a core with one thread each, that make the lines of a batch. Standard library only.

Which worker makes a line, and beside which others, changes none of its bytes.
"""

from __future__ import annotations

import json
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
# A line takes about 0.1 s, so a worker must not wait long for the next one.
_POLL_S = 0.002
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
    waiting, again = iter(rows), deque[tuple[Row, int]]()
    while True:
        for worker in workers:
            if worker.row is not None:
                continue
            row, tries = again.popleft() if again else (next(waiting, None), 0)
            if row is not None:
                worker.begin(row, arguments_of(row), tries + 1)
        busy = [worker for worker in workers if worker.row is not None]
        if not busy:
            return
        news = False
        for worker in busy:
            answer = worker.poll()
            if answer is None:
                continue
            news = True
            row = worker.row
            assert row is not None
            worker.row = None
            if answer.get("died") and worker.tries < _TRIES:
                again.append((row, worker.tries))
            else:
                yield row, answer
        if not news:
            time.sleep(_POLL_S)


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
    """A worker and the line that it makes."""

    def __init__(self, environment: WorkerEnvironment, folder: Path) -> None:
        self.client = WorkerClient(environment, folder)
        self.row: Row | None = None
        self.tries = 0
        self._job = ""

    def begin(self, row: Row, arguments: Mapping[str, Any], tries: int) -> None:
        self.row, self.tries, self._job = row, tries, new_job_id()
        call = protocol.Call(
            job=self._job,
            module=_LINE,
            arguments=json.dumps(dict(arguments)),
            audio=arguments["audio"],
            model=arguments["model"],
        )
        with _undisturbed():
            self.client.submit(call)

    def poll(self) -> Answer | None:
        """The answer, if there is one; a line whose worker died has an answer, too."""
        try:
            for event in self.client.poll():
                if isinstance(event, protocol.Done):
                    answer = answer_of(event)
                    self.client.remove_job(self._job)
                    return answer
        except WorkerDiedError as error:
            return {"error": error.text, "cause": "engine", "died": not isinstance(error, JobLimitError)}
        except JobFailedError as error:
            return {"error": error.text, "cause": "internal"}
        except (OSError, ValueError) as error:
            return {"error": Text("{reason}", reason=error), "cause": "disk"}
        return None
