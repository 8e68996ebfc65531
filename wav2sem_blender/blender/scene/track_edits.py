# SPDX-License-Identifier: GPL-3.0-or-later
"""What an animator's edits of the strips mean for the track: who follows a moved word, who gives room, what is wrong.

Without bpy: strips come in as `Shown`, with what they said when they were last written and what they say now.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from ...errors import Text, UserError
from ...pipeline.phones import PHONES, SILENCE
from ...pipeline.words.directions import OF_THE_UPPER_FACE
from ...pipeline.words.track import SHORTEST_S, Direction, Phone, Track, Word, spread

_SAME_S = 1e-4
_TOUCH_S = 0.001
_ROUNDING_S = 1e-6
# A phone is stretched over a gap up to this length; a longer one is silent.
_STRETCHED_S = 0.12
# Spans that are nearer than this are solved together.
_TOGETHER_S = 0.3
_SPELLINGS = {name.lower(): name for name in PHONES}

Tier = Literal["words", "phones", "directions"]
# A forced phone or a direction: its name, start, end, and the direction's value and curve.
Sounding = tuple[str, float, float, float | None, tuple[float, ...]]
Pronounce = Callable[[str, str], Sequence[str]]


class Wanted(NamedTuple):
    """A direction without its times, as in `track.Direction`."""

    name: str
    value: float | None = None
    curve: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A word, a phone, or directions for a span, as a strip shows it.

    Attributes:
        tier: "words", "phones" or "directions".
        key: Names it among the strips of its take; "" for one that the animator added.
        label: The word, the phone's name, or what the directions are called.
        start_s, end_s: Its times in the sound that was heard.
        word: The key of the word that a phone belongs to, or "".
        was: Label, start and end when the strip was written; None for an added one.
        follows: It was not edited itself, but moves with what was ("carried"), or gave room to it ("trimmed").
        strip: Its strip; None if it has none yet.
        directions: What the animator wants of a word or a span.
    """

    tier: Tier
    key: str
    label: str
    start_s: float
    end_s: float
    word: str = ""
    confidence: float = 1.0
    forced: bool = True
    was: tuple[str, float, float] | None = None
    follows: Literal["", "trimmed", "carried"] = ""
    strip: Any = field(default=None, compare=False)
    directions: tuple[Wanted, ...] = ()

    @property
    def is_moved(self) -> bool:
        """Whether its times are not those that were written."""
        return self.was is None or max(abs(self.start_s - self.was[1]), abs(self.end_s - self.was[2])) > _SAME_S

    @property
    def is_shifted(self) -> bool:
        """Whether it was moved as a whole."""
        if self.was is None or not self.is_moved:
            return False
        return abs((self.end_s - self.start_s) - (self.was[2] - self.was[1])) <= _SAME_S

    @property
    def is_edited(self) -> bool:
        """Whether it was added, moved or renamed, or follows what was."""
        return bool(self.follows) or self.is_moved or self.was is None or self.label != self.was[0]

    @property
    def rank(self) -> int:
        """How much the animator has decided about it."""
        return ("trimmed", "carried").index(self.follows) + 1 if self.follows else 3 * self.is_edited

    def carried(self, **times: float) -> Shown:
        """The same with other times, which an edit beside it or above it brings."""
        return replace(self, confidence=1.0, forced=True, follows="carried", **times)  # type: ignore[arg-type]

    def trimmed(self, **times: float) -> Shown:
        """The same after it has given room to another; in the rest of it the ear may still count."""
        follows = "trimmed" if self.rank < 2 else self.follows
        return replace(self, follows=follows, **times)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The words, phones and directions after the edits, in the order of their times, and what is wrong with them.

    What `directions` want counts within the sound alone, from 0 to `end_s`.
    """

    words: tuple[Shown, ...] = ()
    phones: tuple[Shown, ...] = ()
    directions: tuple[Shown, ...] = ()
    problems: tuple[Text, ...] = ()
    end_s: float = float("inf")

    def track(self, language: str = "") -> Track:
        """The track that they make.

        Raises:
            UserError: The first problem.
        """
        if self.problems:
            raise UserError.of(self.problems[0])
        return Track(
            words=tuple(Word(w.label, w.start_s, w.end_s, w.confidence) for w in self.words),
            phones=tuple(Phone(p.label, p.start_s, p.end_s, p.confidence, p.forced) for p in self.phones),
            directions=tuple(sorted(self._directions(), key=_by_time)),
            language=language,
        )

    def _directions(self) -> Iterator[Direction]:
        for item in (*self.words, *self.directions):
            for name, value, curve in item.directions:
                direction = Direction(name, item.start_s, item.end_s, value, curve).within(0.0, self.end_s)
                if direction is not None:
                    yield direction


def settled(
    shown: Sequence[Shown], *, end_s: float, frame_s: float, pronounce: Pronounce | None = None, language: str = ""
) -> Settled:
    """Settle what the strips of a take say.

    Phones follow a word that was moved or stretched, unless they were edited themselves. What touched an edge that was
    dragged moves along, what lies in the way gives room, and a long gap that opens is silent. A renamed or added word
    gets the phones of its text. Directions that begin or end with a word do so still after it was moved.

    Args:
        shown: All of them.
        end_s: Where the sound ends.
        frame_s: Length of a frame of the sequencer, by which strips may overlap without meaning it.
        pronounce: Phones of a text in a language.
        language: Of the words.
    """
    problems: list[Text] = []
    words, phones = ([_inside(item, end_s, problems) for item in shown if item.tier == tier] for tier in SPOKEN)
    phones = [_spelled(phone, problems) for phone in phones]
    if not problems:
        words = _apart(_touching(words), frame_s, problems)
        phones = _carried(phones, words)
        if pronounce is not None:
            phones = _respoken(phones, words, pronounce, language, problems)
        phones = _apart(_gaps_filled(_touching(phones)), frame_s, problems)
    words, phones = _in_order(words), _in_order(phones)
    words = [replace(w, confidence=1.0) if w.rank > 1 else w for w in words]
    phones = [replace(p, forced=True, confidence=1.0) if p.rank > 1 else p for p in phones]
    directions = _in_order(_with_words([item for item in shown if item.tier == "directions"], words))
    return Settled(
        words=tuple(words), phones=tuple(phones), directions=tuple(directions), problems=tuple(problems), end_s=end_s
    )


def shared_out(track: Track) -> tuple[list[list[Wanted]], dict[tuple[float, float], list[Wanted]]]:
    """The directions of each word of a track, and the others by their start and end.

    A word has those of its own span, and one of each name.
    """
    own: list[list[Wanted]] = [[] for _ in track.words]
    starts_s = [word.start_s for word in track.words]
    others: dict[tuple[float, float], list[Wanted]] = {}
    for name, start_s, end_s, *said in track.directions:
        at = bisect_left(starts_s, start_s - _TOUCH_S)
        is_words = at < len(own) and max(abs(start_s - starts_s[at]), abs(end_s - track.words[at].end_s)) < _TOUCH_S
        given = own[at] if is_words else []
        if not is_words or name in (wanted.name for wanted in given):
            given = others.setdefault((start_s, end_s), [])
        given.append(Wanted(name, *said))  # type: ignore[arg-type]
    return own, others


def _by_time(direction: Direction) -> tuple[float, float, str]:
    return direction.start_s, direction.end_s, direction.name


def changed_spans(old: Track, new: Track) -> list[tuple[float, float]]:
    """Where the mouth of two tracks differs, as spans in seconds."""
    times = sorted((start_s, end_s) for _, start_s, end_s, *_ in mouth_of(old) ^ mouth_of(new))
    spans: list[tuple[float, float]] = []
    for start_s, end_s in times:
        if spans and start_s - spans[-1][1] < _TOGETHER_S:
            spans[-1] = spans[-1][0], max(spans[-1][1], end_s)
        else:
            spans.append((start_s, end_s))
    return spans


SPOKEN: tuple[Tier, Tier] = ("words", "phones")
TIERS: tuple[Tier, Tier, Tier] = (*SPOKEN, "directions")


def mouth_of(track: Track) -> frozenset[Sounding]:
    """What the mouth follows: forced phones and directions."""
    phones: set[Sounding] = {
        (p.name, round(p.start_s, 3), round(p.end_s, 3), None, ()) for p in track.phones if p.forced
    }
    directed: set[Sounding] = {
        (d.name, round(d.start_s, 3), round(d.end_s, 3), d.value, d.curve)
        for d in track.directions
        if d.name not in OF_THE_UPPER_FACE
    }
    return frozenset(phones | directed)


def _inside(item: Shown, end_s: float, problems: list[Text]) -> Shown:
    """Cut off what lies outside the sound; a name without letters is a problem."""
    if not item.label.strip():
        text = "A strip at {time:.2f} s has no text. Write its word or its sound there, or delete it."
        problems.append(Text(text, time=item.start_s))
    start_s, stop_s = max(0.0, item.start_s), min(item.end_s, end_s)
    if stop_s - start_s <= 0:
        text = '"{label}" lies outside the sound, at {time:.2f} s. Move it back, or delete it.'
        problems.append(Text(text, label=item.label, time=item.start_s))
        return item
    if not item.is_moved or (start_s, stop_s) == (item.start_s, item.end_s):
        return item
    return replace(item, start_s=start_s, end_s=stop_s)


def _spelled(phone: Shown, problems: list[Text]) -> Shown:
    """A phone in the spelling that the model knows: "ah0" is AH."""
    name = _SPELLINGS.get(phone.label.strip().rstrip("012").lower())
    if name is None:
        if phone.label.strip():
            text = '"{label}" at {time:.2f} s is no sound. Known are {known}.'
            problems.append(Text(text, label=phone.label, time=phone.start_s, known=" ".join(PHONES)))
        return phone
    return replace(phone, label=name)


def _touching(items: list[Shown]) -> list[Shown]:
    """Move the edges that touched an edge that was dragged, unless something else has come between."""
    added = [item for item in items if item.was is None]
    items = sorted((item for item in items if item.was is not None), key=lambda item: item.was[1:])  # type: ignore[index]
    for i in range(len(items) - 1):
        left, right = items[i], items[i + 1]
        assert left.was is not None and right.was is not None
        if abs(left.was[2] - right.was[1]) > _TOUCH_S:
            continue
        left_moved = abs(left.end_s - left.was[2]) > _SAME_S
        right_moved = abs(right.start_s - right.was[1]) > _SAME_S
        if left_moved == right_moved:
            continue
        mover, other = (left, right) if left_moved else (right, left)
        if mover.is_shifted and mover.tier == "words":
            continue  # a pause may open beside a word
        edge_s = left.end_s if left_moved else right.start_s
        opens_s = right.start_s - left.end_s
        room_s = right.end_s - edge_s if left_moved else edge_s - left.start_s
        if room_s >= SHORTEST_S and opens_s <= _STRETCHED_S and not other.is_moved:
            changed = other.carried if opens_s > _TOUCH_S else other.trimmed
            items[i + left_moved] = changed(**{"start_s" if left_moved else "end_s": edge_s})
    return items + added


def _apart(items: list[Shown], frame_s: float, problems: list[Text]) -> list[Shown]:
    """Let what was not edited give room to what was; where that is impossible is a problem."""
    items, i = _in_order(items), 0
    while i + 1 < len(items):
        left, right = items[i], items[i + 1]
        if left.end_s <= right.start_s + _ROUNDING_S:
            i += 1
            continue
        pair = _separated(left, right, frame_s)
        if pair is None:
            text = '"{one}" and "{other}" overlap at {time:.2f} s. Move or delete one of them.'
            problems.append(Text(text, one=left.label, other=right.label, time=right.start_s))
            i += 1
            continue
        items[i : i + 2] = pair
        items, i = _in_order(items), max(0, i - 1)
    return items


def _separated(left: Shown, right: Shown, frame_s: float) -> list[Shown] | None:
    """Two that overlap, apart from each other; None if neither can give room."""
    if left.rank == right.rank:
        if min(left.end_s, right.end_s) - right.start_s > frame_s + _ROUNDING_S or left.start_s == right.start_s:
            return None
        middle_s = (right.start_s + min(left.end_s, right.end_s)) / 2
        return [left.trimmed(end_s=middle_s), right.trimmed(start_s=middle_s)]
    winner, loser = (left, right) if left.rank > right.rank else (right, left)
    before_s, after_s = winner.start_s - loser.start_s, loser.end_s - winner.end_s
    if max(before_s, after_s) >= SHORTEST_S - _ROUNDING_S:
        room = {"end_s": winner.start_s} if before_s >= after_s else {"start_s": winner.end_s}
        return [winner, loser.trimmed(**room)]
    return [winner] if _may_go(loser, winner) else None


def _may_go(loser: Shown, winner: Shown) -> bool:
    """Whether a sound may vanish below another: silence, or what the ear heard where the text has a word."""
    return loser.tier == "phones" and (loser.label == SILENCE or not (loser.forced or loser.word) and bool(winner.word))


def _carried(phones: list[Shown], words: list[Shown]) -> list[Shown]:
    """The phones after their words have moved; those of a deleted word go, and the ear's own count there."""
    by_key = {word.key: word for word in words}
    carried = []
    for phone in phones:
        word = by_key.get(phone.word)
        if phone.is_edited or not phone.word:
            carried.append(phone)
        elif word is not None:
            carried.append(_in_word(phone, word) if word.is_moved and word.was is not None else phone)
    return carried


