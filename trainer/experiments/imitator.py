# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune` for Imitator: the general model, and its adaptation to an actor.

The released settings are for debugging (2 epochs), so the number of epochs is FaceFormer's. There is none for BIWI: its
width is FaceFormer's too.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts.imitator import Imitator

from ..loops.face_recipes import AdaptActor, FinetuneVertices
from .hubert import TOY_SIZES


def imitator_vocaset() -> FinetuneVertices:
    """Imitator on VOCASET, with more weight on frames of p, b and m."""
    return FinetuneVertices(
        data="vocaset",
        host=Imitator(),
        encoder=EncoderConfig(kind="wav2vec2", config={}),
        pretrained="facebook/wav2vec2-base-960h",
        closures=True,
    )


def imitator_vocaset_wav2sem() -> FinetuneVertices:
    """`imitator_vocaset` with the Wav2Sem of --wav2sem."""
    return replace(imitator_vocaset(), semantics=True)


def imitator_biwi() -> FinetuneVertices:
    """Imitator on BIWI."""
    return replace(imitator_vocaset(), data="biwi", host=Imitator(dim=128).at_rate(25))


def imitator_biwi_wav2sem() -> FinetuneVertices:
    """`imitator_biwi` with the Wav2Sem of --wav2sem."""
    return replace(imitator_biwi(), semantics=True)


def imitator_adapt() -> AdaptActor:
    """The general model of --prior, adapted to the one actor of a studio's own recordings."""
    return AdaptActor(data="custom")


def imitator_adapt_vocaset() -> AdaptActor:
    """The general model of --prior, adapted to an actor of VOCASET's test split.

    The release learns from four other sentences of this actor, which FaceFormer's splits leave out.
    """
    return AdaptActor(data="vocaset", subject="FaceTalk_170731_00024_TA")


def imitator_smoke() -> FinetuneVertices:
    """A few steps of `imitator_vocaset` at toy size."""
    encoder = EncoderConfig(kind="wav2vec2", config=TOY_SIZES)
    toy = replace(imitator_vocaset(), encoder=encoder, pretrained="", closures=False, epochs=1, valid_clips=1)
    return replace(toy, host=Imitator(dim=32))


def imitator_smoke_wav2sem() -> FinetuneVertices:
    """`imitator_smoke` with the Wav2Sem of --wav2sem."""
    return replace(imitator_smoke(), semantics=True)


def imitator_biwi_smoke() -> FinetuneVertices:
    """`imitator_smoke` on BIWI."""
    return replace(imitator_smoke(), data="biwi", host=Imitator(dim=32).at_rate(25))


def imitator_adapt_smoke() -> AdaptActor:
    """A few steps of `imitator_adapt_vocaset`, on one clip of the first actor of the test split."""
    smoke = replace(imitator_adapt_vocaset(), subject="FaceTalk_170809_00138_TA")
    return replace(smoke, train_clips=1, valid_clips=1, epochs=(2, 2))


EXPERIMENTS = (
    *(imitator_vocaset, imitator_vocaset_wav2sem, imitator_biwi, imitator_biwi_wav2sem),
    *(imitator_adapt, imitator_adapt_vocaset),
    *(imitator_smoke, imitator_smoke_wav2sem, imitator_biwi_smoke, imitator_adapt_smoke),
)
