# SPDX-License-Identifier: GPL-3.0-or-later
"""Every state of the Speech tab, with a picture of each: what it says, and that nothing jumps while a job runs."""

from __future__ import annotations

import bpy
import stage
from checks import Figures, Scenario, heard, snapshot, unchanged
from harness import TURN_S, Gui, Steps
from stalls import LONGEST_STALL_MS, Stalls

CANCEL = "wav2sem.cancel"
LIGHT, DARK = "Blender_Light.xml", "Blender_Dark.xml"


def panel_says_why(gui: Gui) -> Steps[Figures]:
    """The button is off as long as something is missing, and says what, in words that the sidebar does not cut."""
    said = {"nothing chosen": stage.why_off(gui)}
    assert said["nothing chosen"] == "Choose an audio file"
    yield from gui.picture("panel_idle")
    yield from stage.choose_audio(gui, stage.demo_speech())
    said["cube"] = stage.why_off(gui)
    assert said["cube"].startswith('"Cube" has no face keys'), said
    already = gui.reports()
    yield from stage.press_animate(gui)
    new = [line for line in gui.reports() if line not in already]
    assert not stage.running() and not new, f"a button that is off did something: {new}"
    yield from gui.picture("panel_cube")
    yield from stage.add_head(gui)
    assert not stage.why_off(gui), stage.why_off(gui)
    yield from gui.picture("panel_ready")
    yield from gui.key("TAB")
    said["edit mode"] = stage.why_off(gui)
    assert "Edit Mode" in said["edit mode"], said
    yield from gui.picture("panel_edit_mode")
    yield from gui.key("TAB")
    blocks = stage.head().data.shape_keys.key_blocks
    for name in ("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft"):
        blocks[name].mute = True
    said["muted keys"] = stage.why_off(gui)
    assert "muted" in said["muted keys"], said
    yield from gui.picture("panel_long_reason")
    return said


def panel_settings(gui: Gui) -> Steps[None]:
    """A strip, a speaker and a range: the tab shows what belongs to each."""
    yield from stage.ready(gui, stage.demo_speech())
    scene = gui.window.scene
    settings = scene.wav2sem
    settings.use_range, settings.range_start_s, settings.range_end_s = True, 1.5, 4.25
    settings.smoothing_s, settings.delay_s = 0.05, -0.04
    yield from gui.picture("panel_range")
    strip = scene.sequence_editor_create().strips.new_sound("Interview", str(stage.demo_speech()), 1, 13)
    settings.source, settings.strip = "STRIP", "Interview"
    yield from gui.picture("panel_strip")
    speaker = bpy.data.objects.new("Speaker", bpy.data.speakers.new("Speaker"))
    speaker.data.sound = strip.sound
    scene.collection.objects.link(speaker)
    settings.source, settings.speaker = "SPEAKER", speaker
    yield from gui.picture("panel_speaker")
    # Where there is no sound device, a message says so; where there is one, the button becomes "Stop".
    already = len(gui.reports())
    yield from gui.click((yield from gui.find("wav2sem.play_speech")))
    yield 0.3
    if not stage.part("blender.playback").is_playing():
        heard(gui, "sound device", already)
    yield from gui.picture("panel_playing")


def panel_waveform(gui: Gui) -> Steps[Figures]:
    """The waveform in both themes, in wide and narrow sidebars, and with large letters; ten minutes without a stall."""
    yield from stage.ready(gui, stage.demo_speech())
    scene, system = gui.window.scene, bpy.context.preferences.view
    yield from gui.until(lambda: _is_read(scene), "the demo's waveform", 30)
    yield from gui.picture("waveform")
    settings = scene.wav2sem
    settings.use_range, settings.range_start_s, settings.range_end_s = True, 1.5, 4.25
    _use_theme(LIGHT)
    yield from gui.picture("waveform_range_light")
    yield from _drag_edge(gui, -250)
    yield from gui.picture("waveform_wide_light")
    _use_theme(DARK)
    yield from _drag_edge(gui, 330)
    yield from gui.picture("waveform_narrow")
    yield from _drag_edge(gui, -80)
    system.ui_scale = 1.37
    yield 1.0
    yield from gui.picture("waveform_large")
    system.ui_scale = 1.0
    yield 1.0
    long = stage.long_speech(600)
    watch = Stalls(lambda: "rest" if _is_read(scene) else "reading")
    watch.start()
    for _ in range(15):
        gui.area.tag_redraw()
        yield 0.1
    settings.filepath = str(long)
    gui.region("UI").tag_redraw()
    yield 4 * TURN_S
    yield from gui.picture("waveform_growing")
    yield from gui.until(lambda: _is_read(scene), "the long sound's waveform", 120)
    watch.stop()
    yield from gui.picture("waveform_long")
    limit_ms = LONGEST_STALL_MS + 1e3 * watch.thread_s["rest"]
    assert 1e3 * watch.thread_s["reading"] < limit_ms, watch.figures()
    return watch.figures()


def _is_read(scene: bpy.types.Scene) -> bool:
    reading = stage.part("blender.peaks").of_scene(scene, stage.part("blender.sound_info").of_scene(scene))
    return bool(reading.is_done)


def _use_theme(name: str) -> None:
    folder = bpy.utils.preset_paths("interface_theme")[0]
    bpy.ops.script.execute_preset(filepath=f"{folder}/{name}", menu_idname="USERPREF_MT_interface_theme_presets")


def _drag_edge(gui: Gui, right_px: int) -> Steps[None]:
    """Make the sidebar wider, or narrower, with the mouse, which has to find the edge."""
    region = gui.region("UI")
    before_px, y = region.width, region.y + region.height // 2
    for outside_px in range(6):
        x = region.x - outside_px
        for place in ((x - 1, y), (x, y)):
            yield from gui.move(place)
        gui._event("LEFTMOUSE", "PRESS", (x, y))
        yield TURN_S
        for part in range(1, 9):
            yield from gui.move((x + right_px * part // 8, y))
        gui._event("LEFTMOUSE", "RELEASE", (x + right_px, y))
        yield 0.3
        if gui.region("UI").width != before_px:
            return
    raise AssertionError(f"the sidebar stays {before_px} px wide")


def panel_runs_and_cancels(gui: Gui) -> Steps[Figures]:
    """While a job runs the bar and its button lie where the big button was, and a click on the X ends the job."""
    yield from stage.ready(gui, stage.demo_speech())
    before, already = snapshot(), len(gui.reports())
    place = yield from gui.find(stage.ANIMATE)
    with (yield from stage.start_held(gui)):
        yield 2.5
        yield from gui.picture("panel_running")
        region = gui.region("UI")
        cross = (region.x + region.width - 42, place[1])
        under = yield from gui._control_at(cross)
        assert under == CANCEL, f"where the big button was lies {under!r}"
        yield from gui.click(cross)
        yield from stage.finish(gui, 10)
    unchanged(before)
    said = heard(gui, "Cancelled", already)
    yield from gui.picture("panel_cancelled")
    assert (yield from gui._control_at(place)) == stage.ANIMATE
    return {"said": said}


ALL: tuple[Scenario, ...] = (panel_says_why, panel_settings, panel_waveform, panel_runs_and_cancels)
