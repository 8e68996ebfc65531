# SPDX-License-Identifier: GPL-3.0-or-later
"""Work beside the interface that is no animation: looking at a Python, installing a runtime, importing a model.

The process prints JSON objects, one a line: `{"fraction": 0.5, "text": "Downloading"}` while it works, `{"result": …}`
at its end; any other line is ignored. What goes wrong is one line on stderr that begins with `error: `, and an exit
status. Its stdin stays open as long as this process lives: when Blender is gone, the chore ends.
Standard library only, no bpy.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import Text, UserError

_ERROR = "error: "


class ChoreFailedError(UserError):
    """The chore ended without a result; the message is a sentence for the user."""


class Chore:
    """A process in progress.

    Attributes:
        fraction: Progress, 0..1.
        text: What it is doing.
        result: What it found, empty before its end.
    """

    def __init__(
        self, command: list[str], variables: Mapping[str, str], text: str, limit_s: float | None = None
    ) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            variables: Its environment.
            text: What it does, until it says so itself.
            limit_s: After so long it is ended and has failed.

        Raises:
            OSError: It cannot be started.
        """
        self.fraction, self.text = 0.0, text
        self.result: dict[str, Any] = {}
        self._begin_s, self._limit_s = time.monotonic(), limit_s
        self._offset_bytes, self._partial = 0, b""
        self._folder = Path(tempfile.mkdtemp(prefix="wav2sem_chore_"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with self._said.open("wb") as said, self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=log,
                    env=dict(variables),
                    # A group of its own, so that it ends together with what it started.
                    start_new_session=True,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows: no console pops up
                )
        except OSError as error:
            self._clean_up()
            raise UserError(
                "{command} cannot be started ({reason}).",
                command=command[0],
                reason=error.strerror or error,
            ) from error

    @property
    def pid(self) -> int | None:
        """The process's id, None when it has ended."""
        return self._process.pid if self._process else None

    @property
    def elapsed_s(self) -> float:
        """How long it has been at work."""
        return time.monotonic() - self._begin_s

    def poll(self) -> bool:
        """Read the news; True when it is done.

        Raises:
            ChoreFailedError: It failed, or took too long.
        """
        if self._process is None:
            return True
        # Asked before reading: whatever the process wrote before its end is then in the file.
        status = self._process.poll()
        self._read()
        if status is None and (self._limit_s is None or self.elapsed_s < self._limit_s):
            return False
        reason = (
            Text("It did not answer within {limit_s:.0f} s.", limit_s=self._limit_s)
            if status is None
            else self._obituary(status)
        )
        self.cancel()
        if status != 0:
            raise ChoreFailedError("{reason}", reason=reason)
        self.fraction = 1.0
        return True

    def wait(self) -> dict[str, Any]:
        """Block until it is done and return the result.

        Raises:
            ChoreFailedError: As `poll`.
        """
        while not self.poll():
            time.sleep(0.02)
        return self.result

    def cancel(self) -> None:
        """End the process and all that it started, and forget its output."""
        process, self._process = self._process, None
        if process is not None:
            if process.poll() is None:
                end_tree(process.pid)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._clean_up()

    @property
    def _said(self) -> Path:
        return self._folder / "said.jsonl"

    @property
    def _log(self) -> Path:
        return self._folder / "log.txt"

    def _read(self) -> None:
        with self._said.open("rb") as file:
            file.seek(self._offset_bytes)
            content = file.read()
        self._offset_bytes += len(content)
        *lines, self._partial = (self._partial + content).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:  # a library's chatter
                continue
            if isinstance(message, dict):
                self.fraction = float(message.get("fraction", self.fraction))
                text = message.get("text", self.text)
                self.text = Text.from_json(text) if isinstance(text, dict) else str(text)
                self.result = message.get("result", self.result)

    def _obituary(self, status: int) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        for line in reversed(lines):
            if line.startswith(_ERROR):
                return line.removeprefix(_ERROR)
        last = f": {lines[-1].strip()[:300]}" if lines else ""
        return Text("It ended unexpectedly (exit status {status}{last}).", status=status, last=last)

    def _clean_up(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def tell(fraction: float, text: str) -> None:
    """Inside a chore: say how far it is."""
    said = text.to_json() if isinstance(text, Text) else text
    print(json.dumps({"fraction": round(fraction, 4), "text": said}), flush=True)


def answer(result: Mapping[str, Any]) -> None:
    """Inside a chore: say what was found."""
    print(json.dumps({"result": dict(result)}), flush=True)


def complain(message: str) -> None:
    """Inside a chore: say why it fails, in one line."""
    print(f"{_ERROR}{' '.join(message.split())}", file=sys.stderr, flush=True)


def end_with(stream: BinaryIO) -> None:
    """Inside a chore: end this process and all that it started as soon as `stream` ends, which Blender holds."""

    def watch() -> None:
        while os.read(stream.fileno(), 1):
            pass
        end_tree(os.getpid())

    threading.Thread(target=watch, name="blender", daemon=True).start()


def end_tree(pid: int) -> None:
    """Kill a process that leads its own group, and all that it started."""
    if os.name == "nt":
        with suppress(OSError):
            quiet = subprocess.DEVNULL
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], stdout=quiet, stderr=quiet, check=False)
    else:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
