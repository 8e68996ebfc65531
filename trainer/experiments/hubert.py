# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `pretrain-hubert`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wav2sem_blender.pipeline.checkpoint import EncoderConfig

from ..augment import Augmentation

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
    precision: str = "bf16"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0


def bundled() -> PretrainHubert:
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


def bundled_smoke() -> PretrainHubert:
    """A few steps of `bundled` at toy size."""
    bundled = bundled()
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


EXPERIMENTS = (bundled, bundled_smoke)
