# SPDX-License-Identifier: GPL-3.0-or-later
"""Articulation and the tongue: from the panel and the command line to the worker, the curves and the record."""

import json

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.animate import settings
from wav2sem_blender.blender.animate.command import run_command
from wav2sem_blender.blender.scene import plan, takes
from wav2sem_blender.blender.ui import panels
from wav2sem_blender.blender.ui.result_operators import rebake_settings

from .test_panels import drawn  # noqa: TID252


@pytest.fixture
def models(tmp_path):
    """Two model folders, of which the first has articulation and phones, as far as a panel reads them."""
    for name, ends, phones in (("manners", ["mumbled", "clear"], ["SIL", "L"]), ("plain", None, [])):
        (tmp_path / name).mkdir()
        model = {"styles": ["natural", "clear", "mumbled"], "articulation": ends, "phones": phones}
        (tmp_path / name / "config.json").write_text(json.dumps({"model": model}))
    return tmp_path


@pytest.fixture
def tongued(head):
    """The head with two keys for the tongue, which move its last vertex."""
    for name, direction in (("Tongue_Out", (0, -1, 0)), ("Tongue_Up", (0, 0, 1))):
        head.shape_key_add(name=name, from_mix=False).data[2].co = (direction[0], 1 + direction[1], direction[2])
    return head


def record(head):
    return json.loads(head.data.shape_keys.animation_data.action["wav2sem_settings"])


def test_which_models_have_them(models):
    assert settings.articulation_problem(bpy.context, str(models / "manners")) == ""
    assert "no mumbled and clear styles" in settings.articulation_problem(bpy.context, str(models / "plain"))
    assert settings.tongue_problem(bpy.context, str(models / "manners")) == ""
    assert "which sounds it hears" in settings.tongue_problem(bpy.context, str(models / "plain"))
    assert settings.articulation_problem(bpy.context, "nowhere") == "", "the run reports that"
    assert settings.tongue_problem(bpy.context, "nowhere") == ""
    config = models / "plain" / "config.json"
    config.write_text((models / "manners" / "config.json").read_text())
    assert settings.articulation_problem(bpy.context, str(models / "plain")) == "", "it is read again when it changed"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("articulation", "This model has no mumbled and clear styles to mix"),
        ("tongue", "This model does not tell which sounds it hears"),
    ],
)
def test_the_panel_disables_what_a_model_lacks_and_says_why(head, models, name, why):
    panel, chosen = panels.WAV2SEM_PT_animate, bpy.context.scene.wav2sem
    chosen.model = str(models / "manners")
    assert ("prop", name, True) in drawn(panel)
    chosen.model = str(models / "plain")
    rows = drawn(panel)
    at = rows.index(("prop", name, False))
    words = " ".join(text for kind, text, _ in rows[at + 1 :] if kind == "label")
    assert words.startswith(why)


def test_the_panels_value_reaches_the_worker_and_the_record(head, models, fake_worker, audio):
    chosen = bpy.context.scene.wav2sem
    chosen.model, chosen.articulation = str(models / "manners"), -0.5
    bpy.ops.wav2sem.animate(filepath=audio("ok"), object="Head")
    assert record(head)["articulation"] == pytest.approx(-0.5)
    take = takes.of_face(head)[0]
    assert rebake_settings(take, head, "cpu").articulation == pytest.approx(-0.5)
    chosen.model = str(models / "plain")
    bpy.ops.wav2sem.animate(filepath=audio("ok"), object="Head")
    assert record(head)["articulation"] == 0.0, "the slider is greyed out"


def test_a_scripts_value_is_not_changed(head, animate):
    """The model decides, and says so if it has no articulation."""
    animate(articulation=0.25)
    assert record(head)["articulation"] == 0.25


def test_the_tongue_is_part_of_the_speech(tongued, animate, curves_of, fake_worker, audio):
    bpy.context.scene.render.fps = 30
    assert animate("phones", start_frame=11) == {"FINISHED"}
    curves = curves_of(tongued)
    assert sorted(curves) == ["Tongue_Out", "Tongue_Up", "jawOpen", "mouthPucker", "mouthSmile_L"]
    frames_T, up_T = curves["Tongue_Up"]
    np.testing.assert_array_equal(frames_T[up_T > 0.75], np.arange(11 + 16, 11 + 30))
    assert up_T[:14].max() == up_T[32:].max() == 0 and up_T.max() == pytest.approx(0.8, abs=1e-5)
    assert curves["Tongue_Out"][1].max() == 0.0, "nobody says th"
    assert animate("phones", tongue=False) == {"FINISHED"}
    assert "Tongue_Up" not in curves_of(tongued)
    assert record(tongued)["tongue"] is False


def test_a_face_without_a_tongue_gets_no_warning(head, animate, curves_of, capfd):
    assert animate("phones") == {"FINISHED"}
    assert sorted(curves_of(head)) == ["jawOpen", "mouthPucker", "mouthSmile_L"]
    assert "tongue" not in capfd.readouterr().out


def test_keys_that_are_not_free_are_left_alone(tongued):
    assert plan.tongue_channels(tongued) == ("tongueOut", "tongueTipUp")
    blocks = tongued.data.shape_keys.key_blocks
    blocks["Tongue_Out"].mute = True
    assert plan.tongue_channels(tongued) == ("tongueTipUp",)
    blocks["Tongue_Up"].driver_add("value")
    assert plan.tongue_channels(tongued) == ()


def test_visemes_have_a_tongue_of_their_own(tongued):
    for name in "sil PP FF TH DD kk CH SS nn RR aa E I O U".split():
        tongued.shape_key_add(name=f"viseme_{name}", from_mix=False)
    assert plan.wanted_visemes(tongued) is not None
    assert plan.tongue_channels(tongued) == ()


def test_the_command_line(tongued, fake_worker, audio, tmp_path, curves_of, capsys):
    saved = str(tmp_path / "b.blend")
    given = ("--audio", audio("phones"), "--object", "Head", "--output", saved)
    assert run_command([*given, "--articulation", "-0.5", "--no-tongue"]) == 0
    bpy.ops.wm.open_mainfile(filepath=saved)
    head = bpy.data.objects["Head"]
    assert record(head)["articulation"] == -0.5
    assert "Tongue_Up" not in curves_of(head)
    assert run_command([*given, "--articulation", "clear"]) == 2
    assert "clear is not a finite number" in capsys.readouterr().err
