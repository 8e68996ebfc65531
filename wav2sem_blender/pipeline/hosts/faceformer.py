# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceFormer (CVPR 2022): settings, decoding in NumPy, and its releases.

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
from .protocol import Host, Release

if TYPE_CHECKING:
    from ..nn.faceformer import FaceDecoder

FEEDBACK = ("published", "cached", "teacher")


@dataclass(frozen=True, kw_only=True)
class FaceFormer(Host):
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
    IN_NUMPY: ClassVar[bool] = True

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
        if self.dim % (2 * self.heads):
            raise UserError(
                "{kind}: a width of {dim} is no multiple of twice its {heads} heads",
                kind=self.KIND,
                dim=self.dim,
                heads=self.heads,
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

    def flops(self, n_frames: int) -> float:
        """As `Host`: the products of a frame, and its attention to all frames before it."""
        products = 12 * self.dim**2 + 4 * self.dim * self.ffn_dim
        return n_frames * (products + 2 * self.dim * min(n_frames, MAX_CACHED_FRAMES))

    def at_rate(self, fps: int) -> FaceFormer:
        """At 30 or 25 fps; the period follows, as published."""
        return replace(self, fps=fps, period=fps, memory_per_frame=FrameGrid.at_rate(fps).memory_per_frame)

    def decoder(self, tensors: Mapping[str, np.ndarray]) -> MotionDecoder:
        """As `Host`: a few small products for each frame."""
        return MotionDecoder(self, tensors)

    def shapes(self, n_channels: int, n_styles: int) -> dict[str, tuple[int, ...]]:
        """As `Host`."""
        width = self.dim
        found: dict[str, tuple[int, ...]] = {"style.weight": (width, n_styles)}
        linear = {"feedback_map": (width, n_channels), "motion_head": (n_channels, width)}
        linear |= {"layer.linear1": (self.ffn_dim, width), "layer.linear2": (width, self.ffn_dim)}
        for name in ("self_attn", "multihead_attn"):
            linear[f"layer.{name}.out_proj"] = (width, width)
            found[f"layer.{name}.in_proj_weight"] = (3 * width, width)
            found[f"layer.{name}.in_proj_bias"] = (3 * width,)
        for name, (n_outputs, n_inputs) in linear.items():
            found |= {f"{name}.weight": (n_outputs, n_inputs), f"{name}.bias": (n_outputs,)}
        for number in (1, 2, 3):
            found |= {f"layer.norm{number}.weight": (width,), f"layer.norm{number}.bias": (width,)}
        return found

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

_LARGEST_PRODUCT = 9216
"""OpenBLAS computes a product of a vector and a matrix in threads if the matrix has at least this many elements. At
30 frames a second with several products each, on a machine with other work, that made a frame 300 times as slow. A
width of 64 stays below; `threads.py` limits the threads in our own processes."""


class MotionDecoder:
    """Memory in, channel weights out; equal to `nn.faceformer.FaceDecoder` in eval mode."""

    def __init__(self, config: FaceFormer, tensors: Mapping[str, np.ndarray]) -> None:
        """`tensors` is the state dict of `FaceDecoder`."""
        self.config = config
        self._tensors = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
        w = self._tensors
        width = config.dim
        scale = np.ones(3 * width)
        scale[:width] = 1 / math.sqrt(width // config.heads)  # the query's 1/sqrt(d)
        # From the sum of a frame's inputs to itself, its query, its key and its value.
        spread_M4M = np.concatenate([np.eye(width), w["layer.self_attn.in_proj_weight"].T * scale], 1)
        self._spread_4MM = np.stack(np.split(spread_M4M, 4, axis=1))
        self._spread_bias_4M = np.stack([np.zeros(width), *np.split(w["layer.self_attn.in_proj_bias"] * scale, 3)])
        fold = w["motion_head.weight"].T.astype(float) @ w["feedback_map.weight"].T
        self._step_4MM = (fold @ self._spread_4MM).astype(np.float32)
        self._fold_bias = w["feedback_map.weight"] @ w["motion_head.bias"] + w["feedback_map.bias"]

    def decode(
        self,
        memory_RM: np.ndarray,
        style_N: np.ndarray,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        max_cached_frames: int = MAX_CACHED_FRAMES,
    ) -> np.ndarray:
        """As `protocol.Decoder`; nothing is sampled. `progress` is called once a second of animation."""
        w, config = self._tensors, self.config
        memory_RM = np.asarray(memory_RM, np.float32)
        n_frames = len(memory_RM) // config.memory_per_frame
        weights_TK = np.empty((n_frames, len(w["motion_head.bias"])), np.float32)
        past = _Past(config, n_frames, self._lag_bias(max_cached_frames))
        inputs_pM = config.positions() + w["style.weight"] @ np.asarray(style_N, np.float32)
        first_4M = (inputs_pM[0] @ self._spread_4MM + self._spread_bias_4M).astype(np.float32)
        later_4pM = (inputs_pM + self._fold_bias) @ self._spread_4MM + self._spread_bias_4M[:, None]
        later_p4M = np.ascontiguousarray(later_4pM.swapaxes(0, 1), np.float32)
        out_weight, out_bias = w["layer.self_attn.out_proj.weight"].T, w["layer.self_attn.out_proj.bias"]
        linear1, linear2 = w["layer.linear1.weight"].T, w["layer.linear2.weight"].T
        bias1, bias2 = w["layer.linear1.bias"], w["layer.linear2.bias"]
        norm1, norm2, norm3 = (self._norm(f"layer.norm{i}") for i in (1, 2, 3))
        hidden_tM = np.zeros((config.fps, config.dim), np.float32)
        for start in range(0, n_frames, config.fps):  # a second at a time: an hour's hidden states would take 28 MB
            if progress:
                progress(start / n_frames)
            stop = min(start + config.fps, n_frames)
            cross = self._cross_attention(
                self._memory(memory_RM, start * config.memory_per_frame, stop * config.memory_per_frame)
            )
            # Here `dot` is the faster `@`, and no product is large enough for threads (`_LARGEST_PRODUCT`).
            for i, t in enumerate(range(start, stop)):
                # Before the first frame of a second comes the last of the one before.
                frame_4M = later_p4M[t % config.period] + hidden_tM[i - 1] @ self._step_4MM if t else first_4M
                x = frame_4M[0] + past.attend(frame_4M[1:]).dot(out_weight) + out_bias
                x = norm1(x)
                x = norm2(x + cross(x, i))
                hidden_tM[i] = norm3(x + np.maximum(x.dot(linear1) + bias1, 0).dot(linear2) + bias2)
            weights_TK[start:stop] = hidden_tM[: stop - start] @ w["motion_head.weight"].T + w["motion_head.bias"]
        return weights_TK

    def _memory(self, memory_RM: np.ndarray, first: int, last: int) -> np.ndarray:
        """What is attended to in memory frames [first, last)."""
        return memory_RM[first:last]

    def _lag_bias(self, n_frames: int) -> np.ndarray:
        """(H, C): -4^-(h+1) * floor(lag / p), newest frame last."""
        slopes = 4.0 ** -(np.arange(self.config.heads) + 1.0)
        lag = np.arange(n_frames)[::-1] // self.config.period
        return (-slopes[:, None] * lag).astype(np.float32)

    def _norm(self, name: str) -> Callable[[np.ndarray], np.ndarray]:
        """A layer norm of one frame. A product with a constant vector is faster than NumPy's `mean`."""
        gain_M, shift_M = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        width = len(gain_M)
        share_M = np.full(width, 1 / width, np.float32)

        def norm(x: np.ndarray) -> np.ndarray:
            x = x - x.dot(share_M)
            x *= 1 / math.sqrt(float(x.dot(x)) / width + 1e-5)
            x *= gain_M
            x += shift_M
            return x

        return norm

    def _cross_attention(self, memory_RM: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
        """A function that gives the output for a frame, by its index within this part of the memory; products that do
        not depend on the query are computed here."""
        w, width, heads = self._tensors, self.config.dim, self.config.heads
        weight, bias = w["layer.multihead_attn.in_proj_weight"], w["layer.multihead_attn.in_proj_bias"]
        out_weight, out_bias = w["layer.multihead_attn.out_proj.weight"].T, w["layer.multihead_attn.out_proj.bias"]
        if self.config.memory_per_frame == 1:
            attended_TM = (memory_RM @ weight[2 * width :].T + bias[2 * width :]) @ out_weight + out_bias
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


class _Past:
    """The keys and values of the newest frames, and self-attention over them.

    The d dimensions of a head are in P parts, as many as keep each product below `_LARGEST_PRODUCT`.

    Attributes:
        keys: (H P, d / P, C), so that the scores of a part are one product of a row and a matrix.
        values: (H, P, C, d / P).
    """

    def __init__(self, config: FaceFormer, n_frames: int, bias_HC: np.ndarray) -> None:
        """`bias_HC` is added to the scores of the newest C frames, which are all that is looked back at."""
        self._limit, size = bias_HC.shape[1], config.dim // config.heads
        capacity = self._limit + min(self._limit, max(n_frames, 1))
        parts = next((n for n in range(1, size) if size % n == 0 and size // n * self._limit < _LARGEST_PRODUCT), size)
        self._bias_HC = bias_HC
        self.keys = np.zeros((config.heads * parts, size // parts, capacity), np.float32)
        self.values = np.zeros((config.heads, parts, capacity, size // parts), np.float32)
        self._end = 0  # one past the newest frame

    def attend(self, frame_3M: np.ndarray) -> np.ndarray:
        """Append a frame (query, key, value); the attended values (M,)."""
        query, key, value = frame_3M
        if self._end == self.keys.shape[2]:  # slide: one copy in `_limit` frames keeps the newest contiguous
            kept, self._end = slice(self._end - self._limit + 1, None), self._limit - 1
            self.keys[..., : self._end] = self.keys[..., kept].copy()
            self.values[:, :, : self._end] = self.values[:, :, kept].copy()
        self.keys[..., self._end] = key.reshape(self.keys.shape[:2])
        heads, parts, _, size = self.values.shape
        self.values[:, :, self._end] = value.reshape(heads, parts, size)
        self._end += 1
        start = max(0, self._end - self._limit)
        by_part = query.reshape(-1, 1, size) @ self.keys[..., start : self._end]
        scores_HC = np.add.reduce(by_part.reshape(heads, parts, -1), 1)
        scores_HC += self._bias_HC[:, start - self._end :]
        scores_HC -= np.maximum.reduce(scores_HC, 1, keepdims=True)  # the arrays' own `max` and `sum` take 1 us more
        np.exp(scores_HC, out=scores_HC)
        mixed = scores_HC[:, None, None] @ self.values[:, :, start : self._end]
        return (mixed.reshape(heads, -1) / np.add.reduce(scores_HC, 1, keepdims=True)).reshape(-1)


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
