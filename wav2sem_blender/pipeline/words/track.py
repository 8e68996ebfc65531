# SPDX-License-Identifier: GPL-3.0-or-later
"""The track: words and phones with their times, as animators see and edit them.

A `Track` never changes: every edit returns a new one. Times are seconds from the beginning of the recording. Where no
phone is, the ear's own phones count; a phone "SIL" there means rest. Words need no phones, and phones need no word.
`track_files.py` reads and writes them.

Shape suffixes: L encoder frames, P phones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from ...errors import UserError
from ...json_file import parse_json
from ..phones import PHONES
from .directions import OF_THE_UPPER_FACE, STRESSED, meant

TRACK_FORMAT_VERSION = 2
"""In format 1 directions had no curves, and the stress of a word was one of them."""
SHORTEST_S = 0.02
"""An edit leaves no word or phone shorter; what is read from a file may be."""
DIGITS = 4
"""Of times in seconds, in files."""
MAX_ITEMS = 200_000
MAX_LABEL = 200
_MAX_TIME_S = 1e6
_TOUCH_S = 0.001  # edges so near are one boundary

Tier = Literal["words", "phones"]
Edge = Literal["start", "end"]


class Word(NamedTuple):
    """A word from `start_s` to `end_s`; `confidence` (0..1) says how well it fits what was heard."""

    text: str
    start_s: float
    end_s: float
    confidence: float = 1.0


class Phone(NamedTuple):
    """A phone of `PHONES` from `start_s` to `end_s`.

    `forced`: the text or the animator says so, and the mouth follows. Otherwise the ear heard it, with `confidence`.
    """

    name: str
    start_s: float
    end_s: float
    confidence: float = 1.0
    forced: bool = True


class Direction(NamedTuple):
    """A stage direction with its times: what it says (`directions.AMOUNTS`, `SWITCHES`), and its value if it has one.

    `curve` has its values at equal distances from the start to the end, if it changes.
    """

    name: str
    start_s: float
    end_s: float
    value: float | None = None
    curve: tuple[float, ...] = ()

    def values(self, times_s: np.ndarray) -> np.ndarray:
        """The value at some times; before and after the direction that of its ends, and 1 for one without a value."""
        if self.curve:
            return np.interp(times_s, np.linspace(self.start_s, self.end_s, len(self.curve)), self.curve)
        return np.full(len(times_s), 1.0 if self.value is None else self.value)

    def within(self, start_s: float, end_s: float) -> Direction | None:
        """What of it lies between two times; None if nothing does."""
        start_s, end_s = max(start_s, self.start_s), min(end_s, self.end_s)
        if end_s <= start_s:
            return None
        if not self.curve or (start_s, end_s) == (self.start_s, self.end_s):
            return self._replace(start_s=start_s, end_s=end_s)
        share = (end_s - start_s) / (self.end_s - self.start_s)
        times_s = np.linspace(start_s, end_s, max(2, round(share * (len(self.curve) - 1)) + 1))
        curve = tuple(round(value, 4) for value in self.values(times_s).tolist())
        return self._replace(start_s=start_s, end_s=end_s, curve=curve)


Item = TypeVar("Item", Word, Phone)


@dataclass(frozen=True, kw_only=True)
class Track:
    """Words and phones, each in the order of their times and without overlap; gaps are allowed.

    Attributes:
        words: What is said.
        phones: How it sounds.
        directions: What the face shall do; they may overlap.
        language: Of the text, such as "en"; "" if it is unknown.

    Raises:
        UserError: A part is out of order, overlaps, has no length, or a phone has an unknown name.
    """

    words: tuple[Word, ...] = ()
    phones: tuple[Phone, ...] = ()
    directions: tuple[Direction, ...] = ()
    language: str = ""

    def __post_init__(self) -> None:
        words = tuple(Word(str(w.text), float(w.start_s), float(w.end_s), float(w.confidence)) for w in self.words)
        phones = tuple(
            Phone(str(p.name), float(p.start_s), float(p.end_s), float(p.confidence), bool(p.forced))
            for p in self.phones
        )
        _check_tier(words, "word")
        _check_tier(phones, "phone")
        for word in words:
            if not word.text.strip() or len(word.text) > MAX_LABEL or not word.text.isprintable():
                raise UserError(
                    "A word at {time:.3f} s is empty, longer than {most} letters, or has a line break in it.",
                    time=word.start_s,
                    most=MAX_LABEL,
                )
        for phone in phones:
            if phone.name not in PHONES:
                raise UserError(
                    "{label}: there is no such phone; known are {known}.", label=phone.name, known=" ".join(PHONES)
                )
        directions = tuple(
            Direction(
                str(d.name),
                float(d.start_s),
                float(d.end_s),
                None if d.value is None else float(d.value),
                tuple(map(float, d.curve)),
            )
            for d in self.directions
        )
        for direction in directions:
            if not 0 <= direction.start_s <= direction.end_s <= _MAX_TIME_S:
                raise UserError("The direction {name} has no valid times.", name=direction.name[:MAX_LABEL])
            if not all(map(isfinite, (direction.value or 0.0, *direction.curve))) or len(direction.curve) == 1:
                raise UserError("The direction {name} has no valid values.", name=direction.name[:MAX_LABEL])
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "phones", phones)
        object.__setattr__(self, "directions", directions)

    @property
    def end_s(self) -> float:
        """Where the last word or phone ends; 0 if there is none."""
        ends_s = [word.end_s for word in self.words[-1:]] + [phone.end_s for phone in self.phones[-1:]]
        return max(ends_s, default=0.0)

    def at(self, tier: Tier, time_s: float) -> int | None:
        """Index of the word or phone at a time, or None in a gap."""
        for i, item in enumerate(self._tier(tier)):
            if item.start_s <= time_s < item.end_s:
                return i
        return None

    def phones_of(self, word: int) -> range:
        """Indexes of the phones whose middle lies in a word."""
        _, start_s, end_s, _ = self._item("words", word)
        inside = [i for i, phone in enumerate(self.phones) if start_s <= (phone.start_s + phone.end_s) / 2 < end_s]
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    # Edits.

    def move_boundary(self, tier: Tier, index: int, edge: Edge, time_s: float) -> Track:
        """Move a beginning or an end to a time, or as near as the neighbours let it: they keep `SHORTEST_S`.

        A neighbour that touches there moves along. Phones stretch with their word; a word's edge moves with the phone
        that begins or ends it. Whatever was changed by hand is forced and has confidence 1.
        """
        items = self._tier(tier)
        item = self._item(tier, index)
        old_s = item.start_s if edge == "start" else item.end_s
        left = index - 1 if edge == "start" else index
        right = left + 1
        at_left, at_right = (items[i] if 0 <= i < len(items) else None for i in (left, right))
        low_s, high_s = 0.0, _MAX_TIME_S
        touching = at_left is not None and at_right is not None and at_right.start_s - at_left.end_s <= _TOUCH_S
        if at_left is not None:
            low_s = at_left.start_s + SHORTEST_S if touching or edge == "end" else at_left.end_s
        if at_right is not None:
            high_s = at_right.end_s - SHORTEST_S if touching or edge == "start" else at_right.start_s
        moves_left = at_left is not None and (touching or edge == "end")
        moves_right = at_right is not None and (touching or edge == "start")
        if tier == "words":
            return self._move_word_edge(
                left if moves_left else None, right if moves_right else None, time_s, low_s, high_s
            )
        new_s = min(max(time_s, low_s), high_s) if low_s <= high_s else old_s
        phones = list(self.phones)
        if moves_left:
            phones[left] = _by_hand(phones[left], end_s=new_s)
        if moves_right:
            phones[right] = _by_hand(phones[right], start_s=new_s)
        words = list(self.words)
        for i, word in enumerate(words):
            if moves_right and abs(word.start_s - old_s) <= _TOUCH_S and new_s < word.end_s:
                words[i] = word._replace(start_s=max(new_s, words[i - 1].end_s if i else 0.0))
            elif moves_left and abs(word.end_s - old_s) <= _TOUCH_S and new_s > word.start_s:
                limit_s = self.words[i + 1].start_s if i + 1 < len(words) else _MAX_TIME_S
                follows = moves_right and abs(limit_s - old_s) <= _TOUCH_S
                words[i] = word._replace(end_s=new_s if follows else min(new_s, limit_s))
        try:
            return self._with(words=words, phones=phones)
        except UserError:  # a word that begins and ends within this phone
            return self._with(phones=phones)

    def _move_word_edge(self, left: int | None, right: int | None, time_s: float, low_s: float, high_s: float) -> Track:
        """The end of word `left` and the beginning of word `right` to one time, with the phones in them."""
        words, phones = list(self.words), list(self.phones)
        inside = {i: self.phones_of(i) for i in (left, right) if i is not None}
        # A word keeps room for its phones; a gap's foreign phones are not overrun.
        if left is not None:
            low_s = max(low_s, words[left].start_s + SHORTEST_S * max(1, len(inside[left])))
        if right is not None:
            high_s = min(high_s, words[right].end_s - SHORTEST_S * max(1, len(inside[right])))
        old_s = words[left].end_s if left is not None else words[right].start_s  # type: ignore[index]
        if left is not None and right is None:
            after = [p.start_s for i, p in enumerate(phones) if i not in inside[left] and p.start_s >= old_s - _TOUCH_S]
            high_s = min([high_s, *after[:1]])
        if right is not None and left is None:
            before = [p.end_s for i, p in enumerate(phones) if i not in inside[right] and p.end_s <= old_s + _TOUCH_S]
            low_s = max([low_s, *before[-1:]])
        if low_s > high_s:
            return self
        new_s = min(max(time_s, low_s), high_s)
        for i, (start_s, end_s) in {
            **({left: (words[left].start_s, new_s)} if left is not None else {}),
            **({right: (new_s, words[right].end_s)} if right is not None else {}),
        }.items():
            word, own = words[i], inside[i]
            words[i] = word._replace(start_s=start_s, end_s=end_s, confidence=1.0)
            for k, phone in zip(own, _stretched([phones[k] for k in own], word, start_s, end_s), strict=True):
                phones[k] = phone
        return self._with(words=words, phones=_in_turn(phones))

    def split(self, tier: Tier, index: int, time_s: float, names: tuple[str, str] | None = None) -> Track:
        """Cut a word or phone in two at a time inside it.

        Args:
            tier: "words" or "phones".
            index: Which one.
            time_s: Where.
            names: Of the two parts. By default a phone's parts keep its name, and a word's letters are shared out in
                proportion to the time.

        Raises:
            UserError: One part would be shorter than `SHORTEST_S`.
        """
        item = self._item(tier, index)
        if not item.start_s + SHORTEST_S <= time_s <= item.end_s - SHORTEST_S:
            raise UserError(
                "{label} cannot be cut at {time:.3f} s: each part needs {shortest:g} s.",
                label=item[0],
                time=time_s,
                shortest=SHORTEST_S,
            )
        if names is None:
            names = (item[0], item[0])
            if tier == "words" and len(item[0]) > 1:
                share = (time_s - item.start_s) / (item.end_s - item.start_s)
                at = min(max(round(share * len(item[0])), 1), len(item[0]) - 1)
                names = (item[0][:at].strip() or item[0], item[0][at:].strip() or item[0])
        parts = [_renamed(item, names[0])._replace(end_s=time_s), _renamed(item, names[1])._replace(start_s=time_s)]
        return self._replaced(tier, index, index + 1, [_by_hand(part) for part in parts])

    def merge(self, tier: Tier, index: int, name: str | None = None) -> Track:
        """Join a word or phone with the next one, over the gap between them.

        Args:
            tier: "words" or "phones".
            index: The first of the two.
            name: Of the result; by default the words with a space between them, or the longer phone's name.

        Raises:
            UserError: There is no next one.
        """
        first, second = self._item(tier, index), self._item(tier, index + 1)
        if name is None:
            longer = max(first, second, key=lambda item: item.end_s - item.start_s)
            name = f"{first[0]} {second[0]}" if tier == "words" else longer[0]
        joined = _renamed(first, name)._replace(end_s=second.end_s)
        return self._replaced(tier, index, index + 2, [_by_hand(joined)])

    def rename(self, tier: Tier, index: int, name: str) -> Track:
        """Give a word another text (its phones stay; see `respoken`), or a phone another name, which is then forced.

        Raises:
            UserError: The text is empty, or there is no such phone.
        """
        return self._replaced(tier, index, index + 1, [_by_hand(_renamed(self._item(tier, index), name))])

    def insert(self, tier: Tier, name: str, start_s: float, end_s: float) -> Track:
        """Add a word or phone; neighbours in the way give room, and one around it keeps its longer part.

        Raises:
            UserError: The span is shorter than `SHORTEST_S`, or a neighbour would be left shorter than that.
        """
        if not 0 <= start_s <= end_s - SHORTEST_S + 1e-9:
            raise UserError("{label} needs at least {shortest:g} s, from 0 s on.", label=name, shortest=SHORTEST_S)
        items = []
        for item in self._tier(tier):
            if item.end_s > start_s and item.start_s < end_s:
                before, after = start_s - item.start_s, item.end_s - end_s
                if max(before, after) < SHORTEST_S - 1e-9:
                    raise UserError(
                        "{label} has no room between {start:.3f} and {end:.3f} s: {other} is there. Delete or move it "
                        "first.",
                        label=name,
                        start=start_s,
                        end=end_s,
                        other=item[0],
                    )
                item = _by_hand(item, end_s=start_s) if before >= after else _by_hand(item, start_s=end_s)
            items.append(item)
        new: Word | Phone = Word(name, start_s, end_s) if tier == "words" else Phone(name, start_s, end_s)
        items = sorted([*items, new], key=lambda item: item.start_s)
        return self._with(**{tier: items})

    def delete(self, tier: Tier, index: int, keep_phones: bool = False) -> Track:
        """Remove a word with its phones, or a phone. The ear's own phones count there then."""
        self._item(tier, index)
        track = self._replaced(tier, index, index + 1, [])
        if tier == "words" and not keep_phones and (own := self.phones_of(index)):
            track = track._replaced("phones", own.start, own.stop, [])
        return track

    def respoken(self, word: int, names: Sequence[str]) -> Track:
        """Give a word these phones, all forced, spread over its time; vowels last longer than consonants.

        Raises:
            UserError: The word has no room for so many, or there is no such phone.
        """
        item, own = self._item("words", word), self.phones_of(word)
        others = []
        for i, phone in enumerate(self.phones):
            if i in own:
                continue
            if phone.start_s < item.start_s < phone.end_s:
                phone = phone._replace(end_s=item.start_s)
            elif phone.start_s < item.end_s < phone.end_s:
                phone = phone._replace(start_s=item.end_s)
            others.append(phone)
        phones = [*others, *spread(names, item.start_s, item.end_s)]
        return self._with(phones=sorted(phones, key=lambda phone: phone.start_s))

    def later(self, seconds: float) -> Track:
        """The same track, moved by `seconds`; what then lies before 0 is cut off."""
        return self._at(lambda time_s: time_s + seconds)

    def between(self, start_s: float, end_s: float) -> Track:
        """What of the track lies between two times, in times from the first."""
        earlier = self.later(-start_s)
        last_s = end_s - start_s

        def part(items: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(item._replace(end_s=min(item.end_s, last_s)) for item in items if item.start_s < last_s)

        directions = (direction.within(0.0, last_s) for direction in earlier.directions)
        return earlier._with(
            words=part(earlier.words), phones=part(earlier.phones), directions=[some for some in directions if some]
        )

    def at_speed(self, speed: float) -> Track:
        """The same track played `speed` times as fast."""
        return self._at(lambda time_s: time_s / speed)

    # Plain data.

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, which `from_json` reads; times in tenths of a millisecond."""
        data: dict[str, Any] = {
            "track_format_version": TRACK_FORMAT_VERSION,
            "language": self.language,
            "words": [[w.text, *rounded(w), round(w.confidence, 3)] for w in self.words],
            "phones": [[p.name, *rounded(p), round(p.confidence, 3), p.forced] for p in self.phones],
        }
        if self.directions:
            data["directions"] = [
                [d.name, *rounded(d), d.value, *([list(d.curve)] if d.curve else [])] for d in self.directions
            ]
        return data

    @classmethod
    def from_json(cls, data: Any) -> Track:
        """Read what `to_json` returned.

        Raises:
            UserError: It is something else, or was written by a newer version.
        """
        try:
            version = data["track_format_version"]
            if version in (1, TRACK_FORMAT_VERSION):
                return cls(
                    words=tuple(Word(*row) for row in data["words"]),
                    phones=tuple(Phone(*row) for row in data["phones"]),
                    directions=tuple(
                        direction for row in data.get("directions", ()) for direction in _of_format(version, row)
                    ),
                    language=str(data.get("language", "")),
                )
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError("This is no track of words and phones, or it is damaged.") from error
        raise UserError(
            "The track has format {found}; this version reads format {known}. Update the extension.",
            found=version,
            known=TRACK_FORMAT_VERSION,
        )

    def to_text(self) -> str:
        """`to_json` as one line of text, for a property of a .blend file."""
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Track:
        """Read what `to_text` returned; UserError as from `from_json`."""
        try:
            data = parse_json(text)
        except UserError as error:
            raise UserError("This is no track of words and phones, or it is damaged.") from error
        return cls.from_json(data)

    # Inside.

    def _tier(self, tier: Tier) -> tuple[Any, ...]:
        return self.words if tier == "words" else self.phones

    def _item(self, tier: Tier, index: int) -> Any:
        items = self._tier(tier)
        if not 0 <= index < len(items):
            raise UserError("There is no such part of the track: it has {n} {tier}.", n=len(items), tier=tier)
        return items[index]

    def _replaced(self, tier: Tier, first: int, last: int, items: Sequence[Any]) -> Track:
        old = self._tier(tier)
        return self._with(**{tier: (*old[:first], *items, *old[last:])})

    def _with(self, **tiers: Sequence[Any]) -> Track:
        return replace(self, **{tier: tuple(items) for tier, items in tiers.items()})  # type: ignore[arg-type]

    def _at(self, moved: Callable[[float], float]) -> Track:
        def part(items: Sequence[Any]) -> tuple[Any, ...]:
            new = (i._replace(start_s=max(0.0, moved(i.start_s)), end_s=max(0.0, moved(i.end_s))) for i in items)
            return tuple(item for item in new if item.end_s > item.start_s)

        directed = (d._replace(start_s=moved(d.start_s), end_s=moved(d.end_s)) for d in self.directions)
        inside = tuple(found for d in directed if (found := d.within(0.0, _MAX_TIME_S)) is not None)
        return self._with(words=part(self.words), phones=part(self.phones), directions=inside)


def _of_format(version: int, row: Sequence[Any]) -> list[Direction]:
    """The directions of a row of a file; format 1 had one for the stress of a word, beside its articulation."""
    direction = Direction(*row)
    if version > 1 or direction.name != STRESSED:
        return [direction]
    emphasis = ((name, value) for name, value in meant(STRESSED) if name in OF_THE_UPPER_FACE)
    return [direction._replace(name=name, value=value) for name, value in emphasis]


_LONG = frozenset("AA AE AO AW AY EH ER EY IY OW OY UW AH IH UH S SH Z ZH F TH CH JH".split())


def spread(names: Sequence[str], start_s: float, end_s: float, confidence: float = 1.0) -> list[Phone]:
    """Forced phones one after another from `start_s` to `end_s`, long ones with twice the time of short ones.

    Raises:
        UserError: There is no room for so many.
    """
    if len(names) * SHORTEST_S > end_s - start_s + 1e-9:
        raise UserError(
            "{n} phones need {needed:.2f} s, and the word has {found:.2f} s; make it longer or give it fewer.",
            n=len(names),
            needed=len(names) * SHORTEST_S,
            found=end_s - start_s,
        )
    weights = np.array([2.0 if name in _LONG else 1.0 for name in names])
    spare_s = end_s - start_s - SHORTEST_S * len(names)
    edges_s = start_s + np.concatenate([[0.0], np.cumsum(SHORTEST_S + spare_s * weights / max(weights.sum(), 1))])
    edges = [*edges_s[:-1].tolist(), end_s] if names else []
    return [Phone(name, a, b, confidence) for name, (a, b) in zip(names, pairwise(edges), strict=True)]


def _check_tier(items: Sequence[Word] | Sequence[Phone], kind: str) -> None:
    if len(items) > MAX_ITEMS:
        raise UserError(
            "The track has {n} {kind}s; at most {most} are allowed.", n=len(items), kind=kind, most=MAX_ITEMS
        )
    before_s, before = 0.0, ""
    for item in items:
        label = item[0][:MAX_LABEL]
        if not (0 <= item.start_s <= _MAX_TIME_S and 0 <= item.end_s <= _MAX_TIME_S):
            raise UserError("The {kind} {label} has no valid times.", kind=kind, label=label)
        if item.end_s <= item.start_s:
            raise UserError(
                "The {kind} {label} at {time:.3f} s has no length: it must end after it begins.",
                kind=kind,
                label=label,
                time=item.start_s,
            )
        if item.start_s < before_s - 1e-6:
            raise UserError(
                "The {kind} {label} begins at {time:.3f} s, before {other} has ended; they must not overlap.",
                kind=kind,
                label=label,
                time=item.start_s,
                other=before,
            )
        if not 0 <= item.confidence <= 1:
            raise UserError("The {kind} {label} has a confidence outside 0 to 1.", kind=kind, label=label)
        before_s, before = item.end_s, label


def _renamed(item: Any, name: str) -> Any:
    return item._replace(**{item._fields[0]: name})


def _by_hand(item: Any, **times: float) -> Any:
    item = item._replace(confidence=1.0, **times)
    return item._replace(forced=True) if isinstance(item, Phone) else item


def _stretched(phones: Sequence[Phone], word: Word, start_s: float, end_s: float) -> list[Phone]:
    """The phones of a word, when it lasts from `start_s` to `end_s`."""
    old_s = word.end_s - word.start_s
    starts = [max(phone.start_s, word.start_s) - word.start_s for phone in phones]
    ends = [min(phone.end_s, word.end_s) - word.start_s for phone in phones]
    scale = (end_s - start_s) / old_s
    return [
        _by_hand(phone, start_s=start_s + scale * a, end_s=start_s + scale * b)
        for phone, a, b in zip(phones, starts, ends, strict=True)
    ]


def _in_turn(phones: Sequence[Phone]) -> list[Phone]:
    """The phones, each beginning when the one before has ended; one that was overrun is gone."""
    kept: list[Phone] = []
    for phone in phones:
        start_s = max(phone.start_s, kept[-1].end_s if kept else 0.0)
        if phone.end_s > start_s:
            kept.append(phone._replace(start_s=start_s))
    return kept


def rounded(item: Any) -> tuple[float, float]:
    """Start and end of a word, a phone, or whatever has them, as they are written in files."""
    return round(item.start_s, DIGITS), round(item.end_s, DIGITS)
