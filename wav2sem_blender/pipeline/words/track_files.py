# SPDX-License-Identifier: GPL-3.0-or-later
"""A track as a file: Praat's TextGrid, csv, or JSON.

TextGrid: the interval tiers "words" and "phones". A third one, "confidence", says of each phone how sure it is and
whether it is forced, as in "AA 0.87" and "B 0.31 forced". It counts for phones that are still as they are there; all
others are forced, with confidence 1. csv: one row per word or phone. JSON: `Track.to_json`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import MissingFileError, UserError
from ...files import atomic_file
from ..phones import PHONES, SILENCE
from .track import DIGITS, MAX_ITEMS, Phone, Track, Word, rounded

SUFFIXES = (".TextGrid", ".csv", ".json")
_KNOWN = tuple(suffix.lower() for suffix in SUFFIXES)
MAX_FILE_BYTES = 50_000_000
_HEADER = ("tier", "start_s", "end_s", "label", "confidence", "forced")
# Praat has a space behind each number, so a file that was saved there is the user's.
_TEXT_GRID_START = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n'
# What aligners call the tiers, and how they write silence.
_WORD_TIERS = ("words", "word", "ort", "ort-mau", "orthography")
_CONFIDENCE_TIER, _CONFIDENCE = "confidence", re.compile(r"(\S+) ([01]\.\d{1,6})( forced)?")
_PHONE_TIERS = ("phones", "phone", "phonemes", "phoneme", "mau", "segments")
_SILENT = frozenset(("", "sil", "sp", "spn", "<eps>", "<sil>", "pau", "#", "<p:>", "_"))


class Interval(NamedTuple):
    """A labelled span of a TextGrid's tier."""

    text: str
    start_s: float
    end_s: float


def save_track(track: Track, path: Path) -> None:
    """Write a `.TextGrid`, `.csv` or `.json`; an existing file is replaced in one step.

    Raises:
        UserError: Another suffix, or the file cannot be written.
    """
    suffix = check_suffix(path)
    if suffix == ".textgrid":
        content = _as_text_grid(track)
    elif suffix == ".csv":
        content = _as_csv(track)
    else:
        content = track.to_text() + "\n"
    with atomic_file(path) as file:
        file.write(content.encode())


def check_suffix(path: Path) -> str:
    """The suffix in small letters; UserError if no track is saved so."""
    suffix = path.suffix.lower()
    if suffix not in _KNOWN:
        raise UserError(
            "{file}: a track is saved as {suffixes}, not as '{suffix}'.",
            file=path.name,
            suffixes=", ".join(SUFFIXES),
            suffix=path.suffix,
        )
    return suffix


def load_track(path: Path) -> Track:
    """Read a `.TextGrid`, `.csv` or `.json`.

    Raises:
        UserError: The file is missing, no track, damaged, or has a phone that we do not know; the message names it.
    """
    suffix = path.suffix.lower()
    if suffix not in _KNOWN:
        raise UserError(
            "{file}: a track is read from {suffixes}, not from '{suffix}'.",
            file=path.name,
            suffixes=", ".join(SUFFIXES),
            suffix=path.suffix,
        )
    text = read_text(path, MAX_FILE_BYTES)
    try:
        if suffix == ".textgrid":
            return _from_text_grid(text)
        return _from_csv(text) if suffix == ".csv" else Track.from_text(text)
    except UserError as error:
        raise UserError("{file}: {reason}", file=path.name, reason=error.text) from error


def is_track_file(path: Path) -> bool:
    """Whether `save_track` wrote this file, so that it may be replaced; True for an empty file."""
    with path.open("rb") as file:
        start = file.read(200).decode("utf-8", errors="replace")
    starts = (_TEXT_GRID_START, ",".join(_HEADER), '{"track_format_version":')
    return not start or start.startswith(starts)


