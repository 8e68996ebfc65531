# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo head as a Blender object, and a small stage that lights it for a portrait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Quaternion, Vector

from ...assets import DEMO_HEAD
from ...errors import Text
from .. import compat

Colour = tuple[float, float, float]
# name: (linear colour, roughness, coat weight)
LOOK: dict[str, tuple[Colour, float, float]] = {
    "skin": ((0.82, 0.435, 0.30), 0.52, 0.0),
    "lips": ((0.64, 0.17, 0.15), 0.38, 0.15),
    "mouth": ((0.28, 0.045, 0.045), 0.6, 0.0),
    "lash": ((0.018, 0.010, 0.008), 0.7, 0.0),
    "sclera": ((0.84, 0.82, 0.78), 0.18, 0.6),
    "iris": ((0.035, 0.18, 0.21), 0.25, 0.5),
    "limbus": ((0.012, 0.045, 0.055), 0.25, 0.5),
    "pupil": ((0.004, 0.004, 0.005), 0.2, 0.5),
    "catch_light": ((1.0, 1.0, 1.0), 0.3, 0.0),
    "teeth": ((0.92, 0.88, 0.80), 0.28, 0.3),
    "gum": ((0.50, 0.14, 0.13), 0.4, 0.2),
    "tongue": ((0.56, 0.15, 0.14), 0.45, 0.2),
    "brow": ((0.085, 0.030, 0.014), 0.75, 0.0),
    "hair": ((0.15, 0.046, 0.017), 0.58, 0.0),
    "jumper": ((0.80, 0.36, 0.055), 0.85, 0.0),
}
BACKDROP = (0.56, 0.73, 0.74)
BACKDROP_LIGHT = 0.42


def build_demo_head(collection: bpy.types.Collection | None = None) -> bpy.types.Object:
    """Build the demo head as one mesh object with the 52 ARKit shape keys.

    Units are metres, z up; the head looks along -y, its bust stands on z = 0, and `...Left` keys move the character's
    own left (+x).

    Args:
        collection: where to link the object; the scene's collection by default.

    Returns:
        The mesh object, named "Demo Head".
    """
    with np.load(DEMO_HEAD, allow_pickle=False) as file:
        data = {name: file[name] for name in file.files}
    mesh = bpy.data.meshes.new("Demo Head")
    fill_mesh(mesh, data)
    for name in data["material_names"]:
        mesh.materials.append(make_material(str(name)))
    head = bpy.data.objects.new("Demo Head", mesh)
    (collection or bpy.context.scene.collection).objects.link(head)
    add_shape_keys(head, data)
    smooth = head.modifiers.new("Subdivision", "SUBSURF")
    smooth.levels, smooth.render_levels = 1, 1
    return head


def fill_mesh(mesh: bpy.types.Mesh, data: dict[str, np.ndarray]) -> None:
    """Write vertices, quads, material slots and the tint attribute."""
    points, quads = data["points"], data["quads"].astype(np.int32)
    mesh.vertices.add(len(points))
    mesh.vertices.foreach_set("co", points.ravel())
    mesh.loops.add(quads.size)
    mesh.loops.foreach_set("vertex_index", quads.ravel())
    mesh.polygons.add(len(quads))
    mesh.polygons.foreach_set("loop_start", np.arange(0, quads.size, 4, dtype=np.int32))
    mesh.polygons.foreach_set("material_index", data["material"].astype(np.int32))
    mesh.polygons.foreach_set("use_smooth", np.ones(len(quads), dtype=bool))
    tint = mesh.attributes.new("tint", "FLOAT_COLOR", "POINT")
    colour = np.zeros((len(points), 4), dtype=np.float32)
    colour[:, :3] = data["tint"] / 255.0
    colour[:, 3] = 1.0
    tint.data.foreach_set("color", colour.ravel())
    mesh.update(calc_edges=True)


def add_shape_keys(head: bpy.types.Object, data: dict[str, np.ndarray]) -> None:
    """Add the basis and the 52 keys."""
    points, starts = data["points"], data["key_starts"]
    head.shape_key_add(name="Basis", from_mix=False)
    for index, name in enumerate(data["key_names"]):
        span = slice(int(starts[index]), int(starts[index + 1]))
        moved = points.copy()
        moved[data["key_vertices"][span]] += data["key_offsets"][span] * np.float32(data["key_unit_m"])
        key = head.shape_key_add(name=str(name), from_mix=False)
        key.data.foreach_set("co", moved.ravel())
        key.value = 0.0


def make_material(name: str) -> bpy.types.Material:
    """One material, readable in Workbench (viewport colour) and in EEVEE and Cycles (nodes)."""
    colour, roughness, coat = LOOK[name]
    material = bpy.data.materials.new(f"Demo {name.replace('_', ' ').title()}")
    material.diffuse_color = (*colour, 1.0)
    material.roughness = roughness
    if not material.node_tree:
        material.use_nodes = True
    shader = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    set_inputs(shader, {"Base Color": (*colour, 1.0), "Roughness": roughness, "Coat Weight": coat})
    if name == "catch_light":
        set_inputs(shader, {"Emission Color": (1.0, 1.0, 1.0, 1.0), "Emission Strength": 1.5})
    if name == "skin":
        set_inputs(shader, {"Subsurface Weight": 0.12, "Subsurface Scale": 0.01})
        add_tint(material, shader, colour, ((0, 0.55, (0.80, 0.25, 0.17)), (1, 0.55, (0.60, 0.26, 0.17))))
    if name == "iris":
        add_tint(material, shader, colour, ((2, 0.8, (0.20, 0.52, 0.50)),))
    if name in ("teeth", "tongue", "gum", "mouth"):
        # The mouth is a small dark cave; a touch of own light keeps it readable at any distance.
        set_inputs(shader, {"Emission Color": (*colour, 1.0), "Emission Strength": 0.25 if name == "teeth" else 0.10})
    return material


