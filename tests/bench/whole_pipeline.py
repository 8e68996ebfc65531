# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole pipeline with the bundled model: audio seconds per second, each stage's share, the wait for the first key.

python tests/bench/whole_pipeline.py [--short] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
from report import DEFAULT_MODEL, Row, best_s, run_alone, skipped, speech_samples

from wav2sem_blender.pipeline import SpeechAnimator

RATE_HZ, STEREO_RATE_HZ = 16_000, 48_000
COLD_CLIP_S = 5
REPEATS = 3

# Blender is open with the add-on and a head. Then the first click starts the worker, loads the model, makes the curves.
COLD_START = """
import json, sys, time
start = time.perf_counter()
import bpy
import wav2sem_blender
from wav2sem_blender.blender.scene.demo_head import build_demo_head
bpy.ops.wm.read_factory_settings(use_empty=True)
wav2sem_blender.register()
head = build_demo_head()
times = {"open": time.perf_counter() - start}
for name in ("cold", "warm"):
    start = time.perf_counter()
    assert bpy.ops.wav2sem.animate(filepath=sys.argv[1], object=head.name, engine="onnx", device="cpu") == {"FINISHED"}
    times[name] = time.perf_counter() - start
assert head.data.shape_keys.animation_data.action is not None
wav2sem_blender.unregister()
print("TIMES " + json.dumps(times))
"""


def stage_seconds(animator: SpeechAnimator, speech: Path) -> dict[str, float]:
    """Seconds by stage. The time between two calls belongs to the stage of the later call."""
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def progress(stage: str, _fraction: float) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[stage] = seconds.get(stage, 0.0) + now - last
        last = now

    animator.animate_file(speech, progress=progress)
    return seconds


def measure_engine(engine: str, device: str, speech: Path, duration_s: float, sound: str = "") -> list[Row]:
    """One engine's throughput, and its stages' shares."""
    animator = SpeechAnimator.load("default", engine=engine, device=device)
    animator.animate_file(speech)
    per_second = duration_s / best_s(lambda: animator.animate_file(speech), REPEATS)
    name = f"pipeline, {engine} on {animator.engine.device}{sound}"
    met = per_second >= 40
    rows = [Row(name=f"{name}, {duration_s:g} s", value=per_second, unit="audio s per s", aim=">= 40", met=met)]
    stages = stage_seconds(animator, speech)
    total_s = sum(stages.values())
    rows += [Row(name=f"{name}: {stage}", value=100 * s / total_s, unit="%") for stage, s in stages.items()]
    return rows


def measure_semantics(speech: Path) -> Row:
    """What the sentence vectors cost of the whole, by leaving them out in the same run."""
    animator = SpeechAnimator.load("default", engine="onnx")
    with_s, without_s = (
        best_s(lambda strength=strength: animator.animate_file(speech, semantic_strength=strength), REPEATS)
        for strength in (1.0, 0.0)
    )
    share = 100 * max(0.0, 1 - without_s / with_s)
    return Row(
        name="pipeline, onnx: sentence vectors of the whole", value=share, unit="%", aim="<= 10", met=share <= 10
    )


def measure_cold_start(speech: Path) -> list[Row]:
    """Seconds from the click to the keys, with a new worker and with a warm one."""
    result = subprocess.run(
        [sys.executable, "-c", COLD_START, str(speech)], capture_output=True, text=True, check=False
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("TIMES ")]
    if result.returncode or not lines:
        reason = (result.stderr.strip() or "no answer").splitlines()[-1]
        return [skipped("first key in Blender", reason)]
    times = json.loads(lines[0].removeprefix("TIMES "))
    name = f"Blender, keys of a {COLD_CLIP_S} s clip after the click"
    return [
        Row(name=f"{name}, cold worker", value=times["cold"], unit="s", aim="<= 2", met=times["cold"] <= 2),
        Row(name=f"{name}, warm worker", value=times["warm"], unit="s"),
    ]


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Both engines, then the cold start."""
    if not (DEFAULT_MODEL / "config.json").is_file():
        return [skipped("whole pipeline", "the repository has no bundled model")]
    duration_s = 20.0 if chosen.short else 60.0
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        soundfile.write(speech, speech_samples(duration_s), RATE_HZ)
        rows += measure_engine("onnx", "auto", speech, duration_s)
        rows += measure_engine("torch", chosen.device, speech, duration_s)
        rows.append(measure_semantics(speech))
        stereo = Path(folder) / "stereo.wav"
        mono_48k = soxr.resample(speech_samples(duration_s), RATE_HZ, STEREO_RATE_HZ)
        soundfile.write(stereo, np.stack([mono_48k, mono_48k], 1), STEREO_RATE_HZ)
        rows.append(measure_engine("onnx", "auto", stereo, duration_s, " at 48 kHz, stereo")[0])
        soundfile.write(speech, speech_samples(COLD_CLIP_S), RATE_HZ)
        rows += measure_cold_start(speech)
    return rows


if __name__ == "__main__":
    run_alone(measure)
