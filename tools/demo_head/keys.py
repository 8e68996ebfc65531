# SPDX-License-Identifier: GPL-3.0-or-later
"""The 52 ARKit shape keys of the skin, and how the other parts follow it. Centimetres; the frame of ``sculpt``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS

from . import sculpt
from .fields import JAW_HINGE_CM, JAW_OPEN_DEGREES, Fields, bump, rotated_x, vector
from .parts import Part
from .surface import MOUTH_HALF_WIDTH_CM, closure_z, contact_pairs, smoothstep

Array = np.ndarray
MIRROR = np.array([-1.0, 1.0, 1.0])


def jaw_open(f: Fields) -> Array:
    """Chin and lower lip swing down; the corners move in slightly."""
    move = f.open_jaw()
    move[:, 0] -= 0.17 * f.p[:, 0] * f.lips(0.75)
    return move


def mouth_close(f: Fields) -> Array:
    """Undo what jawOpen does to the lips, so that the two together close them while the jaw is down."""
    opened = jaw_open(f)
    uppers, lowers = contact_pairs(f.skin)
    meet = 0.6 * opened[uppers] + 0.4 * opened[lowers]
    angle = np.abs(f.nu[uppers[0]])
    near = smoothstep(1.45, 0.30, f.mu) * f.inner * f.front
    move = np.zeros_like(f.p)
    for lip, rows in ((f.q >= 0, uppers), (f.q < 0, lowers)):
        for axis in range(3):
            lift = np.interp(np.abs(f.nu), angle, (meet[0] - opened[rows[0]])[:, axis])
            move[lip, axis] = (lift * near)[lip]
    # Where the lips touch they must meet exactly, all the way in.
    move[uppers], move[lowers] = meet - opened[uppers], meet - opened[lowers]
    return move


def jaw_shift(x: float, y: float) -> Callable[[Fields], Array]:
    """The whole jaw slides by (x, y) cm and takes the upper lip along."""

    def move_jaw(f: Fields) -> Array:
        jaw = f.jaw * smoothstep(2.5, -3.0, f.p[:, 1])
        move = vector(jaw + f.lips(0.7) * f.upper(0.5) * 0.4, x, y, 0.0)
        # The contact line is curved. The lower lip follows it, or it would gape at one corner.
        ride = closure_z(f.p[:, 0] + 0.6 * x) - closure_z(f.p[:, 0])
        return move + vector(ride * f.under(0.3) * f.lips(0.5), 0.0, 0.0, 1.0)

    return move_jaw


def pucker(f: Fields) -> Array:
    """Lips gathered and pushed forward, still closed."""
    x = f.p[:, 0] / MOUTH_HALF_WIDTH_CM
    near = f.lips(0.62)
    move = vector(near * (0.75 + 0.55 * np.minimum(x * x, 1.4)), 0.0, -1.0, 0.0)
    move[:, 0] = -0.47 * f.p[:, 0] * f.lips(0.85)
    move[:, 2] = 0.16 * f.height * near - 0.8 * f.smile_line * near
    return move


def funnel(f: Fields) -> Array:
    """Lips open to a trumpet."""
    x = f.p[:, 0] / MOUTH_HALF_WIDTH_CM
    near = f.lips(0.6)
    move = vector(near * (0.72 + 0.5 * np.minimum(x * x, 1.4)) + 0.2 * f.lips(0.22), 0.0, -1.0, 0.0)
    move[:, 0] = -0.40 * f.p[:, 0] * f.lips(0.8)
    move[:, 2] = (0.62 * f.upper(0.75) - 0.66 * f.under(0.6)) * f.lips(0.75) - 0.9 * f.smile_line * near
    return move


def mouth_shift(f: Fields) -> Array:
    """Both lips slide to the character's left."""
    near = np.exp(-((f.mu / 0.95) ** 2)) * f.inner * f.front
    return vector(near, 0.95, 0.0, 0.0) + vector(near * f.p[:, 0] / MOUTH_HALF_WIDTH_CM, 0.0, 0.28, 0.05)


