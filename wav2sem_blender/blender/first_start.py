# SPDX-License-Identifier: GPL-3.0-or-later
"""What a newcomer presses first: a head that is ready to speak, and one click that makes it speak a recording."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import bpy
import numpy as np
from mathutils import Quaternion, Vector

from ..pipeline.upper_face import Settings as UpperFaceSettings
from . import compat, preferences, running
from .apply import Outcome
from .demo_film import DEMO_SPEECH, add_sound
from .demo_head import build_demo_head
from .operators import ENGINES, SpeechJobOperator
from .settings import AnimateSettings
from .sidebar import SaysWhyNot

DEMO_PROPERTY = "wav2sem_demo_head"  # custom property of an object: it is the bundled head, ready to speak
CLEARANCE_M = 1.25  # between the head and what stood in its place, which is then out of the picture
FROM_THE_FRONT = Quaternion((1.0, 0.0, 0.0), np.pi / 2)


class Before:
    """What was selected, active, chosen in the panel and looked at before a head was added.

    All by what renaming and undo leave as they are, so that it can be brought back a while later.
    """

    def __init__(self, context: bpy.types.Context) -> None:
        """Remember it."""
        scene, layer = context.scene, context.view_layer
        self._layer_name = layer.name
        self._selected_uids = {thing.session_uid for thing in layer.objects.selected}
        self._active_uid = _uid(layer.objects.active)
        # Merely reading the settings would store an empty group with the scene.
        self._has_settings = scene.is_property_set("wav2sem")
        self._target_uid = _uid(scene.wav2sem.target) if self._has_settings else None
        area = _area_to_look_in(context)
        self._area = area.as_pointer() if area is not None else 0
        self._view = _view(area) if area is not None else {}

    def bring_back(self, head: bpy.types.Object) -> None:
        """Remove the head, and what it had taken the place of returns; what a person chose since then stays."""
        if not head.users_scene:  # somebody has unlinked it, and chosen other things by then
            remove_head(head)
            return
        scene = head.users_scene[0]
        layer = scene.view_layers.get(self._layer_name) or scene.view_layers[0]
        was_active, was_target = layer.objects.active == head, scene.wav2sem.target == head
        was_alone = [thing for thing in layer.objects.selected if thing != head] == []
        # Before it goes: for a while the layer still has its place.
        there = {thing.session_uid: thing for thing in layer.objects}
        remove_head(head)
        if was_alone:
            for uid in self._selected_uids & there.keys():
                there[uid].select_set(True, view_layer=layer)
        if was_active:
            layer.objects.active = there.get(self._active_uid)
        if was_target and self._has_settings:
            everywhere = {thing.session_uid: thing for thing in bpy.data.objects}
            scene.wav2sem.target = everywhere.get(self._target_uid)
        elif was_target:
            scene.property_unset("wav2sem")
        for area in (area for window in bpy.context.window_manager.windows for area in window.screen.areas):
            if area.as_pointer() == self._area and area.type == "VIEW_3D":
                for name, value in self._view.items():
                    setattr(area.spaces.active.region_3d, name, value)


def add_demo_head(context: bpy.types.Context) -> bpy.types.Object:
    """Add the bundled head where nothing hides it, make it active, and choose it in the panel."""
    occupied = [
        (np.min(corners_83, axis=0), np.max(corners_83, axis=0))
        for corners_83 in (_world_box(thing) for thing in context.visible_objects if thing.type == "MESH")
    ]
    head = build_demo_head()
    head[DEMO_PROPERTY] = True
    context.view_layer.update()  # its size is not known before
    head.location = free_place(context.scene.cursor.location, Vector(head.dimensions), occupied)
    for thing in context.selected_objects:
        thing.select_set(False)
    head.select_set(True)
    context.view_layer.objects.active = head
    context.scene.wav2sem.target = head
    return head


def free_place(wanted: Vector, size: Vector, occupied: list[tuple[np.ndarray, np.ndarray]]) -> Vector:
    """The place next to `wanted`, towards +x, where a head of this size, standing in its middle, touches no box."""
    place, half = np.array(wanted, dtype=float), np.array([size.x / 2, size.y / 2, 0.0])
    high = np.array([half[0], half[1], size.z])
    for low_3, high_3 in sorted(occupied, key=lambda box: float(box[1][0])):
        if ((low_3 < place + high) & (high_3 > place - half)).all():
            place[0] = high_3[0] + CLEARANCE_M + half[0]
    return Vector(place)


def look_at(context: bpy.types.Context, head: bpy.types.Object) -> None:
    """Bring the head's face into the view that was clicked in, or into the screen's first one."""
    area = _area_to_look_in(context)
    if area is None:
        return
    space = area.spaces.active
    if space.local_view is not None:
        head.local_view_set(space, True)
    if space.region_3d.view_perspective == "CAMERA":
        space.region_3d.view_perspective = "PERSP"
    space.region_3d.view_rotation = FROM_THE_FRONT
    region = next(region for region in area.regions if region.type == "WINDOW")
    with context.temp_override(area=area, region=region):
        bpy.ops.view3d.view_selected()


def find_demo_head(scene: bpy.types.Scene) -> bpy.types.Object | None:
    """The bundled head that was added to this scene before, if it is still there."""
    return next((thing for thing in scene.objects if DEMO_PROPERTY in thing and thing.type == "MESH"), None)


def remove_head(head: bpy.types.Object) -> None:
    """Take a head away with everything that came with it."""
    mesh = head.data
    materials = [material for material in mesh.materials if material is not None]
    bpy.data.objects.remove(head)
    bpy.data.meshes.remove(mesh)
    for material in materials:
        if not material.users:
            bpy.data.materials.remove(material)


def blocked(context: bpy.types.Context) -> str:
    """Why no head can be added, or nothing."""
    if context.scene is None:
        return "There is no scene"
    if context.scene.library:
        return f'The scene "{context.scene.name}" is linked from another file'
    return "" if context.mode == "OBJECT" else "Return to Object Mode first"


def _area_to_look_in(context: bpy.types.Context) -> bpy.types.Area | None:
    views = [area for area in context.screen.areas if area.type == "VIEW_3D"] if context.screen is not None else []
    return context.area if context.area in views else next(iter(views), None)


def _view(area: bpy.types.Area) -> dict[str, Any]:
    view = area.spaces.active.region_3d
    return {
        "view_rotation": view.view_rotation.copy(),
        "view_location": view.view_location.copy(),
        "view_distance": view.view_distance,
        "view_perspective": view.view_perspective,
    }


def _uid(thing: bpy.types.Object | None) -> int | None:
    return thing.session_uid if thing is not None else None


def _world_box(thing: bpy.types.Object) -> np.ndarray:
    return np.array([thing.matrix_world @ Vector(corner) for corner in thing.bound_box])


class WAV2SEM_OT_add_demo_head(SaysWhyNot, bpy.types.Operator):
    """Add a head that can speak at once: it has teeth, a tongue, and shape keys with ARKit names"""

    bl_idname = "wav2sem.add_demo_head"
    bl_label = "Add Demo Head"

    @classmethod
    def why_not(cls, context: bpy.types.Context) -> str:
        """What is in the way."""
        return blocked(context)

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Add it and show it."""
        head = add_demo_head(context)
        look_at(context, head)
        self.tell({"INFO"}, f'"{head.name}" is ready; choose an audio file, then animate it')
        return {"FINISHED"}


