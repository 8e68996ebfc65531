# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m wav2sem_blender.blender.demo`: makes a video of a speaking face; `nox -s demo` runs it.

Writes demo.blend, demo.mp4 (with sound), contact_sheet.png and report.json. Needs Blender as a module (`pip install
bpy`); the animation itself goes through the same operator as in the interface.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ...assets import DEMO_SPEECH
from ...errors import report
from ...files import FolderKind
from .. import compat, registration
from ..scene.demo_head import add_sound, build_demo_head, build_stage
from ..scene.upper_face_strips import animated_keys, strips_on
from . import contact_sheet, film, flame_head, mouth

FPS = 30
FIRST_FRAME = 1
FOLDER = FolderKind(
    made_by="the demo", names=("demo.blend", "demo.blend1", "demo.mp4", "contact_sheet.png", "report.json")
)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _parser().parse_args(arguments)
    registration.register()
    try:
        result = run_demo(options.speech.absolute(), options.mesh, options.output.absolute(), options.model)
    except Exception as error:
        # bpy raises an operator's error report as a RuntimeError.
        text = str(error).strip() if isinstance(error, RuntimeError) else report(error)
        print(f"demo: {text}", file=sys.stderr)
        return 1
    finally:
        registration.unregister()
    print(f"demo: {options.output} is ready after {result['timings_s']['total']:.0f} s")
    return 0


def run_demo(speech: Path, mesh: Path | None, output: Path, model: str = "default") -> dict[str, Any]:
    """Build the scene, animate it, render it and write the report.

    Args:
        speech: Audio file.
        mesh: A FLAME mesh (.obj, .ply, or .npz with v_template and faces) to animate as well, or None.
        output: Folder for the four files; created if missing.
        model: Name or folder of the model.

    Returns:
        The report.

    Raises:
        UserError, OSError, RuntimeError: The speech, the mesh or the model cannot be used.
    """
    FOLDER.claim(output)
    timings = Timings()
    with timings.stage("build the scene"):
        scene = _new_scene()
        heads = [build_demo_head()]
        build_stage(scene)
        film.set_frame_size(scene)
        if mesh is not None:
            heads.append(flame_head.add_flame_head(mesh))
            film.make_room_for_two(scene)
    for head in heads:
        with timings.stage(f"animate {head.name}"):
            scene.wav2sem_upper_face.sway_object = head
            bpy.ops.wav2sem.animate(  # type: ignore[attr-defined]
                filepath=str(speech), object=head.name, model=model, start_frame=FIRST_FRAME, upper_face=True
            )
    with timings.stage("measure the mouth"):
        n_frames = _animated_frames(heads[0])
        scene.frame_start, scene.frame_end = FIRST_FRAME, FIRST_FRAME + n_frames - 1
        measured = mouth.measure(heads[0], speech, n_frames, FPS, FIRST_FRAME)
    with timings.stage("save demo.blend"):
        add_sound(scene, speech, FIRST_FRAME)
        bpy.ops.wm.save_as_mainfile(filepath=str(output / "demo.blend"), check_existing=False)
    with timings.stage("render demo.mp4"):
        film.render_film(scene, output / "demo.mp4")
    with timings.stage("draw contact_sheet.png"):
        contact_sheet.draw_contact_sheet(scene, measured, output / "contact_sheet.png")
    result = _report(heads, speech, measured, timings)
    (output / "report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


class Timings:
    """Seconds of each stage, which is also announced."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage."""
        print(f"demo: {name} …", file=sys.stderr, flush=True)
        start_s = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start_s, 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--speech", type=Path, default=DEMO_SPEECH, help="audio file (default: the bundled one)")
    parser.add_argument("--mesh", type=Path, help="FLAME mesh to animate too: .obj, .ply, .npz")
    parser.add_argument("--model", default="default", help="model folder (default: the bundled one)")
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder (default: out/demo)")
    return parser


def _new_scene() -> bpy.types.Scene:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = FPS, 1.0
    return scene


def _animated_frames(head: bpy.types.Object) -> int:
    animation: Any = head.data.shape_keys.animation_data
    first, last = animation.action.curve_frame_range
    return round(last - first) + 1


def _report(
    heads: list[bpy.types.Object], speech: Path, measured: mouth.MouthMotion, timings: Timings
) -> dict[str, Any]:
    return {
        "timings_s": {**timings.seconds, "total": round(sum(timings.seconds.values()), 2)},
        "versions": {
            "wav2sem_blender": compat.addon_version(),
            "blender": bpy.app.version_string,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
        "speech": {"file": speech.name, "duration_s": round(measured.speech_duration_s, 3)},
        "heads": [_head_report(head) for head in heads],
        "mouth": measured.statistics(),
    }


def _head_report(head: bpy.types.Object) -> dict[str, Any]:
    keys = head.data.shape_keys
    animation: Any = keys.animation_data
    action = animation.action
    bag = compat.channelbag(action, animation.action_slot)
    return {
        "object": head.name,
        "vertices": len(head.data.vertices),
        "shape_keys": len(keys.key_blocks) - 1,
        "curves": len(bag.fcurves),
        "keyframes": sum(len(curve.keyframe_points) for curve in bag.fcurves),
        "upper_face": sorted({key for *_, strip in strips_on(keys) for key in animated_keys(strip.action)}),
        "action": action.name,
        "model": action["wav2sem_model"],
        "weights_sha256": action["wav2sem_weights_sha256"],
        "audio_sha256": action["wav2sem_audio_sha256"],
        "settings": json.loads(action["wav2sem_settings"]),
    }


if __name__ == "__main__":
    sys.exit(main())
