# SPDX-License-Identifier: GPL-3.0-or-later
"""A newcomer's two buttons: add a head, and make it speak with one click; a failure leaves nothing behind."""

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs Blender as a module (pip install bpy)")

from mathutils import Vector  # noqa: E402

from wav2sem_blender.assets import DEMO_SPEECH  # noqa: E402
from wav2sem_blender.blender import compat  # noqa: E402
from wav2sem_blender.blender.scene import adding_demo_head  # noqa: E402

from . import rna_dump  # noqa: E402, TID252

NAMES = ("objects", "meshes", "materials", "shape_keys", "actions", "sounds")


def names():
    return {kind: sorted(getattr(bpy.data, kind).keys()) for kind in NAMES}


def box(thing):
    corners_83 = np.array([thing.matrix_world @ Vector(corner) for corner in thing.bound_box])
    return corners_83.min(0), corners_83.max(0)


def strips():
    return [strip for strip in compat.sequencer_strips(bpy.context.scene.sequence_editor) if strip.type == "SOUND"]


def test_the_head_stands_at_the_cursor_ready_to_speak():
    bpy.context.scene.cursor.location = (1, 2, 3)
    assert bpy.ops.wav2sem.add_demo_head() == {"FINISHED"}
    head = bpy.context.view_layer.objects.active
    assert tuple(head.location) == (1, 2, 3)
    assert head.select_get() and bpy.context.scene.wav2sem.target == head
    assert "jawOpen" in head.data.shape_keys.key_blocks


def test_no_cube_hides_the_head():
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    for _ in range(2):
        assert bpy.ops.wav2sem.add_demo_head() == {"FINISHED"}
    bpy.context.view_layer.update()
    heads = [thing for thing in bpy.context.scene.objects if thing != cube]
    boxes = sorted((box(thing) for thing in (cube, *heads)), key=lambda pair: pair[0][0])
    assert len(boxes) == 3
    for (_, left), (right, _) in zip(boxes, boxes[1:], strict=False):
        assert right[0] - left[0] == pytest.approx(adding_demo_head.CLEARANCE_M, abs=0.02)
    assert not cube.select_get()


def test_in_edit_mode_the_buttons_give_the_reason():
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.mode_set(mode="EDIT")
    for operator in (bpy.ops.wav2sem.add_demo_head, bpy.ops.wav2sem.self_test):
        with pytest.raises(RuntimeError, match="Return to Object Mode first"):
            operator()


def test_a_failed_run_takes_its_head_back(fake_worker):
    bpy.ops.mesh.primitive_cube_add()
    before = names()
    fail()
    assert names() == before
    # A head that was there before stays.
    assert bpy.ops.wav2sem.add_demo_head() == {"FINISHED"}
    before = names()
    fail()
    assert names() == before


def test_what_was_selected_and_chosen_comes_back(fake_worker):
    """A cancelled run ends as a failed one does; tests/gui/scenarios_first_start.py cancels one."""
    for _ in range(3):
        bpy.ops.mesh.primitive_cube_add()
    one, two, three = bpy.context.scene.objects
    for thing, is_selected in ((one, True), (two, False), (three, True)):
        thing.select_set(is_selected)
    bpy.context.view_layer.objects.active = two
    fail()
    assert [thing.select_get() for thing in (one, two, three)] == [True, False, True]
    assert bpy.context.view_layer.objects.active == two
    assert not bpy.context.scene.is_property_set("wav2sem")
    bpy.context.scene.wav2sem.target = three
    # Saved bytes hold addresses of a layer's parts, which change with the head.
    before = rna_dump.dump()
    fail()
    assert bpy.context.scene.wav2sem.target == three and rna_dump.dump() == before


def test_what_was_selected_since_then_stays():
    for _ in range(2):
        bpy.ops.mesh.primitive_cube_add()
    one, two = bpy.context.scene.objects
    before = adding_demo_head.Before(bpy.context)
    head = adding_demo_head.add_demo_head(bpy.context)
    one.select_set(True)
    bpy.context.view_layer.objects.active = one
    bpy.context.scene.wav2sem.target = None
    before.bring_back(head)
    assert (one.select_get(), two.select_get()) == (True, False)
    assert bpy.context.view_layer.objects.active == one and bpy.context.scene.wav2sem.target is None


def test_what_was_active_may_be_gone():
    bpy.ops.mesh.primitive_cube_add()
    bpy.context.scene.wav2sem.target = bpy.context.object
    before = adding_demo_head.Before(bpy.context)
    head = adding_demo_head.add_demo_head(bpy.context)
    bpy.data.objects.remove(bpy.context.scene.objects[0])
    before.bring_back(head)
    assert bpy.context.view_layer.objects.active is None and bpy.context.scene.wav2sem.target is None


def fail():
    with pytest.raises(RuntimeError, match="no such audio file"):
        bpy.ops.wav2sem.self_test(filepath="/nowhere/speech.wav")


def test_one_click_speaks_and_can_be_played(capfd):
    """The bundled model, the demo recording, the real worker."""
    scene = bpy.context.scene
    assert bpy.ops.wav2sem.self_test(start_frame=5) == {"FINISHED"}
    head = adding_demo_head.find_demo_head(scene)
    animation = head.data.shape_keys.animation_data
    curve = compat.channelbag(animation.action, animation.action_slot).fcurves.find('key_blocks["jawOpen"].value')
    points = [tuple(point.co) for point in curve.keyframe_points]
    assert max(value for _, value in points) > 0.1 and len(points) > 50
    assert (scene.frame_start, scene.frame_end, scene.frame_current) == (5, points[-1][0], 5)
    assert animation.nla_tracks[0].name == "Upper Face"
    assert scene.wav2sem.target == head and scene.wav2sem.filepath == str(DEMO_SPEECH)
    (strip,) = strips()
    assert compat.strip_times(strip).start == 5 and strip.sound.packed_file is not None
    said = capfd.readouterr().out
    assert 'It works: "Demo Head" speaks' in said and "with ONNX Runtime on CPU" in said
    # Again: the same head, the same sound.
    assert bpy.ops.wav2sem.self_test(start_frame=5) == {"FINISHED"}
    assert len(bpy.data.objects) == 1 and len(strips()) == 1
