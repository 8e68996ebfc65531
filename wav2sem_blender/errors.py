# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user can mend, and what is ours to mend. Standard library only.

Raise a `UserError` where the cause is known. Whoever meets the user (the command line, the trainer, the worker, an
operator) shows `report(error)`: a sentence for what the user can mend, and for everything else an internal error with
the place of the log, which holds the whole traceback.
"""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG = Path(tempfile.gettempdir()) / "wav2sem_errors.log"


class Text(str):
    """A sentence that remembers what it was made of, so that it can be shown in another language.

    Attributes:
        template: the English sentence with `{name}` where a value goes; translations have it as their key.
        values: what goes into it; a `Text` among them is translated, too.
    """

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, **values: object) -> Text:
        """Fill the template in."""
        text = super().__new__(cls, template.format(**values))
        text.template, text.values = template, values
        return text

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        """So that a copy is a `Text` too."""
        return (self.template,), dict(self.values)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for another process."""
        return {"template": self.template, "values": {name: _plain(value) for name, value in self.values.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Text:
        """Raises KeyError, TypeError, ValueError or IndexError for what `to_json` never wrote."""
        values = {
            str(name): cls.from_json(value) if isinstance(value, Mapping) else value
            for name, value in data["values"].items()
        }
        return cls(str(data["template"]), **values)


class UserError(ValueError):
    """A fault that the user can mend: the message names the thing and the remedy.

    Attributes:
        text: the message.
    """

    def __init__(self, template: str, **values: object) -> None:
        self.text = Text(template, **values)
        super().__init__(self.text)

    @classmethod
    def of(cls, text: Text) -> UserError:
        """One with a message that was made elsewhere."""
        error = cls("{text}", text=text)
        error.text = text
        return error


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is needed is not there."""


def user_text(error: BaseException) -> Text | None:
    """What to tell the user of a fault that they can mend; None for a fault of ours."""
    if isinstance(error, UserError):
        return error.text
    if isinstance(error, MemoryError):
        return Text("The memory is not sufficient. Close other programs, use a smaller model or a shorter recording.")
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            name = os.fspath(error.filename) if error.filename else "the temporary files"
            return Text("The disk is full ({file}). Free some space and run it again.", file=name)
        if error.filename:
            return Text("{file}: {reason}.", file=error.filename, reason=error.strerror)
        return Text("{reason}.", reason=error.strerror)
    return None


def report(error: BaseException, log: Path = LOG) -> Text:
    """The sentence for the user; a fault of ours is first written down whole, in `log`."""
    text = user_text(error)
    if text is not None:
        return text
    lines = (str(error).strip() or "no message").splitlines()
    try:
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)) + "\n")
    except OSError:
        traceback.print_exception(error)
    return Text(
        "Internal error ({kind}: {message}). Please report it with the end of {log}.",
        kind=type(error).__name__,
        message=lines[0],
        log=log,
    )


def _plain(value: object) -> Any:
    if isinstance(value, Text):
        return value.to_json()
    value = value.item() if hasattr(value, "item") else value  # NumPy's numbers
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
