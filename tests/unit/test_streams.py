# SPDX-License-Identifier: GPL-3.0-or-later
"""Standard streams that are closed, broken or full: the work goes on, and its exit code is that of the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wav2sem_blender import streams

ROOT = Path(__file__).parents[2]
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")

# Prints more than any buffer holds, works, and prints again.
WORK = """
import pathlib, sys
from wav2sem_blender import streams
def work():
    for _ in range(3000): print("a line of the log, longer than a pipe's buffer when it is repeated")
    print("warning", file=sys.stderr)
    pathlib.Path(sys.argv[1]).write_text("done")
    print("end")
    return int(sys.argv[2])
sys.exit(streams.guarded(work, lambda message: print("error:", message, file=sys.stderr)))
"""


def shell(command: str, **variables: object) -> tuple[int, str]:
    """The exit code and standard error of a command; `$PYTHON` is this one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    environment |= {name: str(value) for name, value in variables.items()}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def run(redirections: str, folder: Path, code: int = 0) -> tuple[int, str, bool]:
    """Exit code, standard error, and whether the work was done."""
    (folder / "work.py").write_text(WORK)
    command = f'"$PYTHON" work.py result {code} {redirections}; exit ${{PIPESTATUS[0]}}'
    status, said = shell(f'cd "$FOLDER"; {command}', FOLDER=folder)
    return status, said, (folder / "result").is_file()


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("redirections", ["| true", "| head -1", ">&-", "<&-", "2>&-", ">&- 2>&- <&-"])
def test_a_stream_that_nobody_reads_is_nobodys_error(redirections, code, tmp_path):
    status, said, is_done = run(redirections, tmp_path, code)
    assert (status, is_done) == (code, True)
    assert said in ("warning\n", "" if "2>&-" in redirections else None)


@needs_full
def test_a_full_disk_below_standard_output_is_named_and_the_work_is_done(tmp_path):
    status, said, is_done = run("> /dev/full", tmp_path)
    assert (status, is_done) == (1, True)
    assert said.splitlines() == [
        "warning",
        "error: Standard output cannot be written (No space left on device); results are not affected.",
    ]


@needs_full
def test_a_full_disk_below_standard_error_changes_nothing(tmp_path):
    assert run("2> /dev/full", tmp_path) == (0, "", True)


def test_what_is_opened_does_not_get_the_number_of_a_closed_stream(tmp_path):
    """Else what libraries print would go into the user's files."""
    (tmp_path / "work.py").write_text(
        "import os, sys\nfrom wav2sem_blender import streams\n"
        "def work():\n    file = open('result', 'wb')\n    os.write(1, b'noise')\n    return file.fileno() < 3\n"
        "sys.exit(streams.guarded(work, print))"
    )
    assert shell('cd "$FOLDER"; "$PYTHON" work.py >&-', FOLDER=tmp_path) == (0, "")
    assert (tmp_path / "result").read_bytes() == b""


def test_the_streams_are_as_before_afterwards():
    before = sys.stdout, sys.stderr
    assert streams.guarded(lambda: 7, print) == 7
    with pytest.raises(SystemExit, match="2"):
        streams.guarded(lambda: sys.exit(2), print)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("module", ["wav2sem_blender", "trainer"])
@pytest.mark.parametrize(("redirection", "code"), [("| true", 0), pytest.param("> /dev/full", 1, marks=needs_full)])
def test_both_command_lines_print_their_help_so(module, redirection, code):
    status, said = shell(f'"$PYTHON" -m {module} --help {redirection}; exit ${{PIPESTATUS[0]}}')
    assert status == code
    assert len(said.splitlines()) == code and "Traceback" not in said and "Exception ignored" not in said
