# SPDX-License-Identifier: GPL-3.0-or-later
"""Well-known characters are known by the names of their keys, and their mouths open, close and round."""

from __future__ import annotations

import numpy as np
import pytest

from wav2sem_blender.pipeline.composition import composed
from wav2sem_blender.pipeline.face_names import SPEECH_CHANNELS, Row, guess_key_map
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS, Motion
from wav2sem_blender.pipeline.rig_names import RIGS, lid_rows
from wav2sem_blender.pipeline.visemes import VISEME_SETS, as_arkit, as_visemes, measured


def sides(*names: str) -> list[str]:
    return [name.format(side) for name in names for side in ("L", "R")]


def long_sides(*names: str) -> list[str]:
    return [name.format(side) for name in names for side in ("Left", "Right")]


CC4 = [
    *sides("Mouth_Smile_{}", "Mouth_Frown_{}", "Mouth_Stretch_{}", "Mouth_Pucker_Up_{}", "Mouth_Pucker_Down_{}"),
    *sides("Mouth_Funnel_Up_{}", "Mouth_Funnel_Down_{}", "Mouth_Roll_In_Lower_{}", "Mouth_Down_Lower_{}", "Jaw_{}"),
    *("Jaw_Open", "Mouth_Close", "Eye_Blink_L", "Eye_Blink_R"),
]
CC3 = [
    *("Mouth_Open", "Mouth_Pucker", "Mouth_Pucker_Open", "Mouth_Widen_Sides", "Mouth_Lips_Tight", "Mouth_Top_Lip_Up"),
    *("Mouth_Bottom_Lip_Down", "Mouth_Bottom_Lip_Under", "Mouth_Smile_L", "Mouth_Smile_R", "Mouth_L", "Mouth_R"),
]
DAZ_81 = [
    *(f"facs_bs_{name}_div2" for name in ("MouthPucker", "MouthFunnel", "MouthClose", "MouthRollLower")),
    *(f"facs_bs_{name}_div2" for name in long_sides("MouthSmile{}", "MouthLowerDown{}", "EyeBlink{}")),
    *("facs_jnt_JawOpen", "facs_jnt_JawForward", "facs_jnt_JawLeft", "facs_jnt_JawRight"),
]
DAZ_9 = [
    "facs_bs_JawOpen",
    *(
        f"facs_bs_Mouth{n}{v}{s}"
        for n in ("Funnel", "Purse", "Close")
        for v in ("Upper", "Lower")
        for s in ("Left", "Right")
    ),
    *(
        f"facs_bs_{name}"
        for name in long_sides("MouthSmile{}", "MouthStretch{}", "MouthRollLower{}", "MouthLowerDown{}")
    ),
]
FUSE = [
    *("MouthOpen", "Jaw_Down", "LowerLipOut", "UpperLipOut", "LowerLipIn", "UpperLipIn", "JawForward"),
    *long_sides("MouthNarrow_{}", "Smile_{}", "Frown_{}", "LowerLipDown_{}", "UpperLipUp_{}", "Jaw_{}", "Blink_{}"),
]
SRANIPAL = [
    *("Jaw_Open", "Jaw_Left", "Jaw_Right", "Jaw_Forward", "Mouth_Ape_Shape", "Mouth_Pout", "Mouth_Lower_Inside"),
    *("Mouth_Upper_Overturn", "Mouth_Lower_Overturn", "Mouth_Upper_Inside"),
    *long_sides("Mouth_Smile_{}", "Mouth_Upper_Up{}", "Mouth_Lower_Down{}"),
]
UNIFIED = [
    *("JawOpen", "MouthClosed", "LipFunnelUpper", "LipFunnelLower", "LipPuckerUpper", "LipPuckerLower", "LipSuckLower"),
    *("LipSuckUpper", "MouthUpperUp", "MouthLowerDown", "JawLeft", "JawRight", "JawForward"),
    *long_sides("MouthSmile{}", "MouthSad{}", "MouthPress{}"),
]
METAHUMAN_DNA = [
    f"head_lod0_mesh__{name}"
    for name in (
        *("jaw_open", "jaw_left", "jaw_right", "jaw_fwd"),
        *(
            f"mouth_{name}_{part}"
            for name in ("funnel", "lipsPurse", "lipsTogether")
            for part in ("UL", "UR", "DL", "DR")
        ),
        *sides("mouth_cornerPull_{}", "mouth_stretch_{}", "mouth_lowerLipDepress_{}", "mouth_upperLipRaise_{}"),
    )
]
KINDS = {
    "Character Creator keys": CC4,
    "Character Creator 3 keys": CC3,
    "DAZ FACS keys": DAZ_81,
    "DAZ FACS keys (quarters)": DAZ_9,
    "Mixamo Fuse keys": FUSE,
    "SRanipal keys": SRANIPAL,
    "Unified Expressions": UNIFIED,
    "MetaHuman curves": METAHUMAN_DNA,
}
VISEMES = {
    "DAZ": ["eCTRLv{}", "facs_ctrl_v{}", "head__eCTRLv{}"],
    "CHARACTER_CREATOR": ["V_{}", "{}"],
    "PRESTON_BLAIR": ["{}", "mouth_{}"],
}


