# SPDX-License-Identifier: GPL-3.0-or-later
"""The main operator: collects the settings, runs a task and reports. No maths, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ...errors import UserError
from ...pipeline.upper_face import Settings as UpperFaceSettings
from .. import addon_preferences, compat
from ..addon_preferences import ENGINES
from ..animate import jobs
from ..animate.settings import AnimateSettings, articulation_problem
from ..scene.head_sway import NOTHING_SWAYS, SwayTarget
from ..scene.write_motion import Outcome, speech_summary
from ..sound import info
from ..tasks.asked import ask
from ..tasks.task import running_task
from ..translations import CONTEXT
from . import properties, status, transcript, upper_face_properties
from .task_operator import TaskOperator
from .widgets import AddonOperator, chosen_target, in_sidebar

# Do not reuse the last call's file and mesh.
FRESH = {"options": {"SKIP_SAVE"}}
# With these the panel's words are not those of the sound.
_OF_ANOTHER_SOUND = ("filepath", "sound", "strip", "transcript", "transcript_file")


class SpeechTaskOperator(TaskOperator):
    """Base of the operators that send speech to the worker: the speech, the mesh, and the waiting."""

    filepath: StringProperty(  # type: ignore[valid-type]
        name="Audio", description="Audio or video file", subtype="FILE_PATH", **FRESH
    )
    sound: StringProperty(name="Sound", description="Name of a sound in this file, instead of a path", **FRESH)  # type: ignore[valid-type]
    strip: StringProperty(  # type: ignore[valid-type]
        name="Strip", description="Name of a sound strip in the sequencer, instead of a path", **FRESH
    )
    object: StringProperty(  # type: ignore[valid-type]
        name="Mesh",
        description="Name of the mesh; the active object if empty",
        translation_context=CONTEXT,
        **FRESH,
    )
    start_frame: properties.start_frame_property(**FRESH)  # type: ignore[valid-type]
    delay_s: properties.delay_property(**FRESH)  # type: ignore[valid-type]
    range_start_s: properties.range_start_property(**FRESH)  # type: ignore[valid-type]
    range_end_s: properties.range_end_property(**FRESH)  # type: ignore[valid-type]

    _by_hand = False
    # Of the panel's sound and mesh: a linked one may have the name of another.
    _sound_uid = _object_uid = 0
    _from_panel: tuple[str, ...] = ("delay_s",)

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """What no settings can mend. The panel's button also knows its settings; a script's call fails in `execute`."""
        return status.run_disabled_reason(context) or (cls._panel_reason(context) if in_sidebar(context) else "")

    @classmethod
    def _panel_reason(cls, _context: bpy.types.Context) -> str:
        return ""

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Run to the end, for scripts, the background and the redo panel."""
        context.window_manager.progress_begin(0, 100)
        try:
            self._fill_from_panel(context)
            outcome, notes = jobs.run(
                context,
                self._settings(),
                lambda fraction, _title: context.window_manager.progress_update(100 * fraction),
            )
        except Exception as error:
            return self._failed(error)
        finally:
            context.window_manager.progress_end()
        return self._finished(outcome, notes)

    def _start(self, context: bpy.types.Context) -> compat.Result:
        self._by_hand = True
        try:
            self._fill_from_panel(context)
        except UserError as error:
            return self._failed(error)
        return super()._start(context)

    def _make(self, context: bpy.types.Context) -> jobs.Job:
        return jobs.Job(context, self._settings())

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Take whatever the call leaves open from the panel's settings."""
        given = self.properties.is_property_set
        # Reading the settings would store an empty group with the scene.
        if context.scene.is_property_set("wav2sem"):
            self._fill_from_settings(context.scene, given)
        if self.strip and not given("start_frame"):
            strip = compat.find_strip(context.scene, self.strip)
            self.start_frame = compat.strip_times(strip).start if strip is not None else 1

    def _fill_from_settings(self, scene: bpy.types.Scene, given: Callable[[str], bool]) -> None:
        panel = scene.wav2sem
        ask(panel.model)
        info.ask_for_chosen(scene)
        if not (given("filepath") or given("sound") or given("strip")):
            if info.source_of(panel) == "FILE":
                self.filepath = panel.filepath
            elif panel.source == "STRIP":
                self.strip = panel.strip
            else:
                block = panel.sound if panel.source == "SOUND" else panel.speaker and panel.speaker.data.sound
                self.sound = block.name if block is not None else ""
                self._sound_uid = block.session_uid if block is not None else 0
            if not given("start_frame"):
                self.start_frame = properties.start_frame(scene)
        elif not given("start_frame"):
            self.start_frame = panel.start_frame
        chosen = chosen_target(scene)
        if not given("object") and chosen is not None:
            self.object, self._object_uid = chosen.name, chosen.session_uid
        for name in (*self._from_panel, *(("range_start_s", "range_end_s") if panel.use_range else ())):
            if not given(name):
                setattr(self, name, getattr(panel, name))

    def _settings(self) -> AnimateSettings:
        """The settings that all speech operators have."""
        return AnimateSettings(
            filepath=self.filepath,
            sound=self.sound,
            sound_uid=self._sound_uid,
            strip=self.strip,
            object_name=self.object,
            object_uid=self._object_uid,
            delay_s=self.delay_s,
            start_frame=self.start_frame,
            range_start_s=self.range_start_s,
            range_end_s=self.range_end_s,
        )

    def _finished(self, outcome: Outcome, notes: Sequence[str]) -> compat.Result:
        for warning in outcome.warnings:
            self.tell({"WARNING"}, warning)
        for note in (*notes, *outcome.notes):
            self.tell({"INFO"}, note)
        self.tell({"INFO"}, self._summary(outcome))
        return {"FINISHED"}

    def _summary(self, outcome: Outcome) -> str:
        return speech_summary(outcome)


