# SPDX-License-Identifier: GPL-3.0-or-later
"""The transformer decoder of CodeTalker, LG-LDM and Imitator, whose frames see their past and their own memory alone.

Layers have torch's names, so a published state dict loads as it is.

Shapes: B batch, T animation frames, R memory frames, M width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hosts.faceformer import MAX_CACHED_FRAMES
from .faceformer import alignment_mask, biased_causal_mask


class AlignmentDecoder(nn.Module):
    """Post-norm transformer layers under torch's names, over frames that see their past and their own memory.

    Attributes:
        period: Of the self-attention's bias, in frames; None leaves the bias out (Imitator).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        n_layers: int,
        *,
        period: int | None,
        memory_per_frame: int = 1,
        ffn_dim: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.heads, self.period, self.memory_per_frame = heads, period, memory_per_frame
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, heads, ffn_dim or 2 * width, dropout=dropout, batch_first=True)
            for _ in range(n_layers)
        )

    def bias(self, n_frames: int, device: torch.device) -> Tensor:
        """What is added to the self-attention's scores (H, T, T)."""
        period = self.period or n_frames  # with a period of all frames the bias is 0 wherever it is not -inf
        return biased_causal_mask(n_frames, self.heads, period, device, base=2 ** (8 / self.heads))

    def forward(self, x_BTM: Tensor, memory_BRM: Tensor) -> Tensor:
        """One parallel pass over T frames and the first of the memory (B, T, M)."""
        batch, n_frames, _ = x_BTM.shape
        mask = self.bias(n_frames, x_BTM.device).repeat(batch, 1, 1)
        own = alignment_mask(n_frames, self.memory_per_frame, x_BTM.device)
        for layer in self.layers:
            x_BTM = layer(x_BTM, memory_BRM[:, : own.shape[1]], tgt_mask=mask, memory_mask=own)
        return x_BTM

    def cached(self, memory_BRM: Tensor) -> CachedDecoding:
        """The same frame by frame, without dropout and gradients."""
        return CachedDecoding(self, memory_BRM)


class CachedDecoding:
    """`AlignmentDecoder` one frame a step: every frame's keys and values are computed once.

    A frame sees at most `MAX_CACHED_FRAMES`, so that it costs the same at minute 1 and at minute 60.
    """

    def __init__(self, decoder: AlignmentDecoder, memory_BRM: Tensor) -> None:
        self._decoder, self._n_done = decoder, 0
        self._layers = [layer for layer in decoder.layers if isinstance(layer, nn.TransformerDecoderLayer)]
        batch, n_memory, width = memory_BRM.shape
        n_frames = n_memory // decoder.memory_per_frame
        n_seen = min(max(n_frames, 1), MAX_CACHED_FRAMES)
        self._bias_HT = decoder.bias(n_seen, memory_BRM.device)[:, -1]
        shape = 2, batch, decoder.heads, n_frames, width // decoder.heads
        self._past = [memory_BRM.new_zeros(shape) for _ in self._layers]
        self._own = [self._projected(layer.multihead_attn, memory_BRM) for layer in self._layers]

    def _projected(self, attention: nn.MultiheadAttention, memory_BRM: Tensor) -> Tensor:
        """Keys and values of the memory (2, B, T, H, r, d)."""
        width = memory_BRM.shape[-1]
        both = F.linear(memory_BRM, attention.in_proj_weight[width:], attention.in_proj_bias[width:])
        frames = both.unflatten(1, (-1, self._decoder.memory_per_frame)).unflatten(-1, (2, self._decoder.heads, -1))
        return frames.permute(3, 0, 1, 4, 2, 5)

    @torch.no_grad()
    def step(self, x_BM: Tensor) -> Tensor:
        """The next frame's output (B, M)."""
        t, heads = self._n_done, self._decoder.heads
        self._n_done += 1
        n_seen = min(t + 1, self._bias_HT.shape[1])
        # The bias of the last frame, read from its end, is that of any frame.
        bias_H1t = self._bias_HT[:, None, -n_seen:]
        for layer, past, own in zip(self._layers, self._past, self._own, strict=True):
            attention = layer.self_attn
            projected = F.linear(x_BM, attention.in_proj_weight, attention.in_proj_bias)
            query_BHd, *new = projected.unflatten(-1, (3, heads, -1)).unbind(1)
            past[0, :, :, t], past[1, :, :, t] = new
            seen = past[:, :, :, t + 1 - n_seen : t + 1]
            mixed = F.scaled_dot_product_attention(query_BHd[:, :, None], *seen, attn_mask=bias_H1t)
            x_BM = layer.norm1(x_BM + attention.out_proj(mixed.flatten(1)))
            cross, width = layer.multihead_attn, x_BM.shape[-1]
            if own.shape[4] == 1:  # the softmax of a single key is 1, whatever the query
                mixed = own[1, :, t]
            else:
                query = F.linear(x_BM, cross.in_proj_weight[:width], cross.in_proj_bias[:width])
                mixed = F.scaled_dot_product_attention(query.unflatten(-1, (heads, 1, -1)), *own[:, :, t])
            x_BM = layer.norm2(x_BM + cross.out_proj(mixed.flatten(1)))
            x_BM = layer.norm3(x_BM + layer.linear2(F.relu(layer.linear1(x_BM))))
        return x_BM
