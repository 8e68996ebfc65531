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

VARIABLES: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def limit() -> None:
    """Set the variables in this process, which must be ours; call this before NumPy and torch are imported."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
