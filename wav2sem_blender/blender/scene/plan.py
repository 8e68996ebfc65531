# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which shape keys of a mesh each channel of a motion drives, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy

from ...errors import Text, UserError
from ...pipeline.any_head.geometry import Similarity
from ...pipeline.composition import composed, not_shown
from ...pipeline.face_names import SPEECH_CHANNELS, KeyMap, Row, listed, match_channels
from ...pipeline.flame import FlameMismatchError
from ...pipeline.motion import Motion
from ...pipeline.tongue import TONGUE_CHANNELS
from ...pipeline.visemes import VISEME_SETS, as_visemes
from . import checks, key_mapping, key_offsets


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will write on a mesh.

    Attributes:
        motion: The motion in the channels of the face: the model's own, or visemes.
        rows: Existing shape keys and the channels that drive them.
        new_channels: Channels for which a key is made or, if the add-on made it earlier, updated.
        similarity: Transform from FLAME's frame to the mesh's; None if no key is made.
        warnings: Sentences for the user.
    """

    motion: Motion
    rows: tuple[Row, ...]
    new_channels: tuple[str, ...] = ()
    similarity: Similarity | None = None
    warnings: tuple[str, ...] = ()


def make_plan(target: bpy.types.Object, motion: Motion, visemes: Motion | None = None) -> Plan:
    """Decide which keys each channel drives: by the user's key mapping, or by the names of the keys.

    Existing keys keep their shape. Without a key mapping, the missing keys of a FLAME mesh are made from the basis.

    Args:
        target: The mesh.
        motion: In the model's channels.
        visemes: The motion as visemes, if that was computed beforehand; ignored if the face needs others by now.
    """
    table = _table_in_use(target, motion.channels)
    if table is None:
        return _plan_by_names(target, motion, key_mapping.guessed(target))
    wanted = _visemes_of(target, table)
    if wanted is not None:
        if visemes is None or visemes.channels != wanted[1]:
            visemes = as_visemes(motion, VISEME_SETS[wanted[0]], wanted[1])
        motion = visemes
    return _plan_by_table(target, motion, table)


def wanted_visemes(target: bpy.types.Object) -> tuple[str, tuple[str, ...]] | None:
    """The face's viseme set, and the visemes of it that have a key; None if it has none."""
    return _visemes_of(target, key_mapping.stored(target) or key_mapping.guessed(target))


def tongue_channels(target: bpy.types.Object) -> tuple[str, ...]:
    """The channels of the tongue for which the face has a key that is free; none with visemes, which have a tongue."""
    table = key_mapping.in_use(target)
    if table.visemes:
        return ()
    present = key_mapping.playable(target, table.rows)
    rows = [row for row in table.rows if row.key in present]
    return tuple(
        channel
        for channel in TONGUE_CHANNELS
        if any(row.channel == channel and checks.is_free(target, row) for row in rows)
    )


def _table_in_use(target: bpy.types.Object, channels: Sequence[str]) -> KeyMap | None:
    """The user's key mapping, or the guessed one of a face with visemes or controls; None if the keys' names decide."""
    table = key_mapping.stored(target)
    if table is not None:
        return table
    found = key_mapping.guessed(target)
    is_wanted = found.visemes or key_mapping.control_rows(target, found.rows)
    return found if is_wanted and set(SPEECH_CHANNELS) & set(channels) else None


def _visemes_of(target: bpy.types.Object, table: KeyMap) -> tuple[str, tuple[str, ...]] | None:
    """A key mapping's viseme set, and the visemes that have a key; None for other channels or without any key."""
    if not table.visemes:
        return None
    present = key_mapping.playable(target, table.rows)
    played = {row.channel for row in table.rows if row.key in present and checks.is_free(target, row)}
    available = tuple(name for name in VISEME_SETS[table.visemes].names if name in played)
    return (table.visemes, available) if available else None


