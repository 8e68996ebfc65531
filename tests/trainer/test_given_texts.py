# SPDX-License-Identifier: GPL-3.0-or-later
"""The transcripts that an evaluation gives: none, right, or with a fifth of the words exchanged."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from trainer.evaluation.given_texts import GivenTexts, with_wrong_words
from wav2sem_blender.errors import UserError

TEXTS = ["bin blue at f two now", "place red by q nine again", None]


def words_of(given: GivenTexts, text: str | None) -> list[str]:
    transcript = given.of(text)
    assert transcript is not None
    return [word.text for word in transcript.words]


def test_right_words_are_those_that_are_said():
    assert words_of(GivenTexts("right", TEXTS, 0), TEXTS[0]) == TEXTS[0].split()


def test_a_fifth_of_the_wrong_ones_are_other_words_of_the_recordings():
    said = (TEXTS[0] + " " + TEXTS[1]).split()[:10]
    given = words_of(GivenTexts("wrong", TEXTS, 0), " ".join(said))
    changed = [(a, b) for a, b in zip(said, given, strict=True) if a != b]
    assert len(changed) == 2
    assert all(word in " ".join(filter(None, TEXTS)).split() for _, word in changed)


def test_without_texts_none_are_given():
    assert GivenTexts("none", TEXTS, 0).of(TEXTS[0]) is None
    assert GivenTexts("right", TEXTS, 0).of(None) is None


def test_another_kind_is_refused():
    with pytest.raises(UserError, match="transcripts 'wong': choose from none, right, wrong"):
        GivenTexts("wong", TEXTS, 0)


def test_which_words_are_wrong_is_told():
    words, is_wrong = with_wrong_words(list("abcdefghij"), list("klm"), 0.3, np.random.default_rng(0))
    assert is_wrong.sum() == 3
    assert [a != b for a, b in zip("abcdefghij", words, strict=True)] == is_wrong.tolist()


def test_the_model_gets_the_transcript():
    from trainer.evaluation.evaluate_channels import MouthModel

    asked = []
    animator = SimpleNamespace(
        folder=SimpleNamespace(config=SimpleNamespace(styles=("natural",))),
        animate=lambda *arguments, **said: asked.append(said),
    )
    mouth = MouthModel(animator=animator, gap_K=np.ones(1), semantic_strength=1.0)
    transcript = GivenTexts("right", TEXTS, 0).of(TEXTS[0])
    mouth.animate(np.zeros(10), None, transcript, "en")
    mouth.animate(np.zeros(10))
    assert asked == [{"transcript": transcript, "language": "en"}, {"transcript": None, "language": ""}]
