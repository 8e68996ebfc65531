# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the skin mesh: the grid of ``surface``, the mouth patch, the two eye patches. Centimetres."""

from __future__ import annotations

import numpy as np

from . import sculpt
from .surface import (
    EYE_COLUMNS,
    EYE_ROWS_Z,
    FACE_ROWS_Z,
    MOUTH_COLUMNS,
    MOUTH_HALF_WIDTH_CM,
    MOUTH_ROWS_Z,
    N_COLUMNS,
    Skin,
    block_loop,
    closure_z,
    grid_layout,
)

Array = np.ndarray
FORWARD = np.array([0.0, -1.0, 0.0])

# How far out from the contact line each lip ring lies (1 = the border of the red), and its bulge in cm.
LIP_RADII = (1.4, 1.0, 0.74, 0.46, 0.2, 0.0)
UPPER_BULGE_CM = (0.02, 0.12, 0.27, 0.34, 0.28, 0.06)
LOWER_BULGE_CM = (-0.04, 0.10, 0.36, 0.46, 0.36, 0.06)
CONTACT_DEPTHS_CM = (0.28, 0.6, 0.95)
# Inner mouth rings: depth behind the contact line, half height, half width, in cm.
BAG = ((1.15, 0.9, 2.75), (1.3, 1.75, 3.05), (3.2, 1.95, 2.9), (4.8, 1.7, 2.4), (6.0, 1.1, 1.7), (6.4, 0.45, 0.7))


class MeshBuilder:
    """Collects vertices and quads."""

    def __init__(self) -> None:
        self.points: list[Array] = []
        self.quads: list[Array] = []
        self.region: list[Array] = []
        self.count = 0

    def add(self, points: Array) -> Array:
        """Append points (N, 3); returns their indices."""
        self.points.append(points)
        self.count += len(points)
        return np.arange(self.count - len(points), self.count)

    def bridge(self, outer: Array, inner: Array, region: Array | int = 0) -> None:
        """Quads between two closed rings of equal length, counter-clockwise seen from outside."""
        nxt = np.roll(np.arange(len(outer)), -1)
        self.quads.append(np.stack([outer, outer[nxt], inner[nxt], inner], axis=1))
        self.region.append(np.broadcast_to(region, len(outer)).astype(np.int8))

    def cap(self, ring: Array, region: int = 0) -> None:
        """Close a ring of even length with quads around a new centre vertex."""
        centre = self.add(np.concatenate(self.points)[ring].mean(axis=0, keepdims=True))
        a = ring[0::2]
        quads = np.stack([a, ring[1::2], np.roll(a, -1), np.broadcast_to(centre, len(a))], axis=1)
        self.quads.append(quads)
        self.region.append(np.full(len(quads), region, np.int8))


def frontal_surface(x: Array, z: Array) -> Array:
    """Points on the sculpted face at given x and z, projected from the front."""
    start = np.stack([x, np.full_like(x, -8.0), z], axis=-1)
    return sculpt.project_along(start, np.broadcast_to(FORWARD, start.shape), reach_cm=5.5, samples=111)


def lip_height(nu: Array, x: Array) -> Array:
    """Height of the red above (or below) the contact line, cm."""
    sin = np.abs(np.sin(nu))
    bow = 1.0 - 0.2 * np.exp(-((x / 0.3) ** 2)) + 0.08 * np.exp(-(((np.abs(x) - 0.62) / 0.4) ** 2))
    return np.where(np.sin(nu) >= 0, 0.70 * sin**0.95 * bow, 0.95 * sin**0.8)


def lip_ring(nu: Array, radius: float, upper_cm: float, lower_cm: float) -> Array:
    """One ring of the lips, (N, 3)."""
    x = (MOUTH_HALF_WIDTH_CM + 0.13 * radius) * np.cos(nu)
    sign = np.sign(np.round(np.sin(nu), 9))
    z = closure_z(x) + sign * lip_height(nu, x) * radius
    points = frontal_surface(x, z)
    fade = np.abs(np.sin(nu)) ** 0.55
    bulge = np.where(sign >= 0, upper_cm, lower_cm) * fade - 0.2 * (1 - fade) * (1 - 0.6 * min(radius, 1.0))
    points[:, 1] -= bulge
    return points


