# SPDX-License-Identifier: GPL-3.0-or-later
"""report.jsonl: a record for each line as it is made, and at the end for each row in the manifest's order.

While a run goes on, records are appended, so a killed run loses none. A run of a chunk has a file of its own, and the
run of the whole manifest that follows takes those in. Only a line's hashes and the place of its record are kept in
memory. Standard library only.

A line's files are written before its record. So a run first writes which lines it begins: what lies there after it was
killed is then known to be ours, and may be replaced.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from ..files import atomic_file
from .manifest import Row

REPORT = "report.jsonl"
MADE, FAILED = "made", "failed"
_BEGUN = ".wav2sem_batch.begun"
_CHUNK_REPORT = re.compile(r"report\.\d+of\d+\.jsonl")
_OF_KIND = b'{"batch": 1, '


@dataclass(slots=True)
class Entry:
    """Where a line's last record is, and what a later run compares."""

    file: int
    offset: int
    is_made: bool
    recipe: str
    audio_sha256: str
    transcript_sha256: str
    sizes: tuple[tuple[str, int], ...]


class Journal:
    """The records of a folder; a context manager that holds the file open for appending."""

    def __init__(self, folder: Path, chunk: tuple[int, int] = (1, 1)) -> None:
        """Read the records that are there.

        Raises:
            UserError: A report was not made by a batch.
            OSError: A file cannot be read.
        """
        self.folder = folder
        self.path = folder / (REPORT if chunk[1] == 1 else f"report.{chunk[0]}of{chunk[1]}.jsonl")
        self._is_whole = chunk[1] == 1
        self._begun = folder / (_BEGUN if self._is_whole else f"{_BEGUN}.{chunk[0]}of{chunk[1]}")
        others = sorted(path for path in folder.iterdir() if _CHUNK_REPORT.fullmatch(path.name))
        self._files = [folder / REPORT, *others]
        if self.path not in self._files:
            self._files.append(self.path)
        self.entries: dict[str, Entry] = {}
        for number, path in enumerate(self._files):
            if path.exists():
                self._read(number, path)
        self._appended: IO[bytes] | None = None

    @property
    def own_files(self) -> tuple[Path, Path]:
        """The files that this run writes."""
        return self.path, self._begun

    def __enter__(self) -> Journal:
        self._appended = self.path.open("ab")
        if self._appended.tell() and not _ends_with_newline(self.path):  # a run was killed in the middle of a record
            self._appended.write(b"\n")
        return self

    def __exit__(self, *error: object) -> None:
        if self._appended is not None:
            with suppress(OSError):
                os.fsync(self._appended.fileno())
            self._appended.close()

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; it is in the system's hands afterwards, so this process may be killed.

        Raises:
            OSError: The disk is full or gone.
        """
        assert self._appended is not None
        offset = self._appended.tell()
        self._appended.write(_line(record))
        self._appended.flush()
        self.entries[record["name"]] = _entry(record, self._files.index(self.path), offset)

    def begin(self, rows: Iterable[Row]) -> None:
        """Say which lines are begun, before the first of them is made.

        Raises:
            UserError: The file cannot be written.
        """
        with atomic_file(self._begun) as file:
            for row in rows:
                file.write(json.dumps(row.name).encode("ascii") + b"\n")

    def begun(self) -> set[str]:
        """The lines that runs have begun which did not come to their end."""
        names: set[str] = set()
        for path in self.folder.glob(f"{_BEGUN}*"):
            with suppress(OSError, ValueError), path.open("rb") as file:
                names.update(map(json.loads, file))
        return names

    def records(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """The records of these rows in their order, with the rows' numbers of today."""
        files: dict[int, IO[bytes]] = {}
        try:
            for row in rows:
                entry = self.entries.get(row.name)
                if entry is None:
                    continue
                if entry.file not in files:
                    files[entry.file] = self._files[entry.file].open("rb")
                files[entry.file].seek(entry.offset)
                record: dict[str, Any] = json.loads(files[entry.file].readline())
                record["row"], record["audio"] = row.number, self.relative(row.audio)
                yield record
        finally:
            for file in files.values():
                file.close()

    def finish(self, rows: Iterable[Row]) -> None:
        """Write the records in the manifest's order, in one step; those of chunks are then in it, too.

        Raises:
            UserError: The file cannot be written.
        """
        assert self._appended is not None
        self._appended.flush()
        offsets: dict[str, int] = {}
        with atomic_file(self.path) as file:
            for record in self.records(rows):
                offsets[record["name"]] = file.tell()
                file.write(_line(record))
        self._appended.close()  # of the file that was replaced
        self._appended = None
        number = self._files.index(self.path)
        for name, offset in offsets.items():
            self.entries[name].file, self.entries[name].offset = number, offset
        done = [self._begun]
        if self._is_whole:
            done = [*self._files[1:], *self.folder.glob(f"{_BEGUN}*")]
        for path in done:
            with suppress(OSError):
                path.unlink()

    def relative(self, path: str) -> str:
        """A path as a link from the folder, with "/"; absolute where there is none, as to another drive."""
        try:
            return Path(os.path.relpath(path, self.folder)).as_posix()
        except ValueError:
            return Path(path).as_posix()

    def _read(self, number: int, path: Path) -> None:
        offset = 0
        with path.open("rb") as file:
            for line in file:
                record = _record(line)
                if record is not None:
                    self.entries[record["name"]] = _entry(record, number, offset)
                elif line.strip() and not line.startswith(_OF_KIND[: len(line)]):
                    raise UserError("{file} exists and was not made by a batch; choose another --output.", file=path)
                offset += len(line)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps({"batch": 1, **record}).encode("ascii") + b"\n"


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None for one that was cut off, or another program's."""
    if not line.startswith(_OF_KIND):
        return None
    try:
        record = json.loads(line)
        _entry(record, 0, 0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return record if isinstance(record.get("name"), str) else None


def _entry(record: dict[str, Any], file: int, offset: int) -> Entry:
    return Entry(
        file=file,
        offset=offset,
        is_made=record["state"] == MADE,
        recipe=record["recipe"],
        audio_sha256=record.get("audio_sha256", ""),
        transcript_sha256=record.get("transcript_sha256", ""),
        sizes=tuple(sorted(record.get("bytes", {}).items())),
    )


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
