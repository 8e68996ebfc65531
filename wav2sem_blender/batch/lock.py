# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time makes a line of a folder. The system holds the lock, so that of a dead process is free.

A run of the whole manifest locks all bytes of a file, a run of chunk i of n the i-th of n parts: chunks run side by
side, and whatever overlaps is refused. It works where the file system has byte-range locks, as NFS and SMB do.
Standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

LOCK_FILE = ".wav2sem_batch.lock"
_BYTES = 1 << 20


class BusyError(UserError):
    """Another run works on the same lines of the folder."""


@contextmanager
def held(folder: Path, chunk: tuple[int, int] = (1, 1)) -> Iterator[None]:
    """Hold the lock of chunk i of n (from 1) in an existing folder.

    Raises:
        BusyError: Another process holds it.
        OSError: The folder cannot be written.
    """
    index, n_chunks = chunk
    begin, end = (index - 1) * _BYTES // n_chunks, index * _BYTES // n_chunks
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _locked(descriptor, begin, end - begin):
            raise BusyError(
                "{folder}: another run is making these lines. Wait for its end, or choose another --output.",
                folder=folder,
            )
        yield
    finally:
        os.close(descriptor)  # gives the lock back


def _locked(descriptor: int, begin: int, n_bytes: int) -> bool:
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, begin, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, n_bytes)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, n_bytes, begin)
    except (BlockingIOError, PermissionError):
        return False
    return True
