# SPDX-License-Identifier: GPL-3.0-or-later
"""A newcomer has only the zip, a cube and the Speech tab: one click, and a head speaks."""

from __future__ import annotations

import bpy
import stage
from checks import Figures, Scenario, heard, snapshot, unchanged
from harness import Gui, Steps

SELF_TEST, ADD_HEAD = "wav2sem.self_test", "wav2sem.add_demo_head"


def newcomer(gui: Gui) -> Steps[Figures]:
    """One click in Blender's first scene adds a head beside the cube that speaks with sound; undo removes it."""
    assert not bpy.app.online_access, "the test must run offline"
    assert bpy.data.objects.keys() == ["Camera", "Cube", "Light"], bpy.data.objects.keys()
    yield from gui.picture("newcomer")
    before, already = snapshot(), len(gui.reports())
    yield from gui.click((yield from gui.find(SELF_TEST)))
    yield from gui.until(stage.running, "the job's start")
    yield from gui.move(gui.middle_of_view())
    yield from gui.picture("newcomer_running")
    yield from stage.finish(gui)
    said = heard(gui, "It works", already)
    scene, screen = gui.window.scene, gui.window.screen
    made = stage.curves()
    assert min(made.values()) > 50 and stage.JAW in made, made
    last = stage.points_of(stage.head().data.shape_keys.animation_data.action, stage.JAW)[-1][0]
    assert (scene.frame_start, scene.frame_end) == (1, last), (scene.frame_start, scene.frame_end, last)
    assert [strip.type for strip in scene.sequence_editor.strips] == ["SOUND"]
    assert screen.is_animation_playing, "the head stands still"
    shown = yield from _frames_shown(gui)
    yield from gui.picture("newcomer_speaking")
    yield from gui.key("SPACE")
    yield from gui.until(lambda: not gui.window.screen.is_animation_playing, "the end of the playback", 10)
    # Ending the playback is an undo step of Blender's own, which returns to the first frame.
    for _ in range(2):
        yield from gui.key("Z", ctrl=True)
        yield 0.5
    unchanged(before)
    return {"said": said, "frames shown in a second": shown}


def newcomer_cancels(gui: Gui) -> Steps[None]:
    """Esc during the demo restores scene, selection, the panel's choice and the view."""
    scene, things = gui.window.scene, bpy.data.objects
    for thing in things:
        thing.select_set(thing.name in ("Cube", "Light"))
    gui.window.view_layer.objects.active = things["Camera"]
    scene.wav2sem.target = things["Cube"]
    with gui.override():
        bpy.ops.ed.undo_push(message="Select")
    things["Light"].location.x += 1
    with gui.override():
        bpy.ops.ed.undo_push(message="Move")
    yield 0.3
    before, chosen, already = snapshot(), _chosen(gui), len(gui.reports())
    job = stage.part("blender.animate.jobs").Job
    poll, job.poll = job.poll, lambda _job: False  # it must run until it is cancelled
    try:
        yield from gui.click((yield from gui.find(SELF_TEST)))
        yield from gui.until(stage.running, "the job's start")
        yield from gui.move(gui.middle_of_view())
        yield 0.5
        assert _chosen(gui) != chosen
        yield from gui.key("ESC")
        yield from stage.finish(gui, 30)
    finally:
        job.poll = poll
    heard(gui, "Cancelled; nothing was changed", already)
    yield from gui.picture("newcomer_cancelled")
    unchanged(before)
    assert _chosen(gui) == chosen, (_chosen(gui), chosen)
    yield from gui.key("Z", ctrl=True)
    yield 0.5
    moved_back = bpy.data.objects["Light"].location.x
    yield from gui.key("Z", ctrl=True, shift=True)
    yield 0.5
    assert bpy.data.objects["Light"].location.x == moved_back + 1, "undo took back something else"
    unchanged(before)
    assert _chosen(gui) == chosen, (_chosen(gui), chosen)


def demo_head(gui: Gui) -> Steps[None]:
    """The other button adds the head alone, chosen and in view."""
    before = snapshot()
    yield from gui.click((yield from gui.find(ADD_HEAD)))
    yield from gui.until(stage.head, "the head", 30)
    yield from gui.move(gui.middle_of_view())
    yield 0.5
    assert gui.window.scene.wav2sem.target == stage.head()
    yield from gui.picture("demo_head")
    yield from gui.key("Z", ctrl=True)
    yield 0.3
    unchanged(before)


def _chosen(gui: Gui) -> tuple[object, ...]:
    """What is selected, active and chosen in the panel, and the view's position."""
    layer, target = gui.window.view_layer, gui.window.scene.wav2sem.target
    view = [round(value, 4) for row in gui.area.spaces.active.region_3d.view_matrix for value in row]
    return (
        sorted(thing.name for thing in layer.objects.selected),
        layer.objects.active.name,
        target and target.name,
        view,
    )


def _frames_shown(gui: Gui) -> Steps[int]:
    """How many different frames are shown in a second of playback."""
    seen = set()
    for _ in range(20):
        seen.add(gui.window.scene.frame_current)
        yield 0.05
    assert len(seen) > 1, f"the playback stays at frame {seen}"
    return len(seen)


ALL: tuple[Scenario, ...] = (newcomer, newcomer_cancels, demo_head)
