# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures that the tests of the worker and of Blender's side share; nothing here imports Blender or a model."""

import runpy
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
