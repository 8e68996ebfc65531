# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps channels to the shape keys of a face by the keys' names.

It knows ARKit's names in their usual spellings, those of known rigs (`rig_names.py`), and the sets of visemes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import MissingFileError, Text, UserError
from ..files import atomic_file
from ..json_file import JsonError, read_json
from .motion import ARKIT_CHANNELS
from .rig_names import RIGS, Rig, lid_rows, rows_for
from .tongue import TONGUE_CHANNELS
from .visemes import VISEME_SETS

__all__ = ["KNOWN_CHANNELS", "SPEECH_CHANNELS", "KeyMap", "Row", "guess_key_map", "match_channels"]

# The channels of speech; a face needs at least one of them.
SPEECH_CHANNELS: tuple[str, ...] = tuple(name for name in ARKIT_CHANNELS if name.startswith(("jaw", "mouth")))

# ARKit's, and those that the tongue's rule adds.
KNOWN_CHANNELS = tuple(dict.fromkeys((*ARKIT_CHANNELS, *TONGUE_CHANNELS)))
# A key that raises the whole tongue (Character Creator, VRChat) plays its tip where no key raises the tip alone.
_TONGUE_UP = "tongueUp"
_INSTEAD = {"tongueTipUp": _TONGUE_UP}

_BY_LOWER = {name.lower(): name for name in KNOWN_CHANNELS} | dict.fromkeys(
    ("tongueup", "tonguecurlup", "vtongueup", "vtongueraise"), _TONGUE_UP
)
_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
# Words that exporters add to a blendshape's name: "bs_jawOpen", "ARKit jawOpen", "jawOpen_shape", "CTRL_expressions_…".
_DECORATION = {
    *("arkit", "bs", "blendshape", "blendshapes", "ctrl", "exp", "expression", "expressions"),
    *("facs", "key", "morph", "shape", "sk"),
}
_NUMBERING = re.compile(r"^[A-Za-z]{0,3}\d+[\s_.\-]+(?=\D)")  # "A25_Jaw_Open", "01_jawOpen"
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# An unknown word is a decoration if at least this many keys share it.
_MIN_DECORATED = 6


