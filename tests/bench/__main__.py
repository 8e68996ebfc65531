# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every benchmark in its own process, print a table, and write out/bench.json.

    python tests/bench [--short] [--cores 2] [--device cpu]       (nox -s bench -- …)

A missed aim is marked but does not fail the run, because times depend on the machine and its load. A benchmark that
breaks fails the run.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path

from report import ROOT, ROW_PREFIX, limit_cores, options

BENCHMARKS = (
    *("cached_decoding", "host_decoding", "vertex_hosts", "latent_diffusion", "flame_hosts", "keyframe_writing"),
    *("whole_pipeline", "edited_words", "batch", "long_audio", "peak_memory", "full_size", "finetuning", "pretraining"),
)
LIBRARIES = ("numpy", "onnxruntime", "torch", "transformers", "bpy")


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """The torch device's full name."""
    if not device.startswith("cuda"):
        return device
    command = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or device


def run_benchmark(name: str, arguments: list[str]) -> tuple[list[dict], str]:
    """Return a benchmark's rows and its error, "" if there is none."""
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    rows = [json.loads(line[len(ROW_PREFIX) :]) for line in result.stdout.splitlines() if line.startswith(ROW_PREFIX)]
    return rows, "" if result.returncode == 0 else result.stderr[-2000:] or f"exit code {result.returncode}"


def print_row(row: dict) -> None:
    """One line of the table."""
    value = "" if math.isnan(row["value"]) else f"{row['value']:.4g} {row['unit']}".strip()
    verdict = {True: "met", False: "MISSED", None: ""}[row["met"]]
    print(f"{row['name']:<62} {value:>24}  {row['aim']:<16} {verdict}".rstrip(), flush=True)


def main() -> int:
    """Run all, print, write."""
    arguments = sys.argv[1:]
    chosen = options(arguments)
    limit_cores(chosen.cores)
    machine = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": chosen.cores,
        "device": device_name(chosen.device),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "short": chosen.short,
    }
    print(f"{machine['cpu']}, {machine['cores']} cores, device {machine['device']}{', short' * chosen.short}\n")
    rows: list[dict] = []
    broken: list[str] = []
    for name in BENCHMARKS:
        start = time.perf_counter()
        found, error = run_benchmark(name, arguments)
        rows += found
        for row in found:
            print_row(row)
        print(f"({name}: {time.perf_counter() - start:.0f} s)\n", flush=True)
        if error:
            broken.append(name)
            print(f"{name} broke:\n{error}\n", file=sys.stderr)
    out = ROOT / "out" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    # JSON has no NaN.
    rows = [row | {"value": None if math.isnan(row["value"]) else row["value"]} for row in rows]
    out.write_text(json.dumps({"machine": machine, "rows": rows, "broken": broken}, indent=1) + "\n", encoding="utf-8")
    missed = sum(row["met"] is False for row in rows)
    print(f"{len(rows)} rows, {missed} aims missed, {len(broken)} benchmarks broken: {out.relative_to(ROOT)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
