# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceFormer (CVPR 2022) with a linear motion head on a named basis, and Wav2Sem at its plug point.

The motion head predicts K channel weights; `basis` maps them to vertex offsets. Since the head is linear, the channels
of an official checkpoint are its own 64 columns (rotated) plus the bias: nothing is lost (`official.py`).

Shapes: B batch, S samples, T animation frames, R memory frames (T at 30 fps, 2T at 25 fps), M decoder width,
H heads, K channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import DecoderConfig, ModelConfig
from ..decoder import periodic_positions
from .encoders import build_backbone, encode
from .wav2sem import SemanticFusion, Wav2Sem


def biased_causal_mask(n_frames: int, heads: int, period: int, device: torch.device | str = "cpu") -> Tensor:
    """Additive self-attention mask (H, T, T): -4^-(h+1) * floor((i - j) / p) for j <= i, else -inf; any T."""
    frames = torch.arange(n_frames, device=device)
    lag = frames[:, None] - frames[None]
    slopes = 4.0 ** -(torch.arange(heads, device=device, dtype=torch.float32) + 1)
    bias = -slopes[:, None, None] * torch.div(lag, period, rounding_mode="floor")
    return bias.masked_fill(lag < 0, float("-inf"))


def alignment_mask(n_frames: int, memory_per_frame: int, device: torch.device | str = "cpu") -> Tensor:
    """Cross-attention mask (T, R), True where blocked: a frame sees only its own memory."""
    owner = torch.arange(n_frames * memory_per_frame, device=device) // memory_per_frame
    return torch.arange(n_frames, device=device)[:, None] != owner[None]


