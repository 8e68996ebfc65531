# SPDX-License-Identifier: GPL-3.0-or-later
"""A studio's own recordings: any mesh, any number of subjects, one folder.

    dataset.json
    wav/NAME.wav                 what libsndfile reads (.wav, .flac, .ogg, .mp3, .aiff), any rate
    vertices/NAME.npy            float (T, V, 3) or (T, 3V): absolute vertex positions, one row a captured frame
    templates/SUBJECT.npy        float (V, 3) or (3V,): the subject's rest face, in the same unit, order and place;
                                 or SUBJECT.obj; or one template.npy or template.obj for all subjects
    sentences.tsv                optional: NAME<tab>what is said

The head must not move: remaining head motion would be learned as speech. Every clip's mean face must lie near its
subject's template.

dataset.json, with every possible key:

    {
      "fps": 30,                          captured: 25, 30, 50 or 60; of 50 and 60 every second frame is used
      "unit": "m",                        of the vertices: "m", "cm" or "mm"; readers get metres
      "topology": "studio_head",          your name for the mesh; "flame" where the order is FLAME's
      "subjects": {                       in the order of the style's columns
        "anna": ["anna_001", "anna_002"],
        "ben": ["ben_001"]
      },
      "split": {"valid": ["anna_002"], "test": []}      optional; every clip not named here is trained on
    }

Without "split", one clip in eight is held out for validation, chosen by a hash of its name; of two or more clips at
least one. Adding clips does not move others between the splits, except for that one.

Shapes: T animation frames, V vertices.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.audio import Speech

from .exported_faces import load_array, sound_length_s
from .face_data import FaceClip, FaceData, sentence_texts
from .meshes import read_obj

UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
CAPTURE_FPS = {25: (25, 1), 30: (30, 1), 50: (25, 2), 60: (30, 2)}
SOUND_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
HELD_OUT_ONE_IN = 8
REQUIRED = {"fps", "unit", "topology", "subjects"}


class CustomFaces(FaceData):
    """The layout above."""

    name = "custom"
    unit = "m"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        description = _description(folder / "dataset.json")
        self.fps, self._every = CAPTURE_FPS[description["fps"]]
        self._scale = UNITS_M[description["unit"]]
        self.topology = description["topology"]
        subjects: Mapping[str, list[str]] = description["subjects"]
        self._recordings = {
            path.stem: path for path in sorted((folder / "wav").glob("*")) if path.suffix.lower() in SOUND_SUFFIXES
        }
        self._templates = {subject: self._read_template(subject) for subject in subjects}
        self.n_vertices = _equal_count(self._templates)
        self.clips, self.skipped = self._list_clips(subjects, description.get("split"))
        if not self.clips:
            raise UserError(
                "{folder}: no clip has both its wav and its vertices ({skipped})",
                folder=folder,
                skipped=dict(self.skipped),
            )
        for clip in self.clips:
            if fault := self._different_lengths(clip):
                raise UserError(
                    "{fault} at {fps} fps; trim both to the same take, or correct fps in dataset.json",
                    fault=fault,
                    fps=description["fps"],
                )
        self.styles = tuple(
            subject
            for subject in subjects
            if any((clip.subject, clip.split) == (subject, "train") for clip in self.clips)
        )

    def files(self) -> list[Path]:
        motions = [self._motion(clip.name) for clip in self.clips]
        templates = sorted({self._template_file(clip.subject) for clip in self.clips})
        return [self.folder / "dataset.json", *templates, *motions, *(self._recordings[c.name] for c in self.clips)]

    def _list_clips(
        self, subjects: Mapping[str, list[str]], split: Mapping[str, list[str]] | None
    ) -> tuple[tuple[FaceClip, ...], Mapping[str, int]]:
        texts = sentence_texts(self.folder)
        skipped: Counter[str] = Counter()
        present: dict[str, str] = {}
        for subject, names in subjects.items():
            for name in names:
                if not self._motion(name).is_file():
                    skipped["motion missing"] += 1
                elif name not in self._recordings:
                    skipped["recording missing"] += 1
                else:
                    present[name] = subject
        on_disk = {path.stem for path in (self.folder / "vertices").glob("*.npy")} | set(self._recordings)
        unlisted = on_disk - {name for names in subjects.values() for name in names}
        if unlisted:
            skipped["not in dataset.json"] = len(unlisted)
        splits = held_out(present) if split is None else {name: part for part, names in split.items() for name in names}
        clips = (
            FaceClip(name=name, subject=subject, split=splits.get(name, "train"), text=texts.get(name))
            for name, subject in present.items()
        )
        return tuple(clips), dict(skipped)

    def _lengths_s(self, clip: FaceClip) -> tuple[float, float]:
        n_frames = len(load_array(self._motion(clip.name)))
        return sound_length_s(self._recordings[clip.name]), n_frames / (self.fps * self._every)

    def _speech(self, clip: FaceClip) -> Speech:
        return Speech.from_file(self._recordings[clip.name])

    def _vertices(self, clip: FaceClip) -> np.ndarray:
        return load_array(self._motion(clip.name))[:: self._every] * np.float32(self._scale)

    def _template(self, subject: str) -> np.ndarray:
        return self._templates[subject] * np.float32(self._scale)

    def _motion(self, name: str) -> Path:
        return self.folder / "vertices" / f"{name}.npy"

    def _template_file(self, subject: str) -> Path:
        candidates = [self.folder / "templates" / f"{subject}{suffix}" for suffix in (".npy", ".obj")]
        candidates += [self.folder / f"template{suffix}" for suffix in (".npy", ".obj")]
        for path in candidates:
            if path.is_file():
                return path
        raise MissingFileError(
            "{file} is missing; give each subject templates/SUBJECT.npy or .obj, or all of them one template.npy",
            file=candidates[0],
        )

    def _read_template(self, subject: str) -> np.ndarray:
        path = self._template_file(subject)
        template = read_obj(path)[0] if path.suffix == ".obj" else np.asarray(load_array(path))
        if template.dtype.kind != "f" or template.size == 0 or template.size % 3:
            raise UserError(
                "{path}: {dtype} {shape}; floats of shape (V, 3) are needed",
                path=path.name,
                dtype=template.dtype,
                shape=template.shape,
            )
        return template.reshape(-1, 3)


def open_custom(folder: Path) -> CustomFaces:
    """Open the layout; errors are those of `open_face_data`."""
    return CustomFaces(folder)


def held_out(names: Iterable[str]) -> Mapping[str, str]:
    """Name -> "valid" for one clip in eight, by a hash of the name; at least one of two or more."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    chosen = [name for name in ranked if hashlib.sha256(name.encode()).digest()[0] < 256 // HELD_OUT_ONE_IN]
    if not chosen and len(ranked) > 1:
        chosen = ranked[:1]
    return dict.fromkeys(chosen if len(chosen) < len(ranked) else chosen[1:], "valid")


