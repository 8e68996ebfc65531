# SPDX-License-Identifier: GPL-3.0-or-later
"""Faces that need preparation: keys for any head, a corrected mapping, a jaw bone."""

from __future__ import annotations

from typing import Any

import bpy
import scenarios_result as results
import stage
from checks import Figures, Scenario, heard, snapshot, unchanged
from harness import Gui, Steps
from stalls import stays_alive, watch_click, watch_redraws

PLACE, CREATE = "wav2sem.place_landmarks", "wav2sem.create_speech_keys"
DRIVE = "wav2sem.drive_jaw_bone"
GAIN = "wav2sem_mapping[0].gain"
# Poses of the created keys, seen from the front.
POSES = {
    "open": {"jawOpen": 0.8},
    "wide": {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "jawOpen": 0.3},
    "round": {"mouthPucker": 1.0},
    "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "aside": {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0, "browInnerUp": 1.0},
}


def any_head(gui: Gui) -> Steps[Figures]:
    """On a head without keys, one click places the landmarks and another creates the keys; undo removes them.

    The interface stays responsive meanwhile, and Esc leaves everything as it was.
    """
    yield from stage.add_head(gui)
    _remove_keys()
    yield from _push(gui, "Remove Keys")
    yield from gui.picture("head_without_keys")
    yield from results._press(gui, PLACE)
    yield from gui.until(lambda: len(stage.head().children) == 10, "ten landmarks", 240)
    yield from gui.picture("landmarks")
    before, already = snapshot(), len(gui.reports())
    place = yield from results._place(gui, CREATE)
    yield from gui.click(place)
    yield from gui.move(gui.middle_of_view())
    yield from gui.until(stage.running, "the job", 30)
    yield from gui.picture("keys_being_made")
    assert stage.running(), "the keys are made before there is a picture"
    yield from gui.key("ESC")
    yield from gui.until(lambda: not stage.running(), "the end", 5)
    heard(gui, "Cancelled; nothing was changed", already)
    unchanged(before)
    redraws = yield from watch_redraws(gui)
    assert (yield from gui._control_at(place)) == CREATE
    watch = yield from watch_click(
        gui, place, lambda: stage.head().data.shape_keys is not None and not stage.running(), 240
    )
    said = heard(gui, "keys for mouth, lids and brows", already)
    yield from gui.picture("keys_made")
    for name, pose in POSES.items():
        keys = stage.head().data.shape_keys.key_blocks
        for key in keys[1:]:
            key.value = pose.get(key.name, 0.0)
        missing = set(pose) - set(keys.keys())
        assert not missing, f"no keys {sorted(missing)} were made"
        yield 0.3
        yield from gui.picture(f"made_{name}")
    yield from gui.key("Z", ctrl=True)
    yield 0.5
    unchanged(before)
    return {"said": said, **stays_alive(watch, redraws)}


def key_mapping(gui: Gui) -> Steps[Figures]:
    """The table is filled from the names, a gain corrected, and the mapping saved, cleared and loaded again."""
    yield from stage.add_head(gui)
    # The mouse meets this one of the three buttons in the row on its way down.
    yield from open_panel(gui, "wav2sem.save_mapping")
    yield from gui.picture("key_mapping_empty")
    yield from results._press(gui, "wav2sem.guess_mapping")
    yield from gui.until(lambda: len(stage.head().wav2sem_mapping), "the table's rows", 30)
    yield from gui.write("0.5", (yield from gui.find(GAIN)))
    yield from gui.move(gui.middle_of_view())
    row = stage.head().wav2sem_mapping[0]
    assert abs(row.gain - 0.5) < 1e-6, f"the first row's gain is {row.gain} after typing 0.5"
    yield from gui.picture("key_mapping_edited")
    file, n_rows = stage.audio_folder() / "mapping.json", len(stage.head().wav2sem_mapping)
    with gui.override():
        bpy.ops.wav2sem.save_mapping(filepath=str(file))
    yield from results._press(gui, "wav2sem.clear_mapping")
    yield from gui.until(lambda: not len(stage.head().wav2sem_mapping), "the empty table", 30)
    with gui.override():
        bpy.ops.wav2sem.load_mapping(filepath=str(file))
    yield 0.3
    rows = stage.head().wav2sem_mapping
    assert (len(rows), rows[0].gain) == (n_rows, 0.5), f"{len(rows)} rows were loaded, the first with {rows[0].gain}"
    return {"rows": n_rows}


def jaw_bone(gui: Gui) -> Steps[Figures]:
    """A click and Enter add the jaw bone's driver, the key turns the bone, and undo removes the driver."""
    yield from stage.add_head(gui)
    rig = _add_rig(gui)
    yield from _push(gui, "Rig")
    yield from open_panel(gui, DRIVE)
    before = snapshot()
    yield from gui.picture("jaw_bone")
    yield from results._press(gui, DRIVE)
    yield 0.5
    yield from gui.picture("jaw_bone_asks")
    yield from gui.key("RET")
    yield from gui.until(lambda: rig().animation_data is not None, "the driver", 30)
    stage.head().data.shape_keys.key_blocks["jawOpen"].value = 1.0
    yield 0.3
    posed = rig().evaluated_get(gui.window.view_layer.depsgraph).pose.bones["jaw"]
    lowered = (posed.bone.matrix_local.to_quaternion().inverted() @ posed.matrix.to_quaternion()).angle
    assert lowered > 0.2, f"with jawOpen at 1 the bone is turned by {lowered:.2f} radians"
    yield from gui.picture("jaw_bone_driven")
    stage.head().data.shape_keys.key_blocks["jawOpen"].value = 0.0
    yield from gui.key("Z", ctrl=True)
    yield 0.3
    unchanged(before)
    return {"degrees": round(57.3 * lowered, 1)}


def open_panel(gui: Gui, wanted: str, below: str = "wav2sem.target") -> Steps[None]:
    """Open the closed panel with the control `wanted` by clicking headers below another control."""
    x, top = yield from gui.find(below)
    for y in range(top - 24, top - 140, -10):
        yield from gui.click((gui.region("UI").x + 60, y))
        yield 0.5
        if wanted in (yield from gui.controls(wanted=wanted, top=y)):
            return
        yield from gui.click((gui.region("UI").x + 60, y))
        yield 0.5
    raise AssertionError(f"no panel below {below} shows {wanted}")


def _push(gui: Gui, message: str) -> Steps[None]:
    with gui.override():
        bpy.ops.ed.undo_push(message=message)
    yield 0.3


def _remove_keys() -> None:
    head = stage.head()
    head.shape_key_clear()
    head.data.update()


def _add_rig(gui: Gui) -> Any:
    """Add an armature with a jaw bone at the head's hinge; returns a function that finds it again."""
    data = bpy.data.armatures.new("Rig")
    made = bpy.data.objects.new("Rig", data)
    bpy.context.scene.collection.objects.link(made)
    layer = gui.window.view_layer
    layer.objects.active = made
    with gui.override():
        bpy.ops.object.mode_set(mode="EDIT")
        bone = data.edit_bones.new("jaw")
        bone.head, bone.tail = (0.0, 0.0, 0.27), (0.0, -0.09, 0.2)
        bpy.ops.object.mode_set(mode="OBJECT")
    made.show_in_front = True
    stage.head().modifiers.new("Armature", "ARMATURE").object = made
    layer.objects.active = stage.head()
    return lambda: bpy.data.objects["Rig"]


ALL: tuple[Scenario, ...] = (any_head, key_mapping, jaw_bone)