class WAV2SEM_OT_self_test(SpeechJobOperator, bpy.types.Operator):
    """Add the demo head and let it speak a recording that comes with the add-on, to see and hear that all works"""

    bl_idname = "wav2sem.self_test"
    bl_label = "Speak the Demo"

    _started_s = 0.0
    _new_head_uid: int | None = None
    _before: Before | None = None

    @classmethod
    def why_not(cls, context: bpy.types.Context) -> str:
        """A scene needs nothing for it."""
        return running.why_wait() or blocked(context)

    def _fill_from_panel(self, context: bpy.types.Context) -> None:
        """Nothing comes from the panel: the demo head, added if it is not there, and the demo recording."""
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
        device = preferences.get(bpy.context).device
        return replace(super()._settings(), device=device, upper_face=UpperFaceSettings())

    def _failed(self, error: BaseException) -> set[str]:
        self._take_back()
        return super()._failed(error)

    def _end(self, context: bpy.types.Context, result: set[str]) -> set[str]:
        if result == {"CANCELLED"}:
            self._take_back()
        return super()._end(context, result)

    def _take_back(self) -> None:
        """A run that ends early leaves the scene as it was."""
        head = next((thing for thing in bpy.data.objects if thing.session_uid == self._new_head_uid), None)
        if head is not None and self._before is not None:
            self._before.bring_back(head)

    def _finished(self, outcome: Outcome, notes: list[str]) -> set[str]:
        self._new_head_uid = None
        self._prepare_playback(outcome)
        result = super()._finished(outcome, notes)
        if self._by_hand and not bpy.context.screen.is_animation_playing:
            bpy.ops.screen.animation_play()
        return result

    def _prepare_playback(self, outcome: Outcome) -> None:
        target = bpy.data.objects[outcome.object_name]
        scene = target.users_scene[0]  # whichever is looked at by now
        panel = scene.wav2sem
        panel.target, panel.start_frame = target, self.start_frame
        if self.filepath and not (self.sound or self.strip):
            panel.source, panel.filepath = "FILE", self.filepath
            add_sound(scene, self.filepath, self.start_frame)
        scene.frame_start = max(0, min(self.start_frame, outcome.first_scene_frame))
        scene.frame_end = outcome.first_scene_frame + outcome.n_scene_frames - 1
        scene.frame_set(scene.frame_start)

    def _summary(self, outcome: Outcome) -> str:
        action, seconds = bpy.data.actions[outcome.action_name], time.perf_counter() - self._started_s
        run = json.loads(action["wav2sem_settings"])
        engine = next((title for name, title, _ in ENGINES if name == run["engine"]), run["engine"])
        spoken_s = outcome.n_scene_frames / compat.frame_rate_hz(bpy.context.scene)
        return (
            f'It works: "{outcome.object_name}" speaks {spoken_s:.1f} s, made in {seconds:.1f} s by the model '
            f'"{action["wav2sem_model"]}" with {engine} on {run["device"].upper()}; press Space to play or stop'
        )


CLASSES = (WAV2SEM_OT_add_demo_head, WAV2SEM_OT_self_test)
