# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by all benchmarks: rows, command line, the two cores that the aims are for, speech."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wav2sem_blender import threads

ROOT = Path(__file__).resolve().parents[2]
DEMO_SPEECH = ROOT / "wav2sem_blender/assets/demo_speech.flac"
DEFAULT_MODEL = ROOT / "wav2sem_blender/assets/models/default"
ROW_PREFIX = "ROW "


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. `met` is None without an aim, or if a shortened run cannot judge it."""

    name: str
    value: float
    unit: str
    aim: str = ""
    met: bool | None = None


def skipped(name: str, reason: str) -> Row:
    """A row that says why something could not be measured."""
    return Row(name=f"{name}: SKIPPED, {reason}", value=float("nan"), unit="")


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of all benchmarks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="reduced sizes, under 3 minutes in all")
    parser.add_argument("--cores", type=int, default=2, help="CPU cores to use (default: 2, what the aims are for)")
    parser.add_argument("--device", default="cpu", help="the torch engine's device (default: cpu)")
    return parser.parse_args(arguments)


def run_alone(measure: Callable[[argparse.Namespace], list[Row]]) -> None:
    """Run one benchmark and print its rows, which `__main__.py` reads."""
    chosen = options()
    for row in measure(chosen):
        print(ROW_PREFIX + json.dumps(asdict(row)), flush=True)


def limit_cores(n_cores: int) -> None:
    """Bind this process and its children to `n_cores` cores, if the system can; their threads wait as the worker's."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:n_cores]))
    os.environ["OMP_NUM_THREADS"] = str(n_cores)
    threads.limit()


def best_s(work: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of several runs, the least disturbed one."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def peak_memory_mb() -> float:
    """This process's peak resident size so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def speech_samples(duration_s: float) -> np.ndarray:
    """16 kHz float32 speech: the demo clip repeated, or syllable-like noise if there is no clip."""
    n_samples = int(duration_s * 16_000)
    if DEMO_SPEECH.is_file():
        import soundfile
        import soxr

        clip, rate_hz = soundfile.read(DEMO_SPEECH, dtype="float32", always_2d=True)
        clip = soxr.resample(clip.mean(1), rate_hz, 16_000)
    else:
        noise = np.random.default_rng(0).standard_normal(80_000).astype(np.float32)
        clip = 0.1 * noise * np.abs(np.sin(np.arange(80_000) * (np.pi * 3 / 16_000))).astype(np.float32)
    return np.resize(clip, n_samples).astype(np.float32)
