# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of transferred keys.

    python -m trainer.mesh_registration.transfer_errors --data ../shared/data

Prints millimetres for FLAME heads of other identities (true keys: the model's basis), ICT-FaceKit's head (its own
expressions) and the demo head (its own keys, drawn in another style), with true and with guessed landmarks. Errors are
over the skin that a true key moves by more than 1 mm; `mouth` is within 35 mm of the lips; `upper face` covers the keys
of lids, gaze and brows, the other columns the model's.

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

from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_HEAD, UPPER_FACE
from wav2sem_blender.pipeline.any_head.landmarks import guess_landmarks
from wav2sem_blender.pipeline.any_head.transfer import LANDMARKS, TemplateFace, transfer
from wav2sem_blender.pipeline.upper_face import UPPER_FACE_CHANNELS

from .basis import ict_names
from .registration import HEAD_VERTICES, ICT_SKIN_VERTICES, Surface, load_flame
from .template_face import DATA, landmark_points

ICT_FACE_VERTICES = 9409
MOVED_M, MOUTH_M = 0.001, 0.035
N_FLAME_HEADS = 3
TITLES = ("median", "p95", "median", "p95", "true p95", "median", "p95", "true p95")


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A head with true keys: offsets_KN3 in metres, skin_N the vertices that count, landmarks if known."""

    name: str
    points_N3: np.ndarray
    triangles_F3: np.ndarray
    offsets_KN3: np.ndarray
    skin_N: np.ndarray
    landmarks: dict[str, np.ndarray] | None


def flame_head(data: Path, face: TemplateFace, seed: int) -> Case:
    """FLAME with a random identity, one standard deviation for each of 60 components."""
    flame, skin = load_flame(data)
    identity = np.random.default_rng(seed).normal(size=flame["shapedirs"].shape[2])
    points_N3 = flame["v_template"] + flame["shapedirs"].astype(float) @ identity
    surface = Surface(points_V3=points_N3[:HEAD_VERTICES], triangles_F3=skin.triangles_F3, landmarks=skin.landmarks)
    basis_KN3 = load_file(DEFAULT_MODEL / "model.safetensors")["basis_KV3"].astype(float)
    with np.load(UPPER_FACE, allow_pickle=False) as file:
        basis_KN3 = np.concatenate([basis_KN3, file["basis_KV3"].astype(float)])
    assert len(basis_KN3) == len(face.channels)
    return Case(
        name=f"FLAME identity {seed}",
        points_N3=points_N3,
        triangles_F3=flame["faces"].astype(np.int64),
        offsets_KN3=basis_KN3,
        skin_N=np.arange(len(points_N3)) < HEAD_VERTICES,
        landmarks=dict(zip(LANDMARKS, landmark_points(surface), strict=True)),
    )


def ict_head(data: Path, face: TemplateFace) -> Case:
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


def demo_head(face: TemplateFace) -> Case:
    """The bundled demo head."""
    with np.load(DEMO_HEAD, allow_pickle=False) as file:
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


def cases(data: Path, face: TemplateFace) -> Iterator[Case]:
    """All available heads."""
    yield demo_head(face)
    if data.is_dir():
        yield ict_head(data, face)
        for seed in range(1, N_FLAME_HEADS + 1):
            yield flame_head(data, face, seed)


def errors_mm(
    case: Case, got_KN3: np.ndarray, marks: dict[str, np.ndarray], chosen_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (K, M) from the chosen true keys, and flags of the M near the mouth."""
    true_KN3 = case.offsets_KN3[chosen_K]
    measured = case.skin_N & (np.linalg.norm(true_KN3, axis=2).max(0) > MOVED_M)
    lips_3 = (marks["upper_lip"] + marks["lower_lip"]) / 2
    near = np.linalg.norm(case.points_N3[measured] - lips_3, axis=1) < MOUTH_M
    return 1000 * np.linalg.norm(got_KN3[chosen_K][:, measured] - true_KN3[:, measured], axis=2), near


def is_upper(face: TemplateFace) -> np.ndarray:
    """Which channels (K,) are lids, gaze and brows."""
    return np.isin(face.channels, UPPER_FACE_CHANNELS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: transfer to every head and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.mesh_registration.transfer_errors", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the development data")
    parser.add_argument("--per-key", action="store_true", help="also a line for each key")
    options = parser.parse_args(arguments)
    face = TemplateFace.load()
    upper_K = is_upper(face)
    print(f"{'':<42}{'all':>9}{'':9}{'mouth':>9}{'':18}{'upper face':>12}")
    print(f"{'head':<42}" + "".join(f"{title:>9}" for title in TITLES))
    for case in cases(options.data, face):
        guessed = guess_landmarks(face, case.points_N3, case.triangles_F3)
        for kind, marks in (("true", case.landmarks), ("guessed", guessed)):
            if marks is None:
                continue
            got_KN3 = transfer(face, case.points_N3, case.triangles_F3, marks)
            _print(f"{case.name}, {kind} landmarks", case, got_KN3, marks, upper_K)
            for k, name in enumerate(face.channels if options.per_key else ()):
                _print(f"    {name}", case, got_KN3, marks, upper_K, only=k)
    return 0


def _print(
    name: str,
    case: Case,
    got_KN3: np.ndarray,
    marks: dict[str, np.ndarray],
    upper_K: np.ndarray,
    only: int | None = None,
) -> None:
    """Print one line, for all channels or for `only` one."""
    cells = []
    for chosen_K, places in ((~upper_K, ("all", "mouth")), (upper_K, ("all",))):
        errors, near = errors_mm(case, got_KN3, marks, chosen_K)
        true_mm, _ = errors_mm(case, np.zeros_like(got_KN3), marks, chosen_K)
        rows = slice(None) if only is None else np.flatnonzero(chosen_K) == only
        for place in places:
            here = slice(None) if place == "all" else near
            values, truth = errors[rows][:, here], true_mm[rows][:, here]
            numbers = [np.median(values), np.percentile(values, 95)] if values.size else [np.nan, np.nan]
            cells += numbers if place != places[-1] else [*numbers, np.percentile(truth, 95) if truth.size else np.nan]
    print(f"{name:<42}" + "".join(f"{cell:>9.2f}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
