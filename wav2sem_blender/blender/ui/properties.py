# SPDX-License-Identifier: GPL-3.0-or-later
"""The Speech panel's settings, stored with the scene."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from .. import compat
from ..animate.settings import model_names, style_names
from ..translations import CONTEXT

SOURCES = (
    ("FILE", "File", "An audio file, or a film with sound"),
    ("STRIP", "Strip", "A sound strip of this scene's sequencer, as it is trimmed there"),
    ("SOUND", "Sound", "A sound in this file, packed ones too"),
    ("SPEAKER", "Speaker", "What a speaker object plays"),
)


def _suggest_models(_self: object, context: bpy.types.Context, _text: str) -> list[str]:
    return model_names(context)


def _suggest_styles(owner: Any, context: bpy.types.Context, _text: str) -> list[str]:
    return style_names(context, owner.model)


def _suggest_strips(_self: object, context: bpy.types.Context, _text: str) -> list[str]:
    editor = context.scene.sequence_editor
    return [strip.name for strip in compat.sequencer_strips(editor) if strip.type == "SOUND"] if editor else []


def _is_speaker(_self: object, candidate: bpy.types.Object) -> bool:
    return candidate.type == "SPEAKER"


def _is_mesh(_self: object, candidate: bpy.types.Object) -> bool:
    return candidate.type == "MESH"


# Shared by the panel's settings and the operator, so that names, limits and tooltips agree.
def model_property(**options: object) -> object:
    """Name or folder of the model."""
    return StringProperty(
        name="Model",
        description="The bundled model, one from the models folder of the preferences, or the path of a model folder",
        default="default",
        search=_suggest_models,
        search_options={"SUGGESTION"},
        **options,
    )


def start_frame_property(**options: object) -> object:
    """Where the speech begins."""
    return IntProperty(name="Start Frame", description="Scene frame at which the audio begins", default=1, **options)


def strength_property(**options: object) -> object:
    """Factor for all curves."""
    return FloatProperty(
        name="Strength", description="How far the face moves; 1 is as spoken", default=1.0, min=0.0, max=10.0,
        soft_max=2.0, **options,
    )  # fmt: skip


def smoothing_property(**options: object) -> object:
    """Width of the smoothing."""
    return _seconds(
        "Smoothing", "How calm the mouth is: 0.05 s is gentle, 0.2 s slurs; lips that close stay closed",
        min=0.0, max=2.0, soft_max=0.2, **options,
    )  # fmt: skip


def delay_property(**options: object) -> object:
    """Lag, or lead."""
    return _seconds(
        "Delay", "How much later than the audio the face moves; below 0 it leads, as animators often like it",
        min=-10.0, max=10.0, soft_min=-0.2, soft_max=0.2, **options,
    )  # fmt: skip


def range_start_property(**options: object) -> object:
    """Where the spoken part begins."""
    return _seconds(
        "From", "Where the part of the audio that is spoken begins, in seconds of the audio", min=0.0, **options
    )


def range_end_property(**options: object) -> object:
    """Where it ends."""
    return _seconds("To", "Where the part that is spoken ends; 0 is the audio's end", min=0.0, **options)


def _seconds(name: str, description: str, **options: Any) -> Any:
    return FloatProperty(
        name=name,
        description=description,
        subtype="TIME_ABSOLUTE",
        unit="TIME_ABSOLUTE",
        step=1,
        precision=3,
        translation_context=CONTEXT,
        **options,
    )


def semantic_strength_property(**options: object) -> object:
    """Factor for the semantic features."""
    return FloatProperty(
        name="Semantics",
        description="How much the meaning of the utterance shapes the motion; 0 listens to the sounds alone",
        default=1.0,
        min=0.0,
        max=10.0,
        soft_max=2.0,
        **options,
    )


def style_property(**options: object) -> object:
    """Name or number of the speaking style."""
    return StringProperty(
        name="Style",
        description="Speaking style that the model learned: its name, or its number from 0; empty for the first one",
        search=_suggest_styles,
        search_options={"SUGGESTION"},
        translation_context=CONTEXT,
        **options,
    )


class WAV2SEM_PG_settings(bpy.types.PropertyGroup):
    """Settings of the Speech panel."""

    source: EnumProperty(  # type: ignore[valid-type]
        name="Source", description="Where the speech comes from", items=SOURCES, translation_context=CONTEXT
    )
    filepath: StringProperty(  # type: ignore[valid-type]
        name="Audio", description="Audio file with the speech, or a film", subtype="FILE_PATH"
    )
    strip: StringProperty(  # type: ignore[valid-type]
        name="Strip", description="Sound strip of this scene's sequencer", search=_suggest_strips
    )
    sound: PointerProperty(name="Sound", description="Sound in this file", type=bpy.types.Sound)  # type: ignore[valid-type]
    target: PointerProperty(  # type: ignore[valid-type]
        name="Mesh",
        description="Head to animate; empty for the active object",
        type=bpy.types.Object,
        poll=_is_mesh,
        translation_context=CONTEXT,
    )
    speaker: PointerProperty(  # type: ignore[valid-type]
        name="Speaker", description="Speaker object with the speech", type=bpy.types.Object, poll=_is_speaker
    )
    use_range: BoolProperty(  # type: ignore[valid-type]
        name="Range", description="Speak only a part of the audio; its keys come where they would come in the whole"
    )
    range_start_s: range_start_property()  # type: ignore[valid-type]
    range_end_s: range_end_property()  # type: ignore[valid-type]
    model: model_property()  # type: ignore[valid-type]
    start_frame: start_frame_property()  # type: ignore[valid-type]
    strength: strength_property()  # type: ignore[valid-type]
    smoothing_s: smoothing_property()  # type: ignore[valid-type]
    delay_s: delay_property()  # type: ignore[valid-type]
    semantic_strength: semantic_strength_property()  # type: ignore[valid-type]
    style: style_property()  # type: ignore[valid-type]


def start_frame(scene: bpy.types.Scene) -> int:
    """Where the panel's audio begins: with its strip, with the speaker's, or where the user says."""
    settings = scene.wav2sem
    strip = compat.find_strip(scene, settings.strip) if settings.source == "STRIP" else None
    if strip is not None:
        return compat.strip_times(strip).start
    animation = settings.speaker.animation_data if settings.source == "SPEAKER" and settings.speaker else None
    for track in animation.nla_tracks if animation else ():
        for clip in track.strips:
            if clip.type == "SOUND":
                return round(clip.frame_start)
    return int(settings.start_frame)


CLASSES = (WAV2SEM_PG_settings,)


def register() -> None:
    """Give every scene its settings."""
    bpy.types.Scene.wav2sem = PointerProperty(type=WAV2SEM_PG_settings)


def unregister() -> None:
    """Take them away again."""
    del bpy.types.Scene.wav2sem
