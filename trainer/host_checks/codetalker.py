# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker against its released code: stage 1 (codes, reconstruction, loss) and stage 2 (inference, losses)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from wav2sem_blender.pipeline.nn.codec import Codec, CodecSizes
from wav2sem_blender.pipeline.nn.codetalker import CODEC, from_published
from wav2sem_blender.pipeline.nn.host_network import Example

from . import Golden, Outputs, state_of


@torch.no_grad()
def check(golden: Golden, kind: str, beside: Callable[[str], Golden]) -> Outputs:
    """Every output of a file; stage 2 finds stage 1 beside it."""
    data, stage = kind.removeprefix("codetalker_").split("_")
    if stage == "stage1":
        return _stage1(golden)
    return _stage2(golden, beside(f"codetalker_{data}_stage1"), f"codetalker-{data}")


def _stage1(golden: Golden) -> Outputs:
    state = _tensors(golden)
    codec = Codec(CodecSizes.of(state)).eval()
    codec.load_state_dict(state)
    template_11X = torch.from_numpy(golden["template"])[:, None]
    latent_BTZ = codec.encode(torch.from_numpy(golden["x"]) - template_11X)
    quantised_BTZ, codes_Q, loss = codec.quantize(latent_BTZ)
    ours = {
        "codes": codes_Q,
        "reconstruction": codec.motion_from(quantised_BTZ) + template_11X,
        "quant_loss": loss,
    }
    return {name: (value.numpy(), golden[name]) for name, value in ours.items()}


def _stage2(golden: Golden, stage1: Golden, kind: str) -> Outputs:
    state = _tensors(golden)
    feature_map = [state.pop(f"audio_feature_map.{name}") for name in ("weight", "bias")]
    network = from_published(kind, state | {CODEC + key: value for key, value in _tensors(stage1).items()})
    memory_BRM = F.linear(torch.from_numpy(golden["features"]), *feature_map)
    style_BN, template_11X = torch.from_numpy(golden["one_hot"]), torch.from_numpy(golden["template"])[:, None]
    target_BTX = torch.from_numpy(golden["vertices"]) - template_11X
    motion, latents = network.losses(Example(memory_BRM=memory_BRM, style_BN=style_BN, target_BTX=target_BTX))
    ours = {
        "prediction": network(memory_BRM, style_BN) + template_11X,
        "loss": motion + latents,
        "loss_motion": motion,
        "loss_reg": latents,
    }
    return {name: (value.numpy(), golden[name]) for name, value in ours.items()}


def _tensors(golden: Golden) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in state_of(golden).items()}