def _with_words(directions: list[Shown], words: list[Shown]) -> list[Shown]:
    """Directions after words have moved: ends that nobody has dragged stay on the edges of words."""
    moved = [word for word in words if word.was is not None and word.is_moved]
    starts_s = {round(word.was[1], 3): word.start_s for word in moved if word.was is not None}
    ends_s = {round(word.was[2], 3): word.end_s for word in moved if word.was is not None}
    followed = []
    for item in directions:
        start_s = starts_s.get(round(item.start_s, 3), item.start_s)
        end_s = ends_s.get(round(item.end_s, 3), item.end_s)
        changes = (start_s, end_s) != (item.start_s, item.end_s) and item.was is not None and not item.is_moved
        followed.append(item.carried(start_s=start_s, end_s=end_s) if changes and start_s < end_s else item)
    return followed


def _in_word(phone: Shown, word: Shown) -> Shown:
    assert word.was is not None
    _, old_s, old_end_s = word.was
    scale = (word.end_s - word.start_s) / (old_end_s - old_s)
    first_s, last_s = max(phone.start_s, old_s) - old_s, min(phone.end_s, old_end_s) - old_s
    if last_s <= first_s:
        return phone
    return phone.carried(start_s=word.start_s + scale * first_s, end_s=word.start_s + scale * last_s)


