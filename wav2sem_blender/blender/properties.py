# SPDX-License-Identifier: GPL-3.0-or-later
"""The Speech panel's settings, stored with the scene."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from . import compat
from .settings import model_names, style_names

SOURCES = (
    ("FILE", "File", "An audio file, or a film with sound"),
    ("STRIP", "Strip", "A sound strip of this scene's sequencer, as it is trimmed there"),
    ("SOUND", "Sound", "A sound in this file, packed ones too"),
)


def _suggest_models(_self: object, context: bpy.types.Context, _text: str) -> list[str]:
    return model_names(context)


def _suggest_styles(owner: Any, context: bpy.types.Context, _text: str) -> list[str]:
    return style_names(context, owner.model)


def _suggest_strips(_self: object, context: bpy.types.Context, _text: str) -> list[str]:
    editor = context.scene.sequence_editor
    return [strip.name for strip in compat.sequencer_strips(editor) if strip.type == "SOUND"] if editor else []


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


def semantic_strength_property(**options: object) -> object:
    """Factor for the semantic features."""
    return FloatProperty(
        name="Semantic Strength",
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
        **options,
    )


class WAV2SEM_PG_settings(bpy.types.PropertyGroup):
    """Settings of the Speech panel."""

    source: EnumProperty(name="Source", description="Where the speech comes from", items=SOURCES)  # type: ignore[valid-type]
    filepath: StringProperty(  # type: ignore[valid-type]
        name="Audio", description="Audio file with the speech, or a film", subtype="FILE_PATH"
    )
    strip: StringProperty(  # type: ignore[valid-type]
        name="Strip", description="Sound strip of this scene's sequencer", search=_suggest_strips
    )
    sound: PointerProperty(name="Sound", description="Sound in this file", type=bpy.types.Sound)  # type: ignore[valid-type]
    target: PointerProperty(  # type: ignore[valid-type]
        name="Mesh", description="Head to animate; empty for the active object", type=bpy.types.Object, poll=_is_mesh
    )
    model: model_property()  # type: ignore[valid-type]
    start_frame: start_frame_property()  # type: ignore[valid-type]
    strength: strength_property()  # type: ignore[valid-type]
    semantic_strength: semantic_strength_property()  # type: ignore[valid-type]
    style: style_property()  # type: ignore[valid-type]


CLASSES = (WAV2SEM_PG_settings,)


def register() -> None:
    """Give every scene its settings."""
    bpy.types.Scene.wav2sem = PointerProperty(type=WAV2SEM_PG_settings)


def unregister() -> None:
    """Take them away again."""
    del bpy.types.Scene.wav2sem
