# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person does with a finished animation: mute, reduce, push, remove and export it."""

from __future__ import annotations

import time

import bpy
import numpy as np
import stage
from checks import Figures, Scenario, heard, snapshot, unchanged
from harness import ROW_PX, TURN_S, Gui, Steps
from stalls import stays_alive, watch_click, watch_redraws

REDUCE, MUTE, PUSH = "wav2sem.reduce_keys", "wav2sem.mute_take", "wav2sem.push_to_nla"
ACTIVATE, REMOVE = "wav2sem.make_active", "wav2sem.remove_take"
KINDS = {"csv": "csv", "npz": "npz", "gltf": "glb", "fbx": "fbx", "usd": "usdc", "alembic": "abc"}


def result_panel(gui: Gui) -> Steps[Figures]:
    """Every button of the Result panel, for speech and an upper face; at the end the scene is as before."""
    yield from stage.ready(gui, stage.demo_speech())
    gui.window.scene.wav2sem_upper_face.enabled = True
    with gui.override():
        bpy.ops.ed.undo_push(message="Upper Face")
    before = snapshot()
    yield from stage.start(gui)
    yield from stage.finish(gui)
    dense = sum(stage.curves().values())
    yield from _open_only(gui, REDUCE)
    yield from gui.picture("result")
    already = len(gui.reports())
    yield from _press(gui, REDUCE)
    yield from gui.until(lambda: sum(stage.curves().values()) < dense and not stage.running(), "fewer keys", 60)
    said = heard(gui, "closures stay closed", already)
    yield from gui.picture("result_reduced")
    yield from gui.key("Z", ctrl=True)
    yield from gui.until(lambda: sum(stage.curves().values()) == dense, "all keys again", 10)
    yield from _press(gui, PUSH)
    yield from gui.until(lambda: _active() is None, "the NLA track", 10)
    yield from gui.picture("result_pushed")
    yield from _press(gui, MUTE)
    gui.window.scene.frame_set(60)
    yield 0.3
    blocks = stage.head().data.shape_keys.key_blocks
    moving = {block.name for block in blocks if abs(block.value) > 1e-6 and "mouth" in block.name.lower()}
    assert not moving and blocks["jawOpen"].value == 0, f"muted, these keys are not at rest: {moving}"
    yield from gui.picture("result_muted")
    yield from _press(gui, MUTE)
    yield from _press(gui, ACTIVATE)
    yield from gui.until(lambda: _active() is not None, "the active action", 10)
    for n_left in (1, 0):
        yield from _press(gui, REMOVE)
        yield from gui.until(lambda n=n_left: len(bpy.data.actions) == n, f"{n_left} actions", 10)
    yield from gui.picture("result_empty")
    gui.window.scene.frame_set(1)
    unchanged(before)
    return {"said": said}


def takes_of_one_sound(gui: Gui) -> Steps[Figures]:
    """Two takes of one sound and an upper face: their rows differ at the sidebar's default width."""
    yield from stage.ready(gui, stage.demo_speech())
    gui.window.scene.wav2sem_upper_face.enabled = True
    yield from stage.start(gui)
    yield from stage.finish(gui)
    yield from _open_only(gui, PUSH)
    yield from _press(gui, PUSH)
    yield from gui.until(lambda: _active() is None, "the NLA track", 10)
    gui.window.scene.wav2sem.start_frame = 301
    with gui.override():
        assert bpy.ops.wav2sem.animate() == {"FINISHED"}
    yield 0.5
    yield from gui.picture("result_takes_of_one_sound")
    names = [take.action.name for take in stage.part("blender.scene.takes").of_face(stage.head())]
    assert len(names) == 3, names
    with gui.override("UI"):
        shown = [stage.part("blender.ui.result")._label(bpy.context, name) for name in names]
    for name, label in zip(names, shown, strict=True):
        assert label == name or label.endswith(name.removeprefix(stage.demo_speech().stem)[-4:]), (name, label)
    assert len(set(shown)) == 3, shown
    return dict(zip(names, shown, strict=True))


def reduce_ten_minutes(gui: Gui) -> Steps[Figures]:
    """Reducing ten minutes of keys: Blender stays responsive, Esc changes nothing, and one undo restores the keys."""
    yield from stage.ready(gui, stage.demo_speech())
    yield from stage.start(gui)
    yield from stage.finish(gui)
    _lengthen(round(600 * gui.window.scene.render.fps))
    with gui.override():
        bpy.ops.ed.undo_push(message="Ten Minutes")
    before, already, dense = snapshot(), len(gui.reports()), sum(stage.curves().values())
    yield from _open_only(gui, REDUCE)
    place = yield from _place(gui, REDUCE)
    yield from gui.click(place)
    yield from gui.move(gui.middle_of_view())
    yield from gui.until(lambda: stage.fraction() > 0.2, "progress")
    yield from gui.picture("result_reducing")
    assert stage.running(), "ten minutes are reduced before there is a picture"
    yield from gui.key("ESC")
    yield from gui.until(lambda: not stage.running(), "the end", 5)
    unchanged(before)
    heard(gui, "Cancelled; nothing was changed", already)
    redraws = yield from watch_redraws(gui)
    assert (yield from gui._control_at(place)) == REDUCE
    start_s = time.monotonic()
    watch = yield from watch_click(
        gui, place, lambda: sum(stage.curves().values()) < dense and not stage.running(), 120
    )
    took_s = time.monotonic() - start_s
    yield from gui.picture("result_ten_minutes_reduced")
    said = heard(gui, " keys, at most", already)
    yield from gui.key("Z", ctrl=True)
    yield from gui.until(lambda: sum(stage.curves().values()) == dense, "all keys again", 20)
    unchanged(before)
    return {"said": said, "seconds": f"{took_s:.1f}", **stays_alive(watch, redraws)}


