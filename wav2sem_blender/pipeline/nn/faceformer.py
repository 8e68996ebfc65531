# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceFormer's decoder (CVPR 2022) in torch, with a linear motion head on a named basis.

The motion head predicts K channel weights; a basis maps them to vertex offsets. Because the head is linear, the
channels of a released checkpoint are its own 64 columns (rotated) and its bias: nothing is lost (`official.py`).

Shapes: B batch, T animation frames, R memory frames (T at 30 fps, 2T at 25 fps), M decoder width, H heads, K channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .host_network import Example, HostNetwork
from .keys import OnKeys, head_on_keys

if TYPE_CHECKING:
    from ..hosts.faceformer import FaceFormer


def biased_causal_mask(
    n_frames: int, heads: int, period: int, device: torch.device | str = "cpu", base: float = 4.0
) -> Tensor:
    """Additive self-attention mask (H, T, T): -base^-(h+1) * floor((i - j) / p) for j <= i, else -inf; any T."""
    frames = torch.arange(n_frames, device=device)
    lag = frames[:, None] - frames[None]
    slopes = base ** -(torch.arange(heads, device=device, dtype=torch.float32) + 1)
    bias = -slopes[:, None, None] * torch.div(lag, period, rounding_mode="floor")
    return bias.masked_fill(lag < 0, float("-inf"))


def alignment_mask(n_frames: int, memory_per_frame: int, device: torch.device | str = "cpu") -> Tensor:
    """Cross-attention mask (T, R), True where blocked: a frame sees only its own memory."""
    owner = torch.arange(n_frames * memory_per_frame, device=device) // memory_per_frame
    return torch.arange(n_frames, device=device)[:, None] != owner[None]


