# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune` for the hosts of the paper's table, as published, and at toy size.

A host of two stages needs --prior, a run of `pretrain-prior`.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline import given_features
from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts import codetalker, lgldm, voca
from wav2sem_blender.pipeline.hosts.joint_audio_text import JointAudioText

from ..loops.face_recipes import FinetuneVertices
from .hubert import TOY_SIZES
from .prior import CODETALKER_TOY, LGLDM_MEAD_TOY, LGLDM_TOY, WITH_VALID

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


def joint_audio_text_vocaset() -> FinetuneVertices:
    """A re-derivation of the joint audio-text model on VOCASET; see `trainer/speech/token_features.py`."""
    return FinetuneVertices(
        data="vocaset", host=JointAudioText(), encoder=WAV2VEC2, pretrained="facebook/wav2vec2-base-960h"
    )


def joint_audio_text_biwi() -> FinetuneVertices:
    """`joint_audio_text_vocaset` on BIWI."""
    host = JointAudioText(dim=128, ffn_dim=256).at_rate(25)
    return replace(joint_audio_text_vocaset(), data="biwi", host=host)


def joint_audio_text_smoke() -> FinetuneVertices:
    """A few steps of `joint_audio_text_vocaset` at toy size, with 24 text features."""
    host = JointAudioText(feedback="cached", text_dim=24)
    return replace(joint_audio_text_vocaset(), host=host, encoder=TOY_ENCODER, pretrained="", epochs=1, valid_clips=1)


def joint_audio_text_biwi_smoke() -> FinetuneVertices:
    """`joint_audio_text_smoke` on BIWI."""
    return replace(joint_audio_text_smoke(), data="biwi", host=joint_audio_text_smoke().host.at_rate(25))


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


def lgldm_mead() -> FinetuneVertices:
    """LG-LDM on the vertices of 3DMEAD's men at level 3, told the emotion."""
    return replace(lgldm_vocaset(), data="mead_offsets", host=lgldm.MEAD)


def lgldm_mead_wav2sem() -> FinetuneVertices:
    """`lgldm_mead` with the Wav2Sem of --wav2sem."""
    return replace(lgldm_mead(), semantics=True)


def lgldm_mead_smoke() -> FinetuneVertices:
    """A few steps of `lgldm_mead` at toy size, on the prior of `lgldm_mead_smoke`."""
    return replace(lgldm_smoke(), data="mead_offsets", host=LGLDM_MEAD_TOY)


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


def voca_vocaset() -> FinetuneVertices:
    """VOCA on VOCASET's 60 frames a second, by DeepSpeech's logits in DATA/features.

    A step learns from 64 pairs of frames. 8 pairs of a clip in 3,000 passes see a frame as often as 100 passes over all
    frames do.
    """
    return FinetuneVertices(
        data="vocaset_60",
        host=voca.Voca(pairs=8),
        encoder=given_features.encoder(voca.LOGITS_NAME, voca.LOGITS, stand_in=False),
        mask_share=0.0,
        batch=8,
        epochs=3000,
    )


def voca_vocaset_wav2sem() -> FinetuneVertices:
    """`voca_vocaset` with the Wav2Sem of --wav2sem."""
    return replace(voca_vocaset(), semantics=True)


def voca_biwi() -> FinetuneVertices:
    """VOCA on BIWI at 25 frames a second."""
    return replace(voca_vocaset(), data="biwi")


def voca_biwi_wav2sem() -> FinetuneVertices:
    """`voca_biwi` with the Wav2Sem of --wav2sem."""
    return replace(voca_biwi(), semantics=True)


def voca_vocaset_stand_in() -> FinetuneVertices:
    """`voca_vocaset` by the phones of the bundled model instead of DeepSpeech's logits, through a layer that learns."""
    return replace(voca_vocaset(), encoder=given_features.encoder(voca.LOGITS_NAME, voca.LOGITS, stand_in=True))


def voca_vocaset_stand_in_wav2sem() -> FinetuneVertices:
    """`voca_vocaset_stand_in` with the Wav2Sem of --wav2sem."""
    return replace(voca_vocaset_stand_in(), semantics=True)


def voca_smoke() -> FinetuneVertices:
    """A few steps of `voca_vocaset_stand_in` at toy size."""
    host = voca.Voca(conv_dims=(16, 16, 16, 16), hidden=32, keys=8, pairs=8)
    return replace(voca_vocaset_stand_in(), host=host, batch=2, epochs=1, valid_clips=1)


def voca_smoke_wav2sem() -> FinetuneVertices:
    """`voca_smoke` with the Wav2Sem of --wav2sem."""
    return replace(voca_smoke(), semantics=True)


def voca_biwi_smoke() -> FinetuneVertices:
    """`voca_smoke` on BIWI."""
    return replace(voca_smoke(), data="biwi")


EXPERIMENTS = (
    *(codetalker_vocaset, codetalker_vocaset_wav2sem, codetalker_biwi, codetalker_biwi_wav2sem),
    *(codetalker_smoke, codetalker_smoke_wav2sem, codetalker_biwi_smoke),
    *(joint_audio_text_vocaset, joint_audio_text_biwi, joint_audio_text_smoke, joint_audio_text_biwi_smoke),
    *(lgldm_vocaset, lgldm_vocaset_wav2sem, lgldm_biwi, lgldm_biwi_wav2sem),
    *(lgldm_mead, lgldm_mead_wav2sem),
    *(lgldm_smoke, lgldm_smoke_wav2sem, lgldm_biwi_smoke, lgldm_mead_smoke),
    *(voca_vocaset, voca_vocaset_wav2sem, voca_biwi, voca_biwi_wav2sem),
    *(voca_vocaset_stand_in, voca_vocaset_stand_in_wav2sem),
    *(voca_smoke, voca_smoke_wav2sem, voca_biwi_smoke),
)