def posed(**weights: float) -> Motion:
    """A pose that is held for half a second between two open mouths, so that a closure is one."""
    names = tuple(dict.fromkeys((*SPEECH_CHANNELS, *ARKIT_CHANNELS)))
    weights_TK = np.zeros((45, len(names)))
    weights_TK[:, names.index("jawOpen")] = 0.3
    for name in names:
        weights_TK[15:30, names.index(name)] = weights.get(name, 0.0)
    return Motion(weights_TK=weights_TK, channels=names, fps=30.0)


def seen(motion: Motion) -> dict[str, float]:
    return dict(zip(("opening", "jaw", "lip", "width", "protrusion", "tuck"), measured(motion)[22], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rig_is_known_and_its_mouth_opens_closes_and_rounds(kind: str) -> None:
    keys = KINDS[kind]
    found = guess_key_map(["Basis", *keys, "Wrinkle_1"])
    assert found.label == kind.partition(" (")[0] and not found.visemes
    channels = {row.channel for row in found.rows}
    assert {"jawOpen", "mouthPucker"} <= channels and found.can_speak()
    assert len({row.key for row in found.rows}) == len(set(keys)) - (kind == "Mixamo Fuse keys"), (
        "all keys but Jaw_Down"
    )

    def shown(**weights: float) -> dict[str, float]:
        return seen(composed(posed(**weights), channels))

    assert shown(jawOpen=0.5)["opening"] > 12
    assert shown(jawOpen=0.3, mouthClose=0.3)["opening"] < 0.5
    assert shown(jawOpen=0.1, mouthPucker=0.8)["width"] < -4


def test_every_rig_of_the_table_has_a_case() -> None:
    assert {rig.label for rig in RIGS} - {"Mouth Open"} == {kind.partition(" (")[0] for kind in KINDS}
    for rig in RIGS:
        assert all(gain in (0.5, 1.0) for names in rig.names.values() for _, gain in names)


def test_a_channel_over_quarters_and_a_key_for_both_sides() -> None:
    pucker = [row for row in guess_key_map(CC4).rows if row.channel == "mouthPucker"]
    assert [row.key for row in pucker] == [f"Mouth_Pucker_{v}_{s}" for v in ("Up", "Down") for s in "LR"]
    down = [row for row in guess_key_map(CC3).rows if row.key == "Mouth_Bottom_Lip_Down"]
    assert down == [Row(f"mouthLowerDown{side}", "Mouth_Bottom_Lip_Down", 0.5) for side in ("Left", "Right")]


@pytest.mark.parametrize("keys", [["mouthOpen", "mouthSmile"], ["Basis", "MouthOpen"], ["Expressions_mouthOpen_max"]])
def test_one_open_mouth_is_a_jaw(keys: list[str]) -> None:
    found = guess_key_map(keys)
    assert found.can_speak() and found.rows[0].channel == "jawOpen" and found.label == "Mouth Open"


@pytest.mark.parametrize(("name", "spelling"), [(name, s) for name, some in VISEMES.items() for s in some])
def test_viseme_sets_of_rigs(name: str, spelling: str) -> None:
    visemes = VISEME_SETS[name]
    found = guess_key_map(["Basis", *(spelling.format(viseme) for viseme in visemes.names)])
    assert found.visemes == name and found.channels == visemes.names

    def shown(**weights: float) -> dict[str, float]:
        return seen(as_arkit(as_visemes(posed(**weights), visemes), visemes))

    assert shown(jawOpen=0.5)["opening"] > 12
    assert shown(jawOpen=0.3, mouthClose=0.3)["opening"] < 0.5
    assert shown(jawOpen=0.1, mouthPucker=0.8)["width"] < -4


@pytest.mark.parametrize(
    ("keys", "lids"),
    [
        (["Fcl_EYE_Close", "Fcl_EYE_Close_L", "Fcl_EYE_Close_R"], ("Fcl_EYE_Close_L", "Fcl_EYE_Close_R")),
        (["vrc.blink_left", "vrc.blink_right"], ("vrc.blink_left", "vrc.blink_right")),
        (["blink", "blinkLeft", "blinkRight"], ("blinkLeft", "blinkRight")),
        (["Blink_L", "Blink_R"], ("Blink_L", "Blink_R")),
        (["まばたき", "ウィンク", "ウィンク右"], ("ウィンク", "ウィンク右")),
    ],
)
def test_lids_beside_visemes(keys: list[str], lids: tuple[str, str]) -> None:
    assert [row[1] for row in lid_rows(keys)] == list(lids)
    assert guess_key_map([*keys, *"AIUEO"]).channels[5:] == ("eyeBlinkLeft", "eyeBlinkRight")


@pytest.mark.parametrize("both", ["まばたき", "Blink", "Fcl_EYE_Close", "eyesClosed"])
def test_one_key_for_both_lids(both: str) -> None:
    assert lid_rows([both]) == [("eyeBlinkLeft", both, 0.5), ("eyeBlinkRight", both, 0.5)]
    assert lid_rows([both, "ウィンク"]) == lid_rows([both]), "a wink alone is no blink"
    assert lid_rows(["mouthOpen"]) == []
