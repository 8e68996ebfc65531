# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of `pretrain-prior`. No torch here: `--help` imports this module."""

from __future__ import annotations

from dataclasses import dataclass

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.hosts.protocol import Host


@dataclass(frozen=True, kw_only=True)
class PretrainPrior:
    """Stage 1 of a host, which learns recorded motion, as CodeTalker's was published where no attribute says otherwise.

    Attributes:
        data: Layout of --data, as in `FinetuneVertices`.
        host: The host that stage 2 will train; its frame rate becomes that of the data.
        train_splits: As in `FinetuneVertices`.
        halve_every: Epochs after which the learning rate is halved, again and again; 0 keeps it.
        weight_decay, amsgrad, betas, epsilon: As in torch's AdamW.
        valid_clips: How many held-out clips, at most, are measured after each epoch.
    """

    data: str
    host: Host
    train_splits: tuple[str, ...] = ("train",)
    epochs: int = 200
    batch: int = 1
    learning_rate: float = 1e-4
    halve_every: int = 0
    weight_decay: float = 0.01
    amsgrad: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    valid_clips: int = 1000
    precision: str = "no"
    accumulate: int = 1
    checkpoint_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or self.halve_every < 0:
            raise UserError("epochs and batch must be at least 1, halve_every at least 0")
