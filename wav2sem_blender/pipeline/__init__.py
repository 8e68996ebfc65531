# SPDX-License-Identifier: GPL-3.0-or-later
"""Speech in, named shape-key curves out; no Blender here.

`infer.py` is the main path, read top to bottom. Importing this package costs nothing: the two public names load on
first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .infer import SpeechAnimator
    from .motion import Motion

__all__ = ["Motion", "SpeechAnimator"]


def __getattr__(name: str) -> Any:
    if name == "SpeechAnimator":
        from .infer import SpeechAnimator

        return SpeechAnimator
    if name == "Motion":
        from .motion import Motion

        return Motion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
