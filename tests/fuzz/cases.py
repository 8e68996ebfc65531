# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that runs cases of one target one after the other: `python -m tests.fuzz.cases TARGET SEED FIRST LAST S`.

Or `… --replay TARGET FOLDER FILE …`. It writes the number of each case into `progress` before it begins, and a line of
JSON for each failure and at the end.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import targets  # noqa: TID252

PROGRESS = "progress"
_TEXT = 2000
_LIBRARIES_BYTES = 1 << 30  # torch alone takes more than half of it


def chance_of(target: str, seed: int, number: int) -> random.Random:
    """What decides case `number`; the same everywhere."""
    return random.Random(f"{seed} {target} {number}")


def peak_bytes() -> int:
    """The most memory that this process had so far.

    Linux's `ru_maxrss` begins with what the parent had when it started this process, which can be gigabytes of a test
    run's own; `VmHWM` is this program's alone.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def outcome(target: targets.Target, path: Path) -> tuple[str, str]:
    """What reading a case came to: "accepted", "sentence" or "exception", and the text."""
    from wav2sem_blender.errors import user_text

    try:
        target.read(path)
    except Exception as error:
        text = user_text(error)
        if text is None or isinstance(error, MemoryError):
            return "exception", "".join(traceback.format_exception(error))[-_TEXT:]
        return "sentence", str(text)
    return "accepted", ""


def run(name: str, seed: int, first: int, last: int, seconds: float, folder: Path) -> None:
    """Run cases `first` to `last` - 1, or as many as the time allows; loading the libraries does not count."""
    target = targets.TARGETS[name]
    counts = {"accepted": 0, "sentence": 0, "exception": 0}
    case, number, longest_s = folder / "case", first, 0.0
    _warm_up(target, name, case)
    until_s = time.monotonic() + seconds
    descriptor = os.open(folder / PROGRESS, os.O_CREAT | os.O_WRONLY)
    limit = 0
    for number in range(first, last):
        os.pwrite(descriptor, b"%020d" % number, 0)
        if time.monotonic() > until_s:
            break
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        path = target.make(case, chance_of(name, seed, number))
        begin_s = time.monotonic()
        kind, text = outcome(target, path)
        longest_s = max(longest_s, time.monotonic() - begin_s)
        counts[kind] += 1
        if kind == "exception":
            _print({"failure": kind, "number": number, "text": text})
        limit = limit or peak_bytes() + targets.MEMORY_BYTES
        if peak_bytes() > limit:
            _print({"failure": "memory", "number": number, "text": f"{peak_bytes() >> 20} MB; {kind}: {text[:200]}"})
            limit = peak_bytes()
    else:
        number = last
    _print({"counts": counts, "next": number, "longest_s": longest_s, "peak_bytes": peak_bytes()})


def replay(name: str, files: list[Path], folder: Path) -> None:
    """Read files as they are; prints a line of JSON for each that is neither accepted nor refused by a sentence."""
    target = targets.TARGETS[name]
    for number, file in enumerate(files):
        (folder / PROGRESS).write_bytes(b"%020d" % number)
        path = folder / f"{number}" / file.name
        path.parent.mkdir()
        shutil.copyfile(file, path)
        kind, text = outcome(target, path)
        if kind == "exception":
            _print({"failure": kind, "number": number, "text": text})
        elif peak_bytes() > targets.MEMORY_BYTES + _LIBRARIES_BYTES:
            _print({"failure": "memory", "number": number, "text": f"{peak_bytes() >> 20} MB"})
    _print({"counts": {}, "next": len(files), "longest_s": 0.0, "peak_bytes": peak_bytes()})


def _warm_up(target: targets.Target, name: str, case: Path) -> None:
    """Load the libraries and make the valid inputs, which counts for no case."""
    case.mkdir()
    outcome(target, target.make(case, chance_of(name, 0, -1)))


def _print(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--replay":
        replay(sys.argv[2], [Path(name) for name in sys.argv[4:]], Path(sys.argv[3]))
        sys.exit()
    _name, _seed, _first, _last, _seconds, _folder = sys.argv[1:]
    run(_name, int(_seed), int(_first), int(_last), float(_seconds), Path(_folder))
