# SPDX-License-Identifier: GPL-3.0-or-later
"""Characters of every kind, built from the demo head, and what each can show: the table of the user guide.

    python tests/blender/characters.py --write      (with bpy and onnxruntime; replaces the table in docs/user-guide.md)

A kind's keys are the demo head's ARKit shapes, mixed as its rig or its visemes say. A shape that a rig has in halves or
quarters is split into equal parts. Each head speaks the demo sentence. Shapes: T frames, K keys, P pairs of lip points.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import bpy
import numpy as np

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import wav2sem_blender  # noqa: E402
from tests.unit import test_rig_names as rigs  # noqa: E402
from wav2sem_blender.assets import DEMO_HEAD, DEMO_SPEECH  # noqa: E402
from wav2sem_blender.blender.scene.demo_head import fill_mesh, make_material  # noqa: E402
from wav2sem_blender.blender.scene.write_motion import applying  # noqa: E402
from wav2sem_blender.blender.ui import status  # noqa: E402
from wav2sem_blender.pipeline.face_names import guess_key_map  # noqa: E402
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS, Motion  # noqa: E402
from wav2sem_blender.pipeline.time_slicing import at_once  # noqa: E402
from wav2sem_blender.pipeline.visemes import VISEME_SETS  # noqa: E402

GUIDE = ROOT / "docs" / "user-guide.md"
BEGIN, END = "<!-- characters: python tests/blender/characters.py --write -->", "<!-- end of characters -->"
CLOSED_MM, OPEN_MM = 1.0, 2.0


def spelled(visemes: str, spelling: str) -> list[str]:
    return [spelling.format(name) for name in VISEME_SETS[visemes].names]


KINDS: dict[str, list[str]] = {
    "ARKit, Apple's 52": list(ARKIT_CHANNELS),
    "ARKit without `mouthClose`": [name for name in ARKIT_CHANNELS if name != "mouthClose"],
    "Character Creator 4": rigs.CC4,
    "Character Creator 3": rigs.CC3,
    "DAZ Genesis 8.1": rigs.DAZ_81,
    "DAZ Genesis 9": rigs.DAZ_9,
    "Mixamo Fuse": rigs.FUSE,
    "SRanipal": rigs.SRANIPAL,
    "Unified Expressions": rigs.UNIFIED,
    "MetaHuman": rigs.METAHUMAN_DNA,
    "Ready Player Me, two keys": ["mouthOpen", "mouthSmile"],
    "Oculus visemes": spelled("OCULUS", "viseme_{}"),
    "VRChat": [*(f"vrc.v_{name.lower()}" for name in VISEME_SETS["OCULUS"].names), "vrc.blink_left", "vrc.blink_right"],
    "VRM": ["aa", "ih", "ou", "ee", "oh", "blinkLeft", "blinkRight"],
    "MikuMikuDance": ["あ", "い", "う", "え", "お", "まばたき"],
    "DAZ visemes": spelled("DAZ", "eCTRLv{}"),
    "Character Creator visemes": spelled("CHARACTER_CREATOR", "V_{}"),
    "Rhubarb": spelled("RHUBARB", "{}"),
    "Preston Blair": spelled("PRESTON_BLAIR", "{}"),
}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a character showed of the demo sentence; lengths in mm."""

    says: str
    opening: float
    closed: int
    n_closures: int
    rounding: float

    def row(self, kind: str) -> str:
        """A line of the table."""
        closed = f"{self.closed} of {self.n_closures}"
        return f"| {kind} | {self.says} | {self.opening:.1f} | {closed} | {self.rounding:+.1f} |"


