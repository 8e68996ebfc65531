# SPDX-License-Identifier: GPL-3.0-or-later
"""3DMEAD as LG-LDM learns it: vertices that FLAME's mean face makes of the parameters, of the men's strongest takes.

LG-LDM's own reconstruction of MEAD was not released; its split and its labels are kept on 3DMEAD's (`mead.py`).

Shapes: T animation frames, N styles, S shape parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wav2sem_blender.pipeline.flame_parameters import N_SHAPES
from wav2sem_blender.pipeline.hosts.lgldm import MEAD_EMOTIONS, MEAD_SUBJECTS
from wav2sem_blender.pipeline.hosts.probtalk3d import EMOTIONS

from .face_data import FaceClip, FaceData
from .mead import Mead, Take, take_of

STRONGEST = 2
VALID, TEST = ("M035", "M039"), ("M037", "M040")


def by_subject(take: Take) -> str | None:
    """LG-LDM's split: 21 men are learnt, two held out and two for the test; level 3 alone, so never neutral."""
    if take.speaker not in MEAD_SUBJECTS or take.level != STRONGEST:
        return None
    return "valid" if take.speaker in VALID else "test" if take.speaker in TEST else "train"


class MeadOffsets(Mead):
    """Offsets from FLAME's mean face; a style is a subject and an emotion."""

    n_outputs, point_width = 3 * Mead.n_vertices, FaceData.point_width
    learner = "LG-LDM"
    targets, rest = FaceData.targets, FaceData.rest

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, by_subject, name="mead_offsets")
        self.styles = (*MEAD_SUBJECTS, *MEAD_EMOTIONS)

    def shape(self, clip: FaceClip) -> np.ndarray:
        """Zero (S,): every subject has the mean face."""
        return np.zeros(N_SHAPES, np.float32)

    def style(self, clip: FaceClip, styles: Sequence[str]) -> np.ndarray:
        """(1, N)."""
        take = take_of(clip.name)
        assert take is not None and take.emotion is not None
        wanted = {take.speaker, EMOTIONS[take.emotion]}
        return np.array([[style in wanted for style in styles]], np.float32)

    def prepare(self, network: object) -> None:
        """Nothing: the network's keys are its codec's columns."""
