# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that are not skin: eyes, teeth, gums, tongue, ears. Centimetres; the frame of ``sculpt``.

Every builder returns a ``Part``. ``motion`` says what its vertices do under the shape keys (see ``keys.extend``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import sculpt
from .surface import smoothstep

Array = np.ndarray


@dataclass
class Part:
    """One island of the mesh.

    Attributes:
        points: (V, 3) cm.
        quads: (F, 4).
        materials: (F,) names.
        motion: "static", "eye_left", "eye_right", "jaw", "tongue" or "follow" (the nearest skin).
    """

    points: Array
    quads: Array
    materials: Array
    motion: str = "static"

    def mirrored(self, motion: str | None = None) -> Part:
        """The same part on the other side of the face."""
        points = self.points * np.array([-1.0, 1.0, 1.0])
        return Part(points, self.quads[:, ::-1], self.materials, motion or self.motion)


def tube_quads(rings: int, segments: int, *, closed: bool = True) -> Array:
    """Quads of ``rings`` consecutive rings (or open strips) of ``segments`` vertices."""
    r, s = np.meshgrid(np.arange(rings - 1), np.arange(segments if closed else segments - 1), indexing="ij")
    a = (r * segments + s).ravel()
    b = (r * segments + (s + 1) % segments).ravel()
    return np.stack([a, b, b + segments, a + segments], axis=1)


def capped(points: Array, rings: int, segments: int) -> tuple[Array, Array]:
    """Close both ends of a tube with quads around a centre vertex; even ``segments``."""
    quads = [tube_quads(rings, segments)]
    last = (rings - 1) * segments
    points = np.concatenate([points, points[:segments].mean(0)[None], points[last:].mean(0)[None]])
    i = np.arange(0, segments, 2)
    j, k = (i + 1) % segments, (i + 2) % segments
    quads.append(np.stack([k, j, i, np.full_like(i, rings * segments)], axis=1))
    quads.append(np.stack([i + last, j + last, k + last, np.full_like(i, rings * segments + 1)], axis=1))
    return points, np.concatenate(quads)


def join(parts: list[Part]) -> Part:
    """Several islands with the same motion as one part."""
    offsets = np.cumsum([0] + [len(p.points) for p in parts[:-1]])
    quads = np.concatenate([p.quads + o for p, o in zip(parts, offsets, strict=True)])
    points = np.concatenate([p.points for p in parts])
    return Part(points, quads, np.concatenate([p.materials for p in parts]), parts[0].motion)


def named(name: str, count: int) -> Array:
    """A column of ``count`` equal material names."""
    return np.full(count, name, dtype="U16")


def eyeball() -> Part:
    """The character's left eye: a ball whose rings are the borders of the pupil, the iris and its dark rim."""
    degrees = np.array([3.5, 8.5, 13.0, 13.7, 17.0, 21.0, 24.5, 26.4, 28.4, 29.6, 35.0, 45.0, 57.0, 72.0, 90.0, 110.0])
    segments = 32
    phi = 2 * np.pi * np.arange(segments) / segments
    t = np.radians(degrees)[:, None]
    ball = np.stack([np.sin(t) * np.cos(phi), -np.cos(t) + 0 * phi, np.sin(t) * np.sin(phi)], axis=-1)
    # The cornea: the front stands out slightly and catches its own light.
    ball *= (1.0 + 0.014 * smoothstep(34.0, 8.0, degrees))[:, None, None]
    points, quads = capped(ball.reshape(-1, 3) * sculpt.EYE_RADIUS_CM, len(degrees), segments)
    ring = quads[:, :].min(axis=1) // segments
    names = np.array(["pupil", "iris", "limbus", "sclera"], "U16")[np.searchsorted([2, 7, 9], ring, side="right")]
    caps = len(degrees) * segments
    names[(quads == caps).any(1)] = "pupil"
    names[(quads == caps + 1).any(1)] = "sclera"
    # Both eyes look at a point 1.5 m ahead, because parallel eyes seem to stare past the viewer.
    toe_in = np.radians(1.6)
    c, s = np.cos(toe_in), np.sin(toe_in)
    points = points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    return Part(points + sculpt.EYE_CENTRE_CM, quads, names, "eye_left")


def catch_lights() -> Part:
    """Two small bright discs in front of each eye, which stay when the eye turns."""
    parts = []
    for side in (1, -1):
        for right, up, size in ((0.26, 0.30, 0.165), (-0.24, -0.27, 0.075)):
            phi = 2 * np.pi * np.arange(12) / 12
            rings = [np.stack([right + size * f * np.cos(phi), up + size * f * np.sin(phi)], 1) for f in (1, 0.55)]
            xz = np.concatenate(rings) * sculpt.EYE_RADIUS_CM * 0.9
            radius = sculpt.EYE_RADIUS_CM * 1.021
            y = -np.sqrt(radius**2 - (xz**2).sum(1))
            points = np.stack([xz[:, 0], y, xz[:, 1]], 1)
            points, quads = capped(points, 2, 12)
            keep = ~(quads == 24).any(1)
            points += sculpt.EYE_CENTRE_CM * np.array([side, 1, 1])
            parts.append(Part(points, quads[keep], named("catch_light", keep.sum())))
    return join(parts)


TEETH_CM = {
    "upper": ((0.86, 0.68, 0.74, 0.68, 0.66, 0.86), (0.98, 0.90, 0.98, 0.86, 0.80, 0.72)),
    "lower": ((0.52, 0.56, 0.64, 0.66, 0.68, 0.86), (0.84, 0.84, 0.88, 0.80, 0.76, 0.70)),
}


def arch_point(arc: Array, front_y: float, curve: float) -> tuple[Array, Array]:
    """Point (N, 2) and outward normal (N, 2) in x, y at arc lengths along the dental arch."""
    x = np.linspace(-2.6, 2.6, 801)
    y = front_y + curve * np.abs(x) ** 2.3
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    length -= length[400]
    px, py = np.interp(arc, length, x), np.interp(arc, length, y)
    slope = curve * 2.3 * np.sign(px) * np.abs(px) ** 1.3
    normal = np.stack([slope, -np.ones_like(slope)], 1)
    return np.stack([px, py], 1), normal / np.linalg.norm(normal, axis=1, keepdims=True)


def dental_arch(which: str, front_y: float) -> Part:
    """Teeth and gum of one jaw; the teeth are separate rounded blocks on a pink band."""
    widths, heights = TEETH_CM[which]
    up = 1.0 if which == "upper" else -1.0
    edge_z = sculpt.MOUTH_Z_CM + (-0.16 if which == "upper" else -0.02)
    front_y, curve = (front_y, 0.21) if which == "upper" else (front_y + 0.27, 0.24)
    parts = []
    for sign in (1, -1):
        start = 0.0
        for width, height in zip(widths, heights, strict=True):
            parts.append(tooth(sign * (start + width / 2), width, height, edge_z, up, front_y, curve))
            start += width
    arc = np.linspace(-sum(widths), sum(widths), 41)
    xy, normal = arch_point(arc, front_y, curve)
    band = []
    for out, z in ((-0.5, 0.55), (-0.06, 0.62), (0.04, 0.80), (0.10, 1.05), (0.06, 1.5), (-0.7, 1.6), (-0.75, 0.6)):
        scallop = 0.05 * np.cos(2 * np.pi * arc / 0.7) if z < 0.85 else 0.0
        band.append(np.column_stack([xy + out * normal, edge_z + up * (z + scallop + 0 * arc)]))
    points = np.stack(band, axis=1).reshape(-1, 3)
    points, quads = capped(points, len(arc), len(band)) if len(band) % 2 == 0 else (points, tube_quads(41, len(band)))
    if up > 0:
        quads = quads[:, ::-1]
    gum = Part(points, quads, named("gum", len(quads)))
    arch = join([*parts, gum])
    arch.motion = "static" if which == "upper" else "jaw"
    return arch


def tooth(arc: float, width: float, height: float, edge_z: float, up: float, front_y: float, curve: float) -> Part:
    """One rounded block: a tube of five rings from the edge to the gum."""
    phi = 2 * np.pi * np.arange(12) / 12
    cos, sin = np.cos(phi), np.sin(phi)
    along = np.sign(cos) * np.abs(cos) ** 0.55
    across = np.sign(sin) * np.abs(sin) ** 0.7
    xy, normal = arch_point(np.array([arc]), front_y, curve)
    tangent = np.array([-normal[0, 1], normal[0, 0]])
    rings = []
    for z, w, t in ((0.0, 0.86, 0.4), (0.05, 0.96, 0.75), (0.3, 1.0, 1.0), (0.65, 0.96, 1.1), (1.0, 0.8, 1.0)):
        flat = xy[0] + 0.485 * width * w * along[:, None] * tangent + 0.25 * (t * across - 0.8)[:, None] * normal[0]
        rings.append(np.column_stack([flat, np.full(12, edge_z + up * z * height)]))
    points, quads = capped(np.concatenate(rings), 5, 12)
    outward = quads if up > 0 else quads[:, ::-1]
    return Part(points, outward, named("teeth", len(quads)))


def tongue(front_y: float) -> Part:
    """A broad soft tongue lying in the lower jaw."""
    length, rings, segments = 5.2, 12, 20
    phi = 2 * np.pi * np.arange(segments) / segments
    parts = []
    for t in np.linspace(0.0, 1.0, rings) ** 1.15:
        grow = np.sqrt(np.clip(1 - (1 - min(t / 0.26, 1.0)) ** 2, 0, 1))
        half_width, half_height = 0.30 + 1.22 * grow, 0.12 + 0.40 * grow
        x = half_width * np.cos(phi)
        groove = 0.14 * np.exp(-((x / 0.28) ** 2)) * (np.sin(phi) > 0) * grow
        z = half_height * np.sin(phi) - groove + 0.35 * np.sin(np.pi * min(t * 1.1, 1.0)) - 0.5 * t * t
        y = front_y + 0.75 + length * t
        parts.append(np.column_stack([x, np.full(segments, y), z + sculpt.MOUTH_Z_CM - 0.62]))
    points, quads = capped(np.concatenate(parts), rings, segments)
    return Part(points, quads[:, ::-1], named("tongue", len(quads)), "tongue")


EAR_RINGS = (
    # radius, height off the head (cm): bowl, inner ridge, groove, rim, and around the back into the head
    (0.12, -0.18), (0.30, -0.12), (0.44, 0.10), (0.55, 0.34), (0.66, 0.36), (0.76, 0.26),
    (0.87, 0.40), (0.95, 0.58), (1.02, 0.52), (1.02, 0.30), (0.86, 0.05), (0.62, -0.45), (0.45, -0.95),
)  # fmt: skip


def ear() -> Part:
    """The character's left ear: a bowl with a rim, standing off the head."""
    segments = 32
    phi = 2 * np.pi * np.arange(segments) / segments
    lobe = smoothstep(-0.2, -0.85, np.sin(phi))
    outline_y = 1.55 + 0.15 * np.sin(phi) - 0.38 * lobe
    outline_z = 2.75 - 0.15 * lobe
    rings = []
    for radius, height in EAR_RINGS:
        flat = height if radius > 0.8 else height * (1 - 0.6 * lobe) + 0.1 * lobe
        # The rim is high at the back and the top, and vanishes towards the face.
        toward_face = smoothstep(0.2, 0.95, -np.cos(phi)) * (radius > 0.7)
        h = flat - 0.55 * toward_face
        y, z = radius * outline_y * np.cos(phi), radius * outline_z * np.sin(phi)
        rings.append(np.stack([h + 0 * y, y, z + 0.12 * y], axis=1))
    points, quads = capped(np.concatenate(rings), len(EAR_RINGS), segments)
    tilt, lean = np.radians(-20), np.radians(9)
    rot_z = np.array([[np.cos(tilt), np.sin(tilt), 0], [-np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    rot_x = np.array([[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]])
    centre = np.array([[9.0, 1.55, -1.5]])
    centre = sculpt.project_along(centre, np.array([[1.0, 0.0, 0.0]]))[0]
    points = points @ rot_x.T @ rot_z + centre + np.array([0.40, 0.0, 0.0])
    return Part(points, quads, named("skin", len(quads)))
