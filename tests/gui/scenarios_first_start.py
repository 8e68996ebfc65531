# SPDX-License-Identifier: GPL-3.0-or-later
"""A newcomer who has only the zip: a cube, the Speech tab, one click, and a head speaks."""

from __future__ import annotations

import bpy
import stage
from checks import Figures, Scenario, heard, snapshot, unchanged
from harness import Gui, Steps

SELF_TEST, ADD_HEAD = "wav2sem.self_test", "wav2sem.add_demo_head"


def newcomer(gui: Gui) -> Steps[Figures]:
    """One click in Blender's first scene: the head stands beside the cube, speaks, is heard, and undo takes it back."""
    assert not bpy.app.online_access, "the test shall run offline"
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
    # The playback's end is a step of Blender's own, which takes the scene back to the first frame.
    for _ in range(2):
        yield from gui.key("Z", ctrl=True)
        yield 0.5
    unchanged(before)
    return {"said": said, "frames shown in a second": shown}


def demo_head(gui: Gui) -> Steps[None]:
    """The other button: the head alone, chosen, and in view."""
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


def _frames_shown(gui: Gui) -> Steps[int]:
    """How many different frames a second of playback shows."""
    seen = set()
    for _ in range(20):
        seen.add(gui.window.scene.frame_current)
        yield 0.05
    assert len(seen) > 1, f"the playback stays at frame {seen}"
    return len(seen)


ALL: tuple[Scenario, ...] = (newcomer, demo_head)
