# SPDX-License-Identifier: GPL-3.0-or-later
"""A second Blender, started by a scenario: it starts a job, reports its worker, and is then ended during the job.

blender --factory-startup --enable-event-simulate --python tests/gui/doomed.py -- NEWS {quit,close,kill}
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))

import stage  # noqa: E402
from harness import Gui, Steps, drive  # noqa: E402


def begin_and_end(gui: Gui, news: Path, way: str) -> Steps[None]:
    """Start a job, write its process and folders to `news`, and end in the given way."""
    assert bpy.ops.preferences.addon_enable(module=stage.MODULE) == {"FINISHED"}
    yield 0.5
    yield from stage.fresh_scene(gui)
    yield from stage.ready(gui, stage.demo_speech())
    # The scenario that ends this Blender wakes the worker.
    yield from stage.start_held(gui)
    client = stage.part("blender.animate.jobs")._client
    told = {"worker": client.pid, "session": str(client.folder), "temporary": bpy.app.tempdir}
    part = news.with_suffix(".part")
    part.write_text(json.dumps(told), encoding="utf-8")
    part.rename(news)
    with gui.override():
        if way == "quit":
            bpy.ops.wm.quit_blender()
        elif way == "close":
            bpy.ops.wm.window_close()
    yield 600.0


def main() -> None:
    """Read the command line and start the timer."""
    news, way = sys.argv[sys.argv.index("--") + 1 :]
    view = bpy.context.preferences.view
    view.show_splash = view.use_save_prompt = False

    def at_end(error: BaseException | None) -> None:
        traceback.print_exception(error)
        sys.stdout.flush()
        os._exit(1)  # the job did not start

    drive(begin_and_end(Gui(Path(news).parent), Path(news), way), at_end)


main()
