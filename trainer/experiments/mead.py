# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune` for ProbTalk3D and LSF-Animation on 3DMEAD, as published, and at toy size.

Both need --prior, a run of `pretrain-prior mead`, and flame.npz in the data's folder.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts.lsf import LSF
from wav2sem_blender.pipeline.hosts.probtalk3d import ProbTalk3D

from ..loops.face_recipes import FinetuneVertices
from .hubert import TOY_SIZES
from .mead_prior import ADAM, CODEC_TOY

TOY_ENCODER = EncoderConfig(kind="hubert", config=TOY_SIZES)
TOY_WIDTH = TOY_SIZES["hidden_size"]


def probtalk3d_mead() -> FinetuneVertices:
    """ProbTalk3D: HuBERT without its first two layers, and the predictor."""
    return FinetuneVertices(
        data="mead_sentences",
        host=ProbTalk3D(),
        encoder=EncoderConfig(kind="hubert", config={}),
        pretrained="facebook/hubert-base-ls960",
        frozen_layers=2,
        mask_share=0.05,
        epochs=201,
        learning_rate=1e-5,
        **ADAM,
    )


def probtalk3d_mead_wav2sem() -> FinetuneVertices:
    """`probtalk3d_mead` with the Wav2Sem of --wav2sem."""
    return replace(probtalk3d_mead(), semantics=True)


def lsf_mead() -> FinetuneVertices:
    """LSF-Animation: emotion2vec, frozen, hears the emotion, and the face's shape makes the speaker."""
    return replace(
        probtalk3d_mead(),
        data="mead_identities",
        host=LSF(),
        emotion=EncoderConfig(kind="emotion2vec", config={}),
        emotion_weights="emotion2vec_base.pt",
    )


def lsf_mead_wav2sem() -> FinetuneVertices:
    """`lsf_mead` with the Wav2Sem of --wav2sem."""
    return replace(lsf_mead(), semantics=True)


def probtalk3d_smoke() -> FinetuneVertices:
    """A few steps of `probtalk3d_mead` at toy size, on the prior of `mead_smoke`."""
    return _toy(probtalk3d_mead(), ProbTalk3D(**CODEC_TOY, feature_dim=TOY_WIDTH))


def probtalk3d_smoke_wav2sem() -> FinetuneVertices:
    """`probtalk3d_smoke` with the Wav2Sem of --wav2sem."""
    return replace(probtalk3d_smoke(), semantics=True)


def lsf_smoke() -> FinetuneVertices:
    """A few steps of `lsf_mead` at toy size, on the prior of `mead_smoke`; a small HuBERT hears the emotion."""
    host = LSF(**CODEC_TOY, feature_dim=TOY_WIDTH, emotion_dim=TOY_WIDTH, fusion_dim=4)
    return replace(_toy(lsf_mead(), host), emotion=TOY_ENCODER, emotion_weights="")


def lsf_smoke_wav2sem() -> FinetuneVertices:
    """`lsf_smoke` with the Wav2Sem of --wav2sem."""
    return replace(lsf_smoke(), semantics=True)


def _toy(whole: FinetuneVertices, host: ProbTalk3D) -> FinetuneVertices:
    return replace(
        whole,
        host=host,
        encoder=TOY_ENCODER,
        pretrained="",
        frozen_layers=1,
        epochs=1,
        valid_clips=1,
        learning_rate=1e-3,
    )


EXPERIMENTS = (
    *(probtalk3d_mead, probtalk3d_mead_wav2sem, lsf_mead, lsf_mead_wav2sem),
    *(probtalk3d_smoke, probtalk3d_smoke_wav2sem, lsf_smoke, lsf_smoke_wav2sem),
)
