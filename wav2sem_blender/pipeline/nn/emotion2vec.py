# SPDX-License-Identifier: GPL-3.0-or-later
"""emotion2vec (Findings of ACL 2024), the encoder that LSF-Animation hears emotions with, without fairseq.

It is data2vec 2.0's audio model with 10 tokens in front: convolutions, five more that tell positions, and transformer
blocks whose attention is weaker with distance (ALiBi), by a scale that each head learns. Modules have the released
names, so released weights load as they are. The sizes and the order of operations are those of the released code and
its config; no golden values of it exist here.

Shapes: B batch, S samples, L encoder frames (50 Hz), C channels of the convolutions, D features, H heads, N layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoders import Backbone, build_backbone, encode

if TYPE_CHECKING:
    from ..checkpoint import EncoderConfig

EMOTION2VEC = "emotion2vec"
BASE: dict[str, Any] = {
    **{"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "tokens": 10},
    **{"prenet_layers": 4, "num_hidden_layers": 8, "position_layers": 5, "position_kernel": 19, "position_groups": 16},
    **{"alibi_layers": 1, "alibi_heads": 12},
    **{"conv_dim": (512,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)},
}
"""Of emotion2vec_base. `alibi_layers` and `alibi_heads` are how many scales of the distance are learnt: one for all, or
one for each."""


class _Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BLD: Tensor, bias_HLL: Tensor) -> Tensor:
        query, key, value = self.qkv(x_BLD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        mixed_BHLd = F.scaled_dot_product_attention(query, key, value, attn_mask=bias_HLL[None])
        return self.proj(mixed_BHLd.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    """A post-norm transformer block."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _Attention(width, config["num_attention_heads"])
        self.mlp = _Mlp(width, config["intermediate_size"])

    def forward(self, x_BLD: Tensor, bias_HLL: Tensor) -> Tensor:
        x_BLD = self.norm1(x_BLD + self.attn(x_BLD, bias_HLL))
        return self.norm2(x_BLD + self.mlp(x_BLD))


class _LocalEncoder(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList()
        inputs = 1
        for width, kernel, stride in zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True):
            norm = nn.Sequential(_Transposed(), nn.LayerNorm(width), _Transposed())
            convolution = nn.Conv1d(inputs, width, kernel, stride, bias=False)
            self.conv_layers.append(nn.Sequential(convolution, nn.Identity(), norm, nn.GELU()))
            inputs = width

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """(B, C, L)."""
        x_BCL = waveform_BS[:, None]
        for layer in self.conv_layers:
            x_BCL = layer(x_BCL)
        return x_BCL


class _ContextEncoder(nn.Module):
    """The first blocks, and the norm before them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config["prenet_layers"]))
        self.norm = nn.LayerNorm(config["hidden_size"])


class _AudioEncoder(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.extra_tokens = nn.Parameter(torch.randn(1, config["tokens"], width))
        self.alibi_scale = nn.Parameter(torch.ones(config["alibi_layers"], 1, config["alibi_heads"], 1, 1))
        self.local_encoder = _LocalEncoder(config)
        self.project_features = nn.Sequential(
            _Transposed(), nn.LayerNorm(config["conv_dim"][-1]), nn.Linear(config["conv_dim"][-1], width)
        )
        kernel, groups = config["position_kernel"], config["position_groups"]

        def position_layer() -> nn.Sequential:
            norm = nn.LayerNorm(width, elementwise_affine=False)
            convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
            return nn.Sequential(convolution, nn.Identity(), _Transposed(), norm, _Transposed(), nn.GELU())

        layers = (position_layer() for _ in range(config["position_layers"]))
        self.relative_positional_encoder = nn.Sequential(_Transposed(), *layers, _Transposed())
        self.context_encoder = _ContextEncoder(config)

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """Hidden states before the blocks, with the tokens in front (B, tokens + L, D)."""
        x_BLD = self.project_features(self.local_encoder(waveform_BS))
        x_BLD = x_BLD + self.relative_positional_encoder(x_BLD)
        return self.context_encoder.norm(torch.cat([self.extra_tokens.expand(len(x_BLD), -1, -1), x_BLD], 1))

    def bias(self, n_frames: int) -> Tensor:
        """What the scores of a layer's attention get (layers or 1, H, tokens + L, tokens + L)."""
        n_tokens = self.extra_tokens.shape[1]
        bias_HLL = distance_bias(n_frames, self.heads).to(self.alibi_scale)
        return F.pad(self.alibi_scale[:, 0].clamp_min(0) * bias_HLL, (n_tokens, 0, n_tokens, 0))


class Emotion2Vec(nn.Module):
    """Hidden states of a recording at 50 Hz.

    `config` has what differs from `BASE`. Dropout is left out: the encoder is used frozen.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        config = {**BASE, **config}
        self.config = SimpleNamespace(hidden_size=config["hidden_size"])
        self.modality_encoders = nn.ModuleDict({"AUDIO": _AudioEncoder(config)})
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, waveform_BS: Tensor) -> Tensor:
        """(B, L, D) of speech at 16 kHz of zero mean and unit variance."""
        audio = self.modality_encoders["AUDIO"]
        assert isinstance(audio, _AudioEncoder)
        x_BLD, n_tokens = audio(waveform_BS), audio.extra_tokens.shape[1]
        bias_NHLL = audio.bias(x_BLD.shape[1] - n_tokens)
        for layer, block in enumerate((*audio.context_encoder.blocks, *self.blocks)):
            x_BLD = block(x_BLD, bias_NHLL[layer % len(bias_NHLL)])
        return x_BLD[:, n_tokens:]


def distance_bias(n_frames: int, heads: int) -> Tensor:
    """-slope_h |i - j|, (H, L, L)."""
    at_L = torch.arange(n_frames)
    return -torch.tensor(slopes(heads))[:, None, None] * (at_L[:, None] - at_L).abs()


def slopes(heads: int) -> list[float]:
    """ALiBi's: 2^(-8 h / n) for a power of two n; for other numbers of heads those of the next smaller one, and every
    second of the next larger one."""
    smaller = 2 ** math.floor(math.log2(heads))
    if smaller == heads:
        return [2 ** (-8 * (h + 1) / heads) for h in range(heads)]
    return slopes(smaller) + slopes(2 * smaller)[::2][: heads - smaller]


def build_emotion_encoder(config: EncoderConfig) -> Emotion2Vec | Backbone:
    """A randomly initialised encoder of emotions: emotion2vec, or any encoder of speech in its place."""
    return Emotion2Vec(config.config) if config.kind == EMOTION2VEC else build_backbone(config.kind, config.config)


def feel(encoder: Emotion2Vec | Backbone, waveform_BS: Tensor) -> Tensor:
    """Its hidden states (B, L, D)."""
    return encoder(waveform_BS) if isinstance(encoder, Emotion2Vec) else encode(encoder, waveform_BS)[0]
