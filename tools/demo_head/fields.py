# SPDX-License-Identifier: GPL-3.0-or-later
"""Coordinates and masks on the skin for the shape keys. Centimetres; the frame of ``sculpt``.

Around the mouth they are elliptic, with the mouth corners as foci. ``nu`` runs around the mouth (0 = the character's
left corner, pi/2 = above, -pi/2 = below); ``mu`` grows outwards from the line where the lips touch. The closed lips are
the cut mu = 0, so a smooth function of (mu, nu) separates upper and lower lip cleanly.
"""

from __future__ import annotations

import numpy as np

from . import sculpt
from .skin import lid_margin
from .surface import MOUTH_HALF_WIDTH_CM, Skin, closure_z, smoothstep

Array = np.ndarray
JAW_HINGE_CM = np.array([0.0, 0.4, -2.6])
JAW_OPEN_DEGREES = 19.0


def bump(p: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    """A Gaussian of 1 at ``centre``, exp(-1) at the ellipsoid of ``radii``."""
    return np.exp(-(((p - np.asarray(centre)) / np.asarray(radii)) ** 2).sum(-1))


def vector(amount: Array, x: float, y: float, z: float) -> Array:
    """Displacements (V, 3) along a constant vector."""
    return amount[:, None] * np.array([x, y, z])


def rotated_x(p: Array, pivot: Array, degrees: float) -> Array:
    """Displacement (V, 3) of a rotation about the x axis through ``pivot``; positive drops the chin."""
    a = np.radians(degrees)
    q = p - pivot
    y = np.cos(a) * q[:, 1] - np.sin(a) * q[:, 2]
    z = np.sin(a) * q[:, 1] + np.cos(a) * q[:, 2]
    return np.stack([0 * y, y - q[:, 1], z - q[:, 2]], axis=1)


class Fields:
    """What the keys need to know about a skin at rest.

    Attributes:
        p: (V, 3) points. height: (V,) above the contact line, whose own curve is smile_line.
        mu, nu: elliptic mouth coordinates.
        q: sin(nu): +1 above, -1 below the mouth. lower: 1 on the jaw's side of the mouth, 0 on the skull's.
        front: 1 on the face, 0 behind the cheeks. inner: 1 outside and where the lips touch, 0 deep in the mouth.
        left: 0 to 1 across the middle of the mouth, for the character's left half.
    """

    def __init__(self, skin: Skin) -> None:
        self.skin = skin
        self.p = p = skin.points
        self.depth = skin.depth
        self.height = p[:, 2] - closure_z(p[:, 0])
        self.smile_line = closure_z(p[:, 0]) - sculpt.MOUTH_Z_CM
        half = MOUTH_HALF_WIDTH_CM
        x = p[:, 0] / half
        inside = skin.depth > 0
        # Inner rings shrink towards the back. They get the angle of the contact ring's vertex.
        ring = skin.mouth_rings
        contact_ring = ring[skin.contact]
        x[ring[skin.contact :]] = x[contact_ring]
        z = self.height / half
        side = skin.side
        z = np.where(side > 0, np.maximum(z, 0), np.where(side < 0, np.minimum(z, 0), z))
        z = np.where(inside, 0.0, z)
        z[contact_ring] = 0.0
        self.mu, nu = elliptic(x, np.abs(z))
        sign = np.where(side != 0, side, np.sign(z))
        corner = (side == 0) & (self.mu < 1e-9)
        self.nu = nu * np.where(corner, 0.0, np.where(sign == 0, 1.0, sign))
        self.nu = np.where(corner & (x < 0), np.pi, self.nu)
        self.q = np.sin(self.nu)
        self.front = smoothstep(0.0, -4.5, p[:, 1])
        self.inner = smoothstep(2.4, 0.95, skin.depth)
        self.left = smoothstep(-1.1, 1.1, p[:, 0])
        self.lower = self._lower()
        self.jaw = self._jaw_weight()

    def _lower(self) -> Array:
        # Close to the lips the opening is an oval; further out the whole chin follows.
        oval = 1.0 - (1.0 - ((1.0 - self.q) / 2.0) ** 1.7) ** 1.2
        far = smoothstep(0.42, -0.75, self.q)
        blend = smoothstep(0.25, 1.2, self.mu)
        near = (1 - blend) * oval + blend * far
        deep = smoothstep(0.35, -0.35, self.q)
        blend = smoothstep(0.0, 1.3, self.depth)
        return (1 - blend) * near + blend * deep

    def _jaw_weight(self) -> Array:
        p = self.p
        neck = smoothstep(-15.0, -10.1, p[:, 2] - 0.35 * np.minimum(p[:, 1] + 6.0, 0.0))
        throat = 1 - smoothstep(-7.0, -1.0, p[:, 1]) * smoothstep(-9.0, -11.4, p[:, 2]) * 0.75
        back = smoothstep(3.2, -1.2, p[:, 1])
        weight = self.lower * neck * throat * back * smoothstep(-1.0, -3.9, p[:, 2])
        return np.where(self.depth > 0, self.lower, weight)

    def lips(self, reach: float) -> Array:
        """1 at the contact line, falling off outwards with ``reach`` in mu, and inwards behind the lips."""
        return np.exp(-((self.mu / reach) ** 2)) * self.inner * self.front

    def upper(self, power: float = 0.8) -> Array:
        """1 above the mouth's middle, 0 at its corners and below."""
        return np.maximum(self.q, 0.0) ** power

    def under(self, power: float = 0.8) -> Array:
        """1 below the mouth's middle, 0 at its corners and above."""
        return np.maximum(-self.q, 0.0) ** power

    def corner(self, inner_cm: float = 1.7, outer_cm: float = 1.7, z_cm: float = 1.6) -> Array:
        """A bump at the character's left mouth corner, equal on both lips, so that the lips stay sealed."""
        d = self.p[:, 0] - MOUTH_HALF_WIDTH_CM
        # Inside the mouth the corner's pull follows the contact ring, not the narrower bag.
        width = np.where(d < 0, inner_cm, outer_cm)
        z = self.height * np.where(self.depth > 0, 0.0, 1.0)
        return np.exp(-((d / width) ** 2) - (z / z_cm) ** 2) * self.inner * self.front

    def open_jaw(self, degrees: float = JAW_OPEN_DEGREES) -> Array:
        """Displacement of the skin when the jaw rotates."""
        return self.jaw[:, None] * rotated_x(self.p, JAW_HINGE_CM, degrees)

    def eyelid(self, side: int, upper: float, lower: float) -> Array:
        """Move the lids of one eye. 1 and 1 close it; negative amounts open it."""
        skin, move = self.skin, np.zeros_like(self.p)
        centre = sculpt.EYE_CENTRE_CM * np.array([side, 1, 1])
        of_eye = np.nonzero((skin.lid > 0) & (self.p[:, 0] * side > 0))[0]
        local = (self.p[of_eye] - centre) * np.array([side, 1, 1])
        angle = skin.lid_angle[of_eye]
        target, margin = lid_angles(angle)
        amount = np.where(np.sin(angle) > 0, upper, lower) * smoothstep(0.1, 1.0, skin.lid[of_eye])
        radius = np.hypot(local[:, 1], local[:, 2])
        elevation = np.arctan2(local[:, 2], -local[:, 1])
        bent = elevation + (target - margin) * amount
        # Closing lids must pass over the eyeball; a straight path would cut into it.
        ride = radius + np.clip(amount, 0, 1) * 0.09 * np.abs(np.sin(angle))
        new = np.stack([local[:, 0], -ride * np.cos(bent), ride * np.sin(bent)], 1)
        move[of_eye] = (new - local) * np.array([side, 1, 1])
        return move


def elliptic(x: Array, z: Array) -> tuple[Array, Array]:
    """mu >= 0 and nu in 0..pi of points with z >= 0, for foci at x = -1 and 1."""
    w = np.arccosh(x.astype(complex) + 1j * z)
    return np.abs(w.real), np.abs(w.imag)


def lid_angles(psi: Array) -> tuple[Array, Array]:
    """Elevation of the closed line and of the open margin, for lid angles ``psi``."""

    def elevation(q: Array) -> Array:
        return np.arctan2(q[:, 2], -q[:, 1])

    high = lid_margin(np.abs(np.angle(np.exp(1j * psi))), 1) - sculpt.EYE_CENTRE_CM
    low = lid_margin(-np.abs(np.angle(np.exp(1j * psi))), 1) - sculpt.EYE_CENTRE_CM
    own = np.where(np.sin(psi) > 0, elevation(high), elevation(low))
    return 0.16 * elevation(high) + 0.84 * elevation(low), own
