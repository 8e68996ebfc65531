# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the inference of a host with the loop of its released code, at full size with the same random weights.

    python tests/bench/host_decoding.py [--short]

CodeTalker: the transformer's past is cached, motion is fed back without vertices, and the codec's last block computes
the newest frame alone. The released loop recomputes all of it at every step, on 5,023 vertices.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from report import Row, run_alone

from wav2sem_blender.pipeline.hosts.codetalker import VOCASET
from wav2sem_blender.pipeline.nn.codetalker import CodeTalkerNetwork

TOLERANCE = 1e-4
"""Of the motion: float32 after a loop; a code that two roundings choose differently would be far above."""


def random_codetalker() -> CodeTalkerNetwork:
    """CodeTalker of VOCASET with random weights that use many codes."""
    torch.manual_seed(0)
    network = VOCASET.network(3 * 5023, 8).eval().requires_grad_(False)
    torch.nn.init.normal_(network.feat_map.weight, std=VOCASET.dim**-0.5)
    torch.nn.init.normal_(network.autoencoder.quantize.embedding.weight)
    return network


def predict_by_prefix(network: CodeTalkerNetwork, memory_1RM: torch.Tensor) -> torch.Tensor:
    """The released `predict`: every step runs the prefix through the decoder, the codec and its vertices."""
    codec, style_1M = network.autoencoder, network.learnable_style_emb.weight[2:3]
    fed_1tM = style_1M[None]
    for t in range(memory_1RM.shape[1]):
        positions_tM = network.positions[torch.arange(t + 1) % VOCASET.period]
        hidden_1tM = network.transformer_decoder(fed_1tM + positions_tM, memory_1RM)
        quantised_1tZ, _, _ = codec.quantize(network.feat_map(hidden_1tM))
        codes_1tZ = quantised_1tZ if t else quantised_1tZ.expand(-1, 2, -1)
        motion_1tX = codec.motion_from(codes_1tZ)[:, : t + 1]
        fed_1tM = torch.cat([fed_1tM, network.vertice_map(motion_1tX[:, -1:]) + style_1M], 1)
    return motion_1tX


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Time both at a few seconds of speech, compare them, and time ours at 10 s."""
    torch.set_num_threads(chosen.cores)
    network = random_codetalker()
    duration_s = 0.5 if chosen.short else 4
    memory_1RM, style_1N = torch.randn(1, 10 * VOCASET.fps, VOCASET.dim), F.one_hot(torch.tensor([2]), 8).float()
    part_1RM = memory_1RM[:, : int(duration_s * VOCASET.fps)]
    start = time.perf_counter()
    expected_1TX = predict_by_prefix(network, part_1RM)
    loop_s = time.perf_counter() - start
    start = time.perf_counter()
    motion_1TX = network.generate(part_1RM, style_1N)
    own_s = time.perf_counter() - start
    error = float((motion_1TX - expected_1TX).abs().max() / expected_1TX.abs().max())
    name = "CodeTalker, VOCASET"
    ratio, met = loop_s / own_s, None if chosen.short else loop_s / own_s >= 2
    rows = [
        Row(name=f"{name}, released loop, {duration_s:g} s", value=loop_s, unit="s"),
        Row(name=f"{name}, ours, {duration_s:g} s", value=own_s, unit="s"),
        Row(name=f"{name}, loop / ours", value=ratio, unit="x", aim=">= 2 at 4 s", met=met),
        Row(name=f"{name}, difference", value=error, unit="of scale", aim="<= 1e-4", met=error <= TOLERANCE),
    ]
    if not chosen.short:
        start = time.perf_counter()
        network.generate(memory_1RM, style_1N)
        rows.append(Row(name=f"{name}, ours, 10 s", value=time.perf_counter() - start, unit="s"))
    return rows


if __name__ == "__main__":
    run_alone(measure)
