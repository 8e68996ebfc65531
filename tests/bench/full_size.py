# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare a model of the published size, with random weights, with its two encoders alone (768-d, 12 layers).

Both sides do the same work in the encoders: the phone encoder's transformer runs at the animation's rate, 30 Hz, as
published.

python tests/bench/full_size.py [--short] [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from report import Row, run_alone, speech_samples

from wav2sem_blender.pipeline import SpeechAnimator
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, Wav2SemConfig, save_model
from wav2sem_blender.pipeline.engine_torch import load_state
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer
from wav2sem_blender.pipeline.nn.encoders import encode
from wav2sem_blender.pipeline.nn.face_model import FaceModel
from wav2sem_blender.pipeline.nn.wav2sem import RELEASED

RATE_HZ = 16_000


def save_random_model(folder: Path) -> None:
    """Write the published configuration: HuBERT base and Wav2Sem as released, FaceFormer's FLAME decoder."""
    torch.manual_seed(0)
    config = ModelConfig(
        name="random, full size",
        encoder=EncoderConfig(kind="hubert", config={}),
        wav2sem=Wav2SemConfig(config=RELEASED, target_dim=768),
        host=FaceFormer(),
        channels=tuple(f"key_{k:02d}" for k in range(64)),
        styles=("one",),
    )
    save_model(folder, config, {name: tensor.numpy() for name, tensor in FaceModel(config).state_dict().items()})


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Alternate the two, so that both meet a disturbance, and compare the medians."""
    torch.set_num_threads(chosen.cores)
    duration_s = 5.0 if chosen.short else 20.0
    samples_S = speech_samples(duration_s)
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder) / "model")
        animator = SpeechAnimator.load(Path(folder) / "model", engine="torch", device=chosen.device)
        model = FaceModel(animator.folder.config).eval()
        model.load_state_dict(load_state(animator.folder))
    model.to(animator.engine.device)
    with Speech.from_array(samples_S, RATE_HZ) as speech:
        waveform_BS = torch.from_numpy(speech.read(0, speech.n_samples)[None]).to(animator.engine.device)
        positions_R = model.config.host.grid.positions(speech.n_samples).astype(np.float32)
    positions_BR = torch.from_numpy(positions_R)[None].to(animator.engine.device)

    def encoders_alone() -> np.ndarray:
        with torch.inference_mode():
            semantic = model.wav2sem.encoder(waveform_BS).last_hidden_state.mean()
            return (encode(model.audio_encoder, waveform_BS, positions_BR)[0].mean() + semantic).cpu().numpy()

    def end_to_end() -> None:
        animator.animate(samples_S, RATE_HZ)

    seconds: dict[str, list[float]] = {"encoders": [], "whole": []}
    for repeat in range(4 if chosen.short else 6):
        for name, work in (("encoders", encoders_alone), ("whole", end_to_end)):
            start = time.perf_counter()
            work()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    encoders_s, whole_s = (statistics.median(seconds[name]) for name in ("encoders", "whole"))
    name = f"full size on {animator.engine.device}, {duration_s:g} s"
    ratio = whole_s / encoders_s
    return [
        Row(name=f"{name}: two encoders alone", value=encoders_s, unit="s"),
        Row(name=f"{name}: end to end", value=whole_s, unit="s"),
        Row(name=f"{name}: end to end / encoders", value=ratio, unit="x", aim="<= 1.15", met=ratio <= 1.15),
    ]


if __name__ == "__main__":
    run_alone(measure)
