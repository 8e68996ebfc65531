# SPDX-License-Identifier: GPL-3.0-or-later
"""Brows, lashes, hair and the jumper. Centimetres; the frame of ``sculpt``."""

from __future__ import annotations

import numpy as np

from . import sculpt
from .parts import Part, capped, named, tube_quads
from .skin import frontal_surface
from .surface import Skin, smoothstep

Array = np.ndarray


def brow() -> Part:
    """The character's left brow: a soft tapered roll on the brow ridge."""
    segments, rings = 10, 17
    t = np.linspace(0.0, 1.0, rings)
    x = 1.55 + 4.15 * t
    z = 2.55 + 0.95 * np.sin(np.pi * np.clip(t * 0.86 + 0.04, 0, 1)) - 0.25 * t
    on_face = frontal_surface(x, z)
    half_height = 0.36 * smoothstep(-0.25, 0.12, t) * (1 - 0.78 * smoothstep(0.45, 1.0, t))
    half_depth = 0.20 * smoothstep(-0.35, 0.15, t) * (1 - 0.7 * smoothstep(0.5, 1.0, t))
    phi = 2 * np.pi * np.arange(segments) / segments
    normal = sculpt.gradient(on_face)
    tangent = np.gradient(on_face, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.cross(normal, tangent)
    offset = (half_height[:, None, None] * np.cos(phi)[:, None] * across[:, None]
              + half_depth[:, None, None] * np.sin(phi)[:, None] * normal[:, None])  # fmt: skip
    points = on_face[:, None] + 0.04 * normal[:, None] + offset
    points, quads = capped(points.reshape(-1, 3), rings, segments)
    return Part(points, outward(points, quads), named("brow", len(quads)), "follow")


def outward(points: Array, quads: Array) -> Array:
    """Flip all quads of a closed island if its volume is negative."""
    a, b, c, d = (points[quads[:, k]] for k in range(4))
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) + np.einsum("ij,ij->", a, np.cross(c, d))
    return quads if volume > 0 else quads[:, ::-1]


def lashes(skin: Skin, side: int) -> tuple[Part, Array]:
    """A dark lash line on the upper lid; also the skin vertices (V,) that its vertices follow."""
    edge = skin.lid_margins[side][0]
    psi = skin.lid_angle[edge]
    upper = np.sin(psi) > -1e-6
    order = np.argsort(psi[upper])
    row = edge[upper][order]
    angle = psi[row[0]] if len(row) == 0 else skin.lid_angle[row]
    centre = sculpt.EYE_CENTRE_CM * np.array([side, 1, 1])
    p = skin.points[row]
    out = (p - centre) / np.linalg.norm(p - centre, axis=1, keepdims=True)
    fan = np.stack([side * np.cos(angle), -0.15 + 0 * angle, 0.55 + 0.45 * np.sin(angle)], 1)
    length = 0.30 * np.sin(np.clip(angle * 0.9 + 0.32, 0, np.pi)) ** 1.2 + 0.12 * np.exp(-((angle - 0.5) / 0.35) ** 2)
    length *= smoothstep(np.pi, 2.6, angle) * 0.9 + 0.1
    tip = p + length[:, None] * (0.55 * out + 0.5 * fan) + 0.03 * out
    rows = np.stack([p * 1.0 + 0.035 * out - np.array([0, 0, 0.05]), tip, p + 0.05 * out + np.array([0, 0, 0.10])], 1)
    points = rows.reshape(-1, 3)
    quads = tube_quads(len(row), 3)
    return Part(points, outward(points, quads), named("lash", len(quads)), "bound"), np.repeat(row, 3)


HAIR_CENTRE_CM = np.array([0.0, 1.0, 2.6])


