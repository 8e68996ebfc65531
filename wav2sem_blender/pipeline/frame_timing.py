# SPDX-License-Identifier: GPL-3.0-or-later
"""Frame grids: audio samples -> encoder frames (50 Hz) -> animation frames, counted exactly as FaceFormer counts them.

Shapes: S samples, L encoder frames, T animation frames, R memory frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError

SAMPLE_RATE_HZ = 16_000
# What a recording may have.
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 1_600_000
MAX_CHANNELS = 256
HOP_SAMPLES = 320
RECEPTIVE_FIELD_SAMPLES = 400
ENCODER_RATE_HZ = 50
WINDOW_S, OVERLAP_S = 20.0, 4.0
STEADY_OFFSET = 0.5  # encoder frames: where the published frames lie on average


def checked_rate(sample_rate: float, name: str) -> float:
    """The rate, or UserError if no recording has it."""
    try:
        rate_hz = float(sample_rate)
    except (TypeError, ValueError):
        rate_hz = float("nan")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise UserError(
            "{file}: the sample rate is {sample_rate} Hz; {min_rate_hz} to {max_rate_hz} Hz is supported.",
            file=name,
            sample_rate=sample_rate,
            min_rate_hz=MIN_RATE_HZ,
            max_rate_hz=MAX_RATE_HZ,
        )
    return rate_hz


def encoder_frames(n_samples: int) -> int:
    """Number of frames that the seven convolutions of wav2vec 2.0 / HuBERT make of `n_samples` at 16 kHz."""
    return max(0, (n_samples - RECEPTIVE_FIELD_SAMPLES) // HOP_SAMPLES + 1)


@dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """Which encoder frames each animation frame is made from. A host that counts otherwise overrides the methods.

    Attributes:
        fps: Animation frames per second.
        memory_per_frame: Memory frames per animation frame.
        interpolated: Memory frames lie evenly between the first and the last encoder frame. Otherwise they are the
            encoder frames themselves.
        steady: Interpolated frames are exactly 1 / fps apart. As published they are stretched from the first encoder
            frame to the last, by up to an animation frame, so the same word moves a little with the recording's length.
        before_transformer: Features are read at the memory frames before the encoder's transformer, not behind it.
        window_s, overlap_s: Of a long recording, encoders hear windows of this length that overlap.
        separate: A window is normalised, counted and decoded as if it were a recording; their motion is cross-faded.
    """

    fps: int
    memory_per_frame: int = 1
    interpolated: bool = True
    before_transformer: bool = True
    steady: bool = False
    window_s: float = WINDOW_S
    overlap_s: float = OVERLAP_S
    separate: bool = False

    @classmethod
    def at_rate(cls, fps: int) -> FrameGrid:
        """FaceFormer's grid: at half the encoder's rate (BIWI) frames are paired, at other rates interpolated."""
        paired = 2 * fps == ENCODER_RATE_HZ
        return cls(fps=fps, memory_per_frame=2 if paired else 1, interpolated=not paired)

    def animation_frames(self, n_samples: int) -> int:
        """T of a recording, as the released code counts it.

        Interpolated, it is `int(L / 50.0 * fps)` in floats, which at 30 fps differs from floor(3 L / 5) at L = 205,
        410, … Paired, an odd last encoder frame is dropped.
        """
        n_enc_frames = encoder_frames(n_samples)
        if self.interpolated:
            return int(n_enc_frames / 50.0 * self.fps)
        return n_enc_frames // self.memory_per_frame

    def positions(self, n_samples: int, n_anim_frames: int | None = None) -> np.ndarray:
        """Where, in encoder frames, the memory frames are read: float64 (R,).

        Args:
            n_samples: Length of the recording.
            n_anim_frames: T where it is known from recorded motion, as in training.
        """
        n_anim_frames = self.animation_frames(n_samples) if n_anim_frames is None else n_anim_frames
        n_memory = n_anim_frames * self.memory_per_frame
        if self.steady:
            steps_R = np.arange(n_memory) * ENCODER_RATE_HZ / self.fps + STEADY_OFFSET
            return steps_R.clip(0, encoder_frames(n_samples) - 1)
        if self.interpolated:
            return np.linspace(0, encoder_frames(n_samples) - 1, n_memory)
        return np.arange(n_memory, dtype=np.float64)
