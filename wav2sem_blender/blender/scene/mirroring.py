# SPDX-License-Identifier: GPL-3.0-or-later
"""Half a head with a Mirror modifier: the whole that is seen, and a shape of the whole folded back onto the half.

Shapes: V vertices of the half, W of the whole, F triangles. Points are in the mesh's own space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from ...errors import UserError

# Channels that a mirror cannot show: both sides at once would be another motion.
TO_ONE_SIDE = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
# What lies nearer to the mirror than this share of the mesh's diagonal is on it; what is farther behind it makes the
# mesh more than a half.
_ON_MIRROR, _BEHIND_MIRROR = 1e-4, 0.01
# A mesh that has no point on the other side, and this share of its points on the middle, was cut there.
_CUT_SHARE = 0.002


@dataclass(frozen=True, kw_only=True, eq=False)
class Mirroring:
    """A reflection that completes a mesh.

    Attributes:
        reflection_44: The reflection.
        twin_V: Number of each vertex's image in the whole; its own for one that lies on the mirror.
    """

    reflection_44: np.ndarray
    twin_V: np.ndarray

    def whole(self, points_V3: np.ndarray, triangles_F3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points (W, 3) and triangles of both halves; the half's own come first."""
        images_V3 = points_V3 @ self.reflection_44[:3, :3].T + self.reflection_44[:3, 3]
        has_image_V = self.twin_V >= len(points_V3)
        points_W3 = np.concatenate([points_V3, images_V3[has_image_V]])
        return points_W3, np.concatenate([triangles_F3, self.twin_V[triangles_F3][:, ::-1]])

    def folded(self, offsets_W3: np.ndarray) -> np.ndarray:
        """Displacements (V, 3) of the half: the mean of both sides, which is all that a mirror can show.

        A smile of one side becomes half a smile of both, so that both sides' keys together are a whole one.
        """
        turned_W3 = offsets_W3 @ self.reflection_44[:3, :3].T
        return (offsets_W3[: len(self.twin_V)] + turned_W3[self.twin_V]) / 2


def mirroring_of(mesh: bpy.types.Object, points_V3: np.ndarray) -> Mirroring | None:
    """The reflection by which a Mirror modifier completes half a head; None where the mesh is whole.

    Raises:
        UserError: The mesh ends at its middle, and nothing completes it.
    """
    if len(points_V3) == 0:
        return None
    size = float(np.linalg.norm(np.ptp(points_V3, axis=0)))
    modifiers: list[Any] = [found for found in mesh.modifiers if found.type == "MIRROR" and found.show_viewport]
    for modifier in modifiers:
        axes = [axis for axis in range(3) if modifier.use_axis[axis] and not modifier.use_bisect_axis[axis]]
        if len(axes) != 1:
            continue
        reflection_44 = _reflection(mesh, modifier.mirror_object, axes[0])
        way_V3 = points_V3 @ (reflection_44[:3, :3] - np.eye(3)).T + reflection_44[:3, 3]
        side_V = way_V3 @ _normal(reflection_44) / 2
        if side_V.min() < -_BEHIND_MIRROR * size and side_V.max() > _BEHIND_MIRROR * size:
            continue  # the modifier makes a second head
        near = max(_ON_MIRROR * size, modifier.merge_threshold if modifier.use_mirror_merge else 0.0)
        has_image_V = np.abs(side_V) > near
        twin_V = np.where(has_image_V, len(points_V3) + np.cumsum(has_image_V) - 1, np.arange(len(points_V3)))
        return Mirroring(reflection_44=reflection_44, twin_V=twin_V)
    return None


def check_whole(mesh: bpy.types.Object, points_V3: np.ndarray) -> None:
    """Raise UserError for a mesh that was cut along its middle and that no Mirror modifier completes."""
    across_V, size = points_V3[:, 0], float(np.linalg.norm(np.ptp(points_V3, axis=0)))
    low, high = across_V.min(initial=0.0), across_V.max(initial=0.0)
    behind, before = sorted((-low, high))
    is_half = behind < _BEHIND_MIRROR * size < before
    if is_half and (np.abs(across_V) < _ON_MIRROR * size).mean() > _CUT_SHARE:
        raise UserError(
            '"{name}" is half a head: it ends at its middle. Add a Mirror modifier, or mirror the mesh, first.',
            name=mesh.name,
        )


def _normal(reflection_44: np.ndarray) -> np.ndarray:
    """The direction that a reflection turns round."""
    left, _, _ = np.linalg.svd(np.eye(3) - reflection_44[:3, :3])
    return np.asarray(left[:, 0])


def _reflection(mesh: bpy.types.Object, about: bpy.types.Object | None, axis: int) -> np.ndarray:
    """The reflection (4, 4) in the mesh's space, across an axis of the mesh or of the modifier's mirror object."""
    flip_44 = np.eye(4)
    flip_44[axis, axis] = -1.0
    if about is None:
        return flip_44
    to_mirror_44 = np.array(about.matrix_world.inverted() @ mesh.matrix_world)
    return np.asarray(np.linalg.inv(to_mirror_44) @ flip_44 @ to_mirror_44)
