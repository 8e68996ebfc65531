# SPDX-License-Identifier: GPL-3.0-or-later
"""Wraps `pipeline/visemes.py` in the tests' package, so that it can linger."""

from pathlib import Path

from .audio import linger
from .true_visemes import MEASURE_NAMES, MEASURES, VISEME_SETS, closures, measured
from .true_visemes import as_visemes as as_visemes_at_once

__all__ = ["MEASURES", "MEASURE_NAMES", "VISEME_SETS", "as_visemes", "closures", "measured"]


def as_visemes(motion, visemes, available):
    linger("visemes", Path(motion.info["path"]))
    return as_visemes_at_once(motion, visemes, available)
