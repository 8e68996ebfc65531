# SPDX-License-Identifier: GPL-3.0-or-later
"""The channels' effect on FLAME's face: displacements and inner-lip opening.

Shapes: T animation frames, K channels, V vertices.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wav2sem_blender.assets import FLAME_REFERENCE


def read_basis(path: Path, channels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The channels' displacements (K, V, 3) and their changes of the inner lip gap (K,), in metres."""
    with np.load(path) as file:
        names = [str(name) for name in file["names"]]
        basis_KV3 = file["basis_KV3"][[names.index(channel) for channel in channels]]
    return basis_KV3, flame_opening(basis_KV3)


def flame_opening(offsets_TV3: np.ndarray) -> np.ndarray:
    """Inner-lip opening above rest (T,), in the offsets' unit, at the middle pair of FLAME's lips."""
    upper, lower = flame_middle_lips()
    return offsets_TV3[:, upper, 1] - offsets_TV3[:, lower, 1]


def flame_middle_lips() -> tuple[int, int]:
    """The vertices in the middle of FLAME's upper and lower lip."""
    pairs = json.loads(FLAME_REFERENCE.read_text(encoding="utf-8"))["lip_pairs"]
    upper, lower = pairs[len(pairs) // 2]
    return upper, lower
