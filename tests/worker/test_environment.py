# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python that runs the worker, and the messages about missing libraries."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wav2sem_blender import threads
from wav2sem_blender.errors import UserError
from wav2sem_blender.worker import environment, protocol
from wav2sem_blender.worker.client import JobFailedError, WorkerClient

ROOT = Path(__file__).parents[2]
LIBRARIES = ("numpy", "numpy.libs", "soundfile.py", "_soundfile.py", "_soundfile_data", "soxr", "cffi", "safetensors")


def library_folder(tmp_path: Path) -> Path:
    """A folder with what the pipeline needs except an engine."""
    site_packages = Path(importlib.util.find_spec("numpy").origin).parents[1]
    folder = tmp_path / "libraries"
    folder.mkdir()
    for name in LIBRARIES:
        if (site_packages / name).exists():
            (folder / name).symlink_to(site_packages / name)
    for extension in site_packages.glob("_cffi_backend*"):
        (folder / extension.name).symlink_to(extension)
    return folder


def run(client):
    client.submit(protocol.Animate(job="job1", audio=__file__))
    try:
        return client.wait()
    finally:
        client.close()


def test_embedded_finds_every_library_of_this_python(tmp_path, fake_package):
    """Even without the interpreter's own site-packages."""
    found = environment.embedded()
    assert found.python == Path(sys.executable)
    assert "-I" in found.options
    bare = environment.WorkerEnvironment(
        python=found.python, options=("-I", "-S"), paths=found.paths, boot=fake_package / "worker" / "boot.py"
    )
    assert run(WorkerClient(bare, tmp_path / "session")).engine == "fake"


def test_a_child_limits_its_threads_unless_the_user_did(monkeypatch):
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    variables = environment.from_python(sys.executable).variables()
    assert variables["OPENBLAS_NUM_THREADS"] == "1"
    assert variables["OMP_WAIT_POLICY"] == "ACTIVE"
    assert "OPENBLAS_NUM_THREADS" not in os.environ, "this process is not ours"


@pytest.mark.parametrize("package", ["wav2sem_blender", "trainer"])
def test_a_command_line_limits_its_threads_before_numpy_is_loaded(tmp_path, package):
    """And only where it is the process: not where a program imports it."""
    (tmp_path / "numpy.py").write_text("import os; print(os.environ.get('OPENBLAS_NUM_THREADS')); raise SystemExit\n")
    own = {name: value for name, value in os.environ.items() if name not in threads.VARIABLES}
    run_it = f"import runpy; runpy.run_module('{package}', run_name='__main__', alter_sys=True); import numpy"
    import_it = f"import {package}.__main__; import numpy"
    for code, expected in ((run_it, "1"), (import_it, "None")):
        command = [sys.executable, "-c", f"import sys; sys.argv[1:] = ['--help']; sys.exit = lambda *_: None; {code}"]
        variables = {**own, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
        said = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert said.stdout.split()[-1:] == [expected], said.stdout + said.stderr


def test_no_library_is_named(tmp_path, bare_python, fake_package):
    bare = environment.WorkerEnvironment(python=bare_python, boot=fake_package / "worker" / "boot.py")
    with pytest.raises(JobFailedError) as error:
        run(WorkerClient(bare, tmp_path / "session"))
    assert "lacks numpy, soundfile, soxr" in str(error.value)
    assert str(bare_python) in str(error.value)


def test_neither_engine_is_named(tmp_path, bare_python, fake_package):
    bare = environment.WorkerEnvironment(
        python=bare_python, paths=(str(library_folder(tmp_path)),), boot=fake_package / "worker" / "boot.py"
    )
    with pytest.raises(JobFailedError, match="neither onnxruntime nor torch"):
        run(WorkerClient(bare, tmp_path / "session"))


def test_a_chosen_python_must_exist_and_be_a_program(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such Python"):
        environment.from_python(tmp_path / "python")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="is not a program"):
        environment.from_python(tmp_path / "notes.txt")
    assert environment.from_python(sys.executable).python == Path(sys.executable)


def test_nothing_heavy_is_imported():
    """The client runs inside Blender: no NumPy, no bpy, no engine."""
    code = (
        "import sys; from wav2sem_blender.worker import client, environment, protocol; environment.embedded();"
        "print([m for m in ('numpy', 'bpy', 'onnxruntime', 'torch', 'soundfile') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
