# SPDX-License-Identifier: GPL-3.0-or-later
"""The key mapping: guessed, edited, saved and shared; a run follows it and reports its faults."""

import json
import re
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.scene import checks, key_mapping
from wav2sem_blender.blender.ui import jaw_bone as jaw_bone_panel
from wav2sem_blender.blender.ui import key_mapping_panel, status
from wav2sem_blender.pipeline.face_names import KeyMap, Row
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.visemes import OCULUS, as_visemes

from .applied import apply_motion  # noqa: TID252

N_FRAMES = 60


def keyed_head(name, key_names):
    """A triangle with shape keys, each of which moves in a direction of its own."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    head = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(head)
    bpy.context.view_layer.objects.active = head
    head.shape_key_add(name="Basis")
    for number, key in enumerate(key_names):
        head.shape_key_add(name=key, from_mix=False).data[0].co = (number + 1, 0, 0)
    return head


def arkit_motion(**weights):
    """A jaw that opens and closes twice in two seconds; other channels are constant."""
    jaw_T = 0.5 * np.square(np.sin(np.arange(N_FRAMES) / N_FRAMES * 2 * np.pi))
    columns = {"jawOpen": jaw_T, **{name: np.full(N_FRAMES, value) for name, value in weights.items()}}
    weights_TK = np.stack(list(columns.values()), axis=1)
    return Motion(weights_TK=weights_TK, channels=tuple(columns), fps=24.0, info={"audio": "a.wav"})


def speak(head, motion=None, **options):
    return apply_motion(bpy.context, head, motion or arkit_motion(), **options)


def rows_of(head):
    return [(row.channel, row.key, row.gain) for row in head.wav2sem_mapping]


class TestNames:
    def test_visemes_are_written(self, curves_of):
        head = keyed_head("Head", [f"viseme_{name}" for name in OCULUS.names])
        outcome = speak(head)
        expected = as_visemes(arkit_motion(), OCULUS)
        curves = curves_of(head)
        assert outcome.n_curves == 15 and set(curves) == {f"viseme_{name}" for name in OCULUS.names}
        for name, wanted_T in zip(expected.channels, expected.weights_TK.T, strict=True):
            np.testing.assert_allclose(curves[f"viseme_{name}"][1][4:-4], wanted_T[4:-4], atol=1e-6)
        assert curves["viseme_aa"][1].max() > 0.3
        assert outcome.warnings == ()

    def test_metahuman_curves_in_fours(self, curves_of):
        quarters = [f"CTRL_expressions_mouthFunnel{part}" for part in ("UL", "UR", "DL", "DR")]
        head = keyed_head("Head", ["CTRL_expressions_jawOpen", "CTRL_expressions_mouthCornerPullL", *quarters])
        speak(head, arkit_motion(mouthFunnel=0.4))
        curves = curves_of(head)
        for key in quarters:
            np.testing.assert_allclose(curves[key][1][4:-4], 0.4, atol=1e-6)
        assert "CTRL_expressions_mouthCornerPullL" not in curves

    def test_visemes_need_an_arkit_motion(self):
        head = keyed_head("Head", list("AIUEO"))
        motion = Motion(weights_TK=np.zeros((3, 1)), channels=("key_00",), fps=24.0)
        with pytest.raises(ValueError, match="no shape key for any of the model's 1 channels"):
            speak(head, motion)

    @pytest.mark.parametrize(
        ("keys", "words", "can_speak"),
        [
            ([f"viseme_{name}" for name in OCULUS.names], "Oculus visemes, 15 of 15 found", True),
            (list("AIUEO"), "VRM vowels, 5 of 5 found", True),
            (list("ABCDEFGHX"), "Rhubarb mouth shapes, 9 of 9 found", True),
            (["jawOpen", "mouthSmile_L", "eyeBlink_L"], "ARKit keys, 2 of 27 found", True),
            (["CTRL_expressions_jawFwd", "mouthCornerPullL"], "MetaHuman curves, 2 of 27 found", True),
            (["eyeBlinkLeft"], "No mouth keys; make some with Any Head, or fill in Key Mapping", False),
            ([], "No mouth keys", False),
        ],
    )
    def test_preflight_in_words(self, keys, words, can_speak):
        found, ready = checks.recognised(keyed_head("Head", keys))
        assert re.match(words, found), found
        assert ready == can_speak

    def test_preflight_of_flame_and_of_a_lamp(self, flame_head):
        assert checks.recognised(flame_head) == ("FLAME mesh; its shape keys are made by the first run", True)
        lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "POINT"))
        assert checks.recognised(lamp) == ("Not a mesh; choose the head's mesh", False)


class TestTable:
    def test_guess_fills_it_and_a_run_follows_what_was_edited(self, head, curves_of):
        assert bpy.ops.wav2sem.guess_mapping() == {"FINISHED"}
        assert rows_of(head) == [
            ("jawOpen", "jawOpen", 1.0),
            ("mouthPucker", "mouthPucker", 1.0),
            ("mouthSmileLeft", "mouthSmile_L", 1.0),
        ]
        rows = head.wav2sem_mapping
        rows[0].gain = 0.5
        rows[1].key = "jawOpen"
        rows[1].gain = -1.0
        speak(head, arkit_motion(mouthPucker=0.1))
        curves = curves_of(head)
        assert set(curves) == {"jawOpen"}
        jaw_T = arkit_motion().weights_TK[:, 0]
        np.testing.assert_allclose(curves["jawOpen"][1][4:-4], 0.5 * jaw_T[4:-4] - 0.1, atol=1e-6)
        assert head.data.shape_keys.key_blocks["jawOpen"].slider_min == pytest.approx(-0.1)
        rows[0].gain = 1.0
        outcome = speak(head, arkit_motion(mouthPucker=0.1))
        np.testing.assert_allclose(curves_of(head)["jawOpen"][1][4:-4], jaw_T[4:-4] - 0.1, atol=1e-6)
        assert len(bpy.data.actions) == 1, outcome

    def test_visemes_with_gains(self, curves_of):
        head = keyed_head("Head", [f"viseme_{name}" for name in OCULUS.names])
        bpy.ops.wav2sem.guess_mapping()
        assert head.wav2sem_mapping_channels == "OCULUS"
        next(row for row in head.wav2sem_mapping if row.channel == "aa").gain = 2.0
        speak(head)
        expected = as_visemes(arkit_motion(), OCULUS)
        aa_T = expected.weights_TK[:, expected.channels.index("aa")]
        np.testing.assert_allclose(curves_of(head)["viseme_aa"][1][4:-4], 2 * aa_T[4:-4], atol=1e-6)

    def test_a_viseme_without_a_key_is_replaced_by_its_like(self, curves_of):
        head = keyed_head("Head", [f"viseme_{name}" for name in OCULUS.names])
        bpy.ops.wav2sem.guess_mapping()
        rows = head.wav2sem_mapping
        rows.remove(next(i for i, row in enumerate(rows) if row.channel == "aa"))
        speak(head)
        curves = curves_of(head)
        assert "viseme_aa" not in curves
        assert max(values.max() for name, (_, values) in curves.items() if name != "viseme_sil") > 0.3

    def test_rows_by_hand_on_a_face_with_names_of_its_own(self, curves_of, animate):
        head = keyed_head("Head", ["Kiefer", "Mund"])
        with pytest.raises(RuntimeError, match="no shape keys with ARKit names .* or fill in Key Mapping"):
            animate("ok")
        bpy.ops.wav2sem.add_mapping_row()
        row = head.wav2sem_mapping[head.wav2sem_mapping_active]
        row.channel, row.key = "jawOpen", "Kiefer"
        assert checks.recognised(head) == ("Key mapping, 1 channels on 1 shape keys", True)
        animate("ok")
        assert set(curves_of(head)) == {"Kiefer"}

    def test_remove_and_clear_lead_back_to_the_names(self, head):
        bpy.ops.wav2sem.guess_mapping()
        head.wav2sem_mapping_active = 2
        bpy.ops.wav2sem.remove_mapping_row()
        assert [row[0] for row in rows_of(head)] == ["jawOpen", "mouthPucker"]
        assert head.wav2sem_mapping_active == 1
        bpy.ops.wav2sem.clear_mapping()
        assert key_mapping.stored(head) is None
        assert key_mapping.in_use(head).summary() == "ARKit keys, 3 of 27 found"

    def test_it_is_saved_with_the_file(self, head, tmp_path):
        bpy.ops.wav2sem.guess_mapping()
        head.wav2sem_mapping[1].gain = 0.25
        before = rows_of(head)
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "a.blend"))
        assert rows_of(bpy.data.objects["Head"]) == before

    def test_each_character_has_its_own(self, head):
        other = keyed_head("Other", list("AIUEO"))
        bpy.ops.wav2sem.guess_mapping()
        assert key_mapping.stored(head) is None
        assert other.wav2sem_mapping_channels == "VRM"


class TestValidation:
    def test_a_key_that_is_gone_is_a_warning(self, head, curves_of):
        bpy.ops.wav2sem.guess_mapping()
        head.data.shape_keys.key_blocks["mouthPucker"].name = "renamed"
        outcome = speak(head, arkit_motion(mouthPucker=0.1))
        assert any("No such shape key here: mouthPucker" in warning for warning in outcome.warnings)
        assert set(curves_of(head)) == {"jawOpen"}

    def test_a_table_that_moves_nothing_is_an_error(self, head):
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", "gone"), Row("", "jawOpen"), Row("mouthPucker", ""))))
        with pytest.raises(ValueError, match="key mapping moves nothing.*no shape key.*no channel.*No such.*gone"):
            speak(head)
        assert bpy.data.actions[:] == []

    def test_a_table_for_another_model_says_so(self, head):
        key_mapping.store(head, KeyMap(rows=(Row("key_00", "jawOpen"),)))
        with pytest.raises(ValueError, match=r"None of its channels is the model's \(jawOpen\)"):
            speak(head)

    def test_a_muted_or_driven_key_in_the_table(self, head):
        bpy.ops.wav2sem.guess_mapping()
        head.data.shape_keys.key_blocks["jawOpen"].mute = True
        with pytest.raises(ValueError, match="shape key jawOpen is muted"):
            speak(head)

    def test_a_driven_corrective_is_left_alone(self, curves_of):
        head = keyed_head("Head", ["jawOpen", "mouthFunnel", "mouthPucker", "mouthDimpleLeft", "mouthDimpleRight"])
        head.data.shape_keys.key_blocks["mouthDimpleLeft"].driver_add("value")
        weights = {"mouthDimpleLeft": 0.3, "mouthDimpleRight": 0.3, "mouthFunnel": 0.1, "mouthPucker": 0.1}
        outcome = speak(head, arkit_motion(**weights))
        assert "mouthDimpleLeft" not in curves_of(head) and "jawOpen" in curves_of(head)
        assert '"Head": mouthDimpleLeft left alone: muted, or moved by a driver.' in outcome.warnings
        head.data.shape_keys.key_blocks["jawOpen"].mute = True
        with pytest.raises(ValueError, match="shape key jawOpen is muted"):
            speak(head, arkit_motion(**weights))

    def test_a_driven_viseme_is_made_of_the_others(self, curves_of):
        head = keyed_head("Head", [f"viseme_{name}" for name in OCULUS.names])
        head.data.shape_keys.key_blocks["viseme_aa"].driver_add("value")
        speak(head)
        assert "viseme_aa" not in curves_of(head) and curves_of(head)["viseme_E"][1].max() > 0.3

    def test_too_large_a_gain(self, head):
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", "jawOpen", 50.0),)))
        with pytest.raises(ValueError, match='"jawOpen" would need the value .* or the key\'s gain under Key Mapping'):
            speak(head)
        assert bpy.data.actions[:] == []

    def test_nothing_is_guessed_from_unknown_names(self, head):
        for block in head.data.shape_keys.key_blocks[1:]:
            block.name = "x"
        key_mapping.store(head, KeyMap(rows=(Row("jawOpen", "x"),)))
        with pytest.raises(RuntimeError, match="None of the shape keys has a known name"):
            bpy.ops.wav2sem.guess_mapping()
        assert rows_of(head) == [("jawOpen", "x", 1.0)]

    def test_buttons_say_why_they_are_disabled(self, head):
        assert key_mapping_panel.WAV2SEM_OT_clear_mapping.missing(head) == "The table has no rows"
        assert key_mapping_panel.blocked_reason(None) == "Choose a mesh, or select one"
        bare = keyed_head("Bare", [])
        bare.shape_key_clear()
        assert key_mapping_panel.WAV2SEM_OT_guess_mapping.missing(bare) == '"Bare" has no shape keys'
        assert "press Guess, or add rows" in key_mapping_panel.WAV2SEM_OT_save_mapping.missing(bare)
        bpy.context.view_layer.objects.active = None
        for operator in key_mapping_panel.CLASSES:
            if issubclass(operator, bpy.types.Operator):
                assert not operator.poll(bpy.context)


class TestFile:
    def test_shared_with_another_character(self, tmp_path):
        first = keyed_head("First", [f"viseme_{name}" for name in OCULUS.names])
        bpy.ops.wav2sem.guess_mapping()
        first.wav2sem_mapping[1].gain = 0.75
        path = str(tmp_path / "visemes.json")
        bpy.ops.wav2sem.save_mapping(filepath=path)
        second = keyed_head("Second", [f"viseme_{name}" for name in OCULUS.names])
        bpy.ops.wav2sem.load_mapping(filepath=path)
        assert rows_of(second) == rows_of(first)
        assert second.wav2sem_mapping_channels == "OCULUS"

    def test_what_was_guessed_can_be_saved_without_a_table(self, head, tmp_path):
        bpy.ops.wav2sem.save_mapping(filepath=str(tmp_path / "a.json"))
        assert len(json.loads((tmp_path / "a.json").read_text())["rows"]) == 3
        assert key_mapping.stored(head) is None

    def test_a_damaged_file_leaves_the_table(self, head, tmp_path):
        bpy.ops.wav2sem.guess_mapping()
        before = rows_of(head)
        (tmp_path / "a.json").write_text('{"format": "something else"}')
        for name, message in (("a.json", "no key mapping"), ("none.json", "no such mapping file")):
            with pytest.raises(RuntimeError, match=message):
                bpy.ops.wav2sem.load_mapping(filepath=str(tmp_path / name))
            assert rows_of(head) == before

    def test_a_folder_that_is_not_there(self, head, tmp_path):
        with pytest.raises(RuntimeError, match="cannot be written"):
            bpy.ops.wav2sem.save_mapping(filepath=str(tmp_path / "none" / "a.json"))


class Layout:
    """A fake layout: it checks that the drawn properties exist and records the texts."""

    ICONS = bpy.types.UILayout.bl_rna.functions["label"].parameters["icon"].enum_items.keys()

    def __init__(self, words=None):
        self.words = [] if words is None else words

    def row(self, **_options):
        return Layout(self.words)

    column = split = row

    def label(self, text, icon="NONE", **_options):
        assert icon in self.ICONS
        self.words.append(text)

    def operator(self, name, text=None, text_ctxt=None, icon="NONE"):
        assert icon in self.ICONS
        self.words.append(getattr(bpy.ops.wav2sem, name.split(".")[1]).get_rna_type().name if text is None else text)

    def prop(self, owner, name, icon="NONE", **_options):
        assert icon in self.ICONS and name in owner.bl_rna.properties
        self.words.append(str(getattr(owner, name)))

    def prop_search(self, owner, name, where, what):
        assert name in owner.bl_rna.properties and what in where.bl_rna.properties

    def template_list(self, ui_list, _id, owner, name, active_owner, active_name, rows):
        assert hasattr(bpy.types, ui_list)
        assert name in owner.bl_rna.properties and active_name in active_owner.bl_rna.properties
        for row in getattr(owner, name):
            key_mapping_panel.WAV2SEM_UL_mapping.draw_item(
                None, bpy.context, Layout(self.words), owner, row, 0, owner, ""
            )

    def separator(self):
        pass


def drawn(panel):
    layout = Layout()
    panel.draw(SimpleNamespace(layout=layout, _draw_table=panel._draw_table), bpy.context)
    return layout.words


def test_the_panel_shows_the_table_and_what_is_wrong_with_it(head):
    assert "Empty: keys are mapped by name" in drawn(key_mapping_panel.WAV2SEM_PT_key_mapping)
    bpy.ops.wav2sem.guess_mapping()
    head.wav2sem_mapping[1].key = "gone"
    words = drawn(key_mapping_panel.WAV2SEM_PT_key_mapping)
    assert status.face_words(bpy.context) == [("Key mapping, 3 channels on 2 shape keys", "CHECKMARK")]
    assert "No such shape key here: gone" in words and "mouthSmile_L" in words
    bpy.context.view_layer.objects.active = None
    assert drawn(key_mapping_panel.WAV2SEM_PT_key_mapping) == ["Choose a mesh, or select one"]


def own_classes():
    kinds = bpy.types.Operator | bpy.types.PropertyGroup
    return [
        cls
        for cls in (*key_mapping.CLASSES, *key_mapping_panel.CLASSES, *jaw_bone_panel.CLASSES)
        if issubclass(cls, kinds)
    ]


@pytest.mark.parametrize("cls", own_classes(), ids=lambda cls: cls.__name__)
def test_labels_and_tooltips(cls):
    rna = cls.bl_rna
    if issubclass(cls, bpy.types.Operator):
        rna = getattr(bpy.ops.wav2sem, cls.bl_idname.split(".")[1]).get_rna_type()
        assert rna.name == rna.name.title()
        assert rna.description and not rna.description.endswith(".")
    theirs = {"rna_type", "name", "filepath", "check_existing", "filter_glob"}
    for prop in rna.properties:
        if prop.identifier not in theirs:
            assert prop.name[0].isupper() and prop.description and not prop.description.endswith("."), prop.identifier


def test_a_face_without_mouth_close_closes_with_its_jaw(curves_of):
    head = keyed_head("Head", ["jawOpen", "mouthFunnel"])
    weights_TK = np.full((60, 3), (0.3, 0.0, 0.0))
    weights_TK[30:33] = 0.3, 0.29, 0.0
    motion = Motion(weights_TK=weights_TK, channels=("jawOpen", "mouthClose", "mouthFunnel"), fps=24.0)
    outcome = speak(head, motion)
    jaw_T = curves_of(head)["jawOpen"][1]
    assert jaw_T[30:33].max() < 0.02 and jaw_T[20:28].min() > 0.25
    assert outcome.warnings == ("No shape key for mouthClose; the other keys make up for them.",)


class TestOpening:
    def test_a_face_whose_jaw_is_a_bone_is_told(self):
        head = keyed_head("Head", ["mouthFunnel", "mouthSmileLeft", "mouthSmileRight", "mouthClose"])
        head.data.shape_keys.key_blocks["mouthFunnel"].data[0].co = (0, 0, -0.001)
        outcome = speak(head, arkit_motion(mouthSmileLeft=0.1, mouthFunnel=0.1))
        assert any(
            warning.startswith('The mouth of "Head" hardly opens: mouthFunnel move') for warning in outcome.warnings
        )
        head.shape_key_remove(head.data.shape_keys.key_blocks["mouthFunnel"])
        outcome = speak(head, arkit_motion(mouthSmileLeft=0.1))
        assert 'No shape key of "Head" opens the mouth, so it moves little. Is the jaw a bone? Then use Jaw Bone.' in (
            outcome.warnings
        )
        words = status.face_words(bpy.context)
        assert ("No key opens the mouth; is the jaw a bone? Then use Jaw Bone", "ERROR") in words
        assert words[0][1] == "ERROR", "no tick for a mouth that cannot open"

    @pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
    def test_one_that_opens_is_not(self, scale):
        head = keyed_head("Head", ["jawOpen"])
        head.data.shape_keys.key_blocks["jawOpen"].data[0].co = (0, 0, -0.2)
        head.scale = (scale,) * 3
        bpy.context.view_layer.update()
        assert not any("opens" in warning for warning in speak(head).warnings)
        assert status.face_words(bpy.context)[0][1] == "CHECKMARK"

    def test_visemes_that_move_nothing(self):
        head = keyed_head("Head", list("AIUEO"))
        for name in "AIUEO":
            block = head.data.shape_keys.key_blocks[name]
            for point, rest in zip(block.data, block.relative_key.data, strict=True):
                point.co = rest.co
        assert any("hardly opens" in warning for warning in speak(head).warnings)
