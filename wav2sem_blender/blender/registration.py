# SPDX-License-Identifier: GPL-3.0-or-later
"""Registers everything that the add-on adds to Blender, and unregisters it in reverse."""

from __future__ import annotations

import atexit

import bpy

from . import translations
from .animate import batch_command, command, idle_worker, jobs
from .preferences import models, page, python
from .scene import directions, key_mapping
from .sound import look as sound_look
from .sound import playback as sound_playback
from .ui import (
    animate,
    any_head,
    export,
    first_start,
    jaw_bone,
    key_mapping_panel,
    panels,
    playback,
    presets_menu,
    properties,
    recognise,
    result,
    result_operators,
    speech_track,
    track_watch,
    transcript,
    upper_face,
    upper_face_properties,
)

CLASSES = (
    *properties.CLASSES,
    *upper_face_properties.CLASSES,
    *key_mapping.CLASSES,
    *page.CLASSES,
    *python.CLASSES,
    *models.CLASSES,
    *animate.CLASSES,
    *first_start.CLASSES,
    *playback.CLASSES,
    *presets_menu.CLASSES,
    *panels.CLASSES,
    *recognise.CLASSES,
    *transcript.CLASSES,
    *any_head.CLASSES,
    *key_mapping_panel.CLASSES,
    *jaw_bone.CLASSES,
    *upper_face.CLASSES,
    *speech_track.CLASSES,
    *result_operators.CLASSES,
    *result.CLASSES,
    *export.CLASSES,
)

_COMMANDS = (command, batch_command)
_command_handles: list[object] = []


def register() -> None:
    """Add the classes, the scene's settings and the commands."""
    translations.register()
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    properties.register()
    upper_face_properties.register()
    key_mapping.register()
    directions.register()
    presets_menu.register()
    result.register()
    track_watch.register()
    speech_track.register()
    _command_handles[:] = [bpy.utils.register_cli_command(each.NAME, each.run_command) for each in _COMMANDS]
    idle_worker.register()
    atexit.register(_at_exit)


def unregister() -> None:
    """Remove them, and end the worker and the preferences' tasks."""
    idle_worker.unregister()
    jobs.shut_down()
    python.end_tasks()
    sound_playback.end_playback()
    sound_look.shut_down()
    atexit.unregister(_at_exit)
    while _command_handles:
        bpy.utils.unregister_cli_command(_command_handles.pop())
    speech_track.unregister()
    track_watch.unregister()
    result.unregister()
    presets_menu.unregister()
    directions.unregister()
    key_mapping.unregister()
    upper_face_properties.unregister()
    properties.unregister()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    translations.unregister()


def _at_exit() -> None:
    """Blender does not unregister add-ons when it quits; as a module, 4.5 then crashes over the classes left."""
    if bpy.app.module:
        unregister()
    else:
        jobs.shut_down()
        python.end_tasks()
        sound_look.shut_down()
