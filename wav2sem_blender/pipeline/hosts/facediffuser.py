# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceDiffuser (MIG 2023): a recurrent network that takes the noise out of motion, step by step.

The motion that it denoises is the face itself, not its offset from the neutral face. So it needs the neutral faces of
its training subjects, which its files lack: `official.facediffuser` reads them from the user's copy of the data.

Shapes: S samples, T animation frames, M width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ...errors import UserError
from ..frame_timing import SAMPLE_RATE_HZ, FrameGrid
from . import faceformer
from .protocol import Host, Release

if TYPE_CHECKING:
    from ..nn.facediffuser import FaceDiffuserNetwork


class PairedGrid(FrameGrid):
    """Two memory frames for each animation frame, which are counted from the recording's length."""

    def animation_frames(self, n_samples: int) -> int:
        """T: one less than the duration has."""
        return max(0, int(n_samples / SAMPLE_RATE_HZ * self.fps) - 1)


@dataclass(frozen=True, kw_only=True)
class FaceDiffuser(Host):
    """FaceDiffuser's settings; the defaults are those of VOCASET.

    Attributes:
        dim: M.
        steps: Of the diffusion; every one runs the network.
        fps: Animation frames per second: 30, for which features are interpolated, or 25.
        audio_dim: Width of the encoder's hidden states.
        dropout: Between the two recurrent layers, in training.
        folded: The input layer reads the network's own features instead of vertices, as in a model folder.
    """

    KIND: ClassVar[str] = "facediffuser"
    SAMPLES: ClassVar[bool] = True

    dim: int = 256
    steps: int = 1000
    fps: int = 30
    audio_dim: int = 768
    dropout: float = 0.3
    folded: bool = False

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise UserError("steps {steps}: at least 2 are needed", steps=self.steps)

    @property
    def grid(self) -> FrameGrid:
        """Encoder frames in pairs, or interpolated to pairs; both behind the encoder's transformer."""
        return PairedGrid(fps=self.fps, memory_per_frame=2, interpolated=self.fps != 25, before_transformer=False)

    @property
    def memory_width(self) -> None:
        """F_p + FC(F_s) itself: the layer behind it reads pairs, and is the network's."""
        return None

    def feature_width(self, encoder_width: int) -> int:
        """As `Host`.

        Raises:
            UserError: The settings are for an encoder of another width.
        """
        if encoder_width != self.audio_dim:
            raise UserError(
                "facediffuser with audio_dim {audio_dim}: its encoder is {width} wide",
                audio_dim=self.audio_dim,
                width=encoder_width,
            )
        return encoder_width

    def flops(self, n_frames: int) -> float:
        """As `Host`: the recurrent layers, the feedback and the noise of every step."""
        return self.steps * n_frames * 48.0 * self.dim**2

    def at_rate(self, fps: int) -> FaceDiffuser:
        """At 30 or 25 fps."""
        if fps not in (25, 30):
            raise UserError("facediffuser at {fps} fps: it has 30 and 25", fps=fps)
        return replace(self, fps=fps)

    def network(self, n_outputs: int, n_styles: int) -> FaceDiffuserNetwork:
        """The denoiser."""
        from ..nn.facediffuser import FaceDiffuserNetwork

        return FaceDiffuserNetwork(self, n_outputs, n_styles)


RELEASES = {
    "facediffuser-vocaset": Release(
        host=FaceDiffuser(),
        n_vertices=5023,
        topology="flame",
        basis_unit="m",
        styles=faceformer.RELEASES["faceformer-vocaset"].styles,
    ),
    "facediffuser-biwi": Release(
        host=FaceDiffuser(dim=512, steps=500, fps=25),
        n_vertices=23370,
        topology="biwi",
        basis_unit="template_box",  # each axis is divided by the length of the subject's neutral face along it
        styles=faceformer.RELEASES["faceformer-biwi"].styles,
    ),
}
