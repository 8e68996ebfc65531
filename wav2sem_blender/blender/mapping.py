# SPDX-License-Identifier: GPL-3.0-or-later
"""Which shape keys of a mesh play which channels: guessed from their names, or the user's own table on the object."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import bpy
from bpy.props import CollectionProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from ..pipeline.face_names import KeyMap, Row, guess
from ..pipeline.motion import ARKIT_CHANNELS
from ..pipeline.visemes import VISEME_SETS

CHANNEL_KINDS = (
    ("MODEL", "Model Channels", "The channels of the model; the bundled one has ARKit's names, such as jawOpen"),
    *((name, visemes.label.title(), "Mouth shapes, made from ARKit channels") for name, visemes in VISEME_SETS.items()),
)

# A library override keeps its own rows.
_OVERRIDE = {"override": {"LIBRARY_OVERRIDABLE"}}
_OVERRIDE_ROWS = {"override": {"LIBRARY_OVERRIDABLE", "USE_INSERTION"}}

# Looking at names costs milliseconds, and panels look often.
_guess = lru_cache(maxsize=64)(guess)


def _suggest_channels(row: Any, _context: bpy.types.Context, _text: str) -> Iterable[str]:
    visemes = row.id_data.wav2sem_mapping.channels
    return ARKIT_CHANNELS if visemes == "MODEL" else VISEME_SETS[visemes].names


class WAV2SEM_PG_mapping_row(bpy.types.PropertyGroup):
    """A channel and the shape key that plays it."""

    channel: StringProperty(  # type: ignore[valid-type]
        name="Channel",
        description="What the model moves, such as jawOpen, or a viseme",
        search=_suggest_channels,
        search_options={"SUGGESTION"},
        **_OVERRIDE,
    )
    key: StringProperty(name="Shape Key", description="Shape key that plays the channel", **_OVERRIDE)  # type: ignore[valid-type]
    gain: FloatProperty(  # type: ignore[valid-type]
        name="Gain",
        description="How far the key goes when the channel is at 1; below 0 it goes the other way",
        default=1.0,
        min=-100.0,
        max=100.0,
        soft_min=-2.0,
        soft_max=2.0,
        **_OVERRIDE,
    )


class WAV2SEM_PG_mapping(bpy.types.PropertyGroup):
    """The table; without rows the names decide at each run."""

    channels: EnumProperty(  # type: ignore[valid-type]
        name="Channels", description="What the rows' channels are", items=CHANNEL_KINDS, **_OVERRIDE
    )
    rows: CollectionProperty(  # type: ignore[valid-type]
        name="Rows", description="Channels and the keys that play them", type=WAV2SEM_PG_mapping_row, **_OVERRIDE_ROWS
    )
    active_row: IntProperty(name="Row", description="Row that is being edited")  # type: ignore[valid-type]


def key_names(target: bpy.types.Object) -> tuple[str, ...]:
    """The mesh's shape keys except the one at rest, which stays there."""
    keys = target.data.shape_keys if target.type == "MESH" else None
    return tuple(block.name for block in keys.key_blocks if block != keys.reference_key) if keys else ()


def stored(target: bpy.types.Object) -> KeyMap | None:
    """The user's table, or None where there is none."""
    # Merely reading the group would store an empty one with the object.
    if not target.is_property_set("wav2sem_mapping") or not target.wav2sem_mapping.rows:
        return None
    table = target.wav2sem_mapping
    rows = tuple(Row(row.channel, row.key, row.gain) for row in table.rows)
    return KeyMap(rows=rows, visemes="" if table.channels == "MODEL" else table.channels, label="Key mapping")


def guessed(target: bpy.types.Object) -> KeyMap:
    """What the names of the mesh's keys suggest."""
    return _guess(key_names(target))


def in_use(target: bpy.types.Object) -> KeyMap:
    """The mapping that a run follows."""
    return stored(target) or guessed(target)


def store(target: bpy.types.Object, key_map: KeyMap) -> None:
    """Put a mapping into the object's table; one without rows means that the names decide."""
    table = target.wav2sem_mapping
    table.channels = key_map.visemes or "MODEL"
    table.rows.clear()
    for row in key_map.rows:
        new = table.rows.add()
        new.channel, new.key, new.gain = row
    table.active_row = 0


CLASSES = (WAV2SEM_PG_mapping_row, WAV2SEM_PG_mapping)


def register() -> None:
    """Give every object its table."""
    bpy.types.Object.wav2sem_mapping = PointerProperty(type=WAV2SEM_PG_mapping, **_OVERRIDE)


def unregister() -> None:
    """Take the tables away again."""
    del bpy.types.Object.wav2sem_mapping
