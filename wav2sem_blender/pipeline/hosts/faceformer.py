# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceFormer (CVPR 2022): settings, decoding in NumPy, and the names of its released files.

Inference is exact and cached. `vertice_map` after `vertice_map_r` is one (M, M) matrix, so the loop feeds back its own
hidden state and never touches a vertex. With one memory frame for each animation frame the cross-attention has a single
key, and is one matrix product for the whole recording. Both engines use it.

Shapes: T animation frames, R memory frames, M decoder width, H heads, K channels, C cached frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import UserError
from ..frame_timing import FrameGrid
from .protocol import Release

if TYPE_CHECKING:
    from ..nn.faceformer import FaceDecoder

FEEDBACK = ("published", "cached", "teacher")


@dataclass(frozen=True, kw_only=True)
class FaceFormer:
    """FaceFormer's settings; the defaults are those of VOCASET.

    Attributes:
        dim: M.
        period: Of the positional encoding and the attention bias, in animation frames.
        fps: Animation frames per second.
        memory_per_frame: Memory frames that an animation frame attends to.
        feedback: What a frame is fed in training. "published": the model's own previous frame; every step decodes the
            whole prefix again with fresh dropout. "cached": the same with one draw of dropout, several times as fast.
            "teacher": the true previous frame, in one parallel pass.
    """

    KIND: ClassVar[str] = "faceformer"

    dim: int = 64
    heads: int = 4
    ffn_dim: int = 128
    period: int = 30
    fps: int = 30
    memory_per_frame: int = 1
    dropout: float = 0.1
    feedback: str = "published"

    def __post_init__(self) -> None:
        if (self.fps, self.memory_per_frame) not in ((30, 1), (25, 2)):
            raise UserError(
                "{kind} at {fps} fps with {memory_per_frame} memory frames per animation frame: it has 30 fps with 1 "
                "or 25 fps with 2",
                kind=self.KIND,
                fps=self.fps,
                memory_per_frame=self.memory_per_frame,
            )
        if self.feedback not in FEEDBACK:
            known = ", ".join(FEEDBACK)
            raise UserError("feedback {feedback!r}: choose from {known}", feedback=self.feedback, known=known)

    @property
    def grid(self) -> FrameGrid:
        """Frames are interpolated before the encoder's transformer, or attended to in pairs."""
        return FrameGrid.at_rate(self.fps)

    @property
    def memory_width(self) -> int:
        """M, after `audio_feature_map`."""
        return self.dim

    def feature_width(self, encoder_width: int) -> int:
        """FC(F_s) is added to the encoder's hidden states."""
        return encoder_width

    def at_rate(self, fps: int) -> FaceFormer:
        """At 30 or 25 fps; the period follows, as published."""
        return replace(self, fps=fps, period=fps, memory_per_frame=FrameGrid.at_rate(fps).memory_per_frame)

    def decoder(self, tensors: Mapping[str, np.ndarray], device: str = "cpu") -> MotionDecoder:
        """On the CPU: a few small products for each frame."""
        return MotionDecoder(self, tensors)

    def network(self, n_outputs: int, n_styles: int) -> FaceDecoder:
        """The torch decoder."""
        from ..nn.faceformer import FaceDecoder

        return FaceDecoder(self, n_outputs, n_styles)

    def positions(self) -> np.ndarray:
        """One period of the positional encoding (p, M)."""
        position = np.arange(self.period, dtype=np.float32)[:, None]
        rate = np.exp(np.arange(0, self.dim, 2, dtype=np.float32) * np.float32(-math.log(10000.0) / self.dim))
        table = np.zeros((self.period, self.dim), np.float32)
        table[:, 0::2], table[:, 1::2] = np.sin(position * rate), np.cos(position * rate)
        return table


MAX_CACHED_FRAMES = 600
"""How far self-attention looks back: 20 s, the longest recording that FaceFormer is defined for. Up to there decoding
is exact. Beyond it the cache slides, so that a frame costs the same at minute 1 and at minute 60."""


class MotionDecoder:
    """Memory in, channel weights out; equal to `nn.faceformer.FaceDecoder` in eval mode."""

    def __init__(self, config: FaceFormer, tensors: Mapping[str, np.ndarray]) -> None:
        """`tensors` is the state dict of `FaceDecoder`."""
        self.config = config
        self._tensors = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
        w = self._tensors
        width = config.dim
        self_weight, self_bias = w["layer.self_attn.in_proj_weight"], w["layer.self_attn.in_proj_bias"]
        scale = np.ones((3 * width, 1), np.float32)
        scale[:width] = 1 / math.sqrt(width // config.heads)  # the query's 1/sqrt(d)
        self._qkv = np.ascontiguousarray((self_weight * scale).T)
        self._qkv_bias = self_bias * scale[:, 0]
        self._fold = np.ascontiguousarray((w["feedback_map.weight"] @ w["motion_head.weight"]).T)
        self._fold_bias = w["feedback_map.weight"] @ w["motion_head.bias"] + w["feedback_map.bias"]
        self._positions = config.positions()

    def decode(
        self,
        memory_RM: np.ndarray,
        style_N: np.ndarray,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        max_cached_frames: int = MAX_CACHED_FRAMES,
    ) -> np.ndarray:
        """As `protocol.Decoder`; nothing is sampled. `progress` is called once a second of animation."""
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
            if end == capacity:  # slide; the cache stays contiguous for one copy in `max_cached_frames` frames
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
        """A function that gives the output for frame t; products that do not depend on the query are computed here."""
        w, width, heads = self._tensors, self.config.dim, self.config.heads
        weight, bias = w["layer.multihead_attn.in_proj_weight"], w["layer.multihead_attn.in_proj_bias"]
        out_weight, out_bias = w["layer.multihead_attn.out_proj.weight"].T, w["layer.multihead_attn.out_proj.bias"]
        if self.config.memory_per_frame == 1:
            # One matrix for value and output saves an hour's values, 28 MB.
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


OFFICIAL_NAMES = (
    ("audio_feature_map.", "fusion.audio_feature_map."),
    ("transformer_decoder.layers.0.", "decoder.layer."),
    ("obj_vector.", "decoder.style."),
    ("vertice_map_r.", "decoder.motion_head."),
    ("vertice_map.", "decoder.feedback_map."),
)
IGNORED_KEYS = ("PPE.pe",)
HEAD_KEY = "vertice_map_r.weight"
_VOCASET_SUBJECTS = (
    *("170728_03272", "170904_00128", "170725_00137", "170915_00223"),
    *("170811_03274", "170913_03279", "170904_03276", "170912_03278"),
)
RELEASES = {
    "faceformer-vocaset": Release(
        host=FaceFormer(),
        n_vertices=5023,
        topology="flame",
        basis_unit="m",
        styles=tuple(f"FaceTalk_{subject}_TA" for subject in _VOCASET_SUBJECTS),
    ),
    "faceformer-biwi": Release(
        host=FaceFormer(dim=128, ffn_dim=256, period=25, fps=25, memory_per_frame=2),
        n_vertices=23370,
        topology="biwi",
        basis_unit="sqrt_area",
        styles=("F2", "F3", "F4", "M3", "M4", "M5"),
    ),
}
