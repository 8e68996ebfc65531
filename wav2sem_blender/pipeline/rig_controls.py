# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of controls on well-known face rigs, and the channels that they play, beside the shape keys of `rig_names.py`.

`BOARDS` are bones that slide on a board: in a channel, {} stands for Left and Right; in a bone's name, {s} for L and R.
After the bone's name comes the axis of its location with its value at weight 1: "CTRL_C_jaw y" moves it by 1,
"CTRL_C_jaw x -1" by -1.

`FACE_BONES` are bones that move the skin itself. How far is in `MOVES`, in millimetres on a head whose mouth is
`MOUTH_MM` wide: outwards (away from the middle), forward and up. The widths of other mouths scale it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["BOARDS", "FACE_BONES", "JAW_TURN_DEG", "MOUTH_MM", "MOVES", "Board", "FaceBones", "Slide"]


class Slide(NamedTuple):
    """A bone of a board, the axis (0 to 2) along which it slides, and its location at weight 1."""

    bone: str
    axis: int
    at_one: float


class Board(NamedTuple):
    """A control board: its name for users, and for each channel the bones that play it."""

    label: str
    channels: Mapping[str, tuple[Slide, ...]]


class FaceBones(NamedTuple):
    """The bones of a mouth. Each part lists the names that versions of the rig have; {s} is L or R, {l} is l or r."""

    label: str
    parts: Mapping[str, str]


_METAHUMAN = {
    "jawOpen": "CTRL_C_jaw y",
    "jawLeft": "CTRL_C_jaw x",
    "jawRight": "CTRL_C_jaw x -1",
    "jawForward": "CTRL_C_jaw_fwdBack y -1",
    "mouthClose": "CTRL_L_mouth_towardsU y, CTRL_R_mouth_towardsU y, CTRL_L_mouth_towardsD y, CTRL_R_mouth_towardsD y",
    "mouthFunnel": "CTRL_L_mouth_funnelU y, CTRL_R_mouth_funnelU y, CTRL_L_mouth_funnelD y, CTRL_R_mouth_funnelD y",
    "mouthPucker": "CTRL_L_mouth_purseU y, CTRL_R_mouth_purseU y, CTRL_L_mouth_purseD y, CTRL_R_mouth_purseD y",
    "mouthLeft": "CTRL_C_mouth x",
    "mouthRight": "CTRL_C_mouth x -1",
    "mouthSmile{}": "CTRL_{s}_mouth_cornerPull y",
    "mouthFrown{}": "CTRL_{s}_mouth_cornerDepress y",
    "mouthDimple{}": "CTRL_{s}_mouth_dimple y",
    "mouthStretch{}": "CTRL_{s}_mouth_stretch y",
    "mouthRollLower": "CTRL_L_mouth_lipsRollD y, CTRL_R_mouth_lipsRollD y",
    "mouthRollUpper": "CTRL_L_mouth_lipsRollU y, CTRL_R_mouth_lipsRollU y",
    "mouthShrugLower": "CTRL_L_jaw_ChinRaiseD y, CTRL_R_jaw_ChinRaiseD y",
    "mouthShrugUpper": "CTRL_L_jaw_ChinRaiseU y, CTRL_R_jaw_ChinRaiseU y",
    "mouthPress{}": "CTRL_{s}_mouth_pressU y, CTRL_{s}_mouth_pressD y",
    "mouthLowerDown{}": "CTRL_{s}_mouth_lowerLipDepress y",
    "mouthUpperUp{}": "CTRL_{s}_mouth_upperLipRaise y",
    "eyeBlink{}": "CTRL_{s}_eye_blink y",
    "eyeWide{}": "CTRL_{s}_eye_blink y -1",
    "eyeSquint{}": "CTRL_{s}_eye_squintInner y",
    "browDown{}": "CTRL_{s}_brow_down y",
    "browInnerUp": "CTRL_L_brow_raiseIn y, CTRL_R_brow_raiseIn y",
    "browOuterUp{}": "CTRL_{s}_brow_raiseOut y",
    "cheekPuff": "CTRL_L_mouth_suckBlow y, CTRL_R_mouth_suckBlow y",
    "cheekSquint{}": "CTRL_{s}_eye_cheekRaise y",
    "noseSneer{}": "CTRL_{s}_nose y",
    "tongueOut": "CTRL_C_tongue_inOut y",
}

JAW_TURN_DEG = 17.0
"""How far a jaw's bone turns at weight 1: the chin of the bundled model's face then moves by 25 mm."""
MOUTH_MM = 50.0
"""Width of the mouth to which `MOVES` refer."""

_RIGIFY = {
    "jaw": "jaw_master",
    "upper": "lip.T",
    "lower": "lip.B",
    "upper{}": "lip.T.{s}.001",
    "lower{}": "lip.B.{s}.001",
    "corner{}": "lips.{s} lip_end.{s}.001",
}
_AUTO_RIG_PRO = {
    "jaw": "c_jawbone.x",
    "upper": "c_lips_top.x",
    "lower": "c_lips_bot.x",
    "upper{}": "c_lips_top.{l}",
    "lower{}": "c_lips_bot.{l}",
    "corner{}": "c_lips_smile.{l}",
}

# Outwards, forward, up; more than the skin shall move, as the skin follows a bone in part.
_LIPS_OUT, _CORNERS_IN = (0.0, 8.0, 0.0), (-13.0, 6.0, 0.0)
MOVES: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "mouthPucker": {"upper": _LIPS_OUT, "lower": _LIPS_OUT, "corner{}": _CORNERS_IN},
    "mouthFunnel": {"upper": (0.0, 7.0, 4.0), "lower": (0.0, 7.0, -4.0), "corner{}": (-9.0, 4.0, 0.0)},
    "mouthSmile{}": {"corner{}": (6.5, -2.0, 5.0)},
    "mouthFrown{}": {"corner{}": (1.8, 0.0, -5.0)},
    "mouthStretch{}": {"corner{}": (6.5, -1.0, -1.0)},
    "mouthRollLower": {"lower": (0.0, -3.0, 4.0)},
    "mouthUpperUp{}": {"upper{}": (0.0, 0.0, 6.0)},
    "mouthLowerDown{}": {"lower{}": (0.0, 0.0, -5.0)},
}
"""Channel -> part -> how far its bones move; the jaw turns instead."""


def _slides(described: str) -> tuple[Slide, ...]:
    found = []
    for part in described.split(","):
        bone, axis, *at_one = part.split()
        found.append(Slide(bone, "xyz".index(axis), float(at_one[0]) if at_one else 1.0))
    return tuple(found)


def _board(label: str, table: Mapping[str, str]) -> Board:
    channels = {
        channel.format(side): _slides(bones.format(s=side[:1]))
        for channel, bones in table.items()
        for side in (("Left", "Right") if "{}" in channel else ("",))
    }
    return Board(label, channels)


BOARDS = (_board("MetaHuman control board", _METAHUMAN),)
FACE_BONES = (FaceBones("Rigify face bones", _RIGIFY), FaceBones("Auto-Rig Pro face bones", _AUTO_RIG_PRO))
