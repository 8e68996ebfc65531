# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker for tests: files of random weights by the table of the release, and its decoder written out in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from wav2sem_blender.pipeline.checkpoint import EncoderConfig

WIDTH, N_STYLES, FEATURES = 12, 5, 20


def released_state(
    heads: dict[str, int], width: int = WIDTH, features: int = FEATURES, style: int = 6, n_styles: int = N_STYLES
) -> dict[str, torch.Tensor]:
    """The decoder's and the heads' weights by the table of the release, random."""
    import torch

    torch.manual_seed(0)
    state = {
        "decoder.learnable_style_emb.weight": torch.randn(n_styles, style),
        "decoder.audio_feature_map.weight": torch.randn(width, features) / features**0.5,
        "decoder.audio_feature_map.bias": torch.randn(width),
    }
    for i in range(3):
        layer = f"decoder.tcn.first_net.conv_layers.{i}"
        n_inputs = width if i else width + style
        for name in ("conv",) if i else ("conv", "residual_layer.0"):
            state[f"{layer}.{name}.weight"] = torch.randn(width, n_inputs, 3) / (3 * n_inputs) ** 0.5
            state[f"{layer}.{name}.bias"] = torch.randn(width)
        state[f"{layer}.norm.weight"] = 1 + torch.randn(width) / 5
        state[f"{layer}.norm.bias"] = torch.randn(width)
    for name, n_values in heads.items():
        state[f"out_head_dict.{name}.weight"] = torch.randn(n_values, width) / width**0.5
        state[f"out_head_dict.{name}.bias"] = torch.randn(n_values)
    return state


def with_encoder(state: dict[str, torch.Tensor], encoder: EncoderConfig) -> dict[str, torch.Tensor]:
    """A whole file: with an encoder of random weights."""
    import torch

    from wav2sem_blender.pipeline.nn.encoders import build_backbone

    torch.manual_seed(1)
    with torch.device("meta"):
        shapes = build_backbone(encoder.kind, encoder.config).state_dict()
    return {f"audio_encoder.{key}": torch.randn(value.shape) / 4 for key, value in shapes.items()} | state


def plain(state: dict, hidden_TD: torch.Tensor, style: int, head: str) -> np.ndarray:
    """What a head predicts of one clip, frame by frame, in NumPy."""
    w = {name: value.double().numpy() for name, value in state.items()}
    memory_TM = hidden_TD.double().numpy() @ w["decoder.audio_feature_map.weight"].T
    memory_TM = memory_TM + w["decoder.audio_feature_map.bias"]
    style_S = w["decoder.learnable_style_emb.weight"][style]
    frames = [np.concatenate([memory_M, style_S]) for memory_M in memory_TM]

    def convolved(name: str, t: int) -> np.ndarray:
        taps = w[f"{name}.weight"]
        around = [frames[s] if 0 <= s < len(frames) else np.zeros_like(frames[0]) for s in (t - 1, t, t + 1)]
        return sum(taps[:, :, k] @ around[k] for k in range(3)) + w[f"{name}.bias"]

    for i in range(3):
        layer = f"decoder.tcn.first_net.conv_layers.{i}"
        after = []
        for t in range(len(frames)):
            x = convolved(f"{layer}.conv", t)
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{layer}.norm.weight"] + w[f"{layer}.norm.bias"]
            after.append(np.maximum(x + (frames[t] if i else convolved(f"{layer}.residual_layer.0", t)), 0))
        frames = after
    return np.array(frames) @ w[f"out_head_dict.{head}.weight"].T + w[f"out_head_dict.{head}.bias"]
