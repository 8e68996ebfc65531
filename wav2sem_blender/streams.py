# SPDX-License-Identifier: GPL-3.0-or-later
"""Standard input, output and error of our command lines, which may be closed, broken or full. Standard library only.

What they print is a log; the results are files. So a log that cannot be written does not stop the work and is no file's
failure: `python -m wav2sem_blender animate *.wav | head` animates every file.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from .errors import Text

# The reader of a pipe has left; Windows says EINVAL.
_READER_GONE = (errno.EPIPE, errno.EINVAL)


def guarded(work: Callable[[], int], complain: Callable[[str], object]) -> int:
    """Do the work of a command line in this process, and return its exit code.

    Meanwhile standard output and standard error can print any file name, and never raise. A reader that leaves is
    nobody's error. Where standard output could not be written for another reason, such as a full disk, `complain` gets
    a sentence at the end, and a success becomes 1.

    Raises:
        SystemExit: As `work` does.
    """
    _open_missing()
    before = sys.stdout, sys.stderr
    out, err = _Stream(sys.stdout), _Stream(sys.stderr)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]  # what is missing, the wrapped stream has
    stop: SystemExit | None = None
    try:
        try:
            code = work()
        except SystemExit as error:  # argparse
            stop, code = error, 0 if error.code in (0, None) else 1
        out.flush()
        if out.error is not None and out.error.errno not in _READER_GONE:
            reason = out.error.strerror or str(out.error)
            complain(Text("Standard output cannot be written ({reason}); results are not affected.", reason=reason))
            stop, code = (SystemExit(1) if stop and not code else stop), code or 1
        err.flush()
    finally:
        sys.stdout, sys.stderr = before
    if stop is not None:
        raise stop
    return code


class _Stream:
    """A text stream that remembers its first error instead of raising it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names that the terminal cannot encode

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        """From now on everything goes to the null device, also what is still in buffers and what libraries print."""
        self.error = self.error or error
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def _open_missing() -> None:
    """Put the null device where a stream is closed: the next file that is opened would get its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, number)  # inheritable, for child processes
                if null != number:
                    os.close(null)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, or a program without a console on Windows
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for the process's life)
