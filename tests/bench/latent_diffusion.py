# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare LG-LDM's steps with those of its released code, at full size with random weights.

    python tests/bench/latent_diffusion.py [--short]

The released code runs HuBERT-large at each of its 100 steps, and leaves out the result of the last. Ours runs it once,
and frame-wise cross-attention is a linear map. One step of each is timed, and the encoder alone.
"""

from __future__ import annotations

import argparse

import torch
from report import Row, best_s, run_alone

from wav2sem_blender.pipeline.hosts.lgldm import VOCASET
from wav2sem_blender.pipeline.nn.encoders import XLSR_53, build_backbone, encode
from wav2sem_blender.pipeline.nn.lgldm import Denoiser

TIME = 500


@torch.no_grad()
def measure(chosen: argparse.Namespace) -> list[Row]:
    """VOCASET's denoiser; a short run takes 2 s of sound instead of 10."""
    torch.set_num_threads(chosen.cores)
    torch.manual_seed(0)
    duration_s = 2 if chosen.short else 10
    n_frames = VOCASET.grid.animation_frames(16_000 * duration_s)
    denoiser = Denoiser(VOCASET, 8).eval()
    torch.nn.init.normal_(denoiser.latent_decoder.weight, std=0.02)
    heard = denoiser.heard(torch.randn(1, n_frames, VOCASET.audio_dim))
    told, latents = denoiser.told(torch.eye(8)[:1]), torch.randn(1, n_frames, VOCASET.dim)
    ours = denoiser.prepared(heard, told)
    times = torch.tensor([TIME])
    plain_s = best_s(lambda: denoiser(latents, times, heard, told))
    step_s = best_s(lambda: ours(latents, TIME))
    expected = denoiser(latents, times, heard, told)
    error = float((ours(latents, TIME) - expected).abs().max() / expected.abs().max())
    backbone, waveform = build_backbone("hubert", XLSR_53).eval(), torch.randn(1, 16_000 * duration_s)
    encoder_s = best_s(lambda: encode(backbone, waveform))
    steps = VOCASET.sampling_steps
    ratio = steps * (encoder_s + plain_s) / (encoder_s + (steps - 1) * step_s)
    name = "LG-LDM, VOCASET"
    return [
        Row(name=f"{name}, a released step, {duration_s} s", value=encoder_s + plain_s, unit="s"),
        Row(name=f"{name}, a step of ours, {duration_s} s", value=step_s, unit="s"),
        Row(
            name=f"{name}, released / ours, {steps} steps",
            value=ratio,
            unit="x",
            aim=">= 10 at 10 s",
            met=None if chosen.short else ratio >= 10,
        ),
        Row(name=f"{name}, difference", value=error, unit="of scale", aim="<= 1e-5", met=error <= 1e-5),
    ]


if __name__ == "__main__":
    run_alone(measure)
