# SPDX-License-Identifier: GPL-3.0-or-later
"""BIWI 3D Audiovisual Corpus of Affective Communication: 23,370 vertices, 25 fps; 14 subjects, 40 emotional sentences.

Two layouts are read: the corpus as published, preprocessed while reading, and the output of CodeTalker's scripts
(`exported_faces`: F2_e01.npy, F2_e01.wav, templates.pkl).

    faces/F2/e01/frame_001.vl    vertex count, then float32 x y z of every vertex; little-endian, one file a frame
    rigid_scans/F2.obj           the subject's rest face and its triangles
    audio/F2_e01.wav             or F2_e01_cut.wav, in `audio` or `wav`

Preprocessing is CodeTalker's, for frames and templates alike: turn by pi about x (y and z change sign), subtract that
frame's mean vertex, divide by the square root of that frame's surface area. Lengths are therefore in "sqrt_area", not
in metres, and each frame's size and place are lost.

Splits are FaceFormer's: six training subjects with sentences 1-32, the same with 33-36 for validation and 37-40 for
Test-A ("test"); Test-B ("test_b") has the eight other subjects with 37-40.

Source: Fanelli et al., IEEE Transactions on Multimedia 2010; Xing et al., CodeTalker, CVPR 2023.
Shapes: F camera frames, V vertices, G triangles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.audio import Speech

from .exported_faces import (
    ExportedFaces,
    Published,
    PublishedFaces,
    Split,
    is_exported,
    sound_length_s,
    write_exported,
)
from .face_data import FaceClip
from .meshes import read_obj, surface_area

_SEEN = ("F2", "F3", "F4", "M3", "M4", "M5")
_UNSEEN = ("F1", "F5", "F6", "F7", "F8", "M1", "M2", "M6")

BIWI = Published(
    name="biwi",
    fps=25,
    every=1,
    n_vertices=23_370,
    unit="sqrt_area",
    topology="biwi",
    clip_name="{subject}_e{sentence:02d}",
    splits=(
        Split(name="train", subjects=_SEEN, sentences=range(1, 33)),
        Split(name="valid", subjects=_SEEN, sentences=range(33, 37)),
        Split(name="test", subjects=_SEEN, sentences=range(37, 41)),
        Split(name="test_b", subjects=_UNSEEN, sentences=range(37, 41)),
    ),
)


class OriginalBiwi(PublishedFaces):
    """The corpus as published: `faces`, `rigid_scans` and the recordings."""

    def __init__(self, folder: Path) -> None:
        for name in ("faces", "rigid_scans"):
            if not (folder / name).is_dir():
                raise MissingFileError(
                    "{folder} is missing; BIWI needs faces, rigid_scans and audio, or an exported vertices_npy, wav "
                    "and templates.pkl",
                    folder=folder / name,
                )
        self._recordings = {
            path.stem.removesuffix("_cut"): path for name in ("wav", "audio") for path in (folder / name).glob("*.wav")
        }
        self._frames = {
            f"{sequence.parent.name}_{sequence.name}": sorted(sequence.glob("*.vl"))
            for sequence in (folder / "faces").glob("*/*")
            if sequence.is_dir()
        }
        self._meshes: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        captured = {name for name, frames in self._frames.items() if frames}
        super().__init__(BIWI, folder, captured, set(self._recordings))

    def files(self) -> list[Path]:
        frames = [path for clip in self.clips for path in self._frames[clip.name]]
        subjects = sorted({clip.subject for clip in self.clips})
        return [*map(self._scan, subjects), *(self._recordings[clip.name] for clip in self.clips), *frames]

    def camera_vertices(self, clip: FaceClip) -> np.ndarray:
        faces_G3 = self._mesh(clip.subject)[1]
        return np.stack([preprocess(read_vl(path), faces_G3) for path in self._frames[clip.name]])

    def recording(self, clip: FaceClip) -> tuple[np.ndarray, int]:
        return sf.read(self._recordings[clip.name], dtype="int16")

    def _lengths_s(self, clip: FaceClip) -> tuple[float, float]:
        return sound_length_s(self._recordings[clip.name]), len(self._frames[clip.name]) / self.camera_fps

    def _speech(self, clip: FaceClip) -> Speech:
        return Speech.from_file(self._recordings[clip.name])

    def _template(self, subject: str) -> np.ndarray:
        return preprocess(*self._mesh(subject))

    def _mesh(self, subject: str) -> tuple[np.ndarray, np.ndarray]:
        if subject not in self._meshes:
            vertices_V3, faces_G3 = read_obj(self._scan(subject))
            if len(vertices_V3) != BIWI.n_vertices or faces_G3.max(initial=-1) >= BIWI.n_vertices or not len(faces_G3):
                raise UserError(
                    "{subject}.obj: {n_vertices} vertices and {n_triangles} triangles; BIWI's templates have "
                    "{needed} vertices and the triangles between them",
                    subject=subject,
                    n_vertices=len(vertices_V3),
                    n_triangles=len(faces_G3),
                    needed=BIWI.n_vertices,
                )
            self._meshes[subject] = vertices_V3, faces_G3
        return self._meshes[subject]

    def _scan(self, subject: str) -> Path:
        return self.folder / "rigid_scans" / f"{subject}.obj"


def open_biwi(folder: Path) -> PublishedFaces:
    """The exported layout if there is a `vertices_npy`, else the corpus as published."""
    return ExportedFaces(BIWI, folder) if is_exported(folder) else OriginalBiwi(folder)


def export_biwi(folder: Path, out: Path) -> PublishedFaces:
    """Write the exported layout from the corpus; training then need not preprocess every frame in every epoch.

    Returns:
        The written data set, opened.
    """
    original = OriginalBiwi(folder)
    write_exported(original, out)
    return ExportedFaces(BIWI, out)


def read_vl(path: Path) -> np.ndarray:
    """One frame, float32 (V, 3). The count is C's `unsigned long`, 4 or 8 bytes wide; the file's size tells which.

    Raises:
        UserError: the file's size fits neither, or its count is not BIWI's.
    """
    content = path.read_bytes()
    body = 12 * BIWI.n_vertices
    header = len(content) - body
    count = int.from_bytes(content[:header], "little") if header in (4, 8) else -1
    if count != BIWI.n_vertices:
        raise UserError(
            "{subject}/{sequence}/{file}: {n_bytes} bytes; a frame of {n_vertices} vertices has {short} or "
            "{long} bytes and begins with that count. Unpack it again",
            subject=path.parent.parent.name,
            sequence=path.parent.name,
            file=path.name,
            n_bytes=len(content),
            n_vertices=BIWI.n_vertices,
            short=body + 4,
            long=body + 8,
        )
    return np.frombuffer(content, "<f4", offset=header).reshape(-1, 3)


def preprocess(vertices_V3: np.ndarray, faces_G3: np.ndarray) -> np.ndarray:
    """CodeTalker's normalisation of one frame or template, float32 (V, 3) in sqrt_area.

    NaN and infinity pass through; `FaceData.vertices` reports them by frame.
    """
    turned_V3 = vertices_V3.astype(np.float64) * (1, -1, -1)
    centred_V3 = turned_V3 - turned_V3.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (centred_V3 / np.sqrt(surface_area(centred_V3, faces_G3))).astype(np.float32)
