# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers whose package has a fake `pipeline.infer`: real processes and files, no model."""

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