def _description(path: Path) -> Mapping[str, Any]:
    """dataset.json, checked."""
    if not path.is_file():
        raise MissingFileError(
            "{path} is missing; it describes the data set (see trainer/datasets/custom.py)",
            path=path,
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("{path}: not JSON ({error})", path=path, error=error) from error
    keys = set(description) if isinstance(description, dict) else set()
    if not keys >= REQUIRED or keys - REQUIRED - {"split"}:
        raise UserError(
            "{path}: has {keys}; {required} are needed, and split is optional",
            path=path,
            keys=sorted(keys),
            required=sorted(REQUIRED),
        )
    if not isinstance(description["fps"], int) or description["fps"] not in CAPTURE_FPS:
        raise UserError(
            "{path}: fps {fps!r}; choose from {choices}",
            path=path,
            fps=description["fps"],
            choices=sorted(CAPTURE_FPS),
        )
    if not isinstance(description["unit"], str) or description["unit"] not in UNITS_M:
        raise UserError(
            "{path}: unit {unit!r}; choose from {choices}",
            path=path,
            unit=description["unit"],
            choices=", ".join(UNITS_M),
        )
    subjects, split = description["subjects"], description.get("split", {})
    for key, table in (("subjects", subjects), ("split", split)):
        if not isinstance(table, dict) or not all(_is_names(names) for names in table.values()):
            raise UserError("{path}: {key} must map names to lists of clips", path=path, key=key)
    if not subjects:
        raise UserError("{path}: names no subject", path=path)
    listed = _listed_once(path, "subjects", subjects)
    unknown = sorted(set(split) - {"train", "valid", "test"}) + sorted(_listed_once(path, "split", split) - listed)
    if unknown:
        raise UserError(
            "{path}: split names {unknown}, which is neither train, valid or test nor a listed clip",
            path=path,
            unknown=unknown[0],
        )
    return description


def _listed_once(path: Path, key: str, table: Mapping[str, list[str]]) -> set[str]:
    """The clips in a table of lists; UserError if one is listed twice."""
    counts = Counter(name for names in table.values() for name in names)
    for name, count in counts.items():
        if count > 1:
            raise UserError(
                "{path}: {key} lists clip {name} {count} times; a clip has one subject and one split",
                path=path,
                key=key,
                name=name,
                count=count,
            )
    return set(counts)


def _is_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _equal_count(templates: Mapping[str, np.ndarray]) -> int:
    counts = {subject: len(template_V3) for subject, template_V3 in templates.items()}
    first, n_vertices = next(iter(counts.items()))
    for subject, count in counts.items():
        if count != n_vertices:
            raise UserError(
                "template of {subject}: {count} vertices, that of {first} has {n_vertices}; use one mesh",
                subject=subject,
                count=count,
                first=first,
                n_vertices=n_vertices,
            )
    return n_vertices
