# SPDX-License-Identifier: GPL-3.0-or-later
"""Non-rigid registration of FLAME's template to ICT-FaceKit's neutral head (numpy and scipy).

The result binds every vertex of FLAME's head to a point on ICT's surface; `basis.py` transfers expressions by it.
Everything is in metres in FLAME's frame: x to the character's left, y up, z forward.

Shapes: V vertices, F triangles, P constrained points.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.any_head.geometry import face_edges, fit_similarity
from wav2sem_blender.pipeline.any_head.surface import ClosestPoints, cotangents, vertex_normals
from wav2sem_blender.pipeline.any_head.surface import lip_side as side_of_lips

HEAD_VERTICES = 3931  # FLAME's skin; the two eyeballs follow
ICT_SKIN_VERTICES = 14062  # face, head, neck, mouth socket, eye sockets; teeth and eyeballs follow
MIRROR = np.array([-1.0, 1.0, 1.0])

UPPER_LIP = (49, 50, 51, 52, 53, 61, 62, 63)  # iBUG 68 landmark numbers
LOWER_LIP = (55, 56, 57, 58, 59, 65, 66, 67)
MOUTH_CORNERS = (48, 54)
CURVES = (  # runs of landmarks along the same anatomical line of both heads
    (36, 37, 38, 39), (39, 40, 41, 36), (42, 43, 44, 45), (45, 46, 47, 42),  # lid margins
    (48, 49, 50, 51, 52, 53, 54), (54, 55, 56, 57, 58, 59, 48),  # border of the lips' red
    (60, 61, 62, 63, 64), (64, 65, 66, 67, 60),  # line where the lips meet
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A triangle mesh with 68 landmark vertices: points_V3 (metres), triangles_F3, landmarks (68,)."""

    points_V3: np.ndarray
    triangles_F3: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Binding:
    """FLAME's head on ICT's surface: fitted_V3 (metres), ICT triangle ids (V, 3), barycentric_V3, confidence_V 0..1."""

    fitted_V3: np.ndarray
    triangles_V3: np.ndarray
    barycentric_V3: np.ndarray
    confidence_V: np.ndarray

    def interpolate(self, field_V3: np.ndarray) -> np.ndarray:
        """Values (V, 3) of a field on ICT's vertices at the bound points."""
        return np.einsum("vk,vkc->vc", self.barycentric_V3, field_V3[self.triangles_V3])


def load_flame(data_dir: Path) -> tuple[dict[str, np.ndarray], Surface]:
    """FLAME's arrays, and its skin (without eyeballs) as a Surface."""
    with np.load(data_dir / "flame2023_open" / "flame2023_open.npz", allow_pickle=False) as arrays:
        flame = {name: arrays[name] for name in arrays}
    landmarks = np.loadtxt(data_dir / "regions" / "said_FLAME_landmarks.txt", dtype=int)
    faces = flame["faces"].astype(np.int64)
    skin = faces[(faces < HEAD_VERTICES).all(1)]
    points = flame["v_template"][:HEAD_VERTICES].astype(float)
    return flame, Surface(points_V3=points, triangles_F3=skin, landmarks=landmarks)


def load_ict(data_dir: Path, target: Surface) -> tuple[Surface, dict[str, np.ndarray]]:
    """ICT's neutral skin and its expressions {name: (V, 3) metres}, both moved into FLAME's frame by a similarity."""
    folder = data_dir / "ict_facekit"
    with np.load(folder / "ict_facekit_compact.npz", allow_pickle=False) as arrays:
        neutral, faces = arrays["neutral"][:ICT_SKIN_VERTICES].astype(float), arrays["faces"]
        names, expr = arrays["expr_names"].tolist(), arrays["expr"][:, :ICT_SKIN_VERTICES].astype(float)
    landmarks = np.array(json.loads((folder / "vertex_indices.json").read_text())["idx_to_landmark_verts"])
    faces = faces[(faces < ICT_SKIN_VERTICES).all(1)]
    triangles = np.concatenate([faces[:, [0, 1, 2]], faces[faces[:, 3] >= 0][:, [0, 2, 3]]]).astype(np.int64)
    inner = slice(17, 68)  # without the jaw line, whose landmarks slide on the skin
    into_flame = fit_similarity(neutral[landmarks[inner]], target.points_V3[target.landmarks[inner]])
    surface = Surface(points_V3=into_flame.apply(neutral), triangles_F3=triangles, landmarks=landmarks)
    return surface, {name: into_flame.apply_to_offsets(expr[k]) for k, name in enumerate(names)}


