# SPDX-License-Identifier: GPL-3.0-or-later
"""LSF-Animation (SIGGRAPH Asia 2025): ProbTalk3D's codec, with the emotion heard and the speaker seen instead of named.

A second encoder hears the emotion; its hidden states lie beside those of the speech in the memory. The speaker's style
is made of the FLAME shape of the neutral face.

Shapes: T animation frames, R memory frames (2T), M width, N styles, E = 300 shape parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..flame_parameters import N_SHAPES
from ..frame_timing import FrameGrid, encoder_frames
from .probtalk3d import SPEAKERS, ProbTalk3D
from .protocol import Release

if TYPE_CHECKING:
    from ..nn.lsf import LSFNetwork


@dataclass(frozen=True)
class LSFGrid(FrameGrid):
    """In training the hidden states are interpolated to two for each recorded frame; in inference an odd last one is
    dropped."""

    def positions(self, n_samples: int, n_anim_frames: int | None = None) -> np.ndarray:
        """As `FrameGrid`."""
        if n_anim_frames is None:
            return super().positions(n_samples)
        return np.linspace(0, encoder_frames(n_samples) - 1, n_anim_frames * self.memory_per_frame)


@dataclass(frozen=True, kw_only=True)
class LSF(ProbTalk3D):
    """LSF-Animation's settings; the defaults are those of 3DMEAD.

    Attributes:
        emotion_dim: Width of the emotion encoder's hidden states.
        tokens: How many fusion tokens carry something from one stream to the other.
        fusion_dim: Width of the fusion's attention.
        shape_dim: E, the FLAME shape parameters that make a style; 0 where styles are given as they are.
    """

    KIND: ClassVar[str] = "lsf"

    emotion_dim: int = 768
    tokens: int = 4
    fusion_dim: int = 64
    shape_dim: int = N_SHAPES
    style_parts: tuple[int, ...] = ()

    @property
    def grid(self) -> LSFGrid:
        """Pairs of both encoders' hidden states."""
        return LSFGrid(fps=25, memory_per_frame=2, interpolated=False, before_transformer=False)

    def flops(self, n_frames: int) -> float:
        """Of the predictor's two streams, their fusion, and the codec's decoder."""
        layers = n_frames * (4 * self.emotion_dim * self.dim + self._block_flops(n_frames) * self.blocks)
        fusion = n_frames * self.blocks * 8 * self.dim * self.fusion_dim
        return super().flops(n_frames) + layers + fusion

    def network(self, n_outputs: int, n_styles: int) -> LSFNetwork:
        """The torch network."""
        from ..nn.lsf import LSFNetwork

        return LSFNetwork(self, n_outputs, n_styles)


RELEASES = {
    "lsf-mead": Release(host=LSF(), n_vertices=5023, topology="flame", basis_unit="m", styles=SPEAKERS),
}
