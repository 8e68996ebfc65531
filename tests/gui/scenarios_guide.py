# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of docs/user-guide.md in its order, each with the picture that the guide shows; `guide.py` keeps them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import bpy
import scenarios_any_head as heads
import scenarios_result as results
import stage
from checks import Figures, Scenario, heard
from harness import TURN_S, Gui, Steps

SELF_TEST, UPPER_FACE = "wav2sem.self_test", "wav2sem.add_upper_face"
PLACE, CREATE, DRIVE = "wav2sem.place_landmarks", "wav2sem.create_speech_keys", "wav2sem.drive_jaw_bone"
OCULUS = "sil PP FF TH DD kk CH SS nn RR aa E I O U".split()
FOLDER = "guide"
# Panels from the top, where Speech is the first; and the distance between closed headers.
ANIMATE_PANEL, RESULT_PANEL, EXPORT_PANEL = 2, 3, 4
HEADER_PX = 28
# Width of a picture of the whole window; number of colours of any picture.
WIDTH_PX, COLOURS = 1200, 96
# Width of the sidebar's tabs at its right.
_TABS_PX = 30
# Where the running job's bar stands in its picture.
_AWAY = 0.3, 0.85
# Frames of the video, side by side.
_STILLS, _STILL_PX = 5, 240


def guide_first_clip(gui: Gui) -> Steps[Figures]:
    """One click makes the demo head speak; with a camera and output settings it is rendered to a video with sound."""
    yield from _window(gui, "start")
    yield from gui.click((yield from gui.find(SELF_TEST)))
    yield from gui.until(stage.running, "the job's start")
    yield from gui.move(gui.middle_of_view())
    yield from stage.finish(gui)
    yield from gui.key("SPACE")
    yield from gui.until(lambda: not gui.window.screen.is_animation_playing, "the end of the playback", 10)
    scene = gui.window.scene
    scene.frame_set(_widest())
    yield from _window(gui, "speaks")
    yield from gui.key("NUMPAD_0", ctrl=True, alt=True)
    yield 0.5
    film = gui.folder / FOLDER / "clip.mp4"
    stage.part("blender.compat").set_video_output(scene.render, film)
    scene.render.engine, scene.render.use_file_extension = "BLENDER_WORKBENCH", True
    properties = next(area for area in gui.window.screen.areas if area.type == "PROPERTIES")
    properties.spaces.active.context = "OUTPUT"
    scene.render.filepath = "//clip.mp4"
    x, top = properties.x + 140, properties.y + properties.height
    yield 0.6
    # Close Frame Range and Format, open Encoding, and in it close Video.
    for down in (307, 80, 377, 466):
        yield from gui.click((x, top - down))
        yield 0.6
    yield from gui.move(gui.middle_of_view())
    yield from _area(gui, "output", properties)
    scene.render.filepath, scene.render.resolution_percentage = str(film), 30
    with gui.override():
        bpy.ops.render.render(animation=True)
    streams = _said_by("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", film).split()
    assert streams == ["h264", "aac"], f"the film consists of {streams}"
    _keep_stills(film, gui.folder / FOLDER / "clip.png", _telling(scene.frame_end))
    film.unlink()
    return {"streams": streams}


def guide_faces(gui: Gui) -> Steps[None]:
    """What Face says about three meshes; keys for a head without any; a mapping; a jaw bone."""
    yield from _add_visemes(gui)
    yield from _panel(gui, "face_visemes", "wav2sem.target", "wav2sem.target", above=10, below=46)
    with gui.override():
        bpy.ops.object.delete()
    gui.window.view_layer.objects.active = bpy.data.objects["Cube"]
    yield from _panel(gui, "face_none", "wav2sem.target", "wav2sem.target", above=10, below=64)
    yield from stage.add_head(gui)
    yield from _panel(gui, "face_arkit", "wav2sem.target", "wav2sem.target", above=10, below=46)
    heads._add_rig(gui)
    yield from heads.open_panel(gui, DRIVE)
    yield from _panel(gui, "jaw_bone", DRIVE, DRIVE, above=62, below=30)
    yield from stage.fresh_scene(gui)
    yield from stage.add_head(gui)
    yield from heads.open_panel(gui, "wav2sem.save_mapping")
    yield from results._press(gui, "wav2sem.guess_mapping")
    yield from gui.until(lambda: len(stage.head().wav2sem_mapping), "the table's rows", 30)
    yield from _panel(gui, "key_mapping", "wav2sem.save_mapping", "wav2sem_mapping_channels", above=40, below=98)
    yield from stage.fresh_scene(gui)
    yield from stage.add_head(gui)
    heads._remove_keys()
    yield from results._press(gui, PLACE)
    yield from gui.until(lambda: len(stage.head().children) == 10, "ten landmarks", 240)
    yield from _window(gui, "landmarks")
    yield from results._press(gui, CREATE)
    yield from gui.until(lambda: stage.head().data.shape_keys is not None, "the keys", 240)
    stage.head().data.shape_keys.key_blocks["jawOpen"].value = 0.7
    yield from _window(gui, "keys_made")