class Row(NamedTuple):
    """A row of a key mapping: `key` gets `gain` times the curve of `channel`."""

    channel: str
    key: str
    gain: float = 1.0


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Which shape keys of a face play which channels. A key with several rows gets the sum.

    Attributes:
        rows: A channel may have several keys.
        visemes: Name of the viseme set of the channels; empty if they are the model's own (ARKit's).
        label: The name of this kind of mapping for users.
    """

    rows: tuple[Row, ...]
    visemes: str = ""
    label: str = "ARKit keys"

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that have a key, in the order of the rows."""
        return tuple(dict.fromkeys(row.channel for row in self.rows))

    def can_speak(self) -> bool:
        """Whether any row moves the mouth."""
        return any(self.visemes or row.channel in SPEECH_CHANNELS for row in self.rows)

    def summary(self) -> Text:
        """What was found, as in "ARKit keys, 27 of 27 found"."""
        expected = VISEME_SETS[self.visemes].names if self.visemes else SPEECH_CHANNELS
        n_known = len(set(expected) & set(self.channels))
        return Text("{label}, {n_known} of {n_all} found", label=self.label, n_known=n_known, n_all=len(expected))

    def problems(self, key_names: Iterable[str]) -> list[str]:
        """What is wrong with the rows, for a face with these keys."""
        present = set(key_names)
        known = VISEME_SETS[self.visemes].names if self.visemes else None
        absent = list(dict.fromkeys(row.key for row in self.rows if row.key and row.key not in present))
        others = set(KNOWN_CHANNELS) - set(SPEECH_CHANNELS)  # lids and brows beside visemes
        unknown = [
            channel
            for channel in self.channels
            if channel and known is not None and channel not in known and channel not in others
        ]
        found: list[str] = []
        if not self.rows:
            found.append("The mapping is empty; use Guess, or add a row")
        if any(not row.key for row in self.rows):
            found.append("A row has no shape key; choose one, or remove the row")
        if any(not row.channel for row in self.rows):
            found.append("A row has no channel; choose one, or remove the row")
        if absent:
            found.append(Text("No such shape key here: {keys}", keys=listed(absent)))
        if unknown and self.visemes:
            label = VISEME_SETS[self.visemes].label
            found.append(Text("Not one of the {label}: {channels}", label=label, channels=listed(unknown)))
        if len(set(row[:2] for row in self.rows)) < len(self.rows):
            found.append("Two rows have the same channel and key; their gains add up")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mapping as JSON; an existing file is replaced in one step.

        Raises:
            UserError: The file cannot be written.
        """
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "visemes": self.visemes,
            "rows": [row._asdict() for row in self.rows],
        }
        with atomic_file(Path(path)) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyMap:
        """Read what `save` wrote.

        Raises:
            UserError: The file is missing or no mapping; the message names the entry.
            OSError: It cannot be read.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError("{file}: there is no such mapping file.", file=path)
        try:
            content = read_json(path)
        except JsonError as error:
            raise UserError(
                "{file}: no JSON file ({reason}). Choose a file that Save Mapping wrote.", file=path.name, reason=error
            ) from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise UserError("{file}: no key mapping. Choose a file that Save Mapping wrote.", file=path.name)
        if content.get("version") != _VERSION:
            raise UserError(
                "{file}: mapping format {found}; this version reads format {known}. Update the extension.",
                file=path.name,
                found=content.get("version"),
                known=_VERSION,
            )
        visemes, rows = content.get("visemes"), content.get("rows")
        if not isinstance(visemes, str) or (visemes and visemes not in VISEME_SETS):
            raise UserError(
                "{file}: there is no viseme set {viseme_set!r}; known are {viseme_sets}.",
                file=path.name,
                viseme_set=visemes,
                viseme_sets=", ".join(VISEME_SETS),
            )
        if not isinstance(rows, list):
            raise UserError("{file}: the entry rows is missing.", file=path.name)
        if len(rows) > _MAX_ROWS:
            raise UserError("{file}: {n_rows} rows are too many.", file=path.name, n_rows=len(rows))
        label = VISEME_SETS[visemes].label if visemes else cls.label
        return cls(rows=tuple(_row(row, path.name, i + 1) for i, row in enumerate(rows)), visemes=visemes, label=label)


_FORMAT, _VERSION = "wav2sem key mapping", 1
_MAX_ROWS = 10_000


def _row(content: object, file_name: str, number: int) -> Row:
    if not isinstance(content, Mapping) or set(content) != set(Row._fields):
        raise UserError(
            "{file}: row {number} must have channel, key and gain, and nothing else.", file=file_name, number=number
        )
    channel, key, gain = (content[name] for name in Row._fields)
    if not (isinstance(channel, str) and isinstance(key, str)):
        raise UserError("{file}: row {number}: channel and key must be names.", file=file_name, number=number)
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not math.isfinite(gain) or abs(gain) > 100:
        raise UserError(
            "{file}: row {number}: the gain is {gain!r}; it must be a number from -100 to 100.",
            file=file_name,
            number=number,
            gain=gain,
        )
    return Row(channel, key, float(gain))


def guess_key_map(key_names: Iterable[str]) -> KeyMap:
    """The mapping that the names of a face's keys suggest; without rows if no name is known.

    ARKit's keys and those of known rigs, which are muscles, are preferred to visemes unless only a few of them exist.
    """
    keys = list(dict.fromkeys(key_names))
    muscles = max((_arkit_map(keys), *(_rig_map(rig, keys) for rig in RIGS)), key=_speech_count)
    if "jawOpen" in muscles.channels and _speech_count(muscles) >= 10:
        return muscles
    for name, needed in _NEEDED.items():
        found = _viseme_keys(keys, _SPELLINGS[name])
        if needed(found):
            visemes = VISEME_SETS[name]
            rows = [Row(viseme, found[viseme]) for viseme in visemes.names if viseme in found]
            rows += [Row(*row) for row in lid_rows(keys) if row[1] not in found.values()]
            return KeyMap(rows=tuple(rows), visemes=name, label=visemes.label)
    return muscles


