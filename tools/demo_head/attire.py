# SPDX-License-Identifier: GPL-3.0-or-later
"""Brows, lashes, hair and the jumper. Centimetres; the frame of ``sculpt``."""

from __future__ import annotations

import numpy as np

from . import sculpt
from .parts import Part, capped, join, named, tube_quads
from .skin import frontal_surface
from .surface import Skin, smoothstep

Array = np.ndarray


def brow() -> Part:
    """The character's left brow: a soft tapered roll on the brow ridge."""
    segments, rings = 10, 17
    t = np.linspace(0.0, 1.0, rings)
    x = 1.55 + 4.15 * t
    z = 2.95 + 0.95 * np.sin(np.pi * np.clip(t * 0.86 + 0.04, 0, 1)) - 0.25 * t
    on_face = frontal_surface(x, z)
    half_height = 0.31 * smoothstep(-0.25, 0.12, t) * (1 - 0.78 * smoothstep(0.45, 1.0, t))
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
    """A dark lash line on the upper lid, and the skin vertices (V,) that its vertices follow."""
    edge, inner = skin.lid_margins[side]
    upper = np.sin(skin.lid_angle[edge]) > -1e-6
    order = np.argsort(np.cos(skin.lid_angle[edge[upper]]))[::-1]
    row, inner_row = edge[upper][order], inner[upper][order]
    angle = skin.lid_angle[row]
    centre = sculpt.EYE_CENTRE_CM * np.array([side, 1, 1])
    p = skin.points[row]
    out = (p - centre) / np.linalg.norm(p - centre, axis=1, keepdims=True)
    # No lashes at the corners of the eye, where the lid's rim is visible from the front.
    taper = smoothstep(0.12, 0.95, angle) * smoothstep(3.0, 2.2, angle)
    length = taper * (0.16 + 0.20 * np.exp(-(((angle - 0.75) / 0.6) ** 2)))
    fan = np.stack([side * np.cos(angle), -0.2 + 0 * angle, 0.5 + 0.3 * np.sin(angle)], 1)
    tip = p + length[:, None] * (0.6 * out + 0.6 * fan)
    under = p + (0.45 * taper)[:, None] * (skin.points[inner_row] - p) - 0.03 * taper[:, None] * np.array([0, 0, 1.0])
    over = p + taper[:, None] * (0.04 * out + np.array([0, 0, 0.07]))
    points = np.stack([under, tip, over], 1).reshape(-1, 3)
    quads = tube_quads(len(row), 3)
    return Part(points, outward(points, quads), named("lash", len(quads)), "bound"), np.repeat(row, 3)


HAIR_CENTRE_CM = np.array([0.0, 1.0, 2.6])


def hair() -> Part:
    """A cap of broad clay-like locks that swirl from the crown into a fringe swept to one side."""
    columns, rings = 128, 24
    azimuth = 2 * np.pi * np.arange(columns) / columns  # 0 = front, pi/2 = the character's left
    turn = np.angle(np.exp(1j * azimuth))
    front, side = np.cos(azimuth), np.sin(azimuth)
    whorl = np.array([0.18, 0.40, 0.9]) / np.linalg.norm([0.18, 0.40, 0.9])
    # How far down the hair reaches, as an angle from straight up; the parting (at 24 degrees) is the highest point.
    knots = [-180, -150, -122, -100, -88, -74, -62, -45, -20, 5, 24, 40, 56, 66, 76, 88, 100, 122, 150, 180]
    degrees = [136, 133, 120, 94, 96, 106, 84, 68, 63, 57, 50, 60, 74, 92, 106, 96, 94, 120, 133, 136]
    reach = np.interp(turn, np.radians(knots), np.radians(degrees))
    around = np.concatenate([reach[-4:], reach, reach[:4]])
    reach = np.convolve(around, np.hanning(9)[1:-1] / np.hanning(9).sum(), "same")[4:-4]
    phase = azimuth * 15 / (2 * np.pi) + 0.22 * np.sin(2 * azimuth + 0.7) + 0.15 * np.sin(5 * azimuth)
    lean = np.where(turn < np.radians(24), 1.0, -1.0) * np.clip(np.abs(turn - np.radians(24)) * 3, 0, 1)

    def lock(shift: Array | float) -> Array:
        saw = (phase + shift) % 1.0
        peak = 0.5 - 0.22 * lean
        t = np.where(saw < peak, saw / peak, (1 - saw) / (1 - peak))
        return np.sin(0.5 * np.pi * t) ** 0.8

    tips = lock(0.0)
    reach = reach + np.radians(8.5) * (tips - 0.55)
    shells = []
    for t in np.linspace(0.02, 1.0, rings):
        phi = reach * t
        pull = (1 - t) ** 1.5
        d = np.stack([np.sin(phi) * side, -np.sin(phi) * front, np.cos(phi)], 1)
        d = (1 - pull) * d + pull * (whorl + 0.6 * d * t)
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        on_skin = sculpt.project_along(HAIR_CENTRE_CM + 9.5 * d, d, reach_cm=6.5)
        groove = (lock(0.55 * lean * (1 - t)) - 0.6) * 0.8 * smoothstep(0.2, 0.65, t)
        quiff = np.exp(-(((turn - np.radians(2)) / 0.75) ** 2)) * np.exp(-(((t - 0.62) / 0.3) ** 2))
        body = 1.25 + 0.9 * quiff + 0.25 * np.cos(phi) + groove
        thin = 0.22 + 0.78 * smoothstep(1.12, 0.62, t)
        shells.append(on_skin + (body * thin)[:, None] * d)
    cap = np.array(shells)
    shells.append(HAIR_CENTRE_CM + (shells[-1] - HAIR_CENTRE_CM) * 0.94)
    points, quads = capped(np.concatenate(shells), rings + 1, columns)
    whole = Part(points, outward(points, quads), named("hair", len(quads)))
    return join([whole, *(loose_lock(cap, *lock_row) for lock_row in LOCKS)])


