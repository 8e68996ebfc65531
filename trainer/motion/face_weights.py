# SPDX-License-Identifier: GPL-3.0-or-later
"""The weights of `FaceLoss`. No torch here: configs of training have them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FaceWeights:
    """How much each term of `FaceLoss` counts beside the shape's squared error.

    Attributes:
        velocity_weight: of the shape's change from frame to frame.
        aperture_weight: of the gap between the lips.
        closed_factor: multiplies `aperture_weight` where the lips touch.
        width_spread_weight: of how far the mouth's width moves.
    """

    velocity_weight: float = 0.5
    aperture_weight: float = 3.0
    closed_factor: float = 5.0
    width_spread_weight: float = 3.0
