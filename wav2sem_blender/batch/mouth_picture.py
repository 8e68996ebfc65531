# SPDX-License-Identifier: GPL-3.0-or-later
"""The lips' outlines at some times of a motion: the filmstrip of a report.

Shapes: T animation frames, K channels, V vertices, P points of the outlines, F pictures.
"""

from __future__ import annotations

import numpy as np

from ..pipeline.motion import Motion

N_PICTURES = 12
# The last 20 of the usual 68 landmarks, as vertices of FLAME: 12 around the outer edge of the lips and 8 around the
# inner one, each a ring from the right corner over the upper lip. Then where they rest in FLAME 2023 Open
# (CC-BY-4.0, Max Planck Institute for Intelligent Systems), x and y in millimetres.
N_OUTER = 12
_FLAME_VERTICES = 5023
_VERTICES_P = (
    *(2820, 2864, 2774, 3543, 1657, 1749, 1703, 1774, 1802, 3503, 2905, 2881),
    *(2845, 2787, 3531, 1670, 1730, 1804, 3504, 2907),
)
_REST_MM_P2 = np.array(
    [
        *((-26.3, -44.9), (-19.4, -40.5), (-5.5, -38.5), (0.3, -39.2), (6.0, -38.6), (19.7, -40.6), (26.5, -45.3)),
        *((20.6, -48.8), (11.8, -50.4), (0.2, -51.4), (-11.6, -50.2), (-20.5, -48.4)),
        *((-23.1, -45.6), (-11.7, -43.6), (0.3, -43.7), (12.1, -43.7), (23.2, -45.9), (10.5, -45.4), (0.2, -45.5)),
        (-10.1, -45.4),
    ],
    np.float32,
)
# What a byte of the picture means: x from -36 mm and y from -86 mm, 0.28 mm a step.
LEFT_MM, LOW_MM, STEP_MM = -36.0, -86.0, 0.28


def outlines(motion: Motion) -> np.ndarray | None:
    """The outlines at the middles of F equal parts, uint8 (F, P, 2): x and y in steps; None without FLAME's basis."""
    basis_KV3 = motion.basis_KV3
    if basis_KV3 is None or basis_KV3.shape[1] != _FLAME_VERTICES or not motion.n_frames:
        return None
    anim_frames_F = ((np.arange(N_PICTURES) + 0.5) * motion.n_frames / N_PICTURES).astype(int)
    basis_KP2 = 1000 * basis_KV3[:, list(_VERTICES_P), :2]
    return _steps(_REST_MM_P2 + np.tensordot(motion.weights_TK[anim_frames_F], basis_KP2, 1))


def at_rest() -> np.ndarray:
    """The outlines at rest, uint8 (P, 2)."""
    return _steps(_REST_MM_P2)


def _steps(points_mm: np.ndarray) -> np.ndarray:
    return np.rint((points_mm - (LEFT_MM, LOW_MM)) / STEP_MM).clip(0, 255).astype(np.uint8)
