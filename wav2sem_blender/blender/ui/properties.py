# SPDX-License-Identifier: GPL-3.0-or-later
"""The Speech panel's settings, stored with the scene."""

from __future__ import annotations

import os
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from ...pipeline.words.pronunciation import LANGUAGES
from .. import compat
from ..animate.settings import model_names, style_names
from ..sound import info
from ..tasks.asked import ask
from ..translations import CONTEXT
from . import transcript

SOURCES = (
    ("FILE", "File", "An audio file, or a video with sound"),
    ("STRIP", "Strip", "A sound strip in this scene's sequencer, with its trims and retiming"),
    ("SOUND", "Sound", "A sound data-block in this file; it may be packed"),
    ("SPEAKER", "Speaker", "The sound of a speaker object"),
)


SAID = (
    ("LINE", "Line", "A line that you type or paste here"),
    ("TEXT", "Text", "A text of this .blend file"),
    ("FILE", "File", "A text file, subtitles, a TextGrid or labels"),
)


def _suggest_languages(_self: object, _context: bpy.types.Context, _text: str) -> list[tuple[str, str]]:
    return list(LANGUAGES.items())


def _suggest_models(_self: object, context: bpy.types.Context, _text: str) -> list[str]:
    return model_names(context)


def _suggest_styles(owner: Any, context: bpy.types.Context, _text: str) -> list[str]:
    return style_names(context, owner.model)


def _suggest_strips(_self: object, context: bpy.types.Context, _text: str) -> list[str]:
    scenes = dict.fromkeys((context.scene, compat.sequencer_scene(context)))
    return [strip.name for scene in scenes for strip in compat.sound_strips(scene)]


def _ask_for_file(settings: Any, _context: bpy.types.Context) -> None:
    """The user has chosen a file: panels may look at it, also if another source is chosen now."""
    ask(settings.filepath)


def _ask_for_model(settings: Any, _context: bpy.types.Context) -> None:
    """The user has chosen a model: panels may look at it. They show none of an operator's."""
    ask(settings.model)


def _ask_for_sound(settings: Any, _context: bpy.types.Context) -> None:
    """The user has chosen a sound: panels may look at it."""
    info.ask_for_chosen(settings.id_data)


def _is_speaker(_self: object, candidate: bpy.types.Object) -> bool:
    return candidate.type == "SPEAKER"


def _is_mesh(_self: object, candidate: bpy.types.Object) -> bool:
    return candidate.type == "MESH"


# The panel's settings and the operators share these, so that names, limits and tooltips agree.
def model_property(**options: Any) -> object:
    """Name or folder of the model."""
    return StringProperty(
        name="Model",
        description="The bundled model, a model in the models folder of the preferences, or the path of a model folder",
        default="default",
        search=_suggest_models,
        search_options={"SUGGESTION"},
        **options,
    )


def start_frame_property(**options: Any) -> object:
    """Scene frame at which the speech begins."""
    return IntProperty(name="Start Frame", description="Scene frame at which the audio begins", default=1, **options)


def strength_property(**options: Any) -> object:
    """Factor for all curves."""
    return FloatProperty(
        name="Strength", description="Amount of facial motion; 1 keeps the model's own", default=1.0, min=0.0, max=10.0,
        soft_max=2.0, translation_context=CONTEXT, **options,
    )  # fmt: skip


def smoothing_property(**options: Any) -> object:
    """Width of the smoothing."""
    return _seconds(
        "Smoothing", "Smooths the motion: 0.05 s is subtle, 0.2 s slurs the words. Closed lips stay closed",
        min=0.0, max=2.0, soft_max=0.2, **options,
    )  # fmt: skip


def delay_property(**options: Any) -> object:
    """How far the face lags behind the audio."""
    return _seconds(
        "Delay", "How far the face lags behind the audio. With a negative value it leads, as animators often prefer",
        min=-10.0, max=10.0, soft_min=-0.2, soft_max=0.2, **options,
    )  # fmt: skip


def range_start_property(**options: Any) -> object:
    """Start of the part of the audio to animate."""
    return _seconds("From", "Start of the part to animate, in seconds from the audio's beginning", min=0.0, **options)


def range_end_property(**options: Any) -> object:
    """End of the part of the audio to animate."""
    return _seconds(
        "To", "End of the part to animate, in seconds from the audio's beginning; 0 for its end", min=0.0, **options
    )


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


def articulation_property(**options: Any) -> object:
    """How clearly the mouth articulates."""
    return FloatProperty(
        name="Articulation",
        description="How clearly the mouth articulates: -1 mumbles, 0 is the style itself, 1 over-articulates. "
        "Lips that close stay closed at every value",
        default=0.0,
        min=-1.0,
        max=1.0,
        **options,
    )


def tongue_property(**options: Any) -> object:
    """Whether the tongue moves."""
    return BoolProperty(
        name="Tongue",
        description="Move the tongue in l, t, d, n and th, where the face has keys for it. It follows a rule: the "
        "model never saw a tongue",
        default=True,
        **options,
    )


def semantic_strength_property(**options: Any) -> object:
    """Factor for the semantic features."""
    return FloatProperty(
        name="Semantics",
        description="How much the meaning of the sentence shapes the motion; 0 uses the sounds alone. With the bundled "
        "model, measurements found no gain",
        default=1.0,
        min=0.0,
        max=10.0,
        soft_max=2.0,
        **options,
    )


def style_property(**options: Any) -> object:
    """Name or number of the speaking style."""
    return StringProperty(
        name="Style",
        description="Speaking style learned by the model: its name, or its number from 0. The first one if empty",
        search=_suggest_styles,
        search_options={"SUGGESTION"},
        translation_context=CONTEXT,
        **options,
    )


