# SPDX-License-Identifier: GPL-3.0-or-later
"""Characters of several meshes, halves, copies and linked ones: the lips that are seen open, and every part follows."""

from __future__ import annotations

import bpy
import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the bundled model needs ONNX Runtime")

from wav2sem_blender.assets import DEFAULT_MODEL  # noqa: E402
from wav2sem_blender.blender.ui import status  # noqa: E402

from . import characters, whole_characters  # noqa: E402, TID252

pytestmark = pytest.mark.skipif(
    not (DEFAULT_MODEL / "config.json").is_file(), reason="the repository has no bundled model"
)


def gap_m(face: bpy.types.Object, frame: int) -> float:
    """Height between the uppermost and the lowest seen point of a face's lips."""
    bpy.context.scene.frame_set(frame)
    seen = face.evaluated_get(bpy.context.evaluated_depsgraph_get()).to_mesh()
    points_V3 = np.empty((len(seen.vertices), 3), np.float32)
    seen.vertices.foreach_get("co", points_V3.ravel())
    lips = [material.name for material in face.data.materials].index("Demo Lips")
    used = np.unique([v for polygon in seen.polygons if polygon.material_index == lips for v in polygon.vertices])
    return float(np.ptp(points_V3[used, 2]))


@pytest.mark.parametrize("kind", whole_characters.WHOLE)
def test_a_whole_character_speaks(kind: str) -> None:
    face = whole_characters.WHOLE[kind]()
    assert status.face_words(bpy.context)[0][1] == "CHECKMARK" and not status.face_problem(bpy.context)
    characters.speak(face)
    spoken = characters.spoken()
    widest = 1 + int(spoken.weights_TK[:, spoken.channels.index("jawOpen")].argmax())
    assert gap_m(face, widest) > gap_m(face, 0) + 0.006
    for part in whole_characters.parts_of(face):
        animation, own = part.data.shape_keys.animation_data, face.data.shape_keys.animation_data
        assert animation.action == own.action, f"{part.name} keeps still"


def test_a_copys_twin_keeps_still() -> None:
    ben = whole_characters.duplicated()
    characters.speak(ben)
    anna = bpy.data.objects["Anna"]
    assert anna.data.shape_keys.animation_data is None
    assert gap_m(anna, 60) == gap_m(anna, 0)
