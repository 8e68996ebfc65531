# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker (CVPR 2023): settings, cost and releases.

Stage 1 is a codec of motion with a codebook; stage 2 predicts its codes from speech, frame after frame. A model needs
both. Every step decodes all codes so far into motion, since the codec is not causal, and feeds the newest frame back.
That is exact, and nearly all of the cost.

Shapes: T animation frames, M width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ...errors import UserError
from ..frame_timing import FrameGrid
from .faceformer import RELEASES as FACEFORMER_RELEASES
from .protocol import Host, Release

if TYPE_CHECKING:
    from ..nn.codetalker import CodeTalkerNetwork

MAX_FRAMES = 600
"""The longest recording that CodeTalker is defined for. Longer ones are made in windows of so many frames."""
OVERLAP_FRAMES = 120
"""Two windows share so many frames, over which they are cross-faded."""


@dataclass(frozen=True, kw_only=True)
class CodeTalker(Host):
    """CodeTalker's settings; the defaults are those of VOCASET.

    Attributes:
        dim: M of stage 2.
        layers: Of its transformer decoder; `ffn_dim` is the width inside them.
        period: Of the positional encoding and the attention bias, in animation frames.
        memory_per_frame: Memory frames that an animation frame attends to.
        codec_dim, codec_heads, codec_ffn_dim, codec_blocks: The transformers of stage 1.
        latent: Width of a frame's codes together.
        code_width: Of one code; a frame has `latent / code_width` of them.
        n_codes: Rows of the codebook.
        extra_linear: Stage 1 has one linear layer more on either side of the codes.
        head_bias: Its last layer has a bias.
        folded: The feedback is one matrix from the codec's last hidden state, without vertices in between, and stage 1
            has no encoder: a model that animates. Otherwise a model to train, or to write as a published file.
    """

    KIND: ClassVar[str] = "codetalker"
    LONGEST: ClassVar[int] = MAX_FRAMES
    OVERLAP: ClassVar[int] = OVERLAP_FRAMES

    dim: int = 1024
    heads: int = 4
    layers: int = 6
    ffn_dim: int = 2048
    period: int = 30
    fps: int = 30
    memory_per_frame: int = 1
    dropout: float = 0.1
    codec_dim: int = 1024
    codec_heads: int = 8
    codec_ffn_dim: int = 1536
    codec_blocks: int = 6
    latent: int = 1024
    code_width: int = 64
    n_codes: int = 256
    extra_linear: bool = False
    head_bias: bool = True
    folded: bool = False

    def __post_init__(self) -> None:
        if (self.fps, self.memory_per_frame) not in ((30, 1), (25, 2)):
            raise UserError(
                "{kind} at {fps} fps with {memory_per_frame} memory frames per animation frame: it has 30 fps with 1 "
                "or 25 fps with 2",
                kind=self.KIND,
                fps=self.fps,
                memory_per_frame=self.memory_per_frame,
            )
        if self.latent % self.code_width:
            raise UserError(
                "codetalker: codes of {code_width} values do not fill the {latent} values of a frame",
                code_width=self.code_width,
                latent=self.latent,
            )

    @property
    def grid(self) -> FrameGrid:
        """FaceFormer's."""
        return FrameGrid.at_rate(self.fps)

    @property
    def memory_width(self) -> int:
        """M, after `audio_feature_map`."""
        return self.dim

    def flops(self, n_frames: int) -> float:
        """As `Host`. Of the decodes of every prefix, the last block computes its newest frame alone."""
        longest = min(n_frames, self.LONGEST)
        windows = max(1.0, (n_frames - self.OVERLAP) / (self.LONGEST - self.OVERLAP))
        step = self.layers * (12 * self.dim**2 + 4 * self.dim * self.ffn_dim + 2 * self.dim * longest)
        width = self.codec_dim
        block = 8 * width**2 + 4 * width * self.codec_ffn_dim + 4 * width * longest / 2
        codec_frame = (12 + 2 * self.extra_linear) * width**2 + (self.codec_blocks - 1) * block + 4 * width**2
        return windows * longest * (step + codec_frame * longest / 2)

    def at_rate(self, fps: int) -> CodeTalker:
        """At 30 or 25 fps; the period follows, as published."""
        return replace(self, fps=fps, period=fps, memory_per_frame=FrameGrid.at_rate(fps).memory_per_frame)

    def network(self, n_outputs: int, n_styles: int) -> CodeTalkerNetwork:
        """The torch module."""
        from ..nn.codetalker import CodeTalkerNetwork

        return CodeTalkerNetwork(self, n_outputs, n_styles)


VOCASET = CodeTalker()
BIWI = replace(VOCASET.at_rate(25), layers=12, code_width=128, extra_linear=True, head_bias=False)
RELEASES: dict[str, Release] = {
    f"codetalker-{data}": replace(FACEFORMER_RELEASES[f"faceformer-{data}"], host=host)
    for data, host in (("vocaset", VOCASET), ("biwi", BIWI))
}