def transcript_property(**options: Any) -> object:
    """The words of the sound."""
    return StringProperty(
        name="What Is Said",
        description="The words of the sound, if they are known. The lips follow them, and they are shown as strips",
        **options,
    )


def transcript_file_property(**options: Any) -> object:
    """A file with the words of the sound."""
    return StringProperty(
        name="Words",
        description="A file with the words of the sound: .txt, .srt, .vtt, .ass, .TextGrid or .lab",
        subtype="FILE_PATH",
        **options,
    )


def language_property(**options: Any) -> object:
    """The language of the words."""
    return StringProperty(
        name="Language",
        description="Language of the words, by its code or its English name; guessed if empty",
        search=_suggest_languages,
        search_options={"SUGGESTION"},
        **options,
    )


class WAV2SEM_PG_settings(bpy.types.PropertyGroup):
    """Settings of the Speech panel."""

    source: EnumProperty(  # type: ignore[valid-type]
        name="Source", description="Where the speech comes from", items=SOURCES, translation_context=CONTEXT
    )
    filepath: StringProperty(  # type: ignore[valid-type]
        name="Audio",
        description="Audio or video file with the speech",
        subtype="FILE_PATH",
        update=_ask_for_file,
        **compat.RELATIVE_PATH,
    )
    strip: StringProperty(  # type: ignore[valid-type]
        name="Strip", description="Sound strip in the sequencer", search=_suggest_strips, update=_ask_for_sound
    )
    sound: PointerProperty(  # type: ignore[valid-type]
        name="Sound", description="Sound in this file", type=bpy.types.Sound, update=_ask_for_sound
    )
    target: PointerProperty(  # type: ignore[valid-type]
        name="Mesh",
        description="Head to animate; the active object if empty",
        type=bpy.types.Object,
        poll=_is_mesh,
        translation_context=CONTEXT,
    )
    same_collection: BoolProperty(  # type: ignore[valid-type]
        name="Same Collection",
        description="Take meshes of the face's collections for its parts, too, if they have keys of the same names",
    )
    speaker: PointerProperty(  # type: ignore[valid-type]
        name="Speaker",
        description="Speaker object that plays the speech",
        type=bpy.types.Object,
        poll=_is_speaker,
        update=_ask_for_sound,
    )
    use_range: BoolProperty(  # type: ignore[valid-type]
        name="Range", description="Animate only part of the audio. Its keyframes stay where the whole audio puts them"
    )
    range_start_s: range_start_property()  # type: ignore[valid-type]
    range_end_s: range_end_property()  # type: ignore[valid-type]
    model: model_property(update=_ask_for_model)  # type: ignore[valid-type]
    start_frame: start_frame_property()  # type: ignore[valid-type]
    strength: strength_property()  # type: ignore[valid-type]
    smoothing_s: smoothing_property()  # type: ignore[valid-type]
    delay_s: delay_property()  # type: ignore[valid-type]
    semantic_strength: semantic_strength_property()  # type: ignore[valid-type]
    style: style_property()  # type: ignore[valid-type]
    articulation: articulation_property()  # type: ignore[valid-type]
    tongue: tongue_property()  # type: ignore[valid-type]
    said: EnumProperty(  # type: ignore[valid-type]
        name="What Is Said", description="Where the words are", items=SAID, translation_context=CONTEXT
    )
    transcript: transcript_property()  # type: ignore[valid-type]
    transcript_text: PointerProperty(  # type: ignore[valid-type]
        name="Text", description="A text of this file with the words of the sound", type=bpy.types.Text
    )
    transcript_file: transcript_file_property(  # type: ignore[valid-type]
        update=transcript.look_at_file, **compat.RELATIVE_PATH
    )
    language: language_property()  # type: ignore[valid-type]


def start_frame(scene: bpy.types.Scene) -> int:
    """Scene frame at which the panel's audio begins: that of its strip or speaker, or the user's."""
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


@bpy.app.handlers.persistent
def _keep_paths(new_file: str, *_arguments: object) -> None:
    """Before a file is saved elsewhere, as Blender does with the paths of its own data."""
    folder = os.path.dirname(new_file)
    if not bpy.data.filepath or not folder or os.path.samefile(folder, os.path.dirname(bpy.data.filepath)):
        return
    for scene in bpy.data.scenes:
        if scene.library is None and scene.is_property_set("wav2sem"):
            for name in ("filepath", "transcript_file"):
                path = getattr(scene.wav2sem, name)
                if path.startswith("//"):
                    setattr(scene.wav2sem, name, bpy.path.relpath(bpy.path.abspath(path), start=folder))


@bpy.app.handlers.persistent
def _forget_deleted(*_arguments: object) -> None:
    """Before a file is saved: what was deleted from all scenes would be saved with it, because a panel chose it."""
    for scene in bpy.data.scenes:
        if scene.library is None and scene.is_property_set("wav2sem"):
            for name in ("target", "speaker"):
                chosen = getattr(scene.wav2sem, name)
                if chosen is not None and not chosen.users_scene:
                    setattr(scene.wav2sem, name, None)


def register() -> None:
    """Add the settings to every scene."""
    bpy.types.Scene.wav2sem = PointerProperty(type=WAV2SEM_PG_settings)
    bpy.types.Object.wav2sem_follows = BoolProperty(  # type: ignore[attr-defined]
        name="Moves with the Face",
        description="Play the speech of the face on the shape keys of this mesh that have the same names",
        default=True,
    )
    bpy.app.handlers.save_pre.extend((_forget_deleted, _keep_paths))


def unregister() -> None:
    """Remove them."""
    for handler in (_forget_deleted, _keep_paths):
        bpy.app.handlers.save_pre.remove(handler)
    del bpy.types.Scene.wav2sem, bpy.types.Object.wav2sem_follows  # type: ignore[attr-defined]
