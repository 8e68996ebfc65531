# SPDX-License-Identifier: GPL-3.0-or-later
"""Geometry of a triangle mesh: normals, distances along edges, loose parts, closest points, lips. NumPy only.

The trainer registers heads with it, and the add-on transfers shape keys.

Shapes: V vertices, E edges, F triangles, Q query points, C candidates, B boxes, G boxes in one, X points in a box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .geometry import face_edges

# Skin belongs to a lip up to this distance along the surface from the lip's landmark (by default), and down to this
# distance from the corners of the mouth, where the two lips are one.
LIP_REACH_M, CORNER_M = 0.03, 0.004


def vertex_normals(points_V3: np.ndarray, triangles_F3: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (V, 3)."""
    corners = points_V3[triangles_F3]
    face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.stack(
        [np.bincount(triangles_F3.ravel(), np.repeat(face[:, c], 3), minlength=len(points_V3)) for c in range(3)], 1
    )
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def cotangents(points_V3: np.ndarray, triangles_F3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the clipped cotangent at each corner (F, 3), the weight of the opposite edge; and the areas (F,)."""
    corners = points_V3[triangles_F3]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    weights = np.empty(triangles_F3.shape)
    for k in range(3):
        u, v = corners[:, (k + 1) % 3] - corners[:, k], corners[:, (k + 2) % 3] - corners[:, k]
        weights[:, k] = np.clip((u * v).sum(1) / np.maximum(2 * area, 1e-12), 0.05, 5.0) / 2
    return weights, area


def islands(n_vertices: int, edges_E2: np.ndarray) -> np.ndarray:
    """The smallest vertex number of each vertex's loose part (V,)."""
    label_V = np.arange(n_vertices)
    a, b = edges_E2.T
    while True:
        before = label_V.copy()
        least = np.minimum(label_V[a], label_V[b])
        np.minimum.at(label_V, label_V[a], least)
        np.minimum.at(label_V, label_V[b], least)
        label_V = label_V[label_V]
        if (label_V == before).all():
            return label_V


def edge_distance(
    points_V3: np.ndarray, edges_E2: np.ndarray, starts: Sequence[int], limit: float = np.inf
) -> np.ndarray:
    """Distance (V,) along edges from the nearest start; infinite beyond the limit and on other loose parts."""
    length = np.linalg.norm(points_V3[edges_E2[:, 0]] - points_V3[edges_E2[:, 1]], axis=1)
    distance = np.full(len(points_V3), np.inf)
    distance[list(starts)] = 0.0
    a, b = edges_E2.T
    while True:
        before = distance.copy()
        for source, end in ((a, b), (b, a)):
            reached = before[source] + length
            near = reached < np.minimum(before[end], limit)
            np.minimum.at(distance, end[near], reached[near])
        if (distance == before).all():
            return distance


def lip_side(
    points_V3: np.ndarray,
    triangles_F3: np.ndarray,
    upper: Sequence[int],
    lower: Sequence[int],
    corners: Sequence[int],
    reach_m: float = LIP_REACH_M,
) -> np.ndarray:
    """+1 at the upper lip, -1 at the lower lip, 0 where the two meet and far from the mouth (V,).

    The lips touch, so only distance along the surface tells them apart. Metres, x across the mouth.

    Args:
        points_V3: The mesh.
        triangles_F3: Its triangles.
        upper: Vertices on the upper lip.
        lower: Vertices on the lower lip.
        corners: The vertices at the two corners.
        reach_m: Skin belongs to a lip up to this distance from `upper` and `lower`.
    """
    edges = face_edges(triangles_F3)
    from_upper, from_lower, from_corner = (
        edge_distance(points_V3, edges, starts, 3 * reach_m) for starts in (upper, lower, corners)
    )
    half_width = np.abs(points_V3[list(corners), 0]).min()
    labelled = (np.minimum(from_upper, from_lower) < reach_m) & (from_corner > CORNER_M)
    labelled &= np.abs(points_V3[:, 0]) < half_width
    # Infinity minus infinity is not a number, so the difference is only taken within reach.
    difference = np.subtract(from_lower, from_upper, out=np.zeros(len(points_V3)), where=labelled)
    return np.where(labelled, np.sign(difference), 0.0)


class Neighbours:
    """Approximate nearest points, by a hierarchy of boxes of which only the nearest are opened."""

    BOX, BOXES = 32, 12  # points per box, boxes of points opened
    GROUP, GROUPS = 16, 24  # boxes per larger box, larger boxes opened

    def __init__(self, points_V3: np.ndarray) -> None:
        low_3, extent = points_V3.min(0), max(float(np.ptp(points_V3, axis=0).max()), 1e-12)
        # Single precision halves the memory and is exact to a ten-millionth of the extent.
        self._to_unit = lambda here: ((here - low_3) / extent).astype(np.float32)
        grid = ((points_V3 - low_3) / extent * 1023).astype(np.int64)
        code = sum(((grid[:, c] >> bit) & 1) << (3 * bit + c) for bit in range(10) for c in range(3))
        order = np.argsort(code, kind="stable")
        order = np.concatenate([order, np.repeat(order[-1:], -len(order) % self.BOX)])
        self._members_BX = order.reshape(-1, self.BOX)
        self._points_B3X = np.ascontiguousarray(self._to_unit(points_V3)[self._members_BX].transpose(0, 2, 1))
        # Corners of the boxes, largest boxes first; those of one larger box lie together, (boxes, 3, GROUP).
        low_B3, high_B3 = self._points_B3X.min(2), self._points_B3X.max(2)
        self._levels: list[tuple[np.ndarray, np.ndarray]] = []
        while len(low_B3) > self.GROUP * self.GROUPS:
            low_B3G, high_B3G = self._grouped(low_B3, np.inf), self._grouped(high_B3, -np.inf)
            self._levels.insert(0, (low_B3G, high_B3G))
            low_B3, high_B3 = low_B3G.min(2), high_B3G.max(2)
        self._top = low_B3.T[None], high_B3.T[None]

    def _grouped(self, corners_B3: np.ndarray, beyond: float) -> np.ndarray:
        """Group the corners; the last group is filled with empty boxes."""
        missing = np.full((-len(corners_B3) % self.GROUP, 3), beyond, dtype=np.float32)
        together = np.concatenate([corners_B3, missing]).reshape(-1, self.GROUP, 3)
        return np.ascontiguousarray(together.transpose(0, 2, 1))

    def __call__(self, queries_Q3: np.ndarray, count: int) -> np.ndarray:
        """Numbers (Q, count) of near points, unordered; occasionally a farther point is returned for a nearer one."""
        unit_Q3 = self._to_unit(queries_Q3)
        found = [self._nearest(part, count) for part in np.array_split(unit_Q3, len(unit_Q3) // 500 + 1)]
        return np.concatenate(found)

    def _nearest(self, unit_Q3: np.ndarray, count: int) -> np.ndarray:
        boxes_QB = np.broadcast_to(np.arange(self._top[0].shape[2]), (len(unit_Q3), self._top[0].shape[2]))
        away_QB = _outside(unit_Q3[:, None], *self._top)[:, 0]
        for low_B3G, high_B3G in self._levels:
            opened_QB = np.take_along_axis(boxes_QB, _least(away_QB, self.GROUPS), 1)
            away_QB = _outside(unit_Q3[:, None], low_B3G[opened_QB], high_B3G[opened_QB]).reshape(len(unit_Q3), -1)
            boxes_QB = (opened_QB[:, :, None] * self.GROUP + np.arange(self.GROUP)).reshape(away_QB.shape)
        opened_QB = np.take_along_axis(boxes_QB, _least(away_QB, self.BOXES), 1)
        way_QB3X = self._points_B3X[opened_QB] - unit_Q3[:, None, :, None]
        distance = np.einsum("qbcx,qbcx->qbx", way_QB3X, way_QB3X).reshape(len(unit_Q3), -1)
        near = _least(distance, count)
        rows = np.arange(len(unit_Q3))[:, None]
        return self._members_BX[opened_QB[rows, near // self.BOX], near % self.BOX]


def _outside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Squared distance (..., boxes) of points (..., 3) from boxes (..., 3, boxes)."""
    off = np.maximum(low - points[..., None], points[..., None] - high)
    np.maximum(off, 0, out=off)
    return np.einsum("...cb,...cb->...b", off, off)


def _least(values_QC: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` smallest values of each row."""
    if values_QC.shape[1] <= count:
        return np.broadcast_to(np.arange(values_QC.shape[1]), values_QC.shape)
    return np.argpartition(values_QC, count - 1, axis=1)[:, :count]


class ClosestPoints:
    """Closest points on the triangles that face the same way and belong to the same lip."""

    def __init__(
        self,
        points_V3: np.ndarray,
        triangles_F3: np.ndarray,
        side_V: np.ndarray,
        candidates: int = 24,
        neighbours: Callable[[np.ndarray], Callable[[np.ndarray, int], np.ndarray]] = Neighbours,
    ):
        """`side_V` is from `lip_side`; `neighbours` makes the search for near triangle centres."""
        self.triangles_F3, self.candidates = triangles_F3, min(candidates, len(triangles_F3))
        self.corners_F33 = points_V3[triangles_F3]
        self.near = neighbours(self.corners_F33.mean(1))
        normal = np.cross(
            self.corners_F33[:, 1] - self.corners_F33[:, 0], self.corners_F33[:, 2] - self.corners_F33[:, 0]
        )
        self.normals_F3 = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-15)
        self.side_F = np.sign(side_V[triangles_F3].sum(1))

    def query(
        self, points_V3: np.ndarray, normals_V3: np.ndarray, side_V: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Points (V, 3), triangle numbers (V,), barycentric_V3, and whether an admissible triangle was found (V,)."""
        near = self.near(points_V3, self.candidates)
        corners = self.corners_F33[near]
        bary = closest_barycentric(points_V3[:, None], corners)
        on_surface = np.einsum("vnk,vnkc->vnc", bary, corners)
        way = on_surface - points_V3[:, None]
        distance = _dot(way, way)
        admissible = np.einsum("vnc,vc->vn", self.normals_F3[near], normals_V3) > 0.3
        admissible &= side_V[:, None] * self.side_F[near] >= 0
        distance = np.where(admissible, distance, np.inf)
        best, rows = distance.argmin(1), np.arange(len(points_V3))
        return on_surface[rows, best], near[rows, best], bary[rows, best], np.isfinite(distance[rows, best])


def closest_barycentric(point: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (..., 3) of the point of each triangle (..., 3, 3) closest to point (..., 3)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11, d20, d21 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac), _dot(ap, ab), _dot(ap, ac)
    determinant = np.maximum(d00 * d11 - d01 * d01, 1e-20)
    v, w = (d11 * d20 - d01 * d21) / determinant, (d00 * d21 - d01 * d20) / determinant
    best = np.stack([1 - v - w, v, w], -1)
    outside = (best < 0).any(-1)
    least = np.full(outside.shape, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):  # from outside, the closest point is on an edge
        p, q = corners[..., i, :], corners[..., j, :]
        along, off = q - p, p - point
        t = np.clip(-_dot(off, along) / np.maximum(_dot(along, along), 1e-20), 0, 1)
        off += t[..., None] * along
        distance = _dot(off, off)
        edge = np.zeros_like(best)
        edge[..., i], edge[..., j] = 1 - t, t
        take = outside & (distance < least)
        best, least = np.where(take[..., None], edge, best), np.where(take, distance, least)
    return best


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("...c,...c->...", a, b)
