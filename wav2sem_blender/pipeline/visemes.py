# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts ARKit curves to visemes, for a face whose shape keys are mouth shapes rather than muscles.

Two tables define the comparison. `MEASURES` has the effect of each ARKit channel on six visible measures of the mouth,
in millimetres at weight 1, measured on the bundled model's basis. The viseme sets describe each viseme by ARKit
weights, as artists usually sculpt it; where a character's key differs, a gain in the key mapping corrects it.

In every frame, the visemes are the non-negative weights whose mixture looks most like the ARKit curves: least squares
over the six measures, each divided by the smallest noticeable difference. The opening between the lips counts most, and
more the narrower it is, so that p, b and m close. All frames are solved together with a small cost on change, so that
weights do not flicker where several visemes fit.

Shape suffixes: T animation frames, K channels, N visemes, M measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import UserError
from .motion import Motion

Value = TypeVar("Value")

__all__ = [
    "MEASURES",
    "OCULUS",
    "RHUBARB",
    "VISEME_SETS",
    "VRM",
    "VisemeSet",
    "as_arkit",
    "as_visemes",
    "closures",
    "measured",
]

# Columns of `MEASURES`, and the smallest noticeable differences in mm; that of the opening holds for closed lips.
MEASURE_NAMES = ("opening", "jaw", "upper lip", "width", "protrusion", "tuck")
NOTICEABLE_MM = np.array([0.4, 4.0, 1.0, 1.5, 0.8, 0.4])
# It grows with the opening: 0.4 mm at closed lips, 1.4 mm at 10 mm.
_OPENING_GROWTH = 0.1

# Each pair of channels that end in Left and Right is listed once, with the values of one side. Sideways motion has no
# viseme.
_MEASURES_MM: dict[str, tuple[float, ...]] = {
    "jawForward": (1.2, 1.5, -0.1, 1.0, 0.4, 0.2),
    "jawOpen": (29.1, 25.3, -2.2, -0.1, -0.3, 0.0),
    "mouthClose": (-29.1, -1.3, 2.4, -1.3, -0.1, 0.0),
    "mouthFunnel": (11.9, 3.1, 4.2, -6.8, 7.7, 0.2),
    "mouthPucker": (0.6, -0.4, 0.4, -9.4, 8.3, 0.0),
    "mouthSmile": (0.1, -1.1, 2.3, 6.5, -1.6, 0.0),
    "mouthFrown": (-0.2, -0.4, -0.5, 1.8, -0.3, 0.1),
    "mouthDimple": (-0.6, -0.2, -0.1, 1.7, 0.1, 0.3),
    "mouthStretch": (-0.3, -0.3, -0.3, 6.7, -1.0, 0.2),
    "mouthRollLower": (-4.0, 0.7, 0.1, 0.4, 0.0, 3.2),
    "mouthRollUpper": (-0.3, 0.0, -0.5, 1.6, -7.6, 0.1),
    "mouthShrugLower": (-6.2, -5.1, 0.1, 1.4, 0.0, 0.4),
    "mouthShrugUpper": (4.7, 0.0, 4.7, 0.0, 0.5, 0.0),
    "mouthPress": (-1.2, -1.5, -0.1, -0.2, -0.4, 0.3),
    "mouthLowerDown": (2.9, 1.3, 0.0, 0.1, 0.0, 0.1),
    "mouthUpperUp": (3.6, 0.0, 3.9, 0.1, -0.4, -0.1),
}


def _both_sides(table: Mapping[str, Value]) -> dict[str, Value]:
    sided = ("Smile", "Frown", "Dimple", "Stretch", "Press", "LowerDown", "UpperUp")
    return {
        channel: value
        for name, value in table.items()
        for channel in ((f"{name}Left", f"{name}Right") if name.endswith(sided) else (name,))
    }


MEASURES: dict[str, np.ndarray] = {name: np.array(value) for name, value in _both_sides(_MEASURES_MM).items()}


