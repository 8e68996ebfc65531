# SPDX-License-Identifier: GPL-3.0-or-later
"""The key mapping: which shape key or control plays which channel, guessed from the names or set by the user.

A row names a shape key, or a control of the rig by its address (`controls.Control`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import bpy
from bpy.props import (
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)

from ...errors import Text
from ...pipeline.face_names import KNOWN_CHANNELS, KeyMap, Row, guess_key_map, listed
from ...pipeline.visemes import VISEME_SETS
from . import control_guess, controls
from .controls import Control


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
_guesses: dict[Hashable, control_guess.Guess] = {}
_MAX_GUESSES = 16

KINDS = (
    ("KEY", "Shape Key", "A shape key of the mesh"),
    ("BONE", "Bone", "An axis of a bone of the rig"),
    ("PROPERTY", "Property", "A custom property of the rig, or of a bone of it"),
)
AXES = tuple(
    (f"{name}[{index}]", f"{title} {letter}", "")
    for name, title in (("location", "Location"), ("rotation_euler", "Rotation"), ("scale", "Scale"))
    for index, letter in enumerate("XYZ")
)


def _suggest_channels(row: Any, _context: bpy.types.Context, _text: str) -> Iterable[str]:
    visemes = VISEME_SETS.get(row.id_data.wav2sem_mapping_channels)
    return KNOWN_CHANNELS if visemes is None else visemes.names


def _control(row: Any) -> Control:
    return controls.parsed(row.key) or Control()


def _get_kind(row: Any) -> int:
    control = controls.parsed(row.key)
    return 0 if control is None else 2 if control.is_property else 1


def _set_kind(row: Any, kind: int) -> None:
    if kind != _get_kind(row):
        row.key = ("", Control("bone", "location", 1).address, Control("", "property").address)[kind]


def _get_bone(row: Any) -> str:
    return _control(row).bone


def _set_bone(row: Any, bone: str) -> None:
    row.key = _control(row)._replace(bone=bone).address


def _get_axis(row: Any) -> int:
    control = _control(row)
    return next((number for number, item in enumerate(AXES) if item[0] == f"{control.name}[{control.axis}]"), 0)


def _set_axis(row: Any, number: int) -> None:
    name, _, index = AXES[number][0].rstrip("]").partition("[")
    row.key = _control(row)._replace(name=name, axis=int(index)).address


def _get_property(row: Any) -> str:
    control = _control(row)
    return control.name if control.is_property else ""


def _set_property(row: Any, name: str) -> None:
    row.key = Control(_control(row).bone, name).address


def _get_angle(row: Any) -> float:
    return float(row.gain)


def _set_angle(row: Any, angle: float) -> None:
    row.gain = angle


def _get_preview(row: Any) -> float:
    return weight(row.id_data, row)


def _set_preview(row: Any, shown: float) -> None:
    pose(row.id_data, row, shown)


def _suggest_properties(row: Any, _context: bpy.types.Context, _text: str) -> Iterable[str]:
    rig, bone = controls.rig_of(row.id_data), _control(row).bone
    owner: Any = rig.pose.bones.get(bone) if rig is not None and bone and rig.pose is not None else rig
    return [name for name in owner.keys() if not name.startswith("wav2sem")] if owner is not None else []  # noqa: SIM118


class WAV2SEM_PG_mapping_row(bpy.types.PropertyGroup):
    """A channel and the shape key or control that plays it."""

    channel: StringProperty(  # type: ignore[valid-type]
        name="Channel",
        description="A channel of the model, such as jawOpen, or a viseme",
        search=_suggest_channels,
        search_options={"SUGGESTION"},
        **_OVERRIDE,
    )
    key: StringProperty(  # type: ignore[valid-type]
        name="Shape Key",
        description="Shape key that plays the channel; or the data path of a bone's axis or a property of the rig",
        **_OVERRIDE,
    )
    kind: EnumProperty(  # type: ignore[valid-type]
        name="Target", description="What plays the channel", items=KINDS, get=_get_kind, set=_set_kind, **_OVERRIDE
    )
    bone: StringProperty(  # type: ignore[valid-type]
        name="Bone",
        description="The bone; for a property of the rig itself, empty",
        get=_get_bone,
        set=_set_bone,
        **_OVERRIDE,
    )
    axis: EnumProperty(  # type: ignore[valid-type]
        name="Axis", description="What of the bone moves", items=AXES, get=_get_axis, set=_set_axis, **_OVERRIDE
    )
    property: StringProperty(  # type: ignore[valid-type]
        name="Property",
        description="Name of the custom property",
        search=_suggest_properties,
        search_options={"SUGGESTION"},
        get=_get_property,
        set=_set_property,
        **_OVERRIDE,
    )
    gain: FloatProperty(  # type: ignore[valid-type]
        name="Gain",
        description="Value of the key when the channel is 1; negative values move it the other way. "
        "For a control, how far it is then from rest",
        default=1.0,
        min=-100.0,
        max=100.0,
        soft_min=-2.0,
        soft_max=2.0,
        **_OVERRIDE,
    )
    angle: FloatProperty(  # type: ignore[valid-type]
        name="Angle",
        description="How far the bone turns when the channel is 1",
        subtype="ANGLE",
        get=_get_angle,
        set=_set_angle,
        **_OVERRIDE,
    )
    preview: FloatProperty(  # type: ignore[valid-type]
        name="Preview",
        description="Pose the face as this row does when its channel has this weight. 0 is rest",
        min=0.0,
        max=1.0,
        get=_get_preview,
        set=_set_preview,
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


def driven_keys(keys: bpy.types.Key) -> frozenset[str]:
    """Names of the keys whose value a driver sets."""
    if keys.animation_data is None:
        return frozenset()
    paths = {curve.data_path for curve in keys.animation_data.drivers}
    return frozenset(block.name for block in keys.key_blocks if value_path(block.name) in paths)


def value_path(key_name: str) -> str:
    """The data path of a shape key's value, from the shape-key data-block."""
    return f'key_blocks["{bpy.utils.escape_identifier(key_name)}"].value'


