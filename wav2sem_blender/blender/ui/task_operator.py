# SPDX-License-Identifier: GPL-3.0-or-later
"""How an operator follows a task: a timer, the progress in the status bar, and Esc."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy

from ...errors import Text
from .. import compat
from ..tasks.redraw import redraw
from ..tasks.task import Task, running_task
from ..translations import translated
from .widgets import AddonOperator, progress_text

# User input is blocked while a task writes, so the next slice follows soon.
_WRITING_TIMER_S = 0.005


def draw_progress(row: bpy.types.UILayout, task: Task) -> None:
    """Draw the progress, and the button that cancels."""
    row.progress(factor=task.fraction, text=translated(progress_text(task)))
    row.operator("wav2sem.cancel", text="", icon="X")


class TaskOperator(AddonOperator):
    """Base of operators that run a task; a subclass has `_make` and `_finished`."""

    _task: Task | None = None
    _timer: Any = None
    _shown = ""

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> compat.Result:
        """Run while the user works; Esc cancels."""
        if bpy.app.background or context.window is None:
            return self.execute(context)
        return self._start(context)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Run to the end, for scripts and in the background."""
        try:
            task = self._make(context)
            outcome = task.finish(context)
        except Exception as error:
            return self._failed(error)
        return self._finished(outcome, task.notes)

    def _make(self, context: bpy.types.Context) -> Task:
        """Begin the task."""
        raise NotImplementedError

    def _start(self, context: bpy.types.Context) -> compat.Result:
        """Begin the task and follow it."""
        try:
            self._task = self._make(context)
        except Exception as error:
            return self._failed(error)
        self._set_timer(context, self._task.poll_interval_s)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> compat.Result:
        """Poll the task at each timer event, then write slice by slice and block all user input."""
        assert self._task is not None
        if running_task() is not self._task:
            return self._cancelled(context)
        if self._task.is_writing and not event.type.startswith("TIMER"):
            return {"RUNNING_MODAL"}
        if event.type == "ESC" and event.value == "PRESS":
            self._task.cancel()
            return self._cancelled(context)
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        try:
            if not self._task.poll():
                self._show_progress(context)
                return {"PASS_THROUGH"}
            if not self._task.is_writing:
                self._set_timer(context, _WRITING_TIMER_S)
            outcome = self._task.write(context)
            if outcome is None:
                return {"PASS_THROUGH"}
            result = self._finished(outcome, self._task.notes)
        except Exception as error:
            result = self._failed(error)
        return self._end(context, result)

    def cancel(self, context: bpy.types.Context) -> None:
        """Cancel the task: Blender loads another file or closes the window."""
        if self._task is not None and running_task() is self._task:
            self._task.cancel()
        self._end(context, set())

    def _finished(self, outcome: Any, notes: Sequence[str]) -> compat.Result:
        """Report the outcome of the task."""
        raise NotImplementedError

    def _show_progress(self, context: bpy.types.Context) -> None:
        assert self._task is not None
        progress = progress_text(self._task)
        if progress != self._shown:
            self._shown = progress
            words = translated(Text("{progress}   Esc: Cancel", progress=progress))
            context.workspace.status_text_set(words)  # type: ignore[union-attr]
            redraw(context)

    def _cancelled(self, context: bpy.types.Context) -> compat.Result:
        self.tell({"INFO"}, "Cancelled; nothing was changed")
        return self._end(context, {"CANCELLED"})

    def _end(self, context: bpy.types.Context, result: compat.Result) -> compat.Result:
        """Remove the timer and the status text."""
        self._set_timer(context, None)
        if context.workspace is not None:
            context.workspace.status_text_set(None)
        redraw(context)
        return result

    def _set_timer(self, context: bpy.types.Context, interval_s: float | None) -> None:
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
            self._timer = None
        if interval_s is not None:
            self._timer = context.window_manager.event_timer_add(interval_s, window=context.window)
