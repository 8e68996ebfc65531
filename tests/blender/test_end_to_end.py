# SPDX-License-Identifier: GPL-3.0-or-later
"""The real model in the real worker, as in an installed add-on; nothing is faked."""

import json
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from wav2sem_blender.assets import DEMO_SPEECH
from wav2sem_blender.blender.scene.demo_head import build_demo_head
from wav2sem_blender.blender.ui.presets_menu import WAV2SEM_PT_presets
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.retarget import rested
from wav2sem_blender.pipeline.tongue import TONGUE_CHANNELS

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "wav2sem_blender" / "assets" / "models" / "default" / "config.json"
FLAME_FILE = ROOT.parent / "shared" / "data" / "flame2023_open" / "flame2023_open.npz"

pytestmark = pytest.mark.skipif(
    not (MODEL.is_file() and DEMO_SPEECH.is_file()), reason="needs the bundled model and the demo speech"
)


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> Motion:
    """The motion of the demo speech, made by the command line in another process, as a face gets it."""
    folder = tmp_path_factory.mktemp("motion")
    command = [sys.executable, "-m", "wav2sem_blender", "animate", str(DEMO_SPEECH), "--output", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return rested(Motion.load(next(folder.glob("*.npz"))))


def test_the_demo_head_speaks_the_motion(motion, curves_of):
    bpy.context.scene.render.fps = 30
    head = build_demo_head()
    assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object=head.name) == {"FINISHED"}
    curves = curves_of(head)
    assert set(curves) == set(motion.channels) - {"tongueTipUp"}, "the head has no key for that one"
    for channel, (frames_T, values_T) in curves.items():
        weights_T = motion.weights_TK[:, motion.channels.index(channel)]
        assert values_T.min() >= 0 and values_T.max() <= 1
        assert frames_T[0] == 1
        np.testing.assert_allclose(values_T, weights_T, atol=1e-5)
    assert curves["tongueOut"][1].max() > 0.1, '"the", "their", "weather"'
    action = head.data.shape_keys.animation_data.action
    assert action["wav2sem_weights_sha256"] == motion.info["weights_sha256"]
    assert action["wav2sem_audio_sha256"] == motion.info["audio_sha256"]
    assert action.name == DEMO_SPEECH.stem


@pytest.mark.skipif(not FLAME_FILE.is_file(), reason="needs ../shared/data/flame2023_open")
def test_a_flame_mesh_moves_as_the_vertices_of_the_motion(motion):
    bpy.context.scene.render.fps = 30
    with np.load(FLAME_FILE) as data:
        rest_V3, faces_F3 = data["v_template"], data["faces"]
    mesh = bpy.data.meshes.new("Head")
    mesh.from_pydata(rest_V3.tolist(), [], faces_F3.tolist())
    head = bpy.data.objects.new("Head", mesh)
    bpy.context.scene.collection.objects.link(head)
    assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object="Head") == {"FINISHED"}
    assert set(mesh.shape_keys.key_blocks.keys()[1:]) == set(motion.channels) - set(TONGUE_CHANNELS)
    offsets_TV3 = motion.vertex_offsets()
    for anim_frame in range(0, motion.n_frames, 40):
        bpy.context.scene.frame_set(1 + anim_frame)
        evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
        points_V3 = np.empty((len(rest_V3), 3), dtype=np.float32)
        evaluated.vertices.foreach_get("co", points_V3.ravel())
        np.testing.assert_allclose(points_V3, rest_V3 + offsets_TV3[anim_frame], atol=1e-5)


@pytest.fixture
def jaw_of(curves_of):
    """Animates the demo head with some arguments and returns the curve of its jaw."""
    head = build_demo_head()
    bpy.context.view_layer.objects.active = head

    def animate(**given):
        assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object=head.name, **given) == {"FINISHED"}
        return curves_of(head)["jawOpen"][1]

    return animate


def test_a_style_by_name_or_by_number(jaw_of):
    jaws = [jaw_of(style=style) for style in ("", "0", "natural", "artist", "3")]
    np.testing.assert_array_equal(jaws[0], jaws[1])
    np.testing.assert_array_equal(jaws[0], jaws[2])
    np.testing.assert_array_equal(jaws[3], jaws[4])
    assert np.abs(jaws[3] - jaws[0]).max() > 0.01
    with pytest.raises(RuntimeError, match="style 'nobody': this model has natural, clear, mumbled, artist"):
        jaw_of(style="nobody")


def test_articulation_ends_at_the_styles_that_are_not_suggested(jaw_of):
    np.testing.assert_array_equal(jaw_of(articulation=-1.0), jaw_of(style="mumbled"))


def test_takes_and_presets_of_the_first_version_still_run(jaw_of, curves_of, tmp_path, monkeypatch):
    """They name the styles of its bundled model, `grid_s1` and `facegood`."""
    artist_T, natural_T = jaw_of(style="artist"), jaw_of(style="natural")
    head = bpy.context.view_layer.objects.active
    action = head.data.shape_keys.animation_data.action
    record = json.loads(action["wav2sem_settings"]) | {"style": "facegood"}
    action["wav2sem_settings"] = json.dumps({name: record[name] for name in record.keys() - {"articulation", "tongue"}})
    assert bpy.ops.wav2sem.rebake() == {"FINISHED"}
    np.testing.assert_array_equal(curves_of(head)["jawOpen"][1], artist_T)

    preset = tmp_path / "old.py"
    preset.write_text('import bpy\nsettings = bpy.context.scene.wav2sem\n\nsettings.style = "grid_s1"\n')
    monkeypatch.setattr(WAV2SEM_PT_presets, "bl_label", WAV2SEM_PT_presets.bl_label)  # the menu takes a preset's name
    bpy.ops.script.execute_preset(filepath=str(preset), menu_idname="WAV2SEM_PT_presets")
    np.testing.assert_array_equal(jaw_of(), natural_T)


def test_bad_audio_is_a_sentence(tmp_path, scene_bytes):
    head = build_demo_head()
    head.name = "Head"
    (tmp_path / "text.wav").write_text("hello, this is no sound at all")
    (tmp_path / "empty.wav").write_bytes(b"")
    before = scene_bytes()
    for name in ("text.wav", "empty.wav"):
        with pytest.raises(RuntimeError, match=name):
            bpy.ops.wav2sem.animate(filepath=str(tmp_path / name), object="Head")
    assert scene_bytes() == before
