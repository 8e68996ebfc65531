# SPDX-License-Identifier: GPL-3.0-or-later
"""The threads of the libraries in our own processes: the worker, the tasks, both command lines. Standard library only.

OpenBLAS (NumPy) and OpenMP (torch) let threads that wait spin. On a machine with other work they then wait for threads
that are not running: the bundled model in torch made 4 to 25 audio seconds a second beside two busy processes, and 107
with these variables. The libraries read them once, while they are loaded, so they are set before that; a user's own
values win. Nobody sets them in Blender's process or in a program that imports the package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLES: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
OF_ONNX = "WAV2SEM_ONNX_THREADS"
"""The threads of ONNX Runtime, which reads no variable itself."""
ONE_EACH: Mapping[str, str] = {**VARIABLES, "OMP_NUM_THREADS": "1", OF_ONNX: "1"}
"""For one process a core. Two processes of one thread make more than one of two, and the number of processes then
changes no byte of a result: sums are split among threads, and floating-point sums depend on the split."""


def limit() -> None:
    """Set the variables in this process, which must be ours; call this before NumPy and torch are imported."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)


def of_onnx() -> int:
    """How many threads ONNX Runtime gets: as many as there are cores, at most 4, unless the variable says."""
    given = os.environ.get(OF_ONNX, "")
    return int(given) if given.isdecimal() and int(given) else min(4, os.cpu_count() or 1)


def cores() -> int:
    """The cores that this process may use: its affinity and, on Linux, the quota of its container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(bound, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such system, or no quota ("max")
        return bound
