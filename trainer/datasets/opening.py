# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a data set of faces of any kind and layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wav2sem_blender.errors import MissingFileError, UserError

from .biwi import open_biwi
from .custom import open_custom
from .face_data import FaceData
from .mead import open_mead_identities, open_mead_prior, open_mead_sentences
from .mead_offsets import MeadOffsets
from .vocaset import open_vocaset, open_vocaset_60

_OPENERS: dict[str, Callable[[Path], FaceData]] = {
    "vocaset": open_vocaset,
    "vocaset_60": open_vocaset_60,
    "biwi": open_biwi,
    "custom": open_custom,
    "mead_sentences": open_mead_sentences,
    "mead_identities": open_mead_identities,
    "mead_prior": open_mead_prior,
    "mead_offsets": MeadOffsets,
}


def open_face_data(kind: str, folder: Path) -> FaceData:
    """Recognise and open the layout in `folder`.

    Args:
        kind: "vocaset" (the four original files, or `vertices_npy` + `wav` + `templates.pkl`), "biwi" (`faces` or
            `vertices_npy`), or "custom" (`dataset.json`). "vocaset_60" is VOCASET with all frames of its camera;
            "mead_sentences", "mead_identities" and "mead_prior" are splits of 3DMEAD (`mead.py`), "mead_offsets" its
            vertices (`mead_offsets.py`).
        folder: The data set's folder.

    Raises:
        MissingFileError: the folder or one of its files is missing; the message names it.
        UserError: an unknown kind, or files that do not follow the layout.
    """
    if kind not in _OPENERS:
        raise UserError("face data {kind!r}: choose from {openers}", kind=kind, openers=", ".join(_OPENERS))
    if not folder.is_dir():
        raise MissingFileError("{folder}: there is no such folder", folder=folder)
    return _OPENERS[kind](folder)
