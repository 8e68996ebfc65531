# SPDX-License-Identifier: GPL-3.0-or-later
"""LibriSpeech as it is published: `SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` with one flac an utterance.

Every utterance is kept (the released loader keeps only each chapter's last). Unusable ones are left out and counted by
reason, with one example each; it is an error only if none is left.

Shapes: S samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.files import atomic_path
from wav2sem_blender.pipeline.audio import MIN_DURATION_S, SAMPLE_RATE_HZ

from ..runs.sharing import divide
from .published_files import cache_folder

VALID_SHARE = 0.05
# The list of a folder with at least this many files is kept; another format makes another list.
INDEXED_FROM, INDEX_FORMAT = 5_000, 1
MAX_DEPTH = 4  # LibriSpeech/SUBSET/SPEAKER/CHAPTER, seen from the folder above
_CHUNK = 256  # files that a thread opens in a row
_PUBLISHED = {"README.TXT", "LICENSE.TXT", "BOOKS.TXT", "CHAPTERS.TXT", "SPEAKERS.TXT"}
_UTTERANCE = re.compile(r"(\d+)-(\d+)-\d+\.flac")


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One recording; `text` is lower-case, or "" without a transcript.

    `corpus` is the subset ("train-clean-100"), `split` "train", "valid" or "test". `file` is its path as a string: the
    paths of 281,241 utterances would take 0.4 GB.
    """

    name: str
    corpus: str
    speaker: str
    file: str
    text: str
    split: str = "train"
    n_samples: int = 0

    @property
    def path(self) -> Path:
        """The recording."""
        return Path(self.file)


