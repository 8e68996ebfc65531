# SPDX-License-Identifier: GPL-3.0-or-later
"""What an error of the channels weighs: measured on the face (the basis' displacements), not on the channels.

Shapes: B batch, T animation frames, K channels, V vertices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .face_weights import FaceWeights

CLOSED_GAP_M = 0.0012
MOUTH_CORNERS = (1702, 2819)  # of FLAME, left and right: the vertices next to MediaPipe's landmarks 291 and 61


class FaceLoss(nn.Module):
    """Squared error on the face in units of 1 mm, its velocity, the lip gap, and how much the mouth's width moves.

    Rounding and spreading are heard with less certainty than opening, and a squared error makes of every doubt a
    smaller movement: the spread of the width over a clip is therefore held to the captured one.

    `shape_KK` is the Gram matrix of the mouth's vertices, `gap_K` and `width_K` the change of the inner lip gap and of
    the mouth's width per channel.
    """

    shape_KK: Tensor
    gap_K: Tensor
    width_K: Tensor

    def __init__(self, weights: FaceWeights, basis_KV3: np.ndarray, gap_K: np.ndarray) -> None:
        super().__init__()
        moved_V = np.linalg.norm(basis_KV3, axis=-1).max(0) > 0.001
        flat = 1000 * basis_KV3[:, moved_V].reshape(len(basis_KV3), -1)
        shape_KK = torch.from_numpy(flat @ flat.T / moved_V.sum()).float()
        # Channels that hardly show (a press) still deserve to be right: a floor on every channel's own weight.
        self.register_buffer("shape_KK", shape_KK + 0.05 * shape_KK.diagonal().mean() * torch.eye(len(shape_KK)))
        self.register_buffer("gap_K", torch.from_numpy(1000 * gap_K).float())
        left, right = MOUTH_CORNERS
        width_K = torch.from_numpy(1000 * (basis_KV3[:, left, 0] - basis_KV3[:, right, 0])).float()
        self.register_buffer("width_K", width_K)
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
