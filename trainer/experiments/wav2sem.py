# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `pretrain` (Wav2Sem)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..augment import Augmentation
from . import hubert


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
    precision: str = "bf16"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0


def bundled() -> PretrainWav2Sem:
    """The bundled model's Wav2Sem: the phone encoder's first three layers as a start, MiniLM's mean vectors."""
    config = dict(hubert.bundled().encoder.config) | {"num_hidden_layers": 3}
    return PretrainWav2Sem(encoder_config=config, corpora=("grid_s1", "librispeech_4_aligned", "vctk", "flite"))


def bundled_smoke() -> PretrainWav2Sem:
    """A few steps of `bundled` at toy size."""
    config = hubert.bundled_smoke().encoder.config
    return replace(bundled(), encoder_config=config, corpora=("grid_s1", "vctk"), steps=3, batch=2, warmup_steps=1)


EXPERIMENTS = (bundled, bundled_smoke)
