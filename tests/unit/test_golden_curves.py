# SPDX-License-Identifier: GPL-3.0-or-later
"""The curves equal those of the commit that recorded tests/golden/curves.npz: a refactoring changes none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

GOLDEN = Path(__file__).parents[1] / "golden"


def test_curves_are_as_recorded() -> None:
    # In a process of its own, because the number of threads is set before NumPy loads.
    command = [sys.executable, str(GOLDEN / "golden_curves.py"), "compare", str(GOLDEN / "curves.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": the same") == 5, done.stdout
