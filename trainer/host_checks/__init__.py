# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer check-host codetalker_biwi_stage2 FILE.npz`: a host against what its released code gave.

A golden file has the weights under their released names ("sd/NAME"), the inputs, and the released code's outputs.
KIND is the file's name as it was made; `codetalker_biwi_stage2` finds its stage 1 beside it. One module for each host
loads the weights by the function that the importer uses, and computes every output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError

TOLERANCE = 1e-5
"""Greatest accepted difference, relative to the greatest absolute value of the released output."""

KINDS = {
    "codetalker_biwi_stage1": "codetalker",
    "codetalker_biwi_stage2": "codetalker",
    "codetalker_vocaset_stage1": "codetalker",
    "codetalker_vocaset_stage2": "codetalker",
    "facediffuser_biwi": "facediffuser",
    "facediffuser_vocaset": "facediffuser",
    "imitator": "imitator",
    "lgldm_mead_fdm": "lgldm",
    "lgldm_vocaset_fdm": "lgldm",
    "lsf": "probtalk3d",
    "probtalk3d": "probtalk3d",
    "unitalker_b": "unitalker",
    "voca_formula": "voca",
}
"""KIND -> the module here that checks it."""

Golden = Mapping[str, np.ndarray]
Outputs = dict[str, tuple[np.ndarray, np.ndarray]]
"""Name of an output -> ours, theirs."""
Check = Callable[[Golden, str, Callable[[str], Golden]], Outputs]
"""`check(golden, kind, beside)`; `beside(kind)` reads another golden file of the same folder."""


def check_host(kind: str, file: Path) -> dict[str, float]:
    """The greatest relative difference of every output that a golden file holds.

    Raises:
        MissingFileError: The file, or one that belongs to it, is not there.
        UserError: The kind is unknown, or the file is not of this kind.
    """
    if kind not in KINDS:
        raise UserError("kind {kind!r}: known are {known}", kind=kind, known=", ".join(KINDS))
    golden = _read(file)
    check: Check = import_module(f".{KINDS[kind]}", __name__).check
    try:
        outputs = check(golden, kind, lambda other: _read(_beside(file, kind, other)))
    except KeyError as error:
        raise UserError(
            "{file}: it has no {name}, so it is no golden file of {kind}", file=file, name=error, kind=kind
        ) from error
    return {name: relative_difference(ours, theirs) for name, (ours, theirs) in outputs.items()}


def relative_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The greatest absolute difference over the greatest value of `theirs`; infinite for another shape or NaN."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        return float("inf")
    difference = np.abs(ours - theirs).max(initial=0)
    scale = np.abs(theirs).max(initial=0)
    ratio = difference / scale if scale else difference
    return float(ratio) if np.isfinite(ratio) else float("inf")


def state_of(golden: Golden) -> dict[str, np.ndarray]:
    """The weights of a golden file, by their released names."""
    return {name.removeprefix("sd/"): value for name, value in golden.items() if name.startswith("sd/")}


def _beside(file: Path, kind: str, other: str) -> Path:
    """The file of another kind: this file's name with the kind in it exchanged, or the plain name."""
    exchanged = file.with_name(file.name.replace(kind, other))
    return exchanged if kind in file.name and exchanged.is_file() else file.with_name(f"{other}.npz")


def _read(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise MissingFileError("{file}: no such file", file=file)
    try:
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError) as error:
        raise UserError("{file}: not an npz file of arrays ({error})", file=file, error=error) from error


def main(kind: str, file: Path) -> int:
    """Print every difference; 1 if one is above `TOLERANCE`."""
    differences = check_host(kind, file)
    for name, difference in differences.items():
        print(f"{name:<24} {difference:.2e}{'' if difference <= TOLERANCE else '   TOO LARGE'}")
    return int(not differences or max(differences.values()) > TOLERANCE)
