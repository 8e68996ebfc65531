# SPDX-License-Identifier: GPL-3.0-or-later
"""Wav2Sem pretraining: audio seconds per second of `fast`, compared with `released` (one utterance per update).

python tests/bench/pretraining.py [--short] [--device cuda]

Both run the trainer's own loop, from flac files to the optimiser, on one model and LibriSpeech-like utterances.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from report import Row, run_alone, speech_samples

from trainer.experiments import wav2sem as experiments
from trainer.experiments.wav2sem import PretrainWav2Sem
from trainer.loops.pretrain import pretrain
from trainer.runs.run import Run

RATE_HZ = 16_000
N_UTTERANCES = 40
ALL_LAYERS = {"layerdrop": 0.0}  # both do the same work in every step
REDUCED = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536}
REDUCED_CNN = {"conv_dim": [256] * 7}


class TimedRun(Run):
    """A run that records when each step ended and how much audio it had, and writes no weights."""

    def __init__(self, folder: Path, config: PretrainWav2Sem, device: str) -> None:
        super().__init__(folder, verb="pretrain", name="bench", config=config, device=device)
        self.ends: list[tuple[float, float]] = []

    def log(self, step: int, *, audio_s: float, **values: torch.Tensor | float) -> None:
        super().log(step, audio_s=audio_s, **values)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append((time.perf_counter(), audio_s))

    def save(self, name: str, state: object) -> None:
        """Not measured."""

    def report(self, name: str, values: object) -> None:
        """Not measured."""

    def _save_checkpoint(self, step: int) -> None:
        """Not measured: it happens once in thousands of steps."""

    def seconds_per_audio_second(self) -> float:
        """Over all steps except the first, which warms up."""
        return (self.ends[-1][0] - self.ends[0][0]) / sum(audio_s for _, audio_s in self.ends[1:])


def write_utterances(folder: Path) -> None:
    """One speaker's utterances of 2 to 16 s, with LibriSpeech's mean of 12.3 s."""
    rng = np.random.default_rng(0)
    chapter = folder / "train-clean-100" / "1" / "1"
    chapter.mkdir(parents=True)
    lengths_s = 2 + 14 * rng.beta(2.5, 0.9, N_UTTERANCES)
    for i, length_s in enumerate(lengths_s):
        first = int(rng.integers(RATE_HZ))
        samples_S = speech_samples(length_s + 1)[first : first + int(length_s * RATE_HZ)]
        soundfile.write(chapter / f"1-1-{i:04d}.flac", samples_S, RATE_HZ)
    lines = [f"1-1-{i:04d} UTTERANCE {i}\n" for i in range(N_UTTERANCES)]
    (chapter / "1-1.trans.txt").write_text("".join(lines))


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Alternate the two, so that both meet a disturbance, and compare the medians."""
    torch.set_num_threads(chosen.cores)
    size = ALL_LAYERS | (REDUCED | REDUCED_CNN if chosen.short else {})
    configs = {}
    for name, steps, batch_s in (("released", 6, 0.0), ("fast", 3, 40.0 if chosen.short else 100.0)):
        preset = getattr(experiments, name)()
        encoder = dict(preset.encoder_config) | size
        configs[name] = replace(
            preset, encoder_config=encoder, epochs=0, steps=steps, batch_s=batch_s, valid_clips=0, validate_every=0
        )
    measured: dict[str, list[float]] = {name: [] for name in configs}
    with tempfile.TemporaryDirectory() as temp:
        os.environ["WAV2SEM_CACHE"] = f"{temp}/cache"
        write_utterances(Path(temp) / "data")
        for repeat in range(1 if chosen.short else 2):
            for name, config in configs.items():
                run = TimedRun(Path(temp) / f"{name}{repeat}", config, chosen.device)
                pretrain(config, Path(temp) / "data", run)
                run.close()
                measured[name].append(1 / run.seconds_per_audio_second())
    rate = {name: statistics.median(rates) for name, rates in measured.items()}
    ratio = rate["fast"] / rate["released"]
    name = f"pretraining Wav2Sem{', reduced' * chosen.short} on {chosen.device}"
    met = None if chosen.short else ratio >= 3
    return [
        Row(name=f"{name}: batch 1 as released", value=rate["released"], unit="audio s/s"),
        Row(name=f"{name}: fast", value=rate["fast"], unit="audio s/s"),
        Row(name=f"{name}: fast / batch 1", value=ratio, unit="x", aim=">= 3", met=met),
    ]


if __name__ == "__main__":
    run_alone(measure)