class FaceDecoder(HostNetwork):
    """The autoregressive motion decoder.

    `motion_head` is FaceFormer's `vertice_map_r`, and `feedback_map` its `vertice_map`. K is 3V in the published
    training, and the number of named keys in a model folder. Only the head at the end depends on K: the loop feeds
    hidden states back through `feedback_map(motion_head(h))`, folded into one (M, M) matrix.

    Attributes:
        criterion: What `loss` compares with: the mean squared error, unless training sets another.
    """

    positions: Tensor

    def __init__(self, config: FaceFormer, n_channels: int, n_styles: int) -> None:
        super().__init__()
        self.config = config
        self.criterion: nn.Module = nn.MSELoss()
        self.style = nn.Linear(n_styles, config.dim, bias=False)
        self.position_dropout = nn.Dropout(config.dropout)
        self.layer = nn.TransformerDecoderLayer(
            config.dim, config.heads, config.ffn_dim, dropout=config.dropout, batch_first=True
        )
        self.motion_head = nn.Linear(config.dim, n_channels)
        self.feedback_map = nn.Linear(n_channels, config.dim)
        nn.init.zeros_(self.motion_head.weight)
        nn.init.zeros_(self.motion_head.bias)
        self.register_buffer("positions", torch.from_numpy(config.positions()), persistent=False)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTK: Tensor | None = None) -> Tensor:
        """Channel weights (B, T, K), autoregressive with a key/value cache; gradients flow through the feedback.

        With `target_BTK` every frame is fed the true previous one instead, in one parallel pass.
        """
        if target_BTK is None:
            return self.motion_head(self._cached(memory_BRM, self.style(style_BN)))
        return self.motion_head(self._teacher_forced(memory_BRM, self.style(style_BN), target_BTK))

    def loss(self, example: Example) -> Tensor:
        """The criterion of a batch, with the feedback that the settings name."""
        memory_BRM, style_BN, target_BTX = example.memory_BRM, example.style_BN, example.target_BTX
        if self.config.feedback == "published":
            predicted_BTX = self.recomputed(memory_BRM, style_BN)
        else:
            predicted_BTX = self(memory_BRM, style_BN, target_BTX if self.config.feedback == "teacher" else None)
        return self.criterion(predicted_BTX, target_BTX)

    def on_keys(self) -> OnKeys:
        """M keys and the bias, with the same motion and feedback.

        The last layer norm gives h = gain * n + shift with |n| <= sqrt(M).
        """
        last, norm = self.motion_head, self.layer.norm3
        weight_XM, bias_X, gain_M, shift_M = (
            parameter.detach().cpu() for parameter in (last.weight, last.bias, norm.weight, norm.bias)
        )
        head = head_on_keys(
            weight_XM,
            bias_X,
            gain_M,
            shift_M,
            bound=math.sqrt(self.config.dim),
            max_keys=self.config.dim,
        )
        flat_KX = torch.from_numpy(head.basis_KV3).flatten(1).double()
        feedback_MK = self.feedback_map.weight.detach().cpu().double() @ flat_KX.T
        changed = {
            "motion_head.weight": head.weight_KM,
            "motion_head.bias": head.bias_K,
            "feedback_map.weight": feedback_MK.float(),
        }
        return OnKeys(self.config, self.state_dict() | changed, head.channels, head.basis_KV3)

    def on_vertices(self, basis_KV3: np.ndarray) -> dict[str, Tensor]:
        """The reverse of `on_keys`, for any basis: the state dict of a network with 3V outputs and the same motion.

        The feedback is solved (least squares) on the motions that the basis can make; no other motion is fed back.
        """
        basis_XK = torch.from_numpy(basis_KV3.reshape(len(basis_KV3), -1).T).double()
        head, feedback = self.motion_head, self.feedback_map
        return self.state_dict() | {
            "motion_head.weight": (basis_XK @ head.weight.detach().double()).float(),
            "motion_head.bias": (basis_XK @ head.bias.detach().double()).float(),
            "feedback_map.weight": (feedback.weight.detach().double() @ torch.linalg.pinv(basis_XK, rtol=1e-6)).float(),
        }

    def recomputed(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """As `forward`, by FaceFormer's own training loop: every step decodes the whole prefix with fresh dropout.

        The newest pass is fed back, and the last one is the result. Without dropout this equals `forward`.
        """
        style_BM, fold = self.style(style_BN), self._fold()
        n_frames = memory_BRM.shape[1] // self.config.memory_per_frame
        inputs_BtM = style_BM[:, None]
        for t in range(1, n_frames + 1):
            hidden_BtM = self._layer(inputs_BtM, memory_BRM)
            if t < n_frames:
                fed_B1M = F.linear(hidden_BtM[:, -1:], *fold) + style_BM[:, None]
                inputs_BtM = torch.cat([inputs_BtM, fed_B1M], 1)
        return self.motion_head(hidden_BtM)

    def _teacher_forced(self, memory_BRM: Tensor, style_BM: Tensor, target_BTK: Tensor) -> Tensor:
        """Hidden states (B, T, M). As published, frame 0 is fed a motion of zero."""
        previous_BTK = F.pad(target_BTK[:, :-1], (0, 0, 1, 0))
        return self._layer(self.feedback_map(previous_BTK) + style_BM[:, None], memory_BRM)

    def _layer(self, inputs_BtM: Tensor, memory_BRM: Tensor) -> Tensor:
        """One parallel pass over the first t frames and their memory."""
        config, (batch, n_frames, _) = self.config, inputs_BtM.shape
        index_t = torch.arange(n_frames, device=inputs_BtM.device)
        mask = biased_causal_mask(n_frames, config.heads, config.period, inputs_BtM.device)
        return self.layer(
            self.position_dropout(inputs_BtM + self.positions[index_t % config.period]),
            memory_BRM[:, : n_frames * config.memory_per_frame],
            tgt_mask=mask.repeat(batch, 1, 1),
            memory_mask=alignment_mask(n_frames, config.memory_per_frame, inputs_BtM.device),
        )

    def _fold(self) -> tuple[Tensor, Tensor]:
        """`feedback_map` after `motion_head` as one linear map: weight (M, M) and bias (M,)."""
        head, feedback = self.motion_head, self.feedback_map
        return feedback.weight @ head.weight, F.linear(head.bias, feedback.weight, feedback.bias)

    def _cached(self, memory_BRM: Tensor, style_BM: Tensor) -> Tensor:
        """Hidden states (B, T, M), one frame a step."""
        config, layer = self.config, self.layer
        n_frames = memory_BRM.shape[1] // config.memory_per_frame
        bias_H1T = biased_causal_mask(n_frames, config.heads, config.period, memory_BRM.device)[:, -1:]
        fold_weight, fold_bias = self._fold()
        index_T = torch.arange(n_frames, device=memory_BRM.device)
        constant_TBM = self.positions[index_T % config.period][:, None] + style_BM
        cross = self._cross_attention(memory_BRM)
        keys = values = memory_BRM.new_zeros(len(memory_BRM), config.heads, 0, config.dim // config.heads)
        hidden: list[Tensor] = []
        for t, constant_BM in enumerate(constant_TBM.unbind()):
            x_BM = constant_BM + F.linear(hidden[-1], fold_weight, fold_bias) if t else constant_BM
            x_BM = self.position_dropout(x_BM)
            projected_BHs3d = F.linear(x_BM, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias)
            query, key, value = (self._heads(part) for part in projected_BHs3d.chunk(3, -1))
            keys, values = torch.cat([keys, key], 2), torch.cat([values, value], 2)
            attended_BM = self._attend(query, keys, values, layer.self_attn, bias_H1T[..., n_frames - 1 - t :])
            x_BM = layer.norm1(x_BM + layer.dropout1(attended_BM))
            x_BM = layer.norm2(x_BM + layer.dropout2(cross(x_BM, t)))
            inner_BM = layer.linear2(layer.dropout(F.relu(layer.linear1(x_BM))))
            hidden.append(layer.norm3(x_BM + layer.dropout3(inner_BM)))
        return torch.stack(hidden, 1)

    def _heads(self, x_BM: Tensor) -> Tensor:
        """(B, H, 1, d)."""
        return x_BM.unflatten(-1, (self.config.heads, -1)).unsqueeze(2)

    def _attend(self, query_BH1d, keys_BHtd, values_BHtd, attention, bias_H1t: Tensor | None = None) -> Tensor:
        scores_BH1t = query_BH1d @ keys_BHtd.transpose(-1, -2) / math.sqrt(query_BH1d.shape[-1])
        if bias_H1t is not None:
            scores_BH1t = scores_BH1t + bias_H1t
        weights_BH1t = F.dropout(scores_BH1t.softmax(-1), attention.dropout, self.training)
        return attention.out_proj((weights_BH1t @ values_BHtd).flatten(1))

    def _cross_attention(self, memory_BRM: Tensor) -> Callable[[Tensor, int], Tensor]:
        """A function that gives the output (B, M) for frame t; products without the query are computed here."""
        attention, width, per_frame = self.layer.multihead_attn, self.config.dim, self.config.memory_per_frame
        projected = F.linear(memory_BRM, attention.in_proj_weight[width:], attention.in_proj_bias[width:])
        frames = projected.unflatten(1, (-1, per_frame)).unflatten(-1, (2, self.config.heads, -1))
        keys_TBHrd, values_TBHrd = frames.permute(3, 1, 0, 4, 2, 5).unbind()
        if per_frame == 1:  # the softmax of a single key is 1, whatever the query
            kept_TBH11 = F.dropout(torch.ones_like(values_TBHrd[..., :1]), attention.dropout, self.training)
            attended_TBM = attention.out_proj((kept_TBH11 * values_TBHrd).flatten(2)).unbind()
            return lambda x_BM, t: attended_TBM[t]
        keys, values = keys_TBHrd.unbind(), values_TBHrd.unbind()

        def attend(x_BM: Tensor, t: int) -> Tensor:
            query_BM = F.linear(x_BM, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
            return self._attend(self._heads(query_BM), keys[t], values[t], attention)

        return attend
