# SPDX-License-Identifier: GPL-3.0-or-later
"""report.html: one file without links to elsewhere, which a browser sorts and draws from the lines' records.

The names of the columns are there once, and a number of a picture is one letter, so 10,000 lines take half the place.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import atomic_file
from .mouth_picture import N_OUTER, STEP_MM, at_rest
from .sound_measures import N_BARS

_TEMPLATE = Path(__file__).with_suffix(".html")
_OURS = b'<meta name="generator" content="wav2sem batch">'
# Hashes, sizes and the like are in report.jsonl alone.
_SHOWN = (
    *("row", "name", "audio", "state", "cause", "error", "notes", "seconds", "confidence", "fit", "recognised"),
    *("level_db", "peak_db", "clipped", "noise_db", "silence"),
)
# A picture's numbers are letters from "=" on, modulo 256. Those below 66 are ASCII's, a byte each: of the waveform 64
# heights, of the lips how far a point is below its place at rest, or up to 16 steps above it.
_FIRST, _HIGHER = ord("="), 16
_STEPS_OF_A_HEIGHT = 4


def write(path: Path, records: Iterable[Mapping[str, Any]], title: str) -> None:
    """Write the page in one step, record by record.

    Args:
        path: The file.
        records: Of `journal`.
        title: Its heading.

    Raises:
        UserError: The file cannot be written, or is there and was not made by a batch.
    """
    if path.exists() and not _is_ours(path):
        raise UserError("{file} exists and was not made by a batch; choose another --output.", file=path)
    values = {"title": html.escape(title), "outer": N_OUTER, "bars": N_BARS, "step": STEP_MM}
    values |= {"first": _FIRST, "rest": _rest().tolist(), "columns": json.dumps([*_SHOWN, "bars", "lips"])}
    page = _TEMPLATE.read_text(encoding="utf-8").partition("\n")[2]  # the licence is that of the sources
    for name, value in values.items():
        page = page.replace(f"@{name}@", str(value))
    before, _, after = page.partition("@data@")
    with atomic_file(path) as file:
        file.write(before.encode("utf-8") + b"[")
        for number, record in enumerate(records):
            shown = json.dumps([record.get(name) for name in _SHOWN], separators=(",", ":"))
            drawn = json.dumps(_pictures(record), separators=(",", ":"), ensure_ascii=False)
            line = f"{shown[:-1]},{drawn[1:]}".replace("<", "\\u003c")  # "<" could end the script in which the data is
            file.write((b",\n" if number else b"\n") + line.encode("utf-8"))
        file.write(b"]" + after.encode("utf-8"))


def _pictures(record: Mapping[str, Any]) -> tuple[str, str]:
    """The waveform and the lips as letters; empty for none."""
    bars, lips = (np.frombuffer(bytes.fromhex(record.get(name, "")), np.uint8) for name in ("bars", "lips"))
    below_rest = np.tile(_rest(), len(lips) // len(_rest())) - lips
    return _letters(bars // _STEPS_OF_A_HEIGHT), _letters(below_rest)


def _rest() -> np.ndarray:
    """What a letter of the lips is counted from, for the coordinates of one picture."""
    return at_rest().ravel() + np.uint8(_HIGHER)


def _letters(numbers: np.ndarray) -> str:
    return (numbers + np.uint8(_FIRST)).tobytes().decode("latin-1")


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return _OURS in file.read(1000)