def _plan_by_table(target: bpy.types.Object, motion: Motion, table: KeyMap) -> Plan:
    """Follow a key mapping of the motion's channels."""
    present = key_mapping.playable(target, table.rows)
    usable = [row for row in table.rows if row.key in present]
    rows = tuple(row for row in usable if row.channel in motion.channels)
    problems = key_mapping.problems(target, table)
    if not rows:
        checks.check_keys(target, tuple(usable))
        if not problems:
            problems = [Text("None of its channels is the model's ({channels})", channels=listed(motion.channels))]
        raise checks.moves_nothing(target, problems)
    warnings: list[str] = [Text('"{name}": {problem}.', name=target.name, problem=problem) for problem in problems]
    rows, blocked = checks.animatable(target, rows)
    warnings += blocked
    missing = [channel for channel in motion.channels if all(row.channel != channel for row in rows)]
    played = motion if table.visemes else composed(motion, _channels(rows))
    if missing:
        warnings.append(left_out(missing, motion, played))
    warnings += key_offsets.hardly_opens(target, rows, table.visemes)
    return Plan(motion=played, rows=rows, warnings=tuple(warnings))


def _plan_by_names(target: bpy.types.Object, motion: Motion, found: KeyMap) -> Plan:
    own = checks.own_keys(target.data)
    every_row = _matches(motion.channels, target)
    if len({row.channel for row in found.rows} & set(motion.channels)) > len(every_row):  # MetaHuman's names
        every_row = tuple(row for row in found.rows if row.channel in motion.channels)
    rows = tuple(row for row in every_row if row.key not in own)
    similarity, mismatch = None, ""
    if motion.basis_KV3 is not None and len(_channels(rows)) < len(motion.channels):
        try:
            similarity = checks.flame_similarity(target.data)
        except FlameMismatchError as error:
            mismatch = checks.nearly_flame(target.data, error)
    if similarity is None:
        rows = every_row
    if not rows and similarity is None:
        raise UserError(
            '"{name}" has no shape key for any of the model\'s {n_channels} channels ({channels}). Use another model, '
            "or fill in Key Mapping.{nearly_flame}",
            name=target.name,
            n_channels=len(motion.channels),
            channels=listed(motion.channels),
            nearly_flame=mismatch,
        )
    missing = tuple(channel for channel in motion.channels if channel not in _channels(rows))
    rows, warnings = checks.animatable(target, rows)
    played = motion if similarity is not None else composed(motion, _channels(rows))
    if similarity is None and played is not motion:
        absent = [channel for channel in motion.channels if channel not in _channels(rows)]
        warnings.append(left_out(absent, motion, played))
    elif missing and similarity is None:
        warnings.append(no_keys_for(missing))
    if missing and similarity is not None and target.data.override_library:
        raise UserError(
            '"{name}" is a library override, which cannot take new shape keys. Animate it once in its own file, or '
            "make it local (Object > Relations > Make Local).",
            name=target.name,
        )
    if similarity is None:
        warnings += key_offsets.hardly_opens(target, rows)
    return Plan(
        motion=played,
        rows=rows,
        new_channels=missing if similarity is not None else (),
        similarity=similarity,
        warnings=tuple(warnings),
    )


def left_out(missing: Sequence[str], motion: Motion, played: Motion) -> Text:
    """What becomes of channels without a shape key: the others make up for them, and what those cannot show."""
    if played is motion:
        return no_keys_for(missing)
    lost = not_shown(motion, played)
    if not lost:
        return Text("No shape key for {channels}; the other keys make up for them.", channels=listed(missing))
    return Text(
        "No shape key for {channels}; the other keys make up for them, but this face cannot show {lost}.",
        channels=listed(missing),
        lost=Text.joined([Text(words) for words in lost], ", "),
    )


def no_keys_for(channels: Sequence[str]) -> Text:
    """The warning about channels that no shape key plays."""
    return Text("No shape key for {channels}; those channels are left out.", channels=listed(channels))


def _matches(channels: tuple[str, ...], target: bpy.types.Object) -> tuple[Row, ...]:
    """The existing shape key of each channel that has one by its name."""
    return tuple(Row(channel, key) for channel, key in match_channels(channels, key_mapping.key_names(target)).items())


def _channels(rows: tuple[Row, ...]) -> set[str]:
    return {row.channel for row in rows}
