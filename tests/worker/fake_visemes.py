# SPDX-License-Identifier: GPL-3.0-or-later
"""`pipeline/visemes.py` in a package of the tests' own: the true one, which lingers when it is told to."""

from pathlib import Path

from .audio import linger
from .true_visemes import VISEME_SETS
from .true_visemes import as_visemes as as_visemes_at_once

__all__ = ["VISEME_SETS", "as_visemes"]


def as_visemes(motion, visemes, available):
    linger("visemes", Path(motion.info["path"]))
    return as_visemes_at_once(motion, visemes, available)
