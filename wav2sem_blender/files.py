# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing files and folders without losing what was there. Standard library only.

A file is written beside its target and then renamed, so its name always stands for the old content or the whole new
one. A folder is written or replaced only if it is absent, empty, or made by the same command with nothing else in it:
the user may have named a folder that holds their work.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from .errors import UserError

OwnNames = Callable[[Path], Iterable[str]]
"""Takes an existing folder; returns the patterns of the names in it that are ours, none if the folder is not ours."""
MARKER = ".made_by.json"
"""Names the command that made a folder, where no other file in it does."""
_UNFINISHED = ".*.tmp*"  # what `atomic_path` leaves behind when the process is killed
_SHOWN = 3
_ALWAYS_LEGAL_BYTES = 143  # of a file name: disks take 255, encrypted ones 143


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` when the block succeeds, and is removed otherwise.

    It has the same suffix as `path`, because exporters and NumPy look at it, and its name is legal where that of `path`
    is: as long at most.

    Raises:
        UserError: The file cannot be written; an older file of that name is untouched.
    """
    most_bytes = max(_ALWAYS_LEGAL_BYTES, len(os.fsencode(path.name)))
    suffix = path.suffix if len(path.suffix) < _ALWAYS_LEGAL_BYTES // 4 else ""
    ending = f".{uuid.uuid4().hex[:8]}.tmp{suffix}"
    unfinished = path.with_name(f".{cut_to_bytes(path.stem, most_bytes - len(os.fsencode(ending)) - 1)}{ending}")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        if error.errno == errno.ENAMETOOLONG:
            raise UserError("{path}: this name is too long for the disk; shorten it.", path=path) from error
        raise UserError(
            "{path} cannot be written ({reason}); choose another folder or free some space.",
            path=path,
            reason=error.strerror or str(error).partition("\n")[0].rstrip("."),
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def cut_to_bytes(name: str, n_bytes: int) -> str:
    """The first characters of a file name that take at most so many bytes on disk."""
    while len(os.fsencode(name)) > n_bytes:
        name = name[: min(len(name) - 1, n_bytes)]
    return name


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """As `atomic_path`, with the file opened for writing."""
    with atomic_path(path) as unfinished, unfinished.open("xb") as file:
        yield file


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file in one step, and its folder where there is none.

    Raises:
        UserError: The file cannot be written; an older file of that name is untouched.
        OSError: The folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(data)


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """A kind of folder that one of our commands makes.

    Attributes:
        made_by: The command, as the message and `MARKER` name it.
        names: Patterns (fnmatch) of everything that it writes at the top of the folder.
    """

    made_by: str
    names: tuple[str, ...]

    def claim(self, folder: Path) -> None:
        """Make the folder, or go on in one that the same command made.

        Raises:
            UserError: It holds something else; nothing was changed.
            OSError: It cannot be made.
        """
        check_ours(folder, self.made_by, self.own_names)
        write_atomically(folder / MARKER, (json.dumps({"made_by": self.made_by}) + "\n").encode())

    def empty(self, folder: Path) -> None:
        """As `claim`, but remove what the same command left there."""
        check_ours(folder, self.made_by, self.own_names)
        shutil.rmtree(folder, ignore_errors=True)
        self.claim(folder)

    def own_names(self, folder: Path) -> tuple[str, ...]:
        """The patterns if the marker says that this command made the folder, else none."""
        try:
            marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ()
        ours = isinstance(marker, dict) and marker.get("made_by") == self.made_by
        return (MARKER, *self.names) if ours else ()


def check_ours(folder: Path, made_by: str, own_names: OwnNames) -> None:
    """Refuse a folder that holds anything else than what the same command writes; absent and empty ones pass.

    Args:
        folder: The folder to be written.
        made_by: The command, for the message.
        own_names: Which names in the folder are the command's.

    Raises:
        UserError: The folder is a file, or holds something else.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError("{folder} is a broken link; choose another folder", folder=folder)
    if folder.exists() and not folder.is_dir():
        raise UserError("{folder} is a file; choose a folder", folder=folder)
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not found:
        return
    patterns = tuple(own_names(folder))
    patterns += (_UNFINISHED,) if patterns else ()
    others = [name for name in found if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    if others:
        shown = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
        raise UserError(
            "{folder} holds {names}, which {made_by} did not make; nothing was changed. Choose an empty folder",
            folder=folder, names=shown, made_by=made_by
        )  # fmt: skip


@contextmanager
def replaced_folder(folder: Path, made_by: str, own_names: OwnNames, last: str) -> Iterator[Path]:
    """Yield a new folder beside `folder`; it replaces `folder` when the block succeeds, and is removed otherwise.

    Args:
        folder: Absent, empty, or one of ours, which is untouched until the new one is complete.
        made_by: As in `check_ours`.
        own_names: As in `check_ours`.
        last: The file that makes the folder valid; it is moved last into an empty folder.

    Raises:
        UserError: The folder is not ours, before the block or after it.
        OSError: It cannot be written.
    """
    target = folder.resolve()
    check_ours(target, made_by, own_names)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f".{cut_to_bytes(target.name, _ALWAYS_LEGAL_BYTES)}-"
    ) as temp:
        new = Path(temp) / "new"
        new.mkdir()
        yield new
        check_ours(target, made_by, own_names)
        if target.is_dir() and not any(target.iterdir()):
            # Keep the folder itself: it may be a shell's current folder or a mount point.
            for path in sorted(new.iterdir(), key=lambda path: path.name == last):
                path.rename(target / path.name)
            return
        old = new.with_name("old")
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            with suppress(OSError):
                old.rename(target)
            raise


def same_file_name(path: Path) -> str:
    """Equal for two paths that may be the same file: the disks of Windows and macOS ignore upper and lower case."""
    return unicodedata.normalize("NFC", os.path.abspath(path)).casefold()