@dataclass(frozen=True)
class VisemeSet:
    """Visemes that are used together.

    Attributes:
        label: The set's name for users.
        weights: The ARKit weights that describe each viseme; none for the mouth at rest.
        by_tongue: Visemes that differ from others by the tongue only; as the curves have no tongue, they cost more.
    """

    label: str
    weights: dict[str, dict[str, float]]
    by_tongue: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the visemes, in order."""
        return tuple(self.weights)


def _viseme_set(label: str, by_tongue: str = "", **visemes: dict[str, float]) -> VisemeSet:
    weights = {name: _both_sides(table) for name, table in visemes.items()}
    return VisemeSet(label, weights, tuple(by_tongue.split()))


_PRESSED = {"jawOpen": 0.05, "mouthClose": 0.06, "mouthPress": 0.4, "mouthRollLower": 0.1, "mouthRollUpper": 0.05}
_TUCKED = {"jawOpen": 0.12, "mouthClose": 0.07, "mouthRollLower": 0.4, "mouthUpperUp": 0.15}
_WIDE_OPEN = {"jawOpen": 0.55}
_PUCKERED = {"jawOpen": 0.08, "mouthPucker": 0.75, "mouthFunnel": 0.15}
_ROUND = {"jawOpen": 0.3, "mouthFunnel": 0.45, "mouthPucker": 0.25}
_SPREAD = {"jawOpen": 0.15, "mouthSmile": 0.25, "mouthStretch": 0.2, "mouthLowerDown": 0.1, "mouthUpperUp": 0.05}
_HALF_OPEN = {"jawOpen": 0.32, "mouthSmile": 0.1, "mouthStretch": 0.1, "mouthUpperUp": 0.05}

OCULUS = _viseme_set(
    "Oculus visemes",
    by_tongue="TH DD kk nn RR",
    sil={},
    PP=_PRESSED,
    FF=_TUCKED,
    TH={"jawOpen": 0.22, "mouthClose": 0.04, "mouthUpperUp": 0.1},
    DD={"jawOpen": 0.2, "mouthUpperUp": 0.05, "mouthLowerDown": 0.05},
    kk={"jawOpen": 0.28, "mouthUpperUp": 0.05, "mouthStretch": 0.05},
    CH={"jawOpen": 0.12, "mouthFunnel": 0.4, "mouthPucker": 0.2, "mouthUpperUp": 0.1},
    SS={"jawOpen": 0.06, "mouthLowerDown": 0.25, "mouthUpperUp": 0.1, "mouthStretch": 0.25, "mouthSmile": 0.1},
    nn={"jawOpen": 0.2, "mouthClose": 0.05},
    RR={"jawOpen": 0.15, "mouthFunnel": 0.3, "mouthPucker": 0.1},
    aa=_WIDE_OPEN,
    E=_HALF_OPEN,
    I=_SPREAD,
    O=_ROUND,
    U=_PUCKERED,
)

VRM = _viseme_set("VRM vowels", A=_WIDE_OPEN, I=_SPREAD, U=_PUCKERED, E=_HALF_OPEN, O=_ROUND)

RHUBARB = _viseme_set(
    "Rhubarb mouth shapes",
    by_tongue="H",
    A=_PRESSED,
    B={"jawOpen": 0.08, "mouthLowerDown": 0.2, "mouthUpperUp": 0.1, "mouthStretch": 0.15},
    C={"jawOpen": 0.3, "mouthSmile": 0.05, "mouthStretch": 0.05, "mouthUpperUp": 0.05},
    D=_WIDE_OPEN,
    E={"jawOpen": 0.25, "mouthFunnel": 0.35, "mouthPucker": 0.1},
    F=_PUCKERED,
    G=_TUCKED,
    H={"jawOpen": 0.32, "mouthUpperUp": 0.1},
    X={},
)

DAZ = _viseme_set(
    "DAZ visemes",
    by_tongue="K L T TH ER IH",
    AA=_WIDE_OPEN,
    EE=_SPREAD,
    EH=_HALF_OPEN,
    ER={"jawOpen": 0.15, "mouthFunnel": 0.3, "mouthPucker": 0.1},
    F=_TUCKED,
    IH={"jawOpen": 0.18, "mouthSmile": 0.15, "mouthStretch": 0.1},
    IY=_SPREAD,
    K={"jawOpen": 0.28, "mouthUpperUp": 0.05, "mouthStretch": 0.05},
    L={"jawOpen": 0.22, "mouthUpperUp": 0.05},
    M=_PRESSED,
    OW=_ROUND,
    S={"jawOpen": 0.06, "mouthLowerDown": 0.25, "mouthUpperUp": 0.1, "mouthStretch": 0.25, "mouthSmile": 0.1},
    SH={"jawOpen": 0.12, "mouthFunnel": 0.4, "mouthPucker": 0.2, "mouthUpperUp": 0.1},
    T={"jawOpen": 0.2, "mouthUpperUp": 0.05, "mouthLowerDown": 0.05},
    TH={"jawOpen": 0.22, "mouthClose": 0.04, "mouthUpperUp": 0.1},
    UW=_PUCKERED,
    W={"jawOpen": 0.05, "mouthPucker": 0.85, "mouthFunnel": 0.1},
)

CHARACTER_CREATOR = _viseme_set(
    "Character Creator visemes",
    "",
    **{
        "Open": _WIDE_OPEN,
        "Explosive": _PRESSED,
        "Dental_Lip": _TUCKED,
        "Tight-O": _PUCKERED,
        "Tight": {"jawOpen": 0.04, "mouthPucker": 0.4},
        "Wide": _SPREAD,
        "Affricate": {"jawOpen": 0.12, "mouthFunnel": 0.4, "mouthPucker": 0.2, "mouthUpperUp": 0.1},
        "Lip_Open": {"jawOpen": 0.05, "mouthLowerDown": 0.35, "mouthUpperUp": 0.25},
    },
)

PRESTON_BLAIR = _viseme_set(
    "Preston Blair shapes",
    by_tongue="L",
    AI={"jawOpen": 0.45, "mouthStretch": 0.05},
    E=_HALF_OPEN,
    etc={"jawOpen": 0.1, "mouthStretch": 0.15, "mouthLowerDown": 0.15, "mouthUpperUp": 0.05},
    FV=_TUCKED,
    L={"jawOpen": 0.25, "mouthUpperUp": 0.08},
    MBP=_PRESSED,
    O=_ROUND,
    rest={},
    U=_PUCKERED,
    WQ={"jawOpen": 0.05, "mouthPucker": 0.85, "mouthFunnel": 0.1},
)

VISEME_SETS: dict[str, VisemeSet] = {
    "OCULUS": OCULUS,
    "RHUBARB": RHUBARB,
    "VRM": VRM,
    "DAZ": DAZ,
    "CHARACTER_CREATOR": CHARACTER_CREATOR,
    "PRESTON_BLAIR": PRESTON_BLAIR,
}

# Cost of a viseme's weight, so that no visemes are mixed that cancel out, and of its change in 1/30 s. A viseme
# with closed lips costs more in an open mouth, and one with pressed lips while the lower lip is under the teeth:
# otherwise p would take part in an oo that is narrow, and in f.
_RIDGE, _RIDGE_BY_TONGUE, _RIDGE_OTHER, _STEADINESS = 2.0, 6.0, 20.0, 8.0
# A closure has lips nearer than the first, within this time of lips as far apart as the third; the last is how much
# farther they are pressed together.
_CLOSED_MM, _CLOSURE_S, _OPEN_MM, _PRESS_MM = 1.5, 0.2, 4.0, 1.5
_TUCKED_MM = 2.0  # of an f
_LARGEST, _MAX_STEPS, _TOLERANCE = 1.0, 2000, 2e-4


def as_visemes(motion: Motion, visemes: VisemeSet, available: tuple[str, ...] | None = None) -> Motion:
    """The visemes that look most like an ARKit motion.

    Weights are 0 to 1. Below 1, twice the motion gives nearly twice the weights. The viseme of the mouth at rest, if
    the set has one, gets the rest of the weights' sum to 1.

    Args:
        motion: Curves with ARKit's names; channels without measures are ignored.
        visemes: The set.
        available: The visemes of the set that the face has; None for all.

    Raises:
        UserError: The motion has no channel of the mouth, or a viseme is not in the set.
    """
    names = visemes.names if available is None else available
    unknown = [name for name in names if name not in visemes.weights]
    if unknown:
        raise UserError(
            "{viseme} is not one of the {label} ({names}).",
            viseme=unknown[0],
            label=visemes.label,
            names=", ".join(visemes.names),
        )
    if not any(channel in MEASURES for channel in motion.channels):
        raise UserError(
            "The model's {n_channels} channels ({names} …) are not ARKit's, which {label} are made from. Use a "
            "model with ARKit channels, or a face with keys of these names.",
            n_channels=len(motion.channels),
            names=", ".join(motion.channels[:4]),
            label=visemes.label,
        )
    sounding = [name for name in names if visemes.weights[name]]
    described_NM = np.stack([_measures_of(visemes.weights[name]) for name in sounding])
    target_TM = sealed(measured(motion), motion.fps)
    ridge_N = np.array([_RIDGE_BY_TONGUE if name in visemes.by_tongue else _RIDGE for name in sounding])
    open_T = np.square(np.clip(target_TM[:, 0] / _OPEN_MM, 0, 1))
    tucked_T = np.square(np.clip(target_TM[:, -1] / _TUCKED_MM, 0, 1))
    closed_N, pressed_N = described_NM[:, 0] < _CLOSED_MM, described_NM[:, 0] < 0
    ridge_TN = ridge_N + _RIDGE_OTHER * (np.outer(open_T, closed_N) + np.outer(tucked_T, pressed_N))
    steadiness = _STEADINESS * (motion.fps / 30) ** 2
    weights_TN = _accelerated_projected_gradients(described_NM, target_TM, ridge_TN, steadiness)
    columns = dict(zip(sounding, weights_TN.T, strict=True))
    rest_T = np.clip(1 - weights_TN.sum(axis=1), 0, 1)
    return Motion(
        weights_TK=np.stack([columns.get(name, rest_T) for name in names], axis=1),
        channels=names,
        fps=motion.fps,
        info=motion.info,
        phones=motion.phones,
    )


def as_arkit(motion: Motion, visemes: VisemeSet) -> Motion:
    """The ARKit curves that the visemes describe."""
    channels = tuple(MEASURES)
    described_NK = np.array([[visemes.weights[name].get(c, 0.0) for c in channels] for name in motion.channels])
    weights_TK = motion.weights_TK @ described_NK
    return Motion(weights_TK=weights_TK, channels=channels, fps=motion.fps, info=motion.info, phones=motion.phones)


def openings_mm(key_map_channels: Iterable[str], visemes: str = "") -> dict[str, float]:
    """How far each channel, or each viseme of a set, opens the lips of the bundled model's face at weight 1."""
    if visemes:
        weights = VISEME_SETS[visemes].weights
        return {name: float(_measures_of(weights[name])[0]) for name in key_map_channels if weights.get(name)}
    return {name: float(MEASURES[name][0]) for name in key_map_channels if name in MEASURES}


