# SPDX-License-Identifier: GPL-3.0-or-later
"""The exit codes of a batch, one for each cause. Scripts rely on them: add to the table, never change it.

docs/batch.md has the same table, and a test compares the two. Standard library only.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

CODES = {
    "done": 0,
    "internal": 1,
    "usage": 2,
    "manifest": 3,
    "audio": 4,
    "model": 5,
    "target": 6,
    "engine": 7,
    "disk": 8,
    "partly": 9,
    "busy": 10,
    "interrupted": 130,
}
MEANINGS = {
    "done": "every line of the manifest is made",
    "internal": "our bug; the message names the log",
    "usage": "wrong arguments",
    "manifest": "the manifest has faults, each named with its row; nothing was started",
    "audio": "no line could be made, because of the recordings or their transcripts",
    "model": "the model is missing or damaged",
    "target": "no line could be made, because of the characters: the .blend file or the object",
    "engine": "a library is missing, or the model's process does not start, ends, or takes too much memory",
    "disk": "the results cannot be written: the disk is full, gone or write-protected",
    "partly": "some lines are made and some failed, or lines failed for different causes",
    "busy": "another run works in the same folder on the same lines",
    "interrupted": "Ctrl-C or a request to end; what is made stays, and the same command goes on",
}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOTCONN, errno.ESTALE}


def code_of(n_made: int, failed: Iterable[str]) -> int:
    """The code of a run that came to its end.

    Args:
        n_made: How many lines are made, now or before.
        failed: The cause of each failed line.
    """
    causes = set(failed)
    if not causes:
        return CODES["done"]
    return CODES[causes.pop()] if len(causes) == 1 and not n_made else CODES["partly"]


def is_of_the_disk(error: BaseException) -> bool:
    """Whether a full or vanished disk is behind an error."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in _DISK:
            return True
        link = link.__cause__ or link.__context__
    return False
