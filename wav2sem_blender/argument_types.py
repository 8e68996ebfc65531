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


def style(text: str) -> int | str | list[float]:
    """A speaking style: its index, its name, or weights such as "0.5,0.5"."""
    if text.isdecimal():
        return int(text)
    try:
        return [finite(part) for part in text.split(",")] if "," in text else text
    except argparse.ArgumentTypeError:
        return text  # a name with a comma


def width(text: str) -> float:
    """Seconds, 0 or more."""
    seconds = finite(text)
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return seconds


def rate(text: str) -> float:
    """Frames a second, 1 to 1000."""
    fps = finite(text)
    if not 1 <= fps <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not in 1 to 1000")
    return fps


def integer(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None


def yes_or_no(text: str) -> bool:
    """Yes or no, true or false, 1 or 0."""
    answer = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}.get(text.lower())
    if answer is None:
        raise argparse.ArgumentTypeError(f"{text} is neither yes nor no")
    return answer
