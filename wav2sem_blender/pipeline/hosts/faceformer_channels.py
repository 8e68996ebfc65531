# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundled face model: FaceFormer's decoder on named channels, such as ARKit's, instead of vertices.

Its loss measures the face that the channels make (`nn/face_loss.py`). No released checkpoint has this form. Two things
differ from FaceFormer: weights are clipped to [0, 1], as ARKit has no others; and two convolutions over the memory let
a frame see what is said soon, since the lips prepare for a sound before it is heard.

Shapes: T animation frames, R memory frames, M decoder width, N styles, K channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..convolution import Convolution
from ..frame_timing import FrameGrid
from .faceformer import MAX_CACHED_FRAMES, FaceFormer, MotionDecoder

if TYPE_CHECKING:
    from ..nn.faceformer_channels import ChannelNetwork


@dataclass(frozen=True, kw_only=True)
class FaceFormerChannels(FaceFormer):
    """FaceFormer's settings with the bundled model's defaults.

    Attributes:
        look_ahead: How many frames each of the two convolutions sees on either side; 0 leaves them out.
        steady: See `FrameGrid`.
    """

    KIND: ClassVar[str] = "faceformer_channels"

    dropout: float = 0.0
    feedback: str = "cached"
    look_ahead: int = 0
    steady: bool = False

    @property
    def grid(self) -> FrameGrid:
        """FaceFormer's, steady or not."""
        return replace(super().grid, steady=self.steady)

    def decoder(self, tensors: Mapping[str, np.ndarray]) -> ChannelDecoder:
        """As `Host`: a few small products for each frame."""
        return ChannelDecoder(self, tensors)

    def shapes(self, n_channels: int, n_styles: int) -> dict[str, tuple[int, ...]]:
        """As `Host`, with the two convolutions."""
        found = super().shapes(n_channels, n_styles)
        for number in (0, 2) if self.look_ahead else ():
            found[f"context.{number}.weight"] = (self.dim, self.dim, 2 * self.look_ahead + 1)
            found[f"context.{number}.bias"] = (self.dim,)
        return found

    def network(self, n_outputs: int, n_styles: int) -> ChannelNetwork:
        """The torch decoder."""
        from ..nn.faceformer_channels import ChannelNetwork

        return ChannelNetwork(self, n_outputs, n_styles)


class ChannelDecoder(MotionDecoder):
    """Equal to `nn.faceformer_channels.ChannelNetwork` in eval mode, then clipped."""

    def __init__(self, config: FaceFormerChannels, tensors: Mapping[str, np.ndarray]) -> None:
        super().__init__(config, tensors)
        self._look_ahead = config.look_ahead
        if self._look_ahead:
            w = self._tensors
            self._inner, self._outer = (
                Convolution(w[f"context.{name}.weight"], w[f"context.{name}.bias"]) for name in "02"
            )

    def decode(
        self,
        memory_RM: np.ndarray,
        style_N: np.ndarray,
        seed: int = 0,
        progress: Callable[[float], None] | None = None,
        max_cached_frames: int = MAX_CACHED_FRAMES,
    ) -> np.ndarray:
        """As `protocol.Decoder`; every weight is in [0, 1]."""
        weights_TK = super().decode(memory_RM, style_N, seed, progress, max_cached_frames)
        return weights_TK.clip(0, 1, out=weights_TK)

    def _memory(self, memory_RM: np.ndarray, first: int, last: int) -> np.ndarray:
        if not self._look_ahead:
            return super()._memory(memory_RM, first, last)
        reach, n_frames = self._look_ahead, len(memory_RM)
        begin, end = first - reach, last + reach
        around_RM = memory_RM[max(0, begin - reach) : end + reach]
        padding = max(0, reach - begin), max(0, end + reach - n_frames)
        inner_RM = np.maximum(self._inner(np.pad(around_RM, (padding, (0, 0)))), 0)
        # Beyond the recording there is nothing, not even the bias of the first convolution.
        inner_RM[: max(0, -begin)] = 0
        inner_RM[len(inner_RM) - max(0, end - n_frames) :] = 0
        return memory_RM[first:last] + self._outer(inner_RM)


@dataclass(frozen=True, kw_only=True)
class FaceWeights:
    """How much each term of `FaceLoss` counts beside the shape's squared error.

    Attributes:
        velocity_weight: Of the shape's change from frame to frame.
        aperture_weight: Of the gap between the lips, and in proportion to their scales of the mouth's width, the lips'
            thickness, protrusion and height.
        closed_factor: Multiplies `aperture_weight` of the gap where the lips touch.
        parted_factor: Multiplies it where parted lips come so near that they look closed.
        spread_weight: Of how much each of these varies over a clip.
        outside_weight: Of channels outside [0, 1].
    """

    velocity_weight: float = 0.5
    aperture_weight: float = 3.0
    closed_factor: float = 5.0
    parted_factor: float = 8.0
    spread_weight: float = 3.0
    outside_weight: float = 10.0
