# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a data set of faces by its kind, whatever layout it has."""

from __future__ import annotations

from pathlib import Path

from wav2sem_blender.errors import MissingFileError, UserError

from .biwi import open_biwi
from .custom import open_custom
from .face_data import FaceData
from .vocaset import open_vocaset

_OPENERS = {"vocaset": open_vocaset, "biwi": open_biwi, "custom": open_custom}


def open_face_data(kind: str, folder: Path) -> FaceData:
    """Recognise and open the layout in `folder`.

    Args:
        kind: "vocaset" (the four original files, or `vertices_npy` + `wav` + `templates.pkl`), "biwi" (`faces` or
            `vertices_npy`), or "custom" (`dataset.json`).
        folder: Where the data set lies.

    Raises:
        FileNotFoundError: the folder or one of its files is missing; the message names it.
        ValueError: an unknown kind, or files that are not what the layout says.
    """
    if kind not in _OPENERS:
        raise UserError("face data {kind!r}: known are {openers}", kind=kind, openers=", ".join(_OPENERS))
    if not folder.is_dir():
        raise MissingFileError("{folder}: there is no such folder of face data", folder=folder)
    return _OPENERS[kind](folder)
