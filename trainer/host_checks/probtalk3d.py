# SPDX-License-Identifier: GPL-3.0-or-later
"""ProbTalk3D and LSF-Animation against their released code: the codec, and the prediction with the nearest codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from wav2sem_blender.pipeline.nn.probtalk3d import ProbTalk3DNetwork
from wav2sem_blender.pipeline.official import lsf, probtalk3d

from . import Outputs, relative_difference, state_of


def check(golden: Mapping[str, np.ndarray], kind: str, beside: Callable[[str], Mapping[str, np.ndarray]]) -> Outputs:
    """Every output of the file. The tensors do not show the number of heads: it is the one that gives the latents."""
    network = min(_networks(golden, kind), key=lambda one: _difference(one, golden))
    inputs = ("audio", "emotion") if kind == "lsf" else ("audio",)
    # The released layers read pairs of frames; the memory has the frames one by one.
    memory_BRD = torch.cat([_unpaired(torch.from_numpy(golden[name])) for name in inputs], -1)
    style_BN, motion_BTX = torch.from_numpy(golden["style"]), torch.from_numpy(golden["motion"])
    with torch.no_grad():
        latent_BTM = network.motion_prior.encode(motion_BTX)
        quantised_BTM, codes_Q, loss = network.quantised(latent_BTM)
        ours = {
            "latent": latent_BTM,
            "codes": codes_Q,
            "quantized": quantised_BTM,
            "vq_loss": loss,
            "reconstruction": network.motion_prior.motion_from(quantised_BTM),
            "prediction_latent": network.latents(memory_BRD, style_BN),
            "prediction": network(memory_BRD, style_BN),
        }
    return {name: (value.numpy(), golden[name]) for name, value in ours.items()}


def _networks(golden: Mapping[str, np.ndarray], kind: str) -> list[ProbTalk3DNetwork]:
    """One for each number of heads that the width allows."""
    state = {name: torch.from_numpy(value) for name, value in state_of(golden).items()}
    from_published = lsf.from_published if kind == "lsf" else probtalk3d.from_published
    width = golden["latent"].shape[-1]
    return [from_published(kind, state, heads) for heads in range(1, 33) if width % heads == 0]


def _difference(network: ProbTalk3DNetwork, golden: Mapping[str, np.ndarray]) -> float:
    with torch.no_grad():
        latent = network.motion_prior.encode(torch.from_numpy(golden["motion"]))
    return relative_difference(latent.numpy(), golden["latent"])


def _unpaired(pairs_BTP: Tensor) -> Tensor:
    return pairs_BTP.unflatten(-1, (2, -1)).flatten(1, 2)