def read_text(path: Path, most_bytes: int) -> str:
    """A text file in UTF-8, UTF-16 with a mark, or Windows' Western encoding.

    Raises:
        UserError: It is missing, a folder, larger than `most_bytes`, or no text.
    """
    if not path.exists():
        raise MissingFileError("{file}: there is no such file.", file=path)
    if path.is_dir():
        raise UserError("{file} is a folder; choose a file.", file=path)
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UserError(
            "{file} is larger than {most:g} MB; it cannot be the text of a recording.",
            file=path.name,
            most=most_bytes / 1e6,
        )
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text and sum(ord(c) < 32 and c not in "\t\n\r\f\x1b" for c in text) <= len(text) / 100:
            return text
    raise UserError("{file} is no text file; save it as plain text in UTF-8.", file=path.name)


def read_text_grid(text: str) -> dict[str, list[Interval]]:
    """The interval tiers of a TextGrid, long or short form, by their names; points are left out.

    Raises:
        UserError: It is no TextGrid, or it ends too early.
    """
    if "ooTextFile" not in text[:200] or "TextGrid" not in text[:400]:
        raise UserError("this is no TextGrid.")
    try:
        return _tiers(_values(text))
    except (StopIteration, ValueError, RuntimeError) as error:
        raise UserError("the TextGrid is damaged or ends too early.") from error


def _values(text: str) -> Iterator[str | float]:
    """Texts in quotes and free-standing numbers; Praat itself reads no more of the file than these."""
    # Names of fields, as in `intervals [1]:` and `xmin = 0`, carry no value.
    for quoted, bare in re.findall(r'"((?:[^"]|"")*)"|(?<![^\s=])(-?\d[\d.eE+-]*|<exists>)(?=\s|$)', text):
        if bare:
            yield 1.0 if bare == "<exists>" else float(bare)
        else:
            yield quoted.replace('""', '"')


def _tiers(values: Iterator[str | float]) -> dict[str, list[Interval]]:
    next(values), next(values)  # file type and class
    for _ in range(3):  # from, to, "tiers exist"
        next(values)
    tiers: dict[str, list[Interval]] = {}
    n_items = 0
    for _ in range(_count(next(values))):
        kind, name = next(values), str(next(values))
        next(values), next(values)
        n = _count(next(values))
        n_items += n
        if n_items > 10 * MAX_ITEMS:
            raise ValueError("too many items")
        items = []
        for _ in range(n):
            if kind == "IntervalTier":
                start, end = float(next(values)), float(next(values))
                items.append(Interval(str(next(values)).strip(), start, end))
            else:
                next(values), next(values)
        if kind == "IntervalTier":
            tiers[name] = items
    return tiers


def _count(value: str | float) -> int:
    if isinstance(value, str) or not 0 <= value <= 10 * MAX_ITEMS:
        raise ValueError("no count")
    return int(value)


def tier_named(tiers: dict[str, list[Interval]], names: tuple[str, ...]) -> list[Interval] | None:
    """The tier with one of these names, also behind a speaker's, as in "anna - words"; None if there is none."""
    for name, items in tiers.items():
        if name.lower().rpartition(" - ")[2].strip() in names:
            return items
    return None


def word_tier(tiers: dict[str, list[Interval]]) -> list[Interval] | None:
    """The tier of words, without silences; the only tier counts whatever its name."""
    found = tier_named(tiers, _WORD_TIERS)
    if found is None and len(tiers) == 1 and tier_named(tiers, _PHONE_TIERS) is None:
        found = next(iter(tiers.values()))
    return None if found is None else [item for item in found if item.text.lower() not in _SILENT]


def _from_text_grid(text: str) -> Track:
    tiers = read_text_grid(text)
    words = word_tier(tiers)
    phones = tier_named(tiers, _PHONE_TIERS)
    if words is None and phones is None:
        raise UserError('the TextGrid has no tier "words" and none "phones".')
    known = {
        (said[1], *rounded(item)): (min(1.0, float(said[2])), said[3] is not None)
        for item in tier_named(tiers, (_CONFIDENCE_TIER,)) or ()
        if (said := _CONFIDENCE.fullmatch(item.text))
    }
    read = []
    for item in phones or ():
        if item.text == SILENCE or item.text.lower() not in _SILENT:
            name = _phone_name(item.text)
            confidence, forced = known.get((name, *rounded(item)), (1.0, True))
            read.append(Phone(name, item.start_s, item.end_s, confidence, forced))
    return Track(
        words=tuple(Word(" ".join(w.text.split()), w.start_s, w.end_s) for w in words or ()), phones=tuple(read)
    )


