# SPDX-License-Identifier: GPL-3.0-or-later
"""Experiments of `pretrain-prior` on 3DMEAD: the codec of FLAME parameters that ProbTalk3D and LSF-Animation share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from wav2sem_blender.pipeline.hosts.probtalk3d import ProbTalk3D

from ..loops.prior_recipes import PretrainPrior

CODEC_TOY: dict[str, Any] = {"dim": 32, "heads": 2, "ffn_dim": 48, "prior_blocks": 1, "blocks": 2}
CODEC_TOY |= {"n_codes": 16, "code_width": 32}
ADAM: dict[str, Any] = {"betas": (0.9, 0.98), "epsilon": 1e-9}


def mead() -> PretrainPrior:
    """The codec, of the motion of 32 speakers."""
    return PretrainPrior(data="mead_prior", host=ProbTalk3D(), epochs=201, **ADAM)


def mead_smoke() -> PretrainPrior:
    """A few steps of `mead` at toy size."""
    return replace(mead(), host=ProbTalk3D(**CODEC_TOY), epochs=1, valid_clips=1)


EXPERIMENTS = (mead, mead_smoke)
