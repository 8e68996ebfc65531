# SPDX-License-Identifier: GPL-3.0-or-later
"""Equal-length training crops of prepared speech, augmented and seeded.

A crop joins clips of one speaker until it is full. Crops can therefore have any length, and batches need no padding,
which would change the group norm's statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.audio import VARIANCE_EPSILON
from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES

from .augment import Augmenter
from .augmentation import Augmentation
from .phones import Timing, frame_labels
from .prepared import SAMPLE_RATE_HZ, SpeechRecord, SpeechStore


def frame_times_s(positions_T: np.ndarray) -> np.ndarray:
    """The middle (s) of the receptive field of an encoder frame position."""
    return (positions_T * HOP_SAMPLES + RECEPTIVE_FIELD_SAMPLES / 2) / SAMPLE_RATE_HZ


def normalise(samples_S: np.ndarray) -> np.ndarray:
    """Zero mean, unit variance, as the pipeline does for a whole recording."""
    return ((samples_S - samples_S.mean()) / np.sqrt(samples_S.var() + VARIANCE_EPSILON)).astype(np.float32)


class Crop(NamedTuple):
    """A part of a recording: `samples_S` as it is heard, `clean_S` without the augmentation (both float32 (S,),
    normalised), and its phones, int64 (T,)."""

    samples_S: np.ndarray
    clean_S: np.ndarray
    labels_T: np.ndarray


class CropSampler:
    """Draws crops: a corpus by its weight, then one of its speakers, then clips of that speaker."""

    def __init__(
        self,
        store: SpeechStore,
        records: list[SpeechRecord],
        corpus_weights: Mapping[str, float],
        augmentation: Augmentation,
    ) -> None:
        self._store, self._settings = store, augmentation
        self._augment = Augmenter(store, augmentation, 0)
        self._speakers: dict[str, dict[str, list[SpeechRecord]]] = {}
        for record in records:
            self._speakers.setdefault(record.corpus, {}).setdefault(record.speaker, []).append(record)
        missing = sorted(set(corpus_weights) - set(self._speakers))
        if missing:
            raise UserError(
                "no prepared speech of {missing}; run `python -m trainer prepare speech` again",
                missing=", ".join(missing),
            )
        self._corpora = sorted(corpus_weights)
        weights = np.array([corpus_weights[corpus] for corpus in self._corpora])
        self._weights = weights / weights.sum()

    def crop(self, n_samples: int, positions_T: np.ndarray, rng: np.random.Generator) -> Crop:
        """A crop with labels at the given encoder positions."""
        settings = self._settings
        if rng.random() < settings.speechless_chance:
            clean_S, phones = self._augment.speechless(n_samples, rng), [("SIL", 0.0, n_samples / SAMPLE_RATE_HZ)]
            samples_S = clean_S
        else:
            clean_S, phones = self._speech(n_samples, rng)
            samples_S = self._augment.passages(normalise(self._augment(clean_S, rng)), rng)
        level = 10 ** (rng.uniform(*settings.level_db) / 20)
        labels_T = frame_labels(phones, frame_times_s(positions_T))
        return Crop((level * samples_S).astype(np.float32), normalise(clean_S), labels_T)

    def _speech(self, n_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, list[Timing]]:
        speakers = self._speakers[self._corpora[rng.choice(len(self._corpora), p=self._weights)]]
        records = speakers[sorted(speakers)[rng.integers(len(speakers))]]
        speed = rng.uniform(*self._settings.speed)
        wanted = int(np.ceil(n_samples * speed)) + 1
        parts: list[np.ndarray] = []
        phones: list[Timing] = []
        filled = 0
        while filled < wanted:
            record = records[rng.integers(len(records))]
            samples_S = self._store.samples(record)
            skip = int(rng.integers(max(1, len(samples_S) - wanted + 1))) if not parts else 0
            offset_s = (filled - skip) / SAMPLE_RATE_HZ
            phones += [
                (phone, (start + offset_s) / speed, (end + offset_s) / speed)
                for phone, start, end in record.phones or []
                if end + offset_s > filled / SAMPLE_RATE_HZ
            ]
            parts.append(samples_S[skip:] / max(1e-4, float(np.abs(samples_S).max())))
            filled += len(parts[-1])
        source_S = np.concatenate(parts)
        return np.interp(np.arange(n_samples) * speed, np.arange(len(source_S)), source_S), phones
