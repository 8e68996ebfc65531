# SPDX-License-Identifier: GPL-3.0-or-later
"""The head's form as one smooth signed distance: blended ellipsoids, spheres and cones.

Unit: centimetres. Frame: x to the character's left, y to the back (the face looks along -y), z up; the origin
is the middle of the head at the height of the pupils. Every function takes points (..., 3).
"""

from __future__ import annotations

import numpy as np

EYE_CENTRE_CM = np.array([3.72, -5.85, 0.0])
EYE_RADIUS_CM = 2.08
LID_RADIUS_CM = 2.31
MOUTH_Z_CM = -6.3

Array = np.ndarray


def smooth_min(a: Array, b: Array, blend_cm: float) -> Array:
    """Union of two distances with a fillet of about ``blend_cm``."""
    h = np.maximum(blend_cm - np.abs(a - b), 0.0) / blend_cm
    return np.minimum(a, b) - h * h * h * blend_cm / 6.0


def smooth_subtract(a: Array, b: Array, blend_cm: float) -> Array:
    """Distance ``a`` with ``b`` carved out of it."""
    return -smooth_min(-a, b, blend_cm)


def ellipsoid(p: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    """Approximate distance to an ellipsoid (exact sign, first-order distance)."""
    q = p - np.asarray(centre)
    r = np.asarray(radii)
    k0 = np.linalg.norm(q / r, axis=-1)
    k1 = np.linalg.norm(q / (r * r), axis=-1)
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)


def cone(p: Array, a: tuple[float, float, float], b: tuple[float, float, float], ra: float, rb: float) -> Array:
    """Distance to a capsule from ``a`` to ``b`` whose radius goes from ``ra`` to ``rb``."""
    pa = p - np.asarray(a)
    ba = np.asarray(b) - np.asarray(a)
    h = np.clip(pa @ ba / (ba @ ba), 0.0, 1.0)
    return np.linalg.norm(pa - h[..., None] * ba, axis=-1) - (ra + (rb - ra) * h)


def head_distance(p: Array) -> Array:
    """Signed distance to the skin without lips, lid openings, ears and hair (negative inside)."""
    # A softened |x| mirrors the paired primitives without a crease in the middle.
    m = np.concatenate([np.sqrt(p[..., :1] ** 2 + 0.04), p[..., 1:]], axis=-1)
    d = ellipsoid(p, (0.0, 1.0, 3.6), (8.3, 9.5, 8.5))
    d = smooth_min(d, ellipsoid(p, (0.0, -2.2, -2.1), (7.1, 6.5, 7.6)), 3.0)
    d = smooth_min(d, ellipsoid(m, (4.0, -4.9, -3.6), (2.8, 2.75, 2.4)), 3.0)
    d = smooth_min(d, cone(m, (0.9, -6.4, -8.4), (4.15, -0.6, -5.8), 1.55, 2.05), 3.4)
    d = smooth_min(d, ellipsoid(p, (0.0, -5.8, -6.1), (3.7, 3.2, 2.9)), 2.6)
    d = smooth_min(d, ellipsoid(p, (0.0, -6.8, -8.9), (1.55, 1.6, 1.4)), 3.0)
    d = smooth_min(d, cone(p, (0.0, 1.8, -4.0), (0.0, 1.5, -21.0), 3.7, 4.1), 2.6)
    d = smooth_subtract(d, ellipsoid(m, (3.8, -9.4, 0.1), (2.6, 2.1, 2.1)), 1.6)
    d = smooth_min(d, cone(m, (1.6, -7.6, 2.6), (4.9, -6.1, 2.7), 0.75, 0.6), 1.8)
    d = smooth_min(d, cone(m, (5.7, -5.3, 2.0), (6.1, -4.7, -1.6), 0.6, 0.7), 1.8)
    d = smooth_min(d, ellipsoid(m, tuple(EYE_CENTRE_CM), (LID_RADIUS_CM,) * 3), 0.5)
    return nose_distance(p, m, d)


def nose_distance(p: Array, m: Array, d: Array) -> Array:
    """Add the nose to the distance ``d``; ``m`` are the points with the softened |x|."""
    d = smooth_min(d, cone(p, (0.0, -7.4, 1.0), (0.0, -9.5, -2.2), 0.6, 0.75), 1.8)
    d = smooth_min(d, ellipsoid(p, (0.0, -9.95, -2.7), (0.92, 0.95, 0.85)), 0.9)
    d = smooth_min(d, ellipsoid(m, (0.88, -9.0, -3.05), (0.6, 0.78, 0.55)), 0.6)
    return smooth_subtract(d, ellipsoid(m, (0.5, -9.3, -3.65), (0.3, 0.45, 0.38)), 0.3)


def gradient(p: Array, step_cm: float = 1e-3) -> Array:
    """Unit normals of the distance field, by central differences."""
    axes = np.eye(3) * step_cm
    g = np.stack([head_distance(p + a) - head_distance(p - a) for a in axes], axis=-1)
    return g / np.maximum(np.linalg.norm(g, axis=-1, keepdims=True), 1e-9)


def project_along(p: Array, direction: Array, reach_cm: float = 5.0, samples: int = 61) -> Array:
    """Move points (N, 3) along unit directions (N, 3) to the outermost surface within +-reach."""
    t = np.linspace(reach_cm, -reach_cm, samples)
    inside = head_distance(p[:, None] + t[None, :, None] * direction[:, None]) < 0.0
    first = np.argmax(inside, axis=1)
    hit = inside.any(axis=1) & (first > 0)
    low, high = t[first], t[np.maximum(first - 1, 0)]
    for _ in range(40):
        middle = 0.5 * (low + high)
        is_inside = head_distance(p + middle[:, None] * direction) < 0.0
        low, high = np.where(is_inside, middle, low), np.where(is_inside, high, middle)
    return p + np.where(hit, low, 0.0)[:, None] * direction


def settle(p: Array, steps: int = 4) -> Array:
    """Pull points (N, 3) that are near the surface onto it, along the normals."""
    for _ in range(steps):
        p = p - np.clip(head_distance(p), -0.5, 0.5)[:, None] * gradient(p)
    return p
