# SPDX-License-Identifier: GPL-3.0-or-later
"""Rendering for the demo: Workbench, which needs no GPU, a sound strip, and a progress bar."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy

from .. import compat

RESOLUTION_PX = 640


def set_frame_size(scene: bpy.types.Scene) -> None:
    """Make the video square."""
    scene.render.resolution_x = scene.render.resolution_y = RESOLUTION_PX
    scene.render.resolution_percentage = 100


def make_room_for_two(scene: bpy.types.Scene) -> None:
    """Make the video twice as wide, with the camera between both heads."""
    camera: Any = scene.camera
    camera.location.x += 0.21
    camera.data.lens /= 2  # the lens measures the longer side, so only the width doubles
    scene.render.resolution_x = 2 * RESOLUTION_PX


def render_film(scene: bpy.types.Scene, path: Path) -> None:
    """Render the scene's frames with its sound to an mp4."""
    _set_up(scene)
    compat.set_video_output(scene.render, path)
    n_frames = scene.frame_end - scene.frame_start + 1
    bar = ProgressBar("frames", n_frames)
    with _quiet():
        bpy.app.handlers.render_post.append(bar.advance)
        try:
            bpy.ops.render.render(animation=True)
        finally:
            bpy.app.handlers.render_post.remove(bar.advance)


def render_stills(scene: bpy.types.Scene, frames: list[int], size_px: int, folder: Path) -> list[Path]:
    """Render single frames as square PNG files of the demo head's face."""
    _set_up(scene)
    render = scene.render
    camera: Any = scene.camera
    render.resolution_x = render.resolution_y = size_px
    lens, location = camera.data.lens, camera.location.copy()
    camera.data.lens, camera.location.x, camera.data.shift_y = 150.0, 0.0, -0.1
    paths = []
    with _quiet():
        bar = ProgressBar("stills", len(frames))
        for frame in frames:
            scene.frame_set(frame)
            path = folder / f"still_{frame:05d}.png"
            compat.set_image_output(render, path)
            bpy.ops.render.render(write_still=True)
            paths.append(path)
            bar.advance()
    camera.data.lens, camera.location, camera.data.shift_y = lens, location, 0.0
    return paths


class ProgressBar:
    """A progress bar in the terminal, as the demo's environment has no package for one."""

    WIDTH = 30

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._start_s = time.monotonic()

    def advance(self, *_handler_arguments: object) -> None:
        """Count one step."""
        self._done += 1
        filled = "#" * (self.WIDTH * self._done // self._total)
        left_s = (time.monotonic() - self._start_s) / self._done * (self._total - self._done)
        line = f"demo: {self._name} [{filled:<{self.WIDTH}}] {self._done}/{self._total}, {left_s:.0f} s left "
        print(line, end="\n" if self._done == self._total else "\r", file=sys.stderr, flush=True)


def _set_up(scene: bpy.types.Scene) -> None:
    """Use Workbench without subdivision: a quarter of a second per frame on two cores."""
    render: Any = scene.render
    render.engine = "BLENDER_WORKBENCH"
    render.use_sequencer = False
    render.use_simplify = True
    render.simplify_subdivision_render = 0
    display: Any = scene.display
    display.render_aa = "5"


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard the lines that Blender writes to stdout for every frame."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)
