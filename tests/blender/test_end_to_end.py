# SPDX-License-Identifier: GPL-3.0-or-later
"""The real model in the real worker, as in an installed add-on; nothing is faked."""

import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from wav2sem_blender.assets import DEMO_SPEECH
from wav2sem_blender.blender.scene.demo_head import build_demo_head
from wav2sem_blender.pipeline.motion import Motion

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "wav2sem_blender" / "assets" / "models" / "default" / "config.json"
FLAME_FILE = ROOT.parent / "shared" / "data" / "flame2023_open" / "flame2023_open.npz"

pytestmark = pytest.mark.skipif(
    not (MODEL.is_file() and DEMO_SPEECH.is_file()), reason="needs the bundled model and the demo speech"
)


@pytest.fixture(scope="module")
def motion(tmp_path_factory) -> Motion:
    """The motion of the demo speech, made by the command line in another process."""
    folder = tmp_path_factory.mktemp("motion")
    command = [sys.executable, "-m", "wav2sem_blender", "animate", str(DEMO_SPEECH), "--output", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return Motion.load(next(folder.glob("*.npz")))


def test_the_demo_head_speaks_the_motion(motion, curves_of):
    bpy.context.scene.render.fps = 30
    head = build_demo_head()
    assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object=head.name) == {"FINISHED"}
    curves = curves_of(head)
    assert sorted(curves) == sorted(motion.channels)
    for channel, weights_T in zip(motion.channels, motion.weights_TK.T, strict=True):
        frames_T, values_T = curves[channel]
        assert frames_T[0] == 1
        np.testing.assert_allclose(values_T, weights_T, atol=1e-5)
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
    assert len(mesh.shape_keys.key_blocks) == 1 + len(motion.channels)
    offsets_TV3 = motion.vertex_offsets()
    for anim_frame in range(0, motion.n_frames, 40):
        bpy.context.scene.frame_set(1 + anim_frame)
        evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
        points_V3 = np.empty((len(rest_V3), 3), dtype=np.float32)
        evaluated.vertices.foreach_get("co", points_V3.ravel())
        np.testing.assert_allclose(points_V3, rest_V3 + offsets_TV3[anim_frame], atol=1e-5)


def test_a_style_by_name_or_by_number(curves_of):
    head, jaws = build_demo_head(), []
    for style in ("", "0", "grid_s1", "1"):
        assert bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object=head.name, style=style) == {"FINISHED"}
        jaws.append(curves_of(head)["jawOpen"][1])
    np.testing.assert_array_equal(jaws[0], jaws[1])
    np.testing.assert_array_equal(jaws[0], jaws[2])
    assert np.abs(jaws[3] - jaws[0]).max() > 0.01
    with pytest.raises(RuntimeError, match="style 'nobody': this model has grid_s1"):
        bpy.ops.wav2sem.animate(filepath=str(DEMO_SPEECH), object=head.name, style="nobody")


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
