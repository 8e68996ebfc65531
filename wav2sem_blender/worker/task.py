# SPDX-License-Identifier: GPL-3.0-or-later
"""A task in a process of its own: check a Python, install a runtime, import a model, decode a sound.

`boot.py --run MODULE …` calls `run(arguments)` of a module. Its events are `{"fraction": 0.5, "text": "Downloading"}`
while it works, and `{"result": …}` or `{"error": …}` at its end. Standard library only, no bpy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..errors import Text, UserError
from .protocol import as_text, is_number
from .supervisor import Child


class TaskFailedError(UserError):
    """The task ended with an error, or took too long."""


class TaskDiedError(TaskFailedError):
    """The task's process ended without saying why."""


class TaskProcess:
    """A task in progress.

    Attributes:
        fraction: Progress, 0..1.
        text: What it is doing.
        result: Its result; empty before its end.
    """

    def __init__(
        self,
        command: list[str],
        variables: Mapping[str, str],
        text: str,
        limit_s: float | None = None,
        *,
        name: str = "The task",
    ) -> None:
        """Start it.

        Args:
            command: The program and its arguments.
            variables: Its environment.
            text: What it is doing, until it says so itself.
            limit_s: Time after which it is ended and has failed.
            name: What messages call it.

        Raises:
            UserError: It cannot be started.
            OSError: Its folder cannot be written.
        """
        self.fraction, self.text = 0.0, text
        self.result: dict[str, Any] = {}
        self._error: Text | None = None
        self._child: Child | None = Child(command, variables, name, limit_s=limit_s)

    @property
    def pid(self) -> int | None:
        """The process's id; None when it has ended."""
        return self._child.pid if self._child else None

    @property
    def elapsed_s(self) -> float:
        """Time since its start."""
        return self._child.elapsed_s if self._child else 0.0

    def poll(self) -> bool:
        """Read its events; True when it is done.

        Raises:
            TaskFailedError: It failed, or took too long.
        """
        if self._child is None:
            return True
        for event in self._child.events():
            self._take(event)
        if not self._child.has_ended:
            return False
        died = None if self._child.status == 0 else self._child.exit_reason()
        self.cancel()
        if self._error is not None:
            raise TaskFailedError.of(self._error)
        if died is not None:
            raise TaskDiedError.of(died)
        self.fraction = 1.0
        return True

    def _take(self, event: Mapping[str, Any]) -> None:
        """Take what has the right shape; a library may print anything."""
        fraction, text, result = (event.get(name) for name in ("fraction", "text", "result"))
        if is_number(fraction):
            self.fraction = min(1.0, max(0.0, float(fraction)))  # type: ignore[arg-type]  # that is checked
        self.text = text if isinstance(text, str) else self.text
        self.result = result if isinstance(result, dict) else self.result
        if "error" in event:
            self._error = as_text(event["error"])

    def wait(self) -> dict[str, Any]:
        """Wait until it is done, and return the result; raises as `poll`."""
        while not self.poll():
            time.sleep(0.02)
        return self.result

    def cancel(self) -> None:
        """End the process and everything that it started."""
        child, self._child = self._child, None
        if child is not None:
            child.end()
