# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs while the user works, one task at a time: its progress, its slices of the main thread, its end."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import bpy

from ...errors import Text, UserError
from ...pipeline.time_slicing import Steps, for_a_while

T = TypeVar("T")

# The remaining time is unknown in the first seconds.
_PACE_KNOWN_S = 2.0

_running: Task | None = None


class Task(ABC):
    """A task in progress. First it computes, then it writes.

    Attributes:
        doing: What it does, as a sentence without its full stop.
        poll_interval_s: How often `poll` should be called.
        slice_s: How long `poll` blocks the interface at most.
        writing_slice_s: The same for `write`.
        fraction: Progress, 0..1.
        title: What it is doing, for the progress bar.
        notes: Sentences for the user.
    """

    doing: str
    poll_interval_s = 0.1
    slice_s = writing_slice_s = 0.015

    def __init__(self, title: str) -> None:
        """Raise UserError if another task runs."""
        if _running is not None:
            raise UserError("{doing} already. Wait for it, or cancel it with Esc.", doing=_running.doing)
        self.fraction, self.title = 0.0, title
        self.notes: Sequence[str] = ()
        self._writing: Steps[Any] | None = None
        self._is_waited_for = False
        self._started_s = time.monotonic()

    @property
    def is_writing(self) -> bool:
        """Whether it is writing, so that the user must not change the scene."""
        return self._writing is not None

    @property
    def left_s(self) -> float | None:
        """Remaining seconds at the pace so far; None as long as that is unknown."""
        past_s = time.monotonic() - self._started_s
        return past_s * (1 / self.fraction - 1) if past_s > _PACE_KNOWN_S and self.fraction > 0.05 else None

    def poll(self) -> bool:
        """Compute for one slice, or look how far the computation is; True when it can be written.

        Raises:
            UserError, OSError, MemoryError: It failed; nothing was changed.
        """
        with self._ending_on_errors():
            return self._go_on()

    def write(self, context: bpy.types.Context) -> Any:
        """Write for one slice; the outcome, or None while there is more. The caller blocks user input until then.

        Raises:
            UserError, OSError: The target does not fit, or was changed meanwhile; nothing was changed.
        """
        with self._ending_on_errors(), self._place(context):
            if self._writing is None:
                self._writing = self._write(context)
            outcome = self._for_a_slice(self._writing, self.writing_slice_s)
        if outcome is not None:
            self.cancel()
        return outcome

    def finish(self, context: bpy.types.Context) -> Any:
        """Compute and write the rest without giving the interface a turn; raises as `poll` and `write`."""
        self._is_waited_for = True
        with self._ending_on_errors():
            while not self.poll():
                time.sleep(self.poll_interval_s)
            return self.write(context)

    def cancel(self) -> None:
        """End it; nothing was changed."""
        global _running
        if self._writing is not None:
            with suppress(ReferenceError):  # another file was opened
                self._writing.close()
        self._release()
        if _running is self:
            _running = None

    @abstractmethod
    def _go_on(self) -> bool:
        """What `poll` does."""

    @abstractmethod
    def _write(self, context: bpy.types.Context) -> Steps[Any]:
        """What `write` does, in steps. If the generator is closed, it undoes what it wrote."""

    def _place(self, _context: bpy.types.Context) -> AbstractContextManager[None]:
        """Where it writes."""
        return nullcontext()

    @abstractmethod
    def _release(self) -> None:
        """Release what it holds; called at its end, perhaps more than once."""

    def _edited(self, error: ReferenceError) -> Exception:
        """The error if a script removed the data that is being written."""
        return error

    def _for_a_slice(self, steps: Steps[T], seconds: float) -> T | None:
        """Steps for one slice; all of them if somebody waits for the task."""
        return for_a_while(steps, math.inf if self._is_waited_for else seconds)

    @contextmanager
    def _ending_on_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.cancel()
            if isinstance(error, ReferenceError):
                raise self._edited(error) from error
            raise

    def _begin(self) -> None:
        """Become the running task: what a subclass does at the end of its `__init__`."""
        global _running
        _running = self


def running_task() -> Task | None:
    """The task that runs now."""
    return _running


def why_wait() -> str:
    """Why no other task can start now; empty if one can."""
    return Text("{doing}; press Esc to cancel it", doing=_running.doing) if _running is not None else ""


def why_wait_for_its_end() -> str:
    """The same, where the running task should not be cancelled."""
    return Text("{doing}; wait until it is done", doing=_running.doing) if _running is not None else ""
