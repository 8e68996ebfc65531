# SPDX-License-Identifier: GPL-3.0-or-later
"""Ordinary use of the add-on; the scene is checked after every step."""

from __future__ import annotations

import time
from pathlib import Path

import bpy
import scenarios_any_head as heads
import stage
from checks import Figures, Scenario, snapshot, unchanged
from harness import Gui, Steps
from stalls import stays_alive, watch_click, watch_redraws, watch_run


def first_start(gui: Gui) -> Steps[Figures]:
    """With only the zip installed, the panel works at once, offline; undo and redo work."""
    assert not bpy.app.online_access, "the test must run offline"
    yield from gui.picture("first_start")
    yield from stage.add_head(gui)
    yield from gui.picture("head_without_audio")
    yield from stage.choose_audio(gui, stage.demo_speech())
    yield from gui.picture("ready")
    before = snapshot()
    with (yield from stage.start_held(gui)):
        yield from gui.picture("running")
        assert stage.running(), "the job ended before its picture"
    yield from stage.finish(gui)
    made = stage.curves()
    assert {stage.JAW, stage.LIPS} <= set(made), f"{len(made)} curves: {sorted(made)}"
    assert min(made.values()) > 100, made
    after = snapshot()
    yield from gui.picture("finished")
    said = gui.reports()[-1]
    yield from _go_to_open_mouth(gui)
    yield from gui.picture("speaking")
    yield from gui.key("Z", ctrl=True)
    yield 0.3
    unchanged(before)
    yield from gui.picture("undone")
    yield from gui.key("Z", ctrl=True, shift=True)
    yield 0.3
    unchanged(after)
    return {"curves": len(made), "keys each": max(made.values()), "said": said}


def other_sources(gui: Gui) -> Steps[None]:
    """The other sources: a strip and a sound in the file; and the closed sub-panel."""
    yield from stage.add_head(gui)
    scene = gui.window.scene
    scene.wav2sem.source = "STRIP"
    yield from gui.picture("source_strip_empty")
    editor = scene.sequence_editor_create()
    editor.strips.new_sound("Interview", str(stage.demo_speech()), channel=1, frame_start=13)
    scene.wav2sem.strip = "Interview"
    yield from gui.picture("source_strip")
    yield from stage.start(gui)
    yield from stage.finish(gui)
    first, _ = stage.head().data.shape_keys.animation_data.action.curve_frame_range
    assert first == 13, f"the strip begins at frame 13, the curves at {first}"
    scene.wav2sem.source = "SOUND"
    yield from gui.picture("source_sound_empty")
    scene.wav2sem.sound = bpy.data.sounds[0]
    yield from gui.picture("source_sound")
    yield from heads.open_panel(gui, "wav2sem_upper_face.brows", below="wav2sem.range_start_s")
    yield from gui.move(gui.middle_of_view())
    yield from gui.picture("upper_face_panel")


def again(gui: Gui) -> Steps[None]:
    """A second run replaces the first one; the user's keyframe on another channel stays."""
    yield from stage.ready(gui, stage.demo_speech())
    keys = stage.head().data.shape_keys
    keys.key_blocks["browInnerUp"].value = 0.5
    keys.key_blocks["browInnerUp"].keyframe_insert("value", frame=1)
    with gui.override():
        bpy.ops.ed.undo_push(message="Brow")
    for strength in (1.0, 0.5):
        gui.window.scene.wav2sem.strength = strength
        yield from stage.start(gui)
        yield from stage.finish(gui)
    yield from gui.picture("again")
    playing = stage.playing_actions()
    ours = [name for name in playing if name.startswith("demo_speech")]
    assert ours == ["demo_speech", "demo_speech Upper Face"] == playing[:1] + ours[1:], f"these play: {playing}"
    gui.window.scene.frame_set(1)
    brow = stage.head().data.shape_keys.key_blocks["browInnerUp"].value
    assert abs(brow - 0.5) < 1e-6, f"the brow that the user keyed at 0.5 is at {brow}"


