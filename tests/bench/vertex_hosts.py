# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare Imitator and FaceDiffuser with the loops of their released code, at full size with the same random weights.

    python tests/bench/vertex_hosts.py [--short]

Imitator's released loop decodes the prefix again for each frame; ours caches it. FaceDiffuser's runs the speech encoder
and moves all vertices at each of 1,000 steps; ours runs the encoder once and moves none. A few steps are timed. Both
get the same noise where they are compared.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from report import Row, best_s, run_alone

from wav2sem_blender.pipeline.hosts.facediffuser import FaceDiffuser
from wav2sem_blender.pipeline.hosts.imitator import Imitator
from wav2sem_blender.pipeline.nn.encoders import build_backbone, encode, resample_features
from wav2sem_blender.pipeline.nn.facediffuser import FaceDiffuserNetwork

N_OUTPUTS = 5023 * 3
STYLE_1N = torch.eye(8)[2:3]
TOLERANCE = 1e-4  # float32 after a loop, of the motion


def imitator(chosen: argparse.Namespace) -> list[Row]:
    """The released loop and the cached one."""
    duration_s = 2 if chosen.short else 10
    torch.manual_seed(0)
    network = Imitator().network(N_OUTPUTS, 8).eval().requires_grad_(False)
    torch.nn.init.normal_(network.vertice_map_r.head.weight)
    memory_1RM = torch.randn(1, 30 * duration_s, network.config.dim)
    start = time.perf_counter()
    expected_1TX = network.recomputed(memory_1RM, STYLE_1N)
    loop_s = time.perf_counter() - start
    own_s = best_s(lambda: network.generate(memory_1RM, STYLE_1N))
    ratio, error = loop_s / own_s, _difference(network.generate(memory_1RM, STYLE_1N), expected_1TX)
    return [
        Row(name=f"Imitator, released loop, {duration_s} s", value=loop_s, unit="s"),
        Row(name=f"Imitator, ours, {duration_s} s", value=own_s, unit="s"),
        Row(
            name="Imitator, loop / ours",
            value=ratio,
            unit="x",
            aim=">= 3 at 10 s",
            met=None if chosen.short else ratio >= 3,
        ),
        Row(name="Imitator, difference", value=error, unit="of scale", aim="<= 1e-4", met=error <= TOLERANCE),
    ]


def facediffuser(chosen: argparse.Namespace) -> list[Row]:
    """The released loop and ours, for 1,000 steps by a few of them; then the whole of ours."""
    duration_s, n_steps = (1, 3) if chosen.short else (10, 6)
    torch.manual_seed(0)
    whole = FaceDiffuser()
    network = replace(whole, steps=n_steps).network(N_OUTPUTS, 8).eval().requires_grad_(False)
    for parameter in (*network.final_layer.parameters(), network.templates_NX):
        torch.nn.init.normal_(parameter, std=0.1)
    backbone = build_backbone("hubert", {}).eval().requires_grad_(False)
    n_samples = 16_000 * duration_s
    waveform_1S = torch.randn(1, n_samples)
    positions_1R = torch.from_numpy(whole.grid.positions(n_samples)).float()[None]
    noises = torch.randn(n_steps + 1, 1, positions_1R.shape[1] // 2, N_OUTPUTS)

    def heard() -> torch.Tensor:
        return resample_features(encode(backbone, waveform_1S)[0], positions_1R)

    start = time.perf_counter()
    expected_1TX = released_loop(network, heard, noises)
    loop_s = (time.perf_counter() - start) / n_steps
    start = time.perf_counter()
    memory_1RD = heard()
    encoder_s = time.perf_counter() - start
    drawn = iter(F.linear(noise, network.input_layer.weight) for noise in noises)
    fold_UM, rest_NU, _ = network.folded()
    sampled_1TX = network.final_layer(network.sample(memory_1RD, STYLE_1N, fold_UM, rest_NU, drawn))
    error = _difference(sampled_1TX, expected_1TX)
    keyed = network.on_keys()
    on_keys = keyed.host.network(len(keyed.channels), 8).eval().requires_grad_(False)
    on_keys.load_state_dict(keyed.state)
    step_s = best_s(lambda: on_keys.generate(memory_1RD, STYLE_1N)) / n_steps
    ours_s = encoder_s + whole.steps * step_s
    ratio = whole.steps * loop_s / ours_s
    name = "FaceDiffuser, VOCASET"
    rows = [
        Row(name=f"{name}, a released step, {duration_s} s", value=loop_s, unit="s"),
        Row(name=f"{name}, a step of ours, {duration_s} s", value=step_s, unit="s"),
        Row(
            name=f"{name}, released / ours, 1,000 steps",
            value=ratio,
            unit="x",
            aim=">= 20 at 10 s",
            met=None if chosen.short else ratio >= 20,
        ),
        Row(name=f"{name}, difference", value=error, unit="of scale", aim="<= 1e-4", met=error <= TOLERANCE),
    ]
    if not chosen.short:
        whole_run = replace(keyed.host, steps=whole.steps).network(len(keyed.channels), 8).eval().requires_grad_(False)
        start = time.perf_counter()
        whole_run.generate(heard(), STYLE_1N)
        rows.append(Row(name=f"{name}, ours, 10 s", value=time.perf_counter() - start, unit="s"))
    return rows


def released_loop(network: FaceDiffuserNetwork, heard, noises: torch.Tensor) -> torch.Tensor:
    """The offsets (1, T, X) after all steps on vertices, each with the encoder."""
    schedule, template_1X = network.schedule, network.templates_NX[2:3]
    face_1TX = noises[0]
    for noise_1TX, step in zip(noises[1:], reversed(range(network.config.steps)), strict=True):
        clean_1TX = network.denoise(face_1TX, torch.tensor([step]), heard(), STYLE_1N, template_1X)
        face_1TX = float(schedule["posterior_mean_coef1"][step]) * clean_1TX + (
            float(schedule["posterior_mean_coef2"][step]) * face_1TX
        )
        if step:
            face_1TX = face_1TX + float((network.log_variance_S[step] / 2).exp()) * noise_1TX
    return face_1TX - template_1X


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Both hosts."""
    torch.set_num_threads(chosen.cores)
    return imitator(chosen) + facediffuser(chosen)


if __name__ == "__main__":
    run_alone(measure)
