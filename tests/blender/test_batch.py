# SPDX-License-Identifier: GPL-3.0-or-later
"""The batch in Blender with the bundled model: scenes in every format, read back by other readers than the writers."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH
from wav2sem_blender.batch.exit_codes import CODES
from wav2sem_blender.blender.animate.batch_command import SCENE_SUFFIXES, run_command
from wav2sem_blender.blender.scene import speech_track
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.words.track import Phone, Track, Word
from wav2sem_blender.pipeline.words.track_files import load_track, save_track

pytestmark = pytest.mark.skipif(
    not ((DEFAULT_MODEL / "config.json").is_file() and DEMO_SPEECH.is_file()),
    reason="needs the bundled model and the demo speech",
)
needs_alembic = pytest.mark.skipif(not bpy.app.build_options.alembic, reason="this Blender was built without Alembic")
needs_usd = pytest.mark.skipif(not bpy.app.build_options.usd, reason="this Blender was built without USD")
FPS, FRAMES = 30, 90


@pytest.fixture
def night(head, tmp_path, capsys):
    """A character, a recording, and the command; it returns the exit code and the records of the report."""
    bpy.context.scene.render.fps = FPS
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "hero.blend"))
    shutil.copy(DEMO_SPEECH, tmp_path / "line.flac")
    before = signal.getsignal(signal.SIGTERM)

    def run(rows: str, *arguments: str) -> tuple[int, list[dict]]:
        (tmp_path / "m.csv").write_text(rows)
        given = [str(tmp_path / "m.csv"), "--output", str(tmp_path / "out"), "--jobs", "1", "--json", *arguments]
        code = run_command(given)
        report = tmp_path / "out" / "report.jsonl"
        return code, [json.loads(line) for line in report.open()] if report.exists() else []

    yield run
    signal.signal(signal.SIGTERM, before)


def jaw_of_blender() -> np.ndarray:
    """How far the lowest vertex is down at each frame, as Blender shows it."""
    scene = bpy.context.scene
    shown = []
    (face,) = (thing for thing in bpy.data.objects if thing.type == "MESH")
    for frame in range(FRAMES):
        scene.frame_set(frame + 1)
        evaluated = face.evaluated_get(bpy.context.evaluated_depsgraph_get())
        shown.append(max(-(evaluated.matrix_world @ vertex.co).z for vertex in evaluated.to_mesh().vertices))
    return np.array(shown)


def jaw_of_glb(path: Path) -> np.ndarray:
    """The weight of jawOpen at each frame, by a reader of the file's JSON."""
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    scene, binary = json.loads(content[20 : 20 + length]), content[28 + length :]

    def accessor(index: int) -> np.ndarray:
        entry = scene["accessors"][index]
        view = scene["bufferViews"][entry["bufferView"]]
        return np.frombuffer(binary, "<f4", entry["count"], view.get("byteOffset", 0) + entry.get("byteOffset", 0))

    names = scene["meshes"][0]["extras"]["targetNames"]
    (animation,) = scene["animations"]
    (sampler,) = animation["samplers"]
    weights_TK = accessor(sampler["output"]).reshape(-1, len(names))
    times_T = accessor(sampler["input"])
    assert times_T[0] == 0
    return np.interp(np.arange(FRAMES) / FPS, times_T, weights_TK[:, names.index("jawOpen")])


def jaw_of_usd(path: Path) -> np.ndarray:
    """The weight of jawOpen at each frame, by Pixar's library, which comes with Blender."""
    sys.path += map(str, Path(bpy.utils.resource_path("LOCAL")).glob("python/lib/python*/site-packages"))
    usd, skel = pytest.importorskip("pxr.Usd"), pytest.importorskip("pxr.UsdSkel")
    stage = usd.Stage.Open(str(path))
    (animation,) = (skel.Animation(prim) for prim in stage.Traverse() if prim.IsA(skel.Animation))
    column = list(animation.GetBlendShapesAttr().Get()).index("jawOpen")
    weights = animation.GetBlendShapeWeightsAttr()
    return np.array([weights.Get(frame + 1)[column] for frame in range(FRAMES)])


