# SPDX-License-Identifier: GPL-3.0-or-later
"""A FLAME mesh from a file, stood upright beside the demo head."""

from __future__ import annotations

from math import radians
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from ...errors import MissingFileError, UserError
from ...pipeline.flame import FlameMismatchError
from ..scene import checks

# Beside the demo head, with the eyes at the same height.
PLACE_M = (0.42, 0.0, 0.30)


def add_flame_head(path: Path) -> bpy.types.Object:
    """Import the mesh and place it, whatever unit and up axis the file has.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The format is unknown, or the mesh is not FLAME at rest.
    """
    if not path.is_file():
        raise MissingFileError("{path}: there is no such mesh file.", path=path)
    head = _read(path)
    head.name = "FLAME Head"
    try:
        similarity = checks.flame_similarity(head.data)
    except FlameMismatchError as error:
        raise UserError("{path} is not a FLAME mesh at rest. {error}", path=path.name, error=error) from error
    to_mesh = Matrix.Translation(similarity.translation_3.tolist()) @ Matrix(similarity.rotation_33.tolist()).to_4x4()
    to_mesh @= Matrix.Scale(similarity.scale, 4)
    upright = Matrix.Translation(PLACE_M) @ Matrix.Rotation(radians(90), 4, "X")
    head.matrix_world = upright @ to_mesh.inverted()
    head.data.polygons.foreach_set("use_smooth", np.ones(len(head.data.polygons), dtype=bool))
    return head


def _read(path: Path) -> bpy.types.Object:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _read_npz(path)
    importers = {".obj": bpy.ops.wm.obj_import, ".ply": bpy.ops.wm.ply_import}
    if suffix not in importers:
        raise UserError(
            "{path}: a mesh is read from .obj, .ply or .npz, not from '{suffix}'.",
            path=path.name,
            suffix=suffix,
        )
    before = set(bpy.data.objects)
    importers[suffix](filepath=str(path.absolute()))
    added = [candidate for candidate in bpy.data.objects if candidate not in before and candidate.type == "MESH"]
    if len(added) != 1:
        raise UserError("{path} contains {n_added} meshes; one is needed.", path=path.name, n_added=len(added))
    return added[0]


def _read_npz(path: Path) -> bpy.types.Object:
    try:
        with np.load(path, allow_pickle=False) as content:
            points_V3, faces_F3 = content["v_template"], content["faces"]
    except (KeyError, ValueError) as error:
        raise UserError("{path} has no arrays v_template and faces.", path=path.name) from error
    mesh = bpy.data.meshes.new("FLAME Head")
    mesh.from_pydata(points_V3.tolist(), [], faces_F3.tolist())
    head = bpy.data.objects.new("FLAME Head", mesh)
    bpy.context.scene.collection.objects.link(head)
    return head
