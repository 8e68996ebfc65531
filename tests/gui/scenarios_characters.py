# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of character speaks the demo sentence; the guide shows each at an "ah", an "oo" and a "p"."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from math import radians
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import stage
from checks import Figures, Scenario
from harness import TURN_S, Gui, Steps
from mathutils import Euler

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.blender import characters, whole_characters  # noqa: E402

# Times of the demo sentence: "five", "move" and "paper".
WHEN_S = {"ah": 3.97, "oo": 3.63, "p": 1.03}
OPEN_MM, CLOSED_MM, NARROWER_MM = 5.0, 1.5, 5.0
# A face whose keys cannot show it.
CANNOT_ROUND = ("Ready Player Me, two keys", "Mixamo, `MouthOpen` alone")
FOLDER, SHEET = "guide", "characters.png"
# The face in the view: where it looks and how far away, in metres; its place in the window and its size in the sheet.
_LOOK_AT_M, _FROM_M = (0.0, 0.0, 0.255), 0.44
_SHOT_PX, _FACE_PX = (300, 360), (100, 120)
_COLUMNS, _COLOURS = 4, 64
_TABS_PX = 30
_BELOW_FACE = "wav2sem.same_collection"
GREY = "#303030"
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"


def guide_characters(gui: Gui) -> Steps[Figures]:
    """A click animates each; the lips that are seen open, round and close, and every part plays the same action."""
    _undress(gui)
    yield from stage.choose_audio(gui, stage.demo_speech())
    cells, figures, below = [], {}, 0
    for number, (kind, add) in enumerate(_kinds().items()):
        with gui.override():
            _clear()
            face = add()
            face.select_set(True)
            bpy.ops.ed.undo_push(message="Add Character")
        _look_at(gui, face)
        yield 4 * TURN_S
        name = face.name
        rest = _mouth_mm(gui, name, 0)
        panel, end = yield from _shoot_panel(gui, number)
        # The panels between do not change, so the button lies always as far below.
        if stage.ANIMATE in gui._places and below:
            gui._places[stage.ANIMATE] = (gui._places[stage.ANIMATE][0], end - below)
        yield from stage.press_animate(gui)
        below = end - gui._places[stage.ANIMATE][1]
        yield from gui.until(lambda name=name: _action(name) is not None and not stage.running(), f"{kind} speaks", 60)
        shots, seen = [], {}
        for sound, when_s in WHEN_S.items():
            scene = gui.window.scene
            frame = round(1 + when_s * scene.render.fps / scene.render.fps_base)
            seen[sound] = _mouth_mm(gui, name, frame) - rest
            shots.append((yield from _shoot_face(gui, number, sound)))
        cells.append(_cell(gui, number, kind, shots, panel))
        figures[kind] = ", ".join(f"{sound} {high:+.1f} high {wide:+.1f} wide" for sound, (high, wide) in seen.items())
        print(f"gui: {kind}: {figures[kind]}", flush=True)
        assert seen["ah"][0] > OPEN_MM, f'"{kind}" does not open its mouth: {figures[kind]}'
        assert seen["p"][0] < CLOSED_MM, f'"{kind}" does not close its lips: {figures[kind]}'
        assert seen["oo"][1] < -NARROWER_MM or kind in CANNOT_ROUND, f'"{kind}" does not round: {figures[kind]}'
        for part in whole_characters.parts_of(bpy.data.objects[name]):
            assert _action(part.name) == _action(name), f'"{kind}": {part.name} keeps still'
    _sheet(gui, cells)
    return figures


def _kinds() -> dict[str, Callable[[], Any]]:
    """A builder for each kind, by its title."""
    of_one_mesh = {kind: lambda keys=keys: characters.build("Head", keys) for kind, keys in characters.KINDS.items()}
    return {**of_one_mesh, **whole_characters.WHOLE}


def _clear() -> None:
    bpy.data.batch_remove([*bpy.data.objects, *bpy.data.meshes, *bpy.data.armatures, *bpy.data.libraries])


def _undress(gui: Gui) -> None:
    """Leave the face alone in the view, in its own colours."""
    space = gui.area.spaces.active
    space.overlay.show_overlays = space.show_gizmo = False
    space.shading.color_type = "MATERIAL"


def _look_at(gui: Gui, face: Any) -> None:
    view = gui.area.spaces.active.region_3d
    view.view_perspective = "ORTHO"
    view.view_rotation = Euler((radians(90), 0, 0)).to_quaternion()
    view.view_location = [a + b for a, b in zip(_LOOK_AT_M, face.matrix_world.translation, strict=True)]
    view.view_distance = _FROM_M


