# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `prepare`."""

from __future__ import annotations

from dataclasses import replace

from ..loops.prepare import PrepareBasis, PrepareBiwi, PrepareDriven, PrepareMotion, PrepareVocaset
from ..speech.prepared import PreparePronunciation, PrepareSpeech


def basis() -> PrepareBasis:
    """The bundled model's channels."""
    return PrepareBasis()


def speech() -> PrepareSpeech:
    """The bundled model's speech."""
    return PrepareSpeech()


def pronunciation() -> PreparePronunciation:
    """How the add-on pronounces words, and guesses their language."""
    return PreparePronunciation()


def motion() -> PrepareMotion:
    """The bundled model's captured motion."""
    return PrepareMotion()


def driven() -> PrepareDriven:
    """The bundled model's motion for voices without a film."""
    return PrepareDriven()


def vocaset() -> PrepareVocaset:
    """The published fine-tuning data, from the original files."""
    return PrepareVocaset()


def biwi() -> PrepareBiwi:
    """BIWI likewise; this saves preprocessing every frame in every epoch."""
    return PrepareBiwi()


def smoke() -> PrepareSpeech:
    """`speech` without synthesis."""
    return replace(speech(), synthetic=0, languages=False, kokoro=False)


EXPERIMENTS = (basis, speech, pronunciation, motion, driven, vocaset, biwi, smoke)
