# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys for any head, mouth and upper face: landmarks that the user drags, and shapes made from the known face.

Everything is computed in world space, so that teeth and eyes that are objects of their own lie where they are seen.

Shapes: N vertices of all parts, V of one, F triangles, K channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix

from ...errors import Text, UserError
from ...pipeline.any_head.landmarks import guess
from ...pipeline.any_head.transfer import LANDMARKS, NEGLIGIBLE_M, SpeechFace, transfer
from ...pipeline.face_names import match_channels
from ..tasks.in_thread import Computing, Progress
from . import checks
from .checks import value_path

MAX_VERTICES = 400_000  # of a character; more takes minutes and gigabytes
LANDMARK_PROPERTY = "wav2sem_landmark"  # custom property of an empty: which of LANDMARKS it is
_GUESSED = 0.25  # of the whole work, where the landmarks have to be guessed first
MADE_PROPERTY = "wav2sem_transferred"  # of a mesh's shape-key data-block: the keys made here, to be renewed


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A mesh as it was when it was gathered; `uid` is what renaming and undo leave as it is."""

    uid: int
    name: str
    world_44: np.ndarray
    rest_V3: np.ndarray
    triangles_F3: np.ndarray
    keys: tuple[str, ...]

    @classmethod
    def of(cls, mesh: bpy.types.Object) -> Part:
        """As it is now."""
        keys = mesh.data.shape_keys
        return cls(
            uid=mesh.session_uid,
            name=mesh.name,
            world_44=np.array(mesh.matrix_world),
            rest_V3=checks.rest_points(mesh.data),
            triangles_F3=_triangles(mesh.data),
            keys=tuple(keys.key_blocks.keys()) if keys else (),
        )

    def shapes(
        self, offsets_KV3: np.ndarray, channels: tuple[str, ...], negligible: float, *, keep_all: bool
    ) -> dict[str, np.ndarray]:
        """Its points (V, 3) in the shape of each channel, given their displacements in world space.

        Without those channels that move it by a negligible length, unless all are to be kept.
        """
        to_local_33 = np.linalg.inv(self.world_44[:3, :3]).T
        return {
            name: (self.rest_V3 + offsets_V3 @ to_local_33).astype(np.float32)
            for name, offsets_V3 in zip(channels, offsets_KV3, strict=True)
            if keep_all or np.abs(offsets_V3).max() > negligible
        }

    def found(self) -> bpy.types.Object:
        """The object; where it is and what it is called may be another by now.

        Raises:
            ValueError: It is not as it was.
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
    """A head and its parts as one mesh in world space; `spans` says which vertices are whose, the face's first."""

    parts: tuple[Part, ...]
    spans: tuple[slice, ...]
    points_N3: np.ndarray
    triangles_F3: np.ndarray

    def guess(self, known: SpeechFace, progress: Progress) -> dict[str, np.ndarray]:
        """Where the landmarks of the face are; raises as `landmarks.guess`."""
        of_face = self.triangles_F3[:, 0] < self.spans[0].stop
        return guess(known, self.points_N3[self.spans[0]], self.triangles_F3[of_face], progress)


def gather(face: bpy.types.Object, context: bpy.types.Context) -> Character:
    """The face with its parts.

    Raises:
        ValueError: There are too many vertices, or no faces.
    """
    meshes = (face, *parts_of(face, context))
    n_vertices = sum(len(mesh.data.vertices) for mesh in meshes)
    if n_vertices > MAX_VERTICES:
        raise UserError(
            '"{face}" and its parts have {n_vertices:,} vertices; up to {max_vertices:,} can be handled. Apply '
            "the keys to a coarser head, and leave the fine shape to a Subdivision or Multiresolution modifier.",
            face=face.name,
            n_vertices=n_vertices,
            max_vertices=MAX_VERTICES,
        )
    parts = tuple(Part.of(mesh) for mesh in meshes)
    points, triangles, spans, start = [], [], [], 0
    for part in parts:
        points.append(part.rest_V3 @ part.world_44[:3, :3].T + part.world_44[:3, 3])
        is_mirrored = bool(np.linalg.det(part.world_44[:3, :3]) < 0)
        triangles.append((part.triangles_F3[:, ::-1] if is_mirrored else part.triangles_F3) + start)
        spans.append(slice(start, start + len(points[-1])))
        start = spans[-1].stop
    return Character(
        parts=parts,
        spans=tuple(spans),
        points_N3=np.concatenate(points).astype(float),
        triangles_F3=np.concatenate(triangles),
    )


