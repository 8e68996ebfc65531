# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures that the tests of the worker and of Blender's side share; nothing here imports Blender or a model."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

make_fake_package = runpy.run_path(str(Path(__file__).parent / "worker" / "fake_package.py"))["make_fake_package"]


@pytest.fixture(scope="session")
def fake_package(tmp_path_factory) -> Path:
    """A copy of the package with the fake animator; its folder is not named `wav2sem_blender`, as in an extension."""
    return make_fake_package(tmp_path_factory.mktemp("extension"))


@pytest.fixture
def own_package(tmp_path) -> Path:
    """Another copy, which one test may change."""
    return make_fake_package(tmp_path)


@pytest.fixture
def audio(tmp_path):
    """Path of a file whose name tells the fake animator what to do."""

    def make(name: str) -> str:
        path = tmp_path / f"{name}.wav"
        path.write_bytes(b"")
        return str(path)

    return make


@pytest.fixture
def faster_whisper(tmp_path, monkeypatch) -> Path:
    """The test double of faster-whisper on the path of this process; returns the folder that it is in."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "fake_faster_whisper.py", folder / "faster_whisper.py")
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("faster_whisper", None)


@pytest.fixture
def whisper_model(tmp_path) -> Path:
    """A folder that the test double takes for a Whisper model."""
    folder = tmp_path / "whisper"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).write_text("{}")
    says(
        folder,
        language="en",
        lines=["Please put the paper boat by the pond.", "My *mother*, (laughs) [Music] made me."],
    )
    return folder


def says(folder: Path, **what: object) -> None:
    """Let a folder's model say something else."""
    (folder / "model.bin").write_text(json.dumps(what), encoding="utf-8")
