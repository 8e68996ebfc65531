# SPDX-License-Identifier: GPL-3.0-or-later
"""A sound file as its bytes, and a view of it that puts pieces of it together again."""

from __future__ import annotations

import io
import mmap
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

Bytes = mmap.mmap | bytes
Piece = bytes | tuple[int, int]


@dataclass(frozen=True)
class Found:
    """A file's parts, each a file for libsndfile.

    Attributes:
        parts: Pieces of each part: ranges of the file, or other bytes. None: the file is right as it is.
        holes: How many times something is missing or damaged inside.
        open_end: Whether the file ends in the middle of something.
        n_frames: Samples that an mp3's first frame promises, and that it has; None if it promises nothing.
        mixed: Whether joined mp3 streams have different rates or channels.
        lengths: Samples that the header of each part promises, where its view no longer says so; 0 is unknown.
    """

    parts: Sequence[Sequence[Piece]] | None = None
    holes: int = 0
    open_end: bool = False
    n_frames: tuple[int, int] | None = None
    mixed: bool = False
    lengths: Sequence[int] = ()


class View(io.RawIOBase):
    """Pieces of a file, read as one file."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file, self._pieces, self._at = file, pieces, 0
        sizes = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in pieces]
        self._starts = [0, *accumulate(sizes)]

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        self._at = max(0, offset + (0, self._at, self._starts[-1])[whence])
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as the pieces go."""
        n_read = 0
        while n_read < len(buffer) and self._at < self._starts[-1]:
            number = bisect_right(self._starts, self._at) - 1
            piece, skipped = self._pieces[number], self._at - self._starts[number]
            n_wanted = min(len(buffer) - n_read, self._starts[number + 1] - self._at)
            if isinstance(piece, bytes):
                chunk = piece[skipped : skipped + n_wanted]
            else:
                self._file.seek(piece[0] + skipped)
                chunk = self._file.read(n_wanted)
            if not chunk:
                break
            buffer[n_read : n_read + len(chunk)] = chunk
            n_read += len(chunk)
            self._at += len(chunk)
        return n_read


FORGET_BYTES = 1 << 22


def forget(data: Bytes, at: int) -> None:
    """Give the pages before `at` back, so that a long file takes no more memory than a short one."""
    if isinstance(data, mmap.mmap) and hasattr(data, "madvise") and at >= mmap.PAGESIZE:
        data.madvise(mmap.MADV_DONTNEED, 0, at - at % mmap.PAGESIZE)


def after_id3(data: Bytes, at: int) -> int:
    """The first byte after ID3v2 tags."""
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        size = sum((byte & 127) << shift for byte, shift in zip(data[at + 6 : at + 10], (21, 14, 7, 0), strict=True))
        at += 10 + size + (10 if data[at + 5] & 16 else 0)
    return at


def patched(data: Bytes, patches: dict[int, bytes], begin: int = 0) -> list[Piece]:
    """The file from `begin`, with other bytes in some places."""
    pieces: list[Piece] = []
    at = begin
    for start in sorted(patches):
        pieces += [(at, start), patches[start]]
        at = start + len(patches[start])
    return [*pieces, (at, len(data))]
