# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of shape keys on well-known characters that are not ARKit's, and the channels that they play.

One table for all rigs. In a channel, {} stands for Left and Right; in a name, {s} for L and R, {side} for both words.
A channel over several keys (halves and quarters of a mouth) lists them all, and every one that a face has is used.
"*0.5" is a gain: a key for both sides is played by two channels. Names are compared without case and separators.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["LIDS", "RIGS", "Rig", "rows_for"]

_METAHUMAN = {
    "eyeBlink{}": "eyeBlink{s}",
    "eyeLookUp{}": "eyeLookUp{s}",
    "eyeLookDown{}": "eyeLookDown{s}",
    "eyeSquint{}": "eyeSquintInner{s}",
    "eyeWide{}": "eyeWiden{s}",
    "jawForward": "jawFwd",
    "jawRight": "jawRight",
    "jawLeft": "jawLeft",
    "jawOpen": "jawOpen",
    "mouthClose": "mouthLipsTogetherUL mouthLipsTogetherUR mouthLipsTogetherDL mouthLipsTogetherDR",
    "mouthFunnel": "mouthFunnelUL mouthFunnelUR mouthFunnelDL mouthFunnelDR",
    "mouthPucker": "mouthLipsPurseUL mouthLipsPurseUR mouthLipsPurseDL mouthLipsPurseDR",
    "mouthRight": "mouthRight",
    "mouthLeft": "mouthLeft",
    "mouthSmile{}": "mouthCornerPull{s}",
    "mouthFrown{}": "mouthCornerDepress{s}",
    "mouthDimple{}": "mouthDimple{s}",
    "mouthStretch{}": "mouthStretch{s}",
    "mouthRollLower": "mouthLowerLipRollInL mouthLowerLipRollInR",
    "mouthRollUpper": "mouthUpperLipRollInL mouthUpperLipRollInR",
    "mouthShrugLower": "jawChinRaiseDL jawChinRaiseDR",
    "mouthShrugUpper": "jawChinRaiseUL jawChinRaiseUR",
    "mouthPress{}": "mouthLipsPress{s} mouthPressU{s} mouthPressD{s}",
    "mouthLowerDown{}": "mouthLowerLipDepress{s}",
    "mouthUpperUp{}": "mouthUpperLipRaise{s}",
    "browDown{}": "browDown{s}",
    "browInnerUp": "browRaiseInL browRaiseInR",
    "browOuterUp{}": "browRaiseOuter{s}",
    "cheekPuff": "mouthCheekBlowL mouthCheekBlowR",
    "cheekSquint{}": "eyeCheekRaise{s}",
    "noseSneer{}": "noseWrinkle{s}",
    "tongueOut": "tongueOut",
    "tongueTipUp": "tongueTipUp",
}
_CHARACTER_CREATOR_4 = {
    "eyeBlink{}": "Eye_Blink_{s}",
    "eyeSquint{}": "Eye_Squint_{s}",
    "eyeWide{}": "Eye_Wide_{s}",
    "eyeLookUp{}": "Eye_{s}_Look_Up",
    "eyeLookDown{}": "Eye_{s}_Look_Down",
    "eyeLookInLeft": "Eye_L_Look_R",
    "eyeLookInRight": "Eye_R_Look_L",
    "eyeLookOutLeft": "Eye_L_Look_L",
    "eyeLookOutRight": "Eye_R_Look_R",
    "jawForward": "Jaw_Forward",
    "jawLeft": "Jaw_L",
    "jawRight": "Jaw_R",
    "jawOpen": "Jaw_Open",
    "mouthClose": "Mouth_Close",
    "mouthFunnel": "Mouth_Funnel_Up_L Mouth_Funnel_Up_R Mouth_Funnel_Down_L Mouth_Funnel_Down_R Mouth_Funnel",
    "mouthPucker": "Mouth_Pucker_Up_L Mouth_Pucker_Up_R Mouth_Pucker_Down_L Mouth_Pucker_Down_R Mouth_Pucker",
    "mouthLeft": "Mouth_L",
    "mouthRight": "Mouth_R",
    "mouthSmile{}": "Mouth_Smile_{s}",
    "mouthFrown{}": "Mouth_Frown_{s}",
    "mouthDimple{}": "Mouth_Dimple_{s}",
    "mouthStretch{}": "Mouth_Stretch_{s}",
    "mouthPress{}": "Mouth_Press_{s}",
    "mouthRollLower": "Mouth_Roll_In_Lower_L Mouth_Roll_In_Lower_R Mouth_Roll_In_Lower",
    "mouthRollUpper": "Mouth_Roll_In_Upper_L Mouth_Roll_In_Upper_R Mouth_Roll_In_Upper",
    "mouthShrugLower": "Mouth_Shrug_Lower",
    "mouthShrugUpper": "Mouth_Shrug_Upper",
    "mouthLowerDown{}": "Mouth_Down_Lower_{s}",
    "mouthUpperUp{}": "Mouth_Up_Upper_{s}",
    "browDown{}": "Brow_Drop_{s}",
    "browInnerUp": "Brow_Raise_Inner_L Brow_Raise_Inner_R",
    "browOuterUp{}": "Brow_Raise_Outer_{s}",
    "cheekPuff": "Cheek_Puff_L Cheek_Puff_R",
    "cheekSquint{}": "Cheek_Raise_{s}",
    "noseSneer{}": "Nose_Sneer_{s}",
    "tongueOut": "Tongue_Out",
    "tongueTipUp": "Tongue_Up",
}
_CHARACTER_CREATOR_3 = {
    "eyeBlink{}": "Eye_Blink_{s}",
    "jawOpen": "Mouth_Open",
    "mouthFunnel": "Mouth_Pucker_Open",
    "mouthPucker": "Mouth_Pucker",
    "mouthLeft": "Mouth_L",
    "mouthRight": "Mouth_R",
    "mouthSmile{}": "Mouth_Smile_{s}",
    "mouthFrown{}": "Mouth_Frown_{s}",
    "mouthDimple{}": "Mouth_Dimple_{s}",
    "mouthStretch{}": "Mouth_Widen_Sides*0.5",
    "mouthPress{}": "Mouth_Lips_Tight*0.5",
    "mouthRollLower": "Mouth_Bottom_Lip_Under",
    "mouthRollUpper": "Mouth_Top_Lip_Under",
    "mouthLowerDown{}": "Mouth_Bottom_Lip_Down*0.5",
    "mouthUpperUp{}": "Mouth_Top_Lip_Up*0.5",
    "browInnerUp": "Brow_Raise_Inner_L Brow_Raise_Inner_R",
}
_DAZ = {
    **{
        channel: channel
        for channel in (
            *("jawForward", "jawLeft", "jawRight", "jawOpen", "mouthLeft", "mouthRight", "browInnerUp", "cheekPuff"),
            *("tongueOut", "eyeBlink{}", "eyeSquint{}", "eyeWide{}", "mouthSmile{}", "mouthFrown{}", "mouthDimple{}"),
            *("mouthStretch{}", "mouthLowerDown{}", "mouthUpperUp{}", "browDown{}", "browOuterUp{}", "cheekSquint{}"),
            "noseSneer{}",
        )
    },
    **{
        f"mouth{channel}": " ".join(
            (f"mouth{name}", *(f"mouth{name}{v}{s}" for v in ("Upper", "Lower") for s in ("Left", "Right")))
        )
        for channel, name in (("Close", "Close"), ("Funnel", "Funnel"))
    },
    "mouthPucker": "mouthPucker mouthPurseUpperLeft mouthPurseUpperRight mouthPurseLowerLeft mouthPurseLowerRight",
    "mouthPress{}": "mouthPress{side} mouthPressUpper{side} mouthPressLower{side}",
    **{
        f"mouth{name}": f"mouth{name} mouth{name}Left mouth{name}Right"
        for name in ("RollLower", "RollUpper", "ShrugLower", "ShrugUpper")
    },
}
_FUSE = {
    "eyeBlink{}": "Blink_{side}",
    "eyeSquint{}": "Squint_{side}",
    "eyeWide{}": "EyesWide_{side}",
    "jawForward": "JawForward",
    "jawLeft": "Jaw_Left",
    "jawRight": "Jaw_Right",
    "jawOpen": "MouthOpen",
    "mouthFunnel": "LowerLipOut UpperLipOut",
    "mouthPucker": "MouthNarrow_Left MouthNarrow_Right",
    "mouthLeft": "Midmouth_Left",
    "mouthRight": "Midmouth_Right",
    "mouthSmile{}": "Smile_{side}",
    "mouthFrown{}": "Frown_{side}",
    "mouthRollLower": "LowerLipIn",
    "mouthRollUpper": "UpperLipIn",
    "mouthLowerDown{}": "LowerLipDown_{side}",
    "mouthUpperUp{}": "UpperLipUp_{side}",
    "browDown{}": "BrowsDown_{side}",
    "browOuterUp{}": "BrowsUp_{side}",
    "cheekPuff": "CheekPuff_Left CheekPuff_Right",
    "noseSneer{}": "NoseScrunch_{side}",
    "tongueTipUp": "TongueUp",
}
_SRANIPAL = {
    "jawForward": "Jaw_Forward",
    "jawLeft": "Jaw_Left",
    "jawRight": "Jaw_Right",
    "jawOpen": "Jaw_Open",
    "mouthClose": "Mouth_Ape_Shape",
    "mouthFunnel": "Mouth_Upper_Overturn Mouth_Lower_Overturn",
    "mouthPucker": "Mouth_Pout",
    "mouthLeft": "Mouth_Upper_Left Mouth_Lower_Left",
    "mouthRight": "Mouth_Upper_Right Mouth_Lower_Right",
    "mouthSmile{}": "Mouth_Smile_{side}",
    "mouthFrown{}": "Mouth_Sad_{side}",
    "mouthRollLower": "Mouth_Lower_Inside",
    "mouthRollUpper": "Mouth_Upper_Inside",
    "mouthShrugLower": "Mouth_Lower_Overlay",
    "mouthLowerDown{}": "Mouth_Lower_Down{side}",
    "mouthUpperUp{}": "Mouth_Upper_Up{side}",
    "cheekPuff": "Cheek_Puff_Left Cheek_Puff_Right",
    "tongueOut": "Tongue_LongStep1",
}
_UNIFIED = {
    "jawForward": "JawForward",
    "jawLeft": "JawLeft",
    "jawRight": "JawRight",
    "jawOpen": "JawOpen",
    "mouthClose": "MouthClosed",
    "mouthFunnel": "LipFunnelUpper LipFunnelLower LipFunnel",
    "mouthPucker": "LipPuckerUpper LipPuckerLower LipPucker",
    "mouthLeft": "MouthUpperLeft MouthLowerLeft",
    "mouthRight": "MouthUpperRight MouthLowerRight",
    "mouthSmile{}": "MouthSmile{side} MouthCornerPull{side}",
    "mouthFrown{}": "MouthSad{side} MouthFrown{side}",
    "mouthStretch{}": "MouthStretch{side}",
    "mouthDimple{}": "MouthDimple{side}",
    "mouthPress{}": "MouthPress{side}",
    "mouthRollLower": "LipSuckLower",
    "mouthRollUpper": "LipSuckUpper",
    "mouthShrugLower": "MouthRaiserLower",
    "mouthShrugUpper": "MouthRaiserUpper",
    "mouthLowerDown{}": "MouthLowerDown{side} MouthLowerDown*0.5",
    "mouthUpperUp{}": "MouthUpperUp{side} MouthUpperUp*0.5",
}
_TWO_KEYS = {
    "jawOpen": "mouthOpen mouth_open_max",
    "mouthSmile{}": "mouthSmile*0.5",
    "eyeBlink{}": "eyesClosed*0.5",
}


