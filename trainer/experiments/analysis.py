# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `analyze`."""

from __future__ import annotations

from dataclasses import replace

from ..analysis.protocol import Analyze


def librispeech() -> Analyze:
    """The protocol of Choi et al. 2024 on dev-clean and test-clean: --data is LibriSpeech's folder."""
    return Analyze(corpora=("dev-clean", "test-clean"))


def bundled() -> Analyze:
    """The bundled model on the transcribed clips of its own corpora, raw or prepared."""
    return Analyze(corpora=("librispeech_4_aligned", "vctk"), pairs=2000)


def mouths() -> Analyze:
    """Only mouth strips: filmed lips and each model's, on p b m, f v, w oo and an open vowel."""
    return replace(bundled(), parts=("mouths",))


def vocaset() -> Analyze:
    """Apertures, error maps and training curves of a model on VOCASET's test split."""
    return Analyze(parts=("apertures", "errors", "curves"), faces="vocaset")


def biwi() -> Analyze:
    """As `vocaset`, on BIWI's Test-A."""
    return replace(vocaset(), faces="biwi")


def custom() -> Analyze:
    """As `vocaset`, on the test split of a studio's own recordings."""
    return replace(vocaset(), faces="custom")


def smoke() -> Analyze:
    """Every part of `bundled`, in seconds."""
    return replace(
        bundled(),
        corpora=("librispeech_4_aligned", "dev-clean"),
        max_utterances=24,
        words=1000,
        pairs=40,
        seeds=(0, 1),
        tsne_pairs=3,
        tsne_tokens=4,
        clips=1,
        longest_s=2.0,
        sentences=1,
        voices=0,
    )


EXPERIMENTS = (librispeech, bundled, mouths, vocaset, biwi, custom, smoke)
