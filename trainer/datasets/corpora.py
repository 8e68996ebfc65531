# SPDX-License-Identifier: GPL-3.0-or-later
"""The development corpora on disk: their recordings, speakers, texts and splits.

Splits follow a rule: GRID speaker 1 is split by sentence, everything else by speaker, so that figures on LibriSpeech,
VCTK and Picovoice are of unseen voices. Models are chosen by "valid" and finally judged by "test". `grid_others` is
only for validation, as five faces are too few for two parts, and the one Russian voice only for training.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wav2sem_blender.errors import MissingFileError

from .published_files import cache_folder

VALID_PERCENT, TEST_PERCENT = 12, 8
CORPORA = (
    *("grid_s1", "grid_others", "librispeech_4_aligned", "vctk", "librispeech_251", "facegood"),
    *("picovoice_orders", "picovoice_words", "festvox_ru"),
)
FESTVOX = "festvox_ru"
FACEGOOD_HELD_OUT = "1114_3_15"
HEARD = Path(__file__).parent / "librispeech_251_heard.tsv"
NORMALISED_TEXT = str.maketrans({c: " " for c in '",.;:!?()-'})

_GRID_TICKS_HZ = 25_000
_SPELLED_OUT = re.compile("[a-z' ]+")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One recording. `text` is lower-case words, or None without an English transcript; `other_text` is a second
    hearing of it, where a recogniser's words differ."""

    name: str
    corpus: str
    speaker: str
    path: Path
    text: str | None
    split: str
    other_text: str | None = None


def split_of(key: str) -> str:
    place = hashlib.sha256(key.encode()).digest()[0] % 100
    return "valid" if place < VALID_PERCENT else "test" if place < VALID_PERCENT + TEST_PERCENT else "train"


def _transcripts(tables: Iterable[Path]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for table in filter(Path.is_file, tables):
        for line in table.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition("\t")
            texts[name] = " ".join(text.split("\t")[0].translate(NORMALISED_TEXT).lower().split())
    return texts


def grid_words(align: Path) -> list[tuple[str, float, float]]:
    """The words of GRID's own alignment and their times in seconds."""
    rows = (line.split() for line in align.read_text().splitlines() if line.strip())
    return [
        (word, int(start) / _GRID_TICKS_HZ, int(end) / _GRID_TICKS_HZ)
        for start, end, word in rows
        if word not in ("sil", "sp")
    ]


def _picovoice_speakers(folder: Path) -> dict[str, str]:
    """Speakers by clip. They are clusters of similar voices, as nobody is named; both sets share them."""
    if not folder.name.startswith("picovoice") or not folder.is_dir():
        return {}
    rows = (line.split("\t") for line in (folder / "sources.tsv").read_text(encoding="utf-8").splitlines()[1:])
    return {row[0]: f"picovoice/{row[3]}" for row in rows}


def _recordings(data: Path, corpus: str) -> list[Path]:
    """The corpus' sound files. Those of festvox-ru are Debian's, unpacked in the corpus' folder or in the cache."""
    if corpus != FESTVOX:
        return sorted((data / corpus).glob("*.flac"))
    if not (data / corpus).is_dir():
        return []
    folders = (data / corpus, cache_folder() / corpus)
    found = next(filter(None, (sorted(folder.rglob("ru_*.wav")) for folder in folders)), [])
    if not found:
        print(f"warning: no Russian: `apt-get download festvox-ru` and `dpkg -x` it to {folders[1]} (docs/training.md)")
    return found


def list_clips(data: Path) -> Iterator[Clip]:
    """Every recording below `data`, in a fixed order.

    Raises:
        MissingFileError: none of the corpora is below `data`.
    """
    found = False
    for corpus in CORPORA:
        folder = data / corpus
        # These 251 have no published transcript: ours is a recogniser's, corrected by reading (docs/training.md).
        heard = corpus == "librispeech_251"
        texts = _transcripts([HEARD] if heard else sorted(folder.glob("transcripts*.tsv")))
        others = _transcripts([data / "librispeech_251_whisper" / "transcripts.tsv"]) if heard else {}
        speakers = _picovoice_speakers(folder)
        for path in _recordings(data, corpus):
            found = True
            name = path.stem
            text: str | None = texts.get(name)
            if corpus == "grid_s1":
                text = " ".join(word for word, _, _ in grid_words(path.with_suffix(".align")))
                speaker, split = "grid_s1", split_of(name)
            elif corpus == "facegood":
                text, speaker, split = None, "facegood", "valid" if name == FACEGOOD_HELD_OUT else "train"
            elif corpus == FESTVOX:
                if text is None:  # these have no phone times either
                    continue
                text, speaker, split = None, "festvox_ru", "train"  # the sentence model knows no Russian
            else:
                # Both parts of LibriSpeech share speakers, so they share names and splits.
                people = "librispeech" if corpus.startswith("librispeech") else corpus
                speaker = speakers.get(name) or f"{people}/{name.replace('-', '_').split('_')[0]}"
                split = "valid" if corpus == "grid_others" else split_of(speaker)
            other = others.get(name)
            yield Clip(
                name=name, corpus=corpus, speaker=speaker, path=path, text=text, split=split,
                other_text=other if other != text and _SPELLED_OUT.fullmatch(other or "") else None,
            )  # fmt: skip
    if not found:
        raise MissingFileError(
            "{data}: none of the corpora is here (grid_s1, librispeech_4_aligned, vctk, …)",
            data=data,
        )
