# SPDX-License-Identifier: GPL-3.0-or-later
"""report.html: one file without links to elsewhere, which a browser sorts and draws from the lines' records.

The records are compressed, which takes 43 % of their place; browsers since 2023 can unpack them.
"""

from __future__ import annotations

import base64
import html
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import atomic_file
from .mouth_picture import N_OUTER, STEP_MM
from .sound_measures import N_BARS

_TEMPLATE = Path(__file__).with_suffix(".html")
_OURS = b'<meta name="generator" content="wav2sem batch">'
# Hashes, sizes and the like are in report.jsonl alone.
_SHOWN = (
    *("row", "name", "audio", "state", "cause", "error", "notes", "seconds", "confidence", "fit", "recognised"),
    *("level_db", "peak_db", "clipped", "noise_db", "silence", "bars", "lips"),
)


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
    page = _TEMPLATE.read_text(encoding="utf-8").partition("\n")[2]  # the licence is that of the sources
    for name, value in values.items():
        page = page.replace(f"@{name}@", str(value))
    before, _, after = page.partition("@data@")
    with atomic_file(path) as file:
        file.write(before.encode("utf-8"))
        for part in _packed(records):
            file.write(part)
        file.write(after.encode("utf-8"))


def _packed(records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The records as JSON, compressed, in base64; in parts, because a night's records need not be in memory."""
    packer, waiting, before = zlib.compressobj(), b"", b"["
    for record in records:
        shown = {name: record[name] for name in _SHOWN if name in record}
        waiting += packer.compress(before + json.dumps(shown).encode("ascii"))
        before = b","
        whole = len(waiting) - len(waiting) % 3  # base64 has 4 letters for 3 bytes
        yield base64.b64encode(waiting[:whole])
        waiting = waiting[whole:]
    end = b"]" if before == b"," else b"[]"
    yield base64.b64encode(waiting + packer.compress(end) + packer.flush())


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return _OURS in file.read(1000)
