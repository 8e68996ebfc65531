# SPDX-License-Identifier: GPL-3.0-or-later
"""The face that the add-on transfers to any head.

    python -m trainer.mesh_registration.template_face --data ../shared/data

About 1,800 points of FLAME's symmetrised mean surface, dense at the lips, triangulated by the dual of geodesic Voronoi
cells, each in the middle of two of FLAME's vertices. The file also has the bundled model's basis at the points, a few
landmarks, each point's lip, and the points' motion with FLAME's first identities. Metres, FLAME's frame.

Shapes: S points, F triangles, K channels, V FLAME's vertices, I identities, L landmarks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from wav2sem_blender.assets import DEFAULT_MODEL, TEMPLATE_FACE
from wav2sem_blender.pipeline.any_head.geometry import face_edges
from wav2sem_blender.pipeline.any_head.transfer import LANDMARKS

from .registration import HEAD_VERTICES, MIRROR, Surface, edge_graph, lip_side, load_flame, mirror_map

DATA = Path("../shared/data")
JAW_JOINT = 2  # FLAME's joint
_N_IDENTITIES, _IDENTITY_UNIT_M, OFFSET_UNIT_M = 20, 2e-5, 2e-6
LIP_LANDMARKS, EYE_LANDMARKS = tuple(range(48, 68)), tuple(range(36, 48))  # iBUG 68 landmark numbers
# Spacing of the points in metres: (distance along the skin from the lips or eyes, spacing).
SPACING = ((0.010, 0.0022), (0.035, 0.0048), (0.08, 0.008), (0.14, 0.014))
EYE_SPACING = ((0.006, 0.0035), (0.025, 0.007), (0.06, 0.014))
# The landmarks by iBUG numbers; two numbers stand for the point midway between them.
MARKS = {
    "nose_tip": (30,), "chin": (8,), "mouth_left": (54,), "mouth_right": (48,), "upper_lip": (51, 62),
    "lower_lip": (57, 66), "eye_outer_left": (45,), "eye_inner_left": (42,), "eye_inner_right": (39,),
    "eye_outer_right": (36,),
}  # fmt: skip


def landmark_points(surface: Surface) -> np.ndarray:
    """The add-on's landmarks (L, 3) on a head with the 68."""
    points_V3 = surface.points_V3
    goals_L3 = np.array([points_V3[surface.landmarks[list(MARKS[name])]].mean(0) for name in LANDMARKS])
    goals_L3[LANDMARKS.index("chin")] = front_of_chin(surface)
    nearest_L = np.linalg.norm(points_V3[None] - goals_L3[:, None], axis=2).argmin(1)
    return points_V3[nearest_L]


def front_of_chin(surface: Surface) -> np.ndarray:
    """The foremost point in the middle of the face below the hollow under the lower lip."""
    points_V3, marks = surface.points_V3, surface.landmarks
    lip, jaw = points_V3[marks[57]], points_V3[marks[8]]
    height = np.abs(lip[1] - jaw[1])
    middle = np.abs(points_V3[:, 0] - lip[0]) < 0.004
    middle &= (points_V3[:, 1] < lip[1] - 0.4 * height) & (points_V3[:, 1] > jaw[1] - 0.3 * height)
    candidates = np.flatnonzero(middle)
    return points_V3[candidates[points_V3[candidates, 2].argmax()]]


