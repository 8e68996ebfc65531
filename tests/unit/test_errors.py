# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the machine, not of the files: a library that does not load, and memory that runs out."""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.assets import DEMO_SPEECH
from wav2sem_blender.errors import UserError, is_out_of_memory, report, user_text
from wav2sem_blender.library_faults import fault_of

ROOT = Path(__file__).parents[2]
AGAIN = "Install it again (pip install --force-reinstall {name}); in Blender, reinstall the extension"
RUNTIME = "Install Microsoft's Visual C++ Redistributable"
NO_MEMORY = "There is not enough memory. Close other programs"
DLL = "DLL load failed while importing _core: A dynamic link library (DLL) initialization routine failed."
numbers = itertools.count()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Makes a package of this content, with a name that no other test has imported."""

    def make(content: str | None, **modules: str) -> str:
        name = f"broken_library_{next(numbers)}"
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "__init__.py").write_text(content)
        for module, text in modules.items():
            (tmp_path / name / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return name

    return make


def raised(statement: str) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: B017, PT011 (a library raises anything)
        exec(compile(statement, "ours.py", "exec"), {"__name__": "wav2sem_blender.pipeline.ours"})
    return caught.value


@pytest.mark.parametrize(
    ("content", "use", "reason", "remedy"),
    [
        ("raise ImportError('libopenblas.so.0: cannot open shared object file')", "", "libopenblas.so.0", AGAIN),
        (f"raise ImportError({DLL!r})", "", "DLL load failed", RUNTIME),
        (
            "raise OSError(22, '[WinError 126] The module could not be found. Error loading fbgemm.dll')",
            "",
            "",
            RUNTIME,
        ),
        ("raise RuntimeError('CPU dispatcher tracer already initialized')", "", "CPU dispatcher", AGAIN),
        ("raise ValueError('numpy.dtype size changed')", "", "numpy.dtype size changed", AGAIN),
        ("from . import core", "", "cannot import name 'core'", AGAIN),
        ("import {name}.core", "", "No module named '{name}.core'", AGAIN),
        ("import nowhere_to_be_found", "", "No module named 'nowhere_to_be_found'", AGAIN),
        ("raise SyntaxError('written for another Python')", "", "written for another Python", AGAIN),
        ("", "{name}.Session()", "has no attribute 'Session'", AGAIN),
        (None, "{name}.Session()", "has no attribute 'Session'", AGAIN),
        ("", "from {name} import Session", "cannot import name 'Session'", AGAIN),
        (
            "try:\n    import nowhere_to_be_found\nexcept ImportError as e:\n    raise ImportError('\\nREAD') from e",
            *("", "No module named 'nowhere_to_be_found'", AGAIN),
        ),
        (
            "def __getattr__(name):\n    import {name}.lazy\n",  # as transformers does
            *("{name}.Model", "libcudart.so.13: no such file", AGAIN),
        ),
    ],
)
def test_a_library_that_is_found_but_does_not_load_is_one_sentence(library, content, use, reason, remedy):
    name = library(content, lazy="raise RuntimeError('libcudart.so.13: no such file')")
    if content:
        Path(sys.path[0], name, "__init__.py").write_text(content.replace("{name}", name))
    said = report(raised(f"import {name}\n" + use.format(name=name)))
    assert said.startswith(f"{name} is installed but cannot be loaded (")
    assert reason.format(name=name) in said and remedy.format(name=name) in said


def test_a_library_that_is_not_installed_is_named():
    assert report(raised("import sklearn_of_nobody.metrics")).startswith("sklearn_of_nobody is not installed. Install")
    assert fault_of(ModuleNotFoundError("no", name="numpy.nowhere")).library == "numpy"


@pytest.mark.parametrize(
    "statement",
    [
        "import wav2sem_blender.nowhere",
        "from wav2sem_blender import nothing",
        "import json.nowhere",
        "[].nothing",
        "1/0",
    ],
)
def test_our_own_bugs_are_no_librarys(statement):
    assert user_text(raised(statement)) is None


def test_an_error_while_a_library_works_is_not_its_loading():
    assert fault_of(raised("import numpy\nnumpy.zeros(2) + numpy.zeros(3)")) is None
    assert fault_of(raised("open('/nowhere/file')")) is None


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("level_zero backend failed with error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"),
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("unable to mmap 4 bytes from file <x>: Cannot allocate memory (12)"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad allocation"),
        Exception("[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 4"),
        OSError("[WinError 1455] The paging file is too small for this operation to complete. Error loading x.dll"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:30]}",
)
def test_memory_that_ran_out_is_named_as_that_whatever_a_library_calls_it(error):
    assert report(error).startswith(NO_MEMORY)
    wrapped = RuntimeError("the encoder failed")
    wrapped.__cause__ = error
    assert report(wrapped).startswith(NO_MEMORY)


def test_real_allocations_that_fail():
    with pytest.raises(MemoryError) as caught:
        np.zeros((1 << 40, 1 << 10))
    assert report(caught.value).startswith(NO_MEMORY)
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert report(caught.value).startswith(NO_MEMORY)


@pytest.mark.parametrize("error", [UserError("a.wav: out of memory lane"), KeyError("memory"), RuntimeError("no GPU")])
def test_other_errors_are_not_memory(error):
    assert not is_out_of_memory(error)


def test_a_full_disk_below_the_log_hides_no_error(monkeypatch, tmp_path, capsys):
    def full():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", full)
    assert report(KeyError("bug")).startswith("Internal error (KeyError: 'bug')")
    assert "KeyError" in capsys.readouterr().err


def animate(folder: Path, **broken: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with libraries that cannot be loaded."""
    for name, content in broken.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(content)
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", "wav2sem_blender", "animate", str(DEMO_SPEECH), "--output", str(folder / "out")]
    return subprocess.run(command, env=own, cwd=ROOT, capture_output=True, text=True, check=False)


def test_torch_takes_the_place_of_an_onnx_runtime_that_does_not_load(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    done = animate(tmp_path, onnxruntime=f"raise ImportError({DLL!r})")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "onnxruntime" in line] == [
        f"note: {DEMO_SPEECH.name}: onnxruntime is installed but cannot be loaded ({DLL.rstrip('.')}). {RUNTIME} "
        "(https://aka.ms/vs/17/release/vc_redist.x64.exe) and try again. Until then, torch is used."
    ]
    with np.load(tmp_path / "out" / f"{DEMO_SPEECH.stem}.npz") as made:
        assert json.loads(str(made["info"]))["engine"] == "torch"


def test_where_neither_loads_the_first_is_named(tmp_path):
    done = animate(tmp_path, onnxruntime="raise RuntimeError('no luck')", torch="raise OSError('none here either')")
    assert done.returncode == 1
    assert done.stderr.startswith("error: onnxruntime is installed but cannot be loaded (no luck). Install it again")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["numpy", "soundfile", "soxr", "safetensors"])
def test_every_other_library_is_named_too(tmp_path, name):
    done = animate(tmp_path, **{name: "raise ImportError('undefined symbol: x')"})
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name} is installed but cannot be loaded (undefined symbol: x). Install")
    assert len(done.stderr.splitlines()) == 1


def test_ctypes_is_of_the_standard_library():
    """A library of the system that a module of ours asks for is no Python library."""
    with pytest.raises(OSError) as caught:
        ctypes.CDLL("/nowhere.so")
    assert fault_of(caught.value) is None