def set_inputs(node: bpy.types.Node, values: dict[str, Any]) -> None:
    """Set the inputs of a node by name."""
    for name, value in values.items():
        node.inputs[name].default_value = value


def add_tint(
    material: bpy.types.Material,
    shader: bpy.types.Node,
    colour: Colour,
    layers: tuple[tuple[int, float, Colour], ...],
) -> None:
    """Mix colours into the base colour: per layer a channel of the tint attribute, a strength and a colour."""
    nodes, links = material.node_tree.nodes, material.node_tree.links
    attribute = nodes.new("ShaderNodeAttribute")
    attribute.attribute_name = "tint"
    split = nodes.new("ShaderNodeSeparateColor")
    links.new(attribute.outputs["Color"], split.inputs[0])
    result: Any = None
    for channel, amount, target in layers:
        mix = nodes.new("ShaderNodeMix")
        mix.data_type = "RGBA"
        strength = nodes.new("ShaderNodeMath")
        strength.operation = "MULTIPLY"
        strength.inputs[1].default_value = amount
        links.new(split.outputs[channel], strength.inputs[0])
        links.new(strength.outputs[0], mix.inputs[0])
        if result is None:
            mix.inputs[6].default_value = (*colour, 1.0)
        else:
            links.new(result, mix.inputs[6])
        mix.inputs[7].default_value = (*target, 1.0)
        result = mix.outputs[2]
    links.new(result, shader.inputs["Base Color"])


def build_stage(scene: bpy.types.Scene) -> None:
    """Add a camera and lights for a head-and-shoulders portrait of the demo head, and set the background."""
    target = Vector((0.0, -0.02, 0.278))
    camera_data = bpy.data.cameras.new("Portrait Camera")
    camera_data.lens = 85.0
    camera_data.clip_start = 0.01
    camera = bpy.data.objects.new("Portrait Camera", camera_data)
    camera.location = (0.0, -0.98, 0.305)
    aim(camera, target)
    scene.collection.objects.link(camera)
    scene.camera = camera
    lights = (
        ("Key Light", (0.75, -0.95, 0.95), 14.0, 0.5, (1.0, 0.93, 0.85)),
        ("Fill Light", (-0.95, -0.75, 0.35), 3.4, 0.9, (0.84, 0.90, 1.0)),
        ("Rim Light", (-0.55, 0.85, 0.75), 14.0, 0.4, (1.0, 0.90, 0.78)),
    )
    for name, location, energy_w, size_m, colour in lights:
        data = bpy.data.lights.new(name, "AREA")
        data.energy, data.size, data.color = energy_w, size_m, colour
        light = bpy.data.objects.new(name, data)
        light.location = location
        aim(light, target)
        scene.collection.objects.link(light)
    set_backdrop(scene)


def aim(thing: bpy.types.Object, target: Vector) -> None:
    """Turn a camera or a lamp towards a point."""
    thing.rotation_euler = (target - Vector(thing.location)).to_track_quat("-Z", "Y").to_euler()


def set_backdrop(scene: bpy.types.Scene) -> None:
    """A plain light background for every engine, with true-to-palette colours."""
    world = bpy.data.worlds.new("Portrait Backdrop")
    world.color = BACKDROP
    if not world.node_tree:
        world.use_nodes = True
    nodes, links = world.node_tree.nodes, world.node_tree.links
    background = next(node for node in nodes if node.type == "BACKGROUND")
    set_inputs(background, {"Color": (*BACKDROP, 1.0)})
    # The camera sees the colour itself; as a light it is dimmer, so that the lamps shape the face.
    path, strength = nodes.new("ShaderNodeLightPath"), nodes.new("ShaderNodeMath")
    strength.operation = "MULTIPLY_ADD"
    strength.inputs[1].default_value, strength.inputs[2].default_value = 1.0 - BACKDROP_LIGHT, BACKDROP_LIGHT
    links.new(path.outputs["Is Camera Ray"], strength.inputs[0])
    links.new(strength.outputs[0], background.inputs["Strength"])
    scene.world = world
    scene.view_settings.view_transform = "Standard"
    shading = scene.display.shading
    shading.light, shading.color_type = "STUDIO", "MATERIAL"
    if any(light.name == "paint.sl" for light in bpy.context.preferences.studio_lights):
        shading.studio_light = "paint.sl"  # the brightest of Blender's own, kind to skin
    shading.show_specular_highlight = True


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
        return Text('The scene "{scene}" is linked from another file', scene=context.scene.name)
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


def add_sound(scene: bpy.types.Scene, speech: Path | str, first_frame: int) -> None:
    """Put the speech into the scene's sequencer, on a channel of its own, so that it plays and goes into the film."""
    strips = compat.sequencer_strips(scene.sequence_editor_create())
    sounds = [strip for strip in strips if strip.type == "SOUND" and strip.sound is not None]
    if any(strip.sound.filepath == str(speech) and compat.strip_times(strip).start == first_frame for strip in sounds):
        return
    channel = max((strip.channel for strip in strips), default=0) + 1
    strip = strips.new_sound("Speech", str(speech), channel=channel, frame_start=first_frame)
    strip.sound.pack()
    strip.show_waveform = True
    scene.sync_mode = "AUDIO_SYNC"
