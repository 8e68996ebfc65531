# SPDX-License-Identifier: GPL-3.0-or-later
"""A command line imports nothing from the folder that the user stands in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Those that a command line imports first, some of its libraries, and one of its own names.
HIDING = ("argparse", "json", "numpy", "random", "soundfile", "torch", "wave", "threads", "errors")


@pytest.fixture
def folder(tmp_path):
    """A folder of recordings, with modules that say that they were run."""
    for name in HIDING:
        (tmp_path / f"{name}.py").write_text(f"print('{name} of the folder was run')\nraise SystemExit(9)\n")
    return tmp_path


def run(folder: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    own |= {"PYTHONPATH": str(ROOT)} if path is None else {"PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", [f"{ROOT}", f"{os.pathsep}{ROOT}", f"{ROOT}{os.pathsep}"], ids=["", "first", "last"])
def test_modules_beside_the_recordings_are_not_run(folder, path):
    done = run(folder, "-m", "wav2sem_blender", "verify", "none", path=path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "none: no model here" in done.stderr


def test_neither_does_the_trainer(folder):
    done = run(folder, "-m", "trainer", "evaluate", "vocaset", "--data", "none", "--out", "o", "--model", "default")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("trainer: ") and len(done.stderr.splitlines()) == 1


def test_standing_in_the_checkout_needs_no_installation():
    done = run(ROOT, "-S", "-m", "wav2sem_blender", "--help", path="")
    assert done.returncode == 0 and "animate" in done.stdout
    done = run(ROOT, "-S", "-c", SETUP + "print(sys.path[-1], sys.path.count(os.getcwd()))", path="")
    assert done.stdout.split() == [str(ROOT), "1"], done.stderr


SETUP = "import os, sys; sys.path[0] = os.getcwd(); from wav2sem_blender import import_path as p; "
SETUP += "p.leave_out_current_folder(); "


def test_a_folder_that_pythonpath_names_comes_last(folder):
    done = run(folder, "-c", SETUP + "print(sys.path[-1])", path=os.pathsep.join([str(ROOT), str(folder)]))
    assert done.stdout.strip() == str(folder), done.stderr


def test_a_folder_of_libraries_is_kept(tmp_path):
    """As when the user stands in `site-packages`."""
    code = SETUP.replace("from", f"sys.path += [{str(tmp_path)!r}]; from", 1) + "print(sys.path.count(os.getcwd()))"
    assert run(tmp_path, "-c", code).stdout.strip() == "1"


def test_a_removed_folder_is_no_error(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run(gone, "-c", "import os; os.rmdir(os.getcwd()); " + SETUP.replace("sys.path[0] = os.getcwd(); ", ""))
    assert done.returncode == 0, done.stderr


def test_an_experiment_of_the_users_own_is_found(tmp_path):
    """The user names it, so its folder is searched; last."""
    (tmp_path / "mine.py").write_text("import beside\ndef tiny():\n    return beside.CONFIG\n")
    (tmp_path / "beside.py").write_text("CONFIG = 5\n")
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)\n")
    code = (
        SETUP
        + """
from trainer.experiments import find
for name in ("mine:tiny", "mine.py:tiny"):
    try:
        find("prepare", name)
    except ValueError as error:
        print(error)
"""
    )
    done = run(tmp_path, "-c", code)
    assert done.stdout.count("returns int") == 2, done.stderr


LIBRARIES = {
    "numpy",
    "soundfile",
    "soxr",
    "safetensors",
    "onnxruntime",
    "torch",
    "transformers",
    "tokenizers",
    "aud",
    "bpy",
}


@pytest.mark.parametrize("script", ["wav2sem_blender/worker/boot.py", "wav2sem_blender/__main__.py"])
def test_what_lies_beside_a_script_that_is_run_by_its_path_hides_no_library(script):
    """Python looks in the script's own folder first, before its first line can change that."""
    beside = {path.stem for path in (ROOT / script).parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert beside & (set(sys.stdlib_module_names) | LIBRARIES) == set()


def test_a_child_process_runs_nothing_of_the_folder_that_it_is_started_in(folder):
    done = run(folder, str(ROOT / "wav2sem_blender" / "worker" / "boot.py"), "--run", "worker.look", "none.wav")
    assert "was run" not in done.stdout and "none.wav" in done.stdout, done
