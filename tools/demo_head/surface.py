# SPDX-License-Identifier: GPL-3.0-or-later
"""The skin: one quad grid around the head with ring patches for the mouth and the eyes.

Rows run from the crown to the neck, columns around the head (column 0 is the middle of the face). At the mouth and the
eyes a rectangle of cells is removed and filled with rings, from the rectangle to the lips (and on into the mouth) or
to the lid margins. Centimetres; the frame of ``sculpt``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import sculpt

Array = np.ndarray

HALF_COLUMNS = 28
N_COLUMNS = 2 * HALF_COLUMNS
MOUTH_COLUMNS = (-10, 10)
EYE_COLUMNS = (3, 12)
EYE_ROWS_Z = (2.2, -2.05)
MOUTH_ROWS_Z = (-4.3, -8.3)
MOUTH_HALF_WIDTH_CM = 2.45
N_CONTACT_RINGS = 4

# One line per guide: front (y, z), side (x, y, z), back (y, z), and spine (y, z), where the projection starts.
GUIDES = np.array(
    [
        [0.6, 12.2, 0.6, 0.8, 12.2, 1.0, 12.2, 0.8, 3.0],
        [-3.4, 11.4, 4.0, 0.9, 11.4, 5.0, 11.5, 0.8, 3.0],
        [-6.7, 8.8, 7.0, 1.0, 8.7, 8.4, 9.0, 0.8, 3.0],
        [-8.4, 5.2, 7.8, 1.0, 5.6, 10.2, 5.6, 0.8, 3.5],
        [-8.6, 2.2, 7.9, 1.0, 2.4, 10.4, 2.2, 0.8, 2.2],
        [-8.4, 0.0, 7.8, 0.8, 0.0, 10.0, 0.0, 0.8, 0.0],
        [-8.6, -3.1, 7.5, 0.6, -2.8, 8.7, -3.0, 0.8, -3.1],
        [-8.8, -6.3, 6.9, 0.3, -5.3, 7.2, -5.0, 0.6, -5.9],
        [-8.4, -9.0, 6.0, -0.2, -7.5, 6.3, -6.6, 0.0, -7.1],
        [-7.2, -10.35, 5.4, 0.0, -8.7, 5.9, -8.0, -1.5, -7.3],
        [-4.6, -10.5, 5.0, 0.5, -9.8, 5.7, -9.2, -1.0, -8.1],
        [-2.9, -11.4, 4.7, 0.9, -11.2, 5.7, -10.8, 0.8, -10.8],
        [-3.1, -14.5, 4.6, 1.2, -14.2, 5.8, -14.0, 1.2, -14.0],
        [-3.3, -18.5, 4.7, 1.4, -18.3, 6.0, -18.0, 1.3, -18.2],
    ]
)
FACE_ROWS_Z = np.concatenate(
    [
        [11.9, 11.3, 10.5, 9.6, 8.6, 7.6, 6.6, 5.6, 4.7, 4.0, 3.3, 2.75],
        np.linspace(2.2, -2.05, 7),
        [-2.45, -2.8, -3.15, -3.5, -3.88],
        np.linspace(-4.3, -8.3, 9),
        [-8.8, -9.3, -9.8],
    ]
)
NECK_ROWS_S = np.array([8.85, 9.25, 9.65, 10.1, 10.55, 11.0, 11.4, 11.8, 12.2, 12.6, 13.0])


@dataclass
class Skin:
    """The skin mesh, and its coordinates for the shape keys.

    Attributes:
        points: (V, 3) cm.
        quads: (F, 4) vertex indices, outward orientation.
        side: (V,) +1 upper lip side, -1 lower lip side, of mouth-patch vertices; 0 elsewhere.
        depth: (V,) cm behind the line where the lips touch, 0 outside the mouth.
        lid: (V,) 0 away from the eyes; 1 at the lid margins, falling to 0 at the patch's rim.
        lid_angle: (V,) angle around the eye (0 = outer corner, pi/2 = top), for lid > 0.
        region: (F,) int: 0 skin, 1 lips, 2 inner mouth, 3 lash line.
        mouth_rings: (R, N) vertex indices from the lips' border inwards.
        contact: index into ``mouth_rings`` of the ring where the lips touch.
        lid_margins: per eye (+1 left, -1 right) two rings (2, M): the lid's edge and its inner rim.
    """

    points: Array
    quads: Array
    side: Array
    depth: Array
    lid: Array
    lid_angle: Array
    region: Array
    mouth_rings: Array
    contact: int
    lid_margins: dict[int, Array]


def contact_pairs(skin: Skin) -> tuple[Array, Array]:
    """Vertices (R, N) of the upper and of the lower lip that touch, from corner to corner.

    The first row is the visible line between the lips, the others lie behind it.
    """
    rings = skin.mouth_rings[skin.contact : skin.contact + N_CONTACT_RINGS]
    n = rings.shape[1]
    return rings[:, : n // 2 + 1], np.concatenate([rings[:, :1], rings[:, : n // 2 - 1 : -1]], axis=1)


def smoothstep(low: float, high: float, value: Array | float) -> Array:
    """0 at ``low``, 1 at ``high`` (which may be smaller), smooth between."""
    t = np.clip((np.asarray(value, float) - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def catmull_rom(table: Array, s: Array) -> Array:
    """Interpolate the rows of ``table`` (K, C) at parameters ``s`` in 0..K-1."""
    i = np.clip(np.floor(s).astype(int), 0, len(table) - 2)
    f = (s - i)[:, None]
    p = [table[np.clip(i + o, 0, len(table) - 1)] for o in (-1, 0, 1, 2)]
    return p[1] + 0.5 * f * (
        p[2] - p[0] + f * (2 * p[0] - 5 * p[1] + 4 * p[2] - p[3] + f * (3 * (p[1] - p[2]) + p[3] - p[0]))
    )


def closure_z(x: Array) -> Array:
    """Height of the line where the closed lips touch."""
    t = np.clip(np.abs(x) / MOUTH_HALF_WIDTH_CM, 0.0, 1.6)
    return sculpt.MOUTH_Z_CM + 0.42 * t**2.1 - 0.08 * np.exp(-((x / 0.42) ** 2))


def grid_layout() -> tuple[Array, Array]:
    """Initial grid points (R, C, 3) and the directions (R, C, 3) of their projection."""
    s = np.linspace(0.0, 9.0, 2001)
    front_z = catmull_rom(GUIDES, s)[:, 1]
    rows_s = np.concatenate([np.interp(-FACE_ROWS_Z, -front_z, s), NECK_ROWS_S])
    g = catmull_rom(GUIDES, rows_s)[:, None, :]
    x_front = 0.5 * np.arange(13)
    theta = np.concatenate([np.arcsin(x_front / 7.8), np.linspace(np.arcsin(6.0 / 7.8), np.pi, 17)[1:]])
    theta = np.concatenate([theta[:-1], [np.pi], -theta[1:-1][::-1]])[None, :]
    a = np.abs(theta)
    to_side, to_back = smoothstep(0.75, 1.9, a), smoothstep(1.4, 2.9, a)
    z = (1 - to_back) * ((1 - to_side) * g[..., 1] + to_side * g[..., 4]) + to_back * g[..., 6]
    cos = np.cos(theta)
    y = g[..., 3] + np.where(cos > 0, (g[..., 0] - g[..., 3]) * cos, (g[..., 3] - g[..., 5]) * cos)
    x = g[..., 2] * np.sin(theta)
    points = np.stack([x, y, z], axis=-1)
    spine = np.stack([0 * x, g[..., 7] + 0 * x, g[..., 8] + 0 * x], axis=-1)
    outward = points - spine
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    # The front of the face is projected along y, so that x and z stay as designed.
    frontal = (1 - smoothstep(5.2, 7.0, np.abs(x))) * (cos > 0)
    frontal = frontal * smoothstep(7.0, 4.0, points[..., 2]) * smoothstep(-10.4, -9.0, points[..., 2])
    direction = (1 - frontal[..., None]) * outward + frontal[..., None] * np.array([0.0, -1.0, 0.0])
    return points, direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def block_loop(rows: tuple[int, int], columns: tuple[int, int]) -> list[tuple[int, int]]:
    """Grid positions around a block, from the middle of its +x side, over the top."""
    (top, bottom), (left, right) = rows, columns
    middle = (top + bottom) // 2
    loop = [(r, right) for r in range(middle, top, -1)] + [(top, c) for c in range(right, left, -1)]
    loop += [(r, left) for r in range(top, bottom)] + [(bottom, c) for c in range(left, right)]
    return loop + [(r, right) for r in range(bottom, middle, -1)]
