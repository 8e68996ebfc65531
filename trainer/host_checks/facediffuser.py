# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceDiffuser against its released code: schedule, one step, the loss, and the whole sampling with the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES
from wav2sem_blender.pipeline.nn.encoders import resample_features
from wav2sem_blender.pipeline.nn.facediffuser import TEMPLATES, from_published
from wav2sem_blender.pipeline.nn.host_network import Example

from . import Outputs, state_of


def check(golden: Mapping[str, np.ndarray], kind: str, beside: Callable[[str], Mapping[str, np.ndarray]]) -> Outputs:
    """Every output of the file. `sample` is computed as inference does, without vertices."""
    network = from_published(kind, {name: torch.from_numpy(value) for name, value in state_of(golden).items()})
    names = ("features", "template", "one_hot", "x", "noise", "t", "noises")
    features_BLD, template_BX, style_BN, face_BTX, noise_BTX, step_B, noises = (
        torch.from_numpy(golden[name]) for name in names
    )
    n_samples = RECEPTIVE_FIELD_SAMPLES + HOP_SAMPLES * (features_BLD.shape[1] - 1)
    positions_R = network.config.grid.positions(n_samples, face_BTX.shape[1])
    memory_BRM = resample_features(features_BLD, torch.from_numpy(positions_R).float()[None])
    network.load_state_dict({TEMPLATES: template_BX.expand_as(network.templates_NX)}, strict=False)
    with torch.no_grad():
        weight_UX = network.input_layer.weight
        fold_UM, rest_NU, _ = network.folded()
        drawn = iter(F.linear(noise, weight_UX) for noise in noises)
        hidden_BTM = network.sample(memory_BRM, style_BN, fold_UM, rest_NU, drawn)
        sample_BTX = network.final_layer(hidden_BTM) + template_BX[:, None]
        forward_BTX = network.denoise(face_BTX, step_B, memory_BRM, style_BN, template_BX)
        example = Example(
            memory_BRM=memory_BRM,
            style_BN=style_BN,
            target_BTX=face_BTX - template_BX[:, None],
            template_BX=template_BX,
        )
        loss = network.loss_at(example, step_B, noise_BTX)
    ours = {
        "sample": sample_BTX,
        "forward": forward_BTX,
        "loss": loss,
        "betas": network.schedule["betas"],
        "posterior_log_variance": network.log_variance_S,
    }
    return {name: (value.numpy(), golden[name]) for name, value in ours.items()}
