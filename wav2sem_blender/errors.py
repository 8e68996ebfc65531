# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that the user can mend, and how every error is reported. Standard library only.

Raise a `UserError` where the cause is known. The command line, the trainer, the worker and the operators show
`report(error)`: the message of a `UserError`, or for any other exception an internal error that names the log with the
traceback.
"""

from __future__ import annotations

import errno
import re
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .library_faults import LibraryFault, causes, fault_of

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
    if is_out_of_memory(error):
        return Text("There is not enough memory. Close other programs, or use a smaller model or a shorter recording.")
    if fault := fault_of(error):
        return library_text(fault)
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            name = error.filename or Text("temporary files")
            return Text("The disk is full ({file}). Free some space and try again.", file=name)
        if error.filename:
            return Text("{file}: {reason}.", file=error.filename, reason=error.strerror)
        return Text("{reason}.", reason=error.strerror)
    return None


# Of torch (CPU, CUDA, MPS, XPU), ONNX Runtime, C++, Rust, libsndfile and Windows.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|insufficient memory|(can't|cannot|failed to|unable to) allocate (\w+ )*memory|"
    r"bad_?alloc|bad allocation|ALLOC_FAILED|OUT_OF_(HOST|DEVICE)_MEMORY|memory allocation of \d+ bytes|"
    r"internal malloc|paging file is too small|by signal: Killed",
    re.IGNORECASE,
)
_MEMORY_WINERRORS = (8, 14, 1455)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, that of a GPU too, whatever the library calls it."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or getattr(cause, "winerror", None) in _MEMORY_WINERRORS
        or (isinstance(cause, Exception) and not isinstance(cause, UserError) and says_out_of_memory(str(cause)))
        for cause in causes(error)
    )


def says_out_of_memory(text: str) -> bool:
    """Whether a library's message, or the log of a process that ended, says so."""
    return _OUT_OF_MEMORY.search(text) is not None


def library_text(fault: LibraryFault) -> Text:
    """What the user can do about a library that does not load."""
    names = {"library": fault.library, "package": fault.package}
    if fault.is_missing:
        return Text("{library} is not installed. Install it: pip install {package}", **names)
    if fault.lacks_runtime:
        return Text(
            "{library} is installed but cannot be loaded ({reason}). Install Microsoft's Visual C++ Redistributable "
            "(https://aka.ms/vs/17/release/vc_redist.x64.exe) and try again.",
            reason=fault.reason, **names
        )  # fmt: skip
    return Text(
        "{library} is installed but cannot be loaded ({reason}). Install it again (pip install --force-reinstall "
        "{package}); in Blender, reinstall the extension or choose another Python in its preferences.",
        reason=fault.reason, **names
    )  # fmt: skip


def report(error: BaseException, log: Path | None = None) -> Text:
    """The message for the user; the traceback of an internal error is first appended to `log` (default: `LOG`)."""
    text = user_text(error)
    if text is not None:
        return text
    lines = (str(error).strip() or "no message").splitlines()
    try:
        log = log or LOG or Path(tempfile.gettempdir()) / "wav2sem_errors.log"  # it finds none where all disks are full
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(traceback.format_exception(error)) + "\n")
    except OSError:
        traceback.print_exception(error)
        log = log or Path("wav2sem_errors.log")
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
