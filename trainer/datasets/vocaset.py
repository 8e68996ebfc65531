# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCASET: FLAME faces (5023 vertices, metres) at 60 fps, used at 30; 12 subjects, 40 sentences each.

Two layouts are read: the four original files, and the output of FaceFormer's script (`exported_faces`).

    data_verts.npy           (M, 5023, 3), memory-mapped
    subj_seq_to_idx.pkl      [subject][sequence][frame] -> row of data_verts.npy
    raw_audio_fixed.pkl      [subject][sequence] -> {"audio": int16 (N,), "sample_rate": Hz}
    templates.pkl            [subject] -> (5023, 3)

Opening the originals reads the audio's pickle whole (about 100 MB); after `export_vocaset`, runs need not.

Source: Cudeiro et al., "Capture, Learning, and Synthesis of 3D Speaking Styles" (VOCA), CVPR 2019; the splits are
VOCA's and FaceFormer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline import restricted_pickle
from wav2sem_blender.pipeline.audio import Speech

from .exported_faces import (
    TEMPLATES,
    ExportedFaces,
    Published,
    PublishedFaces,
    Split,
    is_exported,
    load_array,
    write_exported,
)
from .face_data import FaceClip

VERTICES_FILE, ROWS_FILE, AUDIO_FILE = "data_verts.npy", "subj_seq_to_idx.pkl", "raw_audio_fixed.pkl"
ORIGINAL_FILES = (VERTICES_FILE, ROWS_FILE, AUDIO_FILE, TEMPLATES)


def _subjects(*numbers: str) -> tuple[str, ...]:
    return tuple(f"FaceTalk_{number}_TA" for number in numbers)


VOCASET = Published(
    name="vocaset",
    fps=30,
    every=2,
    n_vertices=5023,
    unit="m",
    topology="flame",
    clip_name="{subject}_sentence{sentence:02d}",
    splits=(
        Split(
            name="train",
            subjects=_subjects(
                "170728_03272", "170904_00128", "170725_00137", "170915_00223",
                "170811_03274", "170913_03279", "170904_03276", "170912_03278",
            ),
            sentences=range(1, 41),
        ),
        Split(name="valid", subjects=_subjects("170811_03275", "170908_03277"), sentences=range(21, 41)),
        Split(name="test", subjects=_subjects("170809_00138", "170731_00024"), sentences=range(21, 41)),
    ),
)  # fmt: skip


class OriginalVocaset(PublishedFaces):
    """The four files as published."""

    def __init__(self, folder: Path, published: Published = VOCASET) -> None:
        for name in ORIGINAL_FILES:
            if not (folder / name).is_file():
                raise MissingFileError(
                    "{folder} is missing; VOCASET needs {original_files}, or an exported vertices_npy, wav and "
                    "{templates}",
                    folder=folder / name,
                    original_files=", ".join(ORIGINAL_FILES),
                    templates=TEMPLATES,
                )
        self._vertices_MV3 = load_array(folder / VERTICES_FILE)
        if self._vertices_MV3.shape[1:] != (VOCASET.n_vertices, 3):
            raise UserError(
                "{file}: shape {shape}; (M, {n_vertices}, 3) is needed",
                file=VERTICES_FILE,
                shape=self._vertices_MV3.shape,
                n_vertices=VOCASET.n_vertices,
            )
        self._rows = _by_clip(folder / ROWS_FILE)
        self._audio = _by_clip(folder / AUDIO_FILE)
        self._templates = restricted_pickle.read_templates(folder / TEMPLATES)
        super().__init__(published, folder, set(self._rows), set(self._audio))

    def files(self) -> list[Path]:
        return [self.folder / name for name in ORIGINAL_FILES]

    def camera_vertices(self, clip: FaceClip) -> np.ndarray:
        return self._vertices_MV3[self._frame_rows(clip)]

    def recording(self, clip: FaceClip) -> tuple[np.ndarray, int]:
        recorded = self._audio[clip.name]
        try:
            samples_N, rate_hz = recorded["audio"], int(recorded["sample_rate"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                "{file}: {clip} lacks audio or sample_rate ({error})",
                file=AUDIO_FILE,
                clip=clip.name,
                error=error,
            ) from error
        return np.asarray(samples_N), rate_hz

    def _lengths_s(self, clip: FaceClip) -> tuple[float, float]:
        samples_N, rate_hz = self.recording(clip)
        return len(samples_N) / rate_hz, len(self._frame_rows(clip)) / self.camera_fps

    def _vertices(self, clip: FaceClip) -> np.ndarray:
        return self._vertices_MV3[self._frame_rows(clip)[:: self.published.every]]

    def _frame_rows(self, clip: FaceClip) -> list[int]:
        frames = self._rows[clip.name]
        try:
            rows = [int(row) for _, row in sorted(frames.items())]
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                "{file}: {clip} does not map frames to rows ({error})",
                file=ROWS_FILE,
                clip=clip.name,
                error=error,
            ) from error
        if not rows or min(rows) < 0 or max(rows) >= len(self._vertices_MV3):
            raise UserError(
                "{file}: {clip} has {n_frames} frames, up to row {last}, but {vertices} has {n_rows} rows; the "
                "files are of different versions",
                file=ROWS_FILE,
                clip=clip.name,
                n_frames=len(rows),
                last=max(rows, default=-1),
                vertices=VERTICES_FILE,
                n_rows=len(self._vertices_MV3),
            )
        return rows

    def _speech(self, clip: FaceClip) -> Speech:
        return Speech.from_array(*self.recording(clip), name=f"{AUDIO_FILE}: {clip.name}")

    def _template(self, subject: str) -> np.ndarray:
        return self._templates[subject]


def open_vocaset(folder: Path, published: Published = VOCASET) -> PublishedFaces:
    """The exported layout if there is a `vertices_npy`, else the four original files."""
    return ExportedFaces(published, folder) if is_exported(folder) else OriginalVocaset(folder, published)


def open_vocaset_60(folder: Path) -> PublishedFaces:
    """Every frame of the camera, as VOCA learns them."""
    return open_vocaset(folder, replace(VOCASET, fps=60, every=1))


def export_vocaset(folder: Path, out: Path) -> PublishedFaces:
    """Write the exported layout from the four original files: 60 fps motion, recordings at their own rate.

    Returns:
        The written data set, opened.
    """
    original = OriginalVocaset(folder)
    write_exported(original, out)
    return ExportedFaces(VOCASET, out)


def _by_clip(path: Path) -> Mapping[str, Any]:
    """[subject][sequence] -> value, as SUBJECT_SEQUENCE -> value."""
    nested = restricted_pickle.load(path)
    if not isinstance(nested, dict) or not all(isinstance(sequences, dict) for sequences in nested.values()):
        raise UserError("{path}: not a table of [subject][sequence]", path=path.name)
    return {
        f"{subject}_{sequence}": value for subject, sequences in nested.items() for sequence, value in sequences.items()
    }