class Rig(NamedTuple):
    """A kind of character: its name for users, and for each channel the plain names of its keys, with gains."""

    label: str
    names: Mapping[str, tuple[tuple[str, float], ...]]


def _expanded(table: Mapping[str, str]) -> dict[str, tuple[tuple[str, float], ...]]:
    """Channel -> plain names and gains, with both sides written out."""
    expanded: dict[str, tuple[tuple[str, float], ...]] = {}
    for channel, names in table.items():
        for side in ("Left", "Right") if "{}" in channel else ("",):
            described = names.replace("{}", side).format(s=side[:1], side=side)
            parts = (name.partition("*") for name in described.split())
            expanded[channel.format(side)] = tuple((_plain(name), float(gain or 1)) for name, _, gain in parts)
    return expanded


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


RIGS: tuple[Rig, ...] = tuple(
    Rig(label, _expanded(table))
    for label, table in (
        # The first of equals: a single MouthOpen tells nothing of its maker.
        ("Mouth Open", _TWO_KEYS),
        ("MetaHuman curves", _METAHUMAN),
        ("Character Creator keys", _CHARACTER_CREATOR_4),
        ("Character Creator 3 keys", _CHARACTER_CREATOR_3),
        ("DAZ FACS keys", _DAZ),
        ("Mixamo Fuse keys", _FUSE),
        ("SRanipal keys", _SRANIPAL),
        ("Unified Expressions", _UNIFIED),
    )
)
LIDS = _expanded(
    {
        "eyeBlink{}": "eyeBlink{s} eyeBlink{side} blink{s} blink{side} Fcl_EYE_Close_{s} "
        "vrc.blink_{side} wink{s} wink{side}"
    }
)
"""Lids of faces with visemes: VRM, VRoid, VRChat."""
_WINKS = {"eyeBlinkLeft": ("ウィンク", "ｳｨﾝｸ"), "eyeBlinkRight": ("ウィンク右", "ｳｨﾝｸ右")}
_BOTH_LIDS = tuple(map(_plain, ("blink", "Fcl_EYE_Close", "vrc.blink", "eyesClosed", "まばたき", "eyeBlink")))
# What exporters put around a name.
_AROUND = re.compile(
    r"^(ctrlexpressions|facsbs|facsjnt|facsctrl|facs|expressions|headlod\d+mesh|face\w*?mf\d+|faceblendshapes?|blendshapes?)"
    r"|div2$"
)


