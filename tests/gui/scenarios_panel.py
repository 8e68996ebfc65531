# SPDX-License-Identifier: GPL-3.0-or-later
"""Every state of the Speech tab, with pictures: its texts, and that nothing moves during a job."""

from __future__ import annotations

import bpy
import stage
from checks import Figures, Scenario, heard, snapshot, unchanged
from harness import Gui, Steps

CANCEL = "wav2sem.cancel"
LIGHT, DARK = "Blender_Light.xml", "Blender_Dark.xml"


def panel_says_why(gui: Gui) -> Steps[Figures]:
    """The button is off while something is missing, and a text that the sidebar does not cut says what."""
    said = {"nothing chosen": stage.why_off(gui)}
    assert said["nothing chosen"] == "Choose an audio file"
    yield from gui.picture("panel_idle")
    yield from stage.choose_audio(gui, stage.demo_speech())
    said["cube"] = stage.why_off(gui)
    assert said["cube"].startswith('"Cube" has no face keys'), said
    yield from gui.picture("panel_cube")
    yield from stage.add_head(gui)
    assert not stage.why_off(gui), stage.why_off(gui)
    yield from gui.picture("panel_ready")
    yield from gui.key("TAB")
    said["edit mode"] = stage.why_off(gui)
    assert "Edit Mode" in said["edit mode"], said
    already = gui.reports()
    yield from stage.press_animate(gui)
    new = [line for line in gui.reports() if line not in already]
    assert not stage.running() and not new, f"a button that is off did something: {new}"
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
    # Without a sound device a message says so; with one, the button becomes "Stop".
    already = len(gui.reports())
    yield from gui.click((yield from gui.find("wav2sem.play_speech")))
    yield 0.3
    if not stage.part("blender.sound.playback").is_playing():
        heard(gui, "sound device", already)
    yield from gui.picture("panel_playing")


def panel_runs_and_cancels(gui: Gui) -> Steps[Figures]:
    """During a job the bar and its X replace the big button, and a click on the X cancels the job."""
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


ALL: tuple[Scenario, ...] = (panel_says_why, panel_settings, panel_runs_and_cancels)
