# SPDX-License-Identifier: GPL-3.0-or-later
"""Work in small steps, between which an interface lives: a generator that yields wherever it may be left for a while.

What it writes is undone when it is closed before its end.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

__all__ = ["Steps", "at_once", "for_a_while"]

T = TypeVar("T")
Steps = Generator[None, None, T]


def at_once(steps: Steps[T]) -> T:
    """All steps without a pause; returns what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def for_a_while(steps: Steps[T], seconds: float) -> T | None:
    """As many steps as fit into this time, at least one; None while there are more."""
    end_s = time.perf_counter() + seconds
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if time.perf_counter() >= end_s:
            return None
