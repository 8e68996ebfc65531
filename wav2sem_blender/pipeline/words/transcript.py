# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said, as text: a field or a file becomes lines of words, with times and speakers where the file has them.

Files: plain text, subtitles (.srt, .vtt, .ass, .ssa), Praat's .TextGrid, labels with times (.lab, Audacity's .txt).
Left out: stage directions in round or square brackets, tags, emoji and other signs, and the names of speakers. Markup
becomes `Mark`s: `*word*`, `[rest 0.5]`, `{clear}…{/}`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import Text, UserError
from .directions import SPANS, STRESSED, SWITCHES
from .spoken_english import said_in_english
from .track_files import read_text, read_text_grid, word_tier

SUFFIXES = (".txt", ".srt", ".vtt", ".ass", ".ssa", ".TextGrid", ".lab")
MAX_FILE_BYTES = 20_000_000
MAX_WORDS = 100_000
_LONGEST_WORD = 60  # letters; what is longer is no word


class SpokenWord(NamedTuple):
    """A word as it is written, and as it is said: "42" and "forty two"."""

    text: str
    said: str


class Line(NamedTuple):
    """Words that belong together, from `start_s` to `end_s` if the file says so."""

    words: tuple[SpokenWord, ...]
    start_s: float | None = None
    end_s: float | None = None
    speaker: str = ""


class Mark(NamedTuple):
    """Markup on words [first, stop) of the whole transcript. If both are equal, it stands before the word `first`."""

    name: str
    first: int
    stop: int
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What is said.

    Attributes:
        lines: In the order in which they are said.
        marks: From the markup.
        notes: What was left out that the user may miss.
    """

    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()
    notes: tuple[Text, ...] = ()

    @property
    def words(self) -> tuple[SpokenWord, ...]:
        """All words."""
        return tuple(word for line in self.lines for word in line.words)

    @property
    def text(self) -> str:
        """All words as they are written."""
        return " ".join(word.text for word in self.words)


class _Raw(NamedTuple):
    """A line before its words are found."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    speaker: str = ""


def load_transcript(path: Path, language: str = "") -> Transcript:
    """Read a file.

    Args:
        path: Its suffix says what it is; what is unknown is read as plain text.
        language: Of the text, such as "de"; numbers and abbreviations are read out as in English if it is "en" or "".

    Raises:
        UserError: The file is missing, empty, too large, no text, or damaged; the message names it.
    """
    text = read_text(path, MAX_FILE_BYTES)
    try:
        return parse_transcript(text, path.suffix, language)
    except UserError as error:
        raise UserError("{file}: {reason}", file=path.name, reason=error.text) from error


def parse_transcript(text: str, suffix: str = ".txt", language: str = "") -> Transcript:
    """The transcript in a text, which is written as in a file with this suffix.

    Raises:
        UserError: There are no words, too many, or the text is not what the suffix says.
    """
    if len(text) > MAX_FILE_BYTES:
        raise UserError("The transcript has more than {most} letters.", most=MAX_FILE_BYTES)
    if "\0" in text:
        raise UserError("The transcript is no text.")
    if text.lstrip().startswith(("{\\rtf", "%PDF-")):
        raise UserError("this is a document, not its text; save it as plain text.")
    suffix = suffix.lower()
    if suffix not in _FORMATS:
        suffix = _format_of(text)
    if suffix == ".textgrid":
        raws = _text_grid_lines(text)
    elif suffix in (".srt", ".vtt"):
        raws = list(_subtitles(text))
    elif suffix in (".ass", ".ssa"):
        raws = list(_ass_lines(text))
    else:
        raws = _labels(text) or [_Raw(line) for line in text.splitlines() if line.strip()]
    return _Reader(language, _speakers(raws)).read(raws)


# Formats.

_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_FORMATS = (".textgrid", ".srt", ".vtt", ".ass", ".ssa")


def _format_of(text: str) -> str:
    """The suffix for a text that may be pasted subtitles; "" for plain text and labels."""
    start = text[:400]
    if "ooTextFile" in start and "TextGrid" in start:
        return ".textgrid"
    if re.search(r"(?mi)^\[Script Info\]", start):
        return ".ass"
    return ".srt" if re.search(rf"(?m)^[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}", text) else ""


_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}")


def _subtitles(text: str) -> Iterator[_Raw]:
    """SubRip and WebVTT: a line with times, then text up to an empty line."""
    times: tuple[float, float] | None = None
    kept: list[str] = []
    n_found = 0
    for line in [*text.splitlines(), ""]:
        timing = _TIMING.match(line)
        if timing or not line.strip():
            if times and kept:
                yield from _subtitle(kept, *times)
            kept = []
            times = None
        if timing:
            numbers = timing.groups()
            times = _seconds(*numbers[:4]), _seconds(*numbers[4:])
            n_found += 1
        elif times:
            kept.append(line)
    if not n_found:
        raise UserError("these are no subtitles: there is no line with times such as 00:00:01,000 --> 00:00:02,500.")


