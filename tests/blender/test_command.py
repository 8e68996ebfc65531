# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: exit status 0 only if keys were written and saved."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import bpy
import pytest

from wav2sem_blender.blender.animate import jobs
from wav2sem_blender.blender.animate.command import run_command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(fake_worker, tmp_path):
    def call(*arguments: str) -> int:
        return run_command(["--output", str(tmp_path / "b.blend"), *arguments])

    return call


def test_keys_are_written_and_saved(head, run, audio, tmp_path, curves_of, capsys):
    assert run("--audio", audio("ok"), "--object", "Head", "--start-frame", "5", "--strength", "0.5") == 0
    assert '"Head" speaks from frame 5 to' in capsys.readouterr().out
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "b.blend"))
    frames_T, jaw_T = curves_of(bpy.data.objects["Head"])["jawOpen"]
    assert frames_T[0] == 5
    assert jaw_T.max() == pytest.approx(0.5, abs=0.02)
    assert jobs._client is None, "the worker ends with the command"


def test_smoothing_delay_and_range_are_the_operators(head, run, tmp_path, curves_of):
    with wave.open(str(tmp_path / "two_seconds.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16_000))
    times = ("--smoothing", "0.1", "--delay", "0.25", "--from", "0.5", "--to", "1.5")
    assert run("--audio", str(tmp_path / "two_seconds.wav"), "--object", "Head", *times) == 0
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "b.blend"))
    saved = bpy.data.objects["Head"]
    record = json.loads(saved.data.shape_keys.animation_data.action["wav2sem_settings"])
    wanted = {"smoothing_s": 0.1, "delay_s": 0.25, "range_start_s": 0.5, "range_end_s": 1.5}
    assert record.items() >= wanted.items()
    fps = bpy.context.scene.render.fps
    assert curves_of(saved)["jawOpen"][0][0] == 1 + round(0.75 * fps)


@pytest.mark.parametrize(("given", "style"), [((), 0), (("--style", "artist"), "artist"), (("--style", "1"), "1")])
def test_the_style_reaches_the_model(head, run, audio, capsys, given, style):
    assert run("--audio", audio("ok"), "--object", "Head", *given) == 0
    assert f"wav2sem: style {style}\n" in capsys.readouterr().out, "the fake animator's note"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--object", "Head"), 2, "required: --audio"),
        (("--audio", "x.wav", "--colour", "red"), 2, "unrecognized arguments: --colour"),
        (("--audio", "x.wav", "--from", "-1"), 2, "-1 s is impossible; it must be 0 or more"),
        (("--audio", "x.wav", "--strength", "nan"), 2, "nan is not a finite number"),
        (("--audio", "missing.wav", "--object", "Head"), 1, "there is no such audio file"),
        (("--audio", __file__, "--object", "Nobody"), 1, 'no object named "Nobody"'),
        (("--audio", "ok.wav", "--object", "Head", "--output", "b.txt"), 1, "must be a .blend file"),
        (("--audio", "ok.wav", "--object", "Head", "--output", "/nowhere/b.blend"), 1, "does not exist"),
    ],
)
def test_errors_have_a_status_and_a_sentence(head, run, capsys, tmp_path, arguments, status, message):
    assert run(*arguments) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "b.blend").exists()


def test_a_failing_worker_saves_nothing(head, run, audio, capsys, tmp_path):
    assert run("--audio", audio("crash"), "--object", "Head") == 1
    assert "ended unexpectedly" in capsys.readouterr().err
    assert not (tmp_path / "b.blend").exists()


def test_help_is_no_success(head, run, capsys):
    assert run("--help") != 0
    assert "--semantic-strength" in capsys.readouterr().out


EXAMPLE = ROOT / "docs" / "examples" / "animate_from_speech.py"


@pytest.mark.parametrize(("name", "status"), [("ok", 0), ("bug", 1)])
def test_the_example_script(head, tmp_path, audio, fake_package, name, status):
    """Run as by `blender -b scene.blend --python docs/examples/animate_from_speech.py -- …`."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    code = (
        "import sys, runpy, bpy; from pathlib import Path; from wav2sem_blender.worker import environment;"
        f"bpy.ops.wm.open_mainfile(filepath={str(tmp_path / 'scene.blend')!r});"
        f"boot = Path({str(fake_package / 'worker' / 'boot.py')!r});"
        "fake = environment.WorkerEnvironment(python=Path(sys.executable), boot=boot);"
        "environment.embedded = lambda: fake;"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    )
    output = tmp_path / "b.blend"
    arguments = ["--", "--audio", audio(name), "--object", "Head", "--output", str(output)]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status, result.stdout + result.stderr
    assert output.exists() == (status == 0)
