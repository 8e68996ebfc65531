# SPDX-License-Identifier: GPL-3.0-or-later
"""Lip, mean and upper-face errors of vertex sequences, as the published evaluations compute them.

Sequences are added one by one: memory is needed only for the longest clip.

Shapes: T animation frames, V vertices, R vertices of a region (an index given twice counts twice).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wav2sem_blender.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SequenceErrors:
    """Errors of one predicted sequence; lengths in the data's unit u (metres for FLAME).

    Attributes:
        n_frames: animation frames compared.
        lve: mean over frames of the largest squared distance among the lips' vertices, u² (no root is taken).
        mve: mean over frames and all vertices of the distance, u.
        fdd: mean over the upper face's vertices of std_t |m|² of the truth, less the same of the prediction, u²,
            signed; m is the displacement from the template, std the population's.
    """

    n_frames: int
    lve: float
    mve: float
    fdd: float


@dataclass(kw_only=True)
class ErrorTotals:
    """Running totals of a test set."""

    sequences: list[SequenceErrors] = field(default_factory=list)

    def add(self, errors: SequenceErrors) -> None:
        """Count one more sequence."""
        self.sequences.append(errors)

    def means(self) -> dict[str, float]:
        """The figures of a table; each name says what its mean is taken over.

        `lve_frames` and `mve_frames` pool all frames (CodeTalker, FaceDiffuser); `lve_sequences` and `mve_sequences`
        average each sequence first (DiffSpeaker, UniTalker); `fdd` is signed, `fdd_abs` the mean of its magnitude.

        Raises:
            UserError: no sequence was added.
        """
        if not self.sequences:
            raise UserError("no sequence was measured, so there are no errors to average")
        frames = np.array([s.n_frames for s in self.sequences])
        lve, mve, fdd = (np.array([getattr(s, name) for s in self.sequences]) for name in ("lve", "mve", "fdd"))
        return {
            "lve_frames": float(np.average(lve, weights=frames)),
            "lve_sequences": float(lve.mean()),
            "mve_frames": float(np.average(mve, weights=frames)),
            "mve_sequences": float(mve.mean()),
            "fdd": float(fdd.mean()),
            "fdd_abs": float(np.abs(fdd).mean()),
        }

    @property
    def n_frames(self) -> int:
        """Animation frames compared so far."""
        return sum(s.n_frames for s in self.sequences)


def sequence_errors(
    predicted_TV3: np.ndarray, truth_TV3: np.ndarray, template_V3: np.ndarray, lips_R: np.ndarray, upper_R: np.ndarray
) -> SequenceErrors:
    """Compare two sequences over their common length.

    Source: CodeTalker's `cal_metric.py` (LVE, FDD), FaceDiffuser's evaluation (MVE).

    Args:
        predicted_TV3: vertices (not offsets), any length.
        truth_TV3: vertices of the recording, any length.
        template_V3: the subject at rest.
        lips_R: vertex indices of the lips.
        upper_R: vertex indices of the upper face.

    Raises:
        UserError: the meshes differ, a sequence is empty, an index is outside the mesh, or a vertex is not finite.
    """
    n_vertices = len(template_V3)
    for name, array in (("prediction", predicted_TV3), ("truth", truth_TV3)):
        if array.ndim != 3 or array.shape[1:] != (n_vertices, 3):
            raise UserError(
                "{name} has shape {array_shape}; the template needs (frames, {n_vertices}, 3)",
                name=name,
                array_shape=array.shape,
                n_vertices=n_vertices,
            )
    for name, region_R in (("lips", lips_R), ("upper face", upper_R)):
        if len(region_R) == 0 or region_R.min() < 0 or region_R.max() >= n_vertices:
            raise UserError(
                "the region of the {name} is empty or names vertices outside 0 … {n_vertices}",
                name=name,
                n_vertices=n_vertices - 1,
            )
    n_frames = min(len(predicted_TV3), len(truth_TV3))
    if n_frames == 0:
        raise UserError("a sequence has no frames and cannot be compared")
    predicted_TV3, truth_TV3 = predicted_TV3[:n_frames], truth_TV3[:n_frames]
    squared_TV = _squared_lengths(predicted_TV3 - truth_TV3)
    if not np.isfinite(squared_TV).all():
        raise UserError("a vertex is NaN or infinite, so this sequence cannot be compared")
    upper_R3 = template_V3[upper_R]
    return SequenceErrors(
        n_frames=n_frames,
        lve=float(squared_TV[:, lips_R].max(1).mean(dtype=np.float64)),
        mve=float(np.sqrt(squared_TV).mean(dtype=np.float64)),
        fdd=_liveliness(truth_TV3[:, upper_R] - upper_R3) - _liveliness(predicted_TV3[:, upper_R] - upper_R3),
    )


def _liveliness(moved_TR3: np.ndarray) -> float:
    """Mean over vertices of the population std over time of the squared displacement."""
    return float(_squared_lengths(moved_TR3).std(0, dtype=np.float64).mean())


def _squared_lengths(moved_TV3: np.ndarray) -> np.ndarray:
    return np.einsum("tvc,tvc->tv", moved_TV3, moved_TV3)