def smile(f: Fields) -> Array:
    """Left corner out, up and back; the cheek rises."""
    # The whole lip moves out, but only the corner moves up: a smile is a bowl, not a V.
    move = vector(f.corner(2.1, 1.8, 1.7), 0.76, 0.40, 0.16) + vector(f.corner(1.35, 1.8, 1.7), 0.0, 0.05, 0.62)
    cheek = bump(f.p, (4.5, -6.6, -3.8), (1.9, 2.6, 1.7)) * f.inner
    return move + vector(cheek, 0.18, -0.42, 0.5)


def frown(f: Fields) -> Array:
    """Left corner down."""
    return vector(f.corner(1.25, 1.6, 1.6), 0.05, 0.12, -0.9)


def dimple(f: Fields) -> Array:
    """Left corner pulled back into the cheek."""
    move = vector(f.corner(1.2, 1.0, 1.1), 0.42, 0.55, 0.08)
    return move + vector(bump(f.p, (4.0, -7.2, -6.0), (0.9, 2.0, 1.2)), 0.1, -0.25, 0.0)


def stretch(f: Fields) -> Array:
    """Left corner straight out and slightly down, lips thinner."""
    move = vector(f.corner(2.0, 1.6, 1.9), 0.85, 0.38, -0.28)
    parted = f.lips(0.55) * f.left
    return move + vector(parted * f.under(0.9), 0.0, 0.05, -0.22)


def press(f: Fields) -> Array:
    """Left half of both lips squeezed together."""
    near = f.lips(0.34) * f.left
    move = vector(near * np.abs(f.q) ** 0.5, 0.0, 0.22, 0.0)
    move[:, 2] -= 0.48 * f.height * near * (f.depth <= 0)
    return move + vector(f.corner(1.0, 1.2, 1.0), 0.08, 0.10, 0.04)


def lower_down(f: Fields) -> Array:
    """Left half of the lower lip drawn down."""
    return vector(f.lips(0.62) * f.left * f.under(0.8), 0.06, -0.06, -0.85)


def upper_up(f: Fields) -> Array:
    """Left half of the upper lip raised."""
    move = vector(f.lips(0.62) * f.left * f.upper(0.8), 0.04, -0.10, 0.78)
    return move + vector(bump(f.p, (1.3, -9.0, -3.4), (1.0, 1.6, 1.0)), 0.05, 0.0, 0.18)


def roll(f: Fields, sign: float) -> Array:
    """Curl the lower (sign -1) or upper (+1) lip in over the teeth."""
    away = np.maximum(f.height * sign, 0.0)
    weight = (f.upper(0.45) if sign > 0 else f.under(0.45)) * f.lips(0.75)
    red = 0.6 if sign > 0 else 0.85
    lift = 0.72 * np.minimum(away, red) * np.exp(-np.maximum(away - red, 0.0) / 0.9)
    tuck = 0.55 * np.exp(-((away / red) ** 2))
    # The edge slides behind the other lip, so that the lower lip meets the upper teeth in an f.
    lift = lift + 0.26 * np.exp(-((away / 0.35) ** 2))
    tuck = np.where(f.depth > 0, 0.5, tuck)
    return vector(weight * lift, 0.0, 0.0, -sign) + vector(weight * tuck, 0.0, 1.0, 0.0)


def shrug_lower(f: Fields) -> Array:
    """The chin pushes both lips up."""
    chin = bump(f.p, (0.0, -8.8, -8.8), (2.3, 2.6, 1.6)) * (f.depth <= 0)
    lips = f.lips(0.5) * np.abs(f.q) ** 0.4
    pout = np.where(f.q < 0, 0.22, 0.10)
    return vector(chin, 0.0, -0.18, 0.55) + vector(lips, 0.0, 0.0, 0.42) + vector(lips * pout, 0.0, -1.0, 0.0)


def shrug_upper(f: Fields) -> Array:
    """The upper lip pushes up and out; the lower lip follows."""
    lips = f.lips(0.45) * np.abs(f.q) ** 0.4
    lips = lips * np.where(f.q < 0, np.exp(-((f.mu / 0.3) ** 2)), 1.0)
    pout = np.where(f.q < 0, 0.10, 0.30)
    return vector(lips, 0.0, 0.0, 0.45) + vector(lips * pout, 0.0, -1.0, 0.0)


