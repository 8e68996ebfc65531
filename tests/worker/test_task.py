# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks in processes of their own: they report progress, fail with a sentence, and leave nothing running."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import is_running, wait_until
from wav2sem_blender.errors import Text, UserError
from wav2sem_blender.worker import environment, probe
from wav2sem_blender.worker.task import TaskDiedError, TaskFailedError, TaskProcess

BOOT = str(environment.BOOT_SCRIPT)


def script(code: str, limit_s: float | None = None) -> TaskProcess:
    return TaskProcess([sys.executable, "-c", code], os.environ, "Starting", limit_s)


def test_progress_and_result_come_in_lines_and_chatter_is_ignored():
    lines = [{"fraction": 0.25, "text": "Half"}, ["no object"], {"result": {"size": 3}}]
    done = script("print('hello'); " + "; ".join(f"print({json.dumps(line)!r})" for line in lines))
    assert done.fraction == 0.0 and done.text == "Starting"
    assert done.wait() == {"size": 3}
    assert (done.fraction, done.text, done.pid) == (1.0, "Half", None)


@pytest.mark.parametrize(
    "line",
    [
        '{"fraction": "half", "text": [1], "result": "x"}',
        '{"fraction": NaN, "text": null, "result": null}',
        '{"fraction": ' + "9" * 400 + "}",
        '{"text": {"template": "{", "values": {}}}',
        '{"text": {"template": "{a}", "values": 3}}',
        "[" * 100_000,
    ],
)
def test_lines_of_another_shape_are_ignored(line, tmp_path):
    (tmp_path / "lines").write_text(line + '\n{"result": {"size": 3}}\n')
    lively = script(f"print(open({str(tmp_path / 'lines')!r}).read())")
    assert lively.wait() == {"size": 3} and lively.text == "Starting"


def test_an_error_without_a_template_is_shown():
    with pytest.raises(TaskFailedError, match=r"^\['a', 1\]$"):
        script("""print('{"error": ["a", 1]}')""").wait()


def test_an_error_crosses_with_its_template():
    text = Text("{disk}: {reason}.", disk="/", reason=Text("full"))
    failing = script(f"import sys; print({json.dumps({'error': text.to_json()})!r}); sys.exit(1)")
    with pytest.raises(TaskFailedError, match=r"^/: full\.$") as error:
        failing.wait()
    assert (error.value.text.template, error.value.text.values) == ("{disk}: {reason}.", text.values)
    assert not isinstance(error.value, TaskDiedError)


def test_a_death_without_an_error_shows_the_last_line():
    with pytest.raises(
        TaskDiedError, match=r"^The task ended unexpectedly \(exit status 1\): ZeroDivisionError: division by zero$"
    ):
        script("1 / 0").wait()


@pytest.mark.skipif(os.name == "nt", reason="no signals")
def test_a_signal_is_named():
    with pytest.raises(TaskDiedError, match=r"^The task ended unexpectedly \(SIGTERM\)\.$"):
        script("import os, signal; os.kill(os.getpid(), signal.SIGTERM)").wait()
    with pytest.raises(TaskDiedError, match=r"^The task was killed \(SIGKILL\)"):
        script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").wait()


def test_the_errors_of_a_module_are_reported(tmp_path):
    """A sentence for the user as it is, and a bug as an internal error that names the log."""
    own = environment.from_python(sys.executable)
    with pytest.raises(TaskFailedError, match=rf"^{tmp_path}/none: no model here"):
        TaskProcess(own.run("__main__", "verify", str(tmp_path / "none")), own.variables(), "").wait()
    with pytest.raises(TaskFailedError, match=r"^Internal error \(AttributeError: .*'run'.*wav2sem_errors\.log"):
        TaskProcess(own.run("worker.runtime"), {**own.variables(), "TMPDIR": str(tmp_path)}, "").wait()
    assert "Traceback" in (tmp_path / "wav2sem_errors.log").read_text()


def test_one_that_hangs_is_ended():
    hanging = script("import time; time.sleep(600)", limit_s=0.5)
    pid = hanging.pid
    with pytest.raises(TaskFailedError, match="^The task did not answer within 0 s"):
        hanging.wait()
    assert not is_running(pid)


def test_what_cannot_be_started_says_so(tmp_path):
    (tmp_path / "python").write_text("no program")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(UserError, match=r"python cannot be started \("):
        TaskProcess([str(tmp_path / "python")], os.environ, "Starting")


