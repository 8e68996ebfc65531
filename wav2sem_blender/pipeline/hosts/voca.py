# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCA (CVPR 2019): settings and frame grid.

A frame is made from the 16 frames of DeepSpeech's logits around it and from nothing else: no loop, no attention.

Shapes: S samples, L encoder frames (50 Hz), T animation frames, D logits, W frames of a window, N styles, M hidden
units, K keys, X outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..frame_timing import ENCODER_RATE_HZ, SAMPLE_RATE_HZ, FrameGrid
from . import faceformer
from .protocol import Host

if TYPE_CHECKING:
    from ..nn.voca import VocaNetwork

LETTERS = "_abcdefghijklmnopqrstuvwxyz'-"
"""Of DeepSpeech 0.1.0, in the order of its logits; "_" is the space and "-" the blank."""
LOGITS, LOGITS_NAME = len(LETTERS), "DeepSpeech's logits"
LETTERS_OF_PHONES = (
    "-_ oa a uae oa ou iy b ch d th e er ay f g h i ey jg kc l m n ng o oi p r s sh t th uo uo v w y zs zs"
)
"""How each of `phones.PHONES` is spelt, roughly."""
STYLES = 8


class VocaGrid(FrameGrid):
    """Frames are counted from the recording's length, and read where they lie on the clock.

    As `np.interp` of two time axes that both begin at 0: frame t is at t / fps, and encoder frame l at l / 50.
    """

    def animation_frames(self, n_samples: int) -> int:
        """T, rounded as Python does: 0.5 to the even number."""
        return round(n_samples / SAMPLE_RATE_HZ * self.fps)

    def positions(self, n_samples: int, n_anim_frames: int | None = None) -> np.ndarray:
        """As `FrameGrid`. The last ones may lie behind the last encoder frame, which then counts."""
        n_anim_frames = self.animation_frames(n_samples) if n_anim_frames is None else n_anim_frames
        return np.arange(n_anim_frames) * ENCODER_RATE_HZ / self.fps


@dataclass(frozen=True, kw_only=True)
class Voca(Host):
    """VOCA's settings.

    Attributes:
        fps: Animation frames per second; VOCASET's camera has 60.
        window: W, centred on the frame; beyond the recording there are zeros.
        features: D.
        conv_dims: Widths of the convolutions, each of which halves the number of frames.
        hidden: M.
        keys: K: columns of the last layer.
        velocity_weight: Of the loss of the motion from frame to frame.
        pairs: How many pairs of neighbouring frames, drawn at random, each clip of a training batch gives; 0: all.
    """

    KIND: ClassVar[str] = "voca"

    fps: int = 60
    window: int = 16
    features: int = LOGITS
    conv_dims: tuple[int, ...] = (32, 32, 64, 64)
    hidden: int = 128
    keys: int = 50
    velocity_weight: float = 10.0
    pairs: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "conv_dims", tuple(self.conv_dims))  # JSON has lists

    @property
    def grid(self) -> VocaGrid:
        """One memory frame for each animation frame."""
        return VocaGrid(fps=self.fps, before_transformer=False)

    @property
    def memory_width(self) -> None:
        """The logits themselves are the memory."""
        return None

    def flops(self, n_frames: int) -> float:
        """As `Host`: each frame's window goes through everything."""
        inputs, n_inputs, products = self.features + STYLES, self.window, 0
        for width in self.conv_dims:
            n_inputs = -(-n_inputs // 2)
            products += n_inputs * 3 * inputs * width
            inputs = width
        products += (n_inputs * inputs + STYLES) * self.hidden + self.hidden * self.keys
        return 2 * n_frames * products

    def at_rate(self, fps: int) -> Voca:
        """The window keeps its number of frames."""
        return replace(self, fps=fps)

    def network(self, n_outputs: int, n_styles: int) -> VocaNetwork:
        """The torch network."""
        from ..nn.voca import VocaNetwork

        return VocaNetwork(self, n_outputs, n_styles)


STAND_IN = "voca-stand-in"
_RELEASE = replace(faceformer.RELEASES["faceformer-vocaset"], host=Voca())
RELEASES = {"voca": _RELEASE, STAND_IN: _RELEASE}