class WAV2SEM_OT_animate(SpeechTaskOperator, bpy.types.Operator):
    """Animate the mesh's shape keys from speech. Anything not given is taken from the Speech panel"""

    bl_idname = "wav2sem.animate"
    bl_label = "Animate from Speech"

    model: properties.model_property(**FRESH)  # type: ignore[valid-type]
    strength: properties.strength_property(**FRESH)  # type: ignore[valid-type]
    semantic_strength: properties.semantic_strength_property(**FRESH)  # type: ignore[valid-type]
    smoothing_s: properties.smoothing_property(**FRESH)  # type: ignore[valid-type]
    style: properties.style_property(**FRESH)  # type: ignore[valid-type]
    articulation: properties.articulation_property(**FRESH)  # type: ignore[valid-type]
    tongue: properties.tongue_property(**FRESH)  # type: ignore[valid-type]
    transcript: properties.transcript_property(**FRESH)  # type: ignore[valid-type]
    transcript_file: properties.transcript_file_property(**FRESH)  # type: ignore[valid-type]
    language: properties.language_property(**FRESH)  # type: ignore[valid-type]
    engine: EnumProperty(name="Engine", description="Engine that runs the model", items=ENGINES, **FRESH)  # type: ignore[valid-type]
    device: EnumProperty(  # type: ignore[valid-type]
        name="Device",
        description="Device that computes the animation",
        items=addon_preferences.DEVICES,
        translation_context=CONTEXT,
        **FRESH,
    )
    upper_face: BoolProperty(  # type: ignore[valid-type]
        name="Upper Face",
        description="Add blinks, brow motion and eye darts with the settings of the Upper Face panel",
        **FRESH,
    )

    _upper_face: tuple[UpperFaceSettings, SwayTarget] = UpperFaceSettings(), NOTHING_SWAYS
    _from_panel = (
        *("model", "style", "articulation", "strength", "semantic_strength", "smoothing_s", "delay_s"),
        "tongue",
    )

    @classmethod
    def _panel_reason(cls, context: bpy.types.Context) -> str:
        return status.speak_disabled_reason(context)

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Also take the preferences' device and the Upper Face panel's settings."""
        if not self.properties.is_property_set("device"):
            self.device = addon_preferences.get(context).device
        if not self.properties.is_property_set("upper_face"):
            self.upper_face = upper_face_properties.is_enabled(context.scene, self._by_hand)
        self._upper_face = upper_face_properties.panel_settings(context.scene)
        by_caller = self.properties.is_property_set("articulation")
        if not any(map(self.properties.is_property_set, _OF_ANOTHER_SOUND)):
            for name, value in transcript.chosen(context.scene).items():
                setattr(self, name, value)
        super()._fill_from_panel(context)
        if not by_caller and articulation_problem(context, self.model):
            self.articulation = 0.0  # the panel shows it greyed out

    def _settings(self) -> AnimateSettings:
        return replace(
            super()._settings(),
            model=self.model,
            engine=self.engine,
            device=self.device,
            style=self.style,
            articulation=self.articulation,
            semantic_strength=self.semantic_strength,
            strength=self.strength,
            smoothing_s=self.smoothing_s,
            tongue=self.tongue,
            transcript=self.transcript,
            transcript_file=self.transcript_file,
            language=transcript.language_code(self.language) if self.language.strip() else "",
            upper_face=self._upper_face[0] if self.upper_face else None,
            sway=self._upper_face[1],
        )


class WAV2SEM_OT_cancel(AddonOperator, bpy.types.Operator):
    """Cancel the running task; nothing is changed"""

    bl_idname = "wav2sem.cancel"
    bl_label = "Cancel"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, _context: bpy.types.Context) -> str:
        """A task must be running that can still be cancelled."""
        task = running_task()
        if task is None:
            return "Nothing is running"
        return "The curves are being written; undo afterwards instead" if task.is_writing else ""

    def execute(self, _context: bpy.types.Context) -> compat.Result:
        """Cancel; the task's operator notices and reports it."""
        task = running_task()
        assert task is not None
        task.cancel()
        return {"FINISHED"}


CLASSES = (WAV2SEM_OT_animate, WAV2SEM_OT_cancel)
