# SPDX-License-Identifier: GPL-3.0-or-later
"""The track of a recording without a transcript: the phones that the ear heard, none of them forced."""

from __future__ import annotations

from ..phones import Phones
from .track import Phone, Track


def heard_track(phones: Phones) -> Track:
    """The likeliest phones one after another, which leave the mouth as it is."""
    spans = [(span.name, max(0.0, span.start_s), span.end_s, min(1.0, span.confidence)) for span in phones.spans()]
    return Track(phones=tuple(Phone(*span, forced=False) for span in spans if span[2] > span[1]))