_FIELDS = tuple(field.name for field in fields(Utterance))


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

        The list of a large folder is kept in the cache as long as its files keep their names, sizes and times. One
        process makes it, and others that list the same folder wait for it.

        Args:
            transcribed: leave out recordings without a transcript.

        Raises:
            MissingFileError: no utterance below `root` can be used.
        """
        if not root.is_dir():
            raise MissingFileError("{root}: there is no such folder; --data names LibriSpeech's folder", root=root)
        self.skipped: Mapping[str, Mapping[str, Any]]
        index = _index_file(root, transcribed)
        if index is None:
            self.records, self.skipped = _listed(root, transcribed)
            return
        divide([index], make=lambda index: _write_index(index, *_listed(root, transcribed)))
        self.records, self.skipped = _read_index(index)

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


def _listed(root: Path, transcribed: bool) -> tuple[list[Utterance], Mapping[str, Mapping[str, Any]]]:
    """The utterances, and what was left out; raises MissingFileError if none is left."""
    skipped = _Skipped()
    listed = [utterance for chapter in _chapters(root, skipped) for utterance in _utterances(chapter, skipped)]
    if transcribed:
        listed = [utterance for utterance in listed if utterance.text]
    chunks = [listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK)]
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as threads:
        lengths = [
            n for some in threads.map(lambda chunk: [_n_samples(one.file) for one in chunk], chunks) for n in some
        ]
    records = []
    for utterance, length in zip(listed, lengths, strict=True):
        if isinstance(length, str):
            skipped.add(length, str(utterance.path.relative_to(root)))
        else:
            records.append(replace(utterance, n_samples=length))
    if not records:
        found = [f"; {reason}: {some['count']}, as {some['example']}" for reason, some in skipped.reasons.items()]
        raise MissingFileError(
            "{root}: no usable utterance in LibriSpeech's layout (SUBSET/SPEAKER/CHAPTER/*.flac and *.trans.txt)"
            "{found}",
            root=root, found="".join(found),
        )  # fmt: skip
    return with_splits(sorted(records, key=lambda utterance: (utterance.corpus, utterance.name))), skipped.reasons


def _index_file(root: Path, transcribed: bool) -> Path | None:
    """Where the list of the folder as it is now is kept, or None if the folder is small."""
    digest = hashlib.sha256()
    n_files = 0
    for folder, _, files in _folders(root):
        for name in files:
            path = os.path.join(folder, name)
            with suppress(OSError):  # a broken link
                status = os.stat(path)
                digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
                n_files += 1
    if n_files < INDEXED_FROM:
        return None
    asked = hashlib.sha256(f"{INDEX_FORMAT} {transcribed} {root}".encode(errors="surrogateescape"))
    return cache_folder() / "librispeech" / f"{asked.hexdigest()[:16]}-{digest.hexdigest()[:16]}.jsonl"


def _write_index(index: Path, records: Iterable[Utterance], skipped: Mapping[str, Mapping[str, Any]]) -> None:
    with atomic_path(index) as unfinished, unfinished.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps(skipped) + "\n")
        file.writelines(json.dumps([getattr(record, name) for name in _FIELDS]) + "\n" for record in records)
    for outdated in index.parent.glob(f"{index.name.partition('-')[0]}-*.jsonl"):
        if outdated != index:
            outdated.unlink(missing_ok=True)


def _read_index(index: Path) -> tuple[list[Utterance], Mapping[str, Mapping[str, Any]]]:
    shared: dict[str, str] = {}  # subsets, speakers and splits repeat
    with index.open(encoding="utf-8", errors="surrogateescape") as file:
        skipped = json.loads(next(file))
        records = []
        for line in file:
            name, corpus, speaker, path, text, split, n_samples = json.loads(line)
            corpus, speaker, split = (shared.setdefault(value, value) for value in (corpus, speaker, split))
            records.append(
                Utterance(
                    name=name, corpus=corpus, speaker=speaker, file=path, text=text, split=split, n_samples=n_samples
                )
            )
    return records, skipped


def is_librispeech(root: Path) -> bool:
    """Whether a chapter of LibriSpeech lies below `root`."""
    return next(_chapters(root, _Skipped()), None) is not None


@dataclass(frozen=True)
class _Chapter:
    folder: str
    files: list[str]
    subset: str
    name: str  # SPEAKER-CHAPTER


def _chapters(root: Path, skipped: _Skipped) -> Iterator[_Chapter]:
    for folder, parts, files in _folders(root):
        if len(parts) >= 2 and parts[-1].isdecimal() and parts[-2].isdecimal():
            subset = parts[-3] if len(parts) > 2 else root.resolve().name
            yield _Chapter(folder, files, subset, f"{parts[-2]}-{parts[-1]}")
        else:
            for name in sorted(set(files) - _PUBLISHED):
                skipped.add("stray file", os.path.join(folder, name))


def _folders(root: Path) -> Iterator[tuple[str, tuple[str, ...], list[str]]]:
    """Every folder down to `MAX_DEPTH`: its path, the parts of its path below `root`, and its files' names, sorted."""
    for path, folders, files in os.walk(root, followlinks=True):
        parts = Path(path).relative_to(root).parts
        folders[:] = sorted(folders) if len(parts) < MAX_DEPTH else []
        yield path, parts, sorted(files)


def _utterances(chapter: _Chapter, skipped: _Skipped) -> Iterator[Utterance]:
    transcript = f"{chapter.name}.trans.txt"
    texts = _texts(Path(chapter.folder, transcript), skipped) if transcript in chapter.files else {}
    speaker = chapter.name.partition("-")[0]
    for file in chapter.files:
        path = os.path.join(chapter.folder, file)
        match = _UTTERANCE.fullmatch(file)
        if file == transcript:
            continue
        if match is None or f"{match[1]}-{match[2]}" != chapter.name:
            skipped.add("stray file", path)
            continue
        name = file.removesuffix(".flac")
        text = texts.pop(name, None)
        if not text:
            skipped.add("no transcript" if text is None else "empty transcript", path)
        yield Utterance(name=name, corpus=chapter.subset, speaker=speaker, file=path, text=text or "")
    for name in texts:
        skipped.add("transcript without a recording", f"{name} in {os.path.join(chapter.folder, transcript)}")


def _texts(path: Path, skipped: _Skipped) -> dict[str, str]:
    """Utterance name -> words, in lower case: a cased text model would not know words in capitals."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        skipped.add("unreadable transcript", str(path))
        return {}
    words = [line.lower().split() for line in lines if line.strip()]
    return {name: " ".join(said) for name, *said in words}


def _n_samples(path: str) -> int | str:
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
