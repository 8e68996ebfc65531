# SPDX-License-Identifier: GPL-3.0-or-later
"""From what the ear heard and a transcript to a `Track`. Read `track_of` first.

A word whose phones fit is trusted: the text says which phones are there, and those that the ear heard otherwise are
forced. Where no word fits, the phones are those that the ear heard, so a wrong text costs nothing there.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import Text
from ..phones import SILENCE, Phones, PhoneSpan
from . import align
from .directions import meant
from .language import guess_language
from .pronunciation import LANGUAGES, known_language, pronounce
from .track import MAX_LABEL, Direction, Phone, Track, Word
from .transcript import SUFFIXES, Mark, Transcript, load_transcript, parse_transcript

TRUST = 0.25
"""Confidence from which a word is there."""
SURE = 0.5
"""Probability from which the ear heard a phone by itself. Its sound shows the mouth better than its name does."""
_FEW = 0.3  # of the words: so few found words suggest another recording's text
# Short words fit by chance: of the words before and behind them in the text, this share must be trusted too, or those
# that follow each other must have so many phones.
_NEIGHBOURS, _SUPPORT, _ENOUGH_PHONES = 3, 0.3, 8
# A text with so many times the phones that were heard is searched for runs of so many phones. What is then aligned has
# so many times the phones that were heard.
_FAR_LONGER, _RUN, _PART = 3, 4, 3
_SHORTEST_HEARD_S = 0.03
# Time of a letter, in words that are put where something else was heard.
_FASTEST_LETTER_S, _SLOWEST_LETTER_S = 0.02, 0.25
_REST_S = 0.3  # of `[rest]` without a value
_SHORTEST_REST_S = 0.1  # where the next word follows at once


class Tracked(NamedTuple):
    """A track, and what the user should know of it."""

    track: Track
    notes: tuple[Text, ...]


def read_transcript(source: str | os.PathLike[str] | Transcript) -> Transcript:
    """A transcript as it is, a file, or the text itself, as `named_file` tells them apart.

    Raises:
        UserError: As `load_transcript` and `parse_transcript`.
    """
    if isinstance(source, Transcript):
        return source
    file = named_file(source) if isinstance(source, str) else Path(source)
    return parse_transcript(str(source)) if file is None else load_transcript(file)


def named_file(text: str) -> Path | None:
    """The file that a text names: one line, and there is that file, or it ends as transcripts' files do; else None."""
    name = text.strip()
    if not name or "\n" in name or len(name) >= 1000:
        return None
    try:
        is_named_so = name.lower().endswith(tuple(suffix.lower() for suffix in SUFFIXES))
        return Path(name) if is_named_so or Path(name).is_file() else None
    except (OSError, ValueError):
        return None


def track_of(
    heard: Phones,
    transcript: Transcript,
    language: str = "",
    progress: Callable[[float], None] | None = None,
) -> Tracked:
    """Align a transcript with what was heard.

    Args:
        heard: What the ear heard, on the recording's time.
        transcript: What is said.
        language: Of the text, such as "de"; "" guesses it.
        progress: Called with the fraction done.

    Raises:
        UserError: There is no such language.
    """
    words = transcript.words
    language = known_language(language) if language else guess_language(word.text for word in words)
    said = pronounce([word.said if language == "en" else _with_numbers(word.text) for word in words], language)
    known = [i for i, phones in enumerate(said) if phones]
    notes = list(transcript.notes)
    spans = heard.spans()
    n_expected = float(len(words))
    if all(line.start_s is None for line in transcript.lines):
        first, stop = _likely_part([said[i] for i in known], spans)
        if stop - first < len(known):
            known, n_expected = known[first:stop], (stop - first) / _PART
    lines = _lines(transcript, known, heard, notes)
    found: list[align.Found | None] = [None] * len(words)
    for i, each in zip(known, align.align(heard, [said[i] for i in known], lines, progress), strict=True):
        found[i] = each
    found = _supported(found)
    n_found = sum(each is not None and each.confidence >= TRUST for each in found)
    if n_found < _FEW * n_expected:
        notes.append(
            Text(
                "{found} of {n} words of the transcript were heard; is it the text of this recording, and is it "
                "{language}?",
                found=n_found,
                n=len(words),
                language=LANGUAGES[language],
            )
        )
    elif n_found < len(words):
        notes.append(Text("{n} words of the transcript were not heard.", n=len(words) - n_found))
    placed = _placed([word.text[:MAX_LABEL] for word in words], found, spans)
    phones = [
        Phone(name, start_s, end_s, min(1.0, share), forced=share < SURE)
        for i, each in enumerate(found)
        if each is not None and each.confidence >= TRUST
        for name, start_s, end_s, share in zip(said[i], each.edges_s[:-1], each.edges_s[1:], each.shares, strict=True)
    ]
    phones += _outside(spans, [each for each in found if each is not None and each.confidence >= TRUST])
    track = Track(
        words=tuple(word for word in placed if word is not None),
        phones=tuple(sorted(phones, key=lambda phone: phone.start_s)),
        directions=tuple(_directions(transcript.marks, placed)),
        language=language,
    )
    return Tracked(track, tuple(notes))


