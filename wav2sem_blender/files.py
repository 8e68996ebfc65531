# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders that are ours to write and to replace, and no other. Standard library only.

A command that is told where to write may be told a folder with somebody's work in it. So each writer of a folder asks
here first: the folder is absent, empty, or exactly one that the same writer made, with nothing else in it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .errors import UserError

OwnNames = Callable[[Path], Iterable[str]]
"""Of a folder that exists: the patterns of the names in it that are ours; none where it is not ours at all."""
MARKER = ".made_by.json"
"""Says which of our commands made a folder whose other files do not say it themselves."""
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class FolderKind:
    """A kind of folder that one of our commands makes.

    Attributes:
        made_by: the command, as the message names it and as `MARKER` has it.
        names: patterns (fnmatch) of all that it writes at the folder's top.
    """

    made_by: str
    names: tuple[str, ...]

    def claim(self, folder: Path) -> None:
        """Make the folder, or take it over as one that the same command made.

        Raises:
            UserError: it holds something else; nothing was changed.
            OSError: it cannot be made.
        """
        check_ours(folder, self.made_by, self.own_names)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(json.dumps({"made_by": self.made_by}) + "\n", encoding="utf-8")

    def empty(self, folder: Path) -> None:
        """As `claim`, and remove what the same command left there."""
        check_ours(folder, self.made_by, self.own_names)
        shutil.rmtree(folder, ignore_errors=True)
        self.claim(folder)

    def own_names(self, folder: Path) -> tuple[str, ...]:
        """The patterns, where the marker says that this command made the folder."""
        try:
            marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ()
        ours = isinstance(marker, dict) and marker.get("made_by") == self.made_by
        return (MARKER, *self.names) if ours else ()


def check_ours(folder: Path, made_by: str, own_names: OwnNames) -> None:
    """Refuse a folder that holds anything that is not ours; an absent or empty one is free.

    Args:
        folder: where something shall be written.
        made_by: the writer, for the message.
        own_names: what of the folder's content the same writer made.

    Raises:
        UserError: the folder is a file, or holds something else.
    """
    if folder.is_symlink() and not folder.exists():
        raise UserError("{folder} is a link that leads nowhere; choose another folder", folder=folder)
    if folder.exists() and not folder.is_dir():
        raise UserError("{folder} is a file; choose a folder", folder=folder)
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not found:
        return
    patterns = tuple(own_names(folder))
    others = [name for name in found if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    if others:
        shown = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
        raise UserError(
            "{folder} holds {names}, which {made_by} did not make; nothing was changed. Choose an empty folder",
            folder=folder, names=shown, made_by=made_by,
        )  # fmt: skip


@contextmanager
def replaced_folder(folder: Path, made_by: str, own_names: OwnNames, last: str) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place when the block succeeds and disappears when it fails.

    Args:
        folder: absent, empty, or one of ours, which stays as it is until the new one is complete.
        made_by: As in `check_ours`.
        own_names: As in `check_ours`.
        last: the file that makes the folder valid: into an empty folder it is moved last.

    Raises:
        UserError: the folder is not ours; also where that became so meanwhile.
        OSError: it cannot be written.
    """
    target = folder.resolve()
    check_ours(target, made_by, own_names)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temp:
        new = Path(temp) / "new"
        new.mkdir()
        yield new
        check_ours(target, made_by, own_names)
        if target.is_dir() and not any(target.iterdir()):
            # In place: it may be somebody's current folder, or a mount.
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
    """Equal for two paths that are one file on some disk: those of Windows and macOS know no upper and lower case."""
    import unicodedata

    return unicodedata.normalize("NFC", os.path.abspath(path)).casefold()
