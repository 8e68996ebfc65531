# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers with a fake `pipeline.infer`: real processes and files, no model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wav2sem_blender.worker.client import WorkerClient
from wav2sem_blender.worker.environment import WorkerEnvironment


@pytest.fixture
def environment(fake_package) -> WorkerEnvironment:
    return WorkerEnvironment(python=Path(sys.executable), boot=fake_package / "worker" / "boot.py")


@pytest.fixture
def client(environment, tmp_path):
    worker = WorkerClient(environment, tmp_path / "session")
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory) -> Path:
    """An interpreter without any library."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