WITH_CHILD = (
    "import json, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(json.dumps({'text': str(child.pid)}), flush=True)\n"
    "time.sleep(600)"
)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_cancelling_ends_what_it_started_too():
    parent = script(WITH_CHILD)
    child = int(wait_until(lambda: parent.poll() or (parent.text.isdecimal() and parent.text), 60.0))
    pid = parent.pid
    assert is_running(pid) and is_running(child)
    parent.cancel()
    wait_until(lambda: not is_running(child), 60.0)
    assert not is_running(pid)
    assert parent.poll(), "a cancelled task is done"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks processes up in /proc")
def test_a_task_ends_with_its_parent(tmp_path, fake_package):
    """When Blender crashes, nothing goes on downloading."""
    (fake_package / "worker" / "slow.py").write_text(f"def run(arguments):\n    exec({WITH_CHILD!r})\n")
    blender = (
        "import os, subprocess, sys\n"
        f"command = [sys.executable, {str(fake_package / 'worker' / 'boot.py')!r}, '--run', 'worker.slow']\n"
        "task = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)\n"
        "print(task.pid, task.stderr.readline().decode(), flush=True)\n"
        "os.abort()"
    )
    said = subprocess.run([sys.executable, "-c", blender], capture_output=True, text=True).stdout
    pid, _, text = said.strip().partition(" ")
    assert text, said
    wait_until(lambda: not is_running(int(pid)) and not is_running(int(json.loads(text)["text"])), 60.0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the task ends when its library lets it")
def test_a_task_that_a_library_holds_ends_with_its_parent_too(tmp_path, fake_package):
    """A damaged sound may hang its decoder, which keeps all of Python's threads waiting."""
    started = tmp_path / "started"
    (fake_package / "worker" / "slow.py").write_text(
        f"import pathlib, re\ndef run(arguments):\n    pathlib.Path({str(started)!r}).touch()\n"
        "    re.match('(a+)+$', 'a' * 60 + 'b')\n"
    )
    command = [sys.executable, str(fake_package / "worker" / "boot.py"), "--run", "worker.slow"]
    task = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        wait_until(started.exists, 60.0)
        task.stdin.close()
        assert task.wait(30.0) == -signal.SIGKILL
    finally:
        task.kill()
        task.wait()


def test_a_python_that_is_too_old_is_named(tmp_path):
    """The check comes before any module that such a Python could not read."""
    code = (
        "import runpy, sys; sys.version_info = (3, 8, 1, 'final', 0); "
        f"sys.argv = [{BOOT!r}, '--run', 'worker.probe']; runpy.run_path({BOOT!r}, run_name='__main__')"
    )
    with pytest.raises(TaskFailedError, match=r"is Python 3\.8\. Choose Python 3\.11 or newer\.$") as error:
        script(code).wait()
    assert error.value.text.template == "{python} is Python {found}. Choose Python {needed} or newer."


def test_a_python_reports_what_it_has_and_what_it_lacks(bare_python):
    own = environment.from_python(bare_python)
    report = probe.Report(**TaskProcess(own.run("worker.probe", "auto"), own.variables(), "Looking").wait())
    assert report.missing == ["numpy", "soundfile", "soxr", "safetensors"]
    assert report.missing_for_torch == [*report.missing, "torch", "transformers"]
    assert report.executable == str(bare_python) and report.python == sys.version.partition(" ")[0]
    assert (report.versions, report.bundled, report.larger, report.trouble) == ({}, "", "", "")


def test_the_engine_in_use_is_named(monkeypatch):
    pytest.importorskip("onnxruntime")
    import onnxruntime

    monkeypatch.setattr(environment, "TORCH_MODULES", ("torch", "a_library_that_is_nowhere"))
    report = probe.look("auto")
    assert report.bundled == f"ONNX Runtime {onnxruntime.__version__} on the CPU"
    assert report.larger == "" and report.missing_for_torch[-1] == "a_library_that_is_nowhere"
    assert report.trouble == ""


def test_a_missing_device_is_reported(monkeypatch):
    pytest.importorskip("onnxruntime")
    from wav2sem_blender.pipeline import infer

    monkeypatch.setattr(infer, "_installed", lambda module: module == "onnxruntime")
    monkeypatch.setattr(environment, "TORCH_MODULES", ("torch", "a_library_that_is_nowhere"))
    report = probe.look("cuda")
    assert report.bundled == "" and report.trouble.startswith("the torch engine needs torch and transformers")


def test_a_library_that_does_not_load_is_trouble(monkeypatch):
    def broken(has_onnx, device, notes):
        raise RuntimeError("libcudart.so.13: no such file")

    monkeypatch.setattr(probe, "_engine_in_use", broken)
    report = probe.look("auto")
    assert report.trouble == "RuntimeError: libcudart.so.13: no such file" and report.bundled == ""
