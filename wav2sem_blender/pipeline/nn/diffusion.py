# SPDX-License-Identifier: GPL-3.0-or-later
"""The noise of the hosts that sample by diffusion (FaceDiffuser, LG-LDM): its schedule, and noise from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def cosine_betas(n_steps: int, largest: float) -> Tensor:
    """Share of noise that each step adds, float64 (S,): min(1 - f(i + 1) / f(i), largest).

    f(i) = cos^2((i / S + 0.008) / 1.008 * pi / 2), of Nichol and Dhariwal, "Improved denoising diffusion" (2021),
    equation 17.
    """
    steps = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    left = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - left[1:] / left[:-1]).clamp(0, largest)


def schedule(betas_S: Tensor) -> dict[str, Tensor]:
    """What is computed of the betas, float64 (S,) each, under the names by which diffusion models store it.

    The reverse step from t has mean coef1 * x_0 + coef2 * x_t and the posterior variance, which is 0 at t = 0; its
    logarithm is clipped at 1e-20.
    """
    kept = torch.cumprod(1 - betas_S, 0)
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    variance = betas_S * (1 - before) / (1 - kept)
    return {
        "betas": betas_S,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": kept.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - kept).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - kept).log(),
        "sqrt_recip_alphas_cumprod": (1 / kept).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / kept - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas_S * before.sqrt() / (1 - kept),
        "posterior_mean_coef2": (1 - before) * (1 - betas_S).sqrt() / (1 - kept),
    }


def seeded_noise(shape: Sequence[int], seed: int) -> Tensor:
    """Standard normal noise, drawn on the CPU: a seed gives the same on every device."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