def _action(name: str) -> Any:
    keys = bpy.data.objects[name].data.shape_keys
    return keys.animation_data.action if keys.animation_data is not None else None


def _mouth_mm(gui: Gui, name: str, frame: int) -> np.ndarray:
    """Height and width of the lips that are seen at a frame."""
    gui.window.scene.frame_set(frame)
    with gui.override():
        face = bpy.data.objects[name].evaluated_get(bpy.context.evaluated_depsgraph_get())
    points_V3 = np.empty((len(face.data.vertices), 3), np.float32)
    face.data.vertices.foreach_get("co", points_V3.ravel())
    lips = [material.name for material in face.data.materials].index("Demo Lips")
    of_lips = [polygon.vertices[:] for polygon in face.data.polygons if polygon.material_index == lips]
    return 1000 * np.ptp(points_V3[np.unique(of_lips)][:, [2, 0]], axis=0)


def _shoot_face(gui: Gui, number: int, sound: str) -> Steps[Path]:
    gui.area.tag_redraw()
    yield 4 * TURN_S
    region, (width, height) = gui.region(), _SHOT_PX
    left, bottom = region.x + (region.width - width) // 2, region.y + (region.height - height) // 2
    file = gui.folder / f"character_{number:02d}_{sound}.png"
    size = f"{_FACE_PX[0]}x{_FACE_PX[1]}!"
    yield from _shoot(gui, file, (left, bottom, width, height), "-resize", size)
    return file


def _shoot_panel(gui: Gui, number: int) -> Steps[tuple[Path, int]]:
    """What the Face panel says, from the mesh down to the parts; and where that ends in the window."""
    top = (yield from gui.find("wav2sem.target"))[1]
    found = yield from gui.controls(wanted=_BELOW_FACE, top=top)
    x, bottom = found[_BELOW_FACE]
    while (yield from gui._control_at((x, bottom + 1))) == _BELOW_FACE:
        bottom += 1
    yield from gui.move(gui.middle_of_view())
    yield 4 * TURN_S
    region, file = gui.region("UI"), gui.folder / f"character_{number:02d}_panel.png"
    box = (region.x, bottom + 1, region.width - _TABS_PX, top + 12 - bottom)
    yield from _shoot(gui, file, box, "-background", GREY, "-extent", f"{_width()}x0")
    return file, bottom


def _shoot(gui: Gui, file: Path, box: tuple[int, int, int, int], *look: str) -> Steps[None]:
    """Take a picture of a part of the window: left, bottom, width, height."""
    left, bottom, width, height = box
    place = f"{width}x{height}+{left}+{gui.window.height - bottom - height}"
    _run("import", "-window", "root", "-crop", place, "+repage", file)
    _run("convert", file, *look, file)
    yield 0.0


def _cell(gui: Gui, number: int, kind: str, shots: list[Path], panel: Path) -> Path:
    file = gui.folder / f"character_{number:02d}.png"
    title = f"label: {kind.replace('`', '')}"
    look = ["-background", GREY, "-fill", "white", "-font", FONT, "-pointsize", "13", "-gravity", "West"]
    _run("convert", *look, "-size", f"{_width()}x20", title, "(", *shots, "+append", ")", panel, "-append", file)
    return file


def _width() -> int:
    """Width of a character in the sheet, in pixels."""
    return len(WHEN_S) * _FACE_PX[0]


def _sheet(gui: Gui, cells: list[Path]) -> None:
    """Put the characters side by side; a row is as high as its highest."""
    rows = []
    for first in range(0, len(cells), _COLUMNS):
        rows.append(gui.folder / f"characters_{first:02d}.png")
        _run("convert", "-background", GREY, "-gravity", "North", *cells[first : first + _COLUMNS], "-bordercolor",
             GREY, "-border", "4x3", "+append", rows[-1])  # fmt: skip
    (gui.folder / FOLDER).mkdir(exist_ok=True)
    few = ["-strip", "-dither", "None", "-colors", str(_COLOURS), "-define", "png:compression-level=9"]
    west = ["-background", GREY, "-gravity", "West"]
    _run("convert", *west, *rows, "-append", *few, f"PNG8:{gui.folder / FOLDER / SHEET}")


def _run(*line: object) -> None:
    done = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    assert done.returncode == 0, f"{line[0]}: {done.stderr}"


ALL: tuple[Scenario, ...] = (guide_characters,)
