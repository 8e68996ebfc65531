# SPDX-License-Identifier: GPL-3.0-or-later
"""Template meshes: vertices, triangles and area of Wavefront OBJ files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError


def read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices float64 (V, 3) and triangles int64 (G, 3); polygons become triangle fans; textures and normals are
    ignored.

    Raises:
        MissingFileError: no such file.
        UserError: a vertex or face line cannot be read; the message has its number.
    """
    if not path.is_file():
        raise MissingFileError("{path}: there is no such mesh", path=path)
    vertices: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            kind, *words = line.split() or [""]
            try:
                if kind == "v":
                    x, y, z = map(float, words[:3])
                    vertices.append([x, y, z])
                elif kind == "f":
                    corners = [int(word.split("/")[0]) for word in words]
                    # From 1, or backwards from the last vertex.
                    corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
                    triangles += [(corners[0], b, c) for b, c in zip(corners[1:], corners[2:], strict=False)]
            except ValueError as error:
                raise UserError(
                    "{path}, line {number}: not a vertex or face ({line})",
                    path=path.name,
                    number=number,
                    line=line.strip()[:60],
                ) from error
    return np.array(vertices).reshape(-1, 3), np.array(triangles, np.int64).reshape(-1, 3)


def surface_area(vertices_V3: np.ndarray, faces_G3: np.ndarray) -> float:
    """Sum of the triangles' areas."""
    a_G3, b_G3, c_G3 = (vertices_V3[faces_G3[:, corner]] for corner in range(3))
    return float(np.linalg.norm(np.cross(b_G3 - a_G3, c_G3 - a_G3), axis=1).sum() / 2)
