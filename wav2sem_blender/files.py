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
import sys
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from . import leftovers
from .errors import UserError

OwnNames = Callable[[Path], Iterable[str]]
"""Takes an existing folder; returns the patterns of the names in it that are ours, none if the folder is not ours."""
MARKER = ".made_by.json"
"""Names the command that made a folder, where no other file in it does."""
_UNFINISHED = ".*.tmp*"  # what `atomic_path` leaves behind when the process is killed
_SHOWN = 3
_OLD = "old"  # within the folder beside it, the one that is being replaced
_ALWAYS_LEGAL_BYTES = 143  # of a file name: disks take 255, encrypted ones 143


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it replaces `path` when the block succeeds, and is removed otherwise.

    It has the same suffix as `path`, because exporters and NumPy look at it, and its name is legal where that of `path`
    is: as long at most. One that a killed process left in this folder is removed first.

    Raises:
        UserError: The file cannot be written; an older file of that name is untouched.
    """
    with _replacing(path, _name_beside(path, is_locked=False)) as unfinished:
        yield unfinished


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """As `atomic_path`, with the file opened for writing."""
    descriptor = None
    try:
        with _replacing(path, _name_beside(path, is_locked=True)) as unfinished, unfinished.open("xb") as file:
            descriptor = leftovers.lock(unfinished)
            yield file
    finally:
        leftovers.unlock(descriptor)


@contextmanager
def _replacing(path: Path, unfinished: Path) -> Iterator[Path]:
    leftovers.clear_files(path.parent)
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


def _name_beside(path: Path, is_locked: bool) -> Path:
    """Where to write a file before it gets its name, as `leftovers.UNFINISHED` describes."""
    most_bytes = max(_ALWAYS_LEGAL_BYTES, len(os.fsencode(path.name)))
    suffix = path.suffix if len(path.suffix) < _ALWAYS_LEGAL_BYTES // 4 else ""
    number = uuid.uuid4().int % (1 << 31) + (0 if is_locked else 1 << 31)
    ending = f".{number:08x}.tmp{suffix}"
    return path.with_name(f".{cut_to_bytes(path.stem, most_bytes - len(os.fsencode(ending)) - 1)}{ending}")


def cut_to_bytes(name: str, n_bytes: int) -> str:
    """The first characters of a file name that take at most so many bytes on disk."""
    while len(os.fsencode(name)) > n_bytes:
        name = name[: min(len(name) - 1, n_bytes)]
    return name


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

    Old and new change places in one step where the system can do that (Linux, macOS). Elsewhere the old one is moved
    aside first, and a process that is killed between the two steps loses nothing: `recover_folder` puts it back.

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
    recover_folder(target)
    check_ours(target, made_by, own_names)
    target.parent.mkdir(parents=True, exist_ok=True)

    def is_ours(aside: Path) -> bool:
        names = {path.name for path in aside.iterdir()}
        return names <= {"new", _OLD} and (target.exists() or _OLD not in names)

    with leftovers.made_folder(_aside_prefix(target), target.parent, is_ours) as temp:
        new = temp / "new"
        new.mkdir()
        yield new
        check_ours(target, made_by, own_names)
        if target.is_dir() and not any(target.iterdir()):
            # Keep the folder itself: it may be a shell's current folder or a mount point.
            for path in sorted(new.iterdir(), key=lambda path: path.name == last):
                path.rename(target / path.name)
            return
        if target.exists() and exchange(new, target):
            return
        old = new.with_name(_OLD)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            with suppress(OSError):
                old.rename(target)
            raise


def recover_folder(folder: Path) -> None:
    """Put a folder back that a killed `replaced_folder` had moved aside; nothing happens if it is in its place."""
    target = folder.resolve()
    if target.exists() or not target.parent.is_dir():
        return
    prefix = _aside_prefix(target)
    with suppress(OSError):
        asides = [path for path in target.parent.iterdir() if path.name.startswith(prefix) and (path / _OLD).is_dir()]
        for aside in sorted(asides, key=lambda path: path.stat().st_mtime, reverse=True):
            if leftovers.is_random(aside, prefix) and leftovers.is_left(aside, at_once=True):
                (aside / _OLD).rename(target)
                return


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot do that, and nothing was changed."""
    if sys.platform == "linux":
        name, flags, here = "renameat2", 2, -100  # RENAME_EXCHANGE, AT_FDCWD
    elif sys.platform == "darwin":
        name, flags, here = "renameatx_np", 2, -2  # RENAME_SWAP, AT_FDCWD
    else:
        return False
    try:
        import ctypes

        call = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (ImportError, AttributeError, OSError):  # an old C library
        return False
    places = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    return bool(call(here, places[0], here, places[1], ctypes.c_uint(flags)) == 0)


def _aside_prefix(target: Path) -> str:
    return f".{cut_to_bytes(target.name, _ALWAYS_LEGAL_BYTES)}-"


def same_file_name(path: Path) -> str:
    """Equal for two paths that may be the same file: the disks of Windows and macOS ignore upper and lower case."""
    return unicodedata.normalize("NFC", os.path.abspath(path)).casefold()
