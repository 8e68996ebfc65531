# SPDX-License-Identifier: GPL-3.0-or-later
"""What the animator wants of a word, as properties of its strip: more or less of it, or closed or resting lips."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty, FloatProperty, PointerProperty

from ..translations import CONTEXT
from . import custom_properties

# Names and values, as in `track.Direction`.
Directions = tuple[tuple[str, float | None], ...]


# Directions with a value, and the value that changes nothing.
AMOUNTS = {"articulation": 0.0, "strength": 1.0, "jaw": 1.0, "lips": 1.0}

SWITCHES = ("closed", "rest")
_SAME = 1e-4


class WAV2SEM_PG_directions(bpy.types.PropertyGroup):
    """Directions of one word."""

    articulation: FloatProperty(  # type: ignore[valid-type]
        name="Articulation",
        description="How clearly this word is articulated: below 0 mumbled, above 0 over-articulated",
        default=AMOUNTS["articulation"],
        min=-1.0,
        max=1.0,
    )
    strength: FloatProperty(  # type: ignore[valid-type]
        name="Strength",
        description="Factor for all motion of the mouth in this word",
        default=AMOUNTS["strength"],
        min=0.0,
        max=4.0,
        soft_max=2.0,
        translation_context=CONTEXT,
    )
    jaw: FloatProperty(  # type: ignore[valid-type]
        name="Jaw",
        description="Factor for the motion of the jaw in this word",
        default=AMOUNTS["jaw"],
        min=0.0,
        max=4.0,
        soft_max=2.0,
    )
    lips: FloatProperty(  # type: ignore[valid-type]
        name="Lips",
        description="Factor for the motion of lips and tongue in this word",
        default=AMOUNTS["lips"],
        min=0.0,
        max=4.0,
        soft_max=2.0,
    )
    closed: BoolProperty(name="Hold Closed", description="The lips stay closed in this word")  # type: ignore[valid-type]
    rest: BoolProperty(name="Rest", description="The mouth is at rest in this word")  # type: ignore[valid-type]


def read(strip: Any, others: Directions = ()) -> Directions:
    """What a word's strip says, and those of `others` that it has no property for."""
    values = strip.wav2sem_directions
    amounts = {name: round(getattr(values, name), 4) for name in AMOUNTS}
    found: Directions = tuple((name, value) for name, value in amounts.items() if abs(value - AMOUNTS[name]) > _SAME)
    found += tuple((name, None) for name in SWITCHES if getattr(values, name))
    return found + tuple((name, value) for name, value in others if name not in (*AMOUNTS, *SWITCHES))


def given(rows: Any) -> Directions:
    """Those that a strip's record has; what is none is left out."""
    pairs = [row for row in rows if isinstance(row, list) and len(row) == 2] if isinstance(rows, list) else []
    return tuple((n, v) for n, v in pairs if isinstance(n, str) and (v is None or custom_properties.is_number(v)))


def write(strip: Any, directions: Directions) -> None:
    """Let a word's strip say them."""
    given, values = dict(directions), strip.wav2sem_directions
    for name, neutral in AMOUNTS.items():
        wanted = given.get(name)
        wanted = neutral if wanted is None else wanted
        if abs(getattr(values, name) - wanted) > _SAME:
            setattr(values, name, wanted)
    for name in SWITCHES:
        if getattr(values, name) != (name in given):
            setattr(values, name, name in given)


CLASSES = (WAV2SEM_PG_directions,)


def register() -> None:
    """Give them to text strips."""
    bpy.types.TextStrip.wav2sem_directions = PointerProperty(type=WAV2SEM_PG_directions)  # type: ignore[attr-defined]


def unregister() -> None:
    """Remove them."""
    del bpy.types.TextStrip.wav2sem_directions  # type: ignore[attr-defined]
