# SPDX-License-Identifier: GPL-3.0-or-later
"""Key names: known spellings are matched, similar names are not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.face_names import SPEECH_CHANNELS, KeyMap, Row, guess_key_map, match_channels
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS

RNG = np.random.default_rng(7)

OCULUS = "sil PP FF TH DD kk CH SS nn RR aa E I O U".split()
OCULUS_SOUNDS = "sil PP FF TH DD kk CH SS nn RR aa E ih oh ou".split()


class TestARKitNames:
    @pytest.mark.parametrize(
        ("channel", "keys"),
        [
            (
                "jawOpen",
                "jawOpen JawOpen jawopen JAWOPEN JAW_OPEN jaw_open Jaw-Open A25_Jaw_Open A25_jawOpen 01_jawOpen "
                "blendShape.jawOpen blendShape1.jawOpen head:jawOpen |head|jawOpen bs_jawOpen BS_JawOpen ARKit_jawOpen "
                "facs_jawOpen jawOpen_BS BlendShape_jawOpen Face_geo.blendShape1.Jaw_Open CTRL_expressions_jawOpen "
                "CTRL_expressions.jawOpen",
            ),
            (
                "mouthSmileLeft",
                "mouthSmileLeft MouthSmileLeft mouthSmile_L MouthSmile_L mouthSmile.L mouthSmile.l mouth_smile_left "
                "Mouth_Smile_L A38_Mouth_Smile_Left mouthSmileL L_mouthSmile Left_Mouth_Smile head.mouthSmile.L "
                "mouth_smile_l mouthsmileleft blendShape2.mouthSmile_L",
            ),
            ("mouthLeft", "mouthLeft Mouth_Left mouth_L Mouth_L A31_Mouth_Left"),
            ("jawRight", "JawRight jaw_R Jaw_Right"),
            ("eyeLookInRight", "Eye_Look_In_R eyeLookIn_R EyeLookInRight A10_Eye_Look_In_Right"),
            ("mouthRollUpper", "Mouth_Roll_Upper mouthRollUpper"),
            ("browInnerUp", "A01_Brow_Inner_Up brow_inner_up"),
            ("tongueOut", "tongueOut Tongue_Out A52_Tongue_Out tongue_out CTRL_expressions_tongueOut"),
            (
                "tongueTipUp",
                "tongueTipUp Tongue_Tip_Up T06_Tongue_Tip_Up TongueTipUp Tongue_Up T01_Tongue_Up tongueUp V_Tongue_Up "
                "V_Tongue_Raise TongueCurlUp",
            ),
        ],
    )
    def test_usual_spellings(self, channel, keys):
        for key in keys.split():
            assert match_channels([channel], ["Basis", key, "other"]) == {channel: key}

    def test_the_tip_is_preferred_to_the_whole_tongue(self):
        keys = ["Tongue_Up", "Tongue_Tip_Up", "Tongue_Tip_Down", "Tongue_Out"]
        assert match_channels(["tongueTipUp"], keys) == {"tongueTipUp": "Tongue_Tip_Up"}
        for key in ("Tongue_Tip_Down", "Tongue_Down", "Tongue_Tip_Left", "Tongue_Tip_Up_L", "Tongue"):
            assert match_channels(["tongueTipUp"], [key]) == {}

    def test_a_guess_includes_the_tongue(self):
        assert guess_key_map([*ARKIT_CHANNELS, "Tongue_Up"]).rows[-1] == Row("tongueTipUp", "Tongue_Up")

    def test_spaces(self):
        assert match_channels(["jawOpen"], ["Jaw Open"]) == {"jawOpen": "Jaw Open"}

    @pytest.mark.parametrize(
        "key",
        [
            *(
                "mouthSmile",
                "Smile",
                "jawOpen50",
                "jawOpen_50",
                "jawOpen.001",
                "jawOpen_mouthClose",
                "jawOpenMouthClose",
            ),
            *("jawOpen.mouthClose", "cor_jawOpen", "jawOpenLeft", "mouthSmile_L_R", "mouthSmileLeftRight", "mouth"),
            *("jaw", "Basis", "", "L", "left", "_L", "notJawOpen", "jawOpened", "mouthPucker_L", "browInnerUp_L"),
            *("eyeBlinkL2", "JawOpenÄ", "jaw open wide", "...", "A25_", "key_00", "bs", "mouthClose+"),
        ],
    )
    def test_no_false_matches(self, key):
        assert match_channels([name for name in ARKIT_CHANNELS if name != "mouthClose"], [key]) == {}
        if key.startswith("jawOpen"):
            assert match_channels(["mouthClose"], [key]) == {}

    @pytest.mark.parametrize(
        "spelling",
        [
            lambda name: name,
            lambda name: name[0].upper() + name[1:],
            lambda name: "".join("_" + c.lower() if c.isupper() else c for c in name),
            lambda name: "A7_" + "".join("_" + c if c.isupper() else c for c in name).title(),
            lambda name: "Head_Mesh." + name,
            lambda name: name.replace("Left", "_L").replace("Right", "_R"),
            lambda name: name.replace("Left", ".l").replace("Right", ".r"),
            str.upper,
            lambda name: "c_headWatson_" + name,
            lambda name: "Fcl_Bob2_" + name,
            lambda name: name + "_Bob",
            lambda name: name.replace("Left", "_L").replace("Right", "_R") + "_Bob",
            lambda name: "facs_jnt_" + name[0].upper() + name[1:],
        ],
    )
    def test_all_52_find_their_own_key(self, spelling):
        keys = [spelling(name) for name in ARKIT_CHANNELS]
        RNG.shuffle(keys)
        assert match_channels(ARKIT_CHANNELS, keys) == {name: spelling(name) for name in ARKIT_CHANNELS}

    def test_the_plainest_key_wins(self):
        keys = ["A25_Jaw_Open", "Jaw_Open", "JAWOPEN", "jawOpen"]
        while keys:
            assert match_channels(["jawOpen"], keys) == {"jawOpen": keys.pop()}

    def test_other_channels_match_by_name_only(self):
        assert match_channels(["key_00", "bias"], ["bs_00", "00", "Key_00", "BIAS"]) == {
            "key_00": "Key_00",
            "bias": "BIAS",
        }

    def test_no_key_is_used_twice(self):
        assert match_channels(["a", "A"], ["A"]) in ({"A": "A"}, {"a": "A"})

    def test_a_word_around_few_names_is_no_decoration(self):
        keys = [f"cor_{name}" for name in ("jawOpen", "mouthClose", "mouthPucker", "mouthFunnel", "mouthLeft")]
        assert match_channels(ARKIT_CHANNELS, keys) == {}

    def test_plain_names_win_over_decorated_ones(self):
        keys = [f"old_{name}" for name in ARKIT_CHANNELS] + ["jawOpen"]
        assert match_channels(ARKIT_CHANNELS, keys)["jawOpen"] == "jawOpen"


class TestVisemeNames:
    @pytest.mark.parametrize(
        "spelling",
        [
            *("viseme_{}", "Viseme.{}", "vrc.v_{}", "v_{}", "{}", "Head.blendShape1.viseme_{}", "mouth {}"),
            *("OVR_{}", "viseme{}", "{}_viseme", "Lip-{}"),
        ],
    )
    @pytest.mark.parametrize("names", [OCULUS, OCULUS_SOUNDS, [name.lower() for name in OCULUS]])
    def test_oculus(self, spelling, names):
        keys = ["Basis", "mouthOpen", "mouthSmile", *(spelling.format(name) for name in names)]
        found = guess_key_map(keys)
        assert found.visemes == "OCULUS"
        assert found.rows == tuple(Row(v, spelling.format(n)) for v, n in zip(OCULUS, names, strict=True))
        assert found.summary() == "Oculus visemes, 15 of 15 found"

    @pytest.mark.parametrize(
        ("names", "spelling"),
        [
            ("A I U E O", "{}"),
            ("a i u e o", "{}"),
            ("A I U E O", "Fcl_MTH_{}"),
            ("A I U E O", "Face.M_F00_000_00_Fcl_MTH_{}"),
            ("A I U E O", "blendShape1.MTH_{}"),
            ("A I U E O", "mouth{}"),
            ("aa ih ou ee oh", "{}"),
            ("aa ih ou ee oh", "vowel_{}"),
            ("あ い う え お", "{}"),
        ],
    )
    def test_vrm(self, names, spelling):
        keys = [spelling.format(name) for name in names.split()]
        others = ["Fcl_MTH_Angry", "Fcl_EYE_Close", "Fcl_MTH_Up", "Basis", "Fcl_ALL_Joy", "にやり"]
        found = guess_key_map([*others, *keys])
        assert found.visemes == "VRM"
        assert found.rows[:5] == tuple(Row(v, key) for v, key in zip("AIUEO", keys, strict=True))
        assert found.rows[5:] == (
            Row("eyeBlinkLeft", "Fcl_EYE_Close", 0.5),
            Row("eyeBlinkRight", "Fcl_EYE_Close", 0.5),
        ), "one key for both lids"

    @pytest.mark.parametrize("spelling", ["{}", "mouth_{}", "Viseme_{}", "Mouth{}", "Rhubarb.{}", "{}_mouth"])
    @pytest.mark.parametrize("names", ["ABCDEF", "ABCDEFGHX", "abcdefgx"])
    def test_rhubarb(self, spelling, names):
        found = guess_key_map(["Basis", "smile", *(spelling.format(name) for name in names)])
        assert found.visemes == "RHUBARB"
        assert found.rows == tuple(Row(name.upper(), spelling.format(name)) for name in names)
        assert found.summary() == f"Rhubarb mouth shapes, {len(names)} of 9 found"

    @pytest.mark.parametrize(
        "keys",
        [
            "A B C D E",  # Rhubarb without its F
            "A I U E",
            "A I U E mouth_O",  # not the same words around them
            "Smile_A Smiley_I Smile_U Smile_E Smile_O",
            "hand_A hand_B hand_C hand_D hand_E hand_F",
            "eye_A eye_I eye_U eye_E eye_O",
            "Basilica Alumni Emu Cafe Solo",  # they end in a, i, u, e, o
            "viseme_PP viseme_FF viseme_aa viseme_E",
            "A.001 I.001 U.001 E.001 O.001",
            "A_L I_L U_L E_L O_L",
            "Basis Key_1 Key_2 Key_3",
            "",
        ],
    )
    def test_no_false_matches(self, keys):
        assert guess_key_map(keys.split()).rows == ()

    def test_muscles_are_preferred_when_both_are_there(self):
        keys = [f"viseme_{name}" for name in OCULUS] + list(ARKIT_CHANNELS)
        assert guess_key_map(keys).visemes == ""
        assert guess_key_map(keys).summary() == "ARKit keys, 27 of 27 found"

    def test_visemes_are_preferred_to_few_muscles(self):
        keys = [f"viseme_{name}" for name in OCULUS] + ["jawOpen", "mouthPucker", "eyeBlinkLeft"]
        assert guess_key_map(keys).visemes == "OCULUS"
        assert guess_key_map(keys[15:]).summary() == "ARKit keys, 2 of 27 found"

    def test_closures_are_preferred_to_vowels(self):
        assert guess_key_map([*"AIUEO", *(f"vrc.v_{name}" for name in OCULUS)]).visemes == "OCULUS"

    def test_order_of_keys_does_not_matter(self):
        keys = [f"viseme_{name}" for name in OCULUS]
        RNG.shuffle(keys)
        assert guess_key_map(keys) == guess_key_map([f"viseme_{name}" for name in OCULUS])


METAHUMAN = {
    "jawOpen": ["jawOpen"],
    "jawForward": ["jawFwd"],
    "mouthFunnel": ["mouthFunnelUL", "mouthFunnelUR", "mouthFunnelDL", "mouthFunnelDR"],
    "mouthClose": ["mouthLipsTogetherUL", "mouthLipsTogetherUR", "mouthLipsTogetherDL", "mouthLipsTogetherDR"],
    "mouthPucker": ["mouthLipsPurseUL", "mouthLipsPurseUR", "mouthLipsPurseDL", "mouthLipsPurseDR"],
    "mouthSmileLeft": ["mouthCornerPullL"],
    "mouthFrownRight": ["mouthCornerDepressR"],
    "mouthRollLower": ["mouthLowerLipRollInL", "mouthLowerLipRollInR"],
    "mouthPressLeft": ["mouthLipsPressL"],
    "mouthUpperUpRight": ["mouthUpperLipRaiseR"],
    "mouthLowerDownLeft": ["mouthLowerLipDepressL"],
    "eyeBlinkRight": ["eyeBlinkR"],
}


@pytest.mark.parametrize("prefix", ["CTRL_expressions_", "", "ctrl_expressions_", "head:CTRL_expressions_"])
def test_metahuman(prefix):
    found = guess_key_map(["Basis", *(prefix + key for keys in METAHUMAN.values() for key in keys)])
    assert found.label == "MetaHuman curves"
    for channel, keys in METAHUMAN.items():
        assert [row.key for row in found.rows if row.channel == channel] == [prefix + key for key in keys]
        assert all(row.gain == 1 for row in found.rows)
    assert found.summary() == "MetaHuman curves, 11 of 27 found"


def test_arkit_is_no_metahuman():
    assert guess_key_map(ARKIT_CHANNELS).label == "ARKit keys"
    assert guess_key_map(ARKIT_CHANNELS).channels == ARKIT_CHANNELS
    assert len(SPEECH_CHANNELS) == 27


def test_eyes_alone_cannot_speak():
    assert not guess_key_map(["eyeBlinkLeft", "browInnerUp"]).can_speak()
    assert guess_key_map(["eyeBlinkLeft", "jawOpen"]).can_speak()
    assert guess_key_map([f"viseme_{name}" for name in OCULUS]).can_speak()


class TestProblems:
    KEYS = ("jawOpen", "mouthPucker")

    def said(self, *rows, visemes=""):
        return " | ".join(KeyMap(rows=rows, visemes=visemes).problems(self.KEYS))

    def test_nothing_to_say(self):
        assert self.said(Row("jawOpen", "jawOpen"), Row("jawOpen", "mouthPucker", -0.5)) == ""

    def test_each_fault_is_named(self):
        assert "mapping is empty" in self.said()
        assert "no shape key" in self.said(Row("jawOpen", ""))
        assert "no channel" in self.said(Row("", "jawOpen"))
        assert "No such shape key here: gone" in self.said(Row("jawOpen", "gone"))
        assert "same channel" in self.said(Row("jawOpen", "jawOpen"), Row("jawOpen", "jawOpen", 2.0))
        assert "Not one of the Oculus visemes: jawOpen" in self.said(Row("jawOpen", "jawOpen"), visemes="OCULUS")


class TestFile:
    MAP = KeyMap(rows=(Row("PP", "Münd_PP", 1.0), Row("aa", "open", -0.25)), visemes="OCULUS", label="Oculus visemes")

    def test_round_trip(self, tmp_path):
        self.MAP.save(tmp_path / "map.json")
        assert KeyMap.load(tmp_path / "map.json") == self.MAP
        assert list(tmp_path.iterdir()) == [tmp_path / "map.json"]

    def test_a_failed_save_leaves_the_old_file(self, tmp_path, monkeypatch):
        self.MAP.save(tmp_path / "map.json")
        before = (tmp_path / "map.json").read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.replace", full)
        with pytest.raises(UserError, match="No space left"):
            KeyMap(rows=()).save(tmp_path / "map.json")
        assert (tmp_path / "map.json").read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1

    def test_missing(self, tmp_path):
        with pytest.raises(MissingFileError, match="no such mapping file"):
            KeyMap.load(tmp_path / "none.json")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: [], "no key mapping"),
            (lambda c: {"rows": []}, "no key mapping"),
            (lambda c: c | {"version": 2}, "mapping format 2.*Update"),
            (lambda c: c | {"visemes": "Disney"}, "no viseme set 'Disney'; known are OCULUS"),
            (lambda c: c | {"visemes": None}, "no viseme set None"),
            (lambda c: {k: v for k, v in c.items() if k != "rows"}, "the entry rows is missing"),
            (lambda c: c | {"rows": [["jawOpen", "a", 1]]}, "row 1 must have"),
            (lambda c: c | {"rows": [*c["rows"], {"channel": "a", "key": 3, "gain": 1}]}, "row 3: channel and key"),
            (lambda c: c | {"rows": [{"channel": "a", "key": "b", "gain": "1"}]}, "row 1: the gain is '1'"),
            (lambda c: c | {"rows": [{"channel": "a", "key": "b", "gain": float("nan")}]}, "it has the number NaN"),
            (lambda c: c | {"rows": [{"channel": "a", "key": "b", "gain": 101}]}, "-100 to 100"),
        ],
    )
    def test_damaged(self, tmp_path, change, message):
        path = tmp_path / "map.json"
        self.MAP.save(path)
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        with pytest.raises(UserError, match=message):
            KeyMap.load(path)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_no_json(self, tmp_path, content):
        (tmp_path / "map.json").write_bytes(content)
        with pytest.raises(UserError, match="map.json: no JSON file"):
            KeyMap.load(tmp_path / "map.json")
