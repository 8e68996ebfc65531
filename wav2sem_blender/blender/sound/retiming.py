# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes a sequencer strip that changes its speed alone into a file, for `second_blender.py` to mix down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ...errors import UserError
from .. import compat
from . import decode


def write_alone(strip: bpy.types.SoundStrip, path: Path) -> int:
    """Write a scene that plays only this strip.

    Returns:
        Its first frame. It is that of the strip's scene, because what a strip plays depends on where playback began.

    Raises:
        UserError: The strip begins before frame 0, where Blender renders no sound; or the file cannot be written.
    """
    scene: Any = strip.id_data
    times = compat.strip_times(strip)
    if times.start < 0:
        raise UserError(
            'The strip "{strip}" changes its speed and begins before frame 0, where Blender renders no sound. '
            "Move it to frame 0 or later, or clear its retiming (Strip > Retiming > Reset).",
            strip=strip.name,
        )
    alone = scene.copy()
    try:
        alone.frame_start = max(0, min(scene.frame_start, times.start))
        alone.frame_end = times.start + times.duration
        alone.use_preview_range = False
        _isolate(alone, strip.name)
        _let_go(alone)
        with decode.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            bpy.data.libraries.write(str(path), {alone}, path_remap="ABSOLUTE")
        return int(alone.frame_start)
    finally:
        bpy.data.scenes.remove(alone)


def _isolate(scene: bpy.types.Scene, name: str) -> None:
    """Remove the other strips, and whatever makes this one silent."""
    editor: Any = scene.sequence_editor
    strips = compat.sequencer_strips(editor)
    while name not in strips:  # it is in a meta strip
        meta = next(meta for meta in strips if meta.type == "META" and _holds(meta, name))
        _keep_only(strips, meta.name)
        meta.mute = editor.channels[meta.channel].mute = False
        strips = meta.strips
    _keep_only(strips, name)
    strip = strips[name]
    scene.animation_data_clear()
    scene.use_audio, scene.audio_volume = True, 1.0
    strip.mute, strip.volume, strip.pan = False, 1.0, 0.0
    if strips == compat.sequencer_strips(editor):
        editor.channels[strip.channel].mute = False


def _holds(meta: Any, name: str) -> bool:
    return any(strip.name == name or (strip.type == "META" and _holds(strip, name)) for strip in meta.strips)


def _keep_only(strips: Any, name: str) -> None:
    for other in [strip for strip in strips if strip.name != name]:
        strips.remove(other)


def _let_go(scene: bpy.types.Scene) -> None:
    """Drop references to other data (objects, world, compositing), which would be written to the file as well."""
    for child in list(scene.collection.children):
        scene.collection.children.unlink(child)
    for found in list(scene.collection.objects):
        scene.collection.objects.unlink(found)
    pointers = [found for found in scene.bl_rna.properties if found.type == "POINTER" and not found.is_readonly]
    for pointer in pointers:
        if isinstance(getattr(scene, pointer.identifier), bpy.types.ID):
            setattr(scene, pointer.identifier, None)
    scene.timeline_markers.clear()
