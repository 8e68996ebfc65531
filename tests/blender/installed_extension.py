# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the extension's zip as a user would, animate the demo head and check every value, without torch.

    BLENDER_USER_RESOURCES=DIR python tests/blender/installed_extension.py ZIP [--worker-python PYTHON]
    blender --background --python tests/blender/installed_extension.py -- --installed bl_ext.REPOSITORY.wav2sem_blender

`nox -s blender` runs it once per supported Blender. It is a program, not a test module, because the installed extension
and the checkout's package must not be in one process. With --installed the extension is already installed from a
repository and enabled. With --worker-python the add-on's preferences name that Python, which animates the same speech
with torch; Blender's own process still has none.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import bpy
import numpy as np

# The reference is computed with other BLAS threads; the 8-bit graph makes more of the last digit than float32 would.
ROUNDING = 0.005
EDGE = 8  # frames
START_FRAME = 10
# Largest difference between both engines, as a share of the motion's scale: 8 bits against float32, measured 0.012.
ENGINE_TOLERANCE = 0.05

record = runpy.run_path(str(Path(__file__).parents[1] / "versions.py"))["record"]

# Runs the installed pipeline without Blender and the add-on; the curves must show its result.
REFERENCE = """
import importlib.util, sys
folder, wheels, speech, result = sys.argv[1:]
sys.path.append(wheels)
spec = importlib.util.spec_from_file_location("installed", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["installed"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["installed"])
from installed.pipeline import SpeechAnimator
SpeechAnimator.load("default", engine="onnx").animate_file(speech).save(result)
assert "torch" not in sys.modules
"""


def install(archive: Path) -> None:
    """Install and enable the zip."""
    Path(os.environ["BLENDER_USER_RESOURCES"]).mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    result = bpy.ops.extensions.package_install_files(
        filepath=str(archive), repo="user_default", enable_on_install=True, overwrite=True
    )
    assert result == {"FINISHED"}, result


def package_folder(module: str) -> Path:
    """Folder of the installed and enabled package, which must not be the checkout."""
    assert importlib.util.find_spec("wav2sem_blender") is None, "the checkout must not be importable here"
    assert module in bpy.context.preferences.addons, f"{module} is not enabled"
    resources = Path(os.environ["BLENDER_USER_RESOURCES"]).resolve()
    folder = Path(str(importlib.import_module(module).__file__)).parent
    assert folder.is_relative_to(resources), f"{folder} is not below {resources}"
    return folder


def wheels_folder() -> Path:
    """Folder of the extension's wheels, from which onnxruntime must come; torch must not be importable."""
    assert importlib.util.find_spec("torch") is None, "torch is importable in Blender's process"
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None, "the extension's wheels are not importable"
    folder = Path(spec.origin).parents[1]
    assert folder.is_relative_to(Path(os.environ["BLENDER_USER_RESOURCES"]).resolve()), (
        f"onnxruntime comes from {folder}"
    )
    return folder


def reference_motion(
    module: str, package: Path, wheels: Path, speech: Path
) -> tuple[np.ndarray, tuple[str, ...], float]:
    """Return the weights (T, K), channels and rate of the installed pipeline alone, at rest at both ends."""
    with tempfile.TemporaryDirectory() as temp:
        result = Path(temp) / "motion.npz"
        command = [sys.executable, "-c", REFERENCE, str(package), str(wheels), str(speech), str(result)]
        subprocess.run(command, check=True, cwd=temp)
        motion = importlib.import_module(f"{module}.pipeline.motion").Motion.load(result)
    retarget = importlib.import_module(f"{module}.pipeline.retarget")
    motion = retarget.rested(retarget.covering(motion))  # as a face gets it
    return motion.weights_TK, motion.channels, motion.fps


def animate(head: bpy.types.Object, speech: Path, engine: str) -> bpy.types.Action:
    """Run the operator and return the action that it made."""
    result = bpy.ops.wav2sem.animate(
        filepath=str(speech), object=head.name, start_frame=START_FRAME, engine=engine, device="cpu"
    )
    assert result == {"FINISHED"}, result
    return head.data.shape_keys.animation_data.action


