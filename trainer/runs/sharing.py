# SPDX-License-Identifier: GPL-3.0-or-later
"""Work that the processes of a run share through files, before the first step.

A barrier gives up after half an hour, and then the run ends; text vectors and labels of 960 hours take longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

POLL_S = 1.0


def divide(
    pieces: Sequence[Path],
    make: Callable[[Path], object],
    is_done: Callable[[Path], bool] = Path.is_file,
    title: str = "",
) -> None:
    """Make every piece in one of the processes that call this, and return when all are done.

    A process takes a piece that no other one has in hand, by a lock beside it. A lock ends with its process, so what a
    killed one had in hand is taken over, and any number of processes may come or go.

    Args:
        pieces: Files or folders to be made.
        make: Makes one of them, whole or not at all.
        is_done: Whether one of them has been made.
        title: Of the progress bar, which several pieces have.

    Raises:
        OSError: No lock can be written.
    """
    quiet = len(pieces) < 2 or os.environ.get("LOCAL_RANK", "0") != "0"
    with tqdm(total=len(pieces), desc=title, unit="part", disable=quiet) as bar:
        while left := [piece for piece in pieces if not is_done(piece)]:
            bar.update(len(pieces) - len(left) - bar.n)
            if not any(_made(piece, make, is_done) for piece in left):
                time.sleep(POLL_S)
        bar.update(len(pieces) - bar.n)


def _made(piece: Path, make: Callable[[Path], object], is_done: Callable[[Path], bool]) -> bool:
    """Whether this process made it; False if another one has it in hand, or has finished it."""
    path = piece.with_name(f"{piece.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            try:
                if is_done(piece):
                    return False
                make(piece)
                return True
            finally:
                with suppress(OSError):  # Windows keeps it until it is released
                    path.unlink()
    except Timeout:
        return False