def cheek_puff(f: Fields) -> Array:
    """Air in both cheeks."""
    out = np.zeros_like(f.p)
    for side in (1, -1):
        ball = bump(f.p, (side * 4.4, -6.0, -5.8), (2.0, 3.0, 2.1)) * (f.depth <= 0)
        out += vector(ball, side * 1.25, -0.85, 0.0)
    return out + vector(f.lips(0.45), 0.0, -0.16, 0.0)


def brow_down(f: Fields) -> Array:
    """Left brow lowered and drawn in."""
    return vector(bump(f.p, (2.3, -8.0, 2.9), (2.0, 3.0, 1.25)), -0.28, -0.1, -0.72) + vector(
        bump(f.p, (5.0, -6.5, 3.2), (1.6, 3.0, 1.2)), -0.05, 0.0, -0.3
    )


def brow_inner_up(f: Fields) -> Array:
    """Both inner brows raised."""
    left, right = (vector(bump(f.p, (s * 1.8, -8.0, 3.1), (1.7, 3.0, 1.7)), s * 0.05, 0.05, 0.85) for s in (1, -1))
    return left + right


def brow_outer_up(f: Fields) -> Array:
    """Left outer brow raised."""
    return vector(bump(f.p, (4.9, -6.5, 3.4), (1.9, 3.2, 1.7)), 0.0, 0.08, 0.85)


def cheek_squint(f: Fields) -> Array:
    """Left cheek raised towards the eye."""
    return vector(bump(f.p, (4.2, -7.0, -2.9), (1.9, 2.6, 1.3)), 0.1, -0.35, 0.75) + f.eyelid(1, 0.0, 0.8)


def nose_sneer(f: Fields) -> Array:
    """Left wing of the nose raised."""
    move = vector(bump(f.p, (1.25, -8.9, -3.1), (0.95, 1.6, 0.95)), 0.16, 0.0, 0.65)
    move += vector(bump(f.p, (0.9, -8.6, -1.2), (0.8, 1.5, 1.2)), -0.08, -0.18, 0.3)
    return move + vector(f.lips(0.7) * f.upper(1.0) * f.left, 0.0, -0.05, 0.22)


def tongue_out(f: Fields) -> Array:
    """The lips part around the tongue (the tongue itself moves in ``extend``)."""
    middle = np.exp(-((f.p[:, 0] / 2.0) ** 2)) * f.lips(0.6)
    move = f.open_jaw(TONGUE_OUT_DEGREES)
    return move + vector(middle * f.under(0.7), 0.0, -0.1, -0.15) + vector(middle * f.upper(0.7), 0.0, 0.0, 0.3)


def lid(upper: float, lower: float) -> Callable[[Fields], Array]:
    """Left lids moved by fractions of a blink."""
    return lambda f: f.eyelid(1, upper, lower)


LEFT_FIELDS: dict[str, Callable[[Fields], Array]] = {
    "eyeBlink": lid(1.0, 1.0), "eyeLookDown": lid(0.48, -0.9), "eyeLookIn": lid(0.0, 0.0), "eyeLookOut": lid(0.0, 0.0),
    "eyeLookUp": lid(-0.13, 0.3), "eyeSquint": lid(0.22, 1.9), "eyeWide": lid(-0.20, -0.6), "mouthSmile": smile,
    "mouthFrown": frown, "mouthDimple": dimple, "mouthStretch": stretch, "mouthPress": press,
    "mouthLowerDown": lower_down, "mouthUpperUp": upper_up, "browDown": brow_down, "browOuterUp": brow_outer_up,
    "cheekSquint": cheek_squint, "noseSneer": nose_sneer, "mouth": mouth_shift, "jaw": jaw_shift(0.75, 0.0),
}  # fmt: skip
MIDDLE_FIELDS: dict[str, Callable[[Fields], Array]] = {
    "jawForward": jaw_shift(0.0, -0.7), "jawOpen": jaw_open, "mouthClose": mouth_close, "mouthFunnel": funnel,
    "mouthPucker": pucker, "mouthRollLower": lambda f: roll(f, -1.0), "mouthRollUpper": lambda f: roll(f, 1.0),
    "mouthShrugLower": shrug_lower, "mouthShrugUpper": shrug_upper, "browInnerUp": brow_inner_up,
    "cheekPuff": cheek_puff, "tongueOut": tongue_out,
}  # fmt: skip
# The teeth must part for the tongue.
TONGUE_OUT_DEGREES = 5.5
GAZE_DEGREES = {"eyeLookDown": (0, -24), "eyeLookUp": (0, 22), "eyeLookIn": (-28, 0), "eyeLookOut": (28, 0)}


