# SPDX-License-Identifier: GPL-3.0-or-later
"""What every host's torch network offers: a prediction and a loss.

Shapes: B batch, T animation frames, R memory frames, M memory width, N styles, X = 3V or K outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A batch of clips to learn from. `target_BTX` holds what the network predicts: offsets or channel weights."""

    memory_BRM: Tensor
    style_BN: Tensor
    target_BTX: Tensor


class HostNetwork(nn.Module):
    """From the memory to the motion."""

    @abstractmethod
    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """Prediction (B, T, X). With `target_BTX` each frame is fed the true previous one, where a host feeds back."""

    @abstractmethod
    def loss(self, example: Example) -> Tensor:
        """The training loss of a batch: a scalar."""
