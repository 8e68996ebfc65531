# SPDX-License-Identifier: GPL-3.0-or-later
"""The directions that a track can have: amounts with their limits, switches, and what the markup calls them."""

from __future__ import annotations

import math
from typing import NamedTuple


class Amount(NamedTuple):
    """A direction with a value: the value that changes nothing, the limits, and the usual one in a markup."""

    neutral: float
    least: float
    most: float
    usual: float


AMOUNTS = {
    "articulation": Amount(0.0, -1.0, 1.0, 1.0),
    "strength": Amount(1.0, 0.0, 4.0, 1.5),
    "jaw": Amount(1.0, 0.0, 4.0, 1.5),
    "lips": Amount(1.0, 0.0, 4.0, 1.5),
    "brows": Amount(0.0, -1.0, 2.0, 1.0),
    "head": Amount(0.0, -1.0, 2.0, 1.0),
}
SWITCHES = ("closed", "rest")
"""Directions without a value."""
OF_THE_UPPER_FACE = ("brows", "head")
STRESSED = "stressed"
"""A mark in the text, `*word*`, that stands for several directions."""
_STANDS_FOR = {STRESSED: (("articulation", 0.5), ("brows", 1.0), ("head", 1.0))}
# Other names of an amount's two sides.
_SIDES = {"clear": ("articulation", 1), "mumbled": ("articulation", -1)}
SPANS = (*_SIDES, *AMOUNTS)
"""Names in braces, for a span: `{jaw 1.5}…{/}`."""


def meant(name: str, value: float | None = None) -> tuple[tuple[str, float | None], ...]:
    """The directions and their values that a name of the markup stands for; beyond its limits a value is cut off."""
    if name in _STANDS_FOR:
        return _STANDS_FOR[name]
    if name in SWITCHES:
        return ((name, None),)
    name, sign = _SIDES.get(name, (name, 0))
    amount = AMOUNTS[name]
    if value is None:
        value = (sign or 1) * amount.usual
    elif sign:
        value = sign * max(value, 0.0) + 0.0  # never -0
    return ((name, min(max(value, amount.least), amount.most)),)


def called(name: str, value: float | None) -> str:
    """A direction as the markup writes it, such as "clear 0.5"."""
    if value is None:
        return name
    for side, (of, sign) in _SIDES.items():
        if of == name and math.copysign(1, value) == sign:
            return f"{side} {round(abs(value), 2):g}"
    return f"{name} {round(value, 2):g}"
