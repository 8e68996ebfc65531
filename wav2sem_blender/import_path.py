# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a command line of ours finds its libraries: not in the folder that the user stands in. Standard library only.

`python -m` looks there first, so a `numpy.py` beside the recordings would be run in place of the library.
"""

from __future__ import annotations

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The folder that holds the package."""


def leave_out_current_folder() -> None:
    """Call this in a process that is ours before anything else is imported.

    A folder that is also meant as a place of libraries (the checkout, `site-packages`, one that PYTHONPATH names) comes
    last, where it can hide nothing. An empty entry of PYTHONPATH, which means the current folder, is an accident.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        return
    is_here = [os.path.realpath(entry or ".") == here for entry in sys.path]
    others = [entry for entry, is_it in zip(sys.path, is_here, strict=True) if not is_it]
    named = [] if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "").split(os.pathsep)
    n_accidents = any(entry in ("", ".") for entry in named) + (not sys.flags.safe_path)
    if here == HOME or sum(is_here) > n_accidents:
        others.append(here)
    sys.path[:] = others


def add_current_folder() -> None:
    """For a module of the user's that the user names: it may lie here, and hides no library."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
