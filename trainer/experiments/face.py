# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune`.

FaceFormer's published recipe on the vertices of VOCASET, BIWI or a studio's own recordings, and the bundled model's on
ARKit-named channels.
"""

from __future__ import annotations

from dataclasses import replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels

from ..loops.face_recipes import AblateSemantics, FinetuneChannels, FinetuneForced, FinetuneVertices
from .hubert import ANYWHERE, TOY_SIZES

BIWI = FaceFormer(dim=128, ffn_dim=256).at_rate(25)


def vocaset() -> FinetuneVertices:
    """FaceFormer on VOCASET with wav2vec 2.0 base (960 h), without semantics."""
    return FinetuneVertices(
        data="vocaset",
        encoder=EncoderConfig(kind="wav2vec2", config={}),
        pretrained="facebook/wav2vec2-base-960h",
    )


def vocaset_hubert() -> FinetuneVertices:
    """`vocaset` with HuBERT base instead."""
    hubert = EncoderConfig(kind="hubert", config={})
    return replace(vocaset(), encoder=hubert, pretrained="facebook/hubert-base-ls960")


def vocaset_wav2sem() -> FinetuneVertices:
    """`vocaset_hubert` with the Wav2Sem of --wav2sem (CLS or mean, as it was trained)."""
    return replace(vocaset_hubert(), semantics=True)


def vocaset_cached() -> FinetuneVertices:
    """`vocaset` with the cached loop: one draw of dropout a clip, several times as fast."""
    return replace(vocaset(), host=FaceFormer(feedback="cached"))


def biwi() -> FinetuneVertices:
    """FaceFormer on BIWI (128-d) with wav2vec 2.0 base (960 h), without semantics."""
    return replace(vocaset(), data="biwi", host=BIWI)


def biwi_hubert() -> FinetuneVertices:
    """`biwi` with HuBERT base instead."""
    return replace(vocaset_hubert(), data="biwi", host=BIWI)


def biwi_wav2sem() -> FinetuneVertices:
    """`biwi_hubert` with the Wav2Sem of --wav2sem."""
    return replace(biwi_hubert(), semantics=True)


def custom() -> FinetuneVertices:
    """A studio's own recordings, with the encoder of --hubert, or wav2vec 2.0 base; cached."""
    return replace(vocaset_cached(), data="custom")


def smoke() -> FinetuneVertices:
    """A few steps of `vocaset_cached` at toy size, from random weights."""
    encoder = EncoderConfig(kind="wav2vec2", config=TOY_SIZES)
    return replace(vocaset_cached(), encoder=encoder, pretrained="", epochs=1, valid_clips=1)


def smoke_wav2sem() -> FinetuneVertices:
    """`smoke` with the Wav2Sem of --wav2sem."""
    return replace(smoke(), semantics=True)


def biwi_smoke() -> FinetuneVertices:
    """`smoke` on BIWI."""
    return replace(smoke(), data="biwi", host=replace(BIWI, feedback="cached"))


def custom_smoke() -> FinetuneVertices:
    """`smoke` on a studio's own layout."""
    return replace(smoke(), data="custom")


def bundled() -> FinetuneChannels:
    """The bundled face model: FaceFormer's 64-d decoder on the ARKit-named basis."""
    return FinetuneChannels(
        host=FaceFormerChannels(look_ahead=4, steady=True),
        styles=("natural", "clear", "mumbled", "artist"),
        articulation=("mumbled", "clear"),
        versions=3,
        driven_versions=1,
        steps=4000,
        augmentation=replace(ANYWHERE, speed=(0.85, 1.18)),
    )


def bundled_smoke() -> FinetuneChannels:
    """A few steps of `bundled`."""
    return replace(
        bundled(), versions=1, driven_versions=1, speechless=2, steps=3, batch=2, crop_frames=30, warmup_steps=1
    )


def bundled_forced() -> FinetuneForced:
    """Let phones be forced in the bundled face of --prior, a run or a model folder."""
    return FinetuneForced(face=bundled())


def forced_smoke() -> FinetuneForced:
    """A few steps of `bundled_forced`."""
    return FinetuneForced(face=bundled_smoke(), editions=1, steps=3, batch=2, crop_frames=24, warmup_steps=1)


def bundled_ablation() -> AblateSemantics:
    """Does F_s help the bundled face: without, constant, shuffled, its own, the text's; three seeds each."""
    return AblateSemantics(face=replace(bundled(), versions=2, driven_versions=1, steps=800))


def ablation_smoke() -> AblateSemantics:
    """A few steps of `bundled_ablation`."""
    return AblateSemantics(face=bundled_smoke(), seeds=(0,))


EXPERIMENTS = (
    *(vocaset, vocaset_hubert, vocaset_wav2sem, vocaset_cached),
    *(biwi, biwi_hubert, biwi_wav2sem),
    custom,
    *(bundled, bundled_forced, bundled_ablation),
    *(smoke, smoke_wav2sem, biwi_smoke, custom_smoke, bundled_smoke, forced_smoke, ablation_smoke),
)
