# SPDX-License-Identifier: GPL-3.0-or-later
"""Characters whose rig moves the face: by properties and bones, by bones in the skin, by a control board.

All are built from the demo head. Each builder adds its character to the open scene, makes the face active, and returns
it.
Shapes: T frames, V vertices, P pairs of lip points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import radians

import bpy
import numpy as np

from tests.unit.test_rig_names import DAZ_81, METAHUMAN_DNA
from wav2sem_blender.pipeline.rig_controls import BOARDS

from . import characters
from .characters import arkit_offsets, build, demo

HINGE = np.array((0.0, 0.0, 0.265))
_TURN = radians(17)
# How far a bone of the lips reaches.
_REACH_M = 0.012


def add_rig(name: str, bones: Mapping[str, tuple[tuple[float, ...], tuple[float, ...], str]]) -> bpy.types.Object:
    """An armature; each bone has its head, its tail and its parent's name."""
    data = bpy.data.armatures.new(name)
    rig = bpy.data.objects.new(name, data)
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for bone, (head, tail, parent) in bones.items():
        made = data.edit_bones.new(bone)
        made.head, made.tail = head, tail
        made.parent = data.edit_bones.get(parent)
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


def bind(head: bpy.types.Object, rig: bpy.types.Object, weights: Mapping[str, np.ndarray]) -> None:
    """Let the bones deform the head by weights (V,); "base" has what is left."""
    left_V = 1 - np.sum(list(weights.values()), axis=0)
    for bone, weights_V in {**weights, "base": left_V.clip(0)}.items():
        group = head.vertex_groups.new(name=bone)
        for vertex in np.flatnonzero(weights_V > 1e-4):
            group.add([int(vertex)], float(weights_V[vertex]), "REPLACE")
    head.modifiers.new("Armature", "ARMATURE").object = rig
    head.parent = rig
    bpy.context.view_layer.objects.active = head


def jaw_weights() -> np.ndarray:
    """How far each vertex goes with the jaw (V,), so that a turn by 17 degrees moves it about as far as jawOpen."""
    from_hinge_V3 = (demo()["points"] - HINGE) * (0, 1, 1)
    moved_V = np.linalg.norm(arkit_offsets()["jawOpen"], axis=1)
    weights_V: np.ndarray = (moved_V / (_TURN * np.linalg.norm(from_hinge_V3, axis=1).clip(1e-3))).clip(0, 1)
    return weights_V


def _read(driver: bpy.types.Driver, rig: bpy.types.ID, source: str, expression: str) -> None:
    driver.expression = expression
    variable = driver.variables.new()
    variable.targets[0].id_type = "ARMATURE" if isinstance(rig, bpy.types.Armature) else "OBJECT"
    variable.targets[0].id = rig
    variable.targets[0].data_path = source


def daz_81() -> bpy.types.Object:
    """DAZ Genesis 8.1: properties of the rig drive shape keys through the armature's data, and one turns the jaw."""
    names = [name for name in DAZ_81 if "jnt" not in name]
    head = build("Genesis 8.1", names)
    bones = {"base": ((0, 0, 0), (0, 0, 0.1), ""), "lowerJaw": (HINGE, (0, -0.08, 0.21), "base")}
    rig = add_rig("Genesis 8.1 Rig", bones)
    for name in names:
        rig[name] = 0.0
        rig.id_properties_ui(name).update(min=-1.0, max=1.0)
        final = f"{name}(fin)"
        rig.data[final] = 0.0
        _read(rig.data.driver_add(f'["{final}"]').driver, rig, f'["{name}"]', "var")
        block = head.data.shape_keys.key_blocks[name]
        _read(block.driver_add("value").driver, rig.data, f'["{final}"]', "var")
    rig["facs_jnt_JawOpen"] = 0.0
    rig.id_properties_ui("facs_jnt_JawOpen").update(min=0.0, max=1.0)
    rig.pose.bones["lowerJaw"].rotation_mode = "XYZ"
    drive_jaw(rig, "lowerJaw", '["facs_jnt_JawOpen"]')
    bind(head, rig, {"lowerJaw": jaw_weights()})
    return head


def drive_jaw(rig: bpy.types.Object, bone: str, source: str) -> None:
    """A driver that turns a jaw whose bone points to the chin."""
    turn = rig.pose.bones[bone].driver_add("rotation_euler", 0).driver
    _read(turn, rig, source, f"{-_TURN:.6f}*var" if _opens_down(rig, bone) < 0 else f"{_TURN:.6f}*var")


def _opens_down(rig: bpy.types.Object, bone: str) -> float:
    """Whether a positive turn about the bone's x axis moves its tail down (> 0) or up."""
    axes = rig.data.bones[bone].matrix_local.to_3x3()
    return float(-(axes.col[0].cross(axes.col[1])).z)


