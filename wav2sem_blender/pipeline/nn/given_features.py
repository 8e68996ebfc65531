# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands where other models have an encoder: features that come from outside, see `pipeline/given_features.py`.

Shapes: B batch, L frames (50 Hz), P values that are given, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn


class GivenFeatures(nn.Module):
    """What is given, through a linear layer if it is no `hidden_size` wide; the layer is trained with the host."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        given, width = config["input_size"], config["hidden_size"]
        self.projection = nn.Identity() if given == width else nn.Linear(given, width)

    def convolve(self, given_BLP: Tensor) -> Tensor:
        """As it is."""
        return given_BLP

    def contextualise(self, given_BLP: Tensor) -> Tensor:
        """(B, L, D)."""
        return self.projection(given_BLP)