def skin_keys(f: Fields, mirror: Array) -> dict[str, Array]:
    """All 52 keys on the skin, (V, 3) cm each; right keys are exact mirror images of left ones.

    Args:
        f: the fields of the skin.
        mirror: (V,) index of each vertex's mirror image.
    """
    out = {name: field(f) for name, field in MIDDLE_FIELDS.items()}
    out = {name: 0.5 * (move + move[mirror] * MIRROR) for name, move in out.items()}
    for stem, field in LEFT_FIELDS.items():
        move = field(f)
        out[stem + "Left"], out[stem + "Right"] = move, move[mirror] * MIRROR
    return {name: out[name] for name in ARKIT_CHANNELS}


def gaze(points: Array, side: int, yaw_degrees: float, pitch_degrees: float) -> Array:
    """Displacement of an eyeball that turns outwards by yaw and up by pitch."""
    centre = sculpt.EYE_CENTRE_CM * np.array([side, 1, 1])
    a, b = np.radians(yaw_degrees * side), np.radians(pitch_degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    lift = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return (points - centre) @ (turn @ lift).T + centre - points


def jaw_rigid(name: str, p: Array) -> Array:
    """Displacement of points fixed to the jaw under the key ``name``."""
    if name in ("jawOpen", "tongueOut"):
        return rotated_x(p, JAW_HINGE_CM, JAW_OPEN_DEGREES if name == "jawOpen" else TONGUE_OUT_DEGREES)
    shift = {"jawForward": (0, -0.7, 0), "jawLeft": (0.75, 0, 0), "jawRight": (-0.75, 0, 0)}.get(name, (0, 0, 0))
    return np.broadcast_to(np.array(shift, float), p.shape)


def tongue_reach(p: Array) -> Array:
    """The tongue slides out over the lower lip and bends down."""
    t = smoothstep(-3.0, -6.8, p[:, 1])
    out = t * 4.2
    # It passes over the lower teeth, flat, and bends down outside.
    centre_z = sculpt.MOUTH_Z_CM - 0.62
    outside = smoothstep(-8.8, -11.2, p[:, 1] - out)
    flat = -0.4 * t * (p[:, 2] - centre_z)
    narrow = -0.22 * t * p[:, 0]
    return np.stack([narrow, -out, flat + 0.95 * t - 1.5 * outside**1.5], axis=1)


def extend(part: Part, name: str, skin_points: Array, skin_move: Array) -> Array:
    """Displacement (V, 3) of a part's vertices under the key ``name``."""
    p = part.points
    if part.motion in ("jaw", "tongue"):
        move = jaw_rigid(name, p)
        return move + tongue_reach(p) if part.motion == "tongue" and name == "tongueOut" else move
    for side, label in ((1, "Left"), (-1, "Right")):
        if part.motion == f"eye_{label.lower()}" and name.endswith(label) and name[: -len(label)] in GAZE_DEGREES:
            return gaze(p, side, *GAZE_DEGREES[name[: -len(label)]])
    if part.motion == "follow":
        distance = ((p[:, None] - skin_points[None]) ** 2).sum(-1)
        weight = np.exp(-distance / 0.35**2 / 2)
        return (weight @ skin_move) / weight.sum(1, keepdims=True)
    return np.zeros_like(p)