def inner_mouth_rings(nu: Array, contact: Array) -> list[Array]:
    """The rings behind the contact line: first where the lips touch, then the mouth's bag."""
    rings = []
    for depth in CONTACT_DEPTHS_CM:
        ring = contact + np.array([0.0, depth, 0.0])
        ring[:, 0] *= 1.0 - 0.05 * depth
        rings.append(ring)
    middle_y = contact[np.argmin(np.abs(nu - np.pi / 2)), 1]
    for depth, height, width in BAG:
        x = width * np.cos(nu)
        y = middle_y + depth + 0.13 * x * x * (1.0 if depth < 4 else 0.4)
        z = sculpt.MOUTH_Z_CM + 0.1 + height * np.sin(nu)
        rings.append(np.stack([x, y, z], axis=1))
    return rings


def lid_margin(psi: Array, side: int) -> Array:
    """The lid's edge around one eye; psi 0 = outer corner, pi/2 = top."""
    cos, sin = np.cos(psi), np.sin(psi)
    x = 1.77 * cos
    z = np.where(sin >= 0, 1.10 * np.abs(sin) ** 0.9, -0.82 * np.abs(sin) ** 0.95) + 0.07 * cos - 0.02
    y = -np.sqrt(np.maximum(sculpt.LID_RADIUS_CM**2 - x * x - z * z, 0.1))
    centre = sculpt.EYE_CENTRE_CM * np.array([side, 1.0, 1.0])
    return centre + np.stack([side * x, y, z], axis=1)


def row_near(z: float) -> int:
    """Grid row whose height in the face is ``z``."""
    return int(np.argmin(np.abs(FACE_ROWS_Z - z)))


def build_skin() -> Skin:
    """The whole skin with its attributes."""
    layout, direction = grid_layout()
    n_rows = layout.shape[0]
    mouth_rows = (row_near(MOUTH_ROWS_Z[0]), row_near(MOUTH_ROWS_Z[1]))
    eye_rows = (row_near(EYE_ROWS_Z[0]), row_near(EYE_ROWS_Z[1]))
    blocks = [(mouth_rows, MOUTH_COLUMNS), (eye_rows, EYE_COLUMNS), (eye_rows, (-EYE_COLUMNS[1], -EYE_COLUMNS[0]))]

    keep_point = np.ones((n_rows, N_COLUMNS), bool)
    keep_cell = np.ones((n_rows - 1, N_COLUMNS), bool)
    for (top, bottom), (left, right) in blocks:
        keep_point[top + 1 : bottom, (np.arange(left + 1, right)) % N_COLUMNS] = False
        keep_cell[top:bottom, np.arange(left, right) % N_COLUMNS] = False

    projected = sculpt.project_along(layout.reshape(-1, 3), direction.reshape(-1, 3)).reshape(layout.shape)
    mesh = MeshBuilder()
    ids = np.full((n_rows, N_COLUMNS), -1)
    ids[keep_point] = mesh.add(projected[keep_point])
    r, c = np.nonzero(keep_cell)
    right_c = (c + 1) % N_COLUMNS
    mesh.quads.append(np.stack([ids[r, c], ids[r + 1, c], ids[r + 1, right_c], ids[r, right_c]], axis=1))
    mesh.region.append(np.zeros(len(r), np.int8))
    mesh.cap(ids[0][::-1])
    loops = [np.array([ids[a, b % N_COLUMNS] for a, b in block_loop(rows, cols)]) for rows, cols in blocks]
    fixed_grid = np.concatenate([ids[0], ids[-1]])

    rings, contact, mouth_free = add_mouth(mesh, loops[0])
    eyes = [add_eye(mesh, loops[1], 1), add_eye(mesh, loops[2], -1)]
    return finish(mesh, rings, contact, mouth_free, eyes, fixed_grid, ids[keep_point])


def add_mouth(mesh: MeshBuilder, loop: Array) -> tuple[Array, int, list[Array]]:
    """Fill the mouth block; returns rings from the lips' border inwards, the contact ring's row, free rings."""
    n = len(loop)
    nu = 2 * np.pi * np.arange(n) / n
    lips = [lip_ring(nu, *abc) for abc in zip(LIP_RADII, UPPER_BULGE_CM, LOWER_BULGE_CM, strict=True)]
    boundary = np.concatenate(mesh.points)[loop]
    previous, free = loop, []
    for t in (0.33, 0.67):
        xz = (1 - t) * boundary + t * lips[0]
        ring = mesh.add(frontal_surface(xz[:, 0], xz[:, 2]))
        mesh.bridge(previous, ring)
        previous = ring
        free.append(ring)
    rings = []
    inner = inner_mouth_rings(nu, lips[-1])
    for k, points in enumerate(lips + inner):
        ring = mesh.add(points)
        mesh.bridge(previous, ring, 0 if k < 2 else 1 if k < len(lips) + 2 else 2)
        previous = ring
        rings.append(ring)
    mesh.cap(previous, 2)
    return np.array(rings), len(lips) - 1, free


