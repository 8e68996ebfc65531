# SPDX-License-Identifier: GPL-3.0-or-later
"""How sure the ear is of a line: which lines of a night somebody should listen to first.

Shapes: L encoder frames, P phones.
"""

from __future__ import annotations

import math

import numpy as np

from ..pipeline.phones import SILENCE, Phones
from ..pipeline.words.track import Track


def confidence(phones: Phones | None, fits: float | None = None) -> float | None:
    """How sure a line is, 0..1; None if the model tells no phones.

    It is what the ear says, or with a transcript the geometric mean of that and of the transcript's fit: both are mean
    probabilities of phones, so that lines with and without a transcript can be compared.

    Args:
        phones: What was heard.
        fits: As `fit` says; None without a transcript.
    """
    heard = _of_the_ear(phones)
    if heard is None or fits is None:
        return heard
    return round(math.sqrt(heard * fits), 4)


def fit(track: Track, n_words: int) -> float:
    """How well a transcript of so many words fits what was heard, 0..1: the mean of its words' confidences.

    A word that was not found counts 0.
    """
    return round(sum(word.confidence for word in track.words) / max(1, n_words), 4)


def _of_the_ear(phones: Phones | None) -> float | None:
    """Mean probability of the likeliest phone where speech is heard.

    0 if there is only silence: somebody should listen to that, too.
    """
    if phones is None or SILENCE not in phones.names:
        return None
    posteriors_LP = phones.posteriors_LP.astype(np.float32)
    silence = phones.names.index(SILENCE)
    speech_L = posteriors_LP[:, silence] < 0.5
    if not speech_L.any():
        return 0.0
    return round(float(posteriors_LP[speech_L].max(axis=1).mean(dtype=np.float64)), 4)
