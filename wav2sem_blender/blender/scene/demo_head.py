# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the demo head as a Blender object, and a stage that lights it for a portrait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from ...assets import DEMO_HEAD
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
    smooth: Any = head.modifiers.new("Subdivision", "SUBSURF")
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
    tint: Any = mesh.attributes.new("tint", "FLOAT_COLOR", "POINT")
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
    """Make a material with a viewport colour for Workbench and nodes for EEVEE and Cycles."""
    colour, roughness, coat = LOOK[name]
    material = bpy.data.materials.new(f"Demo {name.replace('_', ' ').title()}")
    material.diffuse_color = (*colour, 1.0)
    material.roughness = roughness
    if not material.node_tree:
        material.use_nodes = True
    tree: Any = material.node_tree
    shader = next(node for node in tree.nodes if node.type == "BSDF_PRINCIPLED")
    set_inputs(shader, {"Base Color": (*colour, 1.0), "Roughness": roughness, "Coat Weight": coat})
    if name == "catch_light":
        set_inputs(shader, {"Emission Color": (1.0, 1.0, 1.0, 1.0), "Emission Strength": 1.5})
    if name == "skin":
        set_inputs(shader, {"Subsurface Weight": 0.12, "Subsurface Scale": 0.01})
        add_tint(material, shader, colour, ((0, 0.55, (0.80, 0.25, 0.17)), (1, 0.55, (0.60, 0.26, 0.17))))
    if name == "iris":
        add_tint(material, shader, colour, ((2, 0.8, (0.20, 0.52, 0.50)),))
    if name in ("teeth", "tongue", "gum", "mouth"):
        # A little emission keeps the dark inside of the mouth readable at any distance.
        set_inputs(shader, {"Emission Color": (*colour, 1.0), "Emission Strength": 0.25 if name == "teeth" else 0.10})
    return material


def set_inputs(node: Any, values: dict[str, Any]) -> None:
    """Set the inputs of a node by name."""
    for name, value in values.items():
        node.inputs[name].default_value = value


def add_tint(
    material: bpy.types.Material,
    shader: bpy.types.Node,
    colour: Colour,
    layers: tuple[tuple[int, float, Colour], ...],
) -> None:
    """Mix colours into the base colour. A layer is a channel of the tint attribute, a strength and a colour."""
    tree: Any = material.node_tree
    nodes, links = tree.nodes, tree.links
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
        data: Any = bpy.data.lights.new(name, "AREA")
        data.energy, data.size, data.color = energy_w, size_m, colour
        light = bpy.data.objects.new(name, data)
        light.location = location
        aim(light, target)
        scene.collection.objects.link(light)
    set_backdrop(scene)


def aim(thing: bpy.types.Object, target: Vector) -> None:
    """Turn a camera or a lamp towards a point."""
    thing.rotation_euler = (target - thing.location).to_track_quat("-Z", "Y").to_euler()


def set_backdrop(scene: bpy.types.Scene) -> None:
    """Set a plain light background for every render engine, and a view transform that keeps its colours."""
    world = bpy.data.worlds.new("Portrait Backdrop")
    world.color = BACKDROP
    if not world.node_tree:
        world.use_nodes = True
    tree: Any = world.node_tree
    nodes, links = tree.nodes, tree.links
    background = next(node for node in nodes if node.type == "BACKGROUND")
    set_inputs(background, {"Color": (*BACKDROP, 1.0)})
    # The camera sees the full colour. As a light source the background is dimmer, so that the lamps shape the face.
    path, strength = nodes.new("ShaderNodeLightPath"), nodes.new("ShaderNodeMath")
    strength.operation = "MULTIPLY_ADD"
    strength.inputs[1].default_value, strength.inputs[2].default_value = 1.0 - BACKDROP_LIGHT, BACKDROP_LIGHT
    links.new(path.outputs["Is Camera Ray"], strength.inputs[0])
    links.new(strength.outputs[0], background.inputs["Strength"])
    scene.world = world
    stage: Any = scene
    stage.view_settings.view_transform = "Standard"
    shading = stage.display.shading
    shading.light, shading.color_type = "STUDIO", "MATERIAL"
    if any(light.name == "paint.sl" for light in bpy.context.preferences.studio_lights):
        shading.studio_light = "paint.sl"  # the brightest of Blender's own
    shading.show_specular_highlight = True


def add_sound(scene: bpy.types.Scene, speech: Path | str, first_frame: int) -> None:
    """Add the speech to the scene's sequencer, on a free channel, unless it is there already."""
    strips = compat.sequencer_strips(scene.sequence_editor_create())
    sounds = [strip for strip in strips if strip.type == "SOUND" and strip.sound is not None]
    if any(strip.sound.filepath == str(speech) and compat.strip_times(strip).start == first_frame for strip in sounds):
        return
    channel = max((strip.channel for strip in strips), default=0) + 1
    strip = strips.new_sound("Speech", str(speech), channel=channel, frame_start=first_frame)
    strip.sound.pack()
    strip.show_waveform = True
    scene.sync_mode = "AUDIO_SYNC"