def hair() -> Part:
    """A cap of broad clay-like locks that swirl from the crown, with a swept fringe."""
    columns, rings = 112, 20
    azimuth = 2 * np.pi * np.arange(columns) / columns  # 0 = front, pi/2 = the character's left
    whorl = np.array([-0.12, 0.42, 0.9])
    whorl /= np.linalg.norm(whorl)
    front = np.cos(azimuth)
    side = np.sin(azimuth)
    # How far down the hair reaches, as an angle from straight up.
    reach = np.interp(np.abs(np.angle(np.exp(1j * azimuth))),
                      np.radians([0, 25, 48, 62, 80, 96, 118, 150, 180]),
                      np.radians([56, 58, 66, 84, 93, 88, 118, 134, 137]))  # fmt: skip
    locks = 11.0
    swirl = azimuth * locks + 0.9 * np.sin(azimuth) + 1.0
    saw = (swirl / np.pi) % 1.0
    lock_shape = 1.0 - np.abs(2 * saw - 1.0) ** 2.2
    reach = reach + np.radians(6.0) * (lock_shape - 0.6) * np.where(front > 0.2, 1.2, 0.8) - 0.06 * side * (front > 0)
    points = []
    for k, t in enumerate(np.linspace(0.02, 1.0, rings)):
        phi = reach * t
        tilt = (1 - t) ** 1.5
        d = np.stack([np.sin(phi) * side, -np.sin(phi) * front, np.cos(phi)], 1)
        d = (1 - tilt) * d + tilt * (whorl + 0.6 * d * t)
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        skin_point = sculpt.project_along(HAIR_CENTRE_CM + 9.5 * d, d, reach_cm=6.5)
        groove = ((np.roll(lock_shape, 0)) - 0.55) * 0.55 * smoothstep(0.15, 0.7, t)
        body = 1.05 + 0.55 * smoothstep(0.3, 0.9, t) * smoothstep(0.1, 0.9, front) + 0.25 * np.cos(phi)
        body = body + groove
        rim = smoothstep(1.02, 0.93, t)
        points.append(skin_point + (body * (0.25 + 0.75 * rim))[:, None] * d)
    last = points[-1] - HAIR_CENTRE_CM
    points.append(HAIR_CENTRE_CM + last * 0.93)
    points = np.concatenate(points)
    points, quads = capped(points, rings + 1, columns)
    return Part(points, outward(points, quads), named("hair", len(quads)))


JUMPER = (
    # half width, front y, back y, z: from inside the collar over its roll to the shoulders and down
    (4.3, -3.4, 6.2, -17.2), (4.45, -3.7, 6.4, -15.4), (4.85, -4.1, 6.7, -14.9), (5.4, -4.6, 7.1, -15.1),
    (5.65, -4.8, 7.3, -15.9), (5.6, -4.7, 7.3, -16.7), (6.2, -5.0, 7.6, -17.2), (8.4, -5.8, 8.2, -17.9),
    (11.4, -6.6, 8.6, -18.9), (14.2, -7.2, 8.8, -20.4), (16.0, -7.6, 8.9, -22.6), (16.9, -7.8, 8.8, -25.5),
    (17.2, -8.0, 8.6, -29.0), (17.2, -8.1, 8.4, -32.0), (16.6, -7.8, 8.2, -32.6),
)  # fmt: skip


def jumper() -> Part:
    """Shoulders in a knitted jumper with a rolled collar."""
    segments = 48
    phi = 2 * np.pi * np.arange(segments) / segments
    rings = []
    for w, front, back, z in JUMPER:
        power = 1.0 - 0.22 * smoothstep(6.0, 14.0, w)
        cos, sin = np.cos(phi), np.sin(phi)
        x = w * np.sign(sin) * np.abs(sin) ** power
        y = (front + back) / 2 - (back - front) / 2 * np.sign(cos) * np.abs(cos) ** power
        # The collar and the shoulders fall towards the chest and rise at the nape.
        drop = np.interp(w, [4, 6, 14, 17], [1.0, 1.0, 0.4, 0.0])
        rings.append(np.stack([x, y, z - 0.75 * drop * cos], 1))
    points, quads = capped(np.concatenate(rings), len(JUMPER), segments)
    return Part(points, outward(points, quads), named("jumper", len(quads)))
