# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests ask about processes that they started."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def is_running(pid: int) -> bool:
    """Whether a process runs and is not a zombie; only Linux can tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], T], limit_s: float = 10.0) -> T:
    """Wait for a true value of `condition` and return it."""
    end_s = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.02)
    return found
