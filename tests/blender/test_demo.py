# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's parts: the FLAME mesh from a file, the opening of the lips, the choice of frames; and one short run."""

import json
import wave
from pathlib import Path

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.demo import __main__, contact_sheet, flame_head, mouth
from wav2sem_blender.blender.scene import upper_face_strips
from wav2sem_blender.blender.scene.demo_head import build_demo_head
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.upper_face import UPPER_FACE_CHANNELS

from .applied import apply_motion  # noqa: TID252


def write_tone(path: Path, seconds: float) -> Path:
    """A tone that grows louder from 0 to half of full scale."""
    n_samples = round(seconds * 16000)
    ramp = np.linspace(0, 0.5, n_samples) * np.sin(2 * np.pi * 220 * np.arange(n_samples) / 16000)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((ramp * 32767).astype("<i2").tobytes())
    return path


def jaw_motion(values):
    values = np.asarray(values, dtype=np.float32)
    return Motion(weights_TK=values[:, None], channels=("jawOpen",), fps=30.0, info={"audio_sha256": "00"})


def test_the_lips_open_with_the_jaw(tmp_path):
    bpy.context.scene.render.fps = 30
    head = build_demo_head()
    bpy.context.view_layer.update()
    values = np.array([0.0, 0.0, 0.25, 0.5, 1.0, -0.5, 0.0, 0.0, 0.0])
    apply_motion(bpy.context, head, jaw_motion(values), start_frame=11)
    measured = mouth.measure(head, write_tone(tmp_path / "tone.wav", 0.3), 9, 30.0, 11)
    opened_mm = measured.aperture_mm_T[4]
    assert 10 < opened_mm < 60
    np.testing.assert_allclose(measured.aperture_mm_T[:5], values[:5] * opened_mm, rtol=1e-3, atol=1e-3)
    assert measured.aperture_mm_T[5:].tolist() == [0.0] * 4
    assert (np.diff(measured.level_T) > 0).all()
    statistics = measured.statistics()
    assert (statistics["frames"], statistics["closed_share"]) == (9, 0.667)
    assert statistics["aperture_mm_max"] == pytest.approx(opened_mm, abs=0.01)


def test_frames_are_the_extremes_of_equal_parts():
    aperture = np.array([0, 5, 1, 9, 2, 7, 3, 0, 8, 4, 6, 1], dtype=float)
    assert contact_sheet.choose_frames(aperture, 4) == [1, 4, 8, 11]
    assert contact_sheet.choose_frames(np.array([1.0, 2.0]), 4) == [0, 0, 1, 1]


@pytest.mark.parametrize(("suffix", "scale"), [(".obj", 1.0), (".ply", 1000.0), (".npz", 1.0)])
def test_a_flame_file_stands_upright_whatever_its_unit_and_axes(flame_reference, tmp_path, suffix, scale):
    points_V3, faces_F3 = flame_reference
    path = tmp_path / f"head{suffix}"
    if suffix == ".npz":
        np.savez(path, v_template=points_V3, faces=faces_F3)
    elif suffix == ".obj":
        lines = ["v {:.9f} {:.9f} {:.9f}".format(*point) for point in points_V3 * scale]
        path.write_text("\n".join(lines + ["f {} {} {}".format(*face) for face in faces_F3 + 1]))
    else:
        header = f"ply\nformat ascii 1.0\nelement vertex {len(points_V3)}\n"
        header += "property float x\nproperty float y\nproperty float z\n"
        header += f"element face {len(faces_F3)}\nproperty list uchar int vertex_indices\nend_header"
        lines = ["{:.6f} {:.6f} {:.6f}".format(*point) for point in points_V3 * scale]
        path.write_text("\n".join([header, *lines, *("3 {} {} {}".format(*face) for face in faces_F3)]))
    head = flame_head.add_flame_head(path)
    world_33 = np.array(head.matrix_world)
    local_V3 = np.array([vertex.co for vertex in head.data.vertices])
    placed_V3 = local_V3 @ world_33[:3, :3].T + world_33[:3, 3]
    upright_V3 = points_V3 @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]) + flame_head.PLACE_M
    np.testing.assert_allclose(placed_V3, upright_V3, atol=2e-5)


def test_a_file_that_is_no_flame_mesh(tmp_path, flame_reference):
    with pytest.raises(FileNotFoundError, match="no such mesh file"):
        flame_head.add_flame_head(tmp_path / "head.obj")
    (tmp_path / "head.fbx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"not from '\.fbx'"):
        flame_head.add_flame_head(tmp_path / "head.fbx")
    (tmp_path / "cube.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match="Vertex count: the mesh has 3 vertices"):
        flame_head.add_flame_head(tmp_path / "cube.obj")


def test_a_short_run_writes_the_four_files(fake_worker, tmp_path, monkeypatch):
    """Five small frames; only the model is a fake."""
    from wav2sem_blender.blender.demo import film

    monkeypatch.setattr(film, "RESOLUTION_PX", 64)
    monkeypatch.setattr(contact_sheet, "TILE_PX", 32)
    monkeypatch.setattr(__main__, "_animated_frames", lambda head: 5)
    report = __main__.run_demo(write_tone(tmp_path / "ok.wav", 0.5), None, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {".made_by.json", "demo.blend", "demo.mp4", "contact_sheet.png", "report.json"}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert (report["heads"][0]["curves"], report["mouth"]["frames"]) == (3, 5)
    assert report["heads"][0]["upper_face"] == sorted(UPPER_FACE_CHANNELS)
    assert report["timings_s"].keys() >= {"render demo.mp4", "total"}
    film = (tmp_path / "out" / "demo.mp4").read_bytes()
    assert b"avc1" in film and b"mp4a" in film, "a picture track and a sound track"
    sheet = bpy.data.images.load(str(tmp_path / "out" / "contact_sheet.png"))
    assert tuple(sheet.size) == (4 * 32, 3 * (32 + contact_sheet.LABEL_PX) + contact_sheet.STRIP_PX)
    pixels = np.array(sheet.pixels[:]).reshape(sheet.size[1], sheet.size[0], 4)
    assert pixels[..., :3].std() > 0.05
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out" / "demo.blend"))
    assert bpy.data.sounds[0].packed_file is not None
    assert bpy.context.scene.frame_end == 5
    (sway,) = upper_face_strips.strips_on(bpy.data.objects[report["heads"][0]["object"]])
    assert sway[1].name == "Upper Face", "the head sways"
