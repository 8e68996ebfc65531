# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments: functions that return a whole frozen config; a variant is a `dataclasses.replace` of one.

The bundled model is `bundled_*`, stage by stage; `smoke_*` are the same stages in seconds, for the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wav2sem_blender.pipeline.checkpoint import DecoderConfig, EncoderConfig

from .augment import Augmentation

SMALL_CNN = {
    "conv_dim": [32, 64, 96, 128, 192, 256, 256],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
    "num_conv_pos_embedding_groups": 16,
}


@dataclass(frozen=True, kw_only=True)
class PretrainHubert:
    """Frame-label prediction under masking: the encoder learns phones.

    `mask_chance` is the share of frames that start a masked span of `mask_frames`; labels are predicted everywhere.
    """

    encoder: EncoderConfig
    corpus_weights: Mapping[str, float]
    augmentation: Augmentation = field(default_factory=Augmentation)
    steps: int = 3800
    batch: int = 8
    crop_s: tuple[float, float] = (3.0, 6.0)
    peak_lr: float = 1e-3
    warmup_steps: int = 200
    mask_chance: float = 0.02
    mask_frames: int = 6
    fps: int = 30
    bf16: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PretrainWav2Sem:
    """Audio into sentence space; `contrastive` weighs the term beside L1 (0 is the paper's loss alone).

    `text_model` is a folder or hub name of a BERT-architecture model; "" takes the MiniLM from PyPI. `target` is "cls"
    or "mean".
    """

    encoder_config: Mapping[str, Any]
    corpora: tuple[str, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)
    text_model: str = ""
    target: str = "mean"
    contrastive: float = 0.2
    steps: int = 320
    batch: int = 10
    longest_s: float = 12.0
    peak_lr: float = 6e-4
    warmup_steps: int = 50
    bf16: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """The face model on captured motion.

    The encoder is frozen (eval, no gradients): one speaker's face must not teach it that speaker's voice. Its features
    are computed once for each of `versions` differently augmented copies of every captured clip, and for each of
    `driven_versions` of every driven one (`driven.py`); `driven_share` of a batch is driven. `aperture_weight` weighs
    the error of the lip gap, and `closed_factor` multiplies it where the lips touch.
    """

    decoder: DecoderConfig
    styles: tuple[str, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)
    versions: int = 5
    driven_share: float = 0.4
    driven_versions: int = 2
    steps: int = 2500
    batch: int = 24
    crop_frames: int = 88
    peak_lr: float = 1.5e-3
    warmup_steps: int = 100
    velocity_weight: float = 0.5
    aperture_weight: float = 3.0
    closed_factor: float = 5.0
    seed: int = 0


def bundled_hubert() -> PretrainHubert:
    """The bundled model's phone-level encoder: HuBERT's architecture, 2.3 M parameters."""
    encoder = EncoderConfig(
        kind="hubert",
        config=SMALL_CNN
        | {
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 768,
            "num_conv_pos_embeddings": 64,
            "hidden_dropout": 0.05,
            "attention_dropout": 0.05,
            "activation_dropout": 0.0,
            "feat_proj_dropout": 0.05,
            "layerdrop": 0.0,
        },
    )
    weights = {"grid_s1": 0.25, "librispeech_4_aligned": 0.2, "vctk": 0.25, "flite": 0.3}
    return PretrainHubert(encoder=encoder, corpus_weights=weights)


def bundled_wav2sem() -> PretrainWav2Sem:
    """The bundled model's Wav2Sem: the phone encoder's first three layers as a start, MiniLM's mean vectors."""
    config = dict(bundled_hubert().encoder.config) | {"num_hidden_layers": 3}
    return PretrainWav2Sem(encoder_config=config, corpora=("grid_s1", "librispeech_4_aligned", "vctk", "flite"))


def bundled_face() -> Finetune:
    """The bundled face model: FaceFormer's 64-d decoder on the ARKit-named basis."""
    return Finetune(decoder=DecoderConfig(dropout=0.0), styles=("grid_s1", "facegood"))


def smoke_hubert() -> PretrainHubert:
    """A few steps of `bundled_hubert` at toy size."""
    bundled = bundled_hubert()
    tiny = dict(bundled.encoder.config) | {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    return replace(
        bundled,
        encoder=replace(bundled.encoder, config=tiny),
        corpus_weights={"grid_s1": 0.5, "vctk": 0.5},
        steps=3,
        batch=2,
        crop_s=(1.0, 1.5),
        warmup_steps=1,
    )


def smoke_wav2sem() -> PretrainWav2Sem:
    """A few steps of `bundled_wav2sem` at toy size."""
    config = smoke_hubert().encoder.config
    return replace(
        bundled_wav2sem(), encoder_config=config, corpora=("grid_s1", "vctk"), steps=3, batch=2, warmup_steps=1
    )


def smoke_face() -> Finetune:
    """A few steps of `bundled_face`."""
    return replace(bundled_face(), versions=1, driven_versions=1, steps=3, batch=2, crop_frames=30, warmup_steps=1)
