# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune` for the hosts of the paper's table, as published, and at toy size.

A host of two stages needs --prior, a run of `pretrain-prior`.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts import codetalker

from ..loops.face_recipes import FinetuneVertices
from .hubert import TOY_SIZES
from .prior import CODETALKER_TOY

WAV2VEC2 = EncoderConfig(kind="wav2vec2", config={})
TOY_ENCODER = EncoderConfig(kind="wav2vec2", config=TOY_SIZES)


def codetalker_vocaset() -> FinetuneVertices:
    """CodeTalker on VOCASET: teacher forcing, on the codec of --prior."""
    return FinetuneVertices(
        data="vocaset", host=codetalker.VOCASET, encoder=WAV2VEC2, pretrained="facebook/wav2vec2-base-960h"
    )


def codetalker_vocaset_wav2sem() -> FinetuneVertices:
    """`codetalker_vocaset` with the Wav2Sem of --wav2sem."""
    return replace(codetalker_vocaset(), semantics=True)


def codetalker_biwi() -> FinetuneVertices:
    """CodeTalker on BIWI."""
    return replace(codetalker_vocaset(), data="biwi", host=codetalker.BIWI)


def codetalker_biwi_wav2sem() -> FinetuneVertices:
    """`codetalker_biwi` with the Wav2Sem of --wav2sem."""
    return replace(codetalker_biwi(), semantics=True)


def codetalker_smoke() -> FinetuneVertices:
    """A few steps of `codetalker_vocaset` at toy size, on the prior of `smoke`."""
    host = replace(codetalker.VOCASET, **CODETALKER_TOY)
    return replace(codetalker_vocaset(), host=host, encoder=TOY_ENCODER, pretrained="", epochs=1, valid_clips=1)


def codetalker_smoke_wav2sem() -> FinetuneVertices:
    """`codetalker_smoke` with the Wav2Sem of --wav2sem."""
    return replace(codetalker_smoke(), semantics=True)


def codetalker_biwi_smoke() -> FinetuneVertices:
    """`codetalker_smoke` on BIWI, on the prior of `biwi_smoke`."""
    return replace(codetalker_smoke(), data="biwi", host=replace(codetalker.BIWI, **CODETALKER_TOY))


EXPERIMENTS = (
    *(codetalker_vocaset, codetalker_vocaset_wav2sem, codetalker_biwi, codetalker_biwi_wav2sem),
    *(codetalker_smoke, codetalker_smoke_wav2sem, codetalker_biwi_smoke),
)