def export_panel(gui: Gui) -> Steps[Figures]:
    """The Export panel writes every format that this Blender supports and changes nothing; then the file browser."""
    yield from stage.ready(gui, stage.demo_speech())
    yield from stage.start(gui)
    yield from stage.finish(gui)
    # The mouse meets this one of the two buttons in the row on its way down.
    yield from _open_only(gui, "wav2sem.export_npz")
    yield from gui.picture("export")
    before, sizes = snapshot(), {}
    for kind, suffix in KINDS.items():
        if kind in ("alembic", "usd") and not getattr(bpy.app.build_options, kind):
            # In Debian's Blender the button is off and says so.
            assert not getattr(bpy.ops.wav2sem, f"export_{kind}").poll()
            continue
        file = stage.audio_folder() / f"exported.{suffix}"
        with gui.override():
            result = getattr(bpy.ops.wav2sem, f"export_{kind}")(filepath=str(file))
        yield 0.2
        assert result == {"FINISHED"}, (kind, result)
        sizes[suffix] = f"{file.stat().st_size / 1e6:.2f} MB"
    unchanged(before)
    assert stage.head().select_get(), "the head is no longer selected"
    gui.window.scene.frame_set(gui.window.scene.frame_current)
    bpy.context.preferences.view.filebrowser_display_type = "SCREEN"
    yield from _press(gui, "wav2sem.export_csv")
    yield 1.0
    yield from gui.picture("export_browser")
    with bpy.context.temp_override(window=gui.window, area=gui.window.screen.areas[0]):
        browser = next(area for area in gui.window.screen.areas if area.type == "FILE_BROWSER")
    name = browser.spaces.active.params.filename
    assert name == "demo_speech.csv", f"the file browser suggests {name!r}"
    region = next(region for region in browser.regions if region.type == "WINDOW")
    yield from gui.key("ESC", (region.x + region.width // 2, region.y + region.height // 2))
    yield 0.5
    yield from gui.key("Z", ctrl=True)
    yield 0.3
    yield from gui.picture("export_nothing")
    return sizes


def _active() -> str | None:
    animation = stage.head().data.shape_keys.animation_data
    return animation.action.name if animation is not None and animation.action is not None else None


def _lengthen(n_frames: int) -> None:
    """Let the head repeat the speech, each time a little differently."""
    (take, *_), write_curve = (
        stage.part("blender.scene.takes").of_face(stage.head()),
        stage.part("blender.scene.actions").write_curve,
    )
    noise = np.random.default_rng(0)
    for _, curve in list(take.curves()):
        points_T2 = np.empty((len(curve.keyframe_points), 2), dtype=np.float32)
        curve.keyframe_points.foreach_get("co", points_T2.ravel())
        values_T = np.resize(points_T2[:, 1], n_frames) + noise.normal(0, 1e-4, n_frames)
        write_curve(take.bag, curve.data_path, np.arange(1, n_frames + 1), values_T)


def _press(gui: Gui, control: str) -> Steps[None]:
    """Click a button, wherever it is in its row, and move the mouse away."""
    aside = gui.middle_of_view()  # a file browser may replace the view
    yield from gui.click((yield from _place(gui, control)))
    yield from gui.move(aside)
    yield 0.3


def _place(gui: Gui, control: str) -> Steps[tuple[int, int]]:
    """Position of a button, wherever it is in its row."""
    region = gui.region("UI")
    rows = range(region.y + region.height - 4, region.y, -ROW_PX)
    from_right = (0.38 * region.width, 0.55 * region.width, 0.75 * region.width, 40, 52, 64)
    for x in (region.x + region.width - int(distance) for distance in from_right):
        for y in rows:
            if (yield from gui._control_at((x, y))) == control:
                return x, y
    raise AssertionError(f"the sidebar shows no {control}")


def _open_only(gui: Gui, wanted: str) -> Steps[None]:
    """Close all panels except the first with a Ctrl click, and open the one with `wanted`."""
    region = gui.region("UI")
    for value in ("PRESS", "RELEASE"):
        gui._event("LEFTMOUSE", value, (region.x + 60, region.y + region.height - 14), ctrl=True)
        yield TURN_S
    yield 0.7
    _, bottom = yield from gui.find("wav2sem.filepath")
    for y in range(bottom - 40, bottom - 240, -10):
        place = (region.x + 60, y)
        yield from gui.click(place)
        yield 0.5
        if wanted in (yield from gui.controls(wanted=wanted, top=y)):
            yield from gui.move(gui.middle_of_view())
            return
        yield from gui.click(place)
        yield 0.5
    raise AssertionError(f"no panel shows {wanted}")


ALL: tuple[Scenario, ...] = (result_panel, takes_of_one_sound, reduce_ten_minutes, export_panel)
