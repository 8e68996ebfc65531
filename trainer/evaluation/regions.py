# SPDX-License-Identifier: GPL-3.0-or-later
"""Which vertices are lips and which are upper face: the user's copies of published lists, or our own list for FLAME.

No published list is shipped: CodeTalker's belong to BIWI, and FLAME's masks have their own licence. Ours is made from
the ARKit basis; `python -m trainer.evaluation.regions work/basis.npz` rewrites `flame_regions.json`.

Shapes: K channels, V vertices, R vertices of a region (an index given twice counts twice).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline import restricted_pickle

OWN_LISTS = Path(__file__).with_name("flame_regions.json")
FLAME_VERTICES = 5023
# Vertices that these channels move by at least this distance.
LIP_CHANNELS, LIP_MOTION_M = ("mouthRollLower", "mouthRollUpper"), 0.004
UPPER_CHANNELS, UPPER_MOTION_M = ("brow", "eyeBlink", "eyeSquint", "eyeWide"), 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class Region:
    """Vertex indices (R,) and where they were read."""

    indices_R: np.ndarray
    source: str

    def __str__(self) -> str:
        n_distinct = len(np.unique(self.indices_R))
        repeated = f" ({n_distinct} distinct)" if n_distinct < len(self.indices_R) else ""
        return f"{self.source}, {len(self.indices_R)} vertices{repeated}"


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The vertices of LVE (`lips`) and of FDD (`upper`)."""

    lips: Region
    upper: Region


def find_regions(folder: Path, topology: str, n_vertices: int) -> Regions:
    """The first of these that exists: `*lve.txt` and `*fdd.txt`, FLAME_masks.pkl, our own list for FLAME.

    Args:
        folder: the data set's folder; it and its `regions/` are searched.
        topology: "flame", "biwi", or a studio's own.
        n_vertices: V of the data; every index must be below it.

    Raises:
        MissingFileError: no list fits the topology.
        UserError: a list cannot be read, is ambiguous, or belongs to another mesh; the message names the file.
    """
    for place in (folder, folder / "regions"):
        lips, upper = (_only_file(place, name) for name in ("lve.txt", "fdd.txt"))
        if lips and upper:
            return Regions(lips=_from_list(lips, n_vertices), upper=_from_list(upper, n_vertices))
        masks = place / "FLAME_masks.pkl"
        if topology == "flame" and masks.is_file():
            return _from_masks(masks, n_vertices)
    if topology == "flame" and n_vertices == FLAME_VERTICES:
        lists = json.loads(OWN_LISTS.read_text(encoding="utf-8"))
        lips_R, upper_R = (np.array(lists[part]) for part in ("lips", "upper"))
        source = f"our own list ({OWN_LISTS.name})"
        return Regions(
            lips=Region(indices_R=lips_R, source=f"{source}, lips"),
            upper=Region(indices_R=upper_R, source=f"{source}, upper face"),
        )
    raise MissingFileError(
        "{folder}: no vertex lists for {topology} ({n_vertices} vertices); put lve.txt (lips) and fdd.txt (upper "
        "face) there, with indices separated by commas; for BIWI, CodeTalker has them in BIWI/regions",
        folder=folder / "regions",
        topology=topology,
        n_vertices=n_vertices,
    )


def _only_file(folder: Path, ending: str) -> Path | None:
    found = sorted(folder.glob(f"*{ending}"))
    if len(found) > 1:
        raise UserError(
            "{folder}: {names}: keep one list that ends in {ending}",
            folder=folder,
            names=" and ".join(path.name for path in found),
            ending=ending,
        )
    return found[0] if found else None


def _from_list(path: Path, n_vertices: int) -> Region:
    words = path.read_text(encoding="utf-8").replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise UserError("{path}: vertex indices separated by commas are needed", path=path)
    return _checked(path, path.name, np.array([int(word) for word in words]), n_vertices)


def _from_masks(path: Path, n_vertices: int) -> Regions:
    masks = restricted_pickle.load(path)
    if not isinstance(masks, dict) or not {"lips", "forehead", "eye_region"} <= masks.keys():
        raise UserError("{path}: not FLAME's masks; lips, forehead and eye_region are needed", path=path)
    lips_R, forehead_R, eyes_R = (np.asarray(masks[part]).ravel() for part in ("lips", "forehead", "eye_region"))
    upper_R = np.union1d(forehead_R, eyes_R)
    return Regions(
        lips=_checked(path, f"{path.name} lips", lips_R, n_vertices),
        upper=_checked(path, f"{path.name} forehead ∪ eye_region", upper_R, n_vertices),
    )


def _checked(path: Path, source: str, indices_R: np.ndarray, n_vertices: int) -> Region:
    if indices_R.dtype.kind not in "iu" or not len(indices_R):
        raise UserError(
            "{path}: {source}: whole numbers are needed, found {dtype} {shape}",
            path=path,
            source=source,
            dtype=indices_R.dtype,
            shape=indices_R.shape,
        )
    if indices_R.max() >= n_vertices or indices_R.min() < 0:
        raise UserError(
            "{path}: {source}: index {largest} of a mesh of {n_vertices} vertices; the list belongs to another mesh",
            path=path,
            source=source,
            largest=indices_R.max(),
            n_vertices=n_vertices,
        )
    return Region(indices_R=indices_R.astype(np.int64), source=source)


def moved_vertices(
    names: tuple[str, ...], basis_KV3: np.ndarray, channels: tuple[str, ...], at_least_m: float
) -> list[int]:
    """Vertices that a channel whose name starts with one of `channels` moves by more than `at_least_m`."""
    chosen = [k for k, name in enumerate(names) if name.startswith(channels)]
    return np.flatnonzero(np.linalg.norm(basis_KV3[chosen], axis=-1).max(0) > at_least_m).tolist()


def write_own_lists(basis: Path, target: Path = OWN_LISTS) -> None:
    """Make our lists from the prepared ARKit basis on FLAME."""
    with np.load(basis, allow_pickle=False) as file:
        names, basis_KV3 = tuple(str(name) for name in file["names"]), file["basis_KV3"]
    lists = {
        "source": "FLAME 2023 Open (MPI-IS, CC-BY-4.0) under ICT-FaceKit's expressions (MIT); see "
        "trainer/evaluation/regions.py",
        "lips": moved_vertices(names, basis_KV3, LIP_CHANNELS, LIP_MOTION_M),
        "upper": moved_vertices(names, basis_KV3, UPPER_CHANNELS, UPPER_MOTION_M),
    }
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in lists.items())
    target.write_text(f"{{{lines}}}\n", encoding="utf-8")


if __name__ == "__main__":
    write_own_lists(Path(sys.argv[1]))
