# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs every command of docs/training.md's walk-through, on miniature data sets and with the smoke experiments."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_faces import write_vocaset  # noqa: E402
from tests.trainer.miniature_librispeech import write_librispeech  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.experiments import find, known  # noqa: E402
from wav2sem_blender.pipeline import Motion  # noqa: E402

ROOT = Path(__file__).parents[2]
SMOKE = {
    ("pretrain-hubert", "base_features"): "smoke_features",
    ("finetune", "vocaset_wav2sem"): "smoke_wav2sem",
    ("finetune", "codetalker_vocaset"): "codetalker_smoke",
    ("finetune", "codetalker_vocaset_wav2sem"): "codetalker_smoke_wav2sem",
    ("evaluate", "table1"): "table1_smoke",
    ("export", "torch"): "torch",
}
SECTIONS = (
    "The paper: LibriSpeech, Wav2Sem, VOCASET, evaluation, extension",
    "A second host, and the paper's table",
)
AS_THEY_ARE = "prepare"  # each of its experiments prepares something else


def commands(heading: str) -> list[list[str]]:
    """The shell commands of one section, continuation lines joined."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").replace("\\\n", " ")
    section = re.search(rf"^## {re.escape(heading)}.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    blocks = re.findall(r"```sh\n(.*?)```", section[0], re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("walkthrough")
    write_librispeech(folder / "LibriSpeech", subsets=("train-clean-100", "dev-clean", "test-clean"))
    write_vocaset(folder / "VOCASET", sentences=(21, 22), seconds=0.6)
    (folder / "line.wav").symlink_to(ROOT / "wav2sem_blender" / "assets" / "demo_speech.flac")
    return folder


def test_the_walk_through_runs(folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    verbs = []
    for words in [words for section in SECTIONS for words in commands(section)]:
        assert words[:2] == ["python", "-m"]
        if words[2] == "trainer":
            verb, experiment, *options = words[3:]
            find(verb, experiment)
            small = experiment if verb == AS_THEY_ARE else SMOKE.get((verb, experiment), "smoke")
            assert main([verb, small, *options, "--device", "cpu"]) == 0, words
            verbs.append(verb)
        else:
            subprocess.run([sys.executable, *words[1:]], check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert {"prepare", "pretrain", "finetune", "evaluate", "analyze", "export", "pretrain-hubert"} <= set(verbs)
    assert "pretrain-prior" in verbs
    motion = Motion.load("curves/line.npz")
    assert motion.fps == 30 and len(motion.weights_TK) > 150
    assert "| another clip's F_s | " in Path("work/evaluation/results.md").read_text()
    assert Path("work/analysis/report.html").read_text().startswith("<!DOCTYPE html>")
    rows = {row["name"]: row for row in json.loads(Path("work/table1/results.json").read_text())["rows"]}
    measured = [name for name, row in rows.items() if row["results"]]
    assert measured == ["codetalker-vocaset", "codetalker-wav2sem-vocaset"] and len(rows) == 24


@pytest.mark.parametrize("heading", ["Several GPUs, several machines", "Your own recordings", "The bundled model"])
def test_every_other_command_is_one_that_exists(heading) -> None:
    found = [words[words.index("trainer") + 1 :] for words in commands(heading) if "trainer" in words]
    assert found
    for verb, experiment, *_options in found:
        assert experiment in known(verb)
