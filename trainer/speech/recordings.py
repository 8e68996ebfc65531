# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings without transcripts, from a folder of sound files or from prepared speech."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr

from wav2sem_blender.errors import MissingFileError
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ

from ..datasets.librispeech import LibriSpeech, Utterance, is_librispeech, with_splits
from .align import published_times
from .phones import Timing
from .prepared import SpeechStore

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")


class Recordings(Protocol):
    """The data of masked prediction of clusters. An utterance's `path` is its name within the data."""

    root: Path

    def files(self) -> Iterable[Path]:
        """The files that the data's hash covers."""

    def utterances(self) -> tuple[list[Utterance], Counter[str]]:
        """The recordings for training and validation, and the number left out by reason."""

    def samples(self, path: str, first: int = 0, n_samples: int = -1) -> np.ndarray:
        """Mono float32 (S,) at 16 kHz, from sample `first` on.

        Raises:
            soundfile.LibsndfileError: the file is not audio, or damaged.
        """

    def phone_times(self) -> dict[str, list[Timing]]:
        """Published phone times, by the stem of the recording's path, to judge clusters by."""


def open_recordings(root: Path) -> Recordings:
    """Prepared speech if `root` has any, else the sound files below it.

    Raises:
        MissingFileError: there are no recordings.
    """
    prepared = root / "speech"
    return PreparedSpeech(prepared) if (prepared / "clips.json").is_file() else SoundFiles(root)


class PreparedSpeech:
    """The output of `prepare speech`: real and synthetic voices, with the splits of the later stages."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._store = SpeechStore(folder)
        self._records = {record.name: record for record in self._store.records}

    def files(self) -> list[Path]:
        return self._store.files()

    def utterances(self) -> tuple[list[Utterance], Counter[str]]:
        utterances = [
            Utterance(
                name=r.name,
                corpus=r.corpus,
                speaker=r.speaker,
                file=r.name,
                text="",
                split=r.split,
                n_samples=r.n_samples,
            )
            for r in self._store.records
            if r.split != "test"
        ]
        return utterances, Counter()

    def samples(self, path: str, first: int = 0, n_samples: int = -1) -> np.ndarray:
        record = self._records[path]
        n_samples = record.n_samples - first if n_samples < 0 else min(n_samples, record.n_samples - first)
        return self._store.samples(replace(record, first=record.first + first, n_samples=n_samples))

    def phone_times(self) -> dict[str, list[Timing]]:
        return {record.name: record.phones for record in self._store.records if record.phones}


class SoundFiles:
    """LibriSpeech, or any folder of recordings.

    Outside LibriSpeech's layout, the speaker is the part of a file's name before the first - or _ (as in LibriSpeech
    and VCTK), and the subset is the first folder below the root.
    """

    def __init__(self, root: Path) -> None:
        """Raises MissingFileError if there is no recording."""
        walk = os.walk(root, followlinks=True)
        self.root = root
        found = (os.path.join(folder, name) for folder, _, names in walk for name in names)
        suited = (path for path in found if path.lower().endswith(AUDIO_SUFFIXES))
        self._files = sorted(suited, key=lambda path: path.replace(os.sep, "\0"))  # as paths are sorted
        if not self._files:
            raise MissingFileError(
                "{root}: no recordings here ({audio_suffixes}); --data names a folder of speech, such as "
                "LibriSpeech with train-clean-100, train-clean-360, … in it",
                root=root,
                audio_suffixes=", ".join(AUDIO_SUFFIXES),
            )

    def files(self) -> Iterator[Path]:
        return map(Path, self._files)

    def utterances(self) -> tuple[list[Utterance], Counter[str]]:
        if is_librispeech(self.root):
            listed = LibriSpeech(self.root, transcribed=False)
            skipped = Counter(
                {reason: some["count"] for reason, some in listed.skipped.items() if "transcript" not in reason}
            )
            utterances = listed.records
        else:
            skipped = Counter()
            utterances = with_splits(
                [
                    Utterance(
                        name=path.stem,
                        corpus=path.relative_to(self.root).parts[0],
                        speaker=path.stem.replace("-", "_").partition("_")[0],
                        file=str(path),
                        text="",
                    )
                    for path in self.files()
                ]
            )
        named = [replace(utterance, file=str(utterance.path.relative_to(self.root))) for utterance in utterances]
        return [utterance for utterance in named if utterance.split != "test"], skipped

    def samples(self, path: str, first: int = 0, n_samples: int = -1) -> np.ndarray:
        """Decodes only the requested part if the file has the right rate."""
        with soundfile.SoundFile(self.root / path) as file:
            if file.samplerate == SAMPLE_RATE_HZ:
                file.seek(first)
                return file.read(n_samples, dtype="float32", always_2d=True).mean(1)
            whole_S = file.read(dtype="float32", always_2d=True).mean(1)
            samples_S = soxr.resample(whole_S, file.samplerate, SAMPLE_RATE_HZ)
            return samples_S[first : None if n_samples < 0 else first + n_samples]

    def phone_times(self) -> dict[str, list[Timing]]:
        """Phone times from every `alignments.tsv.gz` below the root."""
        times: dict[str, list[Timing]] = {}
        for table in sorted(self.root.rglob("alignments.tsv.gz")):
            times |= published_times(table.parent)
        return times
