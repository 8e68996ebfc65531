# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces `pipeline/prosody.py` in the tests' package: every recording is two seconds of silence."""

import numpy as np

from .audio import linger
from .true_prosody import Prosody


def listen(speech, progress):
    linger("prosody", speech.path, progress)
    level_P, pauses_N2 = np.zeros(203, dtype=np.float32), np.zeros((0, 2), dtype=np.int64)
    return Prosody(level_db_P=level_P, pitch_st_P=level_P, pauses_N2=pauses_N2, duration_s=61 / 30)
