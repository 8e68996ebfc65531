# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech in, named shape-key curves out; no Blender here.

`infer.py` is the main path, read top to bottom. Importing this package costs nothing: the two classes load on first
use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..offline import silence_libraries

if TYPE_CHECKING:
    from .infer import SpeechAnimator
    from .motion import Motion

__all__ = ["IMPORT_KINDS", "Motion", "SpeechAnimator"]

# What `official.import_official` reads; here because the command line's help needs them without NumPy or torch.
IMPORT_KINDS = ("wav2sem", "faceformer-vocaset", "faceformer-biwi", "codetalker-wav2sem")

# Before any engine can be imported.
silence_libraries()


def __getattr__(name: str) -> Any:
    if name == "SpeechAnimator":
        from .infer import SpeechAnimator

        return SpeechAnimator
    if name == "Motion":
        from .motion import Motion

        return Motion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
