# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the add-on adds to Blender, in one list, removed in reverse."""

from __future__ import annotations

import atexit

import bpy

from . import (
    command,
    export_panel,
    first_start,
    jaw_bone,
    jobs,
    mapping,
    mapping_ui,
    model_folders,
    operators,
    panels,
    playback,
    preferences,
    preset_panel,
    properties,
    result_panel,
    runtime,
    take_operators,
    transfer,
    translations,
    upper_face_panel,
    upper_face_properties,
    waveform,
)

CLASSES = (
    *properties.CLASSES,
    *upper_face_properties.CLASSES,
    *mapping.CLASSES,
    *preferences.CLASSES,
    *runtime.CLASSES,
    *model_folders.CLASSES,
    *operators.CLASSES,
    *first_start.CLASSES,
    *playback.CLASSES,
    *preset_panel.CLASSES,
    *panels.CLASSES,
    *transfer.CLASSES,
    *mapping_ui.CLASSES,
    *jaw_bone.CLASSES,
    *upper_face_panel.CLASSES,
    *take_operators.CLASSES,
    *result_panel.CLASSES,
    *export_panel.CLASSES,
)

_command_handle: object | None = None


def register() -> None:
    """Add the classes, the scene's settings and the command."""
    global _command_handle
    translations.register()
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    properties.register()
    upper_face_properties.register()
    mapping.register()
    preset_panel.register()
    result_panel.register()
    _command_handle = bpy.utils.register_cli_command(command.NAME, command.run_command)
    atexit.register(_at_exit)


def unregister() -> None:
    """Remove them, and end the worker and the preferences' chores."""
    global _command_handle
    jobs.shut_down()
    runtime.shut_down()
    playback.shut_down()
    waveform.shut_down()
    atexit.unregister(_at_exit)
    if _command_handle is not None:
        bpy.utils.unregister_cli_command(_command_handle)
        _command_handle = None
    result_panel.unregister()
    preset_panel.unregister()
    mapping.unregister()
    upper_face_properties.unregister()
    properties.unregister()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    translations.unregister()


def _at_exit() -> None:
    """Blender does not unregister add-ons when it quits; as a module, 4.5 then crashes over classes that are left."""
    if bpy.app.module:
        unregister()
    else:
        jobs.shut_down()
        runtime.shut_down()
        waveform.shut_down()
