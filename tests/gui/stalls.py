# SPDX-License-Identifier: GPL-3.0-or-later
"""How long Blender's main loop keeps a person waiting: a fast timer that notes when it was called late."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import bpy

_INTERVAL_S = 0.005


@dataclass
class Stalls:
    """Gaps between the calls of a timer that wants to be called every 5 ms.

    Attributes:
        wall_s: Each gap by the clock: what a person feels, other programs' load included.
        thread_s: Each gap by the main thread's own computing time: what Blender and the add-on did.
    """

    wall_s: list[float] = field(default_factory=list)
    thread_s: list[float] = field(default_factory=list)
    _last: tuple[float, float] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._last = None
        bpy.app.timers.register(self._turn, first_interval=0.0, persistent=True)

    def stop(self) -> None:
        """Stop watching."""
        bpy.app.timers.unregister(self._turn)

    def longest_ms(self) -> dict[str, float]:
        """The longest gap by both clocks, in milliseconds."""
        return {
            "wall_ms": round(1e3 * max(self.wall_s, default=0.0), 1),
            "main_thread_ms": round(1e3 * max(self.thread_s, default=0.0), 1),
            "turns": float(len(self.wall_s)),
        }

    def _turn(self) -> float:
        now = time.perf_counter(), time.thread_time()
        if self._last is not None:
            self.wall_s.append(max(0.0, now[0] - self._last[0] - _INTERVAL_S))
            self.thread_s.append(now[1] - self._last[1])
        self._last = now
        return _INTERVAL_S