def subdivide(points_V3: np.ndarray, triangles_F3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split every triangle into four: for each vertex the two old vertices (W, 2) that it lies between, and
    triangles."""
    edges = face_edges(triangles_F3)
    count = len(points_V3)
    number = sparse.coo_matrix((np.arange(len(edges)) + count, edges.T), shape=(count, count)).tocsr()
    a, b, c = triangles_F3.T

    def middle(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.asarray(number[np.minimum(p, q), np.maximum(p, q)]).ravel()

    ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
    parts = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    between = np.concatenate([np.repeat(np.arange(count)[:, None], 2, 1), edges])
    return between, np.concatenate([np.stack(part, 1) for part in parts])


def remesh(surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of vertices (S, 2) whose middles are the new points, and triangles (F, 3) between these.

    Each point is the farthest from those before it, measured along the skin in units of the wanted spacing. Three cells
    that meet in a triangle of the fine mesh make a new triangle.
    """
    between, fine_F3 = subdivide(surface.points_V3, surface.triangles_F3)
    points = surface.points_V3[between].mean(1)
    fine = Surface(points_V3=points, triangles_F3=fine_F3, landmarks=surface.landmarks)
    graph = edge_graph(fine)
    spacing = np.full(len(points), np.inf)
    for marks, steps in ((LIP_LANDMARKS, SPACING), (EYE_LANDMARKS, EYE_SPACING)):
        away = dijkstra(graph, indices=surface.landmarks[list(marks)], min_only=True)
        distances, spacings = np.array(steps).T
        spacing = np.minimum(spacing, np.interp(away, distances, spacings))
    scaled = graph.tocoo()
    scaled.data = scaled.data / ((spacing[scaled.row] + spacing[scaled.col]) / 2)
    scaled = scaled.tocsr()
    distance, owner = np.full(len(points), np.inf), np.full(len(points), -1)
    seeds: list[int] = []
    fresh = surface.landmarks[27:].tolist()
    while fresh:
        for seed in fresh:
            reached = dijkstra(scaled, indices=seed, limit=float(min(distance.max(), 1e9)))
            nearer = reached < distance
            distance[nearer], owner[nearer] = reached[nearer], len(seeds)
            seeds.append(seed)
        fresh = [int(distance.argmax())] if distance.max() > 1.0 else []
    cells = owner[fine_F3]
    distinct = (cells[:, 0] != cells[:, 1]) & (cells[:, 1] != cells[:, 2]) & (cells[:, 2] != cells[:, 0])
    cells = cells[distinct]
    first = np.unique(np.sort(cells, 1), axis=0, return_index=True)[1]
    return between[seeds], cells[first]


def build(data: Path) -> dict[str, np.ndarray]:
    """The content of the file."""
    flame, skin = load_flame(data)
    twin_V = mirror_map(skin)
    skin = Surface(
        points_V3=(skin.points_V3 + MIRROR * skin.points_V3[twin_V]) / 2,
        triangles_F3=skin.triangles_F3,
        landmarks=skin.landmarks,
    )
    between_S2, triangles_F3 = remesh(skin)
    basis_KV3 = load_file(DEFAULT_MODEL / "model.safetensors")["basis_KV3"]
    channels = json.loads((DEFAULT_MODEL / "config.json").read_text(encoding="utf-8"))["model"]["channels"]
    identities_V3I = flame["shapedirs"][:HEAD_VERTICES, :, :_N_IDENTITIES].astype(float)
    side_V = lip_side(skin)
    return {
        "points": skin.points_V3[between_S2].mean(1).astype(np.float32),
        "triangles": triangles_F3.astype(np.uint16),
        "flame_vertices": between_S2.astype(np.uint16),
        "side": np.sign(side_V[between_S2].sum(1)).astype(np.int8),
        "joint": (flame["J_regressor"][JAW_JOINT] @ flame["v_template"]).astype(np.float32),
        "landmarks": landmark_points(skin).astype(np.float32),
        "identities": (identities_V3I[between_S2].mean(1) / _IDENTITY_UNIT_M).round().astype(np.int16),
        "identity_unit_m": np.array(_IDENTITY_UNIT_M),
        "channels": np.array(channels),
        "offsets": (basis_KV3[:, between_S2].astype(np.float32).mean(2) / OFFSET_UNIT_M).round().astype(np.int16),
        "offset_unit_m": np.array(OFFSET_UNIT_M),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: build the face and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.mesh_registration.template_face", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the development data")
    parser.add_argument("--out", type=Path, default=TEMPLATE_FACE, help="npz to write (default: the add-on's own)")
    options = parser.parse_args(arguments)
    face = build(options.data)
    np.savez_compressed(options.out, **face)
    size_kb = options.out.stat().st_size // 1000
    print(f"{options.out}: {len(face['points'])} points, {len(face['triangles'])} triangles, {size_kb} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
