# SPDX-License-Identifier: GPL-3.0-or-later
"""How long Blender's main loop is blocked: a fast timer records when it is called late."""

from __future__ import annotations

import time
from collections.abc import Callable

import bpy
import stage
from harness import TURN_S, Gui, Steps

# Limit for one computation, without the time for drawing.
LONGEST_STALL_MS = 50
_INTERVAL_S = 0.005
_REDRAWS = "redraws without a job"
# Limit for the click, which starts a process, and for Blender's undo step.
_STARTS_AND_ENDS = ("rest", "rest to job", "job to rest", "writing to rest")


class Stalls:
    """Gaps between the calls of a 5 ms timer, by what happened meanwhile.

    Attributes:
        wall_s: Phase to its longest gap by the clock: what a person feels, the load of other programs included.
        thread_s: The same by the main thread's own computing time: what Blender and the add-on did.
    """

    def __init__(self, phase: Callable[[], str]) -> None:
        """`phase` returns the current phase; a gap across two phases is a transition between them."""
        self.wall_s: dict[str, float] = {}
        self.thread_s: dict[str, float] = {}
        self._phase = phase
        # Blender identifies a timer by its object, and each access to a bound method makes a new one.
        self._timer = self._turn
        self._last: tuple[float, float, str] | None = None

    def start(self) -> None:
        """Start watching."""
        self._last = None
        bpy.app.timers.register(self._timer, first_interval=0.0, persistent=True)

    def stop(self) -> None:
        """Stop watching."""
        bpy.app.timers.unregister(self._timer)

    def figures(self) -> dict[str, str]:
        """One line for each phase."""
        return {
            phase: f"{1e3 * self.wall_s[phase]:.0f} ms by the clock, {1e3 * self.thread_s[phase]:.0f} ms computed"
            for phase in self.wall_s
        }

    def _turn(self) -> float:
        now_s, computed_s, phase = time.perf_counter(), time.thread_time(), self._phase()
        if self._last is not None:
            last_s, last_computed_s, last_phase = self._last
            name = phase if phase == last_phase else f"{last_phase} to {phase}"
            self.wall_s[name] = max(self.wall_s.get(name, 0.0), now_s - last_s - _INTERVAL_S)
            self.thread_s[name] = max(self.thread_s.get(name, 0.0), computed_s - last_computed_s)
        self._last = now_s, computed_s, phase
        return _INTERVAL_S


def watch_redraws(gui: Gui) -> Steps[Stalls]:
    """Measure what drawing costs here, without a GPU: a job's redraws without a job."""
    watch = Stalls(lambda: _REDRAWS)
    watch.start()
    for _ in range(15):
        gui.area.tag_redraw()
        yield 0.1
    watch.stop()
    return watch


def stays_alive(job: Stalls, redraws: Stalls) -> dict[str, str]:
    """Assert that the main loop never computed for long during a job; returns the figures.

    Raises:
        AssertionError: It did.
    """
    redraw_ms = 1e3 * redraws.thread_s[_REDRAWS]
    stall_ms = 1e3 * max(stall for phase, stall in job.thread_s.items() if phase not in _STARTS_AND_ENDS)
    assert stall_ms < LONGEST_STALL_MS + redraw_ms, (
        f"the main loop computed for {stall_ms:.0f} ms at a stretch during the job, {redraw_ms:.0f} ms without one; "
        f"{job.figures()}"
    )
    return {**redraws.figures(), **job.figures()}


def watch_run(gui: Gui, limit_s: float) -> Steps[Stalls]:
    """Click the big button and watch until the curves are written and nothing runs."""
    place = yield from gui.find(stage.ANIMATE)
    return (yield from watch_click(gui, place, lambda: bool(stage.curves()) and not stage.running(), limit_s))


def watch_click(gui: Gui, place: tuple[int, int], is_done: Callable[[], bool], limit_s: float) -> Steps[Stalls]:
    """Click there and watch until it is done and nothing runs."""
    watch = Stalls(stage.phase)
    watch.start()
    yield 5 * TURN_S
    yield from gui.click(place)
    yield from gui.move(gui.middle_of_view())
    yield from gui.until(is_done, "the curves", limit_s)
    yield 10 * TURN_S
    watch.stop()
    return watch
