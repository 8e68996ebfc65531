# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the cases of a target in child processes, and goes on behind a case that crashed or hung."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import cases, targets  # noqa: TID252

ROOT = Path(__file__).parents[2]
HANG_S = 10.0
"""A case hangs if it computes for so long, or does nothing for six times as long: other programs may have the cores."""
_IDLE_FACTOR = 6
_START_S = 600.0
_INTERVAL_S = 0.1
_SHOWN = 3


@dataclass
class Failure:
    """A case that went wrong: `kind` is "exception", "crash", "hang" or "memory"."""

    target: str
    number: int
    kind: str
    text: str


@dataclass
class Report:
    """What the cases of a target came to.

    Attributes:
        counts: Outcome -> number of cases; "contained" are crashes of a process that exists to crash.
        next: The first case that was not run.
    """

    target: str
    seed: int
    counts: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "sentence": 0, "contained": 0})
    failures: list[Failure] = field(default_factory=list)
    next: int = 0
    longest_s: float = 0.0
    peak_bytes: int = 0

    @property
    def n_cases(self) -> int:
        """How many were run."""
        return sum(self.counts.values()) + len({failure.number for failure in self.failures})

    def line(self) -> str:
        """In one line."""
        kinds = [failure.kind for failure in self.failures]
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        failed = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) or "no failure"
        return (
            f"{self.target} (seed {self.seed}): {self.n_cases} cases, {counts}; {failed}; the longest took "
            f"{self.longest_s:.1f} s, peak {self.peak_bytes / 2**20:.0f} MB"
        )


def run(target: str, seed: int, seconds: float, first: int = 0, last: int = 10**9) -> Report:
    """Run cases from `first` on for so many seconds, or up to `last` - 1."""
    report = Report(target, seed)
    while first < last and seconds > 0:
        with tempfile.TemporaryDirectory(prefix="wav2sem_fuzz_", ignore_cleanup_errors=True) as folder:
            begin_s = time.monotonic()
            first = _batch(report, first, last, seconds, Path(folder))
            seconds -= time.monotonic() - begin_s
    report.next = first
    return report


def replay(target: str, files: Sequence[Path]) -> Report:
    """Read files as they are."""
    report, first = Report(target, 0), 0
    while first < len(files):
        with tempfile.TemporaryDirectory(prefix="wav2sem_fuzz_", ignore_cleanup_errors=True) as folder:
            arguments = ("--replay", target, folder, *files[first:])
            # The numbers of a process begin at 0.
            before = len(report.failures)
            first += _process(report, arguments, 0, Path(folder))
        for failure in report.failures[before:]:
            failure.text = f"{files[failure.number].name}: {failure.text}"
    return report


def _batch(report: Report, first: int, last: int, seconds: float, folder: Path) -> int:
    """Run cases in one process; returns the next one."""
    return _process(report, (report.target, report.seed, first, last, seconds, folder), first, folder)


def _process(report: Report, arguments: Sequence[object], first: int, folder: Path) -> int:
    """Run one process to its end; returns the case behind its last one."""
    with (folder / "out").open("w+") as out, (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.cases", *map(str, arguments)],
            cwd=ROOT,
            stdout=out,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        )
        hung = _wait(process, folder)
        out.seek(0)
        log.seek(0)
        messages = [json.loads(line) for line in out if line.startswith('{"')]
        tail = log.read()[-1500:]
    at = _progress(folder)
    done = next((message for message in messages if "counts" in message), None)
    for message in messages:
        if "failure" in message:
            report.failures.append(Failure(report.target, message["number"], message["failure"], message["text"]))
    if done is not None:
        for name, count in done["counts"].items():
            if name != "exception":
                report.counts[name] = report.counts.get(name, 0) + count
        report.longest_s = max(report.longest_s, done["longest_s"])
        report.peak_bytes = max(report.peak_bytes, done["peak_bytes"])
        return done["next"]
    if at is None:
        raise RuntimeError(f"{report.target} does not start: {tail}")
    report.counts["accepted"] += max(0, at - first - len({m["number"] for m in messages if "failure" in m}))
    if not hung and targets.TARGETS[report.target].contains_crashes:
        report.counts["contained"] += 1
    else:
        kind = "hang" if hung else "crash"
        report.failures.append(Failure(report.target, at, kind, f"status {process.returncode}: {tail}"))
    return at + 1


def _wait(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait for its end; True if it was killed because a case hung."""
    at, since_s, since_cpu_s = None, time.monotonic(), 0.0
    while process.poll() is None:
        time.sleep(_INTERVAL_S)
        if (now_at := _progress(folder)) != at:
            at, since_s, since_cpu_s = now_at, time.monotonic(), _cpu_s(process.pid)
        computed_s, waited_s = _cpu_s(process.pid) - since_cpu_s, time.monotonic() - since_s
        hangs = computed_s > HANG_S or waited_s > _IDLE_FACTOR * HANG_S
        if (waited_s > _START_S) if at is None else hangs:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
    return False


def _cpu_s(pid: int) -> float:
    """How long a process has computed; 0 where only Linux could tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _progress(folder: Path) -> int | None:
    try:
        return int((folder / cases.PROGRESS).read_bytes())
    except (OSError, ValueError):
        return None


def save_case(failure: Failure, seed: int, folder: Path) -> Path:
    """Make a failed case again, below `folder`."""
    place = folder / f"{failure.target}_{seed}_{failure.number}_{failure.kind}"
    place.mkdir(parents=True, exist_ok=True)
    targets.TARGETS[failure.target].make(place, cases.chance_of(failure.target, seed, failure.number))
    (place / "failure.txt").write_text(failure.text, encoding="utf-8", errors="replace")
    return place


def shown(report: Report) -> str:
    """The report with the first failures."""
    parts = [report.line()]
    for failure in report.failures[:_SHOWN]:
        parts.append(f"case {failure.number}: {failure.kind}\n{failure.text}")
    return "\n".join(parts)
