# SPDX-License-Identifier: GPL-3.0-or-later
"""The preferences' chores: processes beside the interface that one timer looks after, each with a name.

Blender's background mode has no timers: there `start` waits for the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy

from ...errors import UserError, report
from ...worker.chore import Chore
from . import redraw as regions

_INTERVAL_S = 0.1

# A chore's result, or why there is none.
AtEnd = Callable[[dict[str, Any], str], None]


@dataclass(frozen=True)
class _Running:
    chore: Chore
    at_end: AtEnd
    clean_up: Callable[[], None] = lambda: None


_running: dict[str, _Running] = {}


def start(name: str, chore: Chore, at_end: AtEnd, clean_up: Callable[[], None] = lambda: None) -> None:
    """Look after a chore until its end; one of the same name is cancelled.

    Args:
        name: One of this name runs at a time.
        chore: The process.
        at_end: Called with its result, or why there is none; not when it is cancelled.
        clean_up: Called after that in any case.
    """
    cancel(name)
    _running[name] = _Running(chore, at_end, clean_up)
    if bpy.app.background:
        wait(name)
    elif not bpy.app.timers.is_registered(_look):
        # Loading a file ends other timers.
        bpy.app.timers.register(_look, first_interval=_INTERVAL_S, persistent=True)
    redraw()


def current(name: str) -> Chore | None:
    """The chore of that name while it runs."""
    running = _running.get(name)
    return running.chore if running else None


def any_running() -> bool:
    """Is something being done?"""
    return bool(_running)


def cancel(name: str) -> None:
    """End it, with all the processes that it started; `at_end` is not called."""
    if name in _running:
        _cancel(name)
        redraw()


def wait(name: str) -> None:
    """Block until it is done."""
    while name in _running:
        look()
        time.sleep(0.02)


def shut_down() -> None:
    """End them all."""
    for name in list(_running):
        _cancel(name)  # Blender may be about to quit, with nothing left to draw
    if bpy.app.timers.is_registered(_look):
        bpy.app.timers.unregister(_look)


def look() -> None:
    """See what became of them."""
    for name, running in list(_running.items()):
        error: str = ""
        try:
            if not running.chore.poll():
                continue
        except (OSError, UserError) as failure:
            error = report(failure)
        del _running[name]
        try:
            running.at_end(running.chore.result, error)
        finally:
            running.clean_up()


def _cancel(name: str) -> None:
    running = _running.pop(name)
    running.chore.cancel()
    running.clean_up()


def _look() -> float | None:
    look()
    redraw()
    return _INTERVAL_S if _running else None


def redraw() -> None:
    """Show the news."""
    regions.redraw(bpy.context, "PREFERENCES", "WINDOW")
