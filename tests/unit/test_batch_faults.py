# SPDX-License-Identifier: GPL-3.0-or-later
"""Every write of a batch fails once at every step (full disk, input/output error, killed): old or new, never neither.

A stand-in for the model makes the lines. After each fault the same command, undisturbed, has to end with the bytes of a
run that nothing disturbed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.failing_calls import FAULTS, each_failing, needs_strace, run
from wav2sem_blender.batch.exit_codes import CODES

N_LINES = 2

BATCH = """
import hashlib, sys
from pathlib import Path
from wav2sem_blender.batch import resume, run
from wav2sem_blender.errors import report
from wav2sem_blender.files import write_atomically

resume.code_sha256 = lambda: "the sources, which nobody changes meanwhile"

def made(rows, arguments_of):
    for row in rows:
        content = Path(row.audio).read_bytes()
        try:
            for file in arguments_of(row)["files"].values():
                write_atomically(Path(file), content)
        except Exception as error:
            yield row, {"error": report(error), "cause": "disk"}
            continue
        yield row, {"seconds": 1.0, "audio_sha256": hashlib.sha256(content).hexdigest(), "bytes": {"npz": len(content)}}

options = run.Options(manifest="m.csv", output=Path(sys.argv[1]), jobs=1)
model = run.Model(sha256="m", engine="onnx", channels=(), tells_phones=True, check_settings=lambda settings: None)
sys.exit(run.run(options, model, made))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest, and `alone`: what an undisturbed run makes."""
    for number in range(N_LINES):
        (tmp_path / f"l{number}.wav").write_bytes(b"sound %d" % number)
    (tmp_path / "m.csv").write_text("audio\n" + "".join(f"l{number}.wav\n" for number in range(N_LINES)))
    assert run(tmp_path, BATCH, "alone").returncode == 0
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def is_whole(name: str, content: bytes, wanted: dict[str, bytes]) -> bool:
    """Whether a file is what it has to be; the report may still lack lines, or the last one's end."""
    if name == "report.jsonl":
        *lines, _last = content.split(b"\n")
        return all(json.loads(line) for line in lines)
    return name.startswith(".") or content == wanted[name]


@needs_strace
@pytest.mark.parametrize("fault", FAULTS)
def test_every_step_may_fail(folder, fault):
    wanted, out = contents(folder / "alone"), folder / "out"
    paths = [out, *(out / name for name in (*wanted, ".wav2sem_batch.begun"))]
    n_steps = 0
    for where, done in each_failing(
        folder, fault, paths, BATCH, "out", reset=lambda: shutil.rmtree(out, ignore_errors=True)
    ):
        n_steps += 1
        assert "Traceback" not in done.stderr and "Internal error" not in done.stderr, where
        if fault.startswith("error"):
            assert done.returncode in (CODES["done"], CODES["disk"]), where
        for name, content in contents(out).items():
            assert is_whole(name, content, wanted), f"{where} {name}"
        assert run(folder, BATCH, "out").returncode == 0, where
        assert contents(out) == wanted, where
    assert n_steps > 15
