# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceFormer's decoder at inference: NumPy, exact, cached; the same for both engines.

`vertice_map` after `vertice_map_r` is folded into one (M, M) matrix, so that the loop never touches a vertex, nor even
a channel: it feeds back its own M-d hidden state. With one memory frame per animation frame the cross-attention has a
single key and is one matrix product for the whole recording.

Shapes: T animation frames, R memory frames, M decoder width, H heads, K channels, C cached frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from .checkpoint import DecoderConfig

MAX_CACHED_FRAMES = 600
"""Frames that self-attention looks back on: 20 s, the longest recording FaceFormer is defined for. Exact up to there;
beyond it the cache slides, so that minute 60 costs what minute 1 costs."""


class MotionDecoder:
    """Memory in, channel weights out; equal to `nn.faceformer.FaceDecoder` in eval mode."""

    def __init__(self, config: DecoderConfig, tensors: Mapping[str, np.ndarray]) -> None:
        """`tensors`: the state dict of `FaceDecoder`."""
        self.config = config
        self._tensors = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
        w = self._tensors
        width = config.dim
        self_weight, self_bias = w["layer.self_attn.in_proj_weight"], w["layer.self_attn.in_proj_bias"]
        scale = np.ones((3 * width, 1), np.float32)
        scale[:width] = 1 / math.sqrt(width // config.heads)  # the query's 1/sqrt(d), paid once here
        self._qkv = np.ascontiguousarray((self_weight * scale).T)
        self._qkv_bias = self_bias * scale[:, 0]
        self._fold = np.ascontiguousarray((w["feedback_map.weight"] @ w["motion_head.weight"]).T)
        self._fold_bias = w["feedback_map.weight"] @ w["motion_head.bias"] + w["feedback_map.bias"]
        self._positions = periodic_positions(config.period, width)

    @property
    def n_styles(self) -> int:
        """Number of speaking styles."""
        return self._tensors["style.weight"].shape[1]

    def decode(
        self,
        memory_RM: np.ndarray,
        style_N: np.ndarray,
        progress: Callable[[float], None] | None = None,
        max_cached_frames: int = MAX_CACHED_FRAMES,
    ) -> np.ndarray:
        """Run the whole recording.

        Args:
            memory_RM: fused features, `memory_per_frame` rows an animation frame.
            style_N: weights of the styles: one-hot, or a mixture.
            progress: called with the fraction done about once a second of animation.
            max_cached_frames: how far back self-attention looks.

        Returns:
            float32 (T, K).
        """
        hidden_TM = self._hidden_states(np.asarray(memory_RM, np.float32), style_N, progress, max_cached_frames)
        return hidden_TM @ self._tensors["motion_head.weight"].T + self._tensors["motion_head.bias"]

    def _hidden_states(self, memory_RM, style_N, progress, max_cached_frames: int) -> np.ndarray:
        w, config = self._tensors, self.config
        heads, width = config.heads, config.dim
        n_frames = len(memory_RM) // config.memory_per_frame
        style_M = w["style.weight"] @ np.asarray(style_N, np.float32)
        inputs_pM = self._positions + style_M
        cross = self._cross_attention(memory_RM)
        capacity = max_cached_frames + min(max_cached_frames, max(n_frames, 1))
        keys = np.zeros((heads, capacity, width // heads), np.float32)
        values = np.zeros_like(keys)
        bias_HC = self._lag_bias(max_cached_frames)
        out_weight, out_bias = w["layer.self_attn.out_proj.weight"].T, w["layer.self_attn.out_proj.bias"]
        linear1, linear2 = w["layer.linear1.weight"].T, w["layer.linear2.weight"].T
        hidden_TM = np.empty((n_frames, width), np.float32)
        end = 0  # one past the newest cached frame
        for t in range(n_frames):
            x = inputs_pM[t % config.period]
            if t:
                x = x + hidden_TM[t - 1] @ self._fold + self._fold_bias
            query, key, value = np.split(x @ self._qkv + self._qkv_bias, 3)
            if end == capacity:  # slide: one copy every `max_cached_frames` frames keeps the cache contiguous
                kept = max_cached_frames - 1
                keys[:, :kept], values[:, :kept] = keys[:, end - kept :].copy(), values[:, end - kept :].copy()
                end = kept
            keys[:, end], values[:, end] = key.reshape(heads, -1), value.reshape(heads, -1)
            end += 1
            start = max(0, end - max_cached_frames)
            scores = (keys[:, start:end] @ query.reshape(heads, -1, 1))[..., 0] + bias_HC[:, start - end :]
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = (scores[:, None] @ values[:, start:end]).reshape(-1)
            x = self._norm(x + mixed @ out_weight + out_bias, "norm1")
            x = self._norm(x + cross(x, t), "norm2")
            inner = np.maximum(x @ linear1 + w["layer.linear1.bias"], 0) @ linear2 + w["layer.linear2.bias"]
            hidden_TM[t] = self._norm(x + inner, "norm3")
            if progress and t % config.fps == 0:
                progress(t / n_frames)
        return hidden_TM

    def _lag_bias(self, n_frames: int) -> np.ndarray:
        """(H, C): -4^-(h+1) * floor(lag / p), newest frame last."""
        slopes = 4.0 ** -(np.arange(self.config.heads) + 1.0)
        lag = np.arange(n_frames)[::-1] // self.config.period
        return (-slopes[:, None] * lag).astype(np.float32)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean()
        scale = 1 / math.sqrt(centred @ centred / len(x) + 1e-5)
        return centred * (scale * self._tensors[f"layer.{name}.weight"]) + self._tensors[f"layer.{name}.bias"]

    def _cross_attention(self, memory_RM: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
        """The cross-attention's output for frame t; every product that does not depend on the query is done here."""
        w, width, heads = self._tensors, self.config.dim, self.config.heads
        weight, bias = w["layer.multihead_attn.in_proj_weight"], w["layer.multihead_attn.in_proj_bias"]
        out_weight, out_bias = w["layer.multihead_attn.out_proj.weight"].T, w["layer.multihead_attn.out_proj.bias"]
        if self.config.memory_per_frame == 1:
            # One matrix for value and output: an hour's values alone would be another 28 MB.
            attended_TM = memory_RM @ (weight[2 * width :].T @ out_weight)
            attended_TM += bias[2 * width :] @ out_weight + out_bias
            return lambda x, t: attended_TM[t]
        values_RM = memory_RM @ weight[2 * width :].T + bias[2 * width :]
        keys_RHd = (memory_RM @ weight[width : 2 * width].T + bias[width : 2 * width]).reshape(
            len(memory_RM), heads, -1
        )
        values_RHd = values_RM.reshape(len(memory_RM), heads, -1)
        scale = 1 / math.sqrt(width // heads)

        def attend(x: np.ndarray, t: int) -> np.ndarray:
            own = slice(t * self.config.memory_per_frame, (t + 1) * self.config.memory_per_frame)
            query_Hd = (x @ weight[:width].T + bias[:width]).reshape(heads, -1)
            scores_rH = np.einsum("hd,rhd->rh", query_Hd, keys_RHd[own]) * scale
            scores_rH = np.exp(scores_rH - scores_rH.max(0))
            scores_rH /= scores_rH.sum(0)
            return np.einsum("rh,rhd->hd", scores_rH, values_RHd[own]).reshape(-1) @ out_weight + out_bias

        return attend


def periodic_positions(period: int, width: int) -> np.ndarray:
    """One period of FaceFormer's periodic positional encoding (p, M)."""
    position = np.arange(period, dtype=np.float32)[:, None]
    rate = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / width))
    table = np.zeros((period, width), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(position * rate), np.cos(position * rate)
    return table
