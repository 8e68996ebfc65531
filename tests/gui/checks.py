# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios assert about the scene and about the messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import Gui, Steps
from state import difference, snapshot

__all__ = ["Figures", "Scenario", "Snapshot", "heard", "snapshot", "unchanged"]

# What a scenario measured, for the report.
Figures = dict[str, Any]
Scenario = Callable[[Gui], Steps[Figures | None]]
Snapshot = dict[str, Any]


def unchanged(before: Snapshot) -> None:
    """Assert that the scene is as it was.

    Raises:
        AssertionError: It is not; the message says what differs.
    """
    changed = difference(before, snapshot())
    assert not changed, f"the scene changed:\n{changed}"


def heard(gui: Gui, sentence: str, already: int) -> str:
    """Return the message with `sentence` in it that came after the first `already` ones.

    Raises:
        AssertionError: There is none.
    """
    new = gui.reports()[already:]
    found = [line for line in new if sentence in line]
    assert found, f'no message says "{sentence}"; there are {new}'
    return found[-1]
