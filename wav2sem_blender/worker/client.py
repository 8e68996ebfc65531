# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's side of the worker: gives it jobs and reads their progress. Standard library only, no bpy."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import Text, UserError
from . import protocol
from .environment import WorkerEnvironment
from .job_limits import JobLimits
from .supervisor import Child

_SHUTDOWN_WAIT_S = 2.0
_POLL_INTERVAL_S = 0.02

_clients: weakref.WeakSet[WorkerClient] = weakref.WeakSet()


class WorkerDiedError(UserError):
    """The worker's process ended without an answer; the message says how and names the log."""


class JobLimitError(WorkerDiedError):
    """The worker was ended, because the job took more memory or time than it may; so it would again."""


class JobFailedError(UserError):
    """The worker answered with an error."""


class WorkerClient:
    """One worker process, started with the first job and kept warm; it does one job at a time.

    Attributes:
        environment: How the process is started.
        folder: The session's folder: events, log, and one folder for each job. Created when needed, removed by `close`.
    """

    def __init__(self, environment: WorkerEnvironment, folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self._child: Child | None = None
        self._job: str | None = None
        self._limits: JobLimits | None = None
        self._next: protocol.Command | None = None
        self._unread: list[dict[str, Any]] = []
        self._used_s = time.monotonic()
        _clients.add(self)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """The process's id; None before the first job."""
        return self._child.pid if self._child else None

    @property
    def log(self) -> Path:
        """The worker's stderr: tracebacks and the libraries' warnings."""
        return self.folder / protocol.LOG_FILE

    def submit(self, command: protocol.Command, *, behind: bool = False) -> None:
        """Start a job, and the process if it does not run.

        Args:
            command: The job.
            behind: If a job is running, start this one at its end, so that the process need not wait for the next
                command. It is dropped, if the process ends before.

        Raises:
            RuntimeError: A job is running already, or with `behind` one waits behind it (our bug).
            UserError: The interpreter cannot be started.
            OSError: The folder cannot be written.
        """
        if self._next is not None or (self._job is not None and not behind):
            raise RuntimeError("the worker has a job already")
        line = protocol.encode(command)
        if self._job is not None:
            assert self._child is not None
            self._next = command
            self._child.send(line)
            return
        if not self.alive:
            self._end()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._child = Child(
                self.environment.command(self.folder),
                self.environment.variables(),
                Text("The worker"),
                folder=self.folder,
            )
        assert self._child is not None
        self._begin(command)
        self._child.send(line)

    def _begin(self, command: protocol.Command | None) -> None:
        """The job that runs now; None for none."""
        self._job = self._limits = self._next = None
        if command is not None:
            self._job, self._limits = command.job, JobLimits(command)
            self._used_s = time.monotonic()

    def poll(self) -> list[protocol.Progress | protocol.Done]:
        """The job's events since the last call; a `Done` ends the job.

        Raises:
            JobFailedError: The worker reported an error.
            WorkerDiedError: The process ended.
            JobLimitError: It took more memory or time than such a job may.
        """
        if self._job is None:
            return []
        assert self._child is not None
        news: list[protocol.Progress | protocol.Done] = []
        self._check_limits()
        self._unread += self._child.events()
        while self._unread:
            message = self._unread.pop(0)
            if "error" in message:
                self._begin(None)
                raise WorkerDiedError.of(protocol.as_text(message["error"]))
            try:
                event = protocol.decode_event(message)
            except protocol.ProtocolError:  # a library printed it
                continue
            if isinstance(event, protocol.Ready) or event.job != self._job:
                continue
            if self._limits is not None:
                self._limits.heard()
            if isinstance(event, protocol.Error):
                self._begin(self._next)
                raise JobFailedError.of(protocol.as_text(event.message))
            news.append(event)
            if isinstance(event, protocol.Done):
                self._begin(self._next)
                return news
        if self._child.has_ended:
            self._begin(None)
            raise WorkerDiedError.of(self._child.exit_reason())
        return news

    def _check_limits(self) -> None:
        if self._limits is None or self.pid is None:
            return
        exceeded = self._limits.exceeded(self.pid)
        if exceeded is not None:
            self.cancel()
            raise JobLimitError.of(exceeded)

    def wait(self, on_progress: Callable[[protocol.Progress], None] | None = None) -> protocol.Done:
        """Wait until the job is done; raises as `poll`."""
        while True:
            for event in self.poll():
                if isinstance(event, protocol.Done):
                    return event
                if on_progress:
                    on_progress(event)
            time.sleep(_POLL_INTERVAL_S)

    def cancel(self) -> None:
        """End the job. Inference cannot be interrupted, so the process ends, and the next job starts a new one."""
        job = self._job
        self._begin(None)
        if job is not None:
            self._end()
            self.remove_job(job)

    def end_if_idle(self, after_s: float) -> None:
        """End a process that has had no job for so long; the next job starts a new one."""
        if self._job is not None:
            self._used_s = time.monotonic()
        elif self.alive and time.monotonic() - self._used_s >= after_s:
            self._end(_SHUTDOWN_WAIT_S)

    def remove_job(self, job: str) -> None:
        """Delete a job's folder."""
        shutil.rmtree(self.folder / job, ignore_errors=True)

    def close(self) -> None:
        """End the process and delete the session's folder."""
        self._end(_SHUTDOWN_WAIT_S if self._job is None else 0.0)
        self._begin(None)
        for left in (self.folder, protocol.aside(self.folder)):
            shutil.rmtree(left, ignore_errors=True)

    def _end(self, grace_s: float = 0.0) -> None:
        child, self._child = self._child, None
        self._unread.clear()
        if child is not None:
            child.end(grace_s)


def end_idle(after_s: float) -> None:
    """End the processes of all clients that have had no job for so long."""
    for client in tuple(_clients):
        client.end_if_idle(after_s)


def answer_of(done: protocol.Done) -> Mapping[str, Any]:
    """What the module of a `Call` returned.

    Raises:
        OSError, ValueError: The file cannot be read.
    """
    answer: Mapping[str, Any] = protocol.with_texts(json.loads(Path(done.result).read_bytes()))
    return answer


def new_job_id() -> str:
    """A name for a job that no other job of this session has."""
    return f"{protocol.JOB}{os.getpid():x}{uuid.uuid4().hex[:8]}"
