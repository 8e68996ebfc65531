# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that the user can mend, and how every error is reported. Standard library only.

Raise a `UserError` where the cause is known. The command line, the trainer, the worker and the operators show
`report(error)`: the message of a `UserError`, or for any other exception an internal error that names the log with the
traceback.
"""

from __future__ import annotations

import errno
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOG: Path | None = None
"""Where `report` writes the tracebacks of internal errors. None is `wav2sem_errors.log` in the temporary folder. Python
finds that by writing a file there, which an import should not do."""


class Text(str):
    """A sentence that keeps its template and values, so that it can be translated when it is shown.

    Attributes:
        template: The English sentence with `{name}` for each value; the key of its translations.
        values: The values; those that are a `Text` are translated as well.
    """

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, **values: object) -> Text:
        """Fill in the template."""
        text = super().__new__(cls, template.format(**values))
        text.template, text.values = template, values
        return text

    @classmethod
    def joined(cls, texts: Sequence[str], separator: str = " ") -> Text:
        """Several sentences in one."""
        values = {f"text_{number}": text for number, text in enumerate(texts)}
        return cls(separator.join(f"{{{name}}}" for name in values), **values)

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        """Copying and pickling keep the template and the values."""
        return (self.template,), dict(self.values)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, for another process."""
        return {"template": self.template, "values": {name: _plain(value) for name, value in self.values.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Text:
        """Read what `to_json` returned; anything else raises KeyError, TypeError, ValueError or IndexError."""
        values = {
            str(name): cls.from_json(value) if isinstance(value, Mapping) else value
            for name, value in data["values"].items()
        }
        return cls(str(data["template"]), **values)


class UserError(ValueError):
    """An error that the user can mend; the message says what is wrong and what to do.

    Attributes:
        text: The message.
    """

    def __init__(self, template: str, **values: object) -> None:
        self.text = Text(template, **values)
        super().__init__(self.text)

    @classmethod
    def of(cls, text: Text) -> UserError:
        """An error with this message."""
        error = cls("{text}", text=text)
        error.text = text
        return error


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder does not exist."""


def user_text(error: BaseException) -> Text | None:
    """The message of an error that the user can mend, or None for an internal error."""
    if isinstance(error, UserError):
        return error.text
    if isinstance(error, MemoryError):
        return Text("There is not enough memory. Close other programs, or use a smaller model or a shorter recording.")
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            name = error.filename or Text("temporary files")
            return Text("The disk is full ({file}). Free some space and try again.", file=name)
        if error.filename:
            return Text("{file}: {reason}.", file=error.filename, reason=error.strerror)
        return Text("{reason}.", reason=error.strerror)
    return None


def report(error: BaseException, log: Path | None = None) -> Text:
    """The message for the user; the traceback of an internal error is first appended to `log` (default: `LOG`)."""
    text = user_text(error)
    if text is not None:
        return text
    log = log or LOG or Path(tempfile.gettempdir()) / "wav2sem_errors.log"
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
