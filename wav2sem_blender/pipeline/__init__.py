# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech goes in, named shape-key curves come out; no Blender here.

`infer.py` is the main path; read it from top to bottom. The two classes are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..offline import silence_libraries

if TYPE_CHECKING:
    from .infer import SpeechAnimator
    from .motion import Motion

__all__ = ["Motion", "SpeechAnimator"]

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
