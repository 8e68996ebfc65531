# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers whose package has a fake `pipeline.infer`: real processes and files, no model."""

import runpy
import sys
from pathlib import Path

import pytest

from wav2sem_blender.worker.client import WorkerClient
from wav2sem_blender.worker.environment import WorkerEnvironment

make_fake_package = runpy.run_path(str(Path(__file__).with_name("fake_package.py")))["make_fake_package"]


@pytest.fixture(scope="session")
def fake_package(tmp_path_factory) -> Path:
    """A copy of the package with the fake animator; its folder is not named `wav2sem_blender`, as in an extension."""
    return make_fake_package(tmp_path_factory.mktemp("extension"))


@pytest.fixture
def environment(fake_package) -> WorkerEnvironment:
    return WorkerEnvironment(python=Path(sys.executable), boot=fake_package / "worker" / "boot.py")


@pytest.fixture
def client(environment, tmp_path):
    worker = WorkerClient(environment, tmp_path / "session")
    yield worker
    worker.close()


@pytest.fixture
def audio(tmp_path):
    """Path of a file whose name tells the fake animator what to do."""

    def make(name: str) -> str:
        path = tmp_path / f"{name}.wav"
        path.write_bytes(b"")
        return str(path)

    return make
