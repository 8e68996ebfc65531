# SPDX-License-Identifier: GPL-3.0-or-later
"""Whisper's speech encoder, cut to its first layers, and an adapter to narrower features.

Source: "Robust Speech Recognition via Large-Scale Weak Supervision", Radford et al. 2022. The layers are transformers'
own; positions are the published sinusoids, up to the recording's length: there is no padding to 30 s.

Shapes: B batch, F spectrogram frames (100 Hz), M mel bands, L encoder frames (50 Hz), W encoder width, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from ..log_mel import N_MELS

ADAPTER_KERNEL = 5


class Whisper(nn.Module):
    """Spectrogram to features. `config` has `d_model`, `encoder_layers`, `encoder_attention_heads`, `encoder_ffn_dim`,
    dropouts as `WhisperConfig` names them, and `hidden_size`, the width D behind the adapter."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        settings: dict[str, Any] = {"num_mel_bins": N_MELS, "attn_implementation": "sdpa"}
        layer_config = WhisperConfig(**settings | {k: v for k, v in config.items() if k != "hidden_size"})
        width, features = layer_config.d_model, config["hidden_size"]
        self.conv1 = nn.Conv1d(N_MELS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(WhisperEncoderLayer(layer_config) for _ in range(layer_config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)
        padding = ADAPTER_KERNEL // 2
        self.adapter = nn.Sequential(
            nn.Conv1d(width, features, ADAPTER_KERNEL, padding=padding),
            nn.GELU(),
            nn.Conv1d(features, features, ADAPTER_KERNEL, padding=padding),
            nn.GELU(),
        )

    def convolve(self, spectrogram_BFM: Tensor) -> Tensor:
        """(B, L, W)."""
        features_BWF = nn.functional.gelu(self.conv1(spectrogram_BFM.transpose(1, 2)))
        return nn.functional.gelu(self.conv2(features_BWF)).transpose(1, 2)

    def hidden(self, features_BLW: Tensor) -> Tensor:
        """The transformer's output (B, L, W)."""
        positions_LW = sinusoids(features_BLW.shape[1], features_BLW.shape[2], features_BLW.device)
        hidden_BLW = features_BLW + positions_LW.to(features_BLW.dtype)
        for layer in self.layers:
            output = layer(hidden_BLW, attention_mask=None)
            hidden_BLW = output[0] if isinstance(output, tuple) else output
        return self.layer_norm(hidden_BLW)

    def contextualise(self, features_BLW: Tensor) -> Tensor:
        """Features (B, L, D)."""
        return self.adapt(self.hidden(features_BLW))

    def adapt(self, hidden_BLW: Tensor) -> Tensor:
        """The adapter alone."""
        return self.adapter(hidden_BLW.transpose(1, 2)).transpose(1, 2)


def sinusoids(length: int, width: int, device: torch.device | str) -> Tensor:
    """Whisper's positional encoding (L, W)."""
    step = math.log(10_000) / (width // 2 - 1)
    rates = torch.exp(-step * torch.arange(width // 2, device=device, dtype=torch.float32))
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
