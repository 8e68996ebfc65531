# SPDX-License-Identifier: GPL-3.0-or-later
"""How sure the ear is of a line: which lines of a night somebody should listen to first.

Shapes: L encoder frames, P phones.
"""

from __future__ import annotations

import numpy as np

from ..pipeline.phones import SILENCE, Phones


def confidence(phones: Phones | None) -> float | None:
    """Mean probability of the likeliest phone where speech is heard, 0..1; None if the model tells no phones.

    0 if there is only silence: somebody should listen to that, too.
    """
    if phones is None or SILENCE not in phones.names:
        return None
    posteriors_LP = phones.posteriors_LP.astype(np.float32)
    silence = phones.names.index(SILENCE)
    speech_L = posteriors_LP[:, silence] < 0.5
    if not speech_L.any():
        return 0.0
    return round(float(posteriors_LP[speech_L].max(axis=1).mean(dtype=np.float64)), 4)
