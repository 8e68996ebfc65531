# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences' tasks: processes, each with a name, which one timer watches.

In background mode Blender has no timers, so `start` waits for the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy

from ...errors import UserError, report
from ...worker.task import TaskProcess
from . import redraw as regions

_INTERVAL_S = 0.1

# Gets a task's result, and why it failed; the other one is empty.
AtEnd = Callable[[dict[str, Any], str], None]


@dataclass(frozen=True)
class _Running:
    task: TaskProcess
    at_end: AtEnd
    clean_up: Callable[[], None] = lambda: None


_running: dict[str, _Running] = {}


def start(name: str, task: TaskProcess, at_end: AtEnd, clean_up: Callable[[], None] = lambda: None) -> None:
    """Watch a task until its end.

    Args:
        name: A running task of the same name is cancelled.
        task: The process.
        at_end: Called with its result, or why it failed; not if it is cancelled.
        clean_up: Called after that in any case.
    """
    cancel(name)
    _running[name] = _Running(task, at_end, clean_up)
    if bpy.app.background:
        wait(name)
    elif not bpy.app.timers.is_registered(_look):
        # persistent: loading a file ends other timers.
        bpy.app.timers.register(_look, first_interval=_INTERVAL_S, persistent=True)
    redraw()


def current(name: str) -> TaskProcess | None:
    """The running task of that name."""
    running = _running.get(name)
    return running.task if running else None


def any_running() -> bool:
    """Whether any task runs."""
    return bool(_running)


def cancel(name: str) -> None:
    """End a task and everything that it started; `at_end` is not called."""
    if name in _running:
        _cancel(name)
        redraw()


def wait(name: str) -> None:
    """Wait until a task is done."""
    while name in _running:
        look()
        time.sleep(0.02)


def shut_down() -> None:
    """End all tasks."""
    for name in list(_running):
        _cancel(name)  # without a redraw: Blender may be about to quit
    if bpy.app.timers.is_registered(_look):
        bpy.app.timers.unregister(_look)


def look() -> None:
    """Poll every task."""
    for name, running in list(_running.items()):
        error: str = ""
        try:
            if not running.task.poll():
                continue
        except (OSError, UserError) as failure:
            error = report(failure)
        del _running[name]
        try:
            running.at_end(running.task.result, error)
        finally:
            running.clean_up()


def _cancel(name: str) -> None:
    running = _running.pop(name)
    running.task.cancel()
    running.clean_up()


def _look() -> float | None:
    look()
    redraw()
    return _INTERVAL_S if _running else None


def redraw() -> None:
    """Redraw the preferences."""
    regions.redraw(bpy.context, "PREFERENCES", "WINDOW")
