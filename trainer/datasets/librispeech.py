# SPDX-License-Identifier: GPL-3.0-or-later
"""LibriSpeech as it is published: `SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` with one flac an utterance.

Every utterance is kept (the released loader keeps only each chapter's last). Unusable ones are left out and counted by
reason, with one example each; it is an error only if none is left.

Shapes: S samples.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.audio import MIN_DURATION_S, SAMPLE_RATE_HZ

VALID_SHARE = 0.05
MAX_DEPTH = 4  # LibriSpeech/SUBSET/SPEAKER/CHAPTER, seen from the folder above
_PUBLISHED = {"README.TXT", "LICENSE.TXT", "BOOKS.TXT", "CHAPTERS.TXT", "SPEAKERS.TXT"}
_UTTERANCE = re.compile(r"(\d+)-(\d+)-\d+\.flac")


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One recording; `text` is lower-case, or "" without a transcript.

    `corpus` is the subset ("train-clean-100"), `split` "train", "valid" or "test".
    """

    name: str
    corpus: str
    speaker: str
    path: Path
    text: str
    split: str = "train"
    n_samples: int = 0


@dataclass
class _Skipped:
    """What was left out, by reason: the count and one example."""

    reasons: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        self.reasons.setdefault(reason, {"count": 0, "example": example})["count"] += 1


class LibriSpeech:
    """The utterances below a folder: LibriSpeech or its parent folder, some of its subsets, or some speakers.

    Subsets named dev-* are the validation split and test-* the test split. Without a dev-* subset, 5 % of the training
    speakers are validation, or 5 % of the utterances of a single speaker.

    Attributes:
        records: the utterances, by subset and name.
        skipped: reason -> {"count", "example"} of what was left out.
    """

    def __init__(self, root: Path, *, transcribed: bool = True) -> None:
        """List the folder; lengths come from the flac headers, and the last sample of each file must be readable.

        Args:
            transcribed: leave out recordings without a transcript.

        Raises:
            MissingFileError: no utterance below `root` can be used.
        """
        if not root.is_dir():
            raise MissingFileError("{root}: there is no such folder; --data names LibriSpeech's folder", root=root)
        skipped = _Skipped()
        listed = [utterance for chapter in _chapters(root, skipped) for utterance in _utterances(chapter, skipped)]
        if transcribed:
            listed = [utterance for utterance in listed if utterance.text]
        with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as threads:
            lengths = list(threads.map(_n_samples, [utterance.path for utterance in listed], chunksize=64))
        records = []
        for utterance, length in zip(listed, lengths, strict=True):
            if isinstance(length, str):
                skipped.add(length, str(utterance.path.relative_to(root)))
            else:
                records.append(replace(utterance, n_samples=length))
        self.skipped: Mapping[str, Mapping[str, Any]] = skipped.reasons
        if not records:
            found = [f"; {reason}: {some['count']}, as {some['example']}" for reason, some in self.skipped.items()]
            raise MissingFileError(
                "{root}: no usable utterance in LibriSpeech's layout (SUBSET/SPEAKER/CHAPTER/*.flac and *.trans.txt)"
                "{found}",
                root=root, found="".join(found),
            )  # fmt: skip
        self.records = with_splits(sorted(records, key=lambda utterance: (utterance.corpus, utterance.name)))

    def samples(self, record: Utterance) -> np.ndarray:
        """float32 (S,) in [-1, 1).

        Raises:
            UserError: the file is damaged in its middle, which listing does not notice.
        """
        try:
            return sf.read(record.path, dtype="float32")[0]
        except sf.LibsndfileError as error:
            raise UserError(
                "{path}: cannot be decoded ({error}); copy the file again and go on with --resume",
                path=record.path,
                error=error,
            ) from error

    def files(self) -> Iterator[Path]:
        """The files that the data's hash covers."""
        return (record.path for record in self.records)


