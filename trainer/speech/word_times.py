# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings with published word times: LibriSpeech readers, Kokoro's voices, and the Russian of festvox-ru.

None of the times was made by our aligner: LibriSpeech's came with the data, Kokoro's are the durations that the voice
spoke by, and festvox-ru's are its builder's labels. Those have no words; `russian_words` finds them.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.pipeline.words.track_files import Interval
from wav2sem_blender.pipeline.words.transcript import parse_transcript

from ..datasets.corpora import FESTVOX, list_clips, split_of
from .align import festvox_times, published_times
from .phones import Timing

READERS, KOKORO = "librispeech_4_aligned", "kokoro_times"
_SHORTEST_PAUSE_S = 0.06  # a shorter gap of Kokoro's belongs to the word after
_PAUSE = "pau"
# Letters and the labels that they may have; a vowel letter may have any vowel.
_CONSONANTS = {
    **{"б": "b p", "в": "v f", "г": "g k v h", "д": "d t", "ж": "zh sh", "з": "z s zh sh", "й": "j i", "к": "k g h"},
    **{"л": "l", "м": "m", "н": "n", "п": "p b", "р": "r", "с": "s z sh zh sch", "т": "t d c", "ф": "f v"},
    **{"х": "h g", "ц": "c", "ч": "ch sh", "ш": "sh zh", "щ": "sch"},
}
_VOWELS = frozenset("а е ё и о у ы э ю я".split())
_VOWEL_LABELS = frozenset("a aa ae ay e ee i ii oo u uu ur y yy".split())
_SOFT = {f"{label}{label}": label for label in "b d f g h k l m n p r s t v z".split()}


@dataclass(frozen=True, kw_only=True)
class TimedClip:
    """A recording, its text and the published times.

    Attributes:
        corpus: The folder's name.
        speaker, language: Of the recording.
        split: "train" if the ear learned from this voice.
        text: What is said, as it is written.
        words: All words with their times; one for each word of the text. An edge that is not known is NaN.
        phones: Phone times, or None.
    """

    name: str
    corpus: str
    speaker: str
    language: str
    split: str
    path: Path
    text: str
    words: tuple[Interval, ...]
    phones: list[Timing] | None = None


def timed_clips(data: Path, russian: int) -> Iterator[TimedClip]:
    """All that are below `data`, of the Russian so many.

    Raises:
        MissingFileError: There are none.
    """
    found = [*_readers(data), *_kokoro(data), *_russian(data, russian)]
    if not found:
        raise MissingFileError("{data}: no recordings with published word times are here", data=data)
    yield from found


def _readers(data: Path) -> Iterator[TimedClip]:
    folder = data / READERS
    if not (folder / "alignments.tsv.gz").is_file():
        return
    words: dict[str, list[Interval]] = {}
    for name, tier, start, end, label in _rows(folder / "alignments.tsv.gz"):
        if tier == "words" and label:
            words.setdefault(name, []).append(Interval(label, float(start), float(end)))
    phones = published_times(folder)
    for clip in list_clips(data):
        if clip.corpus == READERS and clip.name in words:
            text = " ".join(word.text for word in words[clip.name])
            if clip.text == text:  # without words that the aligner did not know
                yield TimedClip(
                    name=clip.name, corpus=READERS, speaker=clip.speaker, language="en", split=clip.split,
                    path=clip.path, text=text, words=tuple(words[clip.name]), phones=phones.get(clip.name),
                )  # fmt: skip


def _kokoro(data: Path) -> Iterator[TimedClip]:
    folder = data / KOKORO
    if not (folder / "phones_ipa.tsv.gz").is_file():
        return
    symbols: dict[str, list[tuple[str, float, float]]] = {}
    for clip, start, end, symbol in _rows(folder / "phones_ipa.tsv.gz"):
        symbols.setdefault(clip, []).append((symbol, float(start), float(end)))
    for line in (folder / "transcripts.tsv").read_text(encoding="utf-8").splitlines():
        name, _, text = line.partition("\t")
        written = parse_transcript(text).words
        spans = _spans(symbols.get(name, []))
        if len(spans) != len(written):
            continue  # espeak-ng has joined or divided words
        language, _, voice = name.split("_", 2)
        yield TimedClip(
            name=name, corpus=KOKORO, speaker=voice, language=language, split=split_of(f"kokoro/{voice}"),
            path=folder / f"{name}.flac", text=text,
            words=tuple(Interval(word.text, *span) for word, span in zip(written, spans, strict=True)),
        )  # fmt: skip


