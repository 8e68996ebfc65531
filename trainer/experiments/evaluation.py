# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `evaluate`."""

from __future__ import annotations

from dataclasses import replace

from ..analysis.protocol import CompareHosts
from ..evaluation.protocols import (
    EvaluateChannels,
    EvaluatePrompts,
    EvaluatePronunciation,
    EvaluateSteering,
    EvaluateText,
    EvaluateVertices,
    EvaluateWords,
)
from . import analysis


def vocaset() -> EvaluateVertices:
    """VOCASET's two test subjects, under all training styles."""
    return EvaluateVertices(kind="vocaset")


def biwi_a() -> EvaluateVertices:
    """BIWI Test-A: the six training subjects in their own styles; the published figures are of this split."""
    return EvaluateVertices(kind="biwi")


def biwi_b() -> EvaluateVertices:
    """BIWI Test-B: eight unseen subjects, under all training styles."""
    return replace(biwi_a(), split="test_b")


def mead_sentences() -> EvaluateVertices:
    """3DMEAD's held-out sentences in their speaker's, emotion's and level's style (ProbTalk3D's split)."""
    return EvaluateVertices(kind="mead_sentences")


def mead_identities() -> EvaluateVertices:
    """3DMEAD's held-out speakers, with FLAME's mean face as the speaker unless the model has another."""
    return EvaluateVertices(kind="mead_identities")


def custom() -> EvaluateVertices:
    """The validation split of a studio's own takes (wav + npy + template), as not every studio has a test split."""
    return EvaluateVertices(kind="custom", split="valid")


def bundled() -> EvaluateChannels:
    """The bundled model on the prepared validation recordings."""
    return EvaluateChannels()


def bundled_test() -> EvaluateChannels:
    """The bundled model on the test recordings, which no choice was based on: the model card's figures."""
    return replace(bundled(), split="test")


def bundled_transcripts() -> EvaluateChannels:
    """`bundled` with what is said given as a transcript."""
    return replace(bundled(), conditions=(), languages=False, level_clips=0, transcripts="right")


def bundled_wrong_words() -> EvaluateChannels:
    """`bundled_transcripts` with a fifth of the words exchanged for others."""
    return replace(bundled_transcripts(), transcripts="wrong")


def prompts() -> EvaluatePrompts:
    """Real voices in English, Spanish, French, Italian and Russian, from Debian's packages."""
    return EvaluatePrompts()


def prompts_transcripts() -> EvaluatePrompts:
    """`prompts` with what is said given as a transcript."""
    return replace(prompts(), transcripts="right")


def steering() -> EvaluateSteering:
    """How the bundled model's mouth follows forced phones, on unseen voices."""
    return EvaluateSteering()


def words() -> EvaluateWords:
    """How well the words of a transcript are found, in recordings with published word times."""
    return EvaluateWords()


def pronunciation() -> EvaluatePronunciation:
    """How the add-on pronounces words that it never learned, in 40 languages."""
    return EvaluatePronunciation()


def joint_text() -> EvaluateText:
    """What text adds to sound for a filmed speaker's brows, head and lips, and for which words are stressed."""
    return EvaluateText()


def joint_text_test() -> EvaluateText:
    """`joint_text` on the test recordings, which no choice was based on."""
    return replace(joint_text(), split="test")


def smoke() -> EvaluateVertices:
    """Two clips of VOCASET with all controls that need no hub."""
    return EvaluateVertices(kind="vocaset", max_clips=2)


def table1() -> CompareHosts:
    """The paper's Table 1: --data has VOCASET, BIWI and LibriSpeech, --models a folder for each host and set."""
    return CompareHosts(sets=(vocaset(), biwi_a()), words=analysis.librispeech())


def table1_smoke() -> CompareHosts:
    """As `table1`, with two clips of each set and few words."""
    words = replace(analysis.smoke(), corpora=(), parts=("homophones",), max_utterances=24)
    return CompareHosts(sets=tuple(replace(each, max_clips=2) for each in table1().sets), words=words)


EXPERIMENTS = (
    *(vocaset, biwi_a, biwi_b, mead_sentences, mead_identities, custom, bundled, bundled_test, prompts),
    *(bundled_transcripts, bundled_wrong_words, prompts_transcripts, steering, words, pronunciation),
    *(joint_text, joint_text_test, smoke),
    *(table1, table1_smoke),
)
