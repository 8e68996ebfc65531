# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends a worker that has had nothing to do for a while: warm it saves seconds, and keeps a model in memory."""

from __future__ import annotations

import bpy

from ...worker import client
from ..tasks.task import running_task

IDLE_S = 600.0
_LOOK_S = 30.0


def register() -> None:
    """Begin to look; in background mode Blender has no timers and ends soon."""
    if not bpy.app.background:
        # persistent: loading a file ends other timers.
        bpy.app.timers.register(look, first_interval=_LOOK_S, persistent=True)


def unregister() -> None:
    """End that."""
    if bpy.app.timers.is_registered(look):
        bpy.app.timers.unregister(look)


def look() -> float:
    """End the worker if it is idle; when to look again. A task that writes may still need the worker's files."""
    if running_task() is None:
        client.end_idle(IDLE_S)
    return _LOOK_S
