# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundled face model: FaceFormer's decoder on named channels, such as ARKit's, instead of vertices.

Its loss measures the face that the channels make (`nn/face_loss.py`). No released checkpoint has this form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .faceformer import FaceFormer


@dataclass(frozen=True, kw_only=True)
class FaceFormerChannels(FaceFormer):
    """FaceFormer's settings with the bundled model's defaults."""

    KIND: ClassVar[str] = "faceformer_channels"

    dropout: float = 0.0
    feedback: str = "cached"


@dataclass(frozen=True, kw_only=True)
class FaceWeights:
    """How much each term of `FaceLoss` counts beside the shape's squared error.

    Attributes:
        velocity_weight: Of the shape's change from frame to frame.
        aperture_weight: Of the gap between the lips.
        closed_factor: Multiplies `aperture_weight` where the lips touch.
        width_spread_weight: Of how much the mouth's width varies.
    """

    velocity_weight: float = 0.5
    aperture_weight: float = 3.0
    closed_factor: float = 5.0
    width_spread_weight: float = 3.0
