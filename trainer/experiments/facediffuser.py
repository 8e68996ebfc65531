# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune` for FaceDiffuser, as published.

Our BIWI has CodeTalker's unit, the root of the face's area. FaceDiffuser divides each axis by its length instead, so
losses on BIWI do not compare with its own.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts.facediffuser import FaceDiffuser

from ..loops.face_recipes import FinetuneVertices
from .hubert import TOY_SIZES


def facediffuser_vocaset() -> FinetuneVertices:
    """FaceDiffuser on VOCASET: HuBERT base, whose projection and first two layers stay as they are.

    20 held-out clips, as each is sampled in every style at the end.
    """
    return FinetuneVertices(
        data="vocaset",
        host=FaceDiffuser(),
        encoder=EncoderConfig(kind="hubert", config={}),
        pretrained="facebook/hubert-base-ls960",
        frozen_layers=2,
        epochs=51,
        valid_clips=20,
    )


def facediffuser_vocaset_wav2sem() -> FinetuneVertices:
    """`facediffuser_vocaset` with the Wav2Sem of --wav2sem."""
    return replace(facediffuser_vocaset(), semantics=True)


def facediffuser_biwi() -> FinetuneVertices:
    """FaceDiffuser on BIWI: twice the width, half the steps."""
    return replace(facediffuser_vocaset(), data="biwi", host=FaceDiffuser(dim=512, steps=500).at_rate(25))


def facediffuser_biwi_wav2sem() -> FinetuneVertices:
    """`facediffuser_biwi` with the Wav2Sem of --wav2sem."""
    return replace(facediffuser_biwi(), semantics=True)


def facediffuser_smoke() -> FinetuneVertices:
    """A few steps of `facediffuser_vocaset` at toy size."""
    host = FaceDiffuser(dim=16, steps=10, audio_dim=TOY_SIZES["hidden_size"])
    encoder = EncoderConfig(kind="hubert", config=TOY_SIZES)
    toy = replace(facediffuser_vocaset(), host=host, encoder=encoder, pretrained="")
    return replace(toy, frozen_layers=1, epochs=1, valid_clips=1)


def facediffuser_smoke_wav2sem() -> FinetuneVertices:
    """`facediffuser_smoke` with the Wav2Sem of --wav2sem."""
    return replace(facediffuser_smoke(), semantics=True)


def facediffuser_biwi_smoke() -> FinetuneVertices:
    """`facediffuser_smoke` on BIWI."""
    toy = facediffuser_smoke()
    return replace(toy, data="biwi", host=toy.host.at_rate(25))


EXPERIMENTS = (
    *(facediffuser_vocaset, facediffuser_vocaset_wav2sem, facediffuser_biwi, facediffuser_biwi_wav2sem),
    *(facediffuser_smoke, facediffuser_smoke_wav2sem, facediffuser_biwi_smoke),
)
