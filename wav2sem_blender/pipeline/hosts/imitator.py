# SPDX-License-Identifier: GPL-3.0-or-later
"""Imitator (ICCV 2023): FaceFormer's decoder without its bias of distance, which feeds back its own features. A small
network then turns a feature and the speaker's style into motion, so a new actor needs a new style only.

Shapes: T animation frames, M decoder width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..frame_timing import FrameGrid
from . import faceformer
from .protocol import Host, Release

if TYPE_CHECKING:
    from ..nn.imitator import ImitatorNetwork


@dataclass(frozen=True, kw_only=True)
class Imitator(Host):
    """Imitator's settings; the defaults are those of VOCASET, the only data that it was published for.

    Attributes:
        dim: M.
        heads: Of the decoder's attention.
        mlp_layers: Layers between the decoder and the last, linear one.
        fps: Animation frames per second.
        dropout: In training.
        velocity_weight: Of the squared error of the change from frame to frame, beside that of the vertices.
        bilabial_weight: Multiplies the weights of frames in which p, b or m close the lips, where there are any.
    """

    KIND: ClassVar[str] = "imitator"

    dim: int = 64
    heads: int = 4
    mlp_layers: int = 4
    fps: int = 30
    dropout: float = 0.1
    velocity_weight: float = 10.0
    bilabial_weight: float = 5.0

    @property
    def grid(self) -> FrameGrid:
        """FaceFormer's."""
        return FrameGrid.at_rate(self.fps)

    @property
    def memory_width(self) -> int:
        """M, after `audio_feature_map`."""
        return self.dim

    def flops(self, n_frames: int) -> float:
        """As `Host`: the products of a frame, and its attention to the frames before it."""
        products = (20 + 2 * self.mlp_layers) * self.dim**2
        return n_frames * (products + 2.0 * self.dim * min(n_frames, faceformer.MAX_CACHED_FRAMES))

    def at_rate(self, fps: int) -> Imitator:
        """At another rate. The released code reads BIWI's 25 fps in pairs, as FaceFormer; there is no checkpoint."""
        return replace(self, fps=fps)

    def network(self, n_outputs: int, n_styles: int) -> ImitatorNetwork:
        """The torch decoder."""
        from ..nn.imitator import ImitatorNetwork

        return ImitatorNetwork(self, n_outputs, n_styles)


RELEASES = {
    "imitator-vocaset": Release(
        host=Imitator(),
        n_vertices=5023,
        topology="flame",
        basis_unit="m",
        styles=faceformer.RELEASES["faceformer-vocaset"].styles,
    ),
}
