# SPDX-License-Identifier: GPL-3.0-or-later
"""The panel What Is Said: a line, a text or a file with the words of the sound. It is optional."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import bpy
from bpy.props import StringProperty

from ...errors import Text, UserError
from ...pipeline.words.pronunciation import LANGUAGES, known_language
from ...pipeline.words.transcript import SUFFIXES, load_transcript, parse_transcript
from .. import compat
from ..animate.recognise import Recognition
from ..animate.settings import transcript_problem
from ..sound import info, source
from ..tasks.task import running_task, why_wait
from ..translations import translated
from .task_operator import draw_progress
from .widgets import AddonOperator, SpeechPanel, columns, draw_text

FIELDS = {"LINE": "transcript", "TEXT": "transcript_text", "FILE": "transcript_file"}
# The panel reads texts up to this size at once, larger ones are read by the run.
_MAX_LETTERS = 100_000
# What was wrong with the files that the user has chosen.
_looked_at: dict[str, str] = {}
_CODES = {name.lower(): code for code, name in LANGUAGES.items()}


def chosen(scene: bpy.types.Scene) -> dict[str, str]:
    """What the panel says, as settings of a run: `transcript` or `transcript_file`, and `language`.

    Raises:
        UserError: There is no such language, or the path is relative to a file that was never saved.
    """
    if not scene.is_property_set("wav2sem"):
        return {}
    settings = scene.wav2sem
    found: dict[str, str] = {}
    if settings.said == "LINE" and settings.transcript.strip():
        found["transcript"] = settings.transcript
    elif settings.said == "TEXT" and settings.transcript_text is not None:
        found["transcript"] = settings.transcript_text.as_string()
    elif settings.said == "FILE" and settings.transcript_file:
        found["transcript_file"] = str(source.absolute(settings.transcript_file))
    if found and settings.language.strip():
        found["language"] = language_code(settings.language)
    return found


def language_code(language: str) -> str:
    """The code of a language that is named by its code or in English.

    Raises:
        UserError: There is no such language.
    """
    return _CODES.get(language.strip().lower()) or known_language(language)


def problem(context: bpy.types.Context) -> str:
    """Why the words of the panel cannot be used; empty when they can, or when there are none."""
    try:
        given = chosen(context.scene)
        if trouble := _looked_at.get(given.get("transcript_file", "")):
            return trouble
        _n_words(given)
    except UserError as error:
        return error.text
    return transcript_problem(context, context.scene.wav2sem.model) if given else ""


def look_at_file(settings: Any, context: bpy.types.Context) -> None:
    """Read the file that the user has just chosen. One that a loaded file names is read by the run alone."""
    if not settings.transcript_file:
        return
    path = settings.transcript_file
    try:
        path = str(source.absolute(path))
        if Path(path).is_file() and Path(path).stat().st_size > _MAX_LETTERS:
            return
        _looked_at[path] = ""
        load_transcript(Path(path))
    except UserError as error:
        _looked_at[path] = error.text
    except OSError as error:
        _looked_at[path] = Text("{file} cannot be read ({reason})", file=path, reason=str(error))


def _n_words(given: dict[str, str]) -> int | None:
    """How many words there are; None without any, for a long text, and for a file."""
    text = given.get("transcript", "")
    return _n_words_of(text) if text and len(text) <= _MAX_LETTERS else None


@lru_cache(maxsize=4)
def _n_words_of(text: str) -> int:
    return len(parse_transcript(text).words)


def _beside(context: bpy.types.Context) -> Path | None:
    """A file beside the sound that has its name and may have its words."""
    try:
        info.check_chosen_is_asked(context.scene)  # a sound that may not be looked at has no neighbours either
        return _found_beside(info.chosen_path(context.scene), round(time.monotonic()))
    except UserError:
        return None


@lru_cache(maxsize=4)
def _found_beside(sound: str, _second: int) -> Path | None:
    """Panels ask at every redraw; the disk is asked once a second."""
    path = Path(sound)
    found = (path.with_suffix(suffix) for suffix in SUFFIXES if path.suffix and suffix != path.suffix)
    try:
        return next((some for some in found if some.is_file()), None)
    except OSError:
        return None


class _SaidOperator(AddonOperator):
    """Base of the buttons."""

    @classmethod
    def disabled_reason(cls, _context: bpy.types.Context) -> str:
        """No run may be using the settings."""
        return why_wait()


class WAV2SEM_OT_paste_transcript(_SaidOperator, bpy.types.Operator):
    """Take the words from the clipboard. Several lines become a text of this file"""

    bl_idname = "wav2sem.paste_transcript"
    bl_label = "Paste"

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Put one line into the field; Blender's own paste would take only the first of several."""
        settings, lines = context.scene.wav2sem, context.window_manager.clipboard.strip().splitlines()
        if not lines:
            return self._failed(UserError("The clipboard has no text. Copy what is said first."))
        if len(lines) == 1:
            settings.said, settings.transcript = "LINE", lines[0].strip()
        else:
            text = bpy.data.texts.new(translated("What Is Said"))
            text.write("\n".join(lines) + "\n")
            settings.said, settings.transcript_text = "TEXT", text
        return {"FINISHED"}


