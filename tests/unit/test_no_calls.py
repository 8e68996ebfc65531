# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody is called: whole processes are traced, with all their libraries, in a fresh home.

ONNX Runtime's telemetry begins ten seconds after its import, so the processes stay at work for 60 s. They run at once,
under strace; without it (Windows, macOS, a plain Linux) the tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from wav2sem_blender import offline
from wav2sem_blender.worker import environment, protocol

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
BOOT = ROOT / "wav2sem_blender" / "worker" / "boot.py"
SPEECH = ROOT / "wav2sem_blender" / "assets" / "demo_speech.flac"
WORK_S = 60
SCRIPT = f"""
import time, numpy as np
from wav2sem_blender.pipeline import SpeechAnimator
animator = SpeechAnimator.load("default", engine={{engine!r}}, device="cpu")
begin_s = time.monotonic()
while time.monotonic() - begin_s < {WORK_S}:
    animator.animate(np.random.default_rng(0).standard_normal(80_000).astype("f4"), 16_000)
    time.sleep(2)
"""
# What the panel and a run do with a sound, each time in a process of its own, as Blender starts them.
SOUNDS = f"""
import json, subprocess, sys, time
tasks = {{tasks!r}}
begin_s, n_done = time.monotonic(), 0
while time.monotonic() - begin_s < {WORK_S}:
    task = tasks[n_done % len(tasks)]
    done = subprocess.run([sys.executable, {str(BOOT)!r}, "--run", *task], stdin=subprocess.PIPE, capture_output=True)
    assert done.returncode == 0 and b'"result"' in done.stdout, done
    n_done += 1
assert n_done >= len(tasks)
"""
# What asks a name server or connects to another machine: itself, or by a daemon of this machine that looks names up.
# Other local sockets (AF_UNIX) and netlink leave no machine.
CALL = re.compile(
    r"\b(?:socket|connect|sendto|sendmsg|sendmmsg|bind)\(.*(?:AF_INET6?\b|AF_PACKET)|"
    r'\b(?:connect|sendto|sendmsg)\(.*sun_path=@?"[^"]*(?:resolve|avahi|mdns)'
)
HAS_TORCH = not environment.missing_modules(["torch", "transformers"])
PROCESSES = (
    *("worker", "probe", "command line", "script", "batch", "looks at sounds"),
    *(("decoding Blender",) if importlib.util.find_spec("bpy") else ()),
    *(("worker with torch", "script with torch", "training", "the trainer's imports") if HAS_TORCH else ()),
)


@dataclass
class Watched:
    """A process that ended: what it asked the network for, and the files that it left in its home."""

    status: int
    said: str
    calls: list[str]
    files: list[str]


def command_of(name: str, home: Path) -> list[str]:
    """The command line of a process of `PROCESSES`."""
    match name:
        case "worker" | "worker with torch":
            return [sys.executable, str(BOOT), "--folder", str(home.parent / "session")]
        case "probe":
            return [sys.executable, str(BOOT), "--run", "worker.probe", "cpu"]
        case "command line":
            # As many recordings as keep it at work; one fails, so that its way out is watched too.
            recordings = [str(SPEECH)] * 40 + ["missing.wav"]
            return [sys.executable, "-m", "wav2sem_blender", "animate", *recordings, "--output", str(home.parent)]
        case "batch":
            # Each line has a name of its own, and there are as many as keep the workers at work.
            lines = home.parent / "lines.csv"
            lines.write_text("audio,output\n" + "".join(f"{SPEECH},line{number}\n" for number in range(60)))
            output = str(home.parent / "night")
            return [sys.executable, "-m", "wav2sem_blender", "batch", str(lines), "--output", output, "--jobs", "1"]
        case "looks at sounds":
            return [sys.executable, "-c", SOUNDS.format(tasks=[["worker.look", str(SPEECH)]])]
        case "decoding Blender":
            part = {"source": str(SPEECH), "target": str(home.parent / "decoded.wav"), "label": "speech"}
            second = "blender.sound.second_blender"
            tasks = [[second, "decode", json.dumps(part)], [second, "look", str(SPEECH), "speech"]]
            return [sys.executable, "-c", SOUNDS.format(tasks=tasks)]
        case "script" | "script with torch":
            return [sys.executable, "-c", SCRIPT.format(engine="torch" if name.endswith("torch") else "onnx")]
        case "training":
            # accelerate, tensorboard and checkpoints at work.
            return [
                sys.executable,
                str(ROOT / "tests" / "trainer" / "toy_training.py"),
                str(home.parent / "run"),
                "--slow",
            ]
        case _:
            return [sys.executable, "-c", "import trainer.loops.finetune, trainer.loops.pretrain, trainer.loops.export"]


