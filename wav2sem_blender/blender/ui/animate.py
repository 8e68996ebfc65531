# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator: it collects settings, drives a job, and reports. No maths, no files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ...pipeline.upper_face import Settings as UpperFaceSettings
from .. import addon_preferences, compat
from ..addon_preferences import ENGINES
from ..animate import jobs
from ..animate.settings import AnimateSettings
from ..scene.head_sway import NOTHING_SWAYS, SwayTarget
from ..scene.write_motion import Outcome, summary
from ..tasks import running
from ..translations import CONTEXT
from . import properties, status, upper_face_properties
from .task_operator import JobOperator
from .widgets import AddonOperator, is_drawing

# The next call must not inherit the last call's file and mesh.
FRESH = {"options": {"SKIP_SAVE"}}


class SpeechJobOperator(JobOperator):
    """What operators share that hand speech to the worker and wait for it: the speech, the mesh, and the waiting."""

    filepath: StringProperty(  # type: ignore[valid-type]
        name="Audio", description="Audio file, or a film with sound", subtype="FILE_PATH", **FRESH
    )
    sound: StringProperty(name="Sound", description="Sound in this file, instead of a path", **FRESH)  # type: ignore[valid-type]
    strip: StringProperty(name="Strip", description="Sound strip of the sequencer, instead of a path", **FRESH)  # type: ignore[valid-type]
    object: StringProperty(  # type: ignore[valid-type]
        name="Mesh",
        description="Name of the mesh; empty for the active object",
        translation_context=CONTEXT,
        **FRESH,
    )
    start_frame: properties.start_frame_property(**FRESH)  # type: ignore[valid-type]
    delay_s: properties.delay_property(**FRESH)  # type: ignore[valid-type]
    range_start_s: properties.range_start_property(**FRESH)  # type: ignore[valid-type]
    range_end_s: properties.range_end_property(**FRESH)  # type: ignore[valid-type]

    _by_hand = False
    _from_panel: tuple[str, ...] = ("delay_s",)

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """What is missing whatever the settings are; everything else is said by `execute`.

        The panel's button has the panel's settings, so there it is known before the click what they lack.
        """
        return status.run_disabled_reason(context) or (cls._panel_lacks(context) if is_drawing(context) else "")

    @classmethod
    def _panel_lacks(cls, _context: bpy.types.Context) -> str:
        return ""

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Run to the end: scripts, the background, and the redo panel."""
        self._fill_from_panel(context)
        context.window_manager.progress_begin(0, 100)
        try:
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

    def _start(self, context: bpy.types.Context) -> set[str]:
        self._by_hand = True
        self._fill_from_panel(context)
        return super()._start(context)

    def _make(self, context: bpy.types.Context) -> jobs.Job:
        return jobs.Job(context, self._settings())

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Whatever the call leaves open: the panel's settings."""
        given = self.properties.is_property_set
        # Merely reading the settings would store an empty group with the scene.
        if context.scene.is_property_set("wav2sem"):
            self._fill_from_settings(context.scene, given)
        if self.strip and not given("start_frame"):
            strip = compat.find_strip(context.scene, self.strip)
            self.start_frame = compat.strip_times(strip).start if strip is not None else 1

    def _fill_from_settings(self, scene: bpy.types.Scene, given: Callable[[str], bool]) -> None:
        panel = scene.wav2sem
        if not (given("filepath") or given("sound") or given("strip")):
            if panel.source == "FILE":
                self.filepath = panel.filepath
            elif panel.source == "STRIP":
                self.strip = panel.strip
            else:
                block = panel.sound if panel.source == "SOUND" else panel.speaker and panel.speaker.data.sound
                self.sound = block.name if block is not None else ""
            if not given("start_frame"):
                self.start_frame = properties.start_frame(scene)
        elif not given("start_frame"):
            self.start_frame = panel.start_frame
        if not given("object") and panel.target is not None:
            self.object = panel.target.name
        for name in (*self._from_panel, *(("range_start_s", "range_end_s") if panel.use_range else ())):
            if not given(name):
                setattr(self, name, getattr(panel, name))

    def _settings(self) -> AnimateSettings:
        """What all of them have; the rest is theirs."""
        return AnimateSettings(
            filepath=self.filepath,
            sound=self.sound,
            strip=self.strip,
            object_name=self.object,
            delay_s=self.delay_s,
            start_frame=self.start_frame,
            range_start_s=self.range_start_s,
            range_end_s=self.range_end_s,
        )

    def _finished(self, outcome: Outcome, notes: list[str]) -> set[str]:
        for warning in outcome.warnings:
            self.tell({"WARNING"}, warning)
        for note in (*notes, *outcome.notes):
            self.tell({"INFO"}, note)
        self.tell({"INFO"}, self._summary(outcome))
        return {"FINISHED"}

    def _summary(self, outcome: Outcome) -> str:
        return summary(outcome)


