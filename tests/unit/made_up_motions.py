# SPDX-License-Identifier: GPL-3.0-or-later
"""Random motions that several tests of the pipeline share."""

from __future__ import annotations

import numpy as np

from wav2sem_blender.pipeline.motion import Motion

RNG = np.random.default_rng(5)


def as_motion(weights, fps=30.0, n_vertices=0):
    weights = np.asarray(weights, dtype=np.float32)
    weights = weights[:, None] if weights.ndim == 1 else weights
    n_channels = weights.shape[1]
    basis = 0.01 * RNG.normal(size=(n_channels, n_vertices, 3)) if n_vertices else None
    channels = tuple(f"key_{k:02d}" for k in range(n_channels))
    return Motion(weights_TK=weights, channels=channels, fps=fps, basis_KV3=basis, info={"audio": "a.wav"})


def wandering(n_frames, n_channels=4, smoothness=4):
    """Random curves that move about as mouths do."""
    noise = RNG.normal(size=(n_frames + 4 * smoothness, n_channels))
    kernel = np.hanning(2 * smoothness + 3)[1:-1]
    curves = [np.convolve(column, kernel / kernel.sum(), mode="same")[:n_frames] for column in noise.T]
    return np.stack(curves, axis=1)