def commands_for(name: str) -> Iterator[bytes]:
    """What a process hears on stdin, and when: a line now, and nothing more until it has worked long enough."""
    if name.startswith("worker"):
        engine = "torch" if name.endswith("torch") else "onnx"
        yield protocol.encode(protocol.Animate(job="first", audio=str(SPEECH), engine=engine, listen=True))
        yield protocol.encode(protocol.Animate(job="second", audio=str(SPEECH), engine=engine))


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> dict[str, Watched]:
    """Every process, after its end."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: nothing can watch what the libraries do")
    running = {}
    for name in PROCESSES:
        home = tmp_path_factory.mktemp("watched") / "home"
        home.mkdir()
        traced = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(home.parent / "trace")]
        # As a user has it: the variables are what the code under test sets.
        own = {key: value for key, value in os.environ.items() if key not in offline.VARIABLES}
        variables = own | {"HOME": str(home), "TMPDIR": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        variables.pop("XDG_CACHE_HOME", None)
        running[name] = (
            home,
            subprocess.Popen(
                [*traced, *command_of(name, home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=home.parent,
            ),
        )
        assert running[name][1].stdin is not None
        for line in commands_for(name):
            running[name][1].stdin.write(line)
            running[name][1].stdin.flush()
    done = {}
    for name, (home, process) in running.items():
        try:
            # The worker ends with its stdin, so that stays open as long as it shall live.
            process.wait(WORK_S if name.startswith("worker") else 10 * WORK_S)
        except subprocess.TimeoutExpired:
            assert name.startswith("worker"), f"{name} did not end"
        said, _ = process.communicate(timeout=60)
        lines = (home.parent / "trace").read_text(errors="replace").splitlines()
        files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
        calls = [line for line in lines if CALL.search(line)]
        done[name] = Watched(status=process.returncode, said=said.decode(), calls=calls, files=files)
    return done


@pytest.mark.parametrize("name", PROCESSES)
def test_asks_the_network_for_nothing(watched: dict[str, Watched], name: str) -> None:
    # The command line ends with 1 because of the recording that is missing.
    assert watched[name].status == (1 if name == "command line" else 0), watched[name].said
    assert watched[name].calls == []


@pytest.mark.parametrize("name", PROCESSES)
def test_leaves_no_file_in_the_home_or_the_temporary_folder(watched: dict[str, Watched], name: str) -> None:
    # matplotlib, of the trainer, keeps its list of fonts.
    assert [file for file in watched[name].files if "matplotlib" not in file] == []


@pytest.mark.parametrize(
    "line",
    [
        'connect(5, {sa_family=AF_UNIX, sun_path="/run/systemd/resolve/io.systemd.Resolve"}, 42) = 0',
        'connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.1")}, 16) = 0',
        "socket(AF_INET6, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 3",
    ],
)
def test_ways_out_are_recognised(line: str) -> None:
    assert CALL.search(line)


def test_a_call_would_be_seen(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    subprocess.run(["strace", "-f", "-e", "trace=network", "-o", trace, sys.executable, "-c", code], check=True)
    assert any(CALL.search(line) for line in trace.read_text().splitlines())


def test_a_worker_is_silenced_before_it_starts() -> None:
    worker = environment.from_python(sys.executable)
    assert offline.VARIABLES.items() <= worker.variables().items()
