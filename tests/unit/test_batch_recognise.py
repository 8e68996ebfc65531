# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch that recognises the words of rows without a transcript, with a test double of faster-whisper."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH
from wav2sem_blender.batch import dask_workers
from wav2sem_blender.batch.exit_codes import CODES
from wav2sem_blender.pipeline.motion import Motion

from .report_pages import shown_in

ROOT = Path(__file__).parents[2]
says = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["says"]
SAID = "Please put the paper boat by the pond. My mother may move five more ships before we both hear the music."

pytestmark = pytest.mark.skipif(not (DEFAULT_MODEL / "config.json").exists(), reason="there is no bundled model")


@pytest.fixture
def night(tmp_path, faster_whisper, whisper_model):
    """Three rows: one with a text, two without. The command; it returns the code, the events and what it complains."""
    says(whisper_model, language="en", lines=[SAID])
    shutil.copy(DEMO_SPEECH, tmp_path / "demo.flac")
    cells = [("given", SAID), ("first", ""), ("second", "")]
    rows = (f'demo.flac,{name},"{text}"\n' for name, text in cells)
    (tmp_path / "m.csv").write_text("audio,output,text\n" + "".join(rows))

    def run(*arguments: str, output: str = "out", libraries: Path = faster_whisper) -> tuple[int, list[dict], str]:
        given = [str(tmp_path / "m.csv"), "--output", str(tmp_path / output), "--json", *arguments]
        command = [sys.executable, "-m", "wav2sem_blender", "batch", *given]
        variables = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(libraries)}
        result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        return result.returncode, [json.loads(line) for line in result.stdout.splitlines()], result.stderr

    return run


def made(events: list[dict]) -> list[str]:
    return sorted(event["name"] for event in events if event["event"] == "line")


def records(folder: Path) -> dict[str, dict]:
    return {record["name"]: record for record in map(json.loads, (folder / "report.jsonl").open())}


def test_rows_without_a_text_get_one_whatever_the_number_of_workers(night, whisper_model, tmp_path):
    option = ("--recognise", str(whisper_model))
    assert night(*option, "--jobs", "1", output="one")[0] == 0
    assert night(*option, "--jobs", "3", output="three")[0] == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes(), path.name
    found = records(tmp_path / "one")
    assert "recognised" not in found["given"] and found["first"]["recognised"] == SAID
    assert found["first"]["language"] == "en" and found["first"]["fit"] == pytest.approx(
        found["given"]["fit"], abs=0.02
    )
    motions = [Motion.load(tmp_path / "one" / f"{name}.npz") for name in ("given", "first", "second")]
    assert [word.text for word in motions[1].track.words] == [word.text for word in motions[0].track.words]
    np.testing.assert_array_equal(motions[1].weights_TK, motions[2].weights_TK)
    shown = {line["name"]: line for line in shown_in((tmp_path / "one" / "report.html").read_text(encoding="utf-8"))}
    assert shown["first"]["recognised"] == SAID


def test_the_recogniser_is_a_part_of_what_makes_the_rows_that_need_it(night, whisper_model):
    option = ("--recognise", str(whisper_model))
    assert made(night()[1]) == ["first", "given", "second"]
    assert made(night(*option)[1]) == ["first", "second"], "a row with a text is as it was"
    assert made(night(*option)[1]) == []
    os.utime(whisper_model / "model.bin", (0, 0))
    shutil.move(whisper_model, whisper_model.with_name("elsewhere"))
    option = ("--recognise", str(whisper_model.with_name("elsewhere")))
    assert made(night(*option)[1]) == [], "its files count, not their place or time"
    (whisper_model.with_name("elsewhere") / "vocabulary.txt").write_text("[]")
    assert made(night(*option)[1]) == ["first", "second"]
    assert made(night(*option, "--language", "de")[1]) == ["first", "given", "second"]


def test_no_words_are_told_and_the_line_is_made(night, whisper_model, tmp_path):
    says(whisper_model, language="en", lines=["[Music]"])
    assert night("--recognise", str(whisper_model))[0] == 0
    found = records(tmp_path / "out")["first"]
    assert found["recognised"] == "" and "fit" not in found and found["confidence"] > 0.5


def test_it_is_checked_before_anything_starts(night, whisper_model, tmp_path):
    code, events, complaint = night("--recognise", str(tmp_path / "nowhere"))
    assert (code, events) == (CODES["model"], []) and "no such folder with a speech recogniser" in complaint
    code, events, complaint = night("--recognise", str(whisper_model), libraries=tmp_path / "none")
    assert (code, events) == (CODES["engine"], []) and "pip install faster-whisper" in complaint
    (whisper_model / "config.json").unlink()
    code, _, complaint = night("--recognise", str(whisper_model))
    assert code == CODES["model"] and "it has no config.json" in complaint
    assert not (tmp_path / "out").exists()


def test_a_damaged_recogniser_ends_the_run_and_a_crash_costs_its_line(night, whisper_model):
    says(whisper_model, error="File model.bin is incomplete")
    code, events, complaint = night("--recognise", str(whisper_model))
    assert code == CODES["model"] and "cannot be loaded (File model.bin is incomplete)" in complaint
    says(whisper_model, language="en", lines=["Hello"], crash=True)
    code, events, _ = night("--recognise", str(whisper_model), "--jobs", "1")
    failed = {event["name"] for event in events if event.get("state") == "failed"}
    assert code == CODES["partly"] and failed == {"first", "second"}


def test_a_worker_of_dask_is_told_the_same(whisper_model, faster_whisper, tmp_path):
    says(whisper_model, language="en", lines=[SAID])
    arguments = {
        **{"audio": str(DEMO_SPEECH), "transcript": "", "text": "", "track": "", "files": {}, "model": "default"},
        **{"engine": "onnx", "device": "auto", "memory_bytes": 0, "recognise": str(whisper_model)},
        "settings": {"style": 0, "semantic_strength": 1.0, "articulation": 0.0, "seed": 0, "language": ""},
    }
    assert dask_workers.make(arguments)["recognised"] == SAID
    failed = dask_workers.make({**arguments, "recognise": str(tmp_path / "none")})
    assert failed["cause"] == "model"
