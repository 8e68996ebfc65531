# SPDX-License-Identifier: GPL-3.0-or-later
"""The pipeline's peak memory by length of the recording. Each length has its own process.

python tests/bench/peak_memory.py [--short]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import soundfile
from report import DEFAULT_MODEL, Row, run_alone, skipped, speech_samples

RATE_HZ = 16_000
ENGINE_RUN = """
import sys
from wav2sem_blender.pipeline import SpeechAnimator
sys.path.insert(0, sys.argv[2])
from report import peak_memory_mb
motion = SpeechAnimator.load("default", engine="onnx").animate_file(sys.argv[1])
assert abs(motion.duration_s - float(sys.argv[3])) < 0.2, motion.duration_s
print(peak_memory_mb())
"""


def write_speech(path: Path, duration_s: float) -> None:
    """Write a long recording minute by minute, so that this process stays small."""
    minute_S = speech_samples(60)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
        for _ in range(round(duration_s / 60)):
            file.write(minute_S)


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Peaks at 1, 10 and 60 minutes."""
    if not (DEFAULT_MODEL / "config.json").is_file():
        return [skipped("peak memory", "the repository has no bundled model")]
    lengths_min = (1, 5) if chosen.short else (1, 10, 60)
    peaks_mb = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        for minutes in lengths_min:
            write_speech(speech, 60 * minutes)
            command = [sys.executable, "-c", ENGINE_RUN, str(speech), str(Path(__file__).parent), str(60 * minutes)]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks_mb[minutes] = float(result.stdout.split()[-1])
            rows.append(Row(name=f"peak memory, onnx, {minutes} min", value=peaks_mb[minutes], unit="MB"))
    growth = peaks_mb[lengths_min[-1]] / peaks_mb[1]
    name = f"peak memory, {lengths_min[-1]} min / 1 min"
    rows.append(Row(name=name, value=growth, unit="x", aim="<= 1.3", met=growth <= 1.3))
    return rows


if __name__ == "__main__":
    run_alone(measure)