def rows_for(rig: Rig, channels: Iterable[str], keys: Iterable[str]) -> list[tuple[str, str, float]]:
    """Channel, key and gain, in the order of the channels, for every key of a face that the rig names."""
    by_name = names_of(keys)
    return [
        (channel, by_name[name], gain)
        for channel in channels
        for name, gain in rig.names.get(channel, ())
        if name in by_name
    ]


def lid_rows(keys: Iterable[str]) -> list[tuple[str, str, float]]:
    """Channel, key and gain of the lids of a face with visemes: one key for each eye, or one for both."""
    by_name = names_of(keys)
    rows = []
    for channel, names in LIDS.items():
        known = (*(name for name, _ in names), *map(_plain, _WINKS[channel]))
        found = next((by_name[name] for name in known if name in by_name), None)
        if found is not None:
            rows.append((channel, found, 1.0))
    both = next((by_name[name] for name in _BOTH_LIDS if name in by_name), None)
    if len(rows) == 2 or both is None:
        return rows if len(rows) == 2 else []
    return [(channel, both, 0.5) for channel in LIDS]


def names_of(keys: Iterable[str]) -> dict[str, str]:
    """Plain name -> key, without what exporters put around it; the plainest spelling wins."""
    found: dict[str, str] = {}
    for key in sorted(keys, key=len):
        own = re.split(r"[.:|]|__", key)
        for name in (_plain(key), _plain(own[-1])):
            while name:
                found.setdefault(name, key)
                shorter = _AROUND.sub("", name)
                if shorter == name:
                    break
                name = shorter
    return found
