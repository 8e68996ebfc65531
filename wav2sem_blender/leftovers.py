# SPDX-License-Identifier: GPL-3.0-or-later
"""What a killed process has left, and how it is told from what a living one uses. Standard library only.

A living process holds a lock on its unfinished files and folders, which the system releases when it dies, however that
happens. Where locks cannot tell (Windows, some network disks), only what is a day old counts as left.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Between the making of a file or folder and its lock.
_YOUNG_S = 10.0
_OLD_S = 86_400.0
UNFINISHED = re.compile(r"\..+\.([0-9a-f])[0-9a-f]{7}\.tmp(\..+)?")
"""Names of unfinished files. The first digit says whether the file is locked while it is written: 0 to 7."""

_RANDOM = re.compile(r"[a-z0-9_]{8}")
_cleared: set[tuple[str, str]] = set()


def lock(path: Path) -> int | None:
    """Lock a file or folder; returns the descriptor that holds the lock until it is closed, None if that is impossible.

    Nobody waits for such a lock: it says only that somebody is there.
    """
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        unlock(descriptor)
        return None
    return descriptor


def unlock(descriptor: int | None) -> None:
    """Release what `lock` returned."""
    if descriptor is not None:
        with suppress(OSError):
            os.close(descriptor)


def is_left(path: Path, *, is_locked_while_used: bool = True, at_once: bool = False) -> bool:
    """Whether a file or folder belongs to nobody any more.

    Args:
        path: The file or folder.
        is_locked_while_used: Whether its maker holds `lock` on it.
        at_once: Not to wait until it is some seconds old, or a day where locks cannot tell; for what its maker has
            locked before it became visible as this.
    """
    try:
        age_s = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    if age_s > _OLD_S and not is_locked_while_used:
        return True
    if (age_s < _YOUNG_S and not at_once) or not is_locked_while_used:
        return False
    if fcntl is None:
        return at_once or age_s > _OLD_S
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this disk has no locks
        return at_once or age_s > _OLD_S
    finally:
        unlock(descriptor)
    return True


def clear_files(folder: Path) -> None:
    """Remove the unfinished files in a folder that nobody writes any more; once for each folder and process."""
    if _was_cleared(folder, ""):
        return
    for entry in _entries(folder):
        found = UNFINISHED.fullmatch(entry.name)
        if found is None or not entry.is_file(follow_symlinks=False):
            continue
        path = Path(entry.path)
        if is_left(path, is_locked_while_used=found[1] < "8"):
            with suppress(OSError):
                path.unlink()


def clear_folders(parent: Path, prefix: str, is_ours: Callable[[Path], bool]) -> None:
    """Remove folders below `parent` that nobody uses any more; once for each process.

    Args:
        parent: Where they lie.
        prefix: How their names begin.
        is_ours: Whether a folder of such a name is one of ours, of which nothing is needed.
    """
    if _was_cleared(parent, prefix):
        return
    for entry in _entries(parent):
        path = Path(entry.path)
        if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False) and is_left(path) and is_ours(path):
            shutil.rmtree(path, ignore_errors=True)


def is_random(path: Path, prefix: str) -> bool:
    """Whether `tempfile` has made up the end of the name."""
    return _RANDOM.fullmatch(path.name[len(prefix) :]) is not None


class MadeFolder:
    """A temporary folder of our own, locked until it is removed.

    Attributes:
        path: The folder.
    """

    def __init__(
        self, prefix: str, parent: Path | None = None, is_ours: Callable[[Path], bool] = lambda _path: True
    ) -> None:
        """Make it, and first remove those that killed processes have left.

        Args:
            prefix: How its name begins.
            parent: Where; None for the system's temporary folder.
            is_ours: As in `clear_folders`; those that have no such name as this are never removed.

        Raises:
            OSError: It cannot be made.
        """
        clear_folders(
            parent or Path(tempfile.gettempdir()), prefix, lambda path: is_random(path, prefix) and is_ours(path)
        )
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = lock(self.path)

    def remove(self) -> None:
        """Remove it with everything in it; may be called twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        descriptor, self._lock = self._lock, None
        unlock(descriptor)


@contextmanager
def made_folder(
    prefix: str, parent: Path | None = None, is_ours: Callable[[Path], bool] = lambda _path: True
) -> Iterator[Path]:
    """A `MadeFolder` for a block; raises as that."""
    folder = MadeFolder(prefix, parent, is_ours)
    try:
        yield folder.path
    finally:
        folder.remove()


def _was_cleared(folder: Path, prefix: str) -> bool:
    key = os.path.abspath(folder), prefix
    if key in _cleared:
        return True
    _cleared.add(key)
    return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
