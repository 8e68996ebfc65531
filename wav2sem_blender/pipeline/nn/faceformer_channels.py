# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundled face model's decoder in torch: FaceFormer's on named channels, with two convolutions over the memory.

Shapes: B batch, T animation frames, R memory frames, M decoder width, N styles, K channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .faceformer import FaceDecoder

if TYPE_CHECKING:
    from ..hosts.faceformer_channels import FaceFormerChannels


class ChannelNetwork(FaceDecoder):
    """Predicts channels without bounds; `FaceLoss` and `ChannelDecoder` clip them to [0, 1]."""

    def __init__(self, config: FaceFormerChannels, n_channels: int, n_styles: int) -> None:
        super().__init__(config, n_channels, n_styles)
        self.context: nn.Sequential | None = None
        if reach := config.look_ahead:
            first, last = (nn.Conv1d(config.dim, config.dim, 2 * reach + 1, padding=reach) for _ in range(2))
            nn.init.zeros_(last.weight)
            self.context = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, memory_BRM: Tensor, style_BN: Tensor, target_BTK: Tensor | None = None) -> Tensor:
        """As `FaceDecoder`."""
        return super().forward(self._in_context(memory_BRM), style_BN, target_BTK)

    def recomputed(self, memory_BRM: Tensor, style_BN: Tensor) -> Tensor:
        """As `FaceDecoder`."""
        return super().recomputed(self._in_context(memory_BRM), style_BN)

    def _in_context(self, memory_BRM: Tensor) -> Tensor:
        """Every memory frame with what is said around it."""
        if self.context is None:
            return memory_BRM
        return memory_BRM + self.context(memory_BRM.transpose(1, 2)).transpose(1, 2)
