# SPDX-License-Identifier: GPL-3.0-or-later
"""The loss of the bundled model: measured on the face that the channels make, not on the channels.

Shapes: B batch, T animation frames, K channels, V vertices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..hosts.faceformer_channels import FaceWeights

CLOSED_GAP_M = 0.0012
MOUTH_CORNERS = (1702, 2819)  # of FLAME, left and right: the vertices next to MediaPipe's landmarks 291 and 61


class FaceLoss(nn.Module):
    """Squared error of the face in mm, of its velocity, of the lip gap, and of how much the mouth's width varies.

    Rounding and spreading are harder to hear than opening, and a squared error shrinks every uncertain movement. The
    last term keeps the width's standard deviation over a clip at the captured one.

    Attributes:
        shape_KK: Gram matrix of the mouth's vertices.
        gap_K: Change of the inner lip gap per channel, in mm.
        width_K: Change of the mouth's width per channel, in mm.
    """

    shape_KK: Tensor
    gap_K: Tensor
    width_K: Tensor

    def __init__(self, weights: FaceWeights, basis_KV3: np.ndarray, gap_K: np.ndarray) -> None:
        super().__init__()
        moved_V = np.linalg.norm(basis_KV3, axis=-1).max(0) > 0.001
        flat = 1000 * basis_KV3[:, moved_V].reshape(len(basis_KV3), -1)
        shape_KK = torch.from_numpy(flat @ flat.T / moved_V.sum()).float()
        # Every channel has a least weight, so that those which hardly show (a press) are learnt as well.
        shape_KK = shape_KK + 0.05 * shape_KK.diagonal().mean() * torch.eye(len(shape_KK))
        # Not persistent: a model that holds its loss saves the same tensors as one that does not.
        self.register_buffer("shape_KK", shape_KK, persistent=False)
        self.register_buffer("gap_K", torch.from_numpy(1000 * gap_K).float(), persistent=False)
        left, right = MOUTH_CORNERS
        width_K = torch.from_numpy(1000 * (basis_KV3[:, left, 0] - basis_KV3[:, right, 0])).float()
        self.register_buffer("width_K", width_K, persistent=False)
        self.weights = weights

    def forward(self, predicted_BTK: Tensor, target_BTK: Tensor) -> Tensor:
        """Scalar."""
        error_BTK = predicted_BTK - target_BTK
        shape = self._shape(error_BTK)
        velocity = self._shape(error_BTK.diff(dim=1))
        gap_BT = (target_BTK @ self.gap_K).clamp(min=0)
        weight_BT = 1 + (self.weights.closed_factor - 1) * (gap_BT < 1000 * CLOSED_GAP_M)
        gap = (weight_BT * (error_BTK @ self.gap_K) ** 2).mean()
        spread_B, true_spread_B = ((motion @ self.width_K).std(dim=1) for motion in (predicted_BTK, target_BTK))
        spread = ((spread_B - true_spread_B) ** 2).mean()
        weighed = self.weights.velocity_weight * velocity + self.weights.aperture_weight * 0.1 * gap
        return shape + weighed + self.weights.width_spread_weight * spread

    def _shape(self, error_BTK: Tensor) -> Tensor:
        return ((error_BTK @ self.shape_KK) * error_BTK).sum(-1).mean()