def edge_graph(surface: Surface) -> sparse.csr_matrix:
    """Symmetric graph of edge lengths in metres."""
    points, triangles = surface.points_V3, surface.triangles_F3
    edges = face_edges(triangles)
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = sparse.coo_matrix((length, edges.T), shape=(len(points), len(points)))
    return (graph + graph.T).tocsr()


def mirror_map(surface: Surface) -> np.ndarray:
    """For every vertex (V,) its twin on the other side, found by walking the edges outward from the nose bridge.

    Raises:
        UserError: the mesh is not symmetric in its connectivity.
    """
    opposite = {}
    for triangle in surface.triangles_F3.tolist():
        for k in range(3):
            opposite[triangle[k], triangle[(k + 1) % 3]] = triangle[(k + 2) % 3]
    first, second = trace(edge_graph(surface), surface.landmarks[27], surface.landmarks[28])[:2]
    twin, seen = {first: first, second: second}, set()
    queue, points = deque([(first, second), (second, first)]), surface.points_V3
    while queue:
        a, b = edge = queue.popleft()
        if edge in seen or edge not in opposite or (twin[b], twin[a]) not in opposite:
            continue
        seen.add(edge)
        c, c_twin = opposite[edge], opposite[twin[b], twin[a]]
        # A few quads are split along different diagonals on the two sides, so their apexes do not correspond.
        apex, apex_twin = (
            MIRROR * (points[c] - points[[a, b]].mean(0)),
            points[c_twin] - points[[twin[a], twin[b]]].mean(0),
        )
        if np.linalg.norm(apex - apex_twin) > 0.5 * np.linalg.norm(apex):
            continue
        if twin.get(c, c_twin) == c_twin and twin.get(c_twin, c) == c:
            twin[c], twin[c_twin] = c_twin, c
            queue += [(b, c), (c, a), (c, b), (a, c)]
    mapping = np.array([twin.get(v, -1) for v in range(len(surface.points_V3))])
    if (mapping < 0).any() or (mapping[mapping] != np.arange(len(mapping))).any():
        raise UserError("the template's edges are not left-right symmetric, so there is no mirror map")
    return mapping


def trace(graph: sparse.csr_matrix, start: int, end: int) -> list[int]:
    """Vertices of the shortest edge path from start to end, both included."""
    _, previous = dijkstra(graph, indices=start, return_predecessors=True)
    path = [int(end)]
    while path[-1] != start:
        path.append(int(previous[path[-1]]))
    return path[::-1]


def curve_points(
    surface: Surface, graph: sparse.csr_matrix, run: tuple[int, ...]
) -> list[tuple[np.ndarray, list[int]]]:
    """Edge paths between successive landmarks of a run as [(arc fraction (P,), vertex ids)]."""
    paths = []
    for a, b in pairwise(run):
        ids = trace(graph, surface.landmarks[a], surface.landmarks[b])
        steps = np.linalg.norm(np.diff(surface.points_V3[ids], axis=0), axis=1)
        paths.append((np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum(), ids))
    return paths


