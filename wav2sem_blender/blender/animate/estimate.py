# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a run will take, for the panel: the model's operations over this machine's speed.

The speed is a guess until a model has run once; from then on it is what that run had.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import bpy

from ...errors import Text
from ...pipeline.checkpoint import ModelConfig
from ...pipeline.cost import flops
from .. import addon_preferences
from .settings import model_config_file, read_description

# Operations a second: what torch and ONNX Runtime reach on usual machines.
_PER_CORE, _MAX_CORES, _GPU = 2.5e10, 8, 5e12
# A worker must start, load its libraries, and read the model's files from the disk.
_START_S, _BYTES_A_SECOND = 4.0, 3e8
_LONG_S = 55

# (model's config.json, device) -> operations a second of its last run, and of the model without the start.
_measured: dict[tuple[Path, str], float] = {}


def words(context: bpy.types.Context, model: str, duration_s: float) -> Text | None:
    """As in "This takes about 20 s"; None where the model cannot be read, which a run reports."""
    seconds = run_seconds(context, model, addon_preferences.get(context).device, duration_s)
    return None if seconds is None else Text("This takes about {duration}", duration=rough_words(seconds))


def run_seconds(context: bpy.types.Context, model: str, device: str, duration_s: float) -> float | None:
    """Seconds that a run takes, with the model's loading unless it ran before; None where it cannot be read."""
    try:
        file = model_config_file(context, model)
        operations = _operations(file, file.stat().st_mtime_ns, duration_s)
        speed = _measured.get((file, device))
        if speed is not None:
            return operations / speed
        n_bytes = sum(found.stat().st_size for found in file.parent.iterdir())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    on_gpu = device not in ("auto", "cpu")
    speed = _GPU if on_gpu else _PER_CORE * min(os.cpu_count() or 1, _MAX_CORES)
    return _START_S + n_bytes / _BYTES_A_SECOND + operations / speed


def learn(context: bpy.types.Context, model: str, device: str, duration_s: float, seconds: float) -> None:
    """Remember how long the listening and the moving of a run took."""
    try:
        file = model_config_file(context, model)
        operations = _operations(file, file.stat().st_mtime_ns, duration_s)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    _measured[file, device] = operations / max(seconds, 1e-3)


def rough_words(seconds: float) -> Text | str:
    """As in "7 s", "30 s" or "4 min"."""
    if seconds < _LONG_S:
        step = 1 if seconds < 10 else 5
        return f"{max(1, step * round(seconds / step))} s"
    return Text("{minutes} min", minutes=max(1, round(seconds / 60)))


@lru_cache(maxsize=64)
def _operations(file: Path, mtime_ns: int, duration_s: float) -> float:
    return flops(ModelConfig.from_json(read_description(file, mtime_ns)), duration_s)