def _phone_name(label: str) -> str:
    """Of our set: stress digits are dropped."""
    name = label.upper().rstrip("012")
    return name if name in PHONES else label


def _as_text_grid(track: Track) -> str:
    end_s = max(track.end_s, 0.001)
    tiers = []
    spans = {
        "words": [word[:3] for word in track.words],
        "phones": [phone[:3] for phone in track.phones],
        _CONFIDENCE_TIER: [
            (f"{p.name} {p.confidence:.3f}{' forced' if p.forced else ''}", p.start_s, p.end_s) for p in track.phones
        ],
    }
    for name, items in spans.items():
        intervals: list[tuple[float, float, str]] = []
        at_s = 0.0
        for label, start_s, stop_s in items:
            if round(start_s, DIGITS) > round(at_s, DIGITS):
                intervals.append((at_s, start_s, ""))
            intervals.append((start_s, stop_s, label))
            at_s = stop_s
        if round(at_s, DIGITS) < round(end_s, DIGITS):
            intervals.append((at_s, end_s, ""))
        rows = [
            f"        intervals [{i}]:\n            xmin = {a:.4f}\n            xmax = {b:.4f}\n"
            f'            text = "{_quoted(label)}"\n'
            for i, (a, b, label) in enumerate(intervals, 1)
        ]
        tiers.append(
            f'        class = "IntervalTier"\n        name = "{name}"\n        xmin = 0\n        xmax = {end_s:.4f}\n'
            f"        intervals: size = {len(rows)}\n" + "".join(rows)
        )
    head = f"{_TEXT_GRID_START}xmax = {end_s:.4f}\ntiers? <exists>\n"
    listed = "".join(f"    item [{i}]:\n{tier}" for i, tier in enumerate(tiers, 1))
    return f"{head}size = {len(tiers)}\nitem []:\n{listed}"


def _quoted(label: str) -> str:
    return label.replace('"', '""')


def _as_csv(track: Track) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for word in track.words:
        writer.writerow(["word", *_times(word), word.text, f"{word.confidence:.3f}", ""])
    for phone in track.phones:
        writer.writerow(["phone", *_times(phone), phone.name, f"{phone.confidence:.3f}", int(phone.forced)])
    return text.getvalue()


def _times(item: Word | Phone) -> tuple[str, str]:
    return f"{item.start_s:.4f}", f"{item.end_s:.4f}"


def _from_csv(text: str) -> Track:
    rows = csv.reader(io.StringIO(text))
    try:
        header = tuple(next(rows, ()))
        if header[:4] != _HEADER[:4]:
            raise UserError("the columns must be {columns}.", columns=", ".join(_HEADER))
        words, phones = [], []
        for row in rows:
            if not row:
                continue
            tier, start, end, label, *rest = row
            confidence = float(rest[0]) if rest and rest[0] else 1.0
            if tier == "word":
                words.append(Word(label, float(start), float(end), confidence))
            elif tier == "phone":
                forced = not (len(rest) > 1 and rest[1].strip() == "0")
                phones.append(Phone(_phone_name(label), float(start), float(end), confidence, forced))
            else:
                raise UserError(
                    "line {line}: the tier is {tier}; word or phone is needed.", line=rows.line_num, tier=tier[:40]
                )
    except UserError:
        raise
    except (ValueError, csv.Error) as error:
        raise UserError(
            "line {line} cannot be read as {columns}.", line=rows.line_num, columns=", ".join(_HEADER)
        ) from error
    return Track(words=tuple(words), phones=tuple(phones))