def rigify() -> bpy.types.Object:
    """A Rigify-like face: no shape keys; bones in the skin turn the jaw and pull the lips."""
    head = build("Rigify", [])
    head.shape_key_clear()
    lips_P2 = demo()["points"][demo()["lip_pairs"].astype(int)]
    left, right = lips_P2[lips_P2[:, 0, 0].argmax()].mean(0), lips_P2[lips_P2[:, 0, 0].argmin()].mean(0)
    middle_2 = lips_P2[np.abs(lips_P2[:, 0, 0]).argmin()]
    quarter_2 = lips_P2[np.abs(lips_P2[:, 0, 0] - left[0] / 2).argmin()]
    mirrored = np.array((-1, 1, 1))
    places = {
        "lips.L": left,
        "lips.R": right,
        "lip.T": middle_2[0],
        "lip.B": middle_2[1],
        "lip.T.L.001": quarter_2[0],
        "lip.B.L.001": quarter_2[1],
        "lip.T.R.001": quarter_2[0] * mirrored,
        "lip.B.R.001": quarter_2[1] * mirrored,
    }
    bones = {"base": ((0, 0, 0), (0, 0, 0.1), ""), "jaw_master": (HINGE, (0, -0.08, 0.21), "base")}
    for name, place in places.items():
        bones[name] = (place, place + (0, -0.01, 0), "jaw_master" if ".B" in name else "base")
    rig = add_rig("Rigify Rig", bones)
    jaw_V = jaw_weights()
    near = {name: _nearness(place) for name, place in places.items()}
    total_V = np.sum(list(near.values()), axis=0).clip(1)
    # What moves with the jaw hangs on the lower lip's bones, whose parent it is; the corners stay.
    shares = {name: near_V / total_V * (jaw_V if ".B" in name else 1 - jaw_V) for name, near_V in near.items()}
    corners = {name: near[name] / total_V for name in ("lips.L", "lips.R")}
    shares |= corners
    lower_V = np.sum([shares[name] for name in shares if ".B" in name], axis=0)
    held_V = np.sum(list(corners.values()), axis=0)
    shares = {name: share_V if name in corners else share_V * (1 - held_V) for name, share_V in shares.items()}
    bind(head, rig, {"jaw_master": ((jaw_V - lower_V) * (1 - held_V)).clip(0), **shares})
    return head


def _nearness(place: np.ndarray) -> np.ndarray:
    """1 at a bone of the lips, less around it (V,)."""
    nearness_V: np.ndarray = np.exp(-((np.linalg.norm(demo()["points"] - place, axis=1) / _REACH_M) ** 2))
    return nearness_V


def metahuman_board() -> bpy.types.Object:
    """A MetaHuman-like head: bones of a board drive keys whose names say nothing; only the bones' names are known."""
    head = build("MetaHuman", METAHUMAN_DNA)
    board = BOARDS[0]
    slides = {slide.bone for slides in board.channels.values() for slide in slides}
    bones = {"base": ((0, 0, 0), (0, 0, 0.1), "")}
    rig = add_rig("face_gui", {**bones, **{name: ((0, 0, 0), (0, 0.1, 0), "base") for name in sorted(slides)}})
    for number, row in enumerate(characters.guess_key_map(METAHUMAN_DNA).rows):
        block = head.data.shape_keys.key_blocks[row.key]
        for slide in board.channels[row.channel]:
            if len(board.channels[row.channel]) > 1 and not _same_quarter(slide.bone, row.key):
                continue
            driver = block.driver_add("value").driver
            driver.expression = f"max(0, {slide.at_one:g} * var)"
            variable = driver.variables.new()
            variable.type = "TRANSFORMS"
            target = variable.targets[0]
            target.id, target.bone_target = rig, slide.bone
            target.transform_type, target.transform_space = f"LOC_{'XYZ'[slide.axis]}", "LOCAL_SPACE"
        block.name = f"shape_{number:02d}"
    head.parent = rig
    bpy.context.view_layer.objects.active = head
    return head


def _same_quarter(bone: str, key: str) -> bool:
    """Whether `CTRL_L_mouth_purseU` and `mouth_lipsPurse_UL` name the same quarter of the mouth."""
    return key.endswith(f"{bone[-1]}{bone[5]}")


KINDS: dict[str, Callable[[], bpy.types.Object]] = {
    "DAZ Genesis 8.1, by its rig": daz_81,
    "Rigify face bones": rigify,
    "MetaHuman control board": metahuman_board,
}


def lips_as_posed(head: bpy.types.Object, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest gap between the lips, and how much wider they are than at rest, as Blender shows them (T,), in mm."""
    pairs_P2 = demo()["lip_pairs"].astype(int)
    gaps, widths = [], []
    for frame in range(first, last + 1):
        bpy.context.scene.frame_set(frame)
        shown = head.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.vertices
        points_V3 = np.empty(3 * len(shown), np.float32)
        shown.foreach_get("co", points_V3)
        lips_P23 = points_V3.reshape(-1, 3)[pairs_P2]
        rest_P23 = demo()["points"][pairs_P2]
        gaps.append(((lips_P23[:, 0, 2] - lips_P23[:, 1, 2]) - (rest_P23[:, 0, 2] - rest_P23[:, 1, 2])).max())
        widths.append(np.ptp(lips_P23[..., 0]) - np.ptp(rest_P23[..., 0]))
    return 1000 * np.array(gaps).clip(0), 1000 * np.array(widths)
