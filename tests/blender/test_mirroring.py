# SPDX-License-Identifier: GPL-3.0-or-later
"""Any Head on half a head: a Mirror modifier completes it, and without one the sentence names the remedy."""

from __future__ import annotations

from math import pi

import bpy
import numpy as np
import pytest

from wav2sem_blender.blender.scene import any_head, checks, mirroring

from . import whole_characters  # noqa: TID252
from .characters import arkit_offsets, build, demo  # noqa: TID252

WAYS = ["its own axis", "another object", "the other side"]


def half_head(way: str) -> bpy.types.Object:
    face = build("Half", [], whole_characters.half())
    face.shape_key_clear()
    points_V3 = checks.rest_points(face.data)
    modifier = face.modifiers.new("Mirror", "MIRROR")
    if way == "another object":
        middle = bpy.data.objects.new("Middle", None)
        bpy.context.scene.collection.objects.link(middle)
        middle.rotation_euler.z = pi / 2
        middle.location.x = face.location.x = 0.3
        modifier.use_axis, modifier.mirror_object = (False, True, False), middle
    if way == "the other side":
        points_V3[:, 0] *= -1
        face.data.vertices.foreach_set("co", points_V3.ravel())
        face.data.flip_normals()
    bpy.context.view_layer.update()
    bpy.context.view_layer.objects.active = face
    return face


def seen_by(face: bpy.types.Object, key: str) -> np.ndarray:
    """Displacement (N, 3) of what is seen at value 1, the mirrored half included."""
    seen = []
    for value in (0.0, 1.0):
        face.data.shape_keys.key_blocks[key].value = value
        evaluated = face.evaluated_get(bpy.context.evaluated_depsgraph_get())
        points_V3 = np.empty((len(evaluated.data.vertices), 3), np.float32)
        evaluated.data.vertices.foreach_get("co", points_V3.ravel())
        seen.append(points_V3)
    return seen[1] - seen[0]


def test_half_a_head_gets_the_keys_of_the_whole() -> None:
    face = half_head("another object")
    assert bpy.ops.wav2sem.create_speech_keys() == {"FINISHED"}
    blocks = face.data.shape_keys.key_blocks
    assert not set(mirroring.TO_ONE_SIDE) & set(blocks.keys())
    rest_V3 = checks.rest_points(face.data)
    used_V = np.unique(demo()["quads"][whole_characters.half()])
    for keys in (("jawOpen",), ("mouthSmileLeft", "mouthSmileRight"), ("mouthPucker",)):
        made_V3 = sum(np.array([point.co[:] for point in blocks[key].data]) - rest_V3 for key in keys)
        known_V3 = sum(arkit_offsets()[key] for key in keys)[used_V]
        moved_V = np.linalg.norm(known_V3, axis=1) > 0.002
        error_V = np.linalg.norm(made_V3 - known_V3, axis=1)[moved_V]
        assert np.median(error_V) < 0.5 * np.median(np.linalg.norm(known_V3[moved_V], axis=1)), keys
        assert np.abs(made_V3[np.abs(rest_V3[:, 0]) < 1e-6, 0]).max() < 1e-7, "the seam stays closed"
    lowered_N = seen_by(face, "jawOpen")[:, 2] < -0.02
    assert lowered_N.sum() > 1.8 * lowered_N[: len(rest_V3)].sum() > 100, "both sides of the jaw go down"


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_and_its_folding(way: str) -> None:
    face = half_head(way)
    part = any_head.gather(face, bpy.context).parts[0]
    points_N3, triangles_F3 = part.seen()
    assert len(triangles_F3) == 2 * len(part.triangles_F3) and len(points_N3) < 2 * len(part.rest_V3)
    np.testing.assert_allclose(points_N3.min(0)[0], -points_N3.max(0)[0], atol=1e-5)
    normals_F3 = np.cross(*(points_N3[triangles_F3[:, i]] - points_N3[triangles_F3[:, 0]] for i in (1, 2)))
    outwards = (normals_F3 * points_N3[triangles_F3[:, 0]] * [1, 0, 0]).sum(1).reshape(2, -1).sum(1)
    assert np.sign(outwards[0]) == np.sign(outwards[1]), "both halves face the same way"
    aside_N3 = np.broadcast_to(np.array([0.01, 0.02, 0.03]), points_N3.shape)
    np.testing.assert_allclose(part.mirroring.folded(aside_N3), aside_N3[: len(part.rest_V3)] * [0, 1, 1], atol=1e-7)


def test_the_sentence_says_what_a_mirror_cannot_show() -> None:
    face = half_head("its own axis")
    shapes = [{"jawOpen": checks.rest_points(face.data)}]
    said = any_head._write_all(any_head.gather(face, bpy.context).parts, shapes)
    assert str(said).endswith("a Mirror modifier completes it, so nothing moves to one side")


@pytest.mark.parametrize("operator", ["place_landmarks", "create_speech_keys"])
def test_half_a_head_alone_is_named(operator: str) -> None:
    face = half_head("its own axis")
    face.modifiers.clear()
    with pytest.raises(RuntimeError, match='"Half" is half a head: it ends at its middle. Add a Mirror modifier'):
        getattr(bpy.ops.wav2sem, operator)()
    assert face.data.shape_keys is None and not face.children


def test_a_modifier_that_makes_a_second_head_mirrors_nothing() -> None:
    face = build("Whole", [])
    modifier = face.modifiers.new("Mirror", "MIRROR")
    points_V3 = checks.rest_points(face.data)
    assert mirroring.mirroring_of(face, points_V3) is None
    mirroring.check_whole(face, points_V3)
    modifier.use_axis = (True, True, False)
    assert mirroring.mirroring_of(face, points_V3[points_V3[:, 0] > 0]) is None, "two mirrors make four quarters"