def guide_recording(gui: Gui) -> Steps[None]:
    """A file, a strip and a speaker; the settings, their presets and the upper face; the bar while it runs."""
    line = Path(shutil.copy(stage.demo_speech(), stage.audio_folder() / "line_07.flac"))
    yield from stage.ready(gui, line)
    yield from _panel(gui, "speech_file", "wav2sem.source", "wav2sem.play_speech", above=44, below=26)
    scene = gui.window.scene
    strip = scene.sequence_editor_create().strips.new_sound("Line 07", str(line), 1, 13)
    scene.wav2sem.source, scene.wav2sem.strip = "STRIP", "Line 07"
    yield from _panel(gui, "speech_strip", "wav2sem.source", "wav2sem.play_speech", above=44, below=26)
    speaker = bpy.data.objects.new("Speaker", bpy.data.speakers.new("Speaker"))
    speaker.data.sound = strip.sound
    scene.collection.objects.link(speaker)
    scene.wav2sem.source, scene.wav2sem.speaker = "SPEAKER", speaker
    yield from _panel(gui, "speech_speaker", "wav2sem.source", "wav2sem.play_speech", above=44, below=26)
    scene.wav2sem.source = "FILE"
    yield from _panel(gui, "animate", stage.ANIMATE, "wav2sem.range_start_s", above=52, below=20)
    header = (yield from gui.find(stage.ANIMATE))[1] + 35
    region = gui.region("UI")
    yield from gui.click((region.x + region.width - 65, header))
    yield 0.6
    yield from _crop(gui, "presets", (region.x - 20, header - 64, region.width + 70, 240))
    yield from gui.key("ESC")
    yield from gui.move(gui.middle_of_view())
    yield from _show(gui, ANIMATE_PANEL)
    yield from gui.click((region.x + 60, (yield from gui.find("wav2sem.range_start_s"))[1] - 32))
    yield 0.6
    yield from _panel(gui, "upper_face", "wav2sem_upper_face.blinks_per_minute", UPPER_FACE, above=40, below=34)
    # Long enough to stop the bar on its way.
    scene.wav2sem.filepath = str(stage.long_speech(120))
    y = (yield from gui.find(stage.ANIMATE))[1]
    yield from stage.start(gui)
    yield from gui.until(lambda: stage.fraction() >= _AWAY[0], "the bar's way", 240)
    with stage.hold():
        yield 0.6
        assert _AWAY[0] <= stage.fraction() <= _AWAY[1], f"the bar is at {stage.fraction():.0%}"
        yield from _crop(gui, "running", (region.x, y - 36, region.width - _TABS_PX, 48))
    yield from stage.finish(gui)


def guide_result(gui: Gui) -> Steps[Figures]:
    """The takes of a face: reducing keys, the NLA, and the export formats."""
    yield from stage.ready(gui, stage.demo_speech())
    with gui.override():
        bpy.ops.wav2sem.animate(upper_face=True)
    yield 0.5
    yield from _show(gui, RESULT_PANEL)
    already = len(gui.reports())
    yield from results._press(gui, "wav2sem.reduce_keys")
    yield from gui.until(lambda: "wav2sem_reduction" in _action(), "fewer keys", 60)
    said = heard(gui, "closures stay closed", already)
    yield from _panel(gui, "result", "wav2sem.push_to_nla", "wav2sem.reduce_keys", above=156, below=70)
    yield from _show(gui, EXPORT_PANEL)
    # It is too far below the last control to be found from there.
    x, y = yield from gui.find("wav2sem.play_speech")
    region = gui.region("UI")
    yield from _crop(gui, "export", (region.x, y - 275 - HEADER_PX, region.width - _TABS_PX, 165))
    return {"said": said}


