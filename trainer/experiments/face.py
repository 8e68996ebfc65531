# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune`.

FaceFormer's published recipe on the vertices of VOCASET, BIWI or a studio's own recordings, and the bundled model's on
ARKit-named channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint import DecoderConfig, EncoderConfig

from ..motion.face_weights import FaceWeights
from ..speech.augmentation import Augmentation
from .hubert import ANYWHERE, TOY_SIZES

FEEDBACK = ("published", "cached", "teacher")


@dataclass(frozen=True, kw_only=True)
class FinetuneVertices:
    """FaceFormer on vertices, as published where no attribute says otherwise.

    The encoder's CNN is frozen and the rest of it trained; a Wav2Sem is frozen whole. CLS or mean is a property of the
    Wav2Sem that `--wav2sem` names.

    Attributes:
        data: layout of --data: "vocaset", "biwi" or "custom".
        encoder: its kind and, where it starts from nothing, its size; `pretrained` and --hubert bring their own size.
        pretrained: folder or hub name of the encoder's weights, as "facebook/wav2vec2-base-960h"; "" starts from
            nothing, which is for tests, unless --hubert names a run.
        semantics: fuse the Wav2Sem of --wav2sem.
        dim: decoder width, 64 for VOCASET and 128 for BIWI; its feed-forward layers are twice as wide.
        feedback: what a frame is fed while training. "published": the model's own previous frame, the whole prefix
            decoded again with fresh dropout at every step; "cached": the same with one draw of dropout, several times
            as fast; "teacher": the true previous frame, one parallel pass.
        mask_share, mask_frames, min_masks: SpecAugment in time, spans of `mask_frames` over this share of the frames,
            never fewer than `min_masks` spans; `mask_share` 0 switches it off.
        valid_clips: at most so many held-out clips are watched after each epoch; 0 watches none.
        license: of the trained weights, for the model's config.json.
    """

    data: str
    encoder: EncoderConfig
    pretrained: str = ""
    semantics: bool = False
    dim: int = 64
    heads: int = 4
    dropout: float = 0.1
    feedback: str = "published"
    mask_share: float = 0.05
    mask_frames: int = 10
    min_masks: int = 2
    epochs: int = 100
    batch: int = 1
    learning_rate: float = 1e-4
    valid_clips: int = 1000
    license: str = ""
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.feedback not in FEEDBACK:
            raise UserError(
                "feedback {feedback!r}: known are {feedback_2}",
                feedback=self.feedback,
                feedback_2=", ".join(FEEDBACK),
            )
        if min(self.epochs, self.batch, self.min_masks, self.mask_frames) < 1 or not 0 <= self.mask_share < 1:
            raise UserError("epochs, batch, min_masks and mask_frames are at least 1, mask_share lies in [0, 1)")


def vocaset() -> FinetuneVertices:
    """FaceFormer on VOCASET: wav2vec 2.0 base (960 h), no semantics."""
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
    """`vocaset_hubert` with the Wav2Sem of --wav2sem (CLS or mean, as that was trained)."""
    return replace(vocaset_hubert(), semantics=True)


def vocaset_cached() -> FinetuneVertices:
    """`vocaset` with the cached loop: one draw of dropout a clip, several times as fast."""
    return replace(vocaset(), feedback="cached")


def biwi() -> FinetuneVertices:
    """FaceFormer on BIWI: wav2vec 2.0 base (960 h), 128-d, no semantics."""
    return replace(vocaset(), data="biwi", dim=128)


def biwi_hubert() -> FinetuneVertices:
    """`biwi` with HuBERT base instead."""
    return replace(vocaset_hubert(), data="biwi", dim=128)


def biwi_wav2sem() -> FinetuneVertices:
    """`biwi_hubert` with the Wav2Sem of --wav2sem."""
    return replace(biwi_hubert(), semantics=True)


def custom() -> FinetuneVertices:
    """A studio's own recordings, with the encoder of --hubert, or wav2vec 2.0 base; cached."""
    return replace(vocaset_cached(), data="custom")


def smoke() -> FinetuneVertices:
    """A few steps of `vocaset_cached` at toy size, from nothing."""
    encoder = EncoderConfig(kind="wav2vec2", config=TOY_SIZES)
    return replace(vocaset_cached(), encoder=encoder, pretrained="", epochs=1, valid_clips=1)


def smoke_wav2sem() -> FinetuneVertices:
    """`smoke` with the Wav2Sem of --wav2sem."""
    return replace(smoke(), semantics=True)


def biwi_smoke() -> FinetuneVertices:
    """`smoke` on BIWI."""
    return replace(smoke(), data="biwi", dim=128)


def custom_smoke() -> FinetuneVertices:
    """`smoke` on a studio's own layout."""
    return replace(smoke(), data="custom")


@dataclass(frozen=True, kw_only=True)
class FinetuneChannels(FaceWeights):
    """The face model on captured motion.

    The encoder is frozen (eval, no gradients): one speaker's face must not teach it that speaker's voice. Its features
    are computed once for each of `versions` differently augmented copies of every captured clip, and for each of
    `driven_versions` of every driven one (`motion/driven.py`); `driven_share` of a batch is driven, or one of
    `speechless` clips of noise and music, to which a mouth rests.
    """

    decoder: DecoderConfig
    styles: tuple[str, ...]
    augmentation: Augmentation = replace(ANYWHERE, speed=(0.85, 1.18))
    versions: int = 5
    driven_share: float = 0.4
    driven_versions: int = 2
    speechless: int = 60
    steps: int = 2500
    batch: int = 24
    crop_frames: int = 88
    peak_lr: float = 1.5e-3
    warmup_steps: int = 100
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0


SEMANTICS = ("none", "constant", "shuffled", "wav2sem", "text")


@dataclass(frozen=True, kw_only=True)
class AblateSemantics:
    """The bundled face, trained once for each kind of sentence vector and each seed, everything else equal.

    `semantics`, of `SEMANTICS`: zeros; the mean F_s of the training clips; another clip's F_s; the clip's own; the text
    model's own vector of what is said, as no audio can give it.
    """

    face: FinetuneChannels
    semantics: tuple[str, ...] = SEMANTICS
    seeds: tuple[int, ...] = (0, 1, 2)
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not set(self.semantics) <= set(SEMANTICS) or not self.seeds:
            raise UserError(
                "semantics {semantics}: known are {semantics_2}; and a seed",
                semantics=", ".join(self.semantics),
                semantics_2=", ".join(SEMANTICS),
            )


def bundled() -> FinetuneChannels:
    """The bundled face model: FaceFormer's 64-d decoder on the ARKit-named basis."""
    return FinetuneChannels(decoder=DecoderConfig(dropout=0.0), styles=("grid_s1", "facegood"))


def bundled_smoke() -> FinetuneChannels:
    """A few steps of `bundled`."""
    return replace(
        bundled(), versions=1, driven_versions=1, speechless=2, steps=3, batch=2, crop_frames=30, warmup_steps=1
    )


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
    *(bundled, bundled_ablation),
    *(smoke, smoke_wav2sem, biwi_smoke, custom_smoke, bundled_smoke, ablation_smoke),
)
