# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panels know about face and sound before a run: what was recognised, and why a button is disabled.

Called at every redraw, so it reads only names and settings; a run checks everything.
"""

from __future__ import annotations

import bpy

from ...errors import Text, UserError
from ...pipeline.face_names import SPEECH_CHANNELS, listed
from ...pipeline.motion import ARKIT_CHANNELS
from ...pipeline.visemes import openings_mm
from ..animate import estimate
from ..scene import checks, controls, key_mapping
from ..sound import info
from ..sound.look import BeingReadError
from ..tasks.asked import NotAskedError
from ..tasks.task import why_wait
from . import transcript
from .widgets import chosen_object, face_of

# How many missing keys are named.
_LISTED = 3


def speak_disabled_reason(context: bpy.types.Context) -> str:
    """Why the face cannot speak with the panel's settings; empty when it can."""
    return sound_problem(context) or face_problem(context) or transcript.problem(context)


def upper_face_disabled_reason(context: bpy.types.Context) -> str:
    """Why the upper face cannot follow the sound with the panel's settings; empty when it can."""
    return sound_problem(context) or _unusable(context)


def run_disabled_reason(context: bpy.types.Context) -> str:
    """Why no run can start in this scene, whatever the settings; empty when one can."""
    if context.scene is None:
        return "There is no scene"
    if wait := why_wait():
        return wait
    if not any(candidate.type == "MESH" for candidate in context.scene.objects):
        return "The scene has no mesh; add or import a head first"
    return ""


def run_words(context: bpy.types.Context) -> Text | None:
    """How long a run with the panel's settings will take; None where the sound's length or the model is not known."""
    settings = context.scene.wav2sem
    try:
        length_s = info.chosen_info(context.scene).duration_s
    except UserError:
        return None
    if length_s is None:
        return None
    if settings.use_range:
        end_s = min(settings.range_end_s or length_s, length_s)
        length_s = max(0.0, end_s - settings.range_start_s)
    return estimate.words(context, settings.model, length_s)


def sound_problem(context: bpy.types.Context) -> str:
    """What is wrong with the chosen sound, as far as it is known; empty when it can be used."""
    try:
        info.check_chosen_range(context.scene.wav2sem, info.chosen_info(context.scene))
    except (BeingReadError, NotAskedError):
        return ""
    except UserError as error:
        return error.text
    return ""


def face_problem(context: bpy.types.Context) -> str:
    """Why the chosen face cannot speak; empty when it can."""
    unusable = _unusable(context)
    if unusable:
        return unusable
    face = chosen_object(context)
    assert face is not None
    if not checks.recognised(face)[1]:
        return Text('"{face}" has no face keys; create them with Any Head, or add the demo head', face=face.name)
    if context.scene.wav2sem.model not in ("", "default"):
        return ""  # only the model's folder tells which keys it animates
    found, own = key_mapping.in_use(face), checks.own_keys(face.data)
    present = key_mapping.playable(face, found.rows) - own
    rows = tuple(row for row in found.rows if row.key in present and (found.visemes or row.channel in SPEECH_CHANNELS))
    try:
        checks.animatable(face, rows)
    except UserError as error:
        return error.text
    return "" if rows else next(iter(key_mapping.problems(face, found)), "")


def face_words(context: bpy.types.Context) -> list[tuple[str, str]]:
    """What was recognised of the chosen face, or what to do; each sentence with its icon."""
    chosen, face = chosen_object(context), face_of(context)
    if chosen is None:
        return [("Choose a mesh, or select one", "INFO")]
    if face is None and (instance := checks.instance_of(chosen)) is not None:
        text = '"{name}" shows the collection "{collection}"; make a library override of it first'
        return [(Text(text, name=chosen.name, collection=instance.name), "ERROR")]
    if face is None:
        return [(Text('"{name}" is not a mesh; choose the mesh of the head', name=chosen.name), "ERROR")]
    found = key_mapping.guessed(face)
    if key_mapping.stored(face) is not None or checks.own_keys(face.data) or not found.can_speak():
        words, can_speak = checks.recognised(face)
        return [(words, "CHECKMARK" if can_speak else "ERROR"), *_control_words(face)]
    if found.visemes:
        return [(found.summary(), "CHECKMARK"), *_control_words(face)]
    channels = set(found.channels)
    n_known, n_all = len(channels & set(ARKIT_CHANNELS)), len(ARKIT_CHANNELS)
    found_words: list[tuple[str, str]] = [
        (Text("{label}, {n_known} of {n_all} found", label=found.label, n_known=n_known, n_all=n_all), "CHECKMARK")
    ]
    if not any(opening >= 8.0 for opening in openings_mm(channels).values()):
        found_words[0] = (found_words[0][0], "ERROR")
        found_words.append(("No key opens the mouth; is the jaw a bone? Then use Jaw Bone", "ERROR"))
    missing = [name for name in SPEECH_CHANNELS if name not in channels]
    if missing:
        found_words.append((Text("The mouth has no {channels}", channels=listed(missing, _LISTED)), "INFO"))
    return [*found_words, *_control_words(face)]


def _control_words(face: bpy.types.Object) -> list[tuple[str, str]]:
    """Which rig moves the face, and what is wrong with its controls."""
    table, rig = key_mapping.in_use(face), controls.rig_of(face)
    names = {row.key for row in key_mapping.control_rows(face, table.rows)}
    problems = [(problem, "ERROR") for problem in key_mapping.problems(face, table)] if names or rig else []
    if not names or rig is None:
        return problems
    return [(Text('{n} controls of "{rig}" move the face', n=len(names), rig=rig.name), "ARMATURE_DATA"), *problems]


def no_face_yet(context: bpy.types.Context) -> bool:
    """Whether to offer the demo head: the chosen face cannot speak, and no mesh of the scene has shape keys."""
    face = face_of(context)
    if face is not None and checks.recognised(face)[1]:
        return False
    return not bpy.data.shape_keys or not any(
        candidate.type == "MESH" and candidate.data.shape_keys for candidate in context.scene.objects
    )


def _unusable(context: bpy.types.Context) -> str:
    chosen = chosen_object(context)
    if chosen is None:
        return "Choose a mesh, or select one"
    try:
        checks.check_usable(context, chosen)
    except UserError as error:
        return error.text
    return ""
