# SPDX-License-Identifier: GPL-3.0-or-later
"""Presets of the Animate panel in Blender's preset menu: the add-on's own and the user's."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

SUBFOLDER = "wav2sem"
# Holds presets/wav2sem/*.py.
_OURS = str(Path(__file__).parent)
VALUES = ("model", "style", "articulation", "strength", "semantic_strength", "smoothing_s", "delay_s", "tongue")


class WAV2SEM_PT_presets(PresetPanel, bpy.types.Panel):
    """The preset menu in the Animate panel's header."""

    bl_label = "Animate Presets"
    preset_subdir = SUBFOLDER
    preset_operator = "script.execute_preset"
    preset_add_operator = "wav2sem.add_preset"


class WAV2SEM_OT_add_preset(AddPresetBase, bpy.types.Operator):
    """Save the settings of the Animate panel as a preset, or remove a preset"""

    bl_idname = "wav2sem.add_preset"
    bl_label = "Add Animate Preset"

    preset_menu = "WAV2SEM_PT_presets"
    preset_subdir = SUBFOLDER
    preset_defines: ClassVar = ["settings = bpy.context.scene.wav2sem"]
    preset_values: ClassVar = [f"settings.{name}" for name in VALUES]


CLASSES = (WAV2SEM_PT_presets, WAV2SEM_OT_add_preset)


def register() -> None:
    """Offer the add-on's own presets."""
    bpy.utils.register_preset_path(_OURS)


def unregister() -> None:
    """Withdraw them."""
    bpy.utils.unregister_preset_path(_OURS)