def parts_of(face: bpy.types.Object, context: bpy.types.Context) -> Iterator[bpy.types.Object]:
    """Other meshes of the character that may follow: the face's children, its siblings, what is selected beside it."""
    family = set(face.children_recursive) | set(context.selected_objects)
    if face.parent is not None:
        family |= set(face.parent.children_recursive)
    for candidate in sorted(family - {face}, key=lambda part: part.name):
        usable = candidate.type == "MESH" and candidate.data.library is None and candidate.data.override_library is None
        # A mesh that the face shares has the face's own keys.
        if usable and candidate.library is None and candidate.data != face.data and len(candidate.data.polygons):
            yield candidate


def _triangles(mesh: bpy.types.Mesh) -> np.ndarray:
    mesh.calc_loop_triangles()
    flat = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", flat)
    return flat.reshape(-1, 3).astype(np.int64)


def landmark_empties(face: bpy.types.Object) -> dict[str, bpy.types.Object]:
    """The empties placed on this face, by landmark."""
    return {child[LANDMARK_PROPERTY]: child for child in face.children if LANDMARK_PROPERTY in child}


def placing_landmarks(face: bpy.types.Object, context: bpy.types.Context) -> Computing:
    """Put an empty at the guess of every landmark that has none; tells whether a face was found to guess from.

    Where none was found, the empties lie as on a face that fills the mesh's upper end, to be dragged to their places.

    Raises:
        ValueError: The mesh cannot be used, or something runs already.
    """
    checks.check_usable(context, face)
    head = gather(face, context)

    def compute(progress: Progress) -> tuple[dict[str, np.ndarray], bool]:
        known = SpeechFace.load()
        try:
            return head.guess(known, progress), True
        except ValueError:
            return lying_at_the_top(known, head.points_N3[head.spans[0]]), False

    def write(guessed: tuple[dict[str, np.ndarray], bool]) -> bool:
        found, was_found = guessed
        _place(head.parts[0], found)
        return was_found

    return Computing("Finding the Face", "Landmarks are being placed", compute, write)


def _place(part: Part, found: dict[str, np.ndarray]) -> None:
    face = part.found()
    placed = landmark_empties(face)
    size = float(np.linalg.norm(found["eye_outer_left"] - found["eye_outer_right"])) / 25
    missing = [name for name in LANDMARKS if name not in placed]
    for name in missing:
        empty = bpy.data.objects.new(name.replace("_", " ").title(), None)
        empty[LANDMARK_PROPERTY] = name
        empty.empty_display_type, empty.empty_display_size = "SPHERE", size
        empty.show_in_front = empty.show_name = True
        for collection in face.users_collection:
            collection.objects.link(empty)
        empty.parent = face
        empty.matrix_parent_inverse = Matrix(part.world_44.tolist()).inverted()
        empty.location = found[name]


def lying_at_the_top(known: SpeechFace, points_V3: np.ndarray) -> dict[str, np.ndarray]:
    """The known face's landmarks (left, forward, up = x, -y, z) in front of the mesh, its crown at the mesh's top."""
    low_3, high_3 = points_V3.min(0), points_V3.max(0)
    upright_S3, upright_L3 = (points[:, [0, 2, 1]] * [1, -1, 1] for points in (known.points_S3, known.landmarks_L3))
    scale = (high_3 - low_3).min() / np.ptp(upright_S3[:, 0])
    front_3 = np.array([(low_3[0] + high_3[0]) / 2, low_3[1], high_3[2]])
    origin_3 = front_3 - scale * np.array([0.0, upright_S3[:, 1].min(), upright_S3[:, 2].max()])
    return dict(zip(LANDMARKS, origin_3 + scale * upright_L3, strict=True))


