# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person does with the add-on, each from a fresh scene, with the scene checked after every step."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
from harness import Gui, Steps
from state import difference, snapshot

ANIMATE = "wav2sem.animate"
Scenario = Callable[[Gui, Path], Steps[dict[str, Any]]]


def fresh_scene(gui: Gui) -> Steps[None]:
    """Open Blender's own first scene, as after a start."""
    with gui.override():
        bpy.ops.wm.read_homefile(use_factory_startup=True)
    yield 0.5


def first_start(gui: Gui, package: Path) -> Steps[dict[str, Any]]:
    """The panel as a newcomer sees it."""
    yield from gui.open_sidebar("Speech")
    yield from gui.picture("first_start")
    controls = yield from gui.controls()
    print(controls)
    return {"controls": len(controls)}


ALL: tuple[Scenario, ...] = (first_start,)
