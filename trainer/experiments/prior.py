# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `pretrain-prior`: stage 1 of the hosts that have two, as published, and at toy size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wav2sem_blender.pipeline.hosts import codetalker, lgldm

from ..loops.prior_recipes import PretrainPrior
from .hubert import TOY_SIZES

CODETALKER_TOY: dict[str, Any] = {
    "dim": 16,
    "layers": 1,
    "ffn_dim": 32,
    "codec_dim": 32,
    "codec_heads": 4,
    "codec_ffn_dim": 48,
}
CODETALKER_TOY |= {"codec_blocks": 1, "latent": 32, "code_width": 8, "n_codes": 64}

LGLDM_TOY: dict[str, Any] = {
    "dim": 32,
    "heads": 4,
    "n_layers": 1,
    "audio_dim": TOY_SIZES["hidden_size"],
    "sampling_steps": 5,
}
LGLDM_TOY |= {"codec_dim": 32, "codec_heads": 4, "codec_ffn_dim": 48, "codec_blocks": 1, "code_width": 8, "n_codes": 64}
LGLDM_MEAD_TOY = replace(lgldm.MEAD, **LGLDM_TOY | {"n_codes": 7 * 256})
WITH_VALID = ("train", "valid")


def codetalker_vocaset() -> PretrainPrior:
    """CodeTalker's codec of VOCASET."""
    return PretrainPrior(data="vocaset", host=codetalker.VOCASET, halve_every=20)


def codetalker_biwi() -> PretrainPrior:
    """CodeTalker's codec of BIWI."""
    return PretrainPrior(data="biwi", host=codetalker.BIWI)


def smoke() -> PretrainPrior:
    """A few steps of `codetalker_vocaset` at toy size."""
    return replace(codetalker_vocaset(), host=replace(codetalker.VOCASET, **CODETALKER_TOY), epochs=1, valid_clips=1)


def biwi_smoke() -> PretrainPrior:
    """A few steps of `codetalker_biwi` at toy size."""
    return replace(codetalker_biwi(), host=replace(codetalker.BIWI, **CODETALKER_TOY), epochs=1, valid_clips=1)


def lgldm_vocaset() -> PretrainPrior:
    """LG-LDM's codec of VOCASET."""
    return PretrainPrior(data="vocaset", host=lgldm.VOCASET, epochs=300, amsgrad=True)


def lgldm_biwi() -> PretrainPrior:
    """LG-LDM's codec of BIWI, which learns sentences 1 to 36."""
    return replace(lgldm_vocaset(), data="biwi", host=lgldm.BIWI, train_splits=WITH_VALID)


def lgldm_mead() -> PretrainPrior:
    """LG-LDM's codec of MEAD, with a codebook for each emotion."""
    return replace(lgldm_vocaset(), data="mead_offsets", host=lgldm.MEAD, epochs=400)


def lgldm_mead_smoke() -> PretrainPrior:
    """A few steps of `lgldm_mead` at toy size."""
    return replace(lgldm_mead(), host=LGLDM_MEAD_TOY, epochs=1, valid_clips=1)


def lgldm_smoke() -> PretrainPrior:
    """A few steps of `lgldm_vocaset` at toy size."""
    return replace(lgldm_vocaset(), host=replace(lgldm.VOCASET, **LGLDM_TOY), epochs=1, valid_clips=1)


def lgldm_biwi_smoke() -> PretrainPrior:
    """A few steps of `lgldm_biwi` at toy size."""
    return replace(lgldm_biwi(), host=replace(lgldm.BIWI, **LGLDM_TOY), epochs=1, valid_clips=1)


EXPERIMENTS = (
    *(codetalker_vocaset, codetalker_biwi),
    *(smoke, biwi_smoke),
    *(lgldm_vocaset, lgldm_biwi, lgldm_mead),
    *(lgldm_smoke, lgldm_biwi_smoke, lgldm_mead_smoke),
)
