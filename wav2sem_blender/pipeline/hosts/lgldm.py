# SPDX-License-Identifier: GPL-3.0-or-later
"""LG-LDM (2024): diffusion in the latent space of CodeTalker's codec; settings, frame grids and published kinds.

Two files make a model: stage 1 is the codec, stage 2 the denoiser with its speech encoder. The published models differ
in more than sizes: `RELEASES` has one for each data set. MEAD's has emotions, which are styles after the subjects; a
style without an emotion is neutral.

Shapes: S samples, T animation frames, R memory frames, H encoder width, N styles, D latent width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ...errors import UserError
from ..frame_timing import SAMPLE_RATE_HZ, FrameGrid
from .codetalker import CodeTalker
from .faceformer import RELEASES as FACEFORMER
from .protocol import Host, Release

if TYPE_CHECKING:
    from ..nn.lgldm import LgLdmNetwork

COUNTED_FPS = 24


class CountedGrid(FrameGrid):
    """Of BIWI and MEAD: encoder frames are paired to 25 a second, but only 24 a second of the recording are sampled.

    So the motion of 10 s ends after 9.6 s, as in the released code, whose demos append a second of silence.
    """

    def animation_frames(self, n_samples: int) -> int:
        """T: the shorter of both counts."""
        return min(int(n_samples / SAMPLE_RATE_HZ * COUNTED_FPS), super().animation_frames(n_samples))


@dataclass(frozen=True, kw_only=True)
class LgLdm(Host):
    """LG-LDM's settings; the defaults are those of VOCASET.

    Attributes:
        dim: D, the width of the denoiser and of a frame's latents: codes of a frame times `code_width`.
        audio_dim: H.
        period: Of the attention's bias, in frames.
        periodic_positions: The positional encoding has the same period; otherwise it counts frames without end.
        mish_on_style: The non-linearity is behind the style's layer, as in the denoiser of BIWI; otherwise it is behind
            the latents'.
        counted: The grid is `CountedGrid`.
        emotions: How many of the styles, at the end, are emotions. Each has a codebook of its own.
        sampling_steps: Of DDIM.
        finished: Take the last step, which the released sampler skips: its result still has the noise of time 9 (100
            steps) or 19 (50 steps).
        codec_dim, codec_heads, codec_ffn_dim, codec_blocks, n_codes, code_width: The codec's sizes, as `CodecSizes`.
        codec_extra_linear: CodeTalker's class for BIWI: a layer more at the latents, no bias at the vertices.
        on_keys: The codec has no encoder and its last layer a bias: a model that animates. Otherwise a model to train,
            or to write as published files.
    """

    KIND: ClassVar[str] = "lgldm"
    SAMPLES: ClassVar[bool] = True
    NOISE_STEPS: ClassVar[int] = 1000
    LONGEST: ClassVar[int] = CodeTalker.LONGEST
    OVERLAP: ClassVar[int] = CodeTalker.OVERLAP

    dim: int = 1024
    heads: int = 8
    n_layers: int = 8
    audio_dim: int = 1024
    fps: int = 30
    memory_per_frame: int = 1
    period: int = 30
    periodic_positions: bool = True
    mish_on_style: bool = False
    counted: bool = False
    emotions: int = 0
    dropout: float = 0.1
    sampling_steps: int = 100
    finished: bool = False
    codec_dim: int = 1024
    codec_heads: int = 8
    codec_ffn_dim: int = 1536
    codec_blocks: int = 6
    n_codes: int = 256
    code_width: int = 64
    codec_extra_linear: bool = False
    on_keys: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.sampling_steps <= self.NOISE_STEPS:
            raise UserError("sampling_steps {steps}: a number from 1 to 1000 is needed", steps=self.sampling_steps)
        if self.dim % self.code_width or self.dim % self.heads:
            raise UserError(
                "dim {dim} must be a multiple of code_width {code_width} and of heads {heads}",
                dim=self.dim,
                code_width=self.code_width,
                heads=self.heads,
            )

    @property
    def grid(self) -> FrameGrid:
        """Features are interpolated before the encoder's transformer, or paired behind it."""
        grid = CountedGrid if self.counted else FrameGrid
        return grid(fps=self.fps, memory_per_frame=self.memory_per_frame, interpolated=self.memory_per_frame == 1)

    @property
    def memory_width(self) -> None:
        """F_p + FC(F_s) itself: the audio layer reads pairs and belongs to the denoiser."""
        return None

    def feature_width(self, encoder_width: int) -> int:
        """As `Host`.

        Raises:
            UserError: The denoiser was made for an encoder of another width.
        """
        if encoder_width != self.audio_dim:
            raise UserError(
                "lgldm with audio_dim {audio_dim}: its encoder is {width} wide; HuBERT-large has 1024, wav2vec 2.0 "
                "base has 768",
                audio_dim=self.audio_dim,
                width=encoder_width,
            )
        return encoder_width

    def flops(self, n_frames: int) -> float:
        """As `Host`: the denoiser at every step, and one pass of the codec's decoder."""
        longest, steps = min(n_frames, self.LONGEST), self.sampling_steps - (not self.finished)
        windows = max(1.0, (n_frames - self.OVERLAP) / (self.LONGEST - self.OVERLAP))
        denoiser = self.n_layers * (16 * self.dim**2 + 4 * self.dim * longest) + 4 * self.dim**2
        width = self.codec_dim
        block = 8 * width**2 + 4 * width * self.codec_ffn_dim + 4 * width * longest
        return windows * longest * (steps * denoiser + 14 * width**2 + self.codec_blocks * block)

    def at_rate(self, fps: int) -> LgLdm:
        """The same; UserError for another rate, as the models for 30 and 25 fps differ in more than the rate."""
        if fps != self.fps:
            raise UserError("lgldm at {fps} fps: these settings are for {own}", fps=fps, own=self.fps)
        return self

    def network(self, n_outputs: int, n_styles: int) -> LgLdmNetwork:
        """The codec and the denoiser."""
        from ..nn.lgldm import LgLdmNetwork

        return LgLdmNetwork(self, n_outputs, n_styles)


MEAD_SUBJECTS = tuple(
    f"M{number:03d}"
    for number in (*(3, 5, 7, 9, 11, 12, 13, 19), *range(22, 36), *(37, 39, 40))  # 37 and 40 are test, 35 and 39 valid
)
MEAD_EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
VOCASET = LgLdm()
BIWI = LgLdm(
    heads=4,
    audio_dim=768,
    fps=25,
    memory_per_frame=2,
    period=25,
    periodic_positions=False,
    mish_on_style=True,
    counted=True,
    sampling_steps=50,
    code_width=128,
    codec_extra_linear=True,
)
MEAD = LgLdm(
    dim=512,
    heads=4,
    fps=25,
    memory_per_frame=2,
    periodic_positions=False,
    counted=True,
    emotions=len(MEAD_EMOTIONS),
    n_codes=256 * len(MEAD_EMOTIONS),
    codec_extra_linear=True,
)
RELEASES: dict[str, Release] = {
    "lgldm-vocaset": replace(FACEFORMER["faceformer-vocaset"], host=VOCASET),
    "lgldm-biwi": replace(FACEFORMER["faceformer-biwi"], host=BIWI),
    "lgldm-mead": replace(FACEFORMER["faceformer-vocaset"], host=MEAD, styles=(*MEAD_SUBJECTS, *MEAD_EMOTIONS)),
}
