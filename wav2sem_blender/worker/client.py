# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's side of the worker: start it, give it jobs, read its events, end it. Standard library only, no bpy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from ..errors import Text, UserError
from . import protocol
from .environment import WorkerEnvironment

_SHUTDOWN_WAIT_S = 2.0
_POLL_INTERVAL_S = 0.02


class WorkerDiedError(UserError):
    """The worker's process ended without an answer; the message says how and names the log."""


class JobFailedError(UserError):
    """The worker answered with an error that the user can act on."""


class WorkerClient:
    """One worker process, started with the first job and kept warm; at most one job at a time.

    Attributes:
        environment: How the process is started.
        folder: The session's folder: events, log, and one folder a job. Created when needed, removed by `close`.
    """

    def __init__(self, environment: WorkerEnvironment, folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._job: str | None = None
        self._offset_bytes = 0
        self._partial = b""

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process's id, None before the first job."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """The worker's stderr: tracebacks and the libraries' warnings."""
        return self.folder / protocol.LOG_FILE

    def submit(self, command: protocol.Job) -> None:
        """Start a job, and the process if it does not run.

        Raises:
            RuntimeError: A job is running already (our bug).
            OSError: The interpreter cannot be started, or the folder cannot be written.
        """
        if self._job is not None:
            raise RuntimeError("the worker has a job already")
        line = protocol.encode(command)
        if not self.alive:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._job = command.job
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            # It died between two jobs; `poll` says so.
            self._process.wait()

    def poll(self) -> list[protocol.Progress | protocol.Done]:
        """What happened to the job since the last call; a `Done` ends the job.

        Raises:
            JobFailedError: The worker reported an error.
            WorkerDiedError: The process is gone.
        """
        if self._job is None:
            return []
        # Asked before reading: whatever the process wrote before its end is then in the file.
        alive = self.alive
        news: list[protocol.Progress | protocol.Done] = []
        for event in self._read_events():
            if isinstance(event, protocol.Ready) or event.job != self._job:
                continue
            if isinstance(event, protocol.Error):
                self._job = None
                raise JobFailedError.of(event.message)
            news.append(event)
            if isinstance(event, protocol.Done):
                self._job = None
                return news
        if not alive:
            self._job = None
            raise WorkerDiedError.of(self._obituary())
        return news

    def wait(self, on_progress: Callable[[protocol.Progress], None] | None = None) -> protocol.Done:
        """Block until the job is done.

        Raises:
            JobFailedError, WorkerDiedError: As `poll`.
        """
        while True:
            for event in self.poll():
                if isinstance(event, protocol.Done):
                    return event
                if on_progress:
                    on_progress(event)
            time.sleep(_POLL_INTERVAL_S)

    def cancel(self) -> None:
        """Give up the job: inference cannot be interrupted, so the process ends; the next job starts a new one."""
        job, self._job = self._job, None
        if job is not None:
            self._end()
            self.remove_job(job)

    def remove_job(self, job: str) -> None:
        """Delete a job's folder."""
        shutil.rmtree(self.folder / job, ignore_errors=True)

    def close(self) -> None:
        """End the process and delete the session's folder."""
        if self.alive and self._job is None:
            assert self._process is not None and self._process.stdin is not None
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # `_end` kills what did not go by itself
                self._process.stdin.write(protocol.encode(protocol.Shutdown()))
                self._process.stdin.close()
                self._process.wait(_SHUTDOWN_WAIT_S)
        self._job = None
        self._end()
        for left in (self.folder, protocol.aside(self.folder)):
            shutil.rmtree(left, ignore_errors=True)

    def _start(self) -> None:
        self._end()
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / protocol.EVENTS_FILE).unlink(missing_ok=True)
        self._offset_bytes, self._partial = 0, b""
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.environment.command(self.folder),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=self.environment.variables(),
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: no console pops up
                )
            except OSError as error:
                reason = error.strerror or str(error)
                raise UserError(
                    "{python} cannot be started ({reason}). Choose another Python.",
                    python=self.environment.python,
                    reason=reason,
                ) from error

    def _end(self) -> None:
        """Kill the process if it runs, and forget it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # unwritten bytes of a command that nobody will read
                process.stdin.close()

    def _read_events(self) -> list[protocol.Event]:
        """Complete lines that were appended since the last call."""
        path = self.folder / protocol.EVENTS_FILE
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._offset_bytes)
            content = file.read()
        self._offset_bytes += len(content)
        *lines, self._partial = (self._partial + content).split(b"\n")
        return [protocol.decode_event(line) for line in lines]

    def _obituary(self) -> Text:
        """Why the process ended, as far as its status and its log tell."""
        assert self._process is not None
        status = self._process.wait()
        if status == protocol.EXIT_EVENTS_LOST:
            return Text(
                "The worker cannot write into {folder}: the disk is full or write-protected. Free some space or choose "
                "another folder in Preferences > File Paths > Temporary Files.",
                folder=self.folder,
            )
        if -status == getattr(signal, "SIGKILL", None):
            return Text("The worker was ended from outside (SIGKILL), often for want of memory. Run it again.")
        how = signal.Signals(-status).name if -status in list(signal.Signals) else f"exit status {status}"
        return Text(
            "The worker ended unexpectedly ({how}). Run it again; its last words are in {log}.", how=how, log=self.log
        )


def new_job_id() -> str:
    """A name for a job that no other job of this session has."""
    return f"{protocol.JOB}{os.getpid():x}{uuid.uuid4().hex[:8]}"