def measured(motion: Motion) -> np.ndarray:
    """The measures of the mouth in every frame, (T, M) in mm; columns as in `MEASURE_NAMES`."""
    zero_M = np.zeros(len(MEASURE_NAMES))
    return motion.weights_TK @ np.stack([MEASURES.get(channel, zero_M) for channel in motion.channels])


def closures(motion: Motion) -> np.ndarray:
    """How closed the lips are during speech, 0..1 for every frame (T,).

    Only closures near an open mouth count, so resting lips are none. Without ARKit channels the result is 0.
    """
    return _closed(measured(motion)[:, 0], motion.fps)


def _closed(opening_T: np.ndarray, fps: float) -> np.ndarray:
    if len(opening_T) == 0:
        return opening_T
    reach = round(_CLOSURE_S * fps)
    around_T = sliding_window_view(np.pad(opening_T, reach, mode="edge"), 2 * reach + 1).max(axis=1)
    speaking_T = np.clip(around_T / _OPEN_MM, 0, 1)
    closed_T: np.ndarray = speaking_T * np.clip(1 - opening_T / _CLOSED_MM, 0, 1)
    return closed_T


def sealed(measured_TM: np.ndarray, fps: float) -> np.ndarray:
    """Press closures a little, so that a pressing viseme takes part and lips of another shape meet too."""
    sealed_TM = measured_TM.copy()
    sealed_TM[:, 0] -= _PRESS_MM * _closed(measured_TM[:, 0], fps)
    return sealed_TM


