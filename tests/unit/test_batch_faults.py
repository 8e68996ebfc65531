# SPDX-License-Identifier: GPL-3.0-or-later
"""Every write of a batch fails once at every step (full disk, input/output error, killed): old or new, never neither.

strace makes each system call on the output folder fail in its turn, in a run whose lines are made by a stand-in for the
model. Afterwards the same command, undisturbed, has to end with the bytes of a run that nothing disturbed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wav2sem_blender.batch.exit_codes import CODES

ROOT = Path(__file__).parents[2]
N_LINES = 2
# Calls that change a file or a folder.
CALLS = "write,fsync,rename,openat,unlink,mkdir"

STAND_IN = """
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

options = run.Options(manifest=sys.argv[1], output=Path(sys.argv[2]), jobs=1)
model = run.Model(sha256="m", engine="onnx", channels=(), tells_phones=True, check_settings=lambda settings: None)
sys.exit(run.run(options, model, made))
"""


def works(*command: str) -> bool:
    """Whether a command runs here; a container may forbid tracing."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None or not works("strace", "-e", "trace=none", "true"), reason="strace does not run here"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest, and `alone`: what an undisturbed run makes."""
    for number in range(N_LINES):
        (tmp_path / f"l{number}.wav").write_bytes(b"sound %d" % number)
    (tmp_path / "m.csv").write_text("audio\n" + "".join(f"l{number}.wav\n" for number in range(N_LINES)))
    assert batch(tmp_path, "alone").returncode == 0
    return tmp_path


def batch(folder: Path, output: str, *before: str) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", STAND_IN, str(folder / "m.csv"), str(folder / output)]
    own = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_whole(name: str, content: bytes, wanted: dict[str, bytes]) -> bool:
    """Whether a file is what it has to be; the report may still lack lines, or the last one's end."""
    if name == "report.jsonl":
        *lines, _last = content.split(b"\n")
        return all(json.loads(line) for line in lines)
    return name.startswith(".") or content == wanted[name]


@pytest.mark.parametrize("fault", ["error=ENOSPC", "error=EIO", "signal=KILL"])
def test_every_step_may_fail(folder, fault):
    wanted = contents(folder / "alone")
    paths = [f"-P{folder / 'out'}", *(f"-P{folder / 'out' / name}" for name in wanted)]
    n_steps = 0
    for call in CALLS.split(","):
        for number in range(1, 40):
            shutil.rmtree(folder / "out", ignore_errors=True)
            log = folder / "strace.log"
            inject = f"inject={call}:{fault}:when={number}"
            trace = ("strace", "-f", "-o", str(log), "-e", f"trace={call}", "-e", inject, *paths)
            done = batch(folder, "out", *trace)
            if "INJECTED" not in log.read_text() and "SIGKILL" not in log.read_text():
                break
            n_steps += 1
            where = f"{call} {number}: {done.returncode} {done.stderr}"
            assert "Traceback" not in done.stderr and "Internal error" not in done.stderr, where
            if fault.startswith("error"):
                assert done.returncode in (CODES["done"], CODES["disk"]), where
            if (folder / "out").is_dir():
                for name, content in contents(folder / "out").items():
                    assert is_whole(name, content, wanted), f"{where} {name}"
            assert batch(folder, "out").returncode == 0, where
            assert contents(folder / "out") == wanted, where
    assert n_steps > 5
