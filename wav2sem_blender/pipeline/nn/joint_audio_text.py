# SPDX-License-Identifier: GPL-3.0-or-later
"""The joint audio-text re-derivation in torch: FaceFormer's decoder with a loss that weighs the upper face.

Shapes: B batch, T animation frames, V vertices, X = 3V, U vertices of the upper face.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .faceformer import FaceDecoder

if TYPE_CHECKING:
    from ..hosts.joint_audio_text import JointAudioText


class JointNetwork(FaceDecoder):
    """As FaceFormer's; `weigh` says where the upper face is."""

    def __init__(self, config: JointAudioText, n_channels: int, n_styles: int) -> None:
        super().__init__(config, n_channels, n_styles)
        self.upper_weight = config.upper_weight

    def weigh(self, upper_U: np.ndarray) -> None:
        """From now on errors of these vertices count `upper_weight` times in `loss`."""
        self.criterion = UpperFaceLoss(self.motion_head.out_features, upper_U, self.upper_weight)


class UpperFaceLoss(nn.Module):
    """Weighted mean of the squared errors of vertices; the weights' mean is 1."""

    weight_X: Tensor

    def __init__(self, n_outputs: int, upper_U: np.ndarray, upper_weight: float) -> None:
        super().__init__()
        weight_V3 = torch.ones(n_outputs // 3, 3)
        weight_V3[torch.from_numpy(np.unique(upper_U))] = upper_weight
        # Not persistent: a model that holds its loss saves the same tensors as one that does not.
        self.register_buffer("weight_X", weight_V3.flatten() / weight_V3.mean(), persistent=False)

    def forward(self, predicted_BTX: Tensor, target_BTX: Tensor) -> Tensor:
        """Scalar."""
        return ((predicted_BTX - target_BTX).square() * self.weight_X).mean()
