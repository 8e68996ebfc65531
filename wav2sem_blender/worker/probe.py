# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that finds out what a Python can do for the add-on: `python boot.py --run worker.probe [DEVICE]`.

The pipeline and the engines are imported only inside that process; Blender's side reads the `Report`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from .. import offline
from ..errors import Text, user_text
from . import environment


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a Python can do.

    Attributes:
        python: Its version.
        executable: Its program.
        versions: Versions of the installed libraries.
        missing: Libraries that it lacks to run a model.
        missing_for_torch: Libraries that it lacks to run models of any size, also on a GPU.
        bundled: Engine for models with ONNX files, as the bundled one; empty if none works.
        larger: Engine for any other model; empty if none works.
        trouble: Why an engine does not work although nothing is missing.
        recogniser: The speech recogniser's library, as in "faster-whisper 1.2.1"; empty if there is none that works.
        recogniser_trouble: Why it does not work although it is there.
    """

    python: str
    executable: str
    versions: dict[str, str]
    missing: list[str]
    missing_for_torch: list[str]
    bundled: str = ""
    larger: str = ""
    trouble: str = ""
    recogniser: str = ""
    recogniser_trouble: str = ""


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Look at this Python; the argument is the device of the preferences."""
    return asdict(look(arguments[0] if arguments else "auto"))


def look(device: str) -> Report:
    """Find out which engine and which device this Python would use."""
    missing = environment.missing_modules(environment.REQUIRED_MODULES)
    missing_for_torch = missing + environment.missing_modules(environment.TORCH_MODULES)
    used = {"bundled": "", "larger": "", "trouble": ""}
    notes: list[Text] = []
    for name, has_onnx in (("bundled", True), ("larger", False)):
        try:
            if not missing and (has_onnx or not missing_for_torch):
                used[name] = _engine_in_use(has_onnx, device, notes)
        except Exception as error:  # a library that does not fit raises anything while it is loaded
            used["trouble"] = user_text(error) or f"{type(error).__name__}: {error}"
    used["trouble"] = used["trouble"] or next(iter(notes), "")
    recogniser, recogniser_trouble = _recogniser()
    return Report(
        python=sys.version.partition(" ")[0],
        executable=sys.executable,
        versions=_versions(),
        missing=missing,
        missing_for_torch=missing_for_torch,
        recogniser=recogniser,
        recogniser_trouble=recogniser_trouble,
        **used,
    )


def _engine_in_use(has_onnx: bool, device: str, notes: list[Text]) -> str:
    """As in "torch 2.14.1 on the CPU".

    Raises:
        UserError: No engine, or no such device.
    """
    from ..pipeline.infer import loaded_engine

    if loaded_engine(has_onnx, "auto", device, notes) == "onnx":
        version = importlib.import_module("onnxruntime").__version__
        return Text("ONNX Runtime {version} on the CPU", version=version)
    from ..pipeline.engine_torch import choose_device

    torch = importlib.import_module("torch")
    chosen = choose_device(device)
    kind = chosen.partition(":")[0]
    names = {
        "cuda": lambda: f"{torch.cuda.get_device_name(chosen)} ({'ROCm' if torch.version.hip else 'CUDA'})",
        "xpu": lambda: f"{torch.xpu.get_device_name(chosen)} (XPU)",
        "mps": lambda: Text("the Apple GPU (Metal)"),
        "cpu": lambda: Text("the CPU"),
    }
    return Text("torch {version} on {device}", version=torch.__version__, device=names[kind]())


def _recogniser() -> tuple[str, str]:
    """The recogniser's library, or why it does not work; empty without one."""
    if environment.missing_modules(environment.RECOGNISER_MODULES):
        return "", ""
    offline.silence_libraries()
    try:
        return f"faster-whisper {importlib.import_module('faster_whisper').__version__}", ""
    except Exception as error:  # as above
        return "", f"faster-whisper: {type(error).__name__}: {error}"


def _versions() -> dict[str, str]:
    """The distributions are named as their modules."""
    found = {}
    optional = ("onnxruntime", *environment.TORCH_MODULES, *environment.RECOGNISER_MODULES)
    for name in (*environment.REQUIRED_MODULES, *optional):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
