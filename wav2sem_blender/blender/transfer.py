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

from ..pipeline.face_names import match_channels
from ..pipeline.landmarks import guess
from ..pipeline.transfer import LANDMARKS, NEGLIGIBLE_M, SpeechFace, transfer
from . import jobs, preflight
from .preflight import value_path
from .sidebar import FaceSubPanel, SaysWhyNot, blocked_reason, face_of, say

MAX_VERTICES = 400_000  # of a character; more takes minutes and gigabytes
LANDMARK_PROPERTY = "wav2sem_landmark"  # custom property of an empty: which of LANDMARKS it is
MADE_PROPERTY = "wav2sem_transferred"  # of a mesh's shape-key data-block: the keys made here, to be renewed


@dataclass(frozen=True, kw_only=True, eq=False)
class Character:
    """A head and its parts as one mesh in world space; `spans` says which vertices are whose."""

    meshes: tuple[bpy.types.Object, ...]
    spans: tuple[slice, ...]
    points_N3: np.ndarray
    triangles_F3: np.ndarray


def gather(face: bpy.types.Object, context: bpy.types.Context) -> Character:
    """The face with its parts.

    Raises:
        ValueError: There are too many vertices, or no faces.
    """
    meshes = (face, *parts_of(face, context))
    n_vertices = sum(len(mesh.data.vertices) for mesh in meshes)
    if n_vertices > MAX_VERTICES:
        raise ValueError(
            f'"{face.name}" and its parts have {n_vertices:,} vertices; up to {MAX_VERTICES:,} can be handled. Apply '
            "the keys to a coarser head, and leave the fine shape to a Subdivision or Multiresolution modifier."
        )
    points, triangles, spans, start = [], [], [], 0
    for mesh in meshes:
        matrix_44 = np.array(mesh.matrix_world)
        points.append(preflight.rest_points(mesh.data) @ matrix_44[:3, :3].T + matrix_44[:3, 3])
        triangles.append(_triangles(mesh.data, bool(np.linalg.det(matrix_44[:3, :3]) < 0)) + start)
        spans.append(slice(start, start + len(points[-1])))
        start = spans[-1].stop
    return Character(
        meshes=meshes,
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


def _triangles(mesh: bpy.types.Mesh, mirrored: bool) -> np.ndarray:
    mesh.calc_loop_triangles()
    flat = np.empty(3 * len(mesh.loop_triangles), dtype=np.int32)
    mesh.loop_triangles.foreach_get("vertices", flat)
    triangles_F3 = flat.reshape(-1, 3).astype(np.int64)
    return triangles_F3[:, ::-1] if mirrored else triangles_F3


def landmark_empties(face: bpy.types.Object) -> dict[str, bpy.types.Object]:
    """The empties placed on this face, by landmark."""
    return {child[LANDMARK_PROPERTY]: child for child in face.children if LANDMARK_PROPERTY in child}


def place_landmarks(face: bpy.types.Object, context: bpy.types.Context) -> bool:
    """Put an empty at the guess of every landmark that has none; returns whether a face was found to guess from.

    Where none was found, the empties lie as on a face that fills the mesh's upper end, to be dragged to their places.
    """
    known, head = SpeechFace.load(), gather(face, context)
    points_V3, was_found = head.points_N3[head.spans[0]], True
    try:
        found = guess(known, points_V3, head.triangles_F3[_of_face(head)])
    except ValueError:
        was_found, found = False, lying_at_the_top(known, points_V3)
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
        empty.matrix_parent_inverse = face.matrix_world.inverted()
        empty.location = found[name]
    return was_found


def lying_at_the_top(known: SpeechFace, points_V3: np.ndarray) -> dict[str, np.ndarray]:
    """The known face's landmarks (left, forward, up = x, -y, z) in front of the mesh, its crown at the mesh's top."""
    low_3, high_3 = points_V3.min(0), points_V3.max(0)
    upright_S3, upright_L3 = (points[:, [0, 2, 1]] * [1, -1, 1] for points in (known.points_S3, known.landmarks_L3))
    scale = (high_3 - low_3).min() / np.ptp(upright_S3[:, 0])
    front_3 = np.array([(low_3[0] + high_3[0]) / 2, low_3[1], high_3[2]])
    origin_3 = front_3 - scale * np.array([0.0, upright_S3[:, 1].min(), upright_S3[:, 2].max()])
    return dict(zip(LANDMARKS, origin_3 + scale * upright_L3, strict=True))


def _of_face(head: Character) -> np.ndarray:
    return head.triangles_F3[:, 0] < head.spans[0].stop


def create_keys(face: bpy.types.Object, context: bpy.types.Context) -> str:
    """Make the speech keys of the face and of the parts that follow it; returns what was made, in words.

    Raises:
        ValueError: The mesh is no face, cannot take keys, or its landmarks are wrong; nothing was changed.
    """
    known = SpeechFace.load()
    preflight.check_usable(context, face)
    if face.data.override_library:
        raise ValueError(f'"{face.name}" is a library override, which cannot take new shape keys. Make it local first.')
    head = gather(face, context)
    marks = {} if all_placed(face) else guess(known, head.points_N3[head.spans[0]], head.triangles_F3[_of_face(head)])
    marks |= {name: np.array(empty.matrix_world.translation) for name, empty in landmark_empties(face).items()}
    manager = context.window_manager
    manager.progress_begin(0, 100)
    try:
        offsets_KN3 = transfer(
            known,
            head.points_N3,
            head.triangles_F3,
            marks,
            lambda fraction: manager.progress_update(100 * fraction),
        )
    finally:
        manager.progress_end()
    scale = float(np.linalg.norm(marks["nose_tip"] - marks["chin"])) / np.linalg.norm(
        known.landmarks_L3[LANDMARKS.index("nose_tip")] - known.landmarks_L3[LANDMARKS.index("chin")]
    )
    made, kept, followers = 0, 0, []
    for mesh, span in zip(head.meshes, head.spans, strict=True):
        world_33 = np.array(mesh.matrix_world)[:3, :3]
        offsets_KV3 = offsets_KN3[:, span] @ np.linalg.inv(world_33).T
        moves = np.abs(offsets_KN3[:, span]).max((1, 2)) > NEGLIGIBLE_M * scale
        if mesh is not face and not moves.any():
            continue
        channels = [name for name, moved in zip(known.channels, moves, strict=True) if moved or mesh is face]
        new = _write(mesh, {name: offsets_KV3[known.channels.index(name)] for name in channels})
        if mesh is face:
            made, kept = len(new), len(channels) - len(new)
        else:
            followers.append(mesh.name)
            for name in new:
                _drive(mesh, name, face)
    of_its_own = f", {kept} keys of its own were kept" if kept else ""
    parts = f"; {', '.join(followers)} follow" if followers else ""
    return f'"{face.name}" has {made} keys for mouth, lids and brows{of_its_own}{parts}'


def all_placed(face: bpy.types.Object) -> bool:
    """Whether every landmark has its empty."""
    return set(landmark_empties(face)) >= set(LANDMARKS)


def made_keys(mesh: bpy.types.Mesh) -> frozenset[str]:
    """Names of the shape keys that were made here."""
    keys = mesh.shape_keys
    if keys is None or MADE_PROPERTY not in keys:
        return frozenset()
    return frozenset(keys[MADE_PROPERTY].split("\n")) & frozenset(keys.key_blocks.keys())


def _write(target: bpy.types.Object, offsets_V3_of: dict[str, np.ndarray]) -> list[str]:
    """Make or renew a key for each channel unless the mesh has one of its own; returns the keys' names."""
    rest_V3, earlier = preflight.rest_points(target.data), made_keys(target.data)
    if target.data.shape_keys is None:
        target.shape_key_add(name="Basis", from_mix=False)
    blocks = target.data.shape_keys.key_blocks
    own_names = [block.name for block in blocks[1:] if block.name not in earlier]
    theirs = match_channels(tuple(offsets_V3_of), own_names)
    active_index = target.active_shape_key_index
    made = []
    for name, offsets_V3 in offsets_V3_of.items():
        if name in theirs:
            continue
        block = blocks[name] if name in earlier else target.shape_key_add(name=name, from_mix=False)
        block.data.foreach_set("co", (rest_V3 + offsets_V3).astype(np.float32).ravel())
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


class _TransferOperator(SaysWhyNot):
    """What the buttons share: they work on the face, in Object Mode."""

    @classmethod
    def why_not(cls, context: bpy.types.Context) -> str:
        """What is missing, or nothing."""
        in_object_mode = context.mode == "OBJECT"
        return blocked_reason(face_of(context)) or ("" if in_object_mode else "Return to Object Mode first")


class WAV2SEM_OT_place_landmarks(_TransferOperator, bpy.types.Operator):
    """Put ten empties on the face where its nose, mouth, chin and eyes are guessed to be, to be dragged into place"""

    bl_idname = "wav2sem.place_landmarks"
    bl_label = "Place Landmarks"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Guess and place."""
        face = face_of(context)
        try:
            preflight.check_usable(context, face)
            found = place_landmarks(face, context)
        except ValueError as error:
            return self._failed(error)
        if found:
            self.tell({"INFO"}, "Landmarks placed; drag those that are off, then create the keys")
        else:
            self.tell({"WARNING"}, "No face was found on this mesh; drag every landmark to its place")
        return {"FINISHED"}


class WAV2SEM_OT_remove_landmarks(_TransferOperator, bpy.types.Operator):
    """Remove the empties of this face; keys that were made stay"""

    bl_idname = "wav2sem.remove_landmarks"
    bl_label = "Remove Landmarks"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Remove them."""
        empties = landmark_empties(face_of(context))
        if not empties:
            self.tell({"INFO"}, "There are no landmarks on this face")
            return {"CANCELLED"}
        for empty in empties.values():
            bpy.data.objects.remove(empty)
        return {"FINISHED"}


class WAV2SEM_OT_create_speech_keys(_TransferOperator, bpy.types.Operator):
    """Make keys for mouth, jaw, lids and brows on this head; teeth, tongue and eyes follow. Takes some seconds"""

    bl_idname = "wav2sem.create_speech_keys"
    bl_label = "Create Speech Keys"

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Compute, then write in one go."""
        try:
            made = create_keys(face_of(context), context)
        except ValueError as error:
            return self._failed(error)
        self.tell({"INFO"}, made)
        return {"FINISHED"}


class WAV2SEM_PT_transfer(FaceSubPanel, bpy.types.Panel):
    """Shown for a face that cannot speak yet, and for one whose keys were made here."""

    bl_label = "Any Head"
    bl_order = 1

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Only where it is of use."""
        face = face_of(context)
        return face is not None and (bool(made_keys(face.data)) or not preflight.recognised(face)[1])

    def draw(self, context: bpy.types.Context) -> None:
        """Landmarks, then keys."""
        layout, face = self.layout, face_of(context)
        layout.enabled = jobs.current() is None
        placed = len(landmark_empties(face))
        if placed:
            say(layout, context, "Drag the landmarks into place", "EMPTY_AXIS")
        row = layout.row(align=True)
        row.operator(WAV2SEM_OT_place_landmarks.bl_idname, icon="OUTLINER_OB_EMPTY")
        if placed:
            row.operator(WAV2SEM_OT_remove_landmarks.bl_idname, text="", icon="X")
        layout.operator(WAV2SEM_OT_create_speech_keys.bl_idname, icon="SHAPEKEY_DATA")


CLASSES = (
    WAV2SEM_OT_place_landmarks,
    WAV2SEM_OT_remove_landmarks,
    WAV2SEM_OT_create_speech_keys,
    WAV2SEM_PT_transfer,
)
