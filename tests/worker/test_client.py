# SPDX-License-Identifier: GPL-3.0-or-later
"""A real worker process with a fake animator: results, reuse, errors, cancelling, death."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.processes import is_running, wait_until
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.retarget import prepared
from wav2sem_blender.pipeline.visemes import VRM, as_visemes
from wav2sem_blender.worker import job_limits, protocol
from wav2sem_blender.worker.client import JobFailedError, WorkerClient, WorkerDiedError, end_idle, new_job_id
from wav2sem_blender.worker.environment import WorkerEnvironment


def animate(client, audio, **options):
    command = protocol.Animate(job=new_job_id(), audio=audio, **options)
    client.submit(command)
    return command.job


def test_result_and_progress(client, audio):
    job = animate(client, audio("ok"), model="m", style=3, semantic_strength=0.5)
    events = []
    done = client.wait(events.append)
    assert Path(done.result) == client.folder / job / "motion.npz"
    assert (done.engine, done.device, done.notes) == ("fake", "cpu", ["style 3"])
    assert [event.stage for event in events][:2] == ["model", "model"]
    assert events[-1].stage == "audio" and events[-1].fraction == 0.5
    motion = Motion.load(done.result)
    np.testing.assert_allclose(motion.weights_TK[30], [1.0, 0.9, -0.25], rtol=1e-6)
    assert motion.info["semantic_strength"] == "0.5"


def test_worker_and_model_stay_warm(client, audio):
    pids, loads = [], []
    for model in ("a", "a", "b"):
        animate(client, audio("ok"), model=model)
        done = client.wait()
        pids.append(client.pid)
        loads.append(Motion.load(done.result).info["loads"])
    assert len(set(pids)) == 1
    assert loads == ["1", "1", "2"]


def test_a_changed_model_folder_is_loaded_again(client, audio, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    loads = []
    for content in ("1", "1", "22"):
        if not (model / "config.json").exists() or (model / "config.json").read_text() != content:
            (model / "config.json").write_text(content)
        animate(client, audio("ok"), model=str(model))
        loads.append(Motion.load(client.wait().result).info["loads"])
    assert loads == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("ok", {"model": "broken"}, ["model.safetensors is damaged"]),
        ("memory", {}, ["There is not enough memory"]),
        ("bug", {}, ["Internal error (KeyError", "encoder.layers.7", "worker.log"]),
        ("shapes", {}, ["Internal error (ValueError: operands could not be broadcast", "worker.log"]),
    ],
)
def test_errors_are_messages_and_the_worker_lives_on(client, audio, name, options, parts):
    job = animate(client, audio(name), **options)
    with pytest.raises(JobFailedError) as error:
        client.wait()
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert not (client.folder / job).exists()
    assert "Traceback" in client.log.read_text()
    animate(client, audio("ok"))
    assert client.wait().engine == "fake"


def test_strength_and_smoothing_are_applied_once_at_the_speed_of_the_scene(client, audio):
    settings = {"strength": 0.5, "smoothing_s": 0.1}
    animate(client, audio("ok"), speed=2.0, visemes="VRM", available=["A", "O"], **settings)
    made = Path(client.wait().result)
    animate(client, audio("ok"))
    plain = Motion.load(client.wait().result)
    wanted = prepared(replace(plain, fps=60.0), **settings)
    motion = Motion.load(made)
    assert motion.fps == 60.0
    np.testing.assert_array_equal(motion.weights_TK, wanted.weights_TK)
    visemes = Motion.load(made.with_name("visemes.npz"))
    assert visemes.channels == ("A", "O")
    np.testing.assert_array_equal(visemes.weights_TK, as_visemes(wanted, VRM, ("A", "O")).weights_TK)


def test_articulation_and_the_tongue(client, audio):
    animate(client, audio("phones"), articulation=0.5, tongue=["tongueTipUp"], strength=0.5, speed=2.0)
    motion = Motion.load(client.wait().result)
    assert motion.info["articulation"] == "0.5"
    assert motion.channels == ("jawOpen", "mouthPucker", "mouthSmileLeft", "tongueTipUp")
    up_T = motion.weights_TK[:, 3]
    assert up_T.max() == pytest.approx(0.4), "0.8 at half the strength"
    # L is from 0.5 to 1 s of the recording, which plays twice as fast.
    middle_s = np.average(np.arange(61) / motion.fps, weights=up_T)
    assert middle_s == pytest.approx(0.375, abs=0.01)
    assert motion.phones.spans()[1].start_s == pytest.approx(0.25)


def test_missing_file_is_a_message(client, tmp_path):
    animate(client, str(tmp_path / "ok.wav"))
    with pytest.raises(JobFailedError, match=r"^/.*ok\.wav: there is no such audio file"):
        client.wait()


def test_cancel_ends_the_process_and_the_next_job_starts_another(client, audio):
    job = animate(client, audio("slow_features"))
    wait_until(lambda: any(event.stage == "features" for event in client.poll()))
    pid = client.pid
    started = time.monotonic()
    client.cancel()
    assert time.monotonic() - started < 2
    assert not is_running(pid)
    assert not (client.folder / job).exists()
    assert client.poll() == []
    animate(client, audio("ok"))
    assert client.wait().engine == "fake"
    assert client.pid != pid


def test_an_idle_process_ends_and_the_next_job_starts_another(client, audio):
    animate(client, audio("ok"))
    client.wait()
    end_idle(60.0)
    assert client.alive, "it has just worked"
    animate(client, audio("ok"))
    end_idle(0.0)
    assert client.alive, "it has a job"
    client.wait()
    first = client.pid
    end_idle(0.0)
    assert not client.alive and not is_running(first)
    animate(client, audio("ok"))
    assert Path(client.wait().result).is_file() and client.pid != first


@pytest.mark.parametrize("limit", ["_MEMORY_BYTES", "_STALLED_S"])
def test_a_job_that_exceeds_a_limit_is_ended_with_a_sentence(client, audio, monkeypatch, limit):
    if limit == "_MEMORY_BYTES" and not Path("/proc").is_dir():
        pytest.skip("only Linux tells what a process has in memory")
    monkeypatch.setattr(job_limits, limit, 0)
    said = {"_MEMORY_BYTES": "took more than 0 GB of memory", "_STALLED_S": "reported no progress for 0 minutes"}[limit]
    job = animate(client, audio("slow_features"))
    pid = client.pid
    with pytest.raises(WorkerDiedError, match=said):
        client.wait()
    assert not client.alive and not is_running(pid) and not (client.folder / job).exists()
    monkeypatch.undo()
    animate(client, audio("ok"))
    assert client.wait().result


def test_limits_grow_with_the_recording_and_the_model(tmp_path):
    def limits(n_bytes, model="default"):
        sound = tmp_path / "a.wav"
        with sound.open("wb") as file:
            file.truncate(n_bytes)
        return job_limits.JobLimits(protocol.Animate(job="a", audio=str(sound), model=model))

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(bytes(1000))
    assert limits(0).memory_bytes == 8 << 30 and limits(0).stalled_s == 1800
    assert limits(1_000_000).memory_bytes == (8 << 30) + 4_000_000_000 and limits(1_000_000).stalled_s == 2000
    assert limits(0, str(tmp_path / "model")).memory_bytes == (8 << 30) + 6000
    assert limits(0, str(tmp_path / "gone")).memory_bytes == 8 << 30


def test_a_job_that_waits_behind_another_begins_at_its_end(client, audio):
    first, second = (protocol.Animate(job=new_job_id(), audio=audio("ok"), style=number) for number in (1, 2))
    client.submit(first)
    client.submit(second, behind=True)
    with pytest.raises(RuntimeError, match="has a job"):
        client.submit(second, behind=True)
    wait_until(lambda: (client.folder / second.job / "motion.npz").exists())  # both have ended, and nobody looked
    for command in (first, second):
        done = client.wait()
        assert (done.job, done.notes) == (command.job, [f"style {command.style}"])
    assert client.poll() == []


def test_a_job_that_waits_is_dropped_with_the_process_and_goes_on_after_an_error(client, audio):
    waiting = protocol.Animate(job=new_job_id(), audio=audio("ok"))
    animate(client, audio("crash"))
    client.submit(waiting, behind=True)
    with pytest.raises(WorkerDiedError):
        client.wait()
    assert client.poll() == [] and not client.alive
    animate(client, "/nowhere/gone.wav")
    client.submit(waiting, behind=True)
    with pytest.raises(JobFailedError):
        client.wait()
    assert client.wait().job == waiting.job
    waiting = replace(waiting, job=new_job_id())
    animate(client, audio("slow_features"))
    client.submit(waiting, behind=True)
    client.cancel()
    assert client.poll() == [] and not (client.folder / waiting.job).exists()


def test_a_call_is_limited_by_its_recording_and_one_without_as_if_it_were_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.wav").write_bytes(bytes(1_000_000))
    call = protocol.Call(job="a", module="batch.line", arguments="{}", audio=str(tmp_path / "a.wav"))
    assert job_limits.JobLimits(call).memory_bytes == (8 << 30) + 4_000_000_000
    without = protocol.Call(job="a", module="batch.line", arguments="{}")
    assert (job_limits.JobLimits(without).memory_bytes, job_limits.JobLimits(without).stalled_s) == (8 << 30, 1800)


def test_crash_is_one_clear_error(client, audio):
    animate(client, audio("crash"))
    with pytest.raises(WorkerDiedError) as error:
        client.wait()
    assert "(exit status 3)" in str(error.value)
    assert "about to crash" in client.log.read_text()
    assert str(client.log) in str(error.value)
    assert client.poll() == []
    animate(client, audio("ok"))
    assert client.wait().engine == "fake"


def test_killed_in_the_middle(client, audio):
    animate(client, audio("slow_features"))
    wait_until(lambda: client.poll())
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match=r"^The worker was killed \(SIGKILL\)"):
        client.wait()


def test_killed_between_two_jobs(client, audio):
    animate(client, audio("ok"))
    client.wait()
    os.kill(client.pid, signal.SIGKILL)
    wait_until(lambda: not client.alive)
    animate(client, audio("ok"))
    assert client.wait().engine == "fake"


def test_close_ends_the_process_and_removes_the_folder(environment, audio, tmp_path):
    client = WorkerClient(environment, tmp_path / "closing")
    animate(client, audio("ok"))
    client.wait()
    pid = client.pid
    client.close()
    assert not is_running(pid)
    assert not client.folder.exists()


def test_the_end_of_stdin_ends_a_running_job(environment, audio, tmp_path):
    """A crash of Blender, as the worker sees it."""
    folder = tmp_path / "session"
    folder.mkdir()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(environment.command(folder), stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
    process.stdin.write(protocol.encode(protocol.Animate(job="job1", audio=audio("slow_features"))))
    process.stdin.flush()
    wait_until(lambda: (folder / "job1" / "waveform.raw").exists())
    process.stdin.close()
    assert process.wait(5) == 0
    assert not folder.exists()


_BUSY = """
import os, sys, threading, time
from pathlib import Path