def is_librispeech(root: Path) -> bool:
    """Whether a chapter of LibriSpeech lies below `root`."""
    return next(_chapters(root, _Skipped()), None) is not None


@dataclass(frozen=True)
class _Chapter:
    folder: Path
    files: list[str]
    subset: str
    name: str  # SPEAKER-CHAPTER


def _chapters(root: Path, skipped: _Skipped) -> Iterator[_Chapter]:
    for path, folders, files in os.walk(root, followlinks=True):
        folder = Path(path)
        parts = folder.relative_to(root).parts
        folders[:] = sorted(folders) if len(parts) < MAX_DEPTH else []
        if len(parts) >= 2 and parts[-1].isdecimal() and parts[-2].isdecimal():
            subset = parts[-3] if len(parts) > 2 else root.resolve().name
            yield _Chapter(folder, sorted(files), subset, f"{parts[-2]}-{parts[-1]}")
        else:
            for name in sorted(set(files) - _PUBLISHED):
                skipped.add("stray file", str(folder / name))


def _utterances(chapter: _Chapter, skipped: _Skipped) -> Iterator[Utterance]:
    transcript = f"{chapter.name}.trans.txt"
    texts = _texts(chapter.folder / transcript, skipped) if transcript in chapter.files else {}
    speaker = chapter.name.partition("-")[0]
    for file in chapter.files:
        path = chapter.folder / file
        match = _UTTERANCE.fullmatch(file)
        if file == transcript:
            continue
        if match is None or f"{match[1]}-{match[2]}" != chapter.name:
            skipped.add("stray file", str(path))
            continue
        text = texts.pop(path.stem, None)
        if not text:
            skipped.add("no transcript" if text is None else "empty transcript", str(path))
        yield Utterance(name=path.stem, corpus=chapter.subset, speaker=speaker, path=path, text=text or "")
    for name in texts:
        skipped.add("transcript without a recording", f"{name} in {chapter.folder / transcript}")


def _texts(path: Path, skipped: _Skipped) -> dict[str, str]:
    """Utterance name -> words, in lower case: a cased text model would not know words in capitals."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        skipped.add("unreadable transcript", str(path))
        return {}
    words = [line.lower().split() for line in lines if line.strip()]
    return {name: " ".join(said) for name, *said in words}


def _n_samples(path: Path) -> int | str:
    """Length of a recording, or why it cannot be used. Seeking to the end detects cut-off files without decoding."""
    try:
        with sf.SoundFile(path) as file:
            if (file.samplerate, file.channels) != (SAMPLE_RATE_HZ, 1):
                return "not 16 kHz mono"
            if file.frames < MIN_DURATION_S * SAMPLE_RATE_HZ:
                return f"shorter than {MIN_DURATION_S} s"
            file.seek(file.frames - 1)
            return file.frames if len(file.read(1)) == 1 else "unreadable flac"
    except (sf.LibsndfileError, OSError):
        return "unreadable flac"


def with_splits(utterances: list[Utterance]) -> list[Utterance]:
    """The utterances with their splits, by the rule of `LibriSpeech`."""
    published = {"dev": "valid", "test": "test"}
    splits = [published.get(utterance.corpus.partition("-")[0], "train") for utterance in utterances]
    training = [utterance for utterance, split in zip(utterances, splits, strict=True) if split == "train"]
    held_out: set[str] = set()
    key: Callable[[Utterance], str] = lambda utterance: utterance.speaker  # noqa: E731
    if "valid" not in splits and training:
        if len({utterance.speaker for utterance in training}) == 1:
            key = lambda utterance: utterance.name  # noqa: E731
        keys = sorted({key(utterance) for utterance in training}, key=lambda k: hashlib.sha256(k.encode()).digest())
        held_out = set(keys[: max(1, round(VALID_SHARE * len(keys)))] if len(keys) > 1 else [])
    return [
        replace(utterance, split="valid" if split == "train" and key(utterance) in held_out else split)
        for utterance, split in zip(utterances, splits, strict=True)
    ]
