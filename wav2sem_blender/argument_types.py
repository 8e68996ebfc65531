# SPDX-License-Identifier: GPL-3.0-or-later
"""Types of arguments for the two command lines: the package's and Blender's. Standard library only."""

from __future__ import annotations

import argparse
import math


def finite(text: str) -> float:
    """A number that is not infinite and not NaN."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return number