class WAV2SEM_OT_use_transcript(_SaidOperator, bpy.types.Operator):
    """Take the words from the file beside the sound"""

    bl_idname = "wav2sem.use_transcript"
    bl_label = "Use the File beside the Sound"
    bl_options: ClassVar = {"REGISTER", "UNDO", "INTERNAL"}

    filepath: StringProperty(name="File", subtype="FILE_PATH", options={"SKIP_SAVE"})  # type: ignore[valid-type]

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Choose it."""
        settings = context.scene.wav2sem
        settings.said, settings.transcript_file = "FILE", self.filepath
        return {"FINISHED"}


class WAV2SEM_PT_transcript(SpeechPanel, bpy.types.Panel):
    """What is said."""

    bl_label = "What Is Said"
    bl_order = 0  # after Speech, which is registered before
    bl_options: ClassVar = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """The words, how many there are or what is wrong with them, and their language."""
        layout, settings = columns(self.layout.column()), context.scene.wav2sem
        row = layout.row()
        row.use_property_split = False
        row.prop(settings, "said", expand=True)
        row = layout.row(align=True)
        row.use_property_split = False
        name = FIELDS.get(settings.said, "transcript")  # a stranger's file may have none of these
        if settings.said == "LINE":
            row.prop(settings, name, text="", placeholder=translated("The words of the sound; optional"))
        elif settings.said == "TEXT":
            row.template_ID(settings, name, new="text.new", open="text.open")
        else:
            row.prop(settings, name, text="")
        if settings.said != "FILE":
            row.operator(WAV2SEM_OT_paste_transcript.bl_idname, text="", icon="PASTEDOWN")
        self._draw_found(layout, context)
        layout.prop(settings, "language", placeholder=translated("Guessed"))
        task = running_task()
        if isinstance(task, Recognition):
            draw_progress(self.layout.row(align=True), task)
            return
        row = layout.row()
        row.operator_context = "INVOKE_DEFAULT"  # so that the poll runs in the sidebar's context
        row.operator("wav2sem.recognise_words", icon="SPEAKER")

    def _draw_found(self, layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
        if trouble := problem(context):
            draw_text(layout, context, trouble, "ERROR")
            return
        given = chosen(context.scene)
        n_words = _n_words(given)
        if n_words is not None:
            draw_text(layout, context, Text("{n} words", n=n_words), "CHECKMARK")
        beside = None if given else _beside(context)
        if beside is not None:
            text = translated(Text('Use "{file}"', file=beside.name))
            use = layout.operator(WAV2SEM_OT_use_transcript.bl_idname, text=text, icon="FILE_TEXT")
            use.filepath = str(beside)  # type: ignore[attr-defined]


CLASSES = (WAV2SEM_OT_paste_transcript, WAV2SEM_OT_use_transcript, WAV2SEM_PT_transcript)
