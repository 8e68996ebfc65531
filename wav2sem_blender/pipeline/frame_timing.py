# SPDX-License-Identifier: GPL-3.0-or-later
"""Time grids: samples -> encoder frames (50 Hz) -> animation frames, exactly as FaceFormer counts them.

Shapes: S samples, L encoder frames, T animation frames.
"""

from __future__ import annotations

import numpy as np

HOP_SAMPLES = 320
RECEPTIVE_FIELD_SAMPLES = 400


def encoder_frames(n_samples: int) -> int:
    """Number of frames that the seven convolutions of wav2vec 2.0 / HuBERT make of `n_samples` at 16 kHz."""
    return max(0, (n_samples - RECEPTIVE_FIELD_SAMPLES) // HOP_SAMPLES + 1)


def animation_frames(n_enc_frames: int, fps: int) -> int:
    """Number of animation frames for `n_enc_frames`, as the released code counts them.

    At 30 fps (VOCASET) this is `int(L / 50.0 * 30)`, in floats: it differs from floor(3 L / 5) at L = 205, 410, ….
    At 25 fps (BIWI) two encoder frames make one animation frame and an odd last one is dropped.
    """
    return n_enc_frames // 2 if fps == 25 else int(n_enc_frames / 50.0 * fps)


def feature_positions(n_enc_frames: int, fps: int) -> np.ndarray:
    """Where, in encoder frames, the features of each animation frame are read.

    Returns:
        float64 (T,) for 30 fps: linear interpolation with aligned corners, T positions over [0, L-1];
        float64 (2T,) for 25 fps: every encoder frame, two an animation frame.
    """
    n_anim_frames = animation_frames(n_enc_frames, fps)
    if fps == 25:
        return np.arange(2 * n_anim_frames, dtype=np.float64)
    if n_anim_frames < 2:
        return np.zeros(n_anim_frames)
    return np.arange(n_anim_frames) * ((n_enc_frames - 1) / (n_anim_frames - 1))
