# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch: two workers against one and against `animate`, memory over the run, resume of a finished run, the report.

python tests/bench/batch.py [--short]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from report import DEFAULT_MODEL, ROOT, Row, run_alone, skipped, speech_samples

RATE_HZ = 16_000
N_RESUMED = 10_000
N_WARM = 100
COMMAND = [sys.executable, "-m", "wav2sem_blender"]


def write_clips(folder: Path, n_clips: int) -> float:
    """Write clips of 5 to 15 s, no two alike, and the manifest m.csv; returns their seconds together."""
    generator = np.random.default_rng(0)
    speech = speech_samples(60)
    seconds = generator.uniform(5, 15, n_clips)
    for number, duration_s in enumerate(seconds):
        begin = int(generator.uniform(0, 45) * RATE_HZ)
        clip = speech[begin : begin + int(duration_s * RATE_HZ)]
        soundfile.write(folder / f"c{number}.wav", clip * generator.uniform(0.5, 0.9), RATE_HZ)
    (folder / "m.csv").write_text("audio\n" + "".join(f"c{number}.wav\n" for number in range(n_clips)))
    return float(seconds.sum())


def run_batch(folder: Path, output: str, jobs: int) -> tuple[float, list[float]]:
    """Seconds of a run from its start, and with two workers the memory of all processes in MB after each line."""
    arguments = ["batch", str(folder / "m.csv"), "--output", str(folder / output), "--jobs", str(jobs), "--json"]
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    memory_mb = [
        resident_mb(process.pid) for line in process.stdout if json.loads(line)["event"] == "line" and jobs == 2
    ]
    if process.wait() != 0:
        raise RuntimeError(f"the batch ended with exit code {process.returncode}")
    return time.perf_counter() - start, memory_mb


def resident_mb(pid: int) -> float:
    """Memory of a process and its descendants, Linux only; 0 elsewhere and of one that has ended."""
    try:
        kilobytes = int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError, ValueError):
        return 0.0
    return kilobytes / 1000 + sum(resident_mb(int(child)) for child in children)


def memory_row(memory_mb: list[float]) -> list[Row]:
    """How memory grows over a long run; for the first hundred lines each longer recording still takes more."""
    if len(memory_mb) < 10 * N_WARM or not min(memory_mb[:-2]):
        return []
    grown = float(np.median(memory_mb[-N_WARM:-2]) / np.median(memory_mb[N_WARM : 2 * N_WARM]))
    name = "batch, memory at the end / after 100 lines"
    return [Row(name=name, value=grown, unit="x", aim="1.1x", met=grown <= 1.1)]


def resume_finished(folder: Path) -> list[Row]:
    """A run of 10,000 rows of which all are made: what it takes, and the report's size."""
    clips, out = folder / "many", folder / "many_out"
    clips.mkdir()
    shutil.copy(folder / "c0.wav", clips / "c0.wav")
    (clips / "m.csv").write_text("audio\nc0.wav\n")
    command = [*COMMAND, "batch", str(clips / "m.csv"), "--output", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    record = json.loads((out / "report.jsonl").read_text())
    with (out / "report.jsonl").open("w") as file:
        for number in range(N_RESUMED):
            if number:
                (clips / f"c{number}.wav").hardlink_to(clips / "c0.wav")
                (out / f"c{number}.npz").hardlink_to(out / "c0.npz")
            own = {**record, "row": number + 2, "name": f"c{number}", "audio": f"../many/c{number}.wav"}
            file.write(json.dumps(own) + "\n")
    (clips / "m.csv").write_text("audio\n" + "".join(f"c{number}.wav\n" for number in range(N_RESUMED)))
    start = time.perf_counter()
    told = subprocess.run([*command, "--json"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - start
    assert json.loads(told.splitlines()[0])["to_make"] == 0
    page_mb = (out / "report.html").stat().st_size / 1e6
    return [
        Row(name="batch, a finished run of 10,000 rows again", value=seconds, unit="s", aim="30 s", met=seconds <= 30),
        Row(name="batch, report.html of 10,000 lines", value=page_mb, unit="MB"),
    ]


def measure(chosen: argparse.Namespace) -> list[Row]:
    """All rows."""
    if not (DEFAULT_MODEL / "config.json").is_file():
        return [skipped("batch", "the repository has no bundled model")]
    n_clips = 40 if chosen.short else 1000
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        audio_s = write_clips(folder, n_clips)
        (folder / "curves").mkdir()
        clips = [str(folder / f"c{number}.wav") for number in range(n_clips)]
        start = time.perf_counter()
        command = [*COMMAND, "animate", *clips, "--output", str(folder / "curves")]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        animate_s = time.perf_counter() - start
        one_s, _ = run_batch(folder, "one", 1)
        two_s, memory_mb = run_batch(folder, "two", 2)
        name = f"batch, {n_clips} clips of 5 to 15 s"
        ratio = one_s / two_s
        judged = chosen.cores >= 2 and not chosen.short  # starts weigh much in a short run
        return [
            Row(name=f"{name}: two workers", value=audio_s / two_s, unit="audio seconds a second"),
            Row(
                name="batch, two workers against one",
                value=ratio,
                unit="x",
                aim="1.8x",
                met=ratio >= 1.8 if judged else None,
            ),
            Row(name="batch, two workers against animate F1 ... Fn", value=animate_s / two_s, unit="x"),
            *memory_row(memory_mb),
            *resume_finished(folder),
        ]


if __name__ == "__main__":
    run_alone(measure)
