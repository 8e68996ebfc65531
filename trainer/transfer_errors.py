# SPDX-License-Identifier: GPL-3.0-or-later
"""How far transferred keys are from true ones: `python -m trainer.transfer_errors --data ../shared/data`.

Prints millimetres for FLAME heads of other identities (true keys: the model's basis), ICT-FaceKit's head (its own
expressions) and the demo head (its own keys, drawn in another style), with true landmarks and with guessed ones. Over
the skin that a true key moves by more than 1 mm; `mouth` is what lies within 35 mm of the lips.

Shapes: K channels, N vertices, F triangles, M vertices measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from wav2sem_blender.assets.demo_head import build as demo
from wav2sem_blender.pipeline.landmarks import guess
from wav2sem_blender.pipeline.transfer import LANDMARKS, SpeechFace, transfer

from .basis import ict_names
from .registration import HEAD_VERTICES, ICT_SKIN_VERTICES, Surface, load_flame
from .speech_face import DATA, MODEL, landmark_points

ICT_FACE_VERTICES = 9409
MOVED_M, MOUTH_M = 0.001, 0.035
N_FLAME_HEADS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A head with true keys: offsets_KN3 in metres, skin_N the vertices that count, landmarks where they are known."""

    name: str
    points_N3: np.ndarray
    triangles_F3: np.ndarray
    offsets_KN3: np.ndarray
    skin_N: np.ndarray
    landmarks: dict[str, np.ndarray] | None


def flame_head(data: Path, face: SpeechFace, seed: int) -> Case:
    """FLAME with a random identity, one standard deviation for each of 60 components."""
    flame, skin = load_flame(data)
    identity = np.random.default_rng(seed).normal(size=flame["shapedirs"].shape[2])
    points_N3 = flame["v_template"] + flame["shapedirs"].astype(float) @ identity
    surface = Surface(points_V3=points_N3[:HEAD_VERTICES], triangles_F3=skin.triangles_F3, landmarks=skin.landmarks)
    basis_KN3 = load_file(MODEL / "model.safetensors")["basis_KV3"].astype(float)
    assert len(basis_KN3) == len(face.channels)
    return Case(
        name=f"FLAME identity {seed}",
        points_N3=points_N3,
        triangles_F3=flame["faces"].astype(np.int64),
        offsets_KN3=basis_KN3,
        skin_N=np.arange(len(points_N3)) < HEAD_VERTICES,
        landmarks=dict(zip(LANDMARKS, landmark_points(surface), strict=True)),
    )


def ict_head(data: Path, face: SpeechFace) -> Case:
    """ICT-FaceKit's neutral head with teeth, tongue, eyes and lashes; its face area counts."""
    folder = data / "ict_facekit"
    with np.load(folder / "ict_facekit_compact.npz", allow_pickle=False) as arrays:
        points_N3, faces = arrays["neutral"] / 100.0, arrays["faces"].astype(np.int64)
        expressions = {str(name): arrays["expr"][k] / 100.0 for k, name in enumerate(arrays["expr_names"])}
    triangles_F3 = np.concatenate([faces[:, [0, 1, 2]], faces[faces[:, 3] >= 0][:, [0, 2, 3]]])
    landmarks = np.array(json.loads((folder / "vertex_indices.json").read_text())["idx_to_landmark_verts"])
    skin_F3 = triangles_F3[(triangles_F3 < ICT_SKIN_VERTICES).all(1)]
    surface = Surface(points_V3=points_N3[:ICT_SKIN_VERTICES], triangles_F3=skin_F3, landmarks=landmarks)
    return Case(
        name="ICT-FaceKit",
        points_N3=points_N3,
        triangles_F3=triangles_F3,
        offsets_KN3=np.array(
            [np.sum([expressions[part] for part in ict_names(name, expressions)], axis=0) for name in face.channels]
        ),
        skin_N=np.arange(len(points_N3)) < ICT_FACE_VERTICES,
        landmarks=dict(zip(LANDMARKS, landmark_points(surface), strict=True)),
    )


def demo_head(face: SpeechFace) -> Case:
    """The bundled demo head."""
    with np.load(demo.OUTPUT, allow_pickle=False) as file:
        points_N3, quads, names = (
            file["points"].astype(float),
            file["quads"].astype(np.int64),
            file["key_names"].tolist(),
        )
        starts, moved, offsets = (
            file["key_starts"],
            file["key_vertices"],
            file["key_offsets"] * float(file["key_unit_m"]),
        )
        n_skin = len(file["skin_mirror"])
    offsets_KN3 = np.zeros((len(face.channels), *points_N3.shape))
    for k, name in enumerate(face.channels):
        span = slice(int(starts[names.index(name)]), int(starts[names.index(name) + 1]))
        offsets_KN3[k, moved[span]] = offsets[span]
    return Case(
        name="demo head",
        points_N3=points_N3,
        triangles_F3=np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]),
        offsets_KN3=offsets_KN3,
        skin_N=np.arange(len(points_N3)) < n_skin,
        landmarks=None,
    )


def cases(data: Path, face: SpeechFace) -> Iterator[Case]:
    """All heads that are at hand."""
    yield demo_head(face)
    if data.is_dir():
        yield ict_head(data, face)
        for seed in range(1, N_FLAME_HEADS + 1):
            yield flame_head(data, face, seed)


def errors_mm(case: Case, got_KN3: np.ndarray, marks: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Distances (K, M) from the true keys, and which of the M are near the mouth."""
    measured = case.skin_N & (np.linalg.norm(case.offsets_KN3, axis=2).max(0) > MOVED_M)
    lips_3 = (marks["upper_lip"] + marks["lower_lip"]) / 2
    near = np.linalg.norm(case.points_N3[measured] - lips_3, axis=1) < MOUTH_M
    return 1000 * np.linalg.norm(got_KN3[:, measured] - case.offsets_KN3[:, measured], axis=2), near


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: transfer to every head and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.transfer_errors", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the development data")
    parser.add_argument("--per-key", action="store_true", help="also a line for each key")
    options = parser.parse_args(arguments)
    face = SpeechFace.load()
    print(f"{'head':<42}{'all: median':>12}{'p95':>7}{'mouth: median':>15}{'p95':>7}{'true p95':>10}")
    for case in cases(options.data, face):
        guessed = guess(face, case.points_N3, case.triangles_F3)
        for kind, marks in (("true", case.landmarks), ("guessed", guessed)):
            if marks is None:
                continue
            errors, near = errors_mm(case, transfer(face, case.points_N3, case.triangles_F3, marks), marks)
            true_mm, _ = errors_mm(case, np.zeros_like(case.offsets_KN3), marks)
            _print(f"{case.name}, {kind} landmarks", errors, near, true_mm)
            for k, name in enumerate(face.channels if options.per_key else ()):
                _print(f"    {name}", errors[k : k + 1], near, true_mm[k : k + 1])
    return 0


def _print(name: str, errors: np.ndarray, near: np.ndarray, true_mm: np.ndarray) -> None:
    mouth = errors[:, near]
    print(
        f"{name:<42}{np.median(errors):>12.2f}{np.percentile(errors, 95):>7.2f}{np.median(mouth):>15.2f}"
        f"{np.percentile(mouth, 95):>7.2f}{np.percentile(true_mm[:, near], 95):>10.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