def curve_constraints(source: Surface, target: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Source vertex ids (P,) on landmarks and CURVES, and their points (P, 3) on the target."""
    source_graph, target_graph = edge_graph(source), edge_graph(target)
    found = {int(source.landmarks[k]): target.points_V3[target.landmarks[k]] for k in range(27, 68)}
    for run in CURVES:
        pairs = zip(curve_points(source, source_graph, run), curve_points(target, target_graph, run), strict=True)
        for (source_at, source_ids), (target_at, target_ids) in pairs:
            line = target.points_V3[target_ids]
            for at, vertex in zip(source_at, source_ids, strict=True):
                found.setdefault(vertex, np.array([np.interp(at, target_at, line[:, c]) for c in range(3)]))
    return np.array(list(found)), np.array(list(found.values()))


def lip_side(surface: Surface) -> np.ndarray:
    """+1 on the upper lip's side, -1 on the lower lip's, 0 where the two meet or far from the mouth (V,)."""
    upper, lower, corners = (surface.landmarks[list(run)].tolist() for run in (UPPER_LIP, LOWER_LIP, MOUTH_CORNERS))
    return side_of_lips(surface.points_V3, surface.triangles_F3, upper, lower, corners)


def closest_points(surface: Surface) -> ClosestPoints:
    """Exact closest points on the surface, by scipy's tree."""

    def neighbours(centres_F3: np.ndarray) -> Callable[[np.ndarray, int], np.ndarray]:
        tree = cKDTree(centres_F3)
        return lambda points_V3, count: tree.query(points_V3, k=count)[1]

    return ClosestPoints(surface.points_V3, surface.triangles_F3, lip_side(surface), neighbours=neighbours)


def cotangent_laplacian(points_V3: np.ndarray, triangles_F3: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Stiffness matrix K (V, V), positive semi-definite, and lumped vertex areas (V,) in m^2."""
    n = len(points_V3)
    stiffness = sparse.csr_matrix((n, n))
    weights, area = cotangents(points_V3, triangles_F3)
    for k in range(3):
        i, j = triangles_F3[:, (k + 1) % 3], triangles_F3[:, (k + 2) % 3]
        stiffness += sparse.coo_matrix((weights[:, k], (i, j)), shape=(n, n))
    stiffness = stiffness + stiffness.T
    stiffness = sparse.diags(np.asarray(stiffness.sum(1)).ravel()) - stiffness
    vertex_area = np.bincount(triangles_F3.ravel(), np.repeat(area / 3, 3), minlength=n)
    return stiffness.tocsr(), np.maximum(vertex_area, 1e-9)


def bilaplacian(points_V3: np.ndarray, triangles_F3: np.ndarray) -> sparse.csr_matrix:
    """Thin-plate energy K A^-1 K, scaled by the mean area so that weights near 1 act over a few edges."""
    stiffness, area = cotangent_laplacian(points_V3, triangles_F3)
    return (stiffness @ sparse.diags(area.mean() / area) @ stiffness).tocsr()


def fit_identity(flame: dict[str, np.ndarray], source: Surface, target: Surface, closest: ClosestPoints) -> np.ndarray:
    """FLAME's skin (V, 3) with the identity components nearest to the target, the start of the fine fit."""
    directions = flame["shapedirs"][:HEAD_VERTICES].astype(float)
    ids, goals = curve_constraints(source, target)
    side, points = lip_side(source), source.points_V3
    for _ in range(8):
        normals = vertex_normals(points, source.triangles_F3)
        near, _, _, found = closest.query(points, normals, side)
        found &= np.linalg.norm(near - points, axis=1) < 0.015
        plane = normals[found]
        rows = np.concatenate(
            [np.einsum("vc,vck->vk", plane, directions[found]), 3 * directions[ids].reshape(-1, directions.shape[2])]
        )
        right = np.concatenate(
            [(plane * (near - source.points_V3)[found]).sum(1), 3 * (goals - source.points_V3[ids]).ravel()]
        )
        ridge = 2e-4 * np.eye(directions.shape[2])
        points = source.points_V3 + directions @ np.linalg.solve(rows.T @ rows + ridge, rows.T @ right)
    return points


def register(flame: dict[str, np.ndarray], source: Surface, target: Surface, twin_V: np.ndarray) -> Binding:
    """Fit FLAME's skin to ICT's and bind each of its vertices to ICT's surface, symmetric left to right."""
    closest = closest_points(target)
    side, triangles = lip_side(source), source.triangles_F3
    start = fit_identity(flame, source, target, closest)
    points = start = (start + MIRROR * start[twin_V]) / 2
    energy = sparse.kron(bilaplacian(start, triangles), sparse.identity(3)).tocsr()
    ids, goals = curve_constraints(source, target)
    for stiffness in (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.05, 0.03, 0.03):
        normals = vertex_normals(points, triangles)
        near, _, _, found = closest.query(points, normals, side)
        distance = np.linalg.norm(near - points, axis=1)
        trust = found * np.exp(-((distance / (0.003 + 0.002 * min(stiffness, 5))) ** 2))
        # Mostly point to plane: vertices may slide along the skin, and only the curves fix them.
        blocks = trust[:, None, None] * (normals[:, :, None] * normals[:, None, :] + 0.05 * np.eye(3))
        pull = sparse.bsr_matrix((blocks, np.arange(len(points)), np.arange(len(points) + 1))).tocsr()
        hold = np.zeros(len(points))
        hold[ids] = 3.0
        goal = np.zeros_like(points)
        goal[ids] = goals
        anchor = sparse.diags(np.repeat(hold, 3))
        system = (stiffness * energy + pull + anchor + 1e-6 * sparse.identity(3 * len(points))).tocsc()
        right = pull @ (near - start).ravel() + anchor @ (goal - start).ravel()
        points = start + splu(system).solve(right).reshape(-1, 3)
        points = (points + MIRROR * points[twin_V]) / 2
    near, number, barycentric, found = closest.query(points, vertex_normals(points, triangles), side)
    confidence = found * np.exp(-((np.linalg.norm(near - points, axis=1) / 0.002) ** 2))
    return Binding(
        fitted_V3=points, triangles_V3=target.triangles_F3[number], barycentric_V3=barycentric, confidence_V=confidence
    )
