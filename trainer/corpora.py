# SPDX-License-Identifier: GPL-3.0-or-later
"""The development corpora on disk: which recordings there are, who speaks, what is said, and who is held out.

Splits are by rule, not by list: GRID speaker 1 is split by sentence, everything else by speaker, so that validation
figures on LibriSpeech and VCTK are of voices that training never heard. `grid_others` is validation only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VALID_PERCENT = 12
FACEGOOD_HELD_OUT = "1114_3_15"
NORMALISED_TEXT = str.maketrans({c: " " for c in '",.;:!?()-'})


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One recording. `text` is lower-case words, or None when nobody wrote down what is said."""

    name: str
    corpus: str
    speaker: str
    path: Path
    text: str | None
    split: str


def _is_held_out(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] % 100 < VALID_PERCENT


def _split(key: str) -> str:
    return "valid" if _is_held_out(key) else "train"


def _transcripts(folder: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for table in sorted(folder.glob("transcripts*.tsv")):
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
        FileNotFoundError: none of the corpora is there.
    """
    found = False
    for corpus in ("grid_s1", "grid_others", "librispeech_4_aligned", "vctk", "librispeech_251", "facegood"):
        folder = data / corpus
        texts = _transcripts(folder) if folder.is_dir() else {}
        for path in sorted(folder.glob("*.flac")):
            found = True
            name = path.stem
            if corpus == "grid_s1":
                text, speaker, split = _grid_text(path.with_suffix(".align")), "grid_s1", _split(name)
            elif corpus == "facegood":
                text, speaker, split = None, "facegood", "valid" if name == FACEGOOD_HELD_OUT else "train"
            else:
                text, speaker = texts.get(name), f"{corpus}/{name.replace('-', '_').split('_')[0]}"
                split = "valid" if corpus == "grid_others" else _split(speaker)
            yield Clip(name=name, corpus=corpus, speaker=speaker, path=path, text=text, split=split)
    if not found:
        raise FileNotFoundError(f"{data}: none of the corpora is here (grid_s1, librispeech_4_aligned, vctk, …)")