class FaceDecoder(nn.Module):
    """The autoregressive motion decoder; parameter names are FaceFormer's where the shapes are."""

    positions: Tensor

    def __init__(self, config: DecoderConfig, n_channels: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.style = nn.Linear(n_styles, config.dim, bias=False)
        self.layer = nn.TransformerDecoderLayer(
            config.dim, config.heads, config.ffn_dim, dropout=config.dropout, batch_first=True
        )
        self.motion_head = nn.Linear(config.dim, n_channels)
        self.feedback_map = nn.Linear(n_channels, config.dim)
        nn.init.zeros_(self.motion_head.weight)
        nn.init.zeros_(self.motion_head.bias)
        positions_pM = torch.from_numpy(periodic_positions(config.period, config.dim))
        self.register_buffer("positions", positions_pM, persistent=False)

    def _inputs(self, previous_BTK: Tensor, style_BM: Tensor, first: int = 0) -> Tensor:
        """Decoder inputs for frames first .. first+T; frame 0's own input is the style alone."""
        index_T = torch.arange(first, first + previous_BTK.shape[1], device=previous_BTK.device)
        fed_BTM = self.feedback_map(previous_BTK) * (index_T > 0)[None, :, None]
        return fed_BTM + style_BM[:, None] + self.positions[index_T % self.config.period]

    def teacher_forced(self, memory_BRM: Tensor, target_BTK: Tensor, style_BN: Tensor) -> Tensor:
        """Channel weights (B, T, K) when every frame is fed the true previous one; one parallel pass."""
        batch, n_frames, _ = target_BTK.shape
        previous_BTK = F.pad(target_BTK[:, :-1], (0, 0, 1, 0))
        mask = biased_causal_mask(n_frames, self.config.heads, self.config.period, memory_BRM.device)
        hidden_BTM = self.layer(
            self._inputs(previous_BTK, self.style(style_BN)),
            memory_BRM,
            tgt_mask=mask.repeat(batch, 1, 1),
            memory_mask=alignment_mask(n_frames, self.config.memory_per_frame, memory_BRM.device),
        )
        return self.motion_head(hidden_BTM)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """Channel weights (B, T, K), autoregressive with a key/value cache; gradients flow through the feedback.

        Equal to recomputing the prefix at every step when dropout is off (the tests hold the plain loop).
        """
        config, layer = self.config, self.layer
        n_frames = memory_BRM.shape[1] // config.memory_per_frame
        batch = memory_BRM.shape[0]
        bias_HT = biased_causal_mask(n_frames, config.heads, config.period, memory_BRM.device)[:, -1]
        style_BM = self.style(style_BN)
        cross_keys, cross_values = self._cross_cache(memory_BRM)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        outputs: list[Tensor] = []
        previous_B1K = memory_BRM.new_zeros(batch, 1, self.motion_head.out_features)
        for t in range(n_frames):
            x_BM = self._inputs(previous_B1K, style_BM, first=t)[:, 0]
            query, key, value = F.linear(x_BM, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias).chunk(
                3, -1
            )
            keys.append(self._heads(key))
            values.append(self._heads(value))
            bias_Ht = bias_HT[:, n_frames - 1 - t :]
            x_BM = layer.norm1(x_BM + layer.dropout1(self._attend(query, keys, values, bias_Ht, layer.self_attn)))
            x_BM = layer.norm2(x_BM + layer.dropout2(self._cross(x_BM, cross_keys, cross_values, t)))
            hidden_BM = layer.linear2(layer.dropout(F.relu(layer.linear1(x_BM))))
            x_BM = layer.norm3(x_BM + layer.dropout3(hidden_BM))
            previous_B1K = self.motion_head(x_BM)[:, None]
            outputs.append(previous_B1K)
        return torch.cat(outputs, 1)

    def _heads(self, x_BM: Tensor) -> Tensor:
        return x_BM.unflatten(-1, (self.config.heads, -1))

    def _attend(self, query_BM: Tensor, keys: list[Tensor], values: list[Tensor], bias_Ht: Tensor | None, attention):
        query_BHd = self._heads(query_BM)
        keys_BtHd, values_BtHd = torch.stack(keys, 1), torch.stack(values, 1)
        scores_BHt = torch.einsum("bhd,bthd->bht", query_BHd, keys_BtHd) / math.sqrt(query_BHd.shape[-1])
        if bias_Ht is not None:
            scores_BHt = scores_BHt + bias_Ht
        mixed_BHd = torch.einsum("bht,bthd->bhd", scores_BHt.softmax(-1), values_BtHd)
        return attention.out_proj(mixed_BHd.flatten(-2))

    def _cross_cache(self, memory_BRM: Tensor) -> tuple[Tensor, Tensor]:
        attention, width = self.layer.multihead_attn, self.config.dim
        projected = F.linear(memory_BRM, attention.in_proj_weight[width:], attention.in_proj_bias[width:])
        key_BRM, value_BRM = projected.chunk(2, -1)
        return self._heads(key_BRM), self._heads(value_BRM)

    def _cross(self, x_BM: Tensor, keys_BRHd: Tensor, values_BRHd: Tensor, t: int) -> Tensor:
        attention, width, per_frame = self.layer.multihead_attn, self.config.dim, self.config.memory_per_frame
        if per_frame == 1:  # one key only: its softmax weight is 1, so the query plays no part
            return attention.out_proj(values_BRHd[:, t].flatten(-2))
        query_BM = F.linear(x_BM, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
        own = range(t * per_frame, (t + 1) * per_frame)
        return self._attend(query_BM, [keys_BRHd[:, r] for r in own], [values_BRHd[:, r] for r in own], None, attention)


class FaceFormer(nn.Module):
    """Speech -> channel weights: encoder, optional Wav2Sem, fusion, decoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = build_backbone(config.encoder.kind, config.encoder.config)
        self.wav2sem = Wav2Sem(config.wav2sem.config, config.wav2sem.target_dim) if config.wav2sem else None
        self.fusion = SemanticFusion(
            self.audio_encoder.config.hidden_size,
            config.decoder.dim,
            config.wav2sem.target_dim if config.wav2sem else None,
            legacy_predict=config.legacy_predict,
        )
        self.decoder = FaceDecoder(config.decoder, len(config.channels), len(config.styles))

    def memory(self, waveform_BS: Tensor, positions_BR: Tensor, semantic_BTE: Tensor | None) -> Tensor:
        """Fused features (B, R, M), what the decoder attends to; `semantic_BTE` is already scaled."""
        features_BRD, _ = encode(self.audio_encoder, waveform_BS, positions_BR)
        return self.fusion(features_BRD, semantic_BTE)

    def forward(self, waveform_BS: Tensor, positions_BR: Tensor, style_BN: Tensor) -> Tensor:
        """Channel weights (B, T, K), semantics at full strength."""
        semantic_B1E = self.wav2sem(waveform_BS).unsqueeze(1) if self.wav2sem is not None else None
        return self.decoder(self.memory(waveform_BS, positions_BR, semantic_B1E), style_BN)