def _subtitle(kept: list[str], start_s: float, end_s: float) -> Iterator[_Raw]:
    """One subtitle; a line that begins with a dash is another speaker's."""
    text = "\n".join(kept)
    speaker = re.search(r"<v(?:\.\S*)?\s+([^>]+)>", text)
    yield _Raw(
        re.sub(r"(?m)^\s*[-–—]\s*", "", re.sub(r"\{\\[^}]*\}", "", text)),
        start_s,
        max(start_s, end_s),
        speaker.group(1).strip() if speaker else "",
    )


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction) / 10 ** len(fraction)


def _ass_lines(text: str) -> Iterator[_Raw]:
    """SubStation Alpha: the fields of each `Dialogue:` line, in the order that `Format:` gives."""
    fields = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    n_found = 0
    found = []
    in_events = False
    for line in text.splitlines():
        if line.startswith("["):
            in_events = line.strip().lower() == "[events]"
        elif in_events and line.lower().startswith("format:"):
            fields = [name.strip().lower() for name in line.partition(":")[2].split(",")]
        elif line.lower().startswith("dialogue:"):
            values = dict(zip(fields, line.partition(":")[2].split(",", len(fields) - 1), strict=False))
            times = [re.fullmatch(_TIME, values.get(name, "").strip()) for name in ("start", "end")]
            if times[0] and times[1]:
                start_s, end_s = (_seconds(*time.groups()) for time in times if time)
                content = re.sub(r"\{[^}]*\\[^}]*\}", "", values.get("text", ""))
                content = content.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
                found.append(_Raw(content, start_s, max(start_s, end_s), values.get("name", "").strip()))
                n_found += 1
    if not n_found:
        raise UserError('these are no subtitles: there is no line "Dialogue:" with times.')
    yield from sorted(found, key=lambda raw: (raw.start_s, raw.end_s))


def _text_grid_lines(text: str) -> list[_Raw]:
    tiers = read_text_grid(text)
    words = word_tier(tiers)
    if words is None:
        raise UserError('the TextGrid has no tier "words".')
    return [_Raw(word.text, word.start_s, word.end_s) for word in words if word.text]


_HTK_UNITS_PER_S = 1e7
_LABEL = re.compile(r"^\s*(\d+(?:[.,]\d+)?)\s+(\d+(?:[.,]\d+)?)(?:\s+(.*))?$")


