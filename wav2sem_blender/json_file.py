# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading JSON that a stranger wrote: of bounded size and depth, with values that other formats can hold too.

Standard library only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError

MAX_BYTES = 16 << 20
MAX_DEPTH = 32
_MAX_INTEGER = 2**63


class JsonError(UserError):
    """A file that is no JSON, or JSON that no program of ours writes; the message says why, not which file."""


def read_json(path: Path, limit_bytes: int = MAX_BYTES) -> Any:
    """The value in a JSON file.

    Raises:
        JsonError: It is no JSON in UTF-8, larger than the limit, nested deeper than 32 levels, or has a number that is
            not finite or beyond 64 bits, or text with half a character.
        OSError: The file cannot be read.
    """
    if path.exists() and not path.is_file():  # opening a pipe waits for its other end
        raise JsonError("it is no file, but a folder, a pipe or a device")
    with path.open("rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise JsonError("it is larger than {limit_mb:g} MB", limit_mb=limit_bytes / (1 << 20))
    return parse_json(content)


def parse_json(content: str | bytes, *, half_characters: bool = False) -> Any:
    """As `read_json`, of the text.

    Args:
        content: JSON.
        half_characters: Whether text may have them, as the name of a file has that is no Unicode.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # no UTF-8, no JSON, or an integer of thousands of digits
        if isinstance(error, UserError):
            raise
        raise JsonError("it is no JSON ({error})", error=error) from error
    _check(value, half_characters)
    return value


def _refuse(constant: str) -> NoReturn:
    raise JsonError("it has the number {number}", number=constant)


def _too_deep() -> JsonError:
    return JsonError("it is nested deeper than {limit} levels", limit=MAX_DEPTH)


def _check(value: Any, half_characters: bool) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item
                below += item.values()
            elif isinstance(item, list):
                below += item
            elif isinstance(item, str):
                if not half_characters:
                    _check_text(item)
            elif isinstance(item, float) and not abs(item) < float("inf"):
                raise JsonError("it has the number {number}", number="1e999")
            elif isinstance(item, int) and abs(item) >= _MAX_INTEGER:
                raise JsonError("it has a number of more than 64 bits")
        level = below
        if not level:
            return
    raise _too_deep()


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise JsonError("it has text with half a character ({text})", text=ascii(text[:40])) from error
