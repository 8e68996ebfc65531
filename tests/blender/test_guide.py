# SPDX-License-Identifier: GPL-3.0-or-later
"""The batches of docs/user-guide.md work as printed: each code block is run."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import bpy
import pytest

from wav2sem_blender.blender.scene.demo_head import build_demo_head

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "user-guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)

# Stands in for `blender -b FILE --command NAME …`, as Blender as a module has no command line.
PROGRAM = """
import sys
from pathlib import Path
import bpy
import wav2sem_blender
from wav2sem_blender.blender.animate import command
from wav2sem_blender.worker import environment
background, file, option, name, *arguments = sys.argv[1:]
assert (background, option, name) == ("-b", "--command", command.NAME), sys.argv
fake = environment.WorkerEnvironment(python=Path(sys.executable), boot=Path({boot!r}))
environment.embedded = lambda: fake
wav2sem_blender.register()
bpy.ops.wm.open_mainfile(filepath=file)
sys.exit(command.run_command(arguments))
"""


def block(language: str) -> str:
    """The guide's only code block in that language."""
    (found,) = (text for name, text in BLOCKS if name == language)
    return found


def record(head) -> dict[str, object]:
    """The settings recorded with the head's action."""
    return json.loads(head.data.shape_keys.animation_data.action["wav2sem_settings"])


def test_every_block_is_run_here():
    assert [language for language, _ in BLOCKS] == ["sh", "python"]


@pytest.mark.skipif(not bpy.app.module, reason="it starts another Python with Blender as a module, which this is not")
def test_the_shell_animates_every_recording(head, tmp_path, fake_package):
    program = tmp_path / "bin" / "blender"
    program.parent.mkdir()
    program.with_suffix(".py").write_text(PROGRAM.format(boot=str(fake_package / "worker" / "boot.py")))
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}.py" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "lines").mkdir()
    for name in ("anna_01", "ben 02"):
        (tmp_path / "lines" / f"{name}.wav").touch()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "head.blend"))
    own = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["sh", "-c", block("sh")],
        cwd=tmp_path,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"anna_01.blend", "ben 02.blend"}
    for name in ("anna_01", "ben 02"):
        bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out" / f"{name}.blend"))
        assert Path(str(record(bpy.data.objects["Head"])["filepath"])).stem == name


def test_the_script_animates_two_heads_and_renders(fake_worker, tmp_path, monkeypatch):
    scene, names = bpy.context.scene, ("Anna", "Ben")
    for name in names:
        build_demo_head().name = name
        (tmp_path / f"{name.lower()}_01.wav").touch()
    scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(scene.camera)
    # This renders without a display; the reader has a scene of their own.
    scene.render.engine, scene.cycles.samples = "CYCLES", 1
    scene.render.resolution_x = scene.render.resolution_y = 16
    scene.frame_start, scene.frame_end = 40, 41
    scene.render.filepath = f"{tmp_path}/frame_"
    assert '"/lines/' in block("python"), "the recordings' folder"
    exec(block("python").replace('"/lines/', f'"{tmp_path}/'), {})
    anna, ben = (bpy.data.objects[name] for name in names)
    assert [record(head)["start_frame"] for head in (anna, ben)] == [1, 80]
    assert record(ben)["delay_s"] == pytest.approx(-0.04)
    tracks = [len(head.data.shape_keys.animation_data.nla_tracks) for head in (anna, ben)]
    assert tracks[0] > tracks[1] == 0, "the upper face's"
    assert {file.name for file in tmp_path.glob("frame_*")} == {"frame_0040.png", "frame_0041.png"}
