# SPDX-License-Identifier: GPL-3.0-or-later
"""The differences between Blender 4.5 and 5.2, each in one function."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

if TYPE_CHECKING:
    from bpy.stub_internal.rna_enums import OperatorReturnItems

    # What `execute`, `invoke` and `modal` of an operator return.
    Result = set[OperatorReturnItems]
    OperatorBase = bpy.types.Operator
else:
    # A common base of operators must not be one itself, or Blender would register it.
    OperatorBase = object

# A file property says since 5.0 that "//" may be at its start; without that Blender marks such a path as wrong.
RELATIVE_PATH: dict[str, Any] = {"options": {"PATH_SUPPORTS_BLEND_RELATIVE"}} if bpy.app.version >= (5, 0, 0) else {}

_PACKAGE_FOLDER = Path(__file__).parents[1]


def addon_version() -> str:
    """The version in the manifest, which is in the package of an extension and one folder up in a checkout."""
    for folder in (_PACKAGE_FOLDER, _PACKAGE_FOLDER.parent):
        manifest = folder / "blender_manifest.toml"
        if manifest.is_file():
            return str(tomllib.loads(manifest.read_text(encoding="utf-8"))["version"])
    return "unknown"


def channelbag(action: bpy.types.Action, slot: Any) -> Any:
    """The container of the F-curves of `slot`, created with its layer and strip if missing.

    Blender 5.0 removed `action.fcurves`; layers exist in all supported versions.
    """
    layer = action.layers[0] if action.layers else action.layers.new("Layer")
    strip = layer.strips[0] if layer.strips else layer.strips.new(type="KEYFRAME")
    return strip.channelbag(slot, ensure=True)


def grouped_curve(bag: Any, path: str, index: int, group: str) -> Any:
    """A new F-curve in a group of that name; 4.5 cannot name the group when it makes the curve."""
    curve = bag.fcurves.new(path, index=index)
    curve.group = bag.groups.get(group) or bag.groups.new(group)
    return curve


def sequencer_strips(editor: Any) -> Any:
    """The sequencer's strips: `sequences` was renamed in 4.4 and removed in 5.0."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def all_strips(scene: bpy.types.Scene) -> list[Any]:
    """The scene's strips, those in meta strips included."""
    editor: Any = scene.sequence_editor
    if editor is None:
        return []
    return list(editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all)


def sequencer_scene(context: bpy.types.Context) -> bpy.types.Scene:
    """The scene whose strips the sequencer shows, which since 5.0 the workspace says."""
    return getattr(context.workspace, "sequencer_scene", None) or context.scene  # type: ignore[return-value]


def show_sequencer_scene(context: bpy.types.Context, scene: bpy.types.Scene) -> None:
    """Let the sequencer of this workspace show a scene; before 5.0 it shows the window's."""
    if hasattr(context.workspace, "sequencer_scene"):
        context.workspace.sequencer_scene = scene  # type: ignore[union-attr]


def strip_span(strip: Any) -> tuple[int, int]:
    """The strip's first frame, and the one after its last."""
    if hasattr(strip, "right_handle"):
        return int(strip.left_handle), int(strip.right_handle)
    return int(strip.frame_final_start), int(strip.frame_final_end)


def new_text_strip(editor: Any, name: str, channel: int, first: int, last: int) -> Any:
    """A text strip from frame `first` to before `last`; 5.0 asks for its length instead of its end.

    Strips that are made so may overlap: Blender does not move them to another channel.
    """
    strips = sequencer_strips(editor)
    has_length = "length" in strips.bl_rna.functions["new_effect"].parameters
    extent = {"length": last - first} if has_length else {"frame_end": last}
    return strips.new_effect(name=name, type="TEXT", channel=channel, frame_start=first, **extent)


def set_video_output(render: Any, path: Path) -> None:
    """Make `render` write an mp4 (H.264, AAC) to `path`; since 5.0 the media type comes first."""
    settings = render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    render.ffmpeg.format = "MPEG4"
    render.ffmpeg.codec = "H264"
    render.ffmpeg.constant_rate_factor = "HIGH"
    render.ffmpeg.audio_codec = "AAC"
    render.ffmpeg.audio_bitrate = 192
    render.filepath = str(path)
    render.use_file_extension = False


def set_image_output(render: Any, path: Path) -> None:
    """Make `render` write PNG files; their names begin with `path`."""
    settings = render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
    settings.file_format = "PNG"
    settings.color_mode = "RGB"
    render.filepath = str(path)
    render.use_file_extension = True


def frame_rate_hz(scene: bpy.types.Scene) -> float:
    """Scene frames per second, 23.976 and the like included."""
    return float(scene.render.fps / scene.render.fps_base)


def strip_rate_hz(strip: Any) -> float:
    """Frames per second of the scene that a strip belongs to."""
    return frame_rate_hz(strip.id_data)


def time_stretch(scene: bpy.types.Scene) -> float:
    """Frames of an action for each scene frame: the scene's Time Stretching changes when curves play, not sounds."""
    return float(scene.render.frame_map_old / scene.render.frame_map_new)


def sound_strips(scene: bpy.types.Scene) -> list[Any]:
    """The scene's sound strips, those in meta strips included."""
    return [strip for strip in all_strips(scene) if strip.type == "SOUND"]


def find_strip(scene: bpy.types.Scene, name: str) -> Any:
    """The sound strip of that name, of this scene or else of another one, which Blender 5's sequencer may show."""
    others = (other for other in bpy.data.scenes if other != scene)
    every = (strip for some in (scene, *others) for strip in sound_strips(some))
    return next((strip for strip in every if strip.name == name), None)


@dataclass(frozen=True)
class StripTimes:
    """Position and trim of a sound strip in scene frames; `content_start` is where the untrimmed sound would begin."""

    content_start: float
    start: int
    duration: int
    animation_offset_start: float
    is_trimmed: bool


def strip_start_name(strip: Any) -> str:
    """The property of a strip that holds its first frame."""
    return "left_handle" if hasattr(strip, "left_handle") else "frame_final_start"


def strip_times(strip: Any) -> StripTimes:
    """The strip's times: 5.2 renamed the properties, and 6.0 will drop the old names."""
    if hasattr(strip, "content_start"):
        start, duration, content_start = strip.left_handle, strip.duration, strip.content_start
        trims = (strip.left_handle_offset, strip.right_handle_offset, strip.content_trim_start)
    else:
        start, duration, content_start = strip.frame_final_start, strip.frame_final_duration, strip.frame_start
        trims = (strip.frame_offset_start, strip.frame_offset_end, strip.animation_offset_start)
    return StripTimes(content_start, int(start), int(duration), trims[2], any(trims))
