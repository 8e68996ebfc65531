# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Python can do for the add-on, asked of that Python itself: `python boot.py --run worker.probe [DEVICE]`.

Only inside that process are the pipeline and the engines imported; `Report` is for Blender's side too.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata

from . import environment
from .chore import answer


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        python: Its version.
        executable: Its program.
        versions: Library -> version, of those that are there.
        missing: What it lacks to run a model.
        missing_for_torch: What it lacks to run a model of any size, on a GPU too.
        bundled: What runs a model with files for ONNX Runtime, as the bundled one; empty when nothing can.
        larger: What runs any other model; empty when nothing can.
        trouble: Why one of them is empty although nothing is missing.
    """

    python: str
    executable: str
    versions: dict[str, str]
    missing: list[str]
    missing_for_torch: list[str]
    bundled: str = ""
    larger: str = ""
    trouble: str = ""


def main(arguments: Sequence[str]) -> int:
    """Look at this Python; the one argument is the device that the preferences name."""
    report = look(arguments[0] if arguments else "auto")
    answer(asdict(report))
    return 0


def look(device: str) -> Report:
    """Find out which engine and which device would be used here."""
    missing = environment.missing_modules(environment.REQUIRED_MODULES)
    missing_for_torch = missing + environment.missing_modules(environment.TORCH_MODULES)
    used = {"bundled": "", "larger": "", "trouble": ""}
    for name, has_onnx in (("bundled", True), ("larger", False)):
        try:
            if not missing and (has_onnx or not missing_for_torch):
                used[name] = _engine_in_use(has_onnx, device)
        except ValueError as error:
            used["trouble"] = str(error)
        except Exception as error:  # whatever a library that is there, but does not fit, raises while it is loaded
            used["trouble"] = f"{type(error).__name__}: {error}"
    return Report(
        python=sys.version.partition(" ")[0],
        executable=sys.executable,
        versions=_versions(),
        missing=missing,
        missing_for_torch=missing_for_torch,
        **used,
    )


def _engine_in_use(has_onnx: bool, device: str) -> str:
    """In words: "torch 2.14.1 on the CPU".

    Raises:
        ValueError: No engine, or no such device.
    """
    from ..pipeline.infer import choose_engine

    if choose_engine(has_onnx, "auto", device) == "onnx":
        return f"ONNX Runtime {importlib.import_module('onnxruntime').__version__} on the CPU"
    from ..pipeline.engine_torch import choose_device

    torch = importlib.import_module("torch")
    chosen = choose_device(device)
    kind = chosen.partition(":")[0]
    names = {
        "cuda": lambda: f"{torch.cuda.get_device_name(chosen)} ({'ROCm' if torch.version.hip else 'CUDA'})",
        "xpu": lambda: f"{torch.xpu.get_device_name(chosen)} (XPU)",
        "mps": lambda: "the Apple GPU (Metal)",
        "cpu": lambda: "the CPU",
    }
    return f"torch {torch.__version__} on {names[kind]()}"


def _versions() -> dict[str, str]:
    """The distributions have the modules' names."""
    found = {}
    for name in (*environment.REQUIRED_MODULES, "onnxruntime", *environment.TORCH_MODULES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
