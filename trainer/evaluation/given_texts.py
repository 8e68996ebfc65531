# SPDX-License-Identifier: GPL-3.0-or-later
"""Transcripts that an evaluation gives to the model: the right ones, or some with wrong words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.words.transcript import Transcript, parse_transcript

NONE, RIGHT, WRONG = "none", "right", "wrong"
GIVEN = (NONE, RIGHT, WRONG)
WRONG_SHARE = 0.2


class GivenTexts:
    """Makes the transcripts of recordings. Which words are wrong depends on the seed and on the calls' order."""

    def __init__(self, given: str, texts: Iterable[str | None], seed: int) -> None:
        """`given` is one of `GIVEN`; wrong words are those of the other `texts`.

        Raises:
            UserError: It is none of them.
        """
        if given not in GIVEN:
            raise UserError("transcripts {given!r}: choose from {known}", given=given, known=", ".join(GIVEN))
        self._given = given
        self._words = sorted({word.lower() for text in texts if text for word in text.split()})
        self._rng = np.random.default_rng(seed)

    def of(self, text: str | None, language: str = "en") -> Transcript | None:
        """The transcript of a recording whose text this is; None without a text, or if none are given."""
        if not text or self._given == NONE:
            return None
        words = text.split()
        if self._given == WRONG:
            words = with_wrong_words(words, self._words, WRONG_SHARE, self._rng)[0]
        return parse_transcript(" ".join(words), language=language)


def with_wrong_words(
    words: list[str], others: list[str], share: float, rng: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """The words, of which a share is replaced by `others`, and which those are (W,)."""
    changed, is_wrong = list(words), np.zeros(len(words), bool)
    is_wrong[rng.permutation(len(words))[: round(share * len(words))]] = True
    for i in np.flatnonzero(is_wrong):
        drawn = (others[k] for k in rng.integers(len(others), size=8))
        changed[i] = next(word for word in drawn if word != words[i].lower())
    return changed, is_wrong