@cache
def demo() -> dict[str, np.ndarray]:
    """The demo head's data."""
    with np.load(DEMO_HEAD, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@cache
def spoken() -> Motion:
    """The bundled model's demo sentence."""
    # tests/gui imports this module where the engine's libraries are not installed yet.
    from wav2sem_blender.pipeline import SpeechAnimator

    return SpeechAnimator.load("default", engine="onnx").animate_file(DEMO_SPEECH)


def arkit_offsets() -> dict[str, np.ndarray]:
    """The demo head's shapes (V, 3) in metres."""
    data, found = demo(), {}
    for index, name in enumerate(data["key_names"]):
        span = slice(int(data["key_starts"][index]), int(data["key_starts"][index + 1]))
        offset_V3 = np.zeros((len(data["points"]), 3), np.float32)
        offset_V3[data["key_vertices"][span]] = data["key_offsets"][span] * data["key_unit_m"]
        found[str(name)] = offset_V3
    return found


def offsets_of(keys: list[str]) -> dict[str, np.ndarray]:
    """The shape of each key of a kind."""
    arkit, table = arkit_offsets(), guess_key_map(keys)
    weights = VISEME_SETS[table.visemes].weights if table.visemes else {}
    shapes = {key: np.zeros_like(arkit["jawOpen"]) for key in keys}
    for row in table.rows:
        if row.channel in weights:
            shapes[row.key] += sum(weight * arkit[name] for name, weight in weights[row.channel].items())
        elif row.channel in arkit:
            n_keys = sum(other.channel == row.channel for other in table.rows)
            shapes[row.key] += arkit[row.channel] / (n_keys if row.gain == 1 else 1)
    return shapes


def build(name: str, keys: list[str], quads_F: np.ndarray | None = None) -> bpy.types.Object:
    """A head with these keys, in the scene's collection; `quads_F` (F,) says which of the demo head's quads it has."""
    data = demo()
    chosen_F = np.ones(len(data["quads"]), bool) if quads_F is None else quads_F
    used_V, quads_F4 = np.unique(data["quads"][chosen_F], return_inverse=True)
    mesh = bpy.data.meshes.new(name)
    fill_mesh(
        mesh,
        {
            "points": data["points"][used_V],
            "quads": quads_F4.reshape(-1, 4),
            "material": data["material"][chosen_F],
            "tint": data["tint"][used_V],
        },
    )
    for material in map(str, data["material_names"]):
        mesh.materials.append(_material(material))
    head = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(head)
    bpy.context.view_layer.objects.active = head
    head.shape_key_add(name="Basis", from_mix=False)
    for key, offset_V3 in offsets_of(keys).items():
        block = head.shape_key_add(name=key, from_mix=False)
        block.value = 0.0
        block.data.foreach_set("co", (data["points"] + offset_V3)[used_V].astype(np.float32).ravel())
    return head


def _material(name: str) -> bpy.types.Material:
    return bpy.data.materials.get(f"Demo {name.replace('_', ' ').title()}") or make_material(name)


def lips(head: bpy.types.Object, keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Largest gap between the lips, and how much wider they are than at rest, at every frame (T,), in mm."""
    pairs_P2 = demo()["lip_pairs"].astype(int)
    shapes, points_V3 = offsets_of(keys), demo()["points"]
    curves = head.data.shape_keys.animation_data.action.layers[0].strips[0].channelbags[0].fcurves
    first, last = (int(frame) for frame in head.data.shape_keys.animation_data.action.curve_frame_range)
    moved_TV3: np.ndarray = np.zeros((last - first + 1, pairs_P2.size, 3))
    for curve in curves:
        name = bpy.utils.unescape_identifier(curve.data_path.split('"', 1)[1].rpartition('"')[0])
        values_T = np.array([curve.evaluate(frame) for frame in range(first, last + 1)])
        moved_TV3 += values_T[:, None, None] * shapes[name][pairs_P2.ravel()]
    height_TP2 = moved_TV3[..., 2].reshape(len(moved_TV3), -1, 2)
    gap_T = 1000 * (height_TP2[..., 0] - height_TP2[..., 1]).max(1)
    x_TV = moved_TV3[..., 0] + points_V3[pairs_P2.ravel(), 0]
    rest_V = points_V3[pairs_P2.ravel(), 0]
    return gap_T.clip(0), 1000 * (np.ptp(x_TV, axis=1) - np.ptp(rest_V))


def speak(head: bpy.types.Object) -> None:
    """Write the demo sentence on a head, at 30 frames a second."""
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = 30, 1.0
    at_once(applying(bpy.context, head, spoken()))


def closures(gap_T: np.ndarray) -> list[slice]:
    """Runs of frames with closed lips that have open ones on both sides."""
    closed_T = np.flatnonzero(gap_T < CLOSED_MM)
    runs = np.split(closed_T, np.flatnonzero(np.diff(closed_T) > 1) + 1)
    return [
        slice(run[0], run[-1] + 1)
        for run in runs
        if len(run) and gap_T[: run[0]].max(initial=0) > OPEN_MM and gap_T[run[-1] :].max(initial=0) > OPEN_MM
    ]


@cache
def reference() -> tuple[list[slice], int]:
    """The closures of the head with all keys, and the frame at which its mouth is narrowest."""
    keys = KINDS["ARKit, Apple's 52"]
    head = build("Reference", keys)
    speak(head)
    gap_T, wider_T = lips(head, keys)
    bpy.data.objects.remove(head)
    return closures(gap_T), int(wider_T.argmin())


def shown(kind: str) -> Shown:
    """Build a character, let it speak, and measure it."""
    keys = KINDS[kind]
    head = build("Character", keys)
    says = status.face_words(bpy.context)[0][0]
    speak(head)
    gap_T, wider_T = lips(head, keys)
    runs, narrowest = reference()
    n_closed = sum(gap_T[max(0, run.start - 1) : run.stop + 1].min() < CLOSED_MM for run in runs)
    bpy.data.objects.remove(head)
    return Shown(
        says=says,
        opening=float(np.percentile(gap_T, 95)),
        closed=n_closed,
        n_closures=len(runs),
        rounding=float(wider_T[narrowest]),
    )


def table() -> str:
    """The table of all kinds, in Markdown."""
    titles = "| character | Face says | opening, mm (95th percentile) | closures closed | width in *oo*, mm |"
    return "\n".join([titles, "|---|---|---|---|---|", *(shown(kind).row(kind) for kind in KINDS)])


def main() -> int:
    """Print the table; --write puts it into the guide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    wav2sem_blender.register()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    text = table()
    print(text)
    if chosen.write:
        before, _, rest = GUIDE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        GUIDE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
