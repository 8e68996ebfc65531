# SPDX-License-Identifier: GPL-3.0-or-later
"""Short trainings of the hosts, for their tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.loops.finetune import finetune
from trainer.runs.run import Run


def trained(config: Any, data: Path, folder: Path, *stages: Path | None, resume: bool = False) -> Path:
    """Fine-tune to the end; `stages` are the earlier runs: HuBERT's, Wav2Sem's, the prior's."""
    run = Run(folder, verb="finetune", name="smoke", config=config, device="cpu", resume=resume)
    try:
        finetune(config, data, run, *(stages or (None, None)))
    finally:
        run.close()
    return folder


def losses(folder: Path) -> list[float]:
    """The loss of every logged step."""
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
