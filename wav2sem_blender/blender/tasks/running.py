# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs beside the interface, one at a time: how far it is, and what all of it answers to its operator."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import bpy

from ...errors import Text, UserError
from ...pipeline.time_slicing import Steps

# Of a run's first seconds no pace can be told.
_PACE_KNOWN_S = 2.0
# How long work in this process is done before the interface gets its turn.
SLICE_S = 0.015

_current: Running | None = None


class Running(ABC):
    """Something in progress.

    Attributes:
        doing: What is going on, for who must wait: a sentence without its end.
        poll_interval_s: How often `poll` wants to be called.
        fraction: Progress, 0..1.
        title: What is being done, for the progress bar.
        notes: Sentences for the user.
    """

    doing: str
    poll_interval_s = 0.1

    def __init__(self, title: str) -> None:
        """Raise ValueError when something runs already."""
        if _current is not None:
            raise UserError("{doing} already. Wait for it, or cancel it with Esc.", doing=_current.doing)
        self.fraction, self.title = 0.0, title
        self.notes: list[str] = []
        self._writing: Steps[Any] | None = None
        self._started_s = time.monotonic()

    @property
    def is_writing(self) -> bool:
        """Whether curves are being written, so that nobody may touch the scene."""
        return self._writing is not None

    @property
    def left_s(self) -> float | None:
        """Seconds to go, by the pace so far; None while that says nothing yet."""
        past_s = time.monotonic() - self._started_s
        return past_s * (1 / self.fraction - 1) if past_s > _PACE_KNOWN_S and self.fraction > 0.05 else None

    @abstractmethod
    def poll(self) -> bool:
        """Go on, or see what others did; True when it can be written.

        Raises:
            ValueError, OSError: It failed; nothing was changed.
        """

    @abstractmethod
    def write(self, context: bpy.types.Context) -> Any:
        """Write curves for a moment; None while there are more. The caller lets nobody touch the scene meanwhile.

        Raises:
            ValueError, OSError: The target changed meanwhile, or does not fit; nothing was changed.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Give up; nothing was changed."""

    def _begin(self) -> None:
        global _current
        _current = self

    def _end(self) -> None:
        global _current
        if _current is self:
            _current = None


def current() -> Running | None:
    """What runs now, for the panel."""
    return _current


def why_wait() -> str:
    """Why nothing else can start now, or nothing."""
    return Text("{doing}; press Esc to cancel it", doing=_current.doing) if _current is not None else ""


def why_wait_for_its_end() -> str:
    """The same, of what must not be cancelled for so little."""
    return Text("{doing}; wait for its end", doing=_current.doing) if _current is not None else ""
