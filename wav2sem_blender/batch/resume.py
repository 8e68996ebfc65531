# SPDX-License-Identifier: GPL-3.0-or-later
"""Which lines are made already: the same recording, transcript, settings, model and code, and the files still there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from .. import threads
from .journal import Entry, Journal
from .manifest import Row

_PACKAGE = Path(__file__).parents[1]
# What makes the bytes of a line; the rest of the package only asks for them.
_CODE = (
    "pipeline/**/*.py",
    *(f"batch/{name}.py" for name in ("line", "confidence", "mouth_picture", "sound_measures")),
)
_AT_ONCE = 4096
_READ_BYTES = 1 << 18


def recipe(settings: Mapping[str, Any], **others: object) -> str:
    """A hash of everything that a line is made with beside its recording and its transcript."""
    content = {"settings": dict(settings), "code": code_sha256(), **others}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


@cache
def code_sha256() -> str:
    """A hash of the sources that make a line's bytes."""
    digest = hashlib.sha256()
    for pattern in _CODE:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def file_sha256(path: str) -> str:
    """Hash of a file's bytes; empty for no file, or one that cannot be read, which is then no reason to skip a line."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def folder_sha256(path: str) -> str:
    """Hash of the names and bytes of a folder's files, not of those in folders below it."""
    digest = hashlib.sha256()
    for name in sorted(entry.name for entry in os.scandir(path) if entry.is_file()):
        digest.update(f"{name}\0{file_sha256(os.path.join(path, name))}\0".encode())
    return digest.hexdigest()


def left_to_make(
    rows: Iterable[Row], journal: Journal, recipe_of: Callable[[Row], str], files_of: Callable[[Row], dict[str, Path]]
) -> list[Row]:
    """The rows that are not made, or of which something changed. Files are compared by their bytes, because clocks jump
    and copying keeps or changes times as it likes.
    """
    left: list[Row] = []
    candidates: list[tuple[Row, Entry]] = []
    with ThreadPoolExecutor(2 * threads.cores()) as pool:

        def compare() -> None:
            same = pool.map(lambda pair: _is_same_sound(*pair), candidates)
            left.extend(row for (row, _), is_same in zip(candidates, same, strict=True) if not is_same)
            candidates.clear()

        for row in rows:
            entry = journal.entries.get(row.name)
            if entry and entry.is_made and entry.recipe == recipe_of(row) and _are_there(entry, files_of(row)):
                candidates.append((row, entry))
            else:
                left.append(row)
            if len(candidates) >= _AT_ONCE:
                compare()
        compare()
    return sorted(left, key=lambda row: row.number)


def _are_there(entry: Entry, files: Mapping[str, Path]) -> bool:
    sizes = dict(entry.sizes)
    if sizes.keys() != files.keys():
        return False
    try:
        return all(os.stat(files[name]).st_size == size for name, size in sizes.items())
    except OSError:
        return False


def _is_same_sound(row: Row, entry: Entry) -> bool:
    return file_sha256(row.audio) == entry.audio_sha256 and said_sha256(row) == entry.transcript_sha256


def said_sha256(row: Row) -> str:
    """Hash of what is said, whether in a file or in the row; empty where nobody says."""
    if row.transcript:
        return file_sha256(row.transcript)
    if row.track:
        return track_sha256(row.track)
    return hashlib.sha256(row.text.encode()).hexdigest() if row.text else ""


def track_sha256(path: str) -> str:
    """Hash of a track, as `file_sha256`; as a transcript the same file has another."""
    found = file_sha256(path)
    return found and hashlib.sha256(f"track {found}".encode()).hexdigest()
