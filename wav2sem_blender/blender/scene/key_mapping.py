# SPDX-License-Identifier: GPL-3.0-or-later
"""The key mapping: which shape key plays which channel, guessed from the names or set by the user on the object."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import bpy
from bpy.props import CollectionProperty, EnumProperty, FloatProperty, IntProperty, StringProperty

from ...pipeline.face_names import KNOWN_CHANNELS, KeyMap, Row, guess_key_map
from ...pipeline.visemes import VISEME_SETS


def _title(label: str) -> str:
    return " ".join(word[0].upper() + word[1:] for word in label.split())


CHANNEL_KINDS = (
    ("MODEL", "Model Channels", "The channels of the model; the bundled one has ARKit's names, such as jawOpen"),
    *((name, _title(visemes.label), "Mouth shapes, made from ARKit channels") for name, visemes in VISEME_SETS.items()),
)

# So that a library override can have its own rows.
_OVERRIDE: dict[str, Any] = {"override": {"LIBRARY_OVERRIDABLE"}}

# A guess takes milliseconds, and panels ask at every redraw.
_guess = lru_cache(maxsize=64)(guess_key_map)


def _suggest_channels(row: Any, _context: bpy.types.Context, _text: str) -> Iterable[str]:
    visemes = row.id_data.wav2sem_mapping_channels
    return KNOWN_CHANNELS if visemes == "MODEL" else VISEME_SETS[visemes].names


class WAV2SEM_PG_mapping_row(bpy.types.PropertyGroup):
    """A channel and the shape key that plays it."""

    channel: StringProperty(  # type: ignore[valid-type]
        name="Channel",
        description="A channel of the model, such as jawOpen, or a viseme",
        search=_suggest_channels,
        search_options={"SUGGESTION"},
        **_OVERRIDE,
    )
    key: StringProperty(name="Shape Key", description="Shape key that plays the channel", **_OVERRIDE)  # type: ignore[valid-type]
    gain: FloatProperty(  # type: ignore[valid-type]
        name="Gain",
        description="Value of the key when the channel is 1; negative values move it the other way",
        default=1.0,
        min=-100.0,
        max=100.0,
        soft_min=-2.0,
        soft_max=2.0,
        **_OVERRIDE,
    )


def key_names(target: bpy.types.Object) -> tuple[str, ...]:
    """Names of the mesh's shape keys without the reference key."""
    keys = target.data.shape_keys if target.type == "MESH" else None
    if keys is None:
        return ()
    # Comparing names is ten times as fast as comparing blocks, and panels ask at every redraw.
    rest, names = keys.reference_key.name, keys.key_blocks.keys()
    return tuple(name for name in names if name != rest)


def stored(target: bpy.types.Object) -> KeyMap | None:
    """The user's mapping; None without one."""
    if not target.wav2sem_mapping:
        return None
    rows = tuple(Row(row.channel, row.key, row.gain) for row in target.wav2sem_mapping)
    channels = target.wav2sem_mapping_channels
    return KeyMap(rows=rows, visemes="" if channels == "MODEL" else channels, label="Key mapping")


def guessed(target: bpy.types.Object) -> KeyMap:
    """The mapping that the names of the mesh's keys suggest."""
    return _guess(key_names(target))


def in_use(target: bpy.types.Object) -> KeyMap:
    """The mapping that a run uses: the user's, else the guessed one."""
    return stored(target) or guessed(target)


def store(target: bpy.types.Object, key_map: KeyMap) -> None:
    """Make a mapping the user's own. Without rows it removes the user's mapping, so that the names decide."""
    target.wav2sem_mapping_channels = key_map.visemes or "MODEL"
    target.wav2sem_mapping.clear()
    for row in key_map.rows:
        new = target.wav2sem_mapping.add()
        new.channel, new.key, new.gain = row
    target.wav2sem_mapping_active = 0


CLASSES = (WAV2SEM_PG_mapping_row,)


def register() -> None:
    """Add the mapping's properties to every object, not in a group: a library override cannot store a new group."""
    bpy.types.Object.wav2sem_mapping = CollectionProperty(
        name="Key Mapping",
        description="Channels and the shape keys that play them. Without rows, the names of the keys decide",
        type=WAV2SEM_PG_mapping_row,
        override={"LIBRARY_OVERRIDABLE", "USE_INSERTION"},
    )
    bpy.types.Object.wav2sem_mapping_channels = EnumProperty(
        name="Channels", description="Which channels the rows have", items=CHANNEL_KINDS, **_OVERRIDE
    )
    bpy.types.Object.wav2sem_mapping_active = IntProperty(name="Row", description="The selected row")


def unregister() -> None:
    """Remove those properties."""
    del bpy.types.Object.wav2sem_mapping
    del bpy.types.Object.wav2sem_mapping_channels
    del bpy.types.Object.wav2sem_mapping_active