def _measures_of(weights: Mapping[str, float]) -> np.ndarray:
    return np.sum([weight * MEASURES[channel] for channel, weight in weights.items()], axis=0)


def _accelerated_projected_gradients(
    described_NM: np.ndarray, target_TM: np.ndarray, ridge_TN: np.ndarray, steadiness: float
) -> np.ndarray:
    """Non-negative least squares of all frames together (T, N); Nesterov's momentum with restarts."""
    scale_TM = 1 / (
        NOTICEABLE_MM + np.outer(np.maximum(target_TM[:, 0], 0), [_OPENING_GROWTH] + [0] * (len(NOTICEABLE_MM) - 1))
    )
    square_TM = np.square(scale_TM)
    # The step is the inverse of an upper bound of the curvature, at the narrowest opening.
    sharpest_MN = described_NM.T * scale_TM.max(axis=0, initial=0.0)[:, None]
    step = 1 / (np.linalg.eigvalsh(sharpest_MN.T @ sharpest_MN)[-1] + ridge_TN.max(initial=0.0) + 4 * steadiness)
    weights_TN = np.zeros((len(target_TM), len(described_NM)))
    ahead_TN, momentum = weights_TN, 1.0
    for _ in range(_MAX_STEPS):
        slope_TN = ((ahead_TN @ described_NM - target_TM) * square_TM) @ described_NM.T + ridge_TN * ahead_TN
        change_TN = steadiness * np.diff(ahead_TN, axis=0)
        slope_TN[1:] += change_TN
        slope_TN[:-1] -= change_TN
        new_TN = np.clip(ahead_TN - step * slope_TN, 0, _LARGEST)
        moved_TN = new_TN - weights_TN
        if np.sum((ahead_TN - new_TN) * moved_TN) > 0:
            momentum = 1.0
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead_TN = new_TN + (momentum - 1) / faster * moved_TN
        weights_TN, momentum = new_TN, faster
        if np.abs(moved_TN).max(initial=0.0) < _TOLERANCE * 0.05:
            break
    return weights_TN
