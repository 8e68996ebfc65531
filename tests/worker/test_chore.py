# SPDX-License-Identifier: GPL-3.0-or-later
"""Chores: processes that tell their progress, fail with a sentence, and leave nothing running."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wav2sem_blender.worker import chore, environment, probe
from wav2sem_blender.worker.chore import Chore, ChoreFailedError

BOOT = str(environment.BOOT_SCRIPT)


def script(code: str, limit_s: float | None = None) -> Chore:
    return Chore([sys.executable, "-c", code], os.environ, "Starting", limit_s)


def is_running(pid: int) -> bool:
    """A process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, limit_s: float = 60.0):
    end_s = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return found


def test_progress_and_result_come_in_lines_and_chatter_is_ignored():
    lines = [{"fraction": 0.25, "text": "Half"}, ["no object"], {"result": {"size": 3}}]
    done = script("print('hello'); " + "; ".join(f"print({json.dumps(line)!r})" for line in lines))
    assert done.fraction == 0.0 and done.text == "Starting"
    assert done.wait() == {"size": 3}
    assert (done.fraction, done.text, done.pid) == (1.0, "Half", None)


def test_a_failure_is_its_own_sentence():
    with pytest.raises(ChoreFailedError, match=r"^the disk is full$"):
        script("import sys; print('error: the disk is full\\nwarning: later', file=sys.stderr); sys.exit(1)").wait()
    with pytest.raises(ChoreFailedError, match=r"exit status 1: ZeroDivisionError: division by zero"):
        script("1 / 0").wait()


def test_one_that_hangs_is_ended():
    hanging = script("import time; time.sleep(600)", limit_s=0.5)
    pid = hanging.pid
    with pytest.raises(ChoreFailedError, match="did not answer within 0 s"):
        hanging.wait()
    assert not is_running(pid)


def test_what_cannot_be_started_says_so(tmp_path):
    (tmp_path / "python").write_text("no program")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(OSError, match=r"python cannot be started \("):
        Chore([str(tmp_path / "python")], os.environ, "Starting")


WITH_CHILD = (
    "import json, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(json.dumps({'text': str(child.pid)}), flush=True)\n"
    "time.sleep(600)"
)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_cancelling_ends_what_it_started_too():
    parent = script(WITH_CHILD)
    child = int(until(lambda: parent.poll() or (parent.text.isdecimal() and parent.text)))
    pid = parent.pid
    assert is_running(pid) and is_running(child)
    parent.cancel()
    until(lambda: not is_running(child))
    assert not is_running(pid)
    assert parent.poll(), "a cancelled chore is done"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_a_chore_ends_when_the_one_who_started_it_is_gone(tmp_path):
    """As when Blender crashes: nothing is left that downloads on."""
    package = tmp_path / "package"
    (package / "worker").mkdir(parents=True)
    for name in ("__init__.py", "boot.py", "chore.py"):
        source = environment.BOOT_SCRIPT.with_name(name)
        (package / "worker" / name).write_bytes(source.read_bytes())
    (package / "__init__.py").write_text("")
    (package / "worker" / "slow.py").write_text(f"def main(arguments):\n    exec({WITH_CHILD!r})\n")
    blender = (
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, {str(package / 'worker' / 'boot.py')!r}, '--run', 'worker.slow']\n"
        "chore = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)\n"
        "print(chore.pid, chore.stdout.readline().decode(), flush=True)\n"
        "os.abort()"
    )
    said = subprocess.run([sys.executable, "-c", blender], capture_output=True, text=True).stdout
    pid, _, text = said.strip().partition(" ")
    assert text, said
    until(lambda: not is_running(int(pid)) and not is_running(int(json.loads(text)["text"])))


def test_a_python_that_is_too_old_is_named(tmp_path):
    """The check comes before any module that such a Python could not read."""
    code = (
        "import runpy, sys; sys.version_info = (3, 8, 1, 'final', 0); "
        f"sys.argv = [{BOOT!r}, '--run', 'worker.probe']; runpy.run_path({BOOT!r}, run_name='__main__')"
    )
    with pytest.raises(ChoreFailedError, match=r"is Python 3\.8\. Choose Python 3\.11 or newer\.$"):
        script(code).wait()


def test_a_python_says_what_it_has_and_what_it_lacks(bare_python):
    own = environment.from_python(bare_python)
    report = probe.Report(**Chore(own.run("worker.probe", "auto"), own.variables(), "Looking").wait())
    assert report.missing == ["numpy", "soundfile", "soxr", "safetensors"]
    assert report.missing_for_torch == [*report.missing, "torch", "transformers"]
    assert report.executable == str(bare_python) and report.python == sys.version.partition(" ")[0]
    assert (report.versions, report.bundled, report.larger, report.trouble) == ({}, "", "", "")


def test_the_engine_in_use_is_told_in_words(monkeypatch):
    pytest.importorskip("onnxruntime")
    import onnxruntime

    monkeypatch.setattr(environment, "TORCH_MODULES", ("torch", "a_library_that_is_nowhere"))
    report = probe.look("auto")
    assert report.bundled == f"ONNX Runtime {onnxruntime.__version__} on the CPU"
    assert report.larger == "" and report.missing_for_torch[-1] == "a_library_that_is_nowhere"
    assert report.trouble == ""


def test_a_device_that_is_not_there_is_told(monkeypatch):
    pytest.importorskip("onnxruntime")
    from wav2sem_blender.pipeline import infer

    monkeypatch.setattr(infer, "_installed", lambda module: module == "onnxruntime")
    monkeypatch.setattr(environment, "TORCH_MODULES", ("torch", "a_library_that_is_nowhere"))
    report = probe.look("cuda")
    assert report.bundled == "" and report.trouble.startswith("the torch engine needs torch and transformers")


def test_a_library_that_does_not_load_is_trouble(monkeypatch):
    def broken(has_onnx, device):
        raise RuntimeError("libcudart.so.13: no such file")

    monkeypatch.setattr(probe, "_engine_in_use", broken)
    report = probe.look("auto")
    assert report.trouble == "RuntimeError: libcudart.so.13: no such file" and report.bundled == ""


def test_complaints_are_one_line(capsys):
    chore.complain("a\n  b")
    assert capsys.readouterr().err == "error: a b\n"
