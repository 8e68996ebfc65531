# SPDX-License-Identifier: GPL-3.0-or-later
"""What the panels know about face and sound before anything runs: what was recognised, and why a button cannot work.

Asked at every redraw, so it only looks at names and switches; a run looks closely.
"""

from __future__ import annotations

import bpy

from ...errors import Text
from ...pipeline.face_names import SPEECH_CHANNELS, listed
from ...pipeline.motion import ARKIT_CHANNELS
from ..scene import checks, key_mapping
from ..sound import info
from ..tasks import running
from .widgets import chosen_object, face_of

# A part of a face's keys that speech can do without is not worth a line.
_LISTED = 3


def speak_disabled_reason(context: bpy.types.Context) -> str:
    """What the panel's settings lack before the face can speak, or nothing."""
    return sound_problem(context) or face_problem(context)


def upper_face_disabled_reason(context: bpy.types.Context) -> str:
    """What they lack before the upper face can follow the sound, or nothing."""
    return sound_problem(context) or _unusable(context)


def run_disabled_reason(context: bpy.types.Context) -> str:
    """Why no run can start in this scene whatever the settings are, or nothing."""
    if context.scene is None:
        return "There is no scene"
    if wait := running.why_wait():
        return wait
    if not any(candidate.type == "MESH" for candidate in context.scene.objects):
        return "The scene has no mesh; add or import a head first"
    return ""


def sound_problem(context: bpy.types.Context) -> str:
    """What is wrong with the chosen sound, or nothing."""
    try:
        info.check_range(context.scene.wav2sem, info.of_scene(context.scene))
    except ValueError as error:
        return str(error)
    return ""


def face_problem(context: bpy.types.Context) -> str:
    """Why the chosen face cannot speak as it is, or nothing."""
    unusable = _unusable(context)
    if unusable:
        return unusable
    face = chosen_object(context)
    assert face is not None
    if not checks.recognised(face)[1]:
        return Text('"{face}" has no face keys; create them with Any Head, or add the demo head', face=face.name)
    if context.scene.wav2sem.model not in ("", "default"):
        return ""  # which keys another model moves is in its folder
    found, own = key_mapping.in_use(face), checks.own_keys(face.data)
    present = set(key_mapping.key_names(face)) - own
    rows = tuple(row for row in found.rows if row.key in present and (found.visemes or row.channel in SPEECH_CHANNELS))
    try:
        checks.check_keys(face, rows)
    except ValueError as error:
        return str(error)
    return ""


def face_words(context: bpy.types.Context) -> list[tuple[str, str]]:
    """What was recognised of the chosen face, and what to do where nothing was; each sentence with its icon."""
    chosen, face = chosen_object(context), face_of(context)
    if chosen is None:
        return [("Choose a mesh, or select one", "INFO")]
    if face is None:
        return [(Text('"{chosen}" is no mesh; choose the mesh of the head', chosen=chosen.name), "ERROR")]
    found = key_mapping.guessed(face)
    if key_mapping.stored(face) is not None or checks.own_keys(face.data) or not found.can_speak():
        words, can_speak = checks.recognised(face)
        return [(words, "CHECKMARK" if can_speak else "ERROR")]
    if found.visemes:
        return [(found.summary(), "CHECKMARK")]
    channels = set(found.channels)
    n_known, n_all = len(channels & set(ARKIT_CHANNELS)), len(ARKIT_CHANNELS)
    words = [
        (Text("{label}, {n_known} of {n_all} found", label=found.label, n_known=n_known, n_all=n_all), "CHECKMARK")
    ]
    missing = [name for name in SPEECH_CHANNELS if name not in channels]
    if missing:
        words.append((Text("The mouth has no {listed}", listed=listed(missing, _LISTED)), "INFO"))
    return words


def no_face_yet(context: bpy.types.Context) -> bool:
    """Whether the demo head may be what somebody needs: nothing chosen can speak, and no mesh of the scene has keys."""
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
    except ValueError as error:
        return str(error)
    return ""
