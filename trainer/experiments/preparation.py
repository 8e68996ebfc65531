# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `prepare`: data that a later stage reads, made from corpora on disk."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class PrepareBasis:
    """ICT-FaceKit's ARKit expressions on FLAME: OUT/basis.npz, and OUT/upper_face.npz for the add-on."""


@dataclass(frozen=True, kw_only=True)
class PrepareSpeech:
    """Speech with phone times: OUT/speech. `synthetic` clips are spoken by flite (0 needs no flite); `languages` adds
    espeak-ng's German, Spanish, French, Mandarin and Japanese."""

    synthetic: int = 1800
    languages: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PrepareMotion:
    """ARKit curves fitted to tracked landmarks: OUT/motion; needs OUT/basis.npz."""


@dataclass(frozen=True, kw_only=True)
class PrepareDriven:
    """Curves for all other aligned voices: OUT/driven; reads `speech` and `motion` below DATA."""

    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PrepareVocaset:
    """VOCASET's four original files as one npy and wav a sequence: OUT."""


@dataclass(frozen=True, kw_only=True)
class PrepareBiwi:
    """BIWI's .vl frames, preprocessed as CodeTalker does, as one npy and wav a sequence: OUT."""


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
