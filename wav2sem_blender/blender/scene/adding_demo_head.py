# SPDX-License-Identifier: GPL-3.0-or-later
"""Adds the demo head to the user's scene beside what is there, and removes it again as if it had never been added."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
from mathutils import Quaternion, Vector

from ...errors import Text
from .demo_head import build_demo_head

DEMO_PROPERTY = "wav2sem_demo_head"  # custom property of an object: it is the demo head
CLEARANCE_M = 1.25  # distance from what stood in the head's place, so that the view does not show it
FROM_THE_FRONT = Quaternion((1.0, 0.0, 0.0), np.pi / 2)


class Before:
    """What was selected, active, chosen in the panel and in view before a head was added.

    Objects are identified by session_uid, which survives rename and undo.
    """

    def __init__(self, context: bpy.types.Context) -> None:
        """Read it from the context."""
        scene, layer = context.scene, context.view_layer
        self._layer_name = layer.name
        self._selected_uids = {thing.session_uid for thing in layer.objects.selected}
        self._active_uid = _uid(layer.objects.active)
        # Reading scene.wav2sem would already store an empty group in the scene.
        self._has_settings = scene.is_property_set("wav2sem")
        self._target_uid = _uid(scene.wav2sem.target) if self._has_settings else None
        area = _area_to_look_in(context)
        self._area = area.as_pointer() if area is not None else 0
        self._view = _view(area) if area is not None else {}

    def bring_back(self, head: bpy.types.Object) -> None:
        """Remove the head and restore what was before it, except where the user has chosen something else since."""
        if not head.users_scene:  # the user has unlinked it and chosen other things
            remove_head(head)
            return
        scene = head.users_scene[0]
        layer = scene.view_layers.get(self._layer_name) or scene.view_layers[0]
        was_active, was_target = layer.objects.active == head, scene.wav2sem.target == head
        was_alone = [thing for thing in layer.objects.selected if thing != head] == []
        # Read before the head is removed: for a while the layer still lists a removed object.
        there = {thing.session_uid: thing for thing in layer.objects}
        remove_head(head)
        if was_alone:
            for uid in self._selected_uids & there.keys():
                there[uid].select_set(True, view_layer=layer)
        if was_active:
            layer.objects.active = there.get(self._active_uid or 0)
        if was_target and self._has_settings:
            everywhere = {thing.session_uid: thing for thing in bpy.data.objects}
            scene.wav2sem.target = everywhere.get(self._target_uid or 0)
        elif was_target:
            scene.property_unset("wav2sem")
        for area in (area for window in bpy.context.window_manager.windows for area in window.screen.areas):
            if area.as_pointer() == self._area and area.type == "VIEW_3D":
                for name, value in self._view.items():
                    setattr(_space(area).region_3d, name, value)


def add_demo_head(context: bpy.types.Context) -> bpy.types.Object:
    """Add the demo head where nothing hides it, make it active, and choose it in the panel."""
    occupied = [
        (np.min(corners_83, axis=0), np.max(corners_83, axis=0))
        for corners_83 in (_world_box(thing) for thing in context.visible_objects if thing.type == "MESH")
    ]
    head = build_demo_head()
    head[DEMO_PROPERTY] = True
    context.view_layer.update()  # computes its dimensions
    head.location = free_place(context.scene.cursor.location, head.dimensions, occupied)
    for thing in context.selected_objects:
        thing.select_set(False)
    head.select_set(True)
    context.view_layer.objects.active = head
    context.scene.wav2sem.target = head
    return head


def free_place(wanted: Vector, size: Vector, occupied: list[tuple[np.ndarray, np.ndarray]]) -> Vector:
    """The place at `wanted`, or beside it in +x, where a head of this size, centred there, touches no box."""
    place, half = np.array(wanted, dtype=float), np.array([size.x / 2, size.y / 2, 0.0])
    high = np.array([half[0], half[1], size.z])
    for low_3, high_3 in sorted(occupied, key=lambda box: float(box[1][0])):
        if ((low_3 < place + high) & (high_3 > place - half)).all():
            place[0] = high_3[0] + CLEARANCE_M + half[0]
    return Vector(place.tolist())


def look_at(context: bpy.types.Context, head: bpy.types.Object) -> None:
    """Show the head from the front in the 3D view that was clicked in, or in the screen's first one."""
    area = _area_to_look_in(context)
    if area is None:
        return
    space = _space(area)
    if space.local_view is not None:
        head.local_view_set(space, True)
    if space.region_3d.view_perspective == "CAMERA":
        space.region_3d.view_perspective = "PERSP"
    space.region_3d.view_rotation = FROM_THE_FRONT
    region = next(region for region in area.regions if region.type == "WINDOW")
    with context.temp_override(area=area, region=region):
        bpy.ops.view3d.view_selected()


def find_demo_head(scene: bpy.types.Scene) -> bpy.types.Object | None:
    """The demo head in this scene, or None."""
    return next((thing for thing in scene.objects if DEMO_PROPERTY in thing and thing.type == "MESH"), None)


def remove_head(head: bpy.types.Object) -> None:
    """Remove a head with its mesh and materials."""
    mesh = head.data
    materials = [material for material in mesh.materials if material is not None]
    bpy.data.objects.remove(head)
    bpy.data.meshes.remove(mesh)
    for material in materials:
        if not material.users:
            bpy.data.materials.remove(material)


def adding_blocked(context: bpy.types.Context) -> str:
    """Why no head can be added; empty if one can."""
    if context.scene is None:
        return "There is no scene"
    if context.scene.library:
        return Text('The scene "{scene}" is linked from another file', scene=context.scene.name)
    return "" if context.mode == "OBJECT" else "Return to Object Mode first"


def _area_to_look_in(context: bpy.types.Context) -> bpy.types.Area | None:
    views = [area for area in context.screen.areas if area.type == "VIEW_3D"] if context.screen is not None else []
    return context.area if context.area in views else next(iter(views), None)


def _space(area: bpy.types.Area) -> Any:
    return area.spaces.active


def _view(area: bpy.types.Area) -> dict[str, Any]:
    view = _space(area).region_3d
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
