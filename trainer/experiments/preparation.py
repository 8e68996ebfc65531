# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `prepare`: data that a later stage reads, made from corpora on disk."""

from __future__ import annotations

from dataclasses import replace

from ..loops.prepare import PrepareBasis, PrepareBiwi, PrepareDriven, PrepareMotion, PrepareVocaset
from ..speech.prepared import PrepareSpeech


def basis() -> PrepareBasis:
    """The bundled model's channels."""
    return PrepareBasis()


def speech() -> PrepareSpeech:
    """The bundled model's speech."""
    return PrepareSpeech()


def motion() -> PrepareMotion:
    """The bundled model's captured motion."""
    return PrepareMotion()


def driven() -> PrepareDriven:
    """The bundled model's motion for voices without a face."""
    return PrepareDriven()


def vocaset() -> PrepareVocaset:
    """The published fine-tuning data, from the form it is handed out in."""
    return PrepareVocaset()


def biwi() -> PrepareBiwi:
    """BIWI likewise: preprocessing takes longer than training's own reading."""
    return PrepareBiwi()


def smoke() -> PrepareSpeech:
    """`speech` without synthesis."""
    return replace(speech(), synthetic=0, languages=False)


EXPERIMENTS = (basis, speech, motion, driven, vocaset, biwi, smoke)