def _labels(text: str) -> list[_Raw] | None:
    """Lines "start end label" of Audacity (seconds) and HTK (100 ns); None if the text is something else."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\\")]
    matches = [_LABEL.match(line) for line in lines]
    if not matches or not all(matches):
        return None
    rows = [match.groups() for match in matches if match]
    times = [(float(start.replace(",", ".")), float(end.replace(",", "."))) for start, end, _ in rows]
    if any(end < start for start, end in times):
        return None
    in_htk_units = all("." not in start + end and "," not in start + end for start, end, _ in rows)
    unit = _HTK_UNITS_PER_S if in_htk_units and max(end for _, end in times) >= 1e5 else 1.0
    silences = ("sil", "sp", "pau", "#", "")
    return [
        _Raw(label or "", start / unit, end / unit)
        for (start, end), (_, _, label) in zip(times, rows, strict=True)
        if (label or "").strip().lower() not in silences
    ]


# Words.

_SPEAKER = re.compile(r"^\s*[\[(]?([^\W\d_][^:\[\]()\n]{0,39}?)(?:[\])]|\s*\([^()\n]{0,80}\))?\s*:(?=\s|$)")
_MARKUP = re.compile(
    r"""
    (?P<tag><[^<>\n]{0,200}>)
    | (?P<stress>\*{1,3}(?=\S)|(?<=\S)\*{1,3})
    | \{\s*(?P<close>/)[^{}]{0,40}\}
    | \{(?P<open>[^{}]{0,200})\}
    | \[(?P<square>[^\[\]]{0,1000})\]
    | \((?P<round>[^()]{0,1000})\)
    """,
    re.VERBOSE,
)
_INSIDE_WORDS = "'’-‐‑·"
_NUMBER = re.compile(r"[$€£¥]?\d[\d.,:]{0,40}(?:st|nd|rd|th)?\b(?:\s?[%€$£°])?|[$€£¥]?\d[\d.,:]{0,40}[%€$£°]?")


def _speakers(raws: Iterable[_Raw]) -> frozenset[str]:
    """Names before a colon that are speakers: written in capitals, or before more than one line."""
    names = Counter(match.group(1).strip() for raw in raws if (match := _SPEAKER.match(raw.text)))
    return frozenset(
        name
        for name, n in names.items()
        if (name.isupper() and len(name) > 1) or (n > 1 and name[0].isupper() and len(name.split()) <= 3)
    )


class _Reader:
    """Collects words and marks."""

    def __init__(self, language: str, speakers: frozenset[str]) -> None:
        self.language, self.speakers = language, speakers
        self.n_words = 0
        self.marks: list[Mark] = []
        self.open: list[tuple[str, int, float | None]] = []
        self.unknown: list[str] = []

    def read(self, raws: Iterable[_Raw]) -> Transcript:
        lines = []
        for raw in raws:
            speaker, text = raw.speaker, raw.text
            named = _SPEAKER.match(text)
            if named and named.group(1).strip() in self.speakers:
                speaker, text = named.group(1).strip(), text[named.end() :]
            words = tuple(self._words(text))
            while self.open and self.open[-1][0] == STRESSED:  # a lone asterisk
                self.open.pop()
            if words:
                lines.append(Line(words, raw.start_s, raw.end_s, speaker))
        while self.open:
            self._close()
        if not self.n_words:
            raise UserError("The transcript has no words.")
        notes = []
        if self.unknown:
            notes.append(
                Text(
                    "{names}: no direction that is known, and left out; known are {known}.",
                    names=", ".join(dict.fromkeys(self.unknown))[:200],
                    known=", ".join((*SPANS, *SWITCHES)),
                )
            )
        marks = tuple(sorted(self.marks, key=lambda mark: (mark.first, mark.stop)))
        return Transcript(lines=tuple(lines), marks=marks, notes=tuple(notes))

    def _words(self, text: str) -> Iterator[SpokenWord]:
        text = unicodedata.normalize("NFC", text)
        at = 0
        for part in _MARKUP.finditer(text):
            yield from self._plain(text[at : part.start()])
            self._mark(part)
            at = part.end()
        yield from self._plain(text[at:])

    def _mark(self, part: re.Match[str]) -> None:
        kind, content = part.lastgroup, part.group(part.lastgroup or 0)
        if kind == "stress":
            if self.open and self.open[-1][0] == STRESSED:
                self._close()
            else:
                self.open.append((STRESSED, self.n_words, None))
        elif kind == "close":
            if self.open:
                self._close()
        elif kind == "open":
            name, value, _ = _named(content)
            if name in SPANS:
                self.open.append((name, self.n_words, value))
            elif name:
                self.unknown.append(f"{{{content.strip()}}}")
                self.open.append(("", self.n_words, None))
        elif kind == "square":
            name, value, is_alone = _named(content)
            if name in SWITCHES and is_alone:
                self.marks.append(Mark(name, self.n_words, self.n_words, value))

    def _close(self) -> None:
        name, first, value = self.open.pop()
        if name and first < self.n_words:
            self.marks.append(Mark(name, first, self.n_words, value))

    def _plain(self, text: str) -> Iterator[SpokenWord]:
        for written in _tokens(text):
            if len(written) > _LONGEST_WORD:
                continue
            self.n_words += 1
            if self.n_words > MAX_WORDS:
                raise UserError("The transcript has more than {most} words; cut it into parts.", most=MAX_WORDS)
            bare = written.strip(".,:")
            yield SpokenWord(bare, said_in_english(written) if self.language in ("", "en") else bare)


def _named(content: str) -> tuple[str, float | None, bool]:
    """Name and value of "jaw 1.5" or "rest: 0,5 s", and whether there is nothing else."""
    match = re.fullmatch(r"\s*([^\W\d_]+)\s*[:=]?\s*(-?\d{1,4}(?:[.,]\d{1,6})?)?\s*s?\s*", content)
    if not match:
        return content.strip().partition(" ")[0].lower(), None, False
    return match.group(1).lower(), float(match.group(2).replace(",", ".")) if match.group(2) else None, True


def _tokens(text: str) -> Iterator[str]:
    """The words and numbers of a text. Chinese letters are a word each, as no spaces divide them."""
    at = 0
    while at < len(text):
        letter = text[at]
        if letter.isdigit() or letter in "$€£¥":
            number = _NUMBER.match(text, at)
            if number and not text[number.end() : number.end() + 1].isalpha():
                yield number.group().strip()
                at = number.end()
                continue
        if _is_ideograph(letter):
            yield letter
            at += 1
        elif _in_word(letter):
            end = at + 1
            while end < len(text) and not _is_ideograph(text[end]) and _in_word(text[end], inside=True):
                end += 1
            # "e.g.", "Mr.": the full stops of an abbreviation are a part of it.
            while end + 1 < len(text) and text[end] == "." and end - at <= 8 and text[end + 1].isalpha():
                end += 2
                if end < len(text) and text[end].isalpha():
                    end = text.index(".", at)
                    break
            word = text[at:end].strip(_INSIDE_WORDS)
            if text[end : end + 1] == ".":
                word += "."
            if any(unicodedata.category(c)[0] in "LN" for c in word):
                yield word
            at = end
        else:
            at += 1


def _in_word(letter: str, inside: bool = False) -> bool:
    if letter in "\u200c\u200d":  # they join letters in some scripts; elsewhere they join emoji
        return inside
    return (
        unicodedata.category(letter)[0] in "LMN"
        and letter not in "\ufe0e\ufe0f\u20e3"
        or (inside and letter in _INSIDE_WORDS)
    )


def _is_ideograph(letter: str) -> bool:
    return "\u3400" <= letter <= "\u9fff" or "\uf900" <= letter <= "\ufaff" or "\U00020000" <= letter <= "\U0003ffff"
