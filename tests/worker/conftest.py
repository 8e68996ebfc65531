# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers whose package has a fake `pipeline.infer`: real processes and files, no model."""

import shutil
import sys
from pathlib import Path

import pytest

from wav2sem_blender.worker.client import WorkerClient
from wav2sem_blender.worker.environment import WorkerEnvironment

PACKAGE = Path(__file__).parents[2] / "wav2sem_blender"


@pytest.fixture(scope="session")
def fake_package(tmp_path_factory) -> Path:
    """A copy of the package with the fake animator; its folder is not named `wav2sem_blender`, as in an extension."""
    package = tmp_path_factory.mktemp("extension") / "some_other_name"
    (package / "pipeline").mkdir(parents=True)
    shutil.copy(PACKAGE / "__init__.py", package)
    shutil.copytree(PACKAGE / "worker", package / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "motion.py"):
        shutil.copy(PACKAGE / "pipeline" / name, package / "pipeline")
    shutil.copy(Path(__file__).with_name("fake_infer.py"), package / "pipeline" / "infer.py")
    return package


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
