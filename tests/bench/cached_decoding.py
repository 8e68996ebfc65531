# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the cached NumPy decoder with FaceFormer's published loop, which decodes the prefix again for each frame.

    python tests/bench/cached_decoding.py [--short]

Both have the published size (5,023 vertices = 15,069 outputs, 64-d) and the same random weights, and must agree.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from report import Row, best_s, run_alone

from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer, MotionDecoder
from wav2sem_blender.pipeline.nn.faceformer import FaceDecoder, alignment_mask, biased_causal_mask

N_OUTPUTS = 5023 * 3
N_STYLES = 8
# The accuracy of float32 after a loop that feeds its output back 600 times.
TOLERANCE = 1e-5


def random_decoder(n_outputs: int) -> FaceDecoder:
    """FaceFormer's FLAME decoder with random weights. With its zero motion head every answer would be right."""
    torch.manual_seed(0)
    decoder = FaceDecoder(FaceFormer(), n_outputs, N_STYLES).eval().requires_grad_(False)
    torch.nn.init.normal_(decoder.motion_head.weight, std=1 / math.sqrt(64))
    torch.nn.init.normal_(decoder.motion_head.bias, std=0.1)
    return decoder


def decode_by_prefix(decoder: FaceDecoder, memory_RM: torch.Tensor, style_N: torch.Tensor) -> torch.Tensor:
    """The published `predict`, without cache and folding: each step runs the prefix through the vertices and back."""
    config, n_frames = decoder.config, len(memory_RM)
    self_mask = biased_causal_mask(n_frames, config.heads, config.period)
    cross_mask = alignment_mask(n_frames, config.memory_per_frame)
    style_M = decoder.style(style_N)
    embedded_tM = style_M[None]
    for t in range(n_frames):
        index = torch.arange(t + 1)
        hidden = decoder.layer(
            (embedded_tM + decoder.positions[index % config.period])[None],
            memory_RM[None],
            tgt_mask=self_mask[:, : t + 1, : t + 1],
            memory_mask=cross_mask[: t + 1],
        )
        output_tK = decoder.motion_head(hidden[0])
        fed_M = decoder.feedback_map(output_tK[-1]) + style_M
        embedded_tM = torch.cat([embedded_tM, fed_M[None]])
    return output_tK


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Time both at 20 s, compare their outputs, then time the cached one at several lengths."""
    loop_length_s = 10 if chosen.short else 20  # the loop alone takes half a minute at 20 s
    torch.set_num_threads(chosen.cores)
    decoder = random_decoder(N_OUTPUTS)
    fps = decoder.config.fps
    cached = MotionDecoder(decoder.config, {name: tensor.numpy() for name, tensor in decoder.state_dict().items()})
    memory_RM = np.random.default_rng(1).standard_normal((60 * 60 * fps, 64)).astype(np.float32)
    style_N = np.eye(N_STYLES, dtype=np.float32)[2]

    window_RM = memory_RM[: loop_length_s * fps]
    start = time.perf_counter()
    expected_TK = decode_by_prefix(decoder, torch.from_numpy(window_RM), torch.from_numpy(style_N)).numpy()
    loop_s = time.perf_counter() - start
    cached_s = best_s(lambda: cached.decode(window_RM, style_N))
    error = float(np.abs(cached.decode(window_RM, style_N) - expected_TK).max() / np.abs(expected_TK).max())
    ratio = loop_s / cached_s
    # The aim is for 20 s, because the loop's cost grows faster than its length.
    met = None if chosen.short else ratio >= 100
    rows = [
        Row(name=f"decoder, prefix loop, {loop_length_s} s", value=loop_s, unit="s"),
        Row(name=f"decoder, cached, {loop_length_s} s", value=cached_s, unit="s"),
        Row(name="decoder, loop / cached", value=ratio, unit="x", aim=">= 100 at 20 s", met=met),
        Row(name="decoder, difference", value=error, unit="of scale", aim="<= 1e-5", met=error <= TOLERANCE),
    ]
    # From a minute on the cache slides, so the cost is linear. Few outputs, so that an hour fits into memory.
    small = random_decoder(52)
    cached = MotionDecoder(small.config, {name: tensor.numpy() for name, tensor in small.state_dict().items()})
    frame_us = {}
    for minutes in (1, 10) if chosen.short else (1, 10, 60):
        n_frames = minutes * 60 * fps
        seconds = best_s(lambda n=n_frames: cached.decode(memory_RM[:n], style_N), repeats=1 if minutes > 10 else 3)
        frame_us[minutes] = seconds / n_frames * 1e6
        rows.append(Row(name=f"decoder, cached, {minutes} min", value=frame_us[minutes], unit="us per frame"))
    growth = frame_us[max(frame_us)] / frame_us[1]
    name = f"decoder, cost of a frame at {max(frame_us)} min / at 1 min"
    rows.append(Row(name=name, value=growth, unit="x", aim="<= 1.2 (linear)", met=growth <= 1.2))
    return rows


if __name__ == "__main__":
    run_alone(measure)
