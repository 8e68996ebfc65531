# SPDX-License-Identifier: GPL-3.0-or-later
"""A training loop that takes seconds, for test_runs.py: a separate program, so that it can be killed."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from trainer.runs.run import Run, cosine_with_warmup, unwrap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    dropout: float
    accumulate: int
    steps: int = 24
    precision: str = "no"
    checkpoint_every: int = 5
    seed: int = 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--no-dropout", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--slow", action="store_true")
    chosen = parser.parse_args()
    config = Toy(dropout=0.0 if chosen.no_dropout else 0.3, accumulate=chosen.accumulate)
    run = Run(chosen.folder, verb="pretrain", name="toy", config=config, device="cpu", resume=chosen.resume)
    torch.manual_seed(config.seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.Dropout(config.dropout), nn.Tanh(), nn.Linear(32, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.02)
    model = run.learn(net, optimiser, cosine_with_warmup(optimiser, 3, config.steps), clip=1.0)
    for step in run.steps(config.steps):
        batch = list(run.rng(step).standard_normal((8, 8)))
        for part in run.share(batch):
            x_B8 = torch.tensor(np.stack(part), dtype=torch.float32)
            run.backward(((model(x_B8) - x_B8.sum(1, keepdim=True)) ** 2).mean())
        run.update()
        run.log(step, audio_s=1.0)
        if chosen.slow:
            time.sleep(0.1)
    run.save("toy.pt", unwrap(model).state_dict())
    run.close()


if __name__ == "__main__":
    main()
