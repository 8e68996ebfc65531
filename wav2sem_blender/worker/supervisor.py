# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a child process, reads its events, and ends it with everything that it started.

The child writes events to its stdout, one JSON object a line; other lines are ignored. Its stdin stays open as long as
this process lives, and the child ends when it closes (`child.py`). Standard library only, no bpy.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..errors import Text, UserError, says_out_of_memory
from ..leftovers import MadeFolder
from . import protocol

# STATUS_NO_MEMORY and STATUS_COMMITMENT_LIMIT of Windows.
_MEMORY_STATUSES = (0xC0000017, 0xC000012D)
_LOG_END_BYTES = 2000


class Child:
    """One process.

    Attributes:
        folder: Its events and its log.
        has_ended: Whether the process has ended and all of its events were read.
        status: Its exit status; None before `has_ended`, and if it exceeded its time limit.
    """

    def __init__(
        self,
        command: list[str],
        variables: Mapping[str, str],
        name: str,
        *,
        folder: Path | None = None,
        limit_s: float | None = None,
    ) -> None:
        """Start it in its own process group.

        Args:
            command: The program and its arguments.
            variables: Its environment.
            name: What messages call it.
            folder: Its working directory, which survives its end; by default a temporary folder for its files only.
            limit_s: Time after which it is ended.

        Raises:
            UserError: The program cannot be started.
            OSError: The folder cannot be written.
        """
        self.has_ended = False
        self.status: int | None = None
        self._name, self._limit_s, self._begin_s = name, limit_s, time.monotonic()
        self._told: IO[bytes] | None = None  # kept open: a batch asks it hundreds of times a second
        self._partial = b""
        self._temporary: MadeFolder | None = None
        if folder is None:
            self._temporary = MadeFolder("wav2sem_task_")
            folder, inside = self._temporary.path, None
        else:
            inside = folder
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with self._events.open("wb") as events, self.log.open("ab") as log:
                self._told = self._events.open("rb", buffering=0)
                self._process = _start(command, variables, inside, events, log)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int | None:
        """The process's id; None after `end`."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def elapsed_s(self) -> float:
        """Time since its start."""
        return time.monotonic() - self._begin_s

    @property
    def log(self) -> Path:
        """What it printed to stderr."""
        return self.folder / protocol.LOG_FILE

    def send(self, line: bytes) -> None:
        """Write to its stdin; `events` finds out if it is dead."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            self._process.wait()

    def events(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        # Asked before reading: what the process wrote before its end is then in the file.
        ended = not self.alive
        content = self._told.read() if self._told is not None else b""
        *lines, self._partial = (self._partial + content).split(b"\n")
        if ended and self._process is not None:
            self.status = self._process.returncode
        self.has_ended = ended or (self._limit_s is not None and self.elapsed_s >= self._limit_s)
        return [event for line in lines if (event := _event(line)) is not None]

    def exit_reason(self) -> Text:
        """Why it ended, as far as its status and its log tell."""
        process, status = Text(self._name), self.status
        if status is None:
            return Text("{process} did not answer within {limit_s:.0f} s.", process=process, limit_s=self._limit_s)
        if status == protocol.EXIT_EVENTS_LOST:
            return Text(
                "{process} cannot write into {folder}: the disk is full or write-protected. Free some space, or choose "
                "another folder in Preferences > File Paths > Temporary Files.",
                process=process,
                folder=self.folder,
            )
        if -status == getattr(signal, "SIGKILL", None):
            return Text(
                "{process} was killed (SIGKILL), often because memory ran out. Close other programs and try again.",
                process=process,
            )
        if status in _MEMORY_STATUSES or says_out_of_memory(self._log_end()):  # a native library ended it
            return Text("{process} ended because memory ran out. Close other programs and try again.", process=process)
        how: str = Text("exit status {status}", status=status)
        if -status in list(signal.Signals):
            how = signal.Signals(-status).name
        if self._temporary is None:
            return Text(
                "{process} ended unexpectedly ({how}). Try again; its log is {log}.",
                process=process,
                how=how,
                log=self.log,
            )
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if not lines:
            return Text("{process} ended unexpectedly ({how}).", process=process, how=how)
        last = lines[-1].strip()[:300]
        return Text("{process} ended unexpectedly ({how}): {last_line}", process=process, how=how, last_line=last)

    def end(self, grace_s: float = 0.0) -> None:
        """End it and everything that it started.

        Args:
            grace_s: How long it may take to end by itself, because its stdin closed, before it is killed.
        """
        process, self._process = self._process, None
        if self._told is not None:  # Windows removes no folder with an open file
            self._told.close()
            self._told = None
        if process is not None:
            if grace_s:
                _close_stdin(process)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace_s)
            if process.poll() is None:
                end_tree(process.pid)
            process.wait()
            _close_stdin(process)
        if self._temporary is not None:
            self._temporary.remove()

    def _log_end(self) -> str:
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_END_BYTES))
            return file.read().decode("utf-8", "replace")
        return ""

    @property
    def _events(self) -> Path:
        return self.folder / protocol.EVENTS_FILE


def end_tree(pid: int) -> None:
    """Kill a process that leads its own group, and everything that it started."""
    if os.name == "nt":
        with suppress(OSError):
            quiet = subprocess.DEVNULL
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], stdout=quiet, stderr=quiet, check=False)
    else:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _start(
    command: list[str], variables: Mapping[str, str], folder: Path | None, events: Any, log: Any
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=events,
            stderr=log,
            cwd=folder,
            env=dict(variables),
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: no console appears
        )
    except OSError as error:
        raise UserError(
            "{program} cannot be started ({reason}). Check that it is a program and may be run.",
            program=command[0],
            reason=error.strerror or error,
        ) from error


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # unwritten bytes of a command that nobody will read
        process.stdin.close()


def _event(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None if a library printed it."""
    try:
        message = json.loads(line)
        return protocol.with_texts(message) if isinstance(message, dict) else None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
