# SPDX-License-Identifier: GPL-3.0-or-later
"""How an operator stays with what runs beside the interface: a timer, the progress in the status bar, and Esc."""

from __future__ import annotations

from typing import Any

import bpy

from ...errors import Text
from .. import compat
from ..tasks.redraw import redraw
from ..tasks.running import Running, current
from ..translations import translated
from .widgets import AddonOperator, progress_text

# While curves are written nothing else may happen, so the next slice follows soon.
_WRITING_TIMER_S = 0.005


def draw_progress(row: bpy.types.UILayout, job: Running) -> None:
    """How far it is, and what cancels it."""
    row.progress(factor=job.fraction, text=translated(progress_text(job)))
    row.operator("wav2sem.cancel", text="", icon="X")


class JobOperator(AddonOperator):
    """What operators share that wait for a job; `_make` and `_finished` are the operator's own."""

    _job: Running | None = None
    _timer: Any = None
    _shown = ""

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> compat.Result:
        """Work beside the interface where there is one; Esc cancels."""
        if bpy.app.background or context.window is None:
            return self.execute(context)
        return self._start(context)

    def _make(self, context: bpy.types.Context) -> Running:
        """Begin the job."""
        raise NotImplementedError

    def _start(self, context: bpy.types.Context) -> compat.Result:
        """Begin the job and stay with it."""
        try:
            self._job = self._make(context)
        except Exception as error:
            return self._failed(error)
        self._set_timer(context, self._job.poll_interval_s)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> compat.Result:
        """Look at the job when its time has come; at its end, write curves in slices and let nobody come between."""
        assert self._job is not None
        if current() is not self._job:
            return self._cancelled(context)
        if self._job.is_writing and not event.type.startswith("TIMER"):
            return {"RUNNING_MODAL"}
        if event.type == "ESC" and event.value == "PRESS":
            self._job.cancel()
            return self._cancelled(context)
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        try:
            if not self._job.poll():
                self._show_progress(context)
                return {"PASS_THROUGH"}
            if not self._job.is_writing:
                self._set_timer(context, _WRITING_TIMER_S)
            outcome = self._job.write(context)
            if outcome is None:
                return {"PASS_THROUGH"}
            result = self._finished(outcome, self._job.notes)
        except Exception as error:
            result = self._failed(error)
        return self._end(context, result)

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: another file is loaded, or the window closes."""
        if self._job is not None and current() is self._job:
            self._job.cancel()
        self._end(context, set())

    def _finished(self, outcome: Any, notes: list[str]) -> compat.Result:
        """Say what was done; `outcome` is what the job wrote."""
        raise NotImplementedError

    def _show_progress(self, context: bpy.types.Context) -> None:
        assert self._job is not None
        progress = progress_text(self._job)
        if progress != self._shown:
            self._shown = progress
            words = translated(Text("{progress}   Esc: Cancel", progress=progress))
            context.workspace.status_text_set(words)  # type: ignore[union-attr]
            redraw(context)

    def _cancelled(self, context: bpy.types.Context) -> compat.Result:
        self.tell({"INFO"}, "Cancelled; nothing was changed")
        return self._end(context, {"CANCELLED"})

    def _end(self, context: bpy.types.Context, result: compat.Result) -> compat.Result:
        """Leave no timer and no status text behind."""
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
