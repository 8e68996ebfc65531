# SPDX-License-Identifier: GPL-3.0-or-later
"""Long work in small steps, so that an interface stays responsive: a generator that yields after each step.

A generator that writes undoes its changes when it is closed before the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeVar

__all__ = ["Progress", "Steps", "at_once", "for_a_while"]

T = TypeVar("T")
Steps = Generator[None, None, T]
Progress = Callable[[float], None]
"""Called with the fraction that is done, 0..1."""


def at_once(steps: Steps[T]) -> T:
    """Run all steps without a pause and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def for_a_while(steps: Steps[T], seconds: float) -> T | None:
    """Run at least one step, and more until the time is over; the result, or None if steps are left."""
    end_s = time.perf_counter() + seconds
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if time.perf_counter() >= end_s:
            return None
