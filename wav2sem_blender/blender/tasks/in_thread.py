# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that computes in a thread, which knows nothing of Blender; the main thread then writes the result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import bpy

from ...pipeline.time_slicing import Progress, Steps
from .task import Task


class _CancelledError(Exception):
    """The result is not wanted any more."""


class ThreadTask(Task):
    """A computation in progress in a thread."""

    def __init__(self, title: str, doing: str, compute: Callable[[Progress], Any], write: Callable[[Any], Any]) -> None:
        """Begin to compute.

        Args:
            title: As the progress bar calls it.
            doing: As `Task.doing`.
            compute: Runs in the thread, so it must not touch Blender's data. It reports its progress, which ends it
                after a cancellation.
            write: Writes the result of `compute` and returns the outcome, or raises and changes nothing.

        Raises:
            UserError: Another task runs.
        """
        super().__init__(title)
        self.doing = doing
        self._compute, self._write_all = compute, write
        self._is_cancelled = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=title, daemon=True)
        self._thread.start()
        self._begin()

    def _go_on(self) -> bool:
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def _write(self, _context: bpy.types.Context) -> Steps[Any]:
        yield
        return self._write_all(self._result)

    def _release(self) -> None:
        self._is_cancelled.set()

    def _work(self) -> None:
        try:
            self._result = self._compute(self._report)
        except _CancelledError:
            pass
        except BaseException as error:
            self._error = error

    def _report(self, fraction: float) -> None:
        if self._is_cancelled.is_set():
            raise _CancelledError
        self.fraction = fraction