def stored(target: bpy.types.Object) -> KeyMap | None:
    """The user's mapping; None without one."""
    if not target.wav2sem_mapping:
        return None
    rows = tuple(Row(row.channel, row.key, row.gain) for row in target.wav2sem_mapping)
    channels = target.wav2sem_mapping_channels
    return KeyMap(rows=rows, visemes="" if channels == "MODEL" else channels, label="Key mapping")


def guessed(target: bpy.types.Object) -> KeyMap:
    """The mapping that the names of the mesh's keys, what drives them, and the rig's controls suggest."""
    return _guessed(target).key_map


def _guessed(target: bpy.types.Object) -> control_guess.Guess:
    names = key_names(target)
    by_keys = _guess(names)
    rig = controls.rig_of(target) if target.type == "MESH" else None
    if rig is None:
        return control_guess.Guess(key_map=by_keys)
    keys = target.data.shape_keys
    seen = (target.session_uid, names, tuple(_drivers_seen(keys)), tuple(_rig_seen(rig)))
    if seen not in _guesses:
        if len(_guesses) >= _MAX_GUESSES:
            _guesses.clear()
        driven = driven_keys(keys) if keys is not None else ()
        _guesses[seen] = control_guess.with_controls(target, by_keys, driven)
    return _guesses[seen]


def _drivers_seen(keys: bpy.types.Key | None) -> Iterator[Hashable]:
    """What a guess depends on of the drivers of the face's keys."""
    animation = keys.animation_data if keys is not None else None
    for curve in animation.drivers if animation is not None else ():
        yield curve.data_path, curve.driver.expression
        for variable in curve.driver.variables:
            target = variable.targets[0]
            yield target.id and target.id.session_uid, target.data_path, target.bone_target, target.transform_type


def _rig_seen(rig: bpy.types.Object) -> Iterator[Hashable]:
    """And of the rig."""
    yield rig.session_uid
    yield tuple(rig.keys())
    yield tuple(rig.pose.bones.keys()) if rig.pose is not None else ()
    for block in (rig, rig.data):
        animation = block.animation_data if block is not None else None
        yield len(animation.drivers) if animation is not None else 0


def playable(target: bpy.types.Object, rows: Iterable[Row]) -> set[str]:
    """Those keys and controls of the rows that exist."""
    wanted, names = {row.key for row in rows}, set(key_names(target))
    others = wanted - names
    rig = controls.rig_of(target) if any(map(controls.parsed, others)) else None
    return (wanted & names) | {name for name in others if controls.exists(rig, name)}


def control_rows(target: bpy.types.Object, rows: Iterable[Row]) -> list[Row]:
    """The rows that name controls."""
    found = [row for row in rows if controls.parsed(row.key) is not None]
    names = key_names(target) if found else ()
    return [row for row in found if row.key not in names]


def weight(target: bpy.types.Object, row: Any) -> float:
    """The weight of a row's channel that the pose of its key or control shows."""
    keys, rig = target.data.shape_keys, controls.rig_of(target)
    if row.key in key_names(target):
        moved = keys.key_blocks[row.key].value
    elif rig is not None and controls.exists(rig, row.key):
        moved = controls.value(rig, _control(row)) - controls.rest(rig, _control(row))
    else:
        return 0.0
    return float(moved / row.gain) if row.gain else 0.0


def pose(target: bpy.types.Object, row: Any, shown: float) -> None:
    """Pose a row's key or control as its channel does at a weight, within its limits."""
    keys, rig = target.data.shape_keys, controls.rig_of(target)
    if row.key in key_names(target):
        keys.key_blocks[row.key].value = shown * row.gain
    elif rig is not None and controls.exists(rig, row.key):
        low, high = controls.limits(rig, _control(row))
        wanted = controls.rest(rig, _control(row)) + shown * row.gain
        controls.set_value(rig, _control(row), min(max(wanted, low), high))


def problems(target: bpy.types.Object, table: KeyMap) -> list[str]:
    """What is wrong with a mapping for this face and its rig."""
    named = list(dict.fromkeys(row.key for row in control_rows(target, table.rows)))
    found = table.problems((*key_names(target), *named))
    rig = controls.rig_of(target)
    absent = controls.listed_words(name for name in named if not controls.exists(rig, name))
    if named and rig is None:
        text = "There is no rig for {controls}; choose the armature under Rig"
        found.append(Text(text, controls=listed(controls.listed_words(named))))
    elif absent and rig is not None:
        text = 'The rig "{rig}" has no bone or property for {controls}'
        found.append(Text(text, rig=rig.name, controls=listed(absent)))
    if table is not stored(target) and (circle := _guessed(target).problem):
        found.append(circle)
    return found


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
    bpy.types.Object.wav2sem_rig = PointerProperty(  # type: ignore[attr-defined]
        name="Rig",
        description="Object with the controls of this face. Empty: what drives most of its keys, or its armature",
        type=bpy.types.Object,
        **_OVERRIDE,
    )


def unregister() -> None:
    """Remove those properties."""
    del bpy.types.Object.wav2sem_mapping
    del bpy.types.Object.wav2sem_mapping_channels
    del bpy.types.Object.wav2sem_mapping_active, bpy.types.Object.wav2sem_rig  # type: ignore[attr-defined]