def curve_points(compat: ModuleType, head: bpy.types.Object, channel: str) -> np.ndarray:
    """The keys (N, 2) of one channel's curve: scene frame, value."""
    animation = head.data.shape_keys.animation_data
    curves = compat.channelbag(animation.action, animation.action_slot).fcurves
    curve = curves.find(f'key_blocks["{channel}"].value')
    assert curve is not None, f"no curve for {channel}"
    co = np.empty(2 * len(curve.keyframe_points), np.float32)
    curve.keyframe_points.foreach_get("co", co)
    return co.reshape(-1, 2)


def check_curves(compat: ModuleType, head: bpy.types.Object, weights_TK, channels) -> float:
    """In a scene of the motion's rate, each curve is the reference motion; returns the largest difference."""
    worst = 0.0
    for k, channel in enumerate(channels):
        points = curve_points(compat, head, channel)
        assert (points[:, 0] == START_FRAME + np.arange(len(weights_TK))).all(), f"{channel}: wrong frames"
        worst = max(worst, float(np.abs(points[:, 1] - weights_TK[:, k]).max()))
    assert worst <= ROUNDING, f"curves differ from the motion by {worst}"
    return worst


def check_seconds(
    compat: ModuleType, head: bpy.types.Object, weights_TK, channels, fps: float, rounding: float
) -> None:
    """In a scene of another rate, each key lies within the motion's values half a frame around its second."""
    scene_fps = bpy.context.scene.render.fps / bpy.context.scene.render.fps_base
    for k, channel in enumerate(channels):
        points = curve_points(compat, head, channel)
        assert abs(len(points) / scene_fps - len(weights_TK) / fps) <= 1 / scene_fps, f"{channel}: length"
        positions = (points[:, 0] - START_FRAME) / scene_fps * fps
        half = 0.5 * fps / scene_fps + 1e-4
        first = np.clip(np.floor(positions - half).astype(int), 0, len(weights_TK) - 1)
        last = np.clip(np.ceil(positions + half).astype(int), 0, len(weights_TK) - 1)
        inner = slice(EDGE, -EDGE)  # at its ends a face rests, in frames of the scene
        for value, start, stop in zip(points[inner, 1], first[inner], last[inner], strict=True):
            around = weights_TK[start : stop + 1, k]
            assert around.min() - rounding <= value <= around.max() + rounding, f"{channel}: seconds are not kept"


def vertices_of(coordinates) -> np.ndarray:
    """Float32 (V, 3) of a `vertices` or shape-key `data` collection."""
    values = np.empty(3 * len(coordinates), np.float32)
    coordinates.foreach_get("co", values)
    return values.reshape(-1, 3)


def check_vertices(head: bpy.types.Object, frame: int) -> float:
    """The evaluated mesh is the basis plus the weighted keys; returns its distance from rest in metres."""
    for modifier in head.modifiers:
        modifier.show_viewport = False
    bpy.context.scene.frame_set(frame)
    evaluated = head.evaluated_get(bpy.context.evaluated_depsgraph_get())
    actual_V3 = vertices_of(evaluated.data.vertices)
    blocks = head.data.shape_keys.key_blocks
    rest_V3 = vertices_of(blocks[0].data)
    expected_V3 = rest_V3.copy()
    for block in blocks[1:]:
        if block.value:
            expected_V3 += block.value * (vertices_of(block.data) - rest_V3)
    difference = float(np.abs(actual_V3 - expected_V3).max())
    assert difference <= 1e-5, f"frame {frame}: evaluated vertices are {difference} m off"
    return float(np.linalg.norm(actual_V3 - rest_V3, axis=1).max())


def written(package: Path) -> dict[str, int]:
    """Modification time of each file of the installed extension in ns, except Python's cache."""
    files = (path for path in package.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(package).as_posix(): path.stat().st_mtime_ns for path in files}


