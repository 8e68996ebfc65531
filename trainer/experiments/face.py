# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wav2sem_blender.pipeline.checkpoint import DecoderConfig

from ..augment import Augmentation


@dataclass(frozen=True, kw_only=True)
class FinetuneChannels:
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
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0


def bundled() -> FinetuneChannels:
    """The bundled face model: FaceFormer's 64-d decoder on the ARKit-named basis."""
    return FinetuneChannels(decoder=DecoderConfig(dropout=0.0), styles=("grid_s1", "facegood"))


def bundled_smoke() -> FinetuneChannels:
    """A few steps of `bundled`."""
    return replace(bundled(), versions=1, driven_versions=1, steps=3, batch=2, crop_frames=30, warmup_steps=1)


EXPERIMENTS = (bundled, bundled_smoke)
