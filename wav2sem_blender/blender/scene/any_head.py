# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes speech keys for any head: landmarks that the user can drag, and shapes transferred from the template face.

Shapes: N vertices of all parts, V of one, K channels.
"""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Matrix

from ...errors import Text, UserError
from ...pipeline.any_head.transfer import LANDMARKS, NEGLIGIBLE_M, TemplateFace, transfer
from ...pipeline.face_names import match_channels
from ...pipeline.time_slicing import Progress
from ..tasks.in_thread import ThreadTask
from . import checks
from .character import Part, gather
from .custom_properties import lines, text
from .key_mapping import value_path

LANDMARK_PROPERTY = "wav2sem_landmark"  # custom property of an empty: which of LANDMARKS it is
MADE_PROPERTY = "wav2sem_transferred"  # custom property of a shape-key data-block: the keys that were made here
_GUESSING = 0.25  # the share of the progress bar for guessing landmarks


def landmark_empties(face: bpy.types.Object) -> dict[str, bpy.types.Object]:
    """The face's landmark empties, by landmark."""
    found = {text(child, LANDMARK_PROPERTY): child for child in face.children if LANDMARK_PROPERTY in child}
    return {name: child for name, child in found.items() if name in LANDMARKS}


def placing_landmarks(face: bpy.types.Object, context: bpy.types.Context) -> ThreadTask:
    """Add an empty for every landmark that has none. The task's result is whether a face was recognised.

    If not, the empties are placed in front of the mesh's upper end, and the user has to drag them into place.

    Raises:
        UserError: The mesh cannot be used, or another task runs.
    """
    checks.check_usable(context, face)
    head = gather(face, context)

    def compute(progress: Progress) -> tuple[dict[str, np.ndarray], bool]:
        known = TemplateFace.load()
        try:
            return head.guess(known, progress), True
        except ValueError:
            return placed_at_the_top(known, head.points_N3[head.spans[0]]), False

    def write(guessed: tuple[dict[str, np.ndarray], bool]) -> bool:
        found, was_found = guessed
        _place(head.parts[0], found)
        return was_found

    return ThreadTask("Finding the Face", "Landmarks are being placed", compute, write)


def _place(part: Part, found: dict[str, np.ndarray]) -> None:
    face = part.unchanged()
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
        empty.location = found[name].tolist()


def placed_at_the_top(known: TemplateFace, points_V3: np.ndarray) -> dict[str, np.ndarray]:
    """The template face's landmarks in front of the mesh, with its crown at the mesh's top; it looks along -y, z up."""
    low_3, high_3 = points_V3.min(0), points_V3.max(0)
    upright_S3, upright_L3 = (points[:, [0, 2, 1]] * [1, -1, 1] for points in (known.points_S3, known.landmarks_L3))
    scale = (high_3 - low_3).min() / np.ptp(upright_S3[:, 0])
    front_3 = np.array([(low_3[0] + high_3[0]) / 2, low_3[1], high_3[2]])
    origin_3 = front_3 - scale * np.array([0.0, upright_S3[:, 1].min(), upright_S3[:, 2].max()])
    return dict(zip(LANDMARKS, origin_3 + scale * upright_L3, strict=True))


def creating_keys(face: bpy.types.Object, context: bpy.types.Context) -> ThreadTask:
    """Make the speech keys of the face and of the parts that follow it. The task's result is a sentence for the user.

    Raises:
        UserError: The mesh cannot take keys, or another task runs.
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
        known = TemplateFace.load()
        guessed = {}
        if not placed.keys() >= set(LANDMARKS):
            guessed = head.guess(known, lambda fraction: progress(_GUESSING * fraction))
        begin = _GUESSING if guessed else 0.0
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

    return ThreadTask("Making Keys", "Keys are being made", compute, lambda shapes: _write_all(head.parts, shapes))


def _write_all(parts: tuple[Part, ...], shapes: list[dict[str, np.ndarray]]) -> str:
    meshes = [part.unchanged() for part in parts]
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
    aside = Text("; a Mirror modifier completes it, so nothing moves to one side") if parts[0].mirroring else ""
    return Text(
        '"{face}" has {made} keys for mouth, lids and brows{of_its_own}{along}{aside}',
        face=face.name,
        made=made,
        of_its_own=of_its_own,
        along=along,
        aside=aside,
    )


def made_keys(mesh: bpy.types.Mesh) -> frozenset[str]:
    """Names of the mesh's shape keys that were made here."""
    keys = mesh.shape_keys
    return frozenset() if keys is None else lines(keys, MADE_PROPERTY) & frozenset(keys.key_blocks.keys())


def _write(target: bpy.types.Object, shapes_V3_of: dict[str, np.ndarray]) -> list[str]:
    """Make or update a key for each channel for which the mesh has none of its own; returns the keys' names."""
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
    """Drive a part's key by the face's key of the same name."""
    keys = part.data.shape_keys
    path = value_path(key)
    if keys.animation_data is not None and keys.animation_data.drivers.find(path) is not None:
        return
    driver = keys.driver_add(path).driver  # type: ignore[union-attr]  # a list only without an index
    driver.type = "AVERAGE"
    variable = driver.variables.new()
    target = variable.targets[0]
    target.id_type, target.id, target.data_path = "KEY", face.data.shape_keys, path
