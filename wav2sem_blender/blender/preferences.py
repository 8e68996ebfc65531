# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

# The add-on's own module name: this package's parent, `bl_ext.<repository>.wav2sem_blender` in an extension.
ADDON = (__package__ or "").rpartition(".")[0]

DEVICES = (
    ("auto", "Automatic", "A GPU when the model's engine can use one, otherwise the CPU"),
    ("cpu", "CPU", "The processor"),
    ("cuda", "CUDA", "NVIDIA GPU, or AMD with ROCm; needs a Python with torch"),
    ("mps", "Metal", "Apple GPU; needs a Python with torch"),
    ("xpu", "XPU", "Intel GPU; needs a Python with torch"),
)

_DEFAULTS = SimpleNamespace(torch_python="", device="auto", models_folder="")


class WAV2SEM_AP_preferences(bpy.types.AddonPreferences):
    """Where larger models and their Python are found."""

    bl_idname = ADDON

    device: EnumProperty(name="Device", description="What computes the animation", items=DEVICES)  # type: ignore[valid-type]
    models_folder: StringProperty(  # type: ignore[valid-type]
        name="Models Folder", description="Folder whose subfolders are models, offered in the panel", subtype="DIR_PATH"
    )
    torch_python: StringProperty(  # type: ignore[valid-type]
        name="Python with PyTorch",
        description=(
            "Interpreter of an environment with torch, transformers, soundfile and soxr, for GPUs and larger models. "
            "Leave it empty to use the engine that comes with the add-on"
        ),
        subtype="FILE_PATH",
    )

    def draw(self, _context: bpy.types.Context) -> None:
        """The preferences' page."""
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "device")
        layout.prop(self, "models_folder")
        layout.prop(self, "torch_python")


def get(context: bpy.types.Context) -> Any:
    """The preferences, or their defaults when the add-on is registered by a script and so has none."""
    addon = context.preferences.addons.get(ADDON)
    return addon.preferences if addon is not None and addon.preferences is not None else _DEFAULTS


CLASSES = (WAV2SEM_AP_preferences,)
