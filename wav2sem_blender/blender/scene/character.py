# SPDX-License-Identifier: GPL-3.0-or-later
"""A head with its teeth, eyes and other parts, read as one mesh in world space: the parts may be objects of their own.

Half a head with a Mirror modifier is read as the whole head that is seen.

Shapes: N vertices of all parts, V of one, F triangles, K channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import bpy
import numpy as np

from ...errors import UserError
from ...pipeline.any_head.landmarks import guess_landmarks
from ...pipeline.any_head.transfer import TemplateFace
from ...pipeline.time_slicing import Progress
from .checks import rest_points
from .mirroring import TO_ONE_SIDE, Mirroring, check_whole, mirroring_of

MAX_VERTICES = 400_000  # of a character; more takes minutes and gigabytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """What a mesh was like when it was gathered; `uid` is its session_uid, which survives rename and undo.

    Where a Mirror modifier completes the mesh, `mirroring` says how; the points and triangles are those of the mesh.
    """

    uid: int
    name: str
    world_44: np.ndarray
    rest_V3: np.ndarray
    triangles_F3: np.ndarray
    keys: tuple[str, ...]
    mirroring: Mirroring | None

    @classmethod
    def of(cls, mesh: bpy.types.Object) -> Part:
        """Read a mesh."""
        keys, rest_V3 = mesh.data.shape_keys, rest_points(mesh.data)
        return cls(
            uid=mesh.session_uid,
            name=mesh.name,
            world_44=np.array(mesh.matrix_world),
            rest_V3=rest_V3,
            triangles_F3=_triangles(mesh.data),
            keys=tuple(keys.key_blocks.keys()) if keys else (),
            mirroring=mirroring_of(mesh, rest_V3),
        )

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, 3) and triangles (F, 3) of the whole mesh that is seen, in its own space."""
        if self.mirroring is None:
            return self.rest_V3, self.triangles_F3
        return self.mirroring.whole(self.rest_V3, self.triangles_F3)

    def shapes(
        self, offsets_KN3: np.ndarray, channels: tuple[str, ...], negligible: float, *, keep_all: bool
    ) -> dict[str, np.ndarray]:
        """Points (V, 3) of the part in the shape of each channel, in its own space.

        Args:
            offsets_KN3: Displacement of the seen points by each channel, in world space.
            channels: Names of the channels.
            negligible: A channel that moves no point farther than this is left out.
            keep_all: Keep those channels, too. What a mirror cannot show is always left out.
        """
        to_local_33 = np.linalg.inv(self.world_44[:3, :3]).T
        shapes = {}
        for name, offsets_N3 in zip(channels, offsets_KN3, strict=True):
            if self.mirroring is not None and name in TO_ONE_SIDE:
                continue
            if keep_all or np.abs(offsets_N3).max() > negligible:
                own_N3 = offsets_N3 @ to_local_33
                own_V3 = own_N3 if self.mirroring is None else self.mirroring.folded(own_N3)
                shapes[name] = (self.rest_V3 + own_V3).astype(np.float32)
        return shapes

    def unchanged(self) -> bpy.types.Object:
        """Look the object up. It may have been moved and renamed since.

        Raises:
            UserError: It was removed, or its points, faces or keys changed.
        """
        mesh = next((found for found in bpy.data.objects if found.session_uid == self.uid), None)
        if mesh is None:
            raise UserError(
                '"{name}" was removed meanwhile, so nothing was changed. Undo that and start again.',
                name=self.name,
            )
        now = Part.of(mesh)
        if (
            mesh.mode in {"EDIT", "SCULPT"}
            or now.keys != self.keys
            or not np.array_equal(now.rest_V3, self.rest_V3)
            or not np.array_equal(now.triangles_F3, self.triangles_F3)
        ):
            raise UserError(
                '"{mesh}" was edited meanwhile, so nothing was changed. Return to Object Mode and start again.',
                mesh=mesh.name,
            )
        return mesh


@dataclass(frozen=True, kw_only=True, eq=False)
class Character:
    """A head and its parts as one mesh in world space; `spans` are the vertices of each part, the face's first."""

    parts: tuple[Part, ...]
    spans: tuple[slice, ...]
    points_N3: np.ndarray
    triangles_F3: np.ndarray

    def guess(self, known: TemplateFace, progress: Progress) -> dict[str, np.ndarray]:
        """Guess the positions of the face's landmarks; raises as `guess_landmarks`."""
        of_face = self.triangles_F3[:, 0] < self.spans[0].stop
        return guess_landmarks(known, self.points_N3[self.spans[0]], self.triangles_F3[of_face], progress)


def gather(face: bpy.types.Object, context: bpy.types.Context) -> Character:
    """Read the face and the parts that follow it.

    Raises:
        UserError: There are too many vertices, or the face is cut in half.
    """
    meshes = (face, *parts_of(face, context))
    n_vertices = sum(len(mesh.data.vertices) for mesh in meshes)
    if n_vertices > MAX_VERTICES:
        raise UserError(
            '"{face}" and its parts have {n_vertices:,} vertices; the limit is {max_vertices:,}. Make the keys on a '
            "coarser head, and get the detail from a Subdivision or Multiresolution modifier.",
            face=face.name,
            n_vertices=n_vertices,
            max_vertices=MAX_VERTICES,
        )
    parts = tuple(Part.of(mesh) for mesh in meshes)
    if parts[0].mirroring is None:
        check_whole(face, parts[0].rest_V3)
    points, triangles, spans, start = [], [], [], 0
    for part in parts:
        own_N3, triangles_F3 = part.seen()
        points.append(own_N3 @ part.world_44[:3, :3].T + part.world_44[:3, 3])
        is_mirrored = bool(np.linalg.det(part.world_44[:3, :3]) < 0)
        triangles.append((triangles_F3[:, ::-1] if is_mirrored else triangles_F3) + start)
        spans.append(slice(start, start + len(points[-1])))
        start = spans[-1].stop
    return Character(
        parts=parts,
        spans=tuple(spans),
        points_N3=np.concatenate(points).astype(float),
        triangles_F3=np.concatenate(triangles),
    )


def parts_of(face: bpy.types.Object, context: bpy.types.Context) -> Iterator[bpy.types.Object]:
    """Meshes that may follow the face: its children, everything below its parent, and the selected objects."""
    family = set(face.children_recursive) | set(context.selected_objects)
    if face.parent is not None:
        family |= set(face.parent.children_recursive)
    for candidate in sorted(family - {face}, key=lambda part: part.name):
        usable = candidate.type == "MESH" and candidate.data.library is None and candidate.data.override_library is None
        # An object that shares the face's mesh shares its keys.
        if usable and candidate.library is None and candidate.data != face.data and len(candidate.data.polygons):
            yield candidate


def _triangles(mesh: bpy.types.Mesh) -> np.ndarray:
    mesh.calc_loop_triangles()
    flat = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", flat)
    return flat.reshape(-1, 3).astype(np.int64)
