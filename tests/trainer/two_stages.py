# SPDX-License-Identifier: GPL-3.0-or-later
"""Training a host's stages in a test: a loop in a run's folder, and what it logged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.runs.run import Run

NEVER = 10_000
"""Steps between checkpoints, for a test that needs none."""


def run_in(
    folder: Path, config: Any, loop: Callable[..., None], data: Path, *stages: Any, resume: bool = False, **more: Any
) -> Path:
    """The folder, after `loop` has trained in it on the CPU."""
    run = Run(folder, verb=loop.__name__, name="smoke", config=config, device="cpu", resume=resume)
    try:
        loop(config, data, run, *stages, **more)
    finally:
        run.close()
    return folder


def losses(folder: Path) -> list[float]:
    """The losses that a run logged."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
