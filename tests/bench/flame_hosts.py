# SPDX-License-Identifier: GPL-3.0-or-later
"""Time ProbTalk3D and LSF-Animation, and compare LSF's fusion with the released one, at full size with random weights.

    python tests/bench/flame_hosts.py [--short]

The released fusion makes a key and a value for every pair of an emotion frame and a speech frame. Ours attends to
frames, which gives the same tokens.
"""

from __future__ import annotations

import argparse
import time
from unittest.mock import patch

import torch
from report import Row, best_s, run_alone
from torch import Tensor

from wav2sem_blender.pipeline.hosts.lsf import LSF
from wav2sem_blender.pipeline.hosts.probtalk3d import ProbTalk3D
from wav2sem_blender.pipeline.nn.lsf import PairAttention

N_STYLES = 43
TOLERANCE = 1e-5


def over_pairs(attention: PairAttention, token_BFM: Tensor, emotion_BTM: Tensor, speech_BTM: Tensor) -> Tensor:
    """The released fusion's attention."""
    n_frames, heads = emotion_BTM.shape[1], attention.heads
    each = emotion_BTM[:, :, None].expand(-1, -1, n_frames, -1), speech_BTM[:, None].expand(-1, n_frames, -1, -1)
    key_value = attention.kv(torch.cat(each, -1).flatten(1, 2)).unflatten(-1, (2, heads, -1))
    key, value = key_value.permute(2, 0, 3, 1, 4).unbind()
    query = attention.q(token_BFM).unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = query @ key.transpose(-1, -2) * (token_BFM.shape[-1] / heads) ** -0.5
    return attention.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


@torch.no_grad()
def measure(chosen: argparse.Namespace) -> list[Row]:
    """The whole predictor with either fusion, and 10 s of both hosts behind their encoders."""
    duration_s = 2 if chosen.short else 10
    style_1N = torch.eye(N_STYLES)[:1]
    rows = []
    for host, width in ((ProbTalk3D(), 768), (LSF(), 2 * 768)):
        torch.manual_seed(0)
        network, memory_1RM = host.network(53, N_STYLES).eval(), torch.randn(1, 50 * duration_s, width)
        seconds = best_s(lambda ours=network, read=memory_1RM: ours.generate(read, style_1N))
        rows.append(Row(name=f"{host.KIND}, {duration_s} s behind its encoders", value=seconds, unit="s"))
    own_s, ours = best_s(lambda: network.latents(memory_1RM, style_1N)), network.latents(memory_1RM, style_1N)
    with patch.object(PairAttention, "forward", over_pairs):
        start = time.perf_counter()
        released = network.latents(memory_1RM, style_1N)
        ratio = (time.perf_counter() - start) / own_s
    error = float((ours - released).abs().max() / released.abs().max())
    met = None if chosen.short else ratio >= 5
    rows.append(Row(name="lsf, predictor, pairs / ours", value=ratio, unit="x", aim=">= 5 at 10 s", met=met))
    rows.append(Row(name="lsf, difference", value=error, unit="of scale", aim="<= 1e-5", met=error <= TOLERANCE))
    return rows


if __name__ == "__main__":
    run_alone(measure)
