# SPDX-License-Identifier: GPL-3.0-or-later
"""Which shape keys of a mesh play which channels: guessed from their names, or the user's own table on the object."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import bpy
from bpy.props import CollectionProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from ...pipeline.face_names import KeyMap, Row, guess
from ...pipeline.motion import ARKIT_CHANNELS
from ...pipeline.visemes import VISEME_SETS


def _title(label: str) -> str:
    return " ".join(word[0].upper() + word[1:] for word in label.split())


CHANNEL_KINDS = (
    ("MODEL", "Model Channels", "The channels of the model; the bundled one has ARKit's names, such as jawOpen"),
    *((name, _title(visemes.label), "Mouth shapes, made from ARKit channels") for name, visemes in VISEME_SETS.items()),
)

# A library override keeps its own rows.
_OVERRIDE = {"override": {"LIBRARY_OVERRIDABLE"}}

# Looking at names costs milliseconds, and panels look often.
_guess = lru_cache(maxsize=64)(guess)


def _suggest_channels(row: Any, _context: bpy.types.Context, _text: str) -> Iterable[str]:
    visemes = row.id_data.wav2sem_mapping_channels
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


def key_names(target: bpy.types.Object) -> tuple[str, ...]:
    """The mesh's shape keys except the one at rest, which stays there."""
    keys = target.data.shape_keys if target.type == "MESH" else None
    if keys is None:
        return ()
    # By name: to compare blocks takes ten times as long, and panels ask at every redraw.
    rest, names = keys.reference_key.name, keys.key_blocks.keys()
    return tuple(name for name in names if name != rest)


def stored(target: bpy.types.Object) -> KeyMap | None:
    """The user's table, or None where there is none."""
    if not target.wav2sem_mapping:
        return None
    rows = tuple(Row(row.channel, row.key, row.gain) for row in target.wav2sem_mapping)
    channels = target.wav2sem_mapping_channels
    return KeyMap(rows=rows, visemes="" if channels == "MODEL" else channels, label="Key mapping")


def guessed(target: bpy.types.Object) -> KeyMap:
    """What the names of the mesh's keys suggest."""
    return _guess(key_names(target))


def in_use(target: bpy.types.Object) -> KeyMap:
    """The mapping that a run follows."""
    return stored(target) or guessed(target)


def store(target: bpy.types.Object, key_map: KeyMap) -> None:
    """Put a mapping into the object's table; one without rows means that the names decide."""
    target.wav2sem_mapping_channels = key_map.visemes or "MODEL"
    target.wav2sem_mapping.clear()
    for row in key_map.rows:
        new = target.wav2sem_mapping.add()
        new.channel, new.key, new.gain = row
    target.wav2sem_mapping_active = 0


CLASSES = (WAV2SEM_PG_mapping_row,)


def register() -> None:
    """Give every object a table: straight on the object, since a library override stores no new group of properties."""
    bpy.types.Object.wav2sem_mapping = CollectionProperty(
        name="Key Mapping",
        description="Channels and the shape keys that play them; without rows the names of the keys decide",
        type=WAV2SEM_PG_mapping_row,
        override={"LIBRARY_OVERRIDABLE", "USE_INSERTION"},
    )
    bpy.types.Object.wav2sem_mapping_channels = EnumProperty(
        name="Channels", description="What the rows' channels are", items=CHANNEL_KINDS, **_OVERRIDE
    )
    bpy.types.Object.wav2sem_mapping_active = IntProperty(name="Row", description="Row that is being edited")


def unregister() -> None:
    """Take the tables away again."""
    del bpy.types.Object.wav2sem_mapping
    del bpy.types.Object.wav2sem_mapping_channels
    del bpy.types.Object.wav2sem_mapping_active
