# SPDX-License-Identifier: GPL-3.0-or-later
"""The development corpora on disk: their recordings, speakers, texts and splits.

Splits follow a rule: GRID speaker 1 is split by sentence, everything else by speaker, so that figures on LibriSpeech
and VCTK are of unseen voices. Models are chosen by "valid" and finally judged by "test". `grid_others` is only for
validation: five faces are too few for two parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wav2sem_blender.errors import MissingFileError

VALID_PERCENT, TEST_PERCENT = 12, 8
FACEGOOD_HELD_OUT = "1114_3_15"
HEARD = Path(__file__).parent / "librispeech_251_heard.tsv"
NORMALISED_TEXT = str.maketrans({c: " " for c in '",.;:!?()-'})


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One recording. `text` is lower-case words, or None without a transcript."""

    name: str
    corpus: str
    speaker: str
    path: Path
    text: str | None
    split: str


def _split(key: str) -> str:
    place = hashlib.sha256(key.encode()).digest()[0] % 100
    return "valid" if place < VALID_PERCENT else "test" if place < VALID_PERCENT + TEST_PERCENT else "train"


def _transcripts(tables: Iterable[Path]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for table in tables:
        for line in table.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition("\t")
            texts[name] = " ".join(text.split("\t")[0].translate(NORMALISED_TEXT).lower().split())
    return texts


def _grid_text(align: Path) -> str:
    words = [line.split()[2] for line in align.read_text().splitlines() if line.strip()]
    return " ".join(word for word in words if word not in ("sil", "sp"))


def list_clips(data: Path) -> Iterator[Clip]:
    """Every recording below `data`, in a fixed order.

    Raises:
        MissingFileError: none of the corpora is below `data`.
    """
    found = False
    for corpus in ("grid_s1", "grid_others", "librispeech_4_aligned", "vctk", "librispeech_251", "facegood"):
        folder = data / corpus
        # These 251 have no published transcript: ours is a recogniser's, corrected by reading (docs/training.md).
        tables = [HEARD] if corpus == "librispeech_251" else sorted(folder.glob("transcripts*.tsv"))
        texts = _transcripts(tables)
        for path in sorted(folder.glob("*.flac")):
            found = True
            name = path.stem
            if corpus == "grid_s1":
                text, speaker, split = _grid_text(path.with_suffix(".align")), "grid_s1", _split(name)
            elif corpus == "facegood":
                text, speaker, split = None, "facegood", "valid" if name == FACEGOOD_HELD_OUT else "train"
            else:
                # Both parts of LibriSpeech share speakers, so they share names and splits.
                people = "librispeech" if corpus.startswith("librispeech") else corpus
                text, speaker = texts.get(name), f"{people}/{name.replace('-', '_').split('_')[0]}"
                split = "valid" if corpus == "grid_others" else _split(speaker)
            yield Clip(name=name, corpus=corpus, speaker=speaker, path=path, text=text, split=split)
    if not found:
        raise MissingFileError(
            "{data}: none of the corpora is here (grid_s1, librispeech_4_aligned, vctk, …)",
            data=data,
        )
