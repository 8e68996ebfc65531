# SPDX-License-Identifier: GPL-3.0-or-later
"""What the shape keys of somebody's face are called, and which of our channels each one plays.

Known are ARKit's names in their usual spellings, MetaHuman's curves, and three sets of visemes. Names alone decide.
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

from ..errors import MissingFileError, UserError
from ..files import atomic_file
from .motion import ARKIT_CHANNELS
from .visemes import VISEME_SETS

__all__ = ["SPEECH_CHANNELS", "KeyMap", "Row", "guess_key_map", "match_channels"]

# What speech moves; a face with eye keys alone cannot speak.
SPEECH_CHANNELS: tuple[str, ...] = tuple(name for name in ARKIT_CHANNELS if name.startswith(("jaw", "mouth")))

_ARKIT_BY_LOWER = {name.lower(): name for name in ARKIT_CHANNELS}
_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right"}
# What exporters put around a blendshape's name: "bs_jawOpen", "ARKit jawOpen", "jawOpen_shape", "CTRL_expressions_…".
_DECORATION = {
    *("arkit", "bs", "blendshape", "blendshapes", "ctrl", "exp", "expression", "expressions"),
    *("facs", "key", "morph", "shape", "sk"),
}
_NUMBERING = re.compile(r"^[A-Za-z]{0,3}\d+[\s_.\-]+(?=\D)")  # "A25_Jaw_Open", "01_jawOpen"
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Fewer keys than this with the same unknown word around their names do not make it a decoration.
_MIN_DECORATED = 6


class Row(NamedTuple):
    """One line of a mapping: `key` gets `gain` times the curve of `channel`."""

    channel: str
    key: str
    gain: float = 1.0


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Which shape keys of a face play which channels. Keys with several rows get the sum.

    Attributes:
        rows: A channel may have several keys.
        visemes: Name of the viseme set whose visemes the channels are; empty when they are a model's own (ARKit's).
        label: How users know these names.
    """

    rows: tuple[Row, ...]
    visemes: str = ""
    label: str = "ARKit keys"

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that have a key, in the rows' order."""
        return tuple(dict.fromkeys(row.channel for row in self.rows))

    def can_speak(self) -> bool:
        """Does any row move the mouth?"""
        return any(self.visemes or row.channel in SPEECH_CHANNELS for row in self.rows)

    def summary(self) -> str:
        """What was found, in words: "ARKit keys, 27 of 27 found"."""
        expected = VISEME_SETS[self.visemes].names if self.visemes else SPEECH_CHANNELS
        return f"{self.label}, {len(set(expected) & set(self.channels))} of {len(expected)} found"

    def problems(self, key_names: Iterable[str]) -> list[str]:
        """What a user should know about rows that do nothing on a face with these keys."""
        present = set(key_names)
        known = VISEME_SETS[self.visemes].names if self.visemes else None
        absent = list(dict.fromkeys(row.key for row in self.rows if row.key and row.key not in present))
        unknown = [channel for channel in self.channels if channel and known is not None and channel not in known]
        found = []
        if not self.rows:
            found.append("The mapping is empty; use Guess, or add a row")
        if any(not row.key for row in self.rows):
            found.append("A row has no shape key; choose one, or remove the row")
        if any(not row.channel for row in self.rows):
            found.append("A row has no channel; choose one, or remove the row")
        if absent:
            found.append(f"No such shape key here: {listed(absent)}")
        if unknown and self.visemes:
            found.append(f"Not one of the {VISEME_SETS[self.visemes].label}: {listed(unknown)}")
        if len(set(row[:2] for row in self.rows)) < len(self.rows):
            found.append("A channel and key stand there twice; their gains add up")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mapping as JSON; an existing file is replaced in one step.

        Raises:
            OSError: It cannot be written; an older file of that name is untouched.
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
            OSError: It cannot be read.
            ValueError: It is no mapping; the message names the entry.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError("{path}: there is no such mapping file.", path=path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UserError(
                "{path}: no JSON file ({error}). Choose a file that Save Mapping wrote.",
                path=path.name,
                error=error,
            ) from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise UserError("{path}: no key mapping. Choose a file that Save Mapping wrote.", path=path.name)
        if content.get("version") != _VERSION:
            raise UserError(
                "{path}: mapping format {get}; this version reads format {version}. Update the extension.",
                path=path.name,
                get=content.get("version"),
                version=_VERSION,
            )
        visemes, rows = content.get("visemes"), content.get("rows")
        if visemes != "" and visemes not in VISEME_SETS:
            raise UserError(
                "{path}: there is no viseme set {visemes!r}; known are {viseme_sets}.",
                path=path.name,
                visemes=visemes,
                viseme_sets=", ".join(VISEME_SETS),
            )
        if not isinstance(rows, list):
            raise UserError("{path}: the entry rows is missing.", path=path.name)
        label = VISEME_SETS[visemes].label if visemes else cls.label
        return cls(rows=tuple(_row(row, path.name, i + 1) for i, row in enumerate(rows)), visemes=visemes, label=label)


_FORMAT, _VERSION = "wav2sem key mapping", 1


def _row(content: object, file_name: str, number: int) -> Row:
    if not isinstance(content, Mapping) or set(content) != set(Row._fields):
        raise UserError(
            "{file_name}: row {number} must have channel, key and gain, and nothing else.",
            file_name=file_name,
            number=number,
        )
    channel, key, gain = (content[name] for name in Row._fields)
    if not (isinstance(channel, str) and isinstance(key, str)):
        raise UserError(
            "{file_name}: row {number}: channel and key must be names.",
            file_name=file_name,
            number=number,
        )
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not math.isfinite(gain) or abs(gain) > 100:
        raise UserError(
            "{file_name}: row {number}: the gain is {gain!r}; it must be a number from -100 to 100.",
            file_name=file_name,
            number=number,
            gain=gain,
        )
    return Row(channel, key, float(gain))


def guess_key_map(key_names: Iterable[str]) -> KeyMap:
    """The mapping that a face's key names suggest; no rows when they say nothing.

    Muscles (ARKit, MetaHuman) say more than visemes and are preferred, unless only a few of them are there.
    """
    keys = list(dict.fromkeys(key_names))
    muscles = max(_arkit_map(keys), _metahuman_map(keys), key=_speech_count)
    if "jawOpen" in muscles.channels and _speech_count(muscles) >= 10:
        return muscles
    for name, needed in _NEEDED.items():
        found = _viseme_keys(keys, _SPELLINGS[name])
        if needed(found):
            visemes = VISEME_SETS[name]
            rows = tuple(Row(viseme, found[viseme]) for viseme in visemes.names if viseme in found)
            return KeyMap(rows=rows, visemes=name, label=visemes.label)
    return muscles


def match_channels(channels: Iterable[str], key_names: Iterable[str]) -> dict[str, str]:
    """Find for every channel the shape key that means the same; channels without one are left out.

    An exact name wins, then the same letters in another case, then ARKit's names in their usual spellings: jawOpen,
    JawOpen, jaw_open, "Jaw Open", A25_Jaw_Open, blendShape1.jawOpen, head:jawOpen, bs_jawOpen, mouthSmile_L,
    Mouth_Smile_Left, L_mouthSmile. A word that stands before or after many of the names is no part of them
    (Bob_jawOpen, Bob_mouthPucker, …). A key without a side ("mouthSmile") is no match for a sided channel, nor is a
    combination ("jawOpen_mouthClose") or an in-between ("jawOpen50") for its parts.

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
        return None  # anything else, "+" say, means something unknown
    while tokens and (tokens[0] in _DECORATION or "".join(tokens[:2]) in _DECORATION):
        tokens = tokens[1:] if tokens[0] in _DECORATION else tokens[2:]
    while tokens and tokens[-1] in _DECORATION:
        tokens = tokens[:-1]
    sides = [_SIDES[token] for token in tokens if token in _SIDES]
    base = "".join(token for token in tokens if token not in _SIDES)
    return _ARKIT_BY_LOWER.get(base + "".join(sides)) if len(sides) <= 1 else None


def _split_namespace(key: str) -> tuple[str, str]:
    """("head.blendShape1", "jawOpen"); a side or number at the end ("smile.L", "jawOpen.001") stays on the name."""
    parts = re.split("[.:|]", key)
    n_name = 2 if len(parts) > 1 and (parts[-1].lower() in _SIDES or not re.search("[A-Za-z]", parts[-1])) else 1
    return ".".join(parts[:-n_name]), "_".join(parts[-n_name:])


def _decorated(keys: list[str]) -> dict[str, str]:
    """The keys that mean an ARKit channel once the word that most of them share is taken off: channel to key."""
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
    return KeyMap(rows=tuple(Row(channel, key) for channel, key in match_channels(ARKIT_CHANNELS, keys).items()))


# MetaHuman's names for what ARKit's channels do; {s} is the side, U and D the upper and the lower lip. Of several
# spellings (versions of the rig) all that are there are used.
_METAHUMAN_NAMES: dict[str, str] = {
    "eyeBlink{}": "eyeBlink{s}",
    "eyeLookUp{}": "eyeLookUp{s}",
    "eyeLookDown{}": "eyeLookDown{s}",
    "eyeSquint{}": "eyeSquintInner{s}",
    "eyeWide{}": "eyeWiden{s}",
    "jawForward": "jawFwd",
    "jawRight": "jawRight",
    "jawLeft": "jawLeft",
    "jawOpen": "jawOpen",
    "mouthClose": "mouthLipsTogetherUL mouthLipsTogetherUR mouthLipsTogetherDL mouthLipsTogetherDR",
    "mouthFunnel": "mouthFunnelUL mouthFunnelUR mouthFunnelDL mouthFunnelDR",
    "mouthPucker": "mouthLipsPurseUL mouthLipsPurseUR mouthLipsPurseDL mouthLipsPurseDR",
    "mouthRight": "mouthRight",
    "mouthLeft": "mouthLeft",
    "mouthSmile{}": "mouthCornerPull{s}",
    "mouthFrown{}": "mouthCornerDepress{s}",
    "mouthDimple{}": "mouthDimple{s}",
    "mouthStretch{}": "mouthStretch{s}",
    "mouthRollLower": "mouthLowerLipRollInL mouthLowerLipRollInR",
    "mouthRollUpper": "mouthUpperLipRollInL mouthUpperLipRollInR",
    "mouthShrugLower": "jawChinRaiseDL jawChinRaiseDR",
    "mouthShrugUpper": "jawChinRaiseUL jawChinRaiseUR",
    "mouthPress{}": "mouthLipsPress{s} mouthPressU{s} mouthPressD{s}",
    "mouthLowerDown{}": "mouthLowerLipDepress{s}",
    "mouthUpperUp{}": "mouthUpperLipRaise{s}",
    "browDown{}": "browDown{s}",
    "browInnerUp": "browRaiseInL browRaiseInR",
    "browOuterUp{}": "browRaiseOuter{s}",
    "cheekPuff": "mouthCheekBlowL mouthCheekBlowR",
    "cheekSquint{}": "eyeCheekRaise{s}",
    "noseSneer{}": "noseWrinkle{s}",
    "tongueOut": "tongueOut",
}
_METAHUMAN: dict[str, tuple[str, ...]] = {
    channel.format(side): tuple(names.format(s=side[:1]).lower().split())
    for channel, names in _METAHUMAN_NAMES.items()
    for side in (("Left", "Right") if "{}" in channel else ("",))
}


def _metahuman_map(keys: list[str]) -> KeyMap:
    by_name: dict[str, str] = {}
    for key in keys:
        by_name.setdefault(re.sub(r"^ctrl_expressions[_.]", "", _split_namespace(key)[1].lower()), key)
    rows = [
        Row(channel, by_name[name])
        for channel in ARKIT_CHANNELS
        for name in _METAHUMAN.get(channel, ())
        if name in by_name
    ]
    return KeyMap(rows=tuple(rows), label="MetaHuman curves")


# Visemes by their spellings in lower case. Hiragana: the five vowels of MikuMikuDance models, used as VRM's.
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
    "VRM": {
        "A": ("a", "aa", "あ"),
        "I": ("i", "ih", "い"),
        "U": ("u", "ou", "う"),
        "E": ("e", "ee", "え"),
        "O": ("o", "oh", "お"),
    },
}
# When a set counts as recognised; letters alone mean nothing unless the set is whole.
_NEEDED = {
    "OCULUS": lambda found: len(found) >= 10 and {"PP", "aa"} <= found.keys(),
    "RHUBARB": lambda found: set("ABCDEF") <= found.keys(),
    "VRM": lambda found: len(found) == 5,
}
# Words that may stand right before a viseme without a separator: "visemeaa".
_MOUTH_WORDS = ("lip", "lips", "mouth", "phoneme", "viseme", "vowel")
_OTHER_PARTS = re.compile("eye|brow|blink|lash|hand|finger|hair", re.IGNORECASE)


def _viseme_keys(keys: list[str], spellings: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Viseme to key, of the largest group of keys that have the same words before or after the viseme."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for key in keys:
        for viseme, names in spellings.items():
            for name in names:
                for affix in _affixes(key, name):
                    groups.setdefault(affix, {}).setdefault(viseme, key)
    return max(groups.values(), key=len, default={})


def _affixes(key: str, name: str) -> Iterator[tuple[str, str]]:
    """("before", "viseme_") for the key viseme_PP and the name pp; nothing when the name is only part of a word."""
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
    """As in "jawOpen, mouthClose and 3 more"."""
    first = ", ".join(names[:at_most])
    return f"{first} and {len(names) - at_most} more" if len(names) > at_most else first