class WAV2SEM_OT_animate(SpeechJobOperator, bpy.types.Operator):
    """Write shape key animation that speaks the audio. What is not given comes from the Speech panel"""

    bl_idname = "wav2sem.animate"
    bl_label = "Animate from Speech"

    model: properties.model_property(**FRESH)  # type: ignore[valid-type]
    strength: properties.strength_property(**FRESH)  # type: ignore[valid-type]
    semantic_strength: properties.semantic_strength_property(**FRESH)  # type: ignore[valid-type]
    smoothing_s: properties.smoothing_property(**FRESH)  # type: ignore[valid-type]
    style: properties.style_property(**FRESH)  # type: ignore[valid-type]
    engine: EnumProperty(name="Engine", description="What runs the model", items=ENGINES, **FRESH)  # type: ignore[valid-type]
    device: EnumProperty(  # type: ignore[valid-type]
        name="Device",
        description="What computes the animation",
        items=addon_preferences.DEVICES,
        translation_context=CONTEXT,
        **FRESH,
    )
    upper_face: BoolProperty(  # type: ignore[valid-type]
        name="Upper Face", description="Add blinks, brows and eye darts, as the Upper Face panel is set", **FRESH
    )

    _upper_face: tuple[UpperFaceSettings, SwayTarget] = UpperFaceSettings(), NOTHING_SWAYS
    _from_panel = ("model", "strength", "semantic_strength", "smoothing_s", "style", "delay_s")

    @classmethod
    def _panel_lacks(cls, context: bpy.types.Context) -> str:
        return status.speak_disabled_reason(context)

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """The device of the preferences and the Upper Face panel, too."""
        if not self.properties.is_property_set("device"):
            self.device = addon_preferences.get(context).device
        if not self.properties.is_property_set("upper_face"):
            self.upper_face = upper_face_properties.is_enabled(context.scene, self._by_hand)
        self._upper_face = upper_face_properties.of_scene(context.scene)
        super()._fill_from_panel(context)

    def _settings(self) -> AnimateSettings:
        return replace(
            super()._settings(),
            model=self.model,
            engine=self.engine,
            device=self.device,
            style=self.style,
            semantic_strength=self.semantic_strength,
            strength=self.strength,
            smoothing_s=self.smoothing_s,
            upper_face=self._upper_face[0] if self.upper_face else None,
            sway=self._upper_face[1],
        )


class WAV2SEM_OT_cancel(AddonOperator, bpy.types.Operator):
    """Stop what is going on; nothing was changed"""

    bl_idname = "wav2sem.cancel"
    bl_label = "Cancel"
    bl_options: ClassVar = {"INTERNAL"}

    @classmethod
    def disabled_reason(cls, _context: bpy.types.Context) -> str:
        """Something must be running that can still be stopped."""
        job = running.current()
        if job is None:
            return "Nothing is being animated"
        return "The curves are being written; undo them afterwards" if job.is_writing else ""

    def execute(self, _context: bpy.types.Context) -> set[str]:
        """The running operator notices, and says so."""
        job = running.current()
        assert job is not None
        job.cancel()
        return {"FINISHED"}


CLASSES = (WAV2SEM_OT_animate, WAV2SEM_OT_cancel)
