# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune` for UniTalker, as published, on one data set.

The release learns eight data sets at once, two of which are VOCASET and BIWI. The PCA that a head on vertices predicts
is found from the training clips.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts import unitalker
from wav2sem_blender.pipeline.hosts.unitalker import HEADS, UniTalker

from ..loops.face_recipes import FinetuneVertices
from .hubert import TOY_SIZES


def _host(head: str) -> UniTalker:
    return UniTalker(head=head, heads=((head, HEADS[head].width),), scale=HEADS[head].scale)


def unitalker_vocaset() -> FinetuneVertices:
    """UniTalker-B on VOCASET: WavLM base plus, frozen in the first epoch."""
    return FinetuneVertices(
        data="vocaset",
        host=_host(unitalker.VOCASET),
        encoder=EncoderConfig(kind="wavlm", config={}),
        pretrained="microsoft/wavlm-base-plus",
        frozen_epochs=1,
    )


def unitalker_vocaset_wav2sem() -> FinetuneVertices:
    """`unitalker_vocaset` with the Wav2Sem of --wav2sem."""
    return replace(unitalker_vocaset(), semantics=True)


def unitalker_biwi() -> FinetuneVertices:
    """UniTalker-B on BIWI, whose vertices are learnt at a fifth of their size."""
    return replace(unitalker_vocaset(), data="biwi", host=_host(unitalker.BIWI))


def unitalker_biwi_wav2sem() -> FinetuneVertices:
    """`unitalker_biwi` with the Wav2Sem of --wav2sem."""
    return replace(unitalker_biwi(), semantics=True)


def unitalker_large_vocaset() -> FinetuneVertices:
    """UniTalker-L on VOCASET: wav2vec2-large-xlsr-53."""
    return replace(
        unitalker_vocaset(),
        encoder=EncoderConfig(kind="wav2vec2", config={}),
        pretrained="facebook/wav2vec2-large-xlsr-53",
        mask_share=0.075,
    )


def unitalker_large_vocaset_wav2sem() -> FinetuneVertices:
    """`unitalker_large_vocaset` with the Wav2Sem of --wav2sem."""
    return replace(unitalker_large_vocaset(), semantics=True)


def unitalker_large_biwi() -> FinetuneVertices:
    """UniTalker-L on BIWI."""
    return replace(unitalker_large_vocaset(), data="biwi", host=_host(unitalker.BIWI))


def unitalker_large_biwi_wav2sem() -> FinetuneVertices:
    """`unitalker_large_biwi` with the Wav2Sem of --wav2sem."""
    return replace(unitalker_large_biwi(), semantics=True)


def _toy(published: FinetuneVertices) -> FinetuneVertices:
    head = published.host.head  # type: ignore[attr-defined]
    return replace(
        published,
        host=replace(published.host, dim=16, style_dim=4, heads=((head, 4),)),  # type: ignore[type-var, call-arg]
        encoder=EncoderConfig(kind="wavlm", config=TOY_SIZES),
        pretrained="",
        epochs=2,
        valid_clips=1,
    )


def unitalker_smoke() -> FinetuneVertices:
    """A few steps of `unitalker_vocaset` at toy size, from random weights."""
    return _toy(unitalker_vocaset())


def unitalker_smoke_wav2sem() -> FinetuneVertices:
    """`unitalker_smoke` with the Wav2Sem of --wav2sem."""
    return replace(unitalker_smoke(), semantics=True)


def unitalker_biwi_smoke() -> FinetuneVertices:
    """`unitalker_smoke` on BIWI."""
    return _toy(unitalker_biwi())


EXPERIMENTS = (
    *(unitalker_vocaset, unitalker_vocaset_wav2sem, unitalker_biwi, unitalker_biwi_wav2sem),
    *(unitalker_large_vocaset, unitalker_large_vocaset_wav2sem),
    *(unitalker_large_biwi, unitalker_large_biwi_wav2sem),
    *(unitalker_smoke, unitalker_smoke_wav2sem, unitalker_biwi_smoke),
)
