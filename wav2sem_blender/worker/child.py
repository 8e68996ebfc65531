# SPDX-License-Identifier: GPL-3.0-or-later
"""Inside a child process of `supervisor.py`: it writes events, runs a task, and ends with its parent.

Standard library only.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from ..errors import report
from . import protocol
from .supervisor import end_tree

_events = 1
_F_SETSIG = 10  # of Linux; Python has no name for it


def take_streams() -> BinaryIO:
    """Keep stdin and stdout for the parent, and return stdin; what libraries print goes to stderr, the log.

    On Windows a thread that waits on the pipe behind descriptor 0 blocks every library that looks at that descriptor
    while it is loaded (NumPy's do), so descriptor 0 becomes the null device.
    """
    global _events
    commands, _events = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return commands


def write_event(line: bytes) -> None:
    """Write one line in one piece. If that fails the process ends: nobody would learn what it does."""
    try:
        if os.write(_events, line) == len(line):
            return
    except OSError:
        with suppress(OSError):
            traceback.print_exc()
    os._exit(protocol.EXIT_EVENTS_LOST)


def tell(fraction: float, text: str) -> None:
    """Tell how far a task is, 0..1, and what it is doing."""
    _tell({"fraction": round(fraction, 4), "text": text})


def run(module: str, arguments: list[str], stdin: BinaryIO) -> int:
    """Run a task and return the exit status; `run(arguments)` of the module returns its result or raises."""
    end_with(stdin)
    try:
        result = importlib.import_module(module).run(arguments)
    except Exception as error:
        _tell({"error": report(error)})
        return 1
    _tell({"result": result if isinstance(result, Mapping) else {}})
    return 0


def limit_memory(more_bytes: int) -> None:
    """Let this process take only so much more address space; on Linux, whose kernel alone can tell and hold it."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as statm:
            limit = int(statm.read().split()[0]) * resource.getpagesize() + more_bytes
    except (ImportError, OSError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def end_with(stdin: BinaryIO) -> None:
    """End this process and everything that it started when stdin closes: the parent is gone.

    A thread waits for that. Where it can, the kernel does it too: a library that decodes may keep the thread from
    running, for ever if a damaged file hangs it.
    """
    _let_the_kernel_end_it(stdin)

    def watch() -> None:
        while os.read(stdin.fileno(), 1):
            pass
        end_tree(os.getpid())

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _let_the_kernel_end_it(stdin: BinaryIO) -> None:
    """Linux: SIGKILL for this process's group when the pipe closes, or if anything is written into it."""
    if sys.platform != "linux":
        return
    try:
        import fcntl

        if os.getpgrp() != os.getpid() or not stat.S_ISFIFO(os.fstat(stdin.fileno()).st_mode):
            return
        fcntl.fcntl(stdin, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(stdin, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(stdin, fcntl.F_SETFL, fcntl.fcntl(stdin, fcntl.F_GETFL) | fcntl.FASYNC)
    except (ImportError, AttributeError, OSError):
        return


def _tell(event: Mapping[str, Any]) -> None:
    write_event(json.dumps(protocol.plain(event)).encode("ascii") + b"\n")