def guide_preferences(gui: Gui) -> Steps[None]:
    """Installing an extension from disk, and the add-on's page, both in place of the viewport."""
    window, area = gui.window, gui.area
    area.ui_type = "PREFERENCES"
    bpy.context.preferences.active_section = "EXTENSIONS"
    yield 1.0
    yield from gui.move((area.x + area.width - 60, area.y + area.height - 50))
    with _of(window, area):
        bpy.ops.wm.call_menu(name="USERPREF_MT_extensions_settings")
    yield 0.4
    yield from gui.move((area.x + area.width - 60, area.y + area.height - 147))
    yield from _crop(gui, "install", (area.x, area.y + area.height - 430, area.width, 430))
    yield from gui.key("ESC", (area.x + area.width // 2, area.y + 100))
    with _of(window, area):
        bpy.ops.preferences.addon_show(module=stage.MODULE)
    yield 1.0
    runtime = stage.part("blender.preferences.python")
    yield from gui.until(lambda: runtime.answer(bpy.context) is not None, "the Python's answer", 240)
    yield from _area(gui, "preferences", area)
    area.ui_type = "VIEW_3D"
    yield 0.5


def _of(window: Any, area: Any) -> Any:
    region = next(region for region in area.regions if region.type == "WINDOW")
    return bpy.context.temp_override(window=window, area=area, region=region)


def _show(gui: Gui, number: int) -> Steps[None]:
    """Close all panels of the tab except the first, and open the one with this number."""
    x = gui.region("UI").x + 60
    yield from _click_with_ctrl(gui, (x, (yield from gui.find("wav2sem.source"))[1] + 24))
    # Between Speech and the first of them is What Is Said.
    yield from gui.click((x, (yield from gui.find("wav2sem.play_speech"))[1] - 40 - number * HEADER_PX))
    yield 0.6


def _click_with_ctrl(gui: Gui, header: tuple[int, int]) -> Steps[None]:
    """Open a panel and close the others."""
    yield from gui.move(header)
    for value in ("PRESS", "RELEASE"):
        gui._event("LEFTMOUSE", value, header, ctrl=True)
        yield TURN_S
    yield 0.7


def _window(gui: Gui, name: str) -> Steps[None]:
    """Take a picture of the whole window."""
    yield from gui.move((gui.region().x + 40, gui.region().y + 20))
    yield from _crop(gui, name, (0, 0, gui.window.width, gui.window.height))


def _area(gui: Gui, name: str, area: Any) -> Steps[None]:
    yield from _crop(gui, name, (area.x, area.y, area.width, area.height))


def _panel(gui: Gui, name: str, first: str, last: str, *, above: int = 40, below: int = 30) -> Steps[None]:
    """Take a picture of the sidebar, from `above` pixels over the first control to `below` under the last."""
    top, bottom = (yield from gui.find(first))[1] + above, (yield from gui.find(last))[1] - below
    yield from gui.move(gui.middle_of_view())
    region = gui.region("UI")
    yield from _crop(gui, name, (region.x, bottom, region.width - _TABS_PX, top - bottom))


def _crop(gui: Gui, name: str, box: tuple[int, int, int, int]) -> Steps[None]:
    """Take a picture of a part of the window: left, bottom, width, height."""
    for _ in range(3):
        for area in gui.window.screen.areas:
            area.tag_redraw()
        yield 4 * TURN_S
    left, bottom, width, height = box
    place = f"{width}x{height}+{left}+{max(0, gui.window.height - bottom - height)}"
    scale = ("-resize", f"{WIDTH_PX}x") if width > WIDTH_PX else ()
    folder = gui.folder / FOLDER
    folder.mkdir(exist_ok=True)
    _said_by("import", "-window", "root", "-crop", place, "+repage", *scale, *_FEW_COLOURS, f"PNG8:{folder / name}.png")


_FEW_COLOURS = ("-strip", "-dither", "None", "-colors", str(COLOURS), "-define", "png:compression-level=9")


def _keep_stills(film: Path, picture: Path, frames: list[int]) -> None:
    """Draw frames of a video side by side; the first is frame 1."""
    chosen = "+".join(f"eq(n\\,{frame - 1})" for frame in frames)
    look = f"select={chosen},crop=ih*0.8:ih,scale={_STILL_PX}:-1,tile={len(frames)}x1"
    _said_by("ffmpeg", "-v", "error", "-y", "-i", film, "-vf", look, "-frames:v", "1", picture)
    _said_by("convert", picture, *_FEW_COLOURS, f"PNG8:{picture}")


def _said_by(program: str, *arguments: object) -> str:
    """Run a program and return what it prints.

    Raises:
        AssertionError: It fails.
    """
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"{program}: {done.stderr}"
    return done.stdout


def _action() -> Any:
    return stage.head().data.shape_keys.animation_data.action


def _widest() -> int:
    """The frame where the jaw is open widest."""
    return max(_jaw(), key=_jaw().__getitem__)


def _telling(n_frames: int) -> list[int]:
    """From each part of the video the frame where the jaw is open widest, and least in every second part."""
    jaw, length = _jaw(), n_frames // _STILLS
    return [
        (min if part % 2 else max)(range(1 + part * length, 1 + (part + 1) * length), key=jaw.__getitem__)
        for part in range(_STILLS)
    ]


def _jaw() -> dict[int, float]:
    """The opening of the jaw, by frame."""
    return {round(frame): value for frame, value in stage.points_of(_action(), stage.JAW)}


def _add_visemes(gui: Gui) -> Steps[None]:
    """Add a mesh with viseme keys; only their names matter here."""
    with gui.override():
        bpy.ops.mesh.primitive_uv_sphere_add()
    sphere = bpy.context.view_layer.objects.active
    sphere.name = "Avatar"
    for name in ("Basis", *(f"viseme_{viseme}" for viseme in OCULUS)):
        sphere.shape_key_add(name=name, from_mix=False)
    yield 0.3


ALL: tuple[Scenario, ...] = (guide_first_clip, guide_faces, guide_recording, guide_result, guide_preferences)
