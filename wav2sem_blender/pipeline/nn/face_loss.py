# SPDX-License-Identifier: GPL-3.0-or-later
"""The loss of the bundled model: measured on the face that the channels make, not on the channels.

Shapes: B batch, T animation frames, K channels, V vertices, M measures of the mouth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..hosts.faceformer_channels import FaceWeights

CLOSED_GAP_M = 0.0012
# FLAME's vertices next to MediaPipe's landmarks 291, 61, 0, 13, 14, 17; for each measure, what it adds: an axis, the
# vertices that count and those that count against it, and how much 1 mm of it counts as 1 mm of the lip gap. The last
# is about the ratio of the filmed standard deviations: the width varies half as much as the gap, a lip's thickness a
# quarter.
LEFT_CORNER, RIGHT_CORNER, UPPER_OUTER, UPPER_INNER, LOWER_INNER, LOWER_OUTER = 1702, 2819, 3541, 3531, 3504, 3511
MEASURES = {
    "width": (0, (LEFT_CORNER,), (RIGHT_CORNER,), 2.0),
    "upper": (1, (UPPER_OUTER,), (UPPER_INNER,), 4.0),
    "lower": (1, (LOWER_INNER,), (LOWER_OUTER,), 4.0),
    "protrusion": (2, (UPPER_OUTER, LOWER_OUTER), (LEFT_CORNER, RIGHT_CORNER), 2.0),
    "upper lip's height": (1, (UPPER_INNER,), (), 2.0),
    "corners' height": (1, (LEFT_CORNER, RIGHT_CORNER), (), 3.0),
}
GAP = 0  # the first measure
# A share of a clip's widest opening (its 95th percentile). Lips that are nearer look closed, with a margin.
PARTED = 0.25


def mouth_measures(basis_KV3: np.ndarray, gap_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Changes (K, M) in mm of the lip gap and of `MEASURES` per channel, and the scales (M,)."""
    columns, scales = [gap_K], [1.0]
    for axis, plus, minus, scale in MEASURES.values():
        against_K = basis_KV3[:, minus, axis].mean(1) if minus else 0.0
        columns.append(basis_KV3[:, plus, axis].mean(1) - against_K)
        scales.append(scale)
    return 1000 * np.stack(columns, axis=1), np.array(scales)


class FaceLoss(nn.Module):
    """Squared error of the face in mm, of its velocity, of the mouth's measures, and of how much these vary.

    A squared error shrinks every uncertain movement, and rounding and spreading are harder to hear than opening. So
    each measure is weighed by its own scale, and its standard deviation over a clip is kept at the captured one. Lips
    that nearly close where they should be parted look like a p: an error of 1 mm there costs more than in a wide mouth.
    Channels count as they are decoded, within [0, 1]; gradients pass, and what lies outside is punished a little.

    Attributes:
        shape_KK: Gram matrix of the mouth's vertices.
        measures_KM: Change of the mouth's measures per channel, in mm times their scales; the first is the lip gap.
    """

    shape_KK: Tensor
    measures_KM: Tensor

    def __init__(self, weights: FaceWeights, basis_KV3: np.ndarray, gap_K: np.ndarray) -> None:
        super().__init__()
        moved_V = np.linalg.norm(basis_KV3, axis=-1).max(0) > 0.001
        flat = 1000 * basis_KV3[:, moved_V].reshape(len(basis_KV3), -1)
        shape_KK = torch.from_numpy(flat @ flat.T / moved_V.sum()).float()
        # Every channel has a least weight, so that those which hardly show (a press) are learnt as well.
        shape_KK = shape_KK + 0.05 * shape_KK.diagonal().mean() * torch.eye(len(shape_KK))
        # Not persistent: a model that holds its loss saves the same tensors as one that does not.
        self.register_buffer("shape_KK", shape_KK, persistent=False)
        measures_KM, scale_M = mouth_measures(basis_KV3, gap_K)
        self.register_buffer("measures_KM", torch.from_numpy(measures_KM * scale_M).float(), persistent=False)
        self.weights = weights

    def forward(self, predicted_BTK: Tensor, target_BTK: Tensor) -> Tensor:
        """Scalar."""
        outside_BTK = predicted_BTK - predicted_BTK.clamp(0, 1)
        decoded_BTK = predicted_BTK - outside_BTK.detach()
        error_BTK = decoded_BTK - target_BTK
        shape = self._shape(error_BTK) + self.weights.velocity_weight * self._shape(error_BTK.diff(dim=1))
        predicted_BTM, target_BTM = decoded_BTK @ self.measures_KM, target_BTK @ self.measures_KM
        closed_BT = target_BTM[..., GAP] < 1000 * CLOSED_GAP_M
        error_BTM = (predicted_BTM - target_BTM) ** 2
        gap = ((1 + (self.weights.closed_factor - 1) * closed_BT) * error_BTM[..., GAP]).mean()
        gap = gap + self.weights.parted_factor * _too_near(predicted_BTM[..., GAP], target_BTM[..., GAP])
        others = error_BTM[..., GAP + 1 :].sum(-1).mean()
        spread = ((predicted_BTM.std(dim=1) - target_BTM.std(dim=1)) ** 2).sum(-1).mean()
        return (
            shape
            + 0.1 * self.weights.aperture_weight * (gap + others)
            + 0.1 * self.weights.spread_weight * spread
            + self.weights.outside_weight * (outside_BTK**2).sum(-1).mean()
        )

    def _shape(self, error_BTK: Tensor) -> Tensor:
        return ((error_BTK @ self.shape_KK) * error_BTK).sum(-1).mean()


def _too_near(predicted_BT: Tensor, target_BT: Tensor) -> Tensor:
    """Mean square of how much nearer the lips are than `PARTED`, where the target is not, nor two frames around."""
    least_B1 = PARTED * target_BT.float().clamp(min=0).quantile(0.95, dim=1, keepdim=True)
    nearer_BT = (target_BT < 0.96 * least_B1).float()
    near_BT = F.max_pool1d(nearer_BT[:, None], 5, stride=1, padding=2)[:, 0]
    return ((least_B1 - predicted_BT).clamp(min=0) ** 2 * (1 - near_BT)).mean()