def jaw_of_import(path: Path) -> np.ndarray:
    """How the jaw moves in the imported file."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = FPS
    if path.suffix == ".abc":
        bpy.ops.wm.alembic_import(filepath=str(path), set_frame_range=False)
    elif hasattr(bpy.ops.wm, "fbx_import"):  # ufbx; the exporter is another program
        bpy.ops.wm.fbx_import(filepath=str(path), anim_offset=0.0)
    else:
        bpy.ops.import_scene.fbx(filepath=str(path), anim_offset=0.0)
    return jaw_of_blender()


@needs_usd
@needs_alembic
def test_a_scene_in_every_format_speaks_the_same(night, tmp_path):
    names = ",".join([*SCENE_SUFFIXES, "npz", "csv", "textgrid"])
    code, (record,) = night("audio,character,object\nline.flac,hero.blend,Head\n", "--format", names)
    assert code == 0 and set(record["bytes"]) == {*SCENE_SUFFIXES, "npz", "csv", "textgrid"}
    assert record["confidence"] > 0.5 and record["seconds"] == pytest.approx(7, abs=4)
    out = tmp_path / "out"
    assert len([phone for phone in load_track(out / "line.TextGrid").phones if phone.name == "P"]) > 2
    motion = Motion.load(out / "line.npz")
    wanted_T = motion.weights_TK[:FRAMES, motion.channels.index("jawOpen")]
    assert motion.fps == FPS and wanted_T.max() > 0.1
    bpy.ops.wm.open_mainfile(filepath=str(out / "line.blend"))
    np.testing.assert_allclose(jaw_of_blender(), wanted_T, atol=1e-4)
    np.testing.assert_allclose(jaw_of_glb(out / "line.glb"), wanted_T, atol=1e-3)
    np.testing.assert_allclose(jaw_of_import(out / "line.fbx"), wanted_T, atol=2e-3)
    np.testing.assert_allclose(jaw_of_import(out / "line.abc"), wanted_T, atol=1e-3)
    np.testing.assert_allclose(jaw_of_usd(out / "line.usdc"), wanted_T, atol=1e-3)


def test_a_night_with_faults_goes_on_and_resumes(night, tmp_path, capsys):
    (tmp_path / "broken.blend").write_bytes(b"BLENDER-v9")
    rows = (
        "audio,output,character,object\nline.flac,curves,,\nline.flac,nobody,hero.blend,Nobody\n"
        "line.flac,broken,broken.blend,\nline.flac,hero,hero.blend,Head\n"
    )
    code, records = night(rows)
    assert code == CODES["partly"]
    failed = {record["name"]: record for record in records if record["state"] == "failed"}
    assert {name: record["cause"] for name, record in failed.items()} == {"nobody": "target", "broken": "target"}
    assert "Nobody" in failed["nobody"]["error"] and "broken.blend" in failed["broken"]["error"]
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("[a-z]*")) == [
        "curves.npz",
        "hero.blend",
        "report.html",
        "report.jsonl",
    ]
    capsys.readouterr()
    assert night(rows)[0] == CODES["partly"]
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"event"')]
    assert sorted(event["name"] for event in events if event["event"] == "line") == ["broken", "nobody"]


SAID = "please put the paper boat by the pond my mother may move five more ships before we both hear the music"


def test_what_is_said_is_in_the_scene_and_in_the_report(night, tmp_path):
    (tmp_path / "said.txt").write_text(SAID)
    header = "audio,output,character,object,transcript,text"
    rows = f"{header}\nline.flac,a,hero.blend,Head,said.txt,\nline.flac,b,hero.blend,Head,,{SAID}\n"
    code, records = night(rows)
    assert code == 0 and all(record["fit"] > 0.4 and record["language"] == "en" for record in records)
    for name in "ab":
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out" / f"{name}.blend"))
        action = bpy.data.objects["Head"].data.shape_keys.animation_data.action
        words = [word.text for word in speech_track.recorded(action).words]
        assert " ".join(words).lower() == SAID


def test_a_scene_follows_an_edited_track(night, tmp_path):
    phones = (Phone("P", 1.0, 1.1), Phone("UW", 1.1, 1.4))
    save_track(Track(words=(Word("poo", 1.0, 1.4),), phones=phones), tmp_path / "line.TextGrid")
    code, (record,) = night("audio,character,object,track\nline.flac,hero.blend,Head,line.TextGrid\n")
    assert code == 0, record
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out" / "line.blend"))
    action = bpy.data.objects["Head"].data.shape_keys.animation_data.action
    assert speech_track.recorded(action).phones == phones


def test_a_scene_that_ended_blender_twice_is_left_out_once(night, tmp_path):
    (tmp_path / "out").mkdir()
    scene = tmp_path / "out" / ".wav2sem_batch.scene1"
    scene.write_text("2 line")
    rows = "audio,character,object\nline.flac,hero.blend,Head\n"
    code, (record,) = night(rows)
    assert code == CODES["target"] and "ended Blender 2 times" in record["error"] and not scene.exists()
    code, (record,) = night(rows)
    assert (code, record["state"]) == (0, "made")


def test_a_run_that_was_killed_once_makes_its_scene_again(night, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".wav2sem_batch.scene1").write_text("1 line")
    (tmp_path / "out" / ".wav2sem_batch.begun").write_text('"line"\n')
    (tmp_path / "out" / "line.blend").write_bytes(b"written before its record")
    code, (record,) = night("audio,character,object\nline.flac,hero.blend,Head\n")
    assert (code, record["state"]) == (0, "made")
    assert (tmp_path / "out" / "line.blend").stat().st_size == record["bytes"]["blend"] > 10_000


def test_arguments(night, capsys):
    assert run_command(["m.csv"]) == CODES["usage"] and "--output" in capsys.readouterr().err
    assert run_command(["--help"]) == 0 and "usd" in capsys.readouterr().out
    assert night("audio\nnobody.flac\n")[0] == CODES["manifest"]
    assert sys.modules["wav2sem_blender.blender.animate.jobs"]._client is None, "the worker ends with the command"
