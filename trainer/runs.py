# SPDX-License-Identifier: GPL-3.0-or-later
"""A run folder: what was run (run.json), how it went (metrics.jsonl), and what came out, written atomically."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm


class Run:
    """One training run in one folder."""

    def __init__(self, folder: Path, experiment_name: str, experiment: Any, device: str) -> None:
        """Raises FileExistsError when the folder holds another run: two runs in one folder spoil both."""
        if (folder / "run.json").exists():
            raise FileExistsError(f"{folder}: holds a run already; choose another --out or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.device = torch.device(device)
        self._started = time.perf_counter()
        self._audio_s = 0.0
        self._bar: tqdm | None = None
        description = {
            "experiment": experiment_name,
            "config": dataclasses.asdict(experiment),
            "commit": _git_commit(),
            "torch": torch.__version__,
        }
        (folder / "run.json").write_text(json.dumps(description, indent=1, default=str) + "\n")

    def steps(self, count: int) -> Iterator[int]:
        """0 .. count-1 with a progress bar that shows throughput and the time left."""
        self._bar = tqdm(range(count), unit="step", mininterval=5)
        self._started = time.perf_counter()
        yield from self._bar

    def log(self, step: int, *, audio_s: float, **values: torch.Tensor | float) -> None:
        """Add a step's audio to the throughput; every 50 steps, write the values down."""
        self._audio_s += audio_s
        if step % 50:
            return
        rate = self._audio_s / (time.perf_counter() - self._started)
        row = {"step": step, "audio_s_per_s": round(rate, 2)} | {k: round(float(v), 5) for k, v in values.items()}
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._bar is not None:
            self._bar.set_postfix({key: f"{value:.4g}" for key, value in row.items() if key != "step"})

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Write tensors; a stop in the middle leaves the previous file whole."""
        temp = self.folder / f"{name}.tmp"
        torch.save(dict(state), temp)
        os.replace(temp, self.folder / name)

    def report(self, name: str, values: Mapping[str, Any]) -> None:
        """Print results and keep them as NAME.json."""
        text = json.dumps(values, indent=1, default=float)
        (self.folder / f"{name}.json").write_text(text + "\n")
        print(name, text)


def cosine_with_warmup(optimiser: torch.optim.Optimizer, warmup: int, total: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to zero."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _git_commit() -> str:
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"
