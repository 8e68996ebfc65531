# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune` for the hosts of the paper's table, as published, and at toy size.

A host of two stages needs --prior, a run of `pretrain-prior`.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts import codetalker, lgldm

from ..loops.face_recipes import FinetuneVertices
from .hubert import TOY_SIZES
from .prior import CODETALKER_TOY, LGLDM_TOY, WITH_VALID

WAV2VEC2 = EncoderConfig(kind="wav2vec2", config={})
HUBERT_LARGE = "facebook/hubert-large-ls960-ft"
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


def lgldm_vocaset() -> FinetuneVertices:
    """LG-LDM on VOCASET: noise of the latents of the codec of --prior, with HuBERT large."""
    return FinetuneVertices(
        data="vocaset",
        host=lgldm.VOCASET,
        encoder=EncoderConfig(kind="hubert", config={}),
        pretrained=HUBERT_LARGE,
        weight_decay=0.01,
    )


def lgldm_vocaset_wav2sem() -> FinetuneVertices:
    """`lgldm_vocaset` with the Wav2Sem of --wav2sem."""
    return replace(lgldm_vocaset(), semantics=True)


def lgldm_biwi() -> FinetuneVertices:
    """LG-LDM on BIWI with wav2vec 2.0 base; as published it learns the held-out sentences 33 to 36 too."""
    return replace(
        lgldm_vocaset(),
        data="biwi",
        host=lgldm.BIWI,
        encoder=WAV2VEC2,
        pretrained="facebook/wav2vec2-base-960h",
        train_splits=WITH_VALID,
        epochs=50,
    )


def lgldm_biwi_wav2sem() -> FinetuneVertices:
    """`lgldm_biwi` with the Wav2Sem of --wav2sem."""
    return replace(lgldm_biwi(), semantics=True)


def lgldm_smoke() -> FinetuneVertices:
    """A few steps of `lgldm_vocaset` at toy size, on the prior of `lgldm_smoke`."""
    host = replace(lgldm.VOCASET, **LGLDM_TOY)
    return replace(lgldm_vocaset(), host=host, encoder=TOY_ENCODER, pretrained="", epochs=1, valid_clips=1)


def lgldm_smoke_wav2sem() -> FinetuneVertices:
    """`lgldm_smoke` with the Wav2Sem of --wav2sem."""
    return replace(lgldm_smoke(), semantics=True)


def lgldm_biwi_smoke() -> FinetuneVertices:
    """A few steps of `lgldm_biwi` at toy size, on the prior of `lgldm_biwi_smoke`."""
    host = replace(lgldm.BIWI, **LGLDM_TOY)
    return replace(lgldm_biwi(), host=host, encoder=TOY_ENCODER, pretrained="", epochs=1, valid_clips=1)


EXPERIMENTS = (
    *(codetalker_vocaset, codetalker_vocaset_wav2sem, codetalker_biwi, codetalker_biwi_wav2sem),
    *(codetalker_smoke, codetalker_smoke_wav2sem, codetalker_biwi_smoke),
    *(lgldm_vocaset, lgldm_vocaset_wav2sem, lgldm_biwi, lgldm_biwi_wav2sem),
    *(lgldm_smoke, lgldm_smoke_wav2sem, lgldm_biwi_smoke),
)