def upper_face(gui: Gui) -> Steps[Figures]:
    """Unless it is switched off, the same button adds blinks; one undo removes everything."""
    yield from stage.ready(gui, stage.demo_speech())
    before = snapshot()
    yield from stage.start(gui)
    yield from stage.finish(gui)
    playing = stage.playing_actions()
    blinks = [points for action in playing for points in stage.points_of(bpy.data.actions[action], stage.BLINK)]
    assert blinks, f"no blink in {playing}"
    frame, _ = max(blinks, key=lambda point: point[1])
    gui.window.scene.frame_set(round(frame))
    yield 0.3
    closed = stage.head().data.shape_keys.key_blocks["eyeBlinkLeft"].value
    assert closed > 0.5, f"at frame {frame:.0f} of the widest blink the lid is at {closed}"
    yield from gui.picture("blink")
    yield from gui.key("Z", ctrl=True)
    yield 0.3
    unchanged(before)
    gui.window.scene.wav2sem_upper_face.enabled = False
    yield from stage.start(gui)
    yield from stage.finish(gui)
    assert len(stage.playing_actions()) == 1, stage.playing_actions()
    return {"actions": ", ".join(playing)}


def loop_stays_alive(gui: Gui) -> Steps[Figures]:
    """The longest time that the main loop is blocked, during a minute of speech and at its end."""
    yield from stage.ready(gui, stage.long_speech(60))
    redraws = yield from watch_redraws(gui)
    return stays_alive((yield from watch_run(gui, 240)), redraws)


def six_characters(gui: Gui) -> Steps[Figures]:
    """Six characters in one scene speak five minutes each: seconds, Blender's memory, and the longest stall."""
    audio = stage.long_speech(300)
    yield from stage.ready(gui, audio)
    figures: Figures = {}
    for number in range(1, 7):
        if number > 1:
            _add_another(gui)
            yield 0.6
        name = bpy.context.view_layer.objects.active.name
        redraws = yield from watch_redraws(gui)
        began_s = time.perf_counter()
        place = yield from gui.find(stage.ANIMATE)
        run = yield from watch_click(gui, place, lambda name=name: _speaks(name) and not stage.running(), 240)
        seconds = time.perf_counter() - began_s
        figures[name] = {"s": round(seconds, 1), "RSS, MB": _memory_mb(), **stays_alive(run, redraws)}
        print(f"gui: {name}: {figures[name]}", flush=True)
    return figures


def _add_another(gui: Gui) -> None:
    """A further demo head beside the others, selected alone."""
    with gui.override():
        bpy.ops.object.select_all(action="DESELECT")
        made = stage.part("blender.scene.demo_head").build_demo_head()
        made.location.x = 0.25 * (len(bpy.data.objects) - 1)
        bpy.context.view_layer.objects.active = made
        made.select_set(True)
        bpy.ops.ed.undo_push(message="Add Demo Head")


def _speaks(name: str) -> bool:
    animation = bpy.data.objects[name].data.shape_keys.animation_data
    return animation is not None and animation.action is not None


def _memory_mb() -> int:
    """What this Blender holds now."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def preferences(gui: Gui) -> Steps[None]:
    """The add-on's page in the preferences."""
    with gui.override():
        bpy.ops.preferences.addon_show(module=stage.MODULE)
    yield 1.0
    yield from gui.picture("preferences")
    window = next(window for window in bpy.context.window_manager.windows if window != gui.window)
    with bpy.context.temp_override(window=window):
        bpy.ops.wm.window_close()
    yield 0.3


def _go_to_open_mouth(gui: Gui) -> Steps[None]:
    """Go to the frame where the jaw is open widest."""
    keys = stage.head().data.shape_keys
    frame, widest = max(stage.points_of(keys.animation_data.action, stage.JAW), key=lambda point: point[1])
    gui.window.scene.frame_set(int(frame))
    yield 0.3
    value = keys.key_blocks["jawOpen"].value
    assert value > 0.05 and abs(value - widest) < 1e-4, f"jawOpen is {value}, its curve {widest}"


ALL: tuple[Scenario, ...] = (
    first_start,
    other_sources,
    again,
    upper_face,
    loop_stays_alive,
    six_characters,
    preferences,
)
