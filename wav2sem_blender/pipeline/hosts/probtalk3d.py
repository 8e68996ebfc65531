# SPDX-License-Identifier: GPL-3.0-or-later
"""ProbTalk3D (MIG 2024): a codec of FLAME parameters, and a transformer that predicts its latents from speech.

A code is drawn for every piece of the predicted latents, the likelier the nearer it is, so one recording has many
motions. A style is a speaker, an emotion and a level of it.

The codec normalises every channel over the whole recording, and a code is 128 consecutive moments of one channel. So a
motion depends on the recording's length, and a window of it is another motion. Up to `longest` frames a recording is
read whole, as released; longer ones are read in windows that overlap.

Shapes: T animation frames, R memory frames (2T), M width, N styles, X = 53 outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import UserError
from ..frame_timing import FrameGrid
from .protocol import Host, Release

if TYPE_CHECKING:
    from ..nn.probtalk3d import ProbTalk3DNetwork

SPEAKERS = (
    *("M003", "M005", "M007", "M009", "M011", "M012", "M013", "M019", "M022", "M023", "M024", "M025", "M026", "M027"),
    *("M028", "M029", "M030", "M031", "W009", "W011", "W014", "W015", "W016", "W018", "W019", "W021", "W023", "W024"),
    *("W025", "W026", "W028", "W029"),
)
EMOTIONS = ("neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry", "contempt")
LEVELS = ("level_1", "level_2", "level_3")
STYLES = (*SPEAKERS, *EMOTIONS, *LEVELS)


@dataclass(frozen=True, kw_only=True)
class ProbTalk3D(Host):
    """ProbTalk3D's settings; the defaults are those of 3DMEAD.

    Attributes:
        dim: M, also the width of the latents.
        heads: Of every attention.
        ffn_dim: Of every transformer's inner layer.
        prior_blocks: Blocks of the codec's encoder, and of its decoder.
        blocks: Blocks of the predictor.
        n_codes: Rows of the codebook.
        code_width: Moments of a channel that a code stands for; a divisor of M, or codes end in the next clip.
        feature_dim: Width of the speech encoder's hidden states, which are read in pairs.
        temperature: Of the draw; the nearest code is the likeliest.
        longest, overlap: Animation frames of a window of a long recording, and that neighbours share.
        flame_keys: The motion is weights of `flame_parameters.KEYS` instead of the published outputs.
        style_parts: How many speakers, emotions and levels make the styles; () where a style is one thing.
        latent_weight, expression_weight, jaw_weight: Of the absolute errors in the loss.
    """

    KIND: ClassVar[str] = "probtalk3d"
    SAMPLES: ClassVar[bool] = True

    dim: int = 256
    heads: int = 8
    ffn_dim: int = 384
    prior_blocks: int = 6
    blocks: int = 12
    n_codes: int = 256
    code_width: int = 128
    feature_dim: int = 768
    temperature: float = 0.2
    longest: int = 1500
    overlap: int = 50
    flame_keys: bool = False
    style_parts: tuple[int, ...] = (len(SPEAKERS), len(EMOTIONS), len(LEVELS))
    latent_weight: float = 1.0
    expression_weight: float = 0.15
    jaw_weight: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "style_parts", tuple(map(int, self.style_parts)))
        if self.dim % self.heads:
            template = "{kind}: a width of {dim} is no multiple of {heads} heads"
            raise UserError(template, kind=self.KIND, dim=self.dim, heads=self.heads)

    @property
    def grid(self) -> FrameGrid:
        """Pairs of the encoder's hidden states; an odd last one is dropped."""
        return FrameGrid(fps=25, memory_per_frame=2, interpolated=False, before_transformer=False)

    @property
    def memory_width(self) -> None:
        """The memory is H + FC(F_s): the first layer reads pairs of it."""
        return None

    def at_rate(self, fps: int) -> ProbTalk3D:
        """25 fps, or none."""
        if fps != self.grid.fps:
            raise UserError("{kind} at {fps} fps: it has 25 fps only", kind=self.KIND, fps=fps)
        return self

    def flops(self, n_frames: int) -> float:
        """Of the predictor and of the codec's decoder."""
        blocks = self._block_flops(n_frames) * (self.blocks + self.prior_blocks)
        return n_frames * (4 * self.feature_dim * self.dim + blocks)

    def _block_flops(self, n_frames: int) -> float:
        """Of a frame in one block, whose attention reads all frames of a window."""
        return 8 * self.dim**2 + 4 * self.dim * self.ffn_dim + 4 * self.dim * min(n_frames, self.longest)

    def network(self, n_outputs: int, n_styles: int) -> ProbTalk3DNetwork:
        """The torch network."""
        from ..nn.probtalk3d import ProbTalk3DNetwork

        return ProbTalk3DNetwork(self, n_outputs, n_styles)


RELEASES = {
    "probtalk3d-mead": Release(
        host=ProbTalk3D(),
        n_vertices=5023,
        topology="flame",
        basis_unit="m",
        styles=STYLES,
    ),
}