def _with_numbers(word: str) -> str:
    """A number in any language as the numbers that the lexicon has: "2,024" is 2 1000 24."""
    if not any(letter.isdecimal() for letter in word):
        return word
    return " ".join(
        " ".join(_number_parts(part)) if part.isdecimal() else part
        for part in re.findall(r"\d+|[^\W\d_]+", re.sub(r"(?<=\d)[.,\u202f](?=\d{3}(?!\d))", "", word))
    )


def _number_parts(digits: str) -> list[str]:
    n = int(digits)
    if len(digits) > 6 or (digits[0] == "0" and n):
        return [str(int(digit)) for digit in digits]
    if n <= 100:
        return [str(n)]
    unit = 1000 if n >= 1000 else 100
    many, rest = divmod(n, unit)
    thousands = [*(_number_parts(str(many)) if many > 1 else []), "1000"]
    return ([str(100 * many)] if unit == 100 else thousands) + (_number_parts(str(rest)) if rest else [])


def _likely_part(words: Sequence[Sequence[str]], spans: Sequence[PhoneSpan]) -> tuple[int, int]:
    """Of a text that is far longer than the recording, such as a whole script: the words [first, stop) around the
    passage whose runs of phones were heard. The rarer a run is in the text, the more it says."""
    heard = [span.name for span in spans if span.name != SILENCE]
    word_of = np.repeat(np.arange(len(words)), [len(word) for word in words])
    if len(word_of) < _FAR_LONGER * (len(heard) + _RUN):
        return 0, len(words)
    text = [phone for word in words for phone in word]
    places: dict[tuple[str, ...], list[int]] = {}
    for at in range(len(text) - _RUN + 1):
        places.setdefault(tuple(text[at : at + _RUN]), []).append(at)
    votes = np.zeros(len(text) + 1)
    for at in range(len(heard) - _RUN + 1):
        found = places.get(tuple(heard[at : at + _RUN]), [])
        votes[found] += 1 / max(1, len(found))
    total = np.concatenate([[0], np.cumsum(votes)])
    length = min(len(heard) + _RUN, len(text))
    best = int(np.argmax(total[length:] - total[:-length]))
    first, stop = max(0, best - length), min(len(text), best + (_PART - 1) * length)
    return int(word_of[first]), int(word_of[stop - 1]) + 1


def _lines(transcript: Transcript, known: Sequence[int], heard: Phones, notes: list[Text]) -> list[align.Line]:
    """The lines that have times, with their words counted among those of which the sound is known."""
    end_s = heard.first_s + len(heard.posteriors_LP) / heard.rate_hz
    lines, outside, at = [], 0, 0
    for line in transcript.lines:
        first, stop = (int(np.searchsorted(known, i)) for i in (at, at + len(line.words)))
        at += len(line.words)
        if line.start_s is not None and line.end_s is not None and stop > first:
            lines.append(align.Line(first, stop, line.start_s, line.end_s))
            outside += line.start_s >= end_s
    if outside:
        notes.append(Text("{n} lines of the transcript begin after the recording has ended.", n=outside))
    return [] if 2 * outside > len(lines) else lines


