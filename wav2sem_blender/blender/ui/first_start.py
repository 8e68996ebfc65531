# SPDX-License-Identifier: GPL-3.0-or-later
"""For a newcomer: a head that is ready to speak, and one click that makes it speak a bundled recording."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace

import bpy

from ...assets import DEMO_SPEECH
from ...errors import Text
from ...pipeline.upper_face import Settings as UpperFaceSettings
from .. import addon_preferences, compat
from ..addon_preferences import ENGINES
from ..animate.settings import AnimateSettings
from ..scene.adding_demo_head import Before, add_demo_head, adding_blocked, find_demo_head, look_at
from ..scene.demo_head import add_sound
from ..scene.write_motion import Outcome
from ..tasks.task import why_wait
from .animate import SpeechTaskOperator
from .widgets import AddonOperator


class WAV2SEM_OT_add_demo_head(AddonOperator, bpy.types.Operator):
    """Add a head that is ready to speak, with teeth, a tongue and ARKit-named shape keys"""

    bl_idname = "wav2sem.add_demo_head"
    bl_label = "Add Demo Head"

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why no head can be added."""
        return adding_blocked(context)

    def execute(self, context: bpy.types.Context) -> compat.Result:
        """Add it and look at it."""
        head = add_demo_head(context)
        look_at(context, head)
        self.tell({"INFO"}, Text('"{head}" is ready; choose an audio file, then animate it', head=head.name))
        return {"FINISHED"}


class WAV2SEM_OT_self_test(SpeechTaskOperator, bpy.types.Operator):
    """Add the demo head and animate it from a bundled recording, to see and hear that everything works"""

    bl_idname = "wav2sem.self_test"
    bl_label = "Speak the Demo"

    _started_s = 0.0
    _new_head_uid: int | None = None
    _before: Before | None = None

    @classmethod
    def disabled_reason(cls, context: bpy.types.Context) -> str:
        """Why nothing can be added; the scene needs no mesh for it."""
        return why_wait() or adding_blocked(context)

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Take the demo recording and the demo head, which is added if it is missing; nothing comes from the panel."""
        self._started_s = time.perf_counter()
        given = self.properties.is_property_set
        if not (given("filepath") or given("sound") or given("strip")):
            self.filepath = str(DEMO_SPEECH)
        head = bpy.data.objects.get(self.object) if self.object else find_demo_head(context.scene)
        if head is None:
            self._before = Before(context)
            head = add_demo_head(context)
            look_at(context, head)
            self._new_head_uid = head.session_uid
        self.object = head.name

    def _settings(self) -> AnimateSettings:
        device = addon_preferences.get(bpy.context).device
        return replace(super()._settings(), device=device, upper_face=UpperFaceSettings())

    def _failed(self, error: BaseException | str) -> compat.Result:
        self._take_back()
        return super()._failed(error)

    def _end(self, context: bpy.types.Context, result: compat.Result) -> compat.Result:
        if result == {"CANCELLED"}:
            self._take_back()
        return super()._end(context, result)

    def _take_back(self) -> None:
        """Leave the scene as it was before a run that failed or was cancelled."""
        head = next((thing for thing in bpy.data.objects if thing.session_uid == self._new_head_uid), None)
        if head is not None and self._before is not None:
            self._before.bring_back(head)

    def _finished(self, outcome: Outcome, notes: Sequence[str]) -> compat.Result:
        self._new_head_uid = None
        self._prepare_playback(outcome)
        result = super()._finished(outcome, notes)
        if self._by_hand and not bpy.context.screen.is_animation_playing:  # type: ignore[union-attr]
            bpy.ops.screen.animation_play()
        return result

    def _prepare_playback(self, outcome: Outcome) -> None:
        target = bpy.data.objects[outcome.object_name]
        scene = target.users_scene[0]  # another one may be open by now
        panel = scene.wav2sem
        panel.target, panel.start_frame = target, self.start_frame
        if self.filepath and not (self.sound or self.strip):
            panel.source, panel.filepath = "FILE", self.filepath
            add_sound(scene, self.filepath, self.start_frame)
        first, last = outcome.scene_frames
        scene.frame_start, scene.frame_end = max(0, min(self.start_frame, first)), last
        scene.frame_set(scene.frame_start)

    def _summary(self, outcome: Outcome) -> str:
        action, seconds = bpy.data.actions[outcome.action_name], time.perf_counter() - self._started_s
        run = json.loads(action["wav2sem_settings"])
        engine = next((title for name, title, _ in ENGINES if name == run["engine"]), run["engine"])
        spoken_s = outcome.n_frames / outcome.stretch / compat.frame_rate_hz(bpy.context.scene)
        return Text(
            'It works: "{head}" speaks for {spoken_s:.1f} s. The model "{model}" made that in {seconds:.1f} s '
            "with {engine} on {device}; press Space to play or stop",
            head=outcome.object_name,
            spoken_s=spoken_s,
            model=action["wav2sem_model"],
            seconds=seconds,
            engine=engine,
            device=run["device"].upper(),
        )


CLASSES = (WAV2SEM_OT_add_demo_head, WAV2SEM_OT_self_test)