def add_eye(mesh: MeshBuilder, loop: Array, side: int) -> tuple[list[Array], Array, Array]:
    """Fill one eye block; returns free rings, the margin and the angles around the eye."""
    n = len(loop)
    nu = 2 * np.pi * np.arange(n) / n
    psi = nu if side > 0 else np.pi - nu
    margin = lid_margin(psi, side)
    boundary = np.concatenate(mesh.points)[loop]
    previous, free = loop, []
    for t in (0.24, 0.45, 0.64, 0.83):
        xz = (1 - t) * boundary + t * margin
        ring = mesh.add(frontal_surface(xz[:, 0], xz[:, 2]))
        mesh.bridge(previous, ring)
        previous = ring
        free.append(ring)
    edge = mesh.add(margin)
    mesh.bridge(previous, edge)
    centre = sculpt.EYE_CENTRE_CM * np.array([side, 1.0, 1.0])
    inside = mesh.add(centre + (margin - centre) * (0.985 * sculpt.EYE_RADIUS_CM / sculpt.LID_RADIUS_CM))
    upper = np.sin(psi + 0.5 * (psi[1] - psi[0])) > 0.3
    mesh.bridge(edge, inside, np.where(upper, 3, 0))
    return free, np.stack([edge, inside]), psi


def relax(points: Array, quads: Array, free: Array, steps: int = 12) -> Array:
    """Even out free vertices along the sculpted surface."""
    edges = np.concatenate([quads[:, [a, (a + 1) % 4]] for a in range(4)])
    degree = np.bincount(edges[:, 0], minlength=len(points)) + np.bincount(edges[:, 1], minlength=len(points))
    for _ in range(steps):
        total = np.zeros_like(points)
        np.add.at(total, edges[:, 0], points[edges[:, 1]])
        np.add.at(total, edges[:, 1], points[edges[:, 0]])
        average = total / np.maximum(degree, 1)[:, None]
        points = points.copy()
        points[free] += 0.5 * (average - points)[free]
        points[free] = sculpt.settle(points[free], 2)
    points[free] = sculpt.settle(points[free], 4)
    return points


def finish(
    mesh: MeshBuilder,
    rings: Array,
    contact: int,
    mouth_free: list[Array],
    eyes: list[tuple[list[Array], Array, Array]],
    fixed: Array,
    grid_ids: Array,
) -> Skin:
    """Relax the free vertices and store the attributes."""
    points, quads = np.concatenate(mesh.points), np.concatenate(mesh.quads)
    free = np.zeros(len(points), bool)
    free[grid_ids] = True
    for ring in mouth_free + eyes[0][0] + eyes[1][0]:
        free[ring] = True
    free[fixed] = False
    points = relax(points, quads, np.nonzero(free)[0])
    side, depth = np.zeros(len(points)), np.zeros(len(points))
    lid, lid_angle = np.zeros(len(points)), np.zeros(len(points))
    n = rings.shape[1]
    sign = np.sign(np.round(np.sin(2 * np.pi * np.arange(n) / n), 9))
    side[rings] = sign
    side[np.array(mouth_free)] = sign
    depths = np.concatenate([CONTACT_DEPTHS_CM, [b[0] for b in BAG]])
    depth[rings[contact + 1 :]] = depths[:, None]
    depth[rings[-1].max() + 1] = depths[-1] + 0.1
    margins = {}
    for which, (rings_free, edge, psi) in zip((1, -1), eyes, strict=True):
        for ring, t in zip(rings_free + [edge[0], edge[1]], (0.24, 0.45, 0.64, 0.83, 1.0, 1.0), strict=True):
            lid[ring], lid_angle[ring] = t, psi
        margins[which] = edge
    region = np.concatenate(mesh.region)
    return Skin(points, quads, side, depth, lid, lid_angle, region, rings, contact, margins)