def _supported(found: Sequence[align.Found | None]) -> list[align.Found | None]:
    """What was found, without words that fit by chance: trusted ones, of whose neighbours in the text few are."""
    trusted = [each is not None and each.confidence >= TRUST for each in found]
    before = np.concatenate([[0], np.cumsum(trusted)])
    at = np.arange(len(found))
    first, stop = np.maximum(at - _NEIGHBOURS, 0), np.minimum(at + _NEIGHBOURS + 1, len(found))
    alone = np.array(trusted) & (before[stop] - before[first] - 1 < _SUPPORT * (stop - first - 1))
    for run in np.split(at, np.flatnonzero(~np.array(trusted))):
        if sum(len(each.shares) for i in run if trusted[i] and (each := found[i])) >= _ENOUGH_PHONES:
            alone[run] = False
    return [None if is_alone else each for each, is_alone in zip(found, alone, strict=True)]


def _placed(texts: Sequence[str], found: Sequence[align.Found | None], spans: Sequence[PhoneSpan]) -> list[Word | None]:
    """The words with their times. Those that were not found share the speech between their neighbours, with confidence
    0, if they can be said in that time; else they are None."""
    words: list[Word | None] = [
        None if each is None else Word(text, each.edges_s[0], each.edges_s[-1], each.confidence)
        for text, each in zip(texts, found, strict=True)
    ]
    i = 0
    while i < len(words):
        if words[i] is not None:
            i += 1
            continue
        stop = i
        while stop < len(words) and words[stop] is None:
            stop += 1
        before, after = words[i - 1] if i else None, words[stop] if stop < len(words) else None
        start_s = before.end_s if before else 0.0
        end_s = after.start_s if after else spans[-1].end_s if spans else 0.0
        speech = [s for s in spans if s.name != SILENCE and s.end_s > start_s and s.start_s < end_s]
        if speech:
            start_s, end_s = max(start_s, speech[0].start_s), min(end_s, speech[-1].end_s)
            lengths = np.cumsum([0, *(len(text) + 1 for text in texts[i:stop])])
            edges = (start_s + (end_s - start_s) * lengths / lengths[-1]).tolist()
            if _FASTEST_LETTER_S <= (end_s - start_s) / lengths[-1] <= _SLOWEST_LETTER_S:
                words[i:stop] = [Word(texts[i + k], edges[k], edges[k + 1], 0.0) for k in range(stop - i)]
        i = stop
    return words


def _heard(spans: Sequence[PhoneSpan]) -> list[Phone]:
    return [
        Phone(span.name, max(0.0, span.start_s), span.end_s, min(1.0, span.confidence), forced=False)
        for span in spans
        if span.name != SILENCE and span.end_s > 0
    ]


def _outside(spans: Sequence[PhoneSpan], trusted: Sequence[align.Found]) -> list[Phone]:
    """What was heard where no trusted word is."""
    phones: list[Phone] = []
    k = 0
    for phone in _heard(spans):
        start_s = phone.start_s
        while k < len(trusted) and trusted[k].edges_s[-1] <= start_s:
            k += 1
        for each in trusted[k:]:
            if each.edges_s[0] >= phone.end_s:
                break
            if each.edges_s[0] - start_s >= _SHORTEST_HEARD_S:
                phones.append(phone._replace(start_s=start_s, end_s=each.edges_s[0]))
            start_s = max(start_s, each.edges_s[-1])
        if phone.end_s - start_s >= _SHORTEST_HEARD_S:
            phones.append(phone._replace(start_s=start_s))
    return phones


def _directions(marks: Sequence[Mark], placed: Sequence[Word | None]) -> list[Direction]:
    """The marks with times, by the words that were placed."""
    directions = []
    for mark in marks:
        before = next((word for word in reversed(placed[: mark.first]) if word is not None), None)
        after = next((word for word in placed[mark.first :] if word is not None), None)
        inside = [word for word in placed[mark.first : mark.stop] if word is not None]
        if inside:
            start_s, end_s = inside[0].start_s, inside[-1].end_s
            wanted = meant(mark.name, mark.value)
            directions += [Direction(name, start_s, end_s, value) for name, value in wanted]
        elif mark.first == mark.stop and (before is not None or after is not None):
            length_s = mark.value if mark.value and mark.value > 0 else _REST_S
            if before is not None:
                start_s = before.end_s
                room_s = math.inf if after is None else after.start_s - start_s
                end_s = start_s + min(length_s, max(room_s, _SHORTEST_REST_S))
            else:
                assert after is not None
                start_s, end_s = max(0.0, after.start_s - length_s), after.start_s
            directions.append(Direction(mark.name, start_s, end_s))
    return directions
