# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch on many machines: Open Job Description, Flamenco and Dask run the examples of the documentation.

`nox -s farm` has the engines; elsewhere these tests skip.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wav2sem_blender.assets import DEFAULT_MODEL

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
RATE_HZ = 16_000
N_LINES = 6


def needs(module: str, package: str) -> pytest.MarkDecorator:
    """Skip without a library, or without the bundled model."""
    try:
        is_there = importlib.util.find_spec(module) is not None
    except ImportError:
        is_there = False
    reason = f"{package} is not installed; run `nox -s farm`"
    return pytest.mark.skipif(not is_there or not (DEFAULT_MODEL / "config.json").exists(), reason=reason)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest of short recordings, and what one machine makes of it."""
    for number in range(N_LINES):
        seconds = 0.5 if number else 30  # the first is still being made when it is killed
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(seconds * RATE_HZ))
        soundfile.write(tmp_path / f"l{number}.wav", noise, RATE_HZ)
    (tmp_path / "m.csv").write_text("audio\n" + "".join(f"l{number}.wav\n" for number in range(N_LINES)))
    assert batch(tmp_path, "alone") == 0
    return tmp_path


def batch(folder: Path, output: str, *arguments: str) -> int:
    command = [
        sys.executable,
        "-m",
        "wav2sem_blender",
        "batch",
        str(folder / "m.csv"),
        "--output",
        str(folder / output),
    ]
    return subprocess.run([*command, "--jobs", "1", *arguments], cwd=ROOT, check=False).returncode


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def openjd(folder: Path, *arguments: str, **options) -> subprocess.Popen:
    values = {"Manifest": folder / "m.csv", "Output": folder / "out", "Chunks": 2, "Jobs": 1, "Python": sys.executable}
    parameters = [part for name, value in values.items() for part in ("-p", f"{name}={value}")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [str(Path(sys.executable).with_name("openjd")), "run", str(EXAMPLES / "batch.openjd.yaml")]
    return subprocess.Popen([*command, *arguments, *parameters], env=environment, text=True, **options)


@needs("openjd", "openjd-cli")
@pytest.mark.skipif(os.name == "nt", reason="the test kills by signals")
def test_open_job_description_after_a_killed_chunk(folder):
    # The second chunk is made, and the first is killed at its first line.
    assert openjd(folder, "--step", "Lines", "-tp", "Chunk=2").wait() == 0
    first = openjd(folder, "--step", "Lines", "-tp", "Chunk=1", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert first.stdout is not None
    for line in first.stdout:
        if found := re.search(r"pid[^0-9]*(\d+)", line):
            pid = int(found[1])
        if "3 lines, 0 made before" in line:
            os.killpg(os.getpgid(pid), signal.SIGKILL)  # a shell and the batch
    assert first.wait() != 0
    assert not (folder / "out" / "report.html").exists()
    assert openjd(folder, "--step", "Report", "--run-dependencies").wait() == 0
    assert contents(folder / "out") == contents(folder / "alone")


def javascript(script: str) -> str:
    """What a script's last expression gives, in Node or in the engine of the package mini-racer."""
    node = shutil.which("node")
    if node:
        printed = subprocess.run(
            [node, "-p", "require('vm').runInThisContext(require('fs').readFileSync(0, 'utf8'))"],
            input=script, capture_output=True, text=True, encoding="utf-8", check=True,
        )  # fmt: skip
        return printed.stdout
    engine = pytest.importorskip("py_mini_racer", reason="no JavaScript engine: node, or mini-racer of `nox -s farm`")
    return str(engine.MiniRacer().eval(script))


def test_flamenco_compiles_chunks_and_then_the_report():
    """Against the documented interface of Flamenco's job compiler, in another JavaScript engine than its own."""
    stand_in = """
        const tasks = [], author = {
          Task: (name, type) => ({ name, type, commands: [], dependencies: [],
            addCommand(command) { this.commands.push(command); },
            addDependency(task) { this.dependencies.push(task.name); } }),
          Command: (name, parameters) => ({ name, parameters }),
        };
    """
    given = {"manifest": "/nas/lines.csv", "output": "/nas/night", "formats": "blend,glb", "chunks": 3, "jobs": 2}
    given["recognise"] = "/nas/whisper"
    run = (
        f"compileJob({{ settings: {json.dumps(given)}, addTask: task => tasks.push(task) }});"
        "JSON.stringify({ tasks, keys: JOB_TYPE.settings.map(setting => setting.key) });"
    )
    script = (EXAMPLES / "wav2sem_batch.js").read_text(encoding="utf-8")
    compiled = json.loads(javascript(stand_in + script + run))
    assert sorted(compiled["keys"]) == sorted(given)
    *chunks, report = compiled["tasks"]
    assert [task["name"] for task in chunks] == report["dependencies"] and len(chunks) == 3
    (command,) = chunks[1]["commands"]
    arguments = command["parameters"]["args"]
    assert command["name"] == "exec" and command["parameters"]["exe"] == "{blender}"
    assert arguments[:4] == ["--background", "--command", "wav2sem_batch", "/nas/lines.csv"]
    assert arguments[arguments.index("--recognise") + 1] == "/nas/whisper"
    assert (
        arguments[arguments.index("--chunk") + 1] == "2/3"
        and "--chunk" not in report["commands"][0]["parameters"]["args"]
    )
    assert all(isinstance(argument, str) for argument in arguments), "Flamenco takes strings alone"


@needs("distributed", "Dask distributed")
@pytest.mark.skipif(os.name == "nt", reason="the test kills by signals")
def test_dask_loses_nothing_with_a_worker(folder):
    """Two workers on this machine; one is killed when the first line is made."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        pids = list(cluster.scheduler.workers.values())
        command = [sys.executable, "-m", "wav2sem_blender", "batch", str(folder / "m.csv"), "--json"]
        process = subprocess.Popen(
            [*command, "--output", str(folder / "out"), "--scheduler", cluster.scheduler_address],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "line" and pids:
                victim = next(iter(cluster.workers.values()))
                os.kill(victim.pid, signal.SIGKILL)
                pids = []
        assert process.wait() == 0
    names = [event["name"] for event in events if event["event"] == "line"]
    assert sorted(names) == [f"l{number}" for number in range(N_LINES)], "nothing lost, nothing twice"
    assert events[-1]["made"] == N_LINES
    for number in range(N_LINES):
        made, wanted = (np.load(folder / where / f"l{number}.npz") for where in ("out", "alone"))
        np.testing.assert_allclose(made["weights_TK"], wanted["weights_TK"], atol=1e-4)


def test_no_scheduler_is_a_sentence(tmp_path, capfd):
    soundfile.write(tmp_path / "l0.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE_HZ), RATE_HZ)
    (tmp_path / "m.csv").write_text("audio\nl0.wav\n")
    from wav2sem_blender.batch import dask_workers

    dask_workers_s, dask_workers._CONNECT_S = dask_workers._CONNECT_S, 1
    try:
        from wav2sem_blender.errors import UserError

        with pytest.raises(UserError, match="needs Dask|no scheduler of Dask"):
            next(dask_workers.made([], lambda _row: {}, address="tcp://127.0.0.1:1"))
    finally:
        dask_workers._CONNECT_S = dask_workers_s
