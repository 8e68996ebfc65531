# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in the place of a large file: a pointer of Git LFS or git-annex, a web page, or nothing.

To download such a file again gives the same, so the message says what does help.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import Text, UserError

_HEAD_BYTES = 1024
_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = re.compile(rb"(\.\./)*(\.git)?/annex/objects/\S+\s*")
_PAGE = re.compile(rb"\s*(<!doctype\s+html|<html|<head|<\?xml|<error|<body)", re.IGNORECASE)
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # before text, of UTF-8 and UTF-16


def stand_in(path: Path, name: str | None = None) -> Text | None:
    """What a file is in place of itself, and the remedy; None if it may be itself or cannot be read.

    Args:
        path: The file.
        name: What the message calls it, if it is a copy.
    """
    name = name or path.name
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if not head:
        return Text("{file} is empty (0 bytes); copy or download it again.", file=name)
    if head.startswith(_LFS):
        return Text(
            "{file} is a Git LFS pointer, not the file itself; run git lfs pull where it was cloned, or download the "
            "file from its page on the hub.",
            file=name,
        )
    if _ANNEX.match(head):
        return Text(
            "{file} is a pointer of git-annex, not the file itself; run git annex get on it where it was cloned.",
            file=name,
        )
    for mark in _MARKS:
        head = head.removeprefix(mark)
    if _PAGE.match(head.replace(b"\0", b"")):
        return Text(
            "{file} is a web page, not the file itself; open it in a browser, which shows what the server wants: a "
            "login, an agreement, or another day.",
            file=name,
        )
    return None


def refuse_stand_in(path: Path, name: str | None = None) -> None:
    """Raise UserError if something lies in the file's place; as `stand_in`."""
    if (found := stand_in(path, name)) is not None:
        raise UserError.of(found)
