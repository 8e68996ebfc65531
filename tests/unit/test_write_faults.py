# SPDX-License-Identifier: GPL-3.0-or-later
"""What replaces an older file or folder fails once at every step: the old one or the whole new one is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.failing_calls import each_failing, needs_strace, run

MOTION = """
import sys
import numpy as np
from pathlib import Path
from wav2sem_blender.pipeline.motion import Motion
Motion(weights_TK=np.full((3, 1), 0.5), channels=("jawOpen",), fps=30.0, info={"n": sys.argv[1]}).save(Path("it.npz"))
"""
MODEL = """
import sys
import numpy as np
from pathlib import Path
from wav2sem_blender.pipeline.checkpoint import Wav2SemConfig, save_wav2sem
config = Wav2SemConfig(config={"hidden_size": 8}, target_dim=8)
weights = np.full((8, 8), float(sys.argv[1]), np.float32)
save_wav2sem(Path("it"), config, {"wav2sem.projection.weight": weights})
"""
WRITERS = {"a motion": ("it.npz", MOTION), "a model folder": ("it", MODEL)}


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a file, or of each file of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


@needs_strace
@pytest.mark.parametrize("fault", ["error=ENOSPC", "signal=KILL"])
@pytest.mark.parametrize("writer", WRITERS)
def test_old_or_new(tmp_path, writer, fault):
    name, program = WRITERS[writer]
    made = {}
    for number in ("1", "2"):
        done = run(tmp_path, program, number)
        assert done.returncode == 0, done.stderr
        made[number] = content(tmp_path / name)
        (tmp_path / name).rename(tmp_path / f"made{number}")

    def reset() -> None:
        for path in tmp_path.iterdir():
            if not path.name.startswith("made"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        source, target = tmp_path / "made1", tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)

    inside = [tmp_path / name / file for file in made["1"]] if (tmp_path / "made1").is_dir() else []
    n_steps = 0
    for where, _ in each_failing(tmp_path, fault, [tmp_path, tmp_path / name, *inside], program, "2", reset=reset):
        n_steps += 1
        assert content(tmp_path / name) in made.values(), where
        assert run(tmp_path, program, "2").returncode == 0, where
        assert content(tmp_path / name) == made["2"], where
    assert n_steps > 2
