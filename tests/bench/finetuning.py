# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a step of autoregressive fine-tuning with FaceFormer's published loop.

    python tests/bench/finetuning.py [--short] [--device cuda]

The published loop decodes the whole prefix for each frame. A step is forward, backward and update of one clip of 10 s
(299 frames) at VOCASET's sizes (5,023 vertices, 64-d), with the same weights, in evaluation mode. The gradients must
agree. Measured for the decoder alone, and for the whole step with a wav2vec 2.0 of base size, whose frozen CNN the
published step runs every time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from cached_decoding import decode_by_prefix
from report import Row, best_s, run_alone, speech_samples
from torch import Tensor

from trainer.experiments.face import vocaset_cached
from trainer.loops.finetune import Example, Learner
from trainer.speech.batches import normalise
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer
from wav2sem_blender.pipeline.nn.encoders import encode
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.nn.keys import key_channels

N_OUTPUTS = 5023 * 3
N_STYLES = 8
# The accuracy of float32 after a loop that feeds its output back 299 times, forward and backward.
TOLERANCE = 1e-4


def random_model(device: str) -> FaceModel:
    """The published size with random weights that move the face a few millimetres, so the feedback has a gradient."""
    torch.manual_seed(0)
    config = ModelConfig(
        name="random",
        encoder=EncoderConfig(kind="wav2vec2", config={}),
        wav2sem=None,
        host=FaceFormer(feedback="cached"),
        channels=key_channels(64),
        styles=tuple("abcdefgh"),
    )
    model = FaceModel(config, N_OUTPUTS).eval()
    torch.nn.init.normal_(model.decoder.motion_head.weight, std=1e-3)
    model.audio_encoder.feature_extractor.requires_grad_(False)
    return model.to(device)


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Compare gradients, then time the decoder alone and the whole step."""
    torch.set_num_threads(chosen.cores)
    duration_s = 4 if chosen.short else 10  # the published loop alone takes most of a minute at 10 s
    model = random_model(chosen.device)
    decoder, device = model.decoder, torch.device(chosen.device)
    samples_S = normalise(speech_samples(duration_s))
    grid = decoder.config.grid
    n_frames = grid.animation_frames(len(samples_S))
    waveform_1S = torch.from_numpy(samples_S)[None].to(device)
    positions_1T = torch.from_numpy(grid.positions(len(samples_S))).float()[None].to(device)
    with torch.no_grad():
        memory_TM = model.memory(waveform_1S, positions_1T, None)[0]
        convolved = model.convolved(waveform_1S, positions_1T)
    style_N = torch.eye(N_STYLES, device=device)[0]
    target_TX = 1e-3 * torch.randn(n_frames, N_OUTPUTS, device=device)
    example = Example(
        name="clip", convolved=convolved, positions_1R=positions_1T, semantic_11E=None, target_TX=target_TX,
        template_X=torch.zeros(N_OUTPUTS, device=device), style_KN=style_N[None], audio_s=duration_s,
    )  # fmt: skip
    learner = Learner(vocaset_cached(), model).eval()

    def plain_step() -> Tensor:
        hidden_1TD, _ = encode(model.audio_encoder, waveform_1S, positions_1T)
        return F.mse_loss(decode_by_prefix(decoder, model.fusion(hidden_1TD)[0], style_N), target_TX)

    steps: dict[str, Callable[[], Tensor]] = {
        "decoder alone, published loop": lambda: F.mse_loss(decode_by_prefix(decoder, memory_TM, style_N), target_TX),
        "decoder alone, prefix recomputed without vertices": lambda: F.mse_loss(
            decoder.recomputed(memory_TM[None], style_N[None])[0], target_TX
        ),
        "decoder alone, cached": lambda: F.mse_loss(decoder(memory_TM[None], style_N[None])[0], target_TX),
        "whole step, published loop": plain_step,
        "whole step, cached": lambda: learner([example]),
    }
    difference = _difference(model, steps["whole step, published loop"], steps["whole step, cached"])
    rows, seconds = [], {}
    for name, loss in steps.items():
        learnt = decoder.parameters() if name.startswith("decoder") else learner.parameters()
        optimiser = torch.optim.Adam([p for p in learnt if p.requires_grad], lr=1e-9, fused="cached" in name)
        repeats = 1 if "published" in name else 3
        seconds[name] = best_s(lambda loss=loss, optimiser=optimiser: _update(loss, optimiser, device), repeats)
        rows.append(Row(name=f"fine-tuning {duration_s} s, {name}", value=seconds[name], unit="s"))
    for part in ("decoder alone", "whole step"):
        ratio = seconds[f"{part}, published loop"] / seconds[f"{part}, cached"]
        # The aim is for 10 s, because the published loop's cost grows faster than its length.
        met = None if chosen.short else ratio >= 5
        rows.append(Row(name=f"fine-tuning, {part}, loop / cached", value=ratio, unit="x", aim=">= 5 at 10 s", met=met))
    name = "fine-tuning, gradients' difference"
    rows.append(Row(name=name, value=difference, unit="of scale", aim="<= 1e-4", met=difference <= TOLERANCE))
    return rows


def _update(loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    optimiser.zero_grad()
    loss().backward()
    optimiser.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def _difference(model: FaceModel, first: Callable[[], Tensor], second: Callable[[], Tensor]) -> float:
    """Largest difference of a parameter's gradient, relative to the largest gradient of its module."""
    names, learnt = zip(*((name, p) for name, p in model.named_parameters() if p.requires_grad), strict=True)
    gradients = [torch.autograd.grad(loss(), learnt, allow_unused=True) for loss in (first, second)]
    scales: dict[str, float] = {}
    for name, gradient in zip(names, gradients[0], strict=True):
        if gradient is not None:
            module = name.rpartition(".")[0]
            scales[module] = max(scales.get(module, 0.0), float(gradient.abs().max()))
    return max(
        float((a - b).abs().max()) / scales[name.rpartition(".")[0]]
        for name, a, b in zip(names, *gradients, strict=True)
        if a is not None
    )


if __name__ == "__main__":
    run_alone(measure)
