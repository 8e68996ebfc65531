# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the add-on's preferences; their class and page are in `preferences/page.py`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy

# The add-on's own module name: this package's parent, `bl_ext.<repository>.wav2sem_blender` in an extension.
ADDON = (__package__ or "").rpartition(".")[0]


DEVICES = (
    ("auto", "Automatic", "A GPU when the model's engine can use one, otherwise the CPU"),
    ("cpu", "CPU", "The processor"),
    ("cuda", "CUDA", "NVIDIA GPU, or AMD with ROCm; needs a Python with torch"),
    ("mps", "Metal", "Apple GPU; needs a Python with torch"),
    ("xpu", "XPU", "Intel GPU; needs a Python with torch"),
)
ENGINES = (
    ("auto", "Automatic", "ONNX Runtime for the bundled model on the CPU, PyTorch for everything else"),
    ("onnx", "ONNX Runtime", "The bundled engine"),
    ("torch", "PyTorch", "The Python with PyTorch that is set in the preferences"),
)

_DEFAULTS = SimpleNamespace(torch_python="", device="auto", models_folder="", package_index="", recogniser_folder="")


def are_stored(context: bpy.types.Context) -> bool:
    """Whether there are stored preferences; an add-on that a script registers has none."""
    addon = context.preferences.addons.get(ADDON)
    return addon is not None and addon.preferences is not None


def get(context: bpy.types.Context) -> Any:
    """The preferences, or their defaults where none are stored."""
    return context.preferences.addons[ADDON].preferences if are_stored(context) else _DEFAULTS


def runtime_folder(name: str) -> Path | None:
    """Folder of an environment that the user can install; None where the add-on is not an extension."""
    try:
        return Path(bpy.utils.extension_path_user(ADDON, path=name))
    except ValueError:
        return None
