# SPDX-License-Identifier: GPL-3.0-or-later
"""A motion as a table for spreadsheets and scripts: one row per frame, one column per curve."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from ..files import atomic_file
from .motion import Motion

_FIRST_COLUMNS = ("time", "frame")


def is_table(path: Path) -> bool:
    """Whether `save_table` wrote this file, so that it may be replaced; True for an empty file."""
    begin = f"{','.join(_FIRST_COLUMNS)},".encode()
    with path.open("rb") as file:
        return file.read(len(begin)) in (b"", begin)


def save_table(motion: Motion, path: str | os.PathLike[str], first_frame: int = 0) -> None:
    """Write a csv with the columns time (seconds from the first row), frame, and every channel.

    Args:
        motion: The curves.
        path: The file; an existing one is replaced in one step.
        first_frame: Frame number of the first row.

    Raises:
        UserError: The file cannot be written; an older file of that name is untouched.
    """
    with atomic_file(Path(path)) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_FIRST_COLUMNS, *motion.channels])
        for anim_frame, weights_K in enumerate(motion.weights_TK.tolist()):
            seconds = f"{anim_frame / motion.fps:.6f}"
            writer.writerow([seconds, first_frame + anim_frame, *(f"{weight:.6f}" for weight in weights_K)])
        text.flush()
        text.detach()
