# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on's preferences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import bpy
from bpy.props import EnumProperty, StringProperty

from .translations import CONTEXT

# The add-on's own module name: this package's parent, `bl_ext.<repository>.wav2sem_blender` in an extension.
ADDON = (__package__ or "").rpartition(".")[0]

DEVICES = (
    ("auto", "Automatic", "A GPU when the model's engine can use one, otherwise the CPU"),
    ("cpu", "CPU", "The processor"),
    ("cuda", "CUDA", "NVIDIA GPU, or AMD with ROCm; needs a Python with torch"),
    ("mps", "Metal", "Apple GPU; needs a Python with torch"),
    ("xpu", "XPU", "Intel GPU; needs a Python with torch"),
)

_DEFAULTS = SimpleNamespace(torch_python="", device="auto", models_folder="", package_index="")


class WAV2SEM_AP_preferences(bpy.types.AddonPreferences):
    """Where larger models and their Python are found."""

    bl_idname = ADDON

    device: EnumProperty(  # type: ignore[valid-type]
        name="Device", description="What computes the animation", items=DEVICES, translation_context=CONTEXT
    )
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
    package_index: StringProperty(  # type: ignore[valid-type]
        name="Package Index",
        description=(
            "Address of an index that pip asks besides its own when it installs the torch runtime: PyTorch's "
            "installation page names those for other GPUs, and for the CPU alone. Empty for what suits most"
        ),
    )

    def draw(self, context: bpy.types.Context) -> None:
        """The preferences' page."""
        # Its buttons' modules need this one.
        from . import preferences_page

        preferences_page.draw(self.layout, context, self)


def are_stored(context: bpy.types.Context) -> bool:
    """Whether there are preferences at all: an add-on that a script registers has none."""
    addon = context.preferences.addons.get(ADDON)
    return addon is not None and addon.preferences is not None


def get(context: bpy.types.Context) -> Any:
    """The preferences, or their defaults where there are none."""
    return context.preferences.addons[ADDON].preferences if are_stored(context) else _DEFAULTS


CLASSES = (WAV2SEM_AP_preferences,)