def _respoken(
    phones: list[Shown], words: list[Shown], pronounce: Pronounce, language: str, problems: list[Text]
) -> list[Shown]:
    """Give renamed and added words the phones of their text, unless their phones were edited, too."""
    for word in words:
        if word.was is not None and word.label == word.was[0]:
            continue
        own = [phone for phone in phones if phone.word == word.key]
        if any(phone.rank == 3 for phone in own):
            continue
        try:
            spoken = spread(pronounce(word.label, language), word.start_s, word.end_s)
        except UserError as error:
            problems.append(error.text)
            continue
        if spoken:
            phones = [phone for phone in phones if phone.word != word.key]
            phones += [
                Shown(tier="phones", key="", label=p.name, start_s=p.start_s, end_s=p.end_s, word=word.key)
                for p in spoken
            ]
    return phones


def _gaps_filled(phones: list[Shown]) -> list[Shown]:
    """Fill the gaps that edits have opened with silence; elsewhere in a gap the ear's own phones count."""
    filled: list[Shown] = []
    for phone in _in_order(phones):
        left = filled[-1] if filled else None
        if left is not None and left.was is not None and phone.was is not None and (left.is_moved or phone.is_moved):
            gap_s, old_s = phone.start_s - left.end_s, phone.was[1] - left.was[2]
            if gap_s >= SHORTEST_S and gap_s > max(0.0, old_s) + _TOUCH_S:
                filled.append(Shown(tier="phones", key="", label=SILENCE, start_s=left.end_s, end_s=phone.start_s))
        filled.append(phone)
    return filled


def _in_order(items: Sequence[Shown]) -> list[Shown]:
    return sorted(items, key=lambda item: (item.start_s, item.end_s))
