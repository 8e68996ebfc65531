# SPDX-License-Identifier: GPL-3.0-or-later
"""What every host's torch network offers: a prediction, a loss, and the same motion on named keys.

Shapes: B batch, T animation frames, R memory frames, M memory width, N styles, X = 3V or K outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .keys import OnKeys

Progress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A batch of clips to learn from.

    Attributes:
        memory_BRM: The memory.
        style_BN: One-hot styles.
        target_BTX: What the network predicts: offsets from the template, or channel weights.
        template_BX: The speaker's rest face, for hosts that predict absolute positions.
        weight_BT: Weights of the frames, for hosts that have such a loss (Imitator's closures).
    """

    memory_BRM: Tensor
    style_BN: Tensor
    target_BTX: Tensor
    template_BX: Tensor | None = None
    weight_BT: Tensor | None = None


class HostNetwork(nn.Module):
    """From the memory to the motion.

    Attributes:
        PRIOR: Prefix of the parameters that an earlier stage trained and that stay frozen, such as CodeTalker's
            "autoencoder."; "" for a host of one stage.
    """

    PRIOR = ""

    @abstractmethod
    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTX: Tensor | None = None) -> Tensor:
        """Prediction (B, T, X). With `target_BTX` each frame is fed the true previous one, where a host feeds back."""

    @abstractmethod
    def loss(self, example: Example) -> Tensor:
        """The training loss of a batch: a scalar."""

    def batch_loss(self, examples: Sequence[Example]) -> Tensor:
        """The training loss of several clips: the mean of theirs, unless a host learns from parts of clips together."""
        return torch.stack([self.loss(example) for example in examples]).mean()

    def prepare(self, frames: Callable[[int], np.ndarray]) -> None:
        """Before training: `frames(n)` gives up to n frames (n, X) of all training clips, evenly spaced."""

    @abstractmethod
    def on_keys(self) -> OnKeys:
        """The same motion on named channels."""

    def move_face(self, template_X: Tensor, published: Callable[[], Mapping[str, Tensor]]) -> None:
        """Move this neutral face in inference, for a host whose network reads it; others move offsets and need none.

        `published` gives `OnKeys.published`.
        """

    def prior_loss(self, motion_BTX: Tensor, style_BN: Tensor | None = None) -> Tensor:
        """Of a host with a `PRIOR`: the training loss of that stage. It uses nothing else of the network.

        The styles are for a prior that is told the emotion.
        """
        raise NotImplementedError

    def generate(self, memory_BRM: Tensor, style_BN: Tensor, seed: int = 0, progress: Progress | None = None) -> Tensor:
        """Inference, (B, T, X): `forward`, unless a host samples or takes long enough to tell its progress."""
        return self(memory_BRM, style_BN)

    def validation_loss(self, example: Example) -> Tensor:
        """What is watched on held-out clips: the mean squared error, with the true previous frames."""
        predicted_BTX = self(example.memory_BRM, example.style_BN, example.target_BTX)
        return F.mse_loss(predicted_BTX, example.target_BTX)