from wav2sem_blender.worker import serve

job = Path(sys.argv[1]) / "job1"
job.mkdir(parents=True)
reading, writing = os.pipe()
serve.CommandReader(job.parent, os.fdopen(reading, "rb"))


def write():
    number = 0
    while job.is_dir():
        number += 1
        try:
            (job / str(number % 100)).write_bytes(b"x")
        except OSError:
            pass


threading.Thread(target=write, daemon=True).start()
time.sleep(0.1)
os.close(writing)
time.sleep(10)
sys.exit(3)
"""


def test_a_job_that_still_writes_does_not_keep_the_folder(tmp_path):
    for session in range(5):
        folder = tmp_path / str(session)
        assert subprocess.run([sys.executable, "-c", _BUSY, str(folder)], timeout=20).returncode == 0
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"rm -rf", b"Not a line of JSON"),
        (b'{"cmd": [1]}', b"Unknown cmd"),
        (b"[" * 100_000, b"Not a line of JSON"),
        (b'{"cmd": "listen", "job": "../victim", "audio": "b"}', b"names no job"),
    ],
    ids=["no JSON", "no name", "deep", "another folder"],
)
def test_a_garbled_command_ends_the_worker_with_a_traceback(environment, tmp_path, line, said):
    folder, victim = tmp_path / "session", tmp_path / "victim"
    folder.mkdir()
    victim.mkdir()
    command = environment.command(folder)
    result = subprocess.run(command, input=line + b"\n", capture_output=True, timeout=10, check=False)
    assert result.returncode == 2
    assert said in result.stderr
    assert victim.is_dir()


def test_an_interpreter_that_does_not_start(tmp_path, audio):
    script = tmp_path / "python"
    script.write_text("not a program")
    script.chmod(0o755)
    client = WorkerClient(WorkerEnvironment(python=script), tmp_path / "session")
    with pytest.raises(UserError, match=r"python cannot be started \("):
        animate(client, audio("ok"))
    client.close()


def test_an_interpreter_that_is_no_python(tmp_path, audio):
    client = WorkerClient(WorkerEnvironment(python=Path(shutil.which("false"))), tmp_path / "session")
    animate(client, audio("ok"))
    with pytest.raises(WorkerDiedError, match="exit status 1"):
        client.wait()
    client.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine does not let the test mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_is_a_message(environment, audio, small_disk):
    client = WorkerClient(environment, small_disk / "session")
    job = animate(client, audio("fill"))
    with pytest.raises(JobFailedError, match=r"^The disk is full"):
        client.wait()
    assert not (client.folder / job).exists()
    animate(client, audio("ok"))
    assert client.wait().engine == "fake"
    client.close()


def test_disk_that_is_full_from_the_start(environment, audio, small_disk):
    client = WorkerClient(environment, small_disk / "session")
    with (small_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises((OSError, UserError), match=r"full|[Nn]o space"):
        animate(client, audio("ok"))
        client.wait()
    client.close()


def test_python_of_the_worker_is_isolated(client, audio, monkeypatch, tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    animate(client, audio("ok"))
    assert Motion.load(client.wait().result).info["python"] == sys.executable


def test_a_call_runs_a_module_of_the_package_and_keeps_the_model(environment, tmp_path):
    package = environment.boot.parents[1]
    (package / "worker" / "errand.py").write_text(
        "def run(arguments, models):\n    return {'twice': 2 * arguments['number'], 'models': type(models).__name__}\n"
    )
    client = WorkerClient(environment, tmp_path / "called")
    try:
        command = protocol.Call(job=new_job_id(), module="worker.errand", arguments='{"number": 21}')
        client.submit(command)
        assert json.loads(Path(client.wait().result).read_text()) == {"twice": 42, "models": "ModelCache"}
        client.submit(protocol.Call(job=new_job_id(), module="worker.errand", arguments="{}"))
        with pytest.raises(JobFailedError, match="KeyError"):
            client.wait()
        assert client.alive
    finally:
        client.close()


def test_one_thread_each_overrules_the_users_own_values(environment, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert environment.variables()["OMP_NUM_THREADS"] == "8"
    one = replace(environment, one_thread=True).variables()
    assert (one["OMP_NUM_THREADS"], one["OPENBLAS_NUM_THREADS"], one["WAV2SEM_ONNX_THREADS"]) == ("1", "1", "1")


def test_a_library_that_does_not_load_is_one_sentence(own_package, tmp_path, audio):
    libraries = tmp_path / "libraries"
    (libraries / "a_broken_library").mkdir(parents=True)
    (libraries / "a_broken_library" / "__init__.py").write_text("raise ImportError('undefined symbol: x')")
    (own_package / "pipeline" / "infer.py").write_text("import a_broken_library")
    boot = own_package / "worker" / "boot.py"
    client = WorkerClient(
        WorkerEnvironment(python=Path(sys.executable), paths=(str(libraries),), boot=boot), tmp_path / "session"
    )
    animate(client, audio("ok"))
    with pytest.raises(JobFailedError, match=r"^a_broken_library is installed but cannot be loaded \(undefined symbol"):
        client.wait()
    client.close()


@pytest.mark.parametrize(
    "log", ["terminate called after throwing an instance of 'std::bad_alloc'", "memory allocation of 9 bytes failed"]
)
def test_a_native_library_that_ran_out_of_memory_is_named_so(own_package, tmp_path, audio, log):
    (own_package / "pipeline" / "infer.py").write_text(
        f"import os, sys\nprint({log!r}, file=sys.stderr, flush=True)\nos.abort()"
    )
    client = WorkerClient(
        WorkerEnvironment(python=Path(sys.executable), boot=own_package / "worker" / "boot.py"), tmp_path / "session"
    )
    animate(client, audio("ok"))
    with pytest.raises(WorkerDiedError, match=r"^The worker ended because memory ran out\."):
        client.wait()
    client.close()
