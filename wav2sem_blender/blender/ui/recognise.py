# SPDX-License-Identifier: GPL-3.0-or-later
"""The button that lets a speech recogniser write down what is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import bpy

from ...errors import UserError
from .. import compat
from ..animate import recognise
from ..animate.recognise import Recognition, Words
from ..animate.settings import AnimateSettings
from ..tasks.task import why_wait
from . import properties, status, transcript
from .animate import FRESH, SpeechTaskOperator
from .task_operator import TaskOperator
from .widgets import in_sidebar


class WAV2SEM_OT_recognise_words(SpeechTaskOperator, bpy.types.Operator):
    """Let the speech recogniser of the preferences write what is said into a text, which you can correct"""

    bl_idname = "wav2sem.recognise_words"
    bl_label = "Recognise Words"

    language: properties.language_property(**FRESH)  # type: ignore[valid-type]

    _from_panel = ()

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """There must be a recogniser; the panel's button also knows its sound."""
        if context.scene is None:
            return "There is no scene"
        reason = why_wait() or recognise.disabled_reason(context)
        return reason or (status.sound_problem(context) if in_sidebar(context) else "")

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Run to the end, for scripts and in the background."""
        try:
            self._fill_from_panel(context)
        except UserError as error:
            return self._failed(error)
        return TaskOperator.execute(self, context)

    def _make(self, context: bpy.types.Context) -> Recognition:  # type: ignore[override]
        return Recognition(context, self._settings())

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Also take the language, unless an earlier recognition has set it: the next sound may have another one."""
        super()._fill_from_panel(context)
        if self.properties.is_property_set("language") or not context.scene.is_property_set("wav2sem"):
            return
        panel = context.scene.wav2sem
        text = panel.transcript_text
        if text is None or text.get(recognise.HEARD) != panel.language:
            self.language = panel.language

    def _settings(self) -> AnimateSettings:
        language = transcript.language_code(self.language) if self.language.strip() else ""
        return replace(super()._settings(), language=language)

    def _finished(self, outcome: Words, _notes: Sequence[str]) -> compat.Result:  # type: ignore[override]
        self.tell({"INFO"}, recognise.words_told(outcome))
        return {"FINISHED"}


CLASSES = (WAV2SEM_OT_recognise_words,)