def _spans(symbols: Sequence[tuple[str, float, float]]) -> list[tuple[float, float]]:
    """Start and end of each word of Kokoro's symbols, which spaces divide.

    Before a pause the last sound's time also holds the silence after it, so that end is not known: NaN.
    """
    words: list[list[tuple[float, float]]] = [[]]
    for symbol, start_s, end_s in symbols:
        if symbol == " ":
            words.append([])
        elif symbol not in "^$,.;:!?—…\"'()“”«»¿¡":
            words[-1].append((start_s, end_s))
    spans = [(word[0][0], word[-1][1]) for word in words if word]
    for i, (start_s, end_s) in enumerate(spans):
        if i + 1 < len(spans) and spans[i + 1][0] - end_s < _SHORTEST_PAUSE_S:
            spans[i + 1] = end_s, spans[i + 1][1]
        else:
            spans[i] = start_s, np.nan
    return spans


def _russian(data: Path, most: int) -> Iterator[TimedClip]:
    folder = data / FESTVOX
    if not most or not (folder / "phones.tsv.gz").is_file():
        return
    labels: dict[str, list[Interval]] = {}
    for name, start, end, label in _rows(folder / "phones.tsv.gz"):
        labels.setdefault(name, []).append(Interval(label, float(start), float(end)))
    texts: dict[str, str] = dict(
        line.split("\t", 1)
        for line in (folder / "transcripts_all.tsv").read_text(encoding="utf-8").splitlines()
        if "\t" in line
    )
    phones = festvox_times(folder)
    n = 0
    for clip in list_clips(data):
        if clip.corpus != FESTVOX or clip.name not in labels or clip.name not in texts or n == most:
            continue
        n += 1
        text = texts[clip.name]
        written = [word.text for word in parse_transcript(text, language="ru").words]
        yield TimedClip(
            name=clip.name, corpus=FESTVOX, speaker=FESTVOX, language="ru", split=clip.split, path=clip.path,
            text=text, words=tuple(russian_words(written, labels[clip.name])), phones=phones.get(clip.name),
        )  # fmt: skip


def russian_words(words: Sequence[str], labels: Sequence[Interval]) -> list[Interval]:
    """The words' times by the labels of their letters, in the order in which both are written.

    An edge at which the letter does not have one of its own labels is not known: NaN.
    """
    letters = [
        (i, letter)
        for i, word in enumerate(words)
        for letter in word.lower()
        if letter in _CONSONANTS or letter in _VOWELS
    ]
    spoken = [label for label in labels if label.text != _PAUSE]
    path = _matched([letter for _, letter in letters], [_SOFT.get(label.text, label.text) for label in spoken])
    found = [Interval(word, np.nan, np.nan) for word in words]
    for i in range(len(words)):
        own = [k for k, (word, _) in enumerate(letters) if word == i]
        if not own:
            continue
        first, last = path[own[0]], path[own[-1]]
        starts = spoken[first].start_s if first is not None else np.nan
        # The letters е, ё, ю, я begin with a j of their own.
        if first is not None and letters[own[0]][1] in "еёюя" and first and spoken[first - 1].text == "j":
            taken = path[own[0] - 1] if own[0] else None
            starts = spoken[first - 1].start_s if taken != first - 1 else starts
        found[i] = Interval(words[i], starts, spoken[last].end_s if last is not None else np.nan)
    return found


def _matched(letters: Sequence[str], labels: Sequence[str]) -> list[int | None]:
    """The label of each letter on the cheapest path through both; None for letters without one of their own."""
    n, m = len(letters), len(labels)
    cost = np.zeros((n + 1, m + 1))
    cost[:, 0], cost[0] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            other = 0.0 if _fits(letters[i - 1], labels[j - 1]) else 3.0
            inserted = 0.2 if labels[j - 1] == "j" else 1.0
            cost[i, j] = min(cost[i - 1, j - 1] + other, cost[i - 1, j] + 1, cost[i, j - 1] + inserted)
    path: list[int | None] = [None] * n
    i, j = n, m
    while i and j:
        fits = _fits(letters[i - 1], labels[j - 1])
        if fits and cost[i, j] == cost[i - 1, j - 1]:
            path[i - 1] = j - 1
            i, j = i - 1, j - 1
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return path


def _fits(letter: str, label: str) -> bool:
    if letter in _VOWELS:
        return label in _VOWEL_LABELS
    return label in _CONSONANTS[letter].split()


def _rows(path: Path) -> Iterable[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as table:
        rows = csv.reader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        yield from rows