def creating_keys(face: bpy.types.Object, context: bpy.types.Context) -> Computing:
    """Make the speech keys of the face and of the parts that follow it; tells what was made, in words.

    Raises:
        ValueError: The mesh cannot take keys, or something runs already.
    """
    checks.check_usable(context, face)
    if face.data.override_library:
        raise UserError(
            '"{face}" is a library override, which cannot take new shape keys. Make it local first.',
            face=face.name,
        )
    head = gather(face, context)
    placed = {name: np.array(empty.matrix_world.translation) for name, empty in landmark_empties(face).items()}

    def compute(progress: Progress) -> list[dict[str, np.ndarray]]:
        known = SpeechFace.load()
        guessed = {}
        if not placed.keys() >= set(LANDMARKS):
            guessed = head.guess(known, lambda fraction: progress(_GUESSED * fraction))
        begin = _GUESSED if guessed else 0.0
        marks = guessed | placed
        offsets_KN3 = transfer(
            known,
            head.points_N3,
            head.triangles_F3,
            marks,
            lambda fraction: progress(begin + (1 - begin) * fraction),
        )
        nose, chin = (known.landmarks_L3[LANDMARKS.index(name)] for name in ("nose_tip", "chin"))
        scale = float(np.linalg.norm(marks["nose_tip"] - marks["chin"]) / np.linalg.norm(nose - chin))
        return [
            part.shapes(offsets_KN3[:, span], known.channels, NEGLIGIBLE_M * scale, keep_all=part is head.parts[0])
            for part, span in zip(head.parts, head.spans, strict=True)
        ]

    return Computing("Making Keys", "Keys are being made", compute, lambda shapes: _write_all(head.parts, shapes))


def _write_all(parts: tuple[Part, ...], shapes: list[dict[str, np.ndarray]]) -> str:
    meshes = [part.found() for part in parts]
    face, followers = meshes[0], []
    made = len(_write(face, shapes[0]))
    for mesh, shapes_V3_of in zip(meshes[1:], shapes[1:], strict=True):
        if not shapes_V3_of:
            continue
        followers.append(mesh.name)
        for name in _write(mesh, shapes_V3_of):
            _drive(mesh, name, face)
    kept = len(shapes[0]) - made
    of_its_own = Text(", {kept} keys of its own were kept", kept=kept) if kept else ""
    along = Text("; {followers} follow", followers=", ".join(followers)) if followers else ""
    return Text(
        '"{face}" has {made} keys for mouth, lids and brows{of_its_own}{along}',
        face=face.name,
        made=made,
        of_its_own=of_its_own,
        along=along,
    )


def made_keys(mesh: bpy.types.Mesh) -> frozenset[str]:
    """Names of the shape keys that were made here."""
    keys = mesh.shape_keys
    if keys is None or MADE_PROPERTY not in keys:
        return frozenset()
    return frozenset(keys[MADE_PROPERTY].split("\n")) & frozenset(keys.key_blocks.keys())


def _write(target: bpy.types.Object, shapes_V3_of: dict[str, np.ndarray]) -> list[str]:
    """Make or renew a key for each channel unless the mesh has one of its own; returns the keys' names."""
    earlier = made_keys(target.data)
    if target.data.shape_keys is None:
        target.shape_key_add(name="Basis", from_mix=False)
    blocks = target.data.shape_keys.key_blocks
    own_names = [block.name for block in blocks[1:] if block.name not in earlier]
    theirs = match_channels(tuple(shapes_V3_of), own_names)
    active_index = target.active_shape_key_index
    made = []
    for name, shape_V3 in shapes_V3_of.items():
        if name in theirs:
            continue
        block = blocks[name] if name in earlier else target.shape_key_add(name=name, from_mix=False)
        block.data.foreach_set("co", shape_V3.ravel())
        if name not in earlier:
            block.value = 0.0
        made.append(block.name)
    target.active_shape_key_index = active_index
    target.data.shape_keys[MADE_PROPERTY] = "\n".join(sorted(earlier | set(made)))
    target.data.update_tag()
    return made


def _drive(part: bpy.types.Object, key: str, face: bpy.types.Object) -> None:
    """Let a part's key go with the face's, whatever action moves that."""
    keys = part.data.shape_keys
    path = value_path(key)
    if keys.animation_data is not None and keys.animation_data.drivers.find(path) is not None:
        return
    driver = keys.driver_add(path).driver
    driver.type = "AVERAGE"
    variable = driver.variables.new()
    target = variable.targets[0]
    target.id_type, target.id, target.data_path = "KEY", face.data.shape_keys, path