def check_batch(module: str, head: bpy.types.Object, speech: Path, folder: Path) -> None:
    """Make a night of a scene and a line of curves, with the workers of the installed extension."""
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "hero.blend"))
    rows = ("audio,output,character,object", f"{speech},scene,hero.blend,{head.name}", f"{speech},curves,,")
    (folder / "night.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    night = importlib.import_module(f"{module}.blender.animate.batch_command").run_command
    command = [str(folder / "night.csv"), "--output", str(folder / "night"), "--format", "blend,glb", "--jobs", "2"]
    assert night(command) == 0, "the batch failed"
    made = {path.name for path in (folder / "night").glob("[a-z]*")}
    assert made == {"scene.blend", "scene.glb", "curves.npz", "report.jsonl", "report.html"}, made
    assert night(command) == 0
    print("batch: a scene and a line of curves")


def main() -> None:
    """Install, animate, check, and disable the add-on."""
    parser = argparse.ArgumentParser()
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("archive", type=Path, nargs="?", help="the zip")
    source.add_argument("--installed", metavar="MODULE", help="the extension's module where it is installed already")
    parser.add_argument("--worker-python", default="", help="a Python with torch for the add-on's preference")
    chosen = parser.parse_args(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else None)

    check = "repository" if chosen.installed else "zip"
    record(check, failed=1)
    if not chosen.installed:
        install(chosen.archive.resolve())
    module = chosen.installed or "bl_ext.user_default.wav2sem_blender"
    package, wheels = package_folder(module), wheels_folder()
    as_installed = written(package)
    speech = package / "assets" / "demo_speech.flac"
    weights_TK, channels, fps = reference_motion(module, package, wheels, speech)
    scale = float(np.abs(weights_TK).max())
    assert scale > 0.05, "the reference motion does not move"

    compat = importlib.import_module(f"{module}.blender.compat")
    head = importlib.import_module(f"{module}.blender.scene.demo_head").build_demo_head()
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = round(fps), 1.0
    action = animate(head, speech, "onnx")
    difference = check_curves(compat, head, weights_TK, channels)
    points = curve_points(compat, head, "jawOpen")
    widest = int(points[points[:, 1].argmax(), 0])
    moved_m = check_vertices(head, widest)
    assert moved_m > 1e-3, f"the face moves by {moved_m} m at frame {widest}, where the jaw is widest open"
    engine = json.loads(action["wav2sem_settings"])["engine"]
    assert engine == "onnx", engine
    print(f"onnx: {len(channels)} curves, off by {difference:.1e}; frame {widest} moves {1000 * moved_m:.1f} mm")

    if chosen.worker_python:
        bpy.context.preferences.addons[module].preferences.torch_python = chosen.worker_python
        onnx_values = np.stack([curve_points(compat, head, name)[:, 1] for name in channels], 1)
        action = animate(head, speech, "torch")
        engine = json.loads(action["wav2sem_settings"])["engine"]
        assert engine == "torch", engine
        torch_values = np.stack([curve_points(compat, head, name)[:, 1] for name in channels], 1)
        difference = float(np.abs(torch_values - onnx_values).max()) / scale
        assert difference <= ENGINE_TOLERANCE, f"torch differs from onnx by {difference} of the motion's scale"
        print(f"torch in {chosen.worker_python}: differs from onnx by {difference:.1e} of the motion's scale")

    bpy.context.scene.render.fps = 24
    animate(head, speech, "onnx" if not chosen.worker_python else "torch")
    rounding = ENGINE_TOLERANCE * scale if chosen.worker_python else ROUNDING
    check_seconds(compat, head, weights_TK, channels, fps, rounding)

    with tempfile.TemporaryDirectory() as folder:
        check_batch(module, head, speech, Path(folder))
    assert not {"torch", "onnxruntime", "soundfile", "soxr"} & set(sys.modules), "an engine got into Blender's process"
    assert written(package) == as_installed, "the extension wrote into its own folder"
    bpy.ops.preferences.addon_disable(module=module)
    assert not hasattr(bpy.types, "WAV2SEM_OT_animate"), "the operator outlives the add-on"
    record(check, passed=1)
    came_from = chosen.installed or chosen.archive.name
    print(f"OK: Blender {bpy.app.version_string}, Python {sys.version.split()[0]}, {came_from}")


if __name__ == "__main__":
    main()