def match_channels(channels: Iterable[str], key_names: Iterable[str]) -> dict[str, str]:
    """The shape key of each channel; channels without one are left out.

    An exact name wins, then the same letters in another case, then ARKit's names in their usual spellings: jawOpen,
    JawOpen, jaw_open, "Jaw Open", A25_Jaw_Open, blendShape1.jawOpen, head:jawOpen, bs_jawOpen, mouthSmile_L,
    Mouth_Smile_Left, L_mouthSmile. A word before or after many of the names is ignored (Bob_jawOpen, Bob_mouthPucker,
    …). A key without a side ("mouthSmile") does not match a sided channel; a combination ("jawOpen_mouthClose") or an
    in-between ("jawOpen50") does not match its parts.

    Args:
        channels: Names from `Motion.channels`.
        key_names: Names of the character's shape keys. No key is used twice.
    """
    keys = list(dict.fromkeys(key_names))
    by_lower: dict[str, str] = {}
    by_meaning: dict[str, str] = {}
    for key in sorted(keys, key=len):  # the plainest spelling wins
        by_lower.setdefault(key.lower(), key)
        meaning = _arkit_meaning(key)
        if meaning:
            by_meaning.setdefault(meaning, key)
    decorated = _decorated(keys)
    if len(decorated) >= _MIN_DECORATED and len(decorated) > len(by_meaning):
        by_meaning = decorated | by_meaning
    matches: dict[str, str] = {}
    for channel in channels:
        found = channel if channel in keys else by_lower.get(channel.lower()) or by_meaning.get(channel)
        found = found or by_meaning.get(_INSTEAD.get(channel, ""))
        if found and found not in matches.values():
            matches[channel] = found
    return matches


def _arkit_meaning(key: str) -> str | None:
    """The ARKit channel that a shape key's name spells, or None."""
    owner, name = _split_namespace(key)
    if owner and _arkit_meaning(owner) is not None:
        return None  # "jawOpen.mouthClose" is a combination, "head.jawOpen" is not
    name = _NUMBERING.sub("", name)
    tokens = [token.lower() for token in _TOKEN.findall(name)]
    if _TOKEN.sub("", name).strip(" _-."):
        return None  # other characters, such as "+", have an unknown meaning
    while tokens and (tokens[0] in _DECORATION or "".join(tokens[:2]) in _DECORATION):
        tokens = tokens[1:] if tokens[0] in _DECORATION else tokens[2:]
    while tokens and tokens[-1] in _DECORATION:
        tokens = tokens[:-1]
    sides = [_SIDES[token] for token in tokens if token in _SIDES]
    base = "".join(token for token in tokens if token not in _SIDES)
    return _BY_LOWER.get(base + "".join(sides)) if len(sides) <= 1 else None


def _split_namespace(key: str) -> tuple[str, str]:
    """("head.blendShape1", "jawOpen"); a side or number at the end ("smile.L", "jawOpen.001") belongs to the name."""
    parts = re.split("[.:|]", key)
    n_name = 2 if len(parts) > 1 and (parts[-1].lower() in _SIDES or not re.search("[A-Za-z]", parts[-1])) else 1
    return ".".join(parts[:-n_name]), "_".join(parts[-n_name:])


