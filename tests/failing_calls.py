# SPDX-License-Identifier: GPL-3.0-or-later
"""Let each system call on some files fail in its turn: a full disk, an input/output error, or a killed process.

strace does it, so the code under test is what users run. In these runs the unfinished files have names that are known,
because strace looks for calls by path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAULTS = ("error=ENOSPC", "error=EIO", "signal=KILL")
CALLS = ("write", "fsync", "rename", "openat", "unlink", "mkdir")
"""Those that change a file or a folder."""
_KNOWN_NAMES = "import types, uuid\nuuid.uuid4 = lambda: types.SimpleNamespace(hex='0' * 32, int=0)\n"
_MOST = 60


def _works(*command: str) -> bool:
    """Whether a command runs here; a container may forbid tracing."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or not _works("strace", "-e", "trace=none", "true"),
    reason="strace does not run here",
)


def run(folder: Path, program: str, *arguments: object, before: Iterable[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a Python program in a folder."""
    command = [*before, sys.executable, "-c", program, *map(str, arguments)]
    own = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)


def each_failing(
    folder: Path, fault: str, paths: Iterable[Path], program: str, *arguments: object, reset: Callable[[], object]
) -> Iterator[tuple[str, subprocess.CompletedProcess[str]]]:
    """Run the program once for every call on one of these paths, which then has the fault; yields what was done.

    Args:
        folder: Where it runs, and where strace writes.
        fault: Of `FAULTS`.
        paths: The files and folders that are watched; also under the names that files have while they are written.
        program: Python.
        arguments: Its own.
        reset: Called before each run.
    """
    watched = [part for path in paths for name in _names(path) for part in ("-P", str(path.with_name(name)))]
    log = folder / "strace.log"
    for call in CALLS:
        for number in range(1, _MOST):
            reset()
            inject = f"inject={call}:{fault}:when={number}"
            trace = ("strace", "-f", "-o", str(log), "-e", f"trace={call}", "-e", inject, *watched)
            done = run(folder, _KNOWN_NAMES + program, *arguments, before=trace)
            said = log.read_text(errors="replace")
            if "INJECTED" not in said and "SIGKILL" not in said:
                break
            yield f"{fault} at {call} {number}: {done.returncode} {done.stderr}", done
        else:
            raise AssertionError(f"more than {_MOST} calls of {call}")


def _names(path: Path) -> tuple[str, str, str]:
    """A path's own name, and those under which `files.atomic_file` and `atomic_path` write it with `_KNOWN_NAMES`."""
    beside = f".{path.stem}.{{}}0000000.tmp{path.suffix}"
    return path.name, beside.format(0), beside.format(8)
