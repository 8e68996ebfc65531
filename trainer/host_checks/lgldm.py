# SPDX-License-Identifier: GPL-3.0-or-later
"""LG-LDM's denoiser against its released code: one step, the loss, the whole DDIM loop and the noise schedule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from wav2sem_blender.pipeline.nn.lgldm import from_published, noise_schedule

from . import Golden, Outputs, state_of

KINDS = {"lgldm_vocaset_fdm": "lgldm-vocaset", "lgldm_mead_fdm": "lgldm-mead"}


@torch.no_grad()
def check(golden: Golden, kind: str, beside: Callable[[str], Golden]) -> Outputs:
    """As `Check`. The published code keeps a frame's codes in rows (B, T * codes, width); ours are side by side."""
    network = from_published(KINDS[kind], {key: torch.from_numpy(value) for key, value in state_of(golden).items()})
    dim = network.config.dim

    def given(name: str) -> torch.Tensor:
        value = torch.from_numpy(np.asarray(golden[name]))
        return value.reshape(len(value), -1, dim) if value.dim() == 3 and name != "features" else value

    features = given("features")
    style = given("one_hot") if "one_hot" in golden else torch.cat([given("identity"), given("emotion")], 1)
    denoiser, latents, times = network.denoise_fn, given("latents"), given("t")
    ours = {"forward": denoiser(latents, times, denoiser.heard(features), denoiser.told(style))}
    if "loss" in golden:
        loss, x0 = network.denoising_loss(features, style, latents, times, given("noise"))
        ours |= {"loss": loss, "x0_pred": x0}
    if "ddim_result" in golden:
        ours["ddim_result"] = network.ddim(features, style, given("ddim_start"), golden["ddim_steps"].item())
    if "alphas_cumprod" in golden:
        ours["alphas_cumprod"] = noise_schedule(network.config.NOISE_STEPS)["alphas_cumprod"].float()
    return {name: (value.numpy().reshape(golden[name].shape), golden[name]) for name, value in ours.items()}
