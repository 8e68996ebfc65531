# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ear heard as a track, and whether a track from a file is of the same recording."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from ...errors import Text, UserError
from ..phones import SILENCE, Phones
from .track import Phone, Track
from .track_files import load_track

# A track that ends so much after its sound, or of whose sounds less than this share is heard, is of another one.
_TOO_LONG_S, _DOUBTED = 0.5, 0.15


def heard_track(phones: Phones) -> Track:
    """The likeliest phones one after another, which leave the mouth as it is."""
    spans = [(span.name, max(0.0, span.start_s), span.end_s, min(1.0, span.confidence)) for span in phones.spans()]
    return Track(phones=tuple(Phone(*span, forced=False) for span in spans if span[2] > span[1]))


def load_followed(path: Path) -> Track:
    """Read a track for a mouth to follow.

    Raises:
        UserError: As `load_track`; or there are words alone.
    """
    track = load_track(path)
    if not track.phones and not track.directions:
        raise UserError("{file} has no phones; give it as a transcript.", file=path)
    return track


def doubts(track: Track, known: Track, duration_s: float, name: str) -> list[Text]:
    """Whether a track may be of another recording.

    Args:
        track: It, in the times of the recording.
        known: What was heard in the recording.
        duration_s: Length of the recording.
        name: Where the track comes from.

    Raises:
        UserError: It is of another recording, or empty.
    """
    if not track.words and not track.phones:
        raise UserError("{file}: no word or phone lies within this sound.", file=name)
    if track.end_s > duration_s + _TOO_LONG_S:
        raise UserError(
            "{file} ends at {end:.1f} s, but the sound at {length:.1f} s. Is it of another recording?",
            file=name,
            end=track.end_s,
            length=duration_s,
        )
    if track.phones and known.phones and _agreement(track, known) < _DOUBTED:
        return [Text("{file}: few of its sounds are heard at their times. Is it of another recording?", file=name)]
    return []


def _agreement(track: Track, known: Track) -> float:
    """Share of the sounding time in which two tracks have the same phone."""
    same_s = all_s = 0.0
    others = deque(known.phones)
    for phone in track.phones:
        if phone.name == SILENCE:
            continue
        all_s += phone.end_s - phone.start_s
        while others and others[0].end_s <= phone.start_s:
            others.popleft()
        for other in others:
            if other.start_s >= phone.end_s:
                break
            if other.name == phone.name:
                same_s += min(phone.end_s, other.end_s) - max(phone.start_s, other.start_s)
    return same_s / all_s if all_s else 1.0