def _decorated(keys: list[str]) -> dict[str, str]:
    """Channel to key, for keys that name an ARKit channel without the word that most of them share."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for key in sorted(keys, key=len):
        tokens = list(_TOKEN.finditer(key))
        for token in tokens[1:]:
            meaning = _arkit_meaning(key[token.start() :])
            if meaning:
                groups.setdefault(("before", key[: token.start()]), {}).setdefault(meaning, key)
        for token in tokens[:-1]:
            word = key[token.end() :]
            meaning = _arkit_meaning(key[: token.end()]) if re.search("[A-Za-z]", word) else None
            if meaning:
                groups.setdefault(("after", word), {}).setdefault(meaning, key)
    return max(groups.values(), key=len, default={})


def _speech_count(key_map: KeyMap) -> int:
    return len(set(key_map.channels) & set(SPEECH_CHANNELS))


def _arkit_map(keys: list[str]) -> KeyMap:
    return KeyMap(rows=tuple(Row(channel, key) for channel, key in match_channels(KNOWN_CHANNELS, keys).items()))


def _rig_map(rig: Rig, keys: list[str]) -> KeyMap:
    return KeyMap(rows=tuple(Row(*row) for row in rows_for(rig, KNOWN_CHANNELS, keys)), label=rig.label)


# Spellings of the visemes in lower case. Hiragana are the five vowels of MikuMikuDance models, used as VRM's.
_SPELLINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "OCULUS": {
        **{name: (name.lower(),) for name in ("PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa")},
        "sil": ("sil", "silence"),
        "E": ("e", "eh"),
        "I": ("i", "ih"),
        "O": ("o", "oh"),
        "U": ("u", "ou"),
    },
    "RHUBARB": {name: (name.lower(),) for name in "ABCDEFGHX"},
    "DAZ": {name: (name.lower(),) for name in VISEME_SETS["DAZ"].names},
    "CHARACTER_CREATOR": {
        name: tuple(dict.fromkeys((name.lower(), name.lower().replace("_", ""), name.lower().replace("-", "_"))))
        for name in VISEME_SETS["CHARACTER_CREATOR"].names
    },
    "PRESTON_BLAIR": {name: (name.lower(),) for name in VISEME_SETS["PRESTON_BLAIR"].names},
    "VRM": {
        "A": ("a", "aa", "あ"),
        "I": ("i", "ih", "い"),
        "U": ("u", "ou", "う"),
        "E": ("e", "ee", "え"),
        "O": ("o", "oh", "お"),
    },
}
# When a set counts as recognised; sets of single letters must be complete.
_NEEDED = {
    "OCULUS": lambda found: len(found) >= 10 and {"PP", "aa"} <= found.keys(),
    "RHUBARB": lambda found: set("ABCDEF") <= found.keys(),
    "DAZ": lambda found: len(found) >= 12 and {"M", "AA", "UW"} <= found.keys(),
    "CHARACTER_CREATOR": lambda found: len(found) >= 6 and {"Open", "Explosive"} <= found.keys(),
    "PRESTON_BLAIR": lambda found: len(found) >= 6 and {"MBP", "AI"} <= found.keys(),
    "VRM": lambda found: len(found) == 5,
}
# Words that may precede a viseme without a separator: "visemeaa".
_MOUTH_WORDS = ("lip", "lips", "mouth", "phoneme", "viseme", "vowel")
_OTHER_PARTS = re.compile("eye|brow|blink|lash|hand|finger|hair", re.IGNORECASE)


def _viseme_keys(keys: list[str], spellings: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Viseme to key, from the largest group of keys with the same words before or after the viseme."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for key in keys:
        for viseme, names in spellings.items():
            for name in names:
                for affix in _affixes(key, name):
                    groups.setdefault(affix, {}).setdefault(viseme, key)
    return max(groups.values(), key=len, default={})


def _affixes(key: str, name: str) -> Iterator[tuple[str, str]]:
    """("before", "viseme_") for the key viseme_PP and the name pp; nothing if the name is only part of a word."""
    lower = key.lower()
    if lower.endswith(name):
        words = key[: len(key) - len(name)]
        begins_word = key[len(words)].isupper() and words[-1:].islower()
        if (
            not words[-1:].isalnum() or begins_word or words.lower().endswith(_MOUTH_WORDS)
        ) and not _OTHER_PARTS.search(words):
            yield "before", words.lower()
    if lower.startswith(name) and lower != name:
        words = lower[len(name) :]
        meaningful = re.search("[a-z]{2}", words)  # "_l" would be a side, ".001" a copy
        if not words[0].isalnum() and meaningful and not _OTHER_PARTS.search(words):
            yield "after", words


def listed(names: Sequence[str], at_most: int = 4) -> str:
    """A list such as "jawOpen, mouthClose and 3 more"."""
    first, n_more = ", ".join(names[:at_most]), len(names) - at_most
    return Text("{names} and {n_more} more", names=first, n_more=n_more) if n_more > 0 else first
