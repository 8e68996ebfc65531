# SPDX-License-Identifier: GPL-3.0-or-later
"""Arithmetic beside the interface: a thread that knows nothing of Blender computes, the main thread writes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import bpy

from .running import Running

# Told the fraction that is done; what calls it ends there when nobody wants the result any more.
Progress = Callable[[float], None]


class _GivenUpError(Exception):
    """Nobody wants the result any more."""


class Computing(Running):
    """Something computed in a thread."""

    def __init__(self, title: str, doing: str, compute: Callable[[Progress], Any], write: Callable[[Any], Any]) -> None:
        """Nothing begins before `start` or `finish`.

        Args:
            title: As the progress bar calls it.
            doing: What is going on, for who must wait.
            compute: Runs in the thread, so it must not touch Blender's data; raises what `poll` shall raise.
            write: Writes what `compute` returned, or raises ValueError and changes nothing.

        Raises:
            ValueError: Something runs already.
        """
        super().__init__(title)
        self.doing = doing
        self._compute, self._write = compute, write
        self._given_up = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=title, daemon=True)

    def start(self) -> Computing:
        """Begin to compute beside the interface."""
        self._thread.start()
        self._begin()
        return self

    def poll(self) -> bool:
        """Whether it is computed.

        Raises:
            ValueError, OSError, MemoryError: It cannot be; nothing was changed.
        """
        if self._thread.is_alive():
            return False
        if self._error is not None:
            self._end()
            raise self._error
        return True

    def write(self, _context: bpy.types.Context) -> Any:
        """Write it all; raises as `write` was said to."""
        try:
            return self._write(self._result)
        finally:
            self._end()

    def finish(self) -> Any:
        """Compute and write without a thread; raises as `poll` and `write`."""
        return self._write(self._compute(self._tell))

    def cancel(self) -> None:
        """Give up; nothing was changed. The thread ends the next time that it tells how far it is."""
        self._given_up.set()
        self._end()

    def _work(self) -> None:
        try:
            self._result = self._compute(self._tell)
        except _GivenUpError:
            pass
        except BaseException as error:
            self._error = error

    def _tell(self, fraction: float) -> None:
        if self._given_up.is_set():
            raise _GivenUpError
        self.fraction = fraction