# Locks on the cap: from (turn, t) to (turn, t), with turn in degrees to the character's left and t from crown to
# hairline; width, thickness, and lift of the tip in cm.
LOCKS = (
    (20, 0.30, -8, 1.05, 2.0, 1.00, 0.25),
    (17, 0.24, -30, 1.06, 2.3, 1.10, 0.30),
    (12, 0.20, -54, 1.03, 2.4, 1.10, 0.20),
    (4, 0.18, -78, 0.92, 2.3, 0.90, 0.10),
    (28, 0.30, 41, 1.07, 1.9, 0.90, 0.25),
    (31, 0.25, 60, 1.03, 2.2, 1.00, 0.20),
    (38, 0.22, 84, 0.92, 2.3, 0.90, 0.10),
    (175, 0.20, 118, 0.30, 1.5, 0.90, 2.10),
    (160, 0.15, 70, 0.19, 1.3, 0.80, 1.60),
)


def loose_lock(
    cap: Array, turn_a: float, t_a: float, turn_b: float, t_b: float, width: float, thick: float, lift: float
) -> Part:
    """One tapered lock along a path on the hair cap (R, C, 3)."""
    rings, segments = 16, 12
    s = np.linspace(0.0, 1.0, rings)
    turn = np.radians(turn_a + (turn_b - turn_a) * s**0.8) % (2 * np.pi)
    row = (t_a + (t_b - t_a) * s**1.1) * (len(cap) - 1)
    column = turn / (2 * np.pi) * cap.shape[1]
    r0, c0 = np.clip(np.floor(row).astype(int), 0, len(cap) - 2), np.floor(column).astype(int)
    fr, fc = (row - r0)[:, None], (column - c0)[:, None]
    c0, c1 = c0 % cap.shape[1], (c0 + 1) % cap.shape[1]
    path = (1 - fr) * ((1 - fc) * cap[r0, c0] + fc * cap[r0, c1]) + fr * (
        (1 - fc) * cap[r0 + 1, c0] + fc * cap[r0 + 1, c1]
    )
    for _ in range(6):  # the cap's grooves would make the lock wobble
        path[1:-1] = 0.5 * path[1:-1] + 0.25 * (path[:-2] + path[2:])
    out = path - HAIR_CENTRE_CM
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    path = path + out * (0.10 + lift * s**2)[:, None]
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.cross(along, out)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    taper = np.sin(np.pi * (0.06 + 0.92 * s**0.75)) ** 0.7
    phi = 2 * np.pi * np.arange(segments) / segments
    points = path[:, None] + taper[:, None, None] * (
        0.5 * width * np.cos(phi)[:, None] * across[:, None]
        + 0.5 * thick * np.sin(phi)[:, None] * np.cross(across, along)[:, None]
    )
    points, quads = capped(points.reshape(-1, 3), rings, segments)
    return Part(points, outward(points, quads), named("hair", len(quads)))


JUMPER = (
    # half width, front y, back y, z: from inside the collar over its roll to the shoulders and down
    (4.1, -3.0, 5.9, -14.7), (4.3, -3.4, 6.2, -12.8), (4.75, -3.9, 6.6, -12.3), (5.3, -4.4, 7.0, -12.5),
    (5.55, -4.6, 7.2, -13.3), (5.5, -4.5, 7.2, -14.1), (6.0, -4.8, 7.5, -14.6), (7.8, -5.5, 8.0, -15.2),
    (10.2, -6.2, 8.3, -16.1), (12.5, -6.8, 8.5, -17.5), (14.1, -7.2, 8.6, -19.7), (14.9, -7.5, 8.6, -22.7),
    (15.2, -7.7, 8.4, -26.3), (15.2, -7.8, 8.2, -29.1), (14.6, -7.4, 8.0, -29.7),
)  # fmt: skip


def jumper() -> Part:
    """Shoulders in a knitted jumper with a rolled collar."""
    segments = 48
    phi = 2 * np.pi * np.arange(segments) / segments
    rings = []
    for w, front, back, z in JUMPER:
        power = 1.0 - 0.22 * smoothstep(6.0, 12.0, w)
        cos, sin = np.cos(phi), np.sin(phi)
        x = w * np.sign(sin) * np.abs(sin) ** power
        y = (front + back) / 2 - (back - front) / 2 * np.sign(cos) * np.abs(cos) ** power
        # Collar and shoulders are lower at the chest and higher at the nape.
        drop = np.interp(w, [4, 6, 12.5, 14.5], [1.0, 1.0, 0.4, 0.0])
        rings.append(np.stack([x, y, z - 0.75 * drop * cos], 1))
    points, quads = capped(np.concatenate(rings), len(JUMPER), segments)
    return Part(points, outward(points, quads), named("jumper", len(quads)))
