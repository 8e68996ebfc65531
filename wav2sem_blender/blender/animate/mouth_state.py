# SPDX-License-Identifier: GPL-3.0-or-later
"""What is needed to make an edited span of a take anew without hearing the sound again. No bpy.

It is kept for the session only; after loading a file the worker hears the sound once more.

Shapes: T animation frames of the model, K channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...pipeline.checkpoint import ModelFolder
from ...pipeline.forced_phones import spoken
from ...pipeline.motion import Motion
from ...pipeline.phones import Phones
from ...pipeline.retarget import covering, prepared
from ...pipeline.steering import FADE_S, WARM_UP_S, Steering
from ...pipeline.tongue import with_tongue
from ...pipeline.words.track import Track
from ..scene.track_edits import Sounding, changed_spans, mouth_of
from .recent import Recent

# Beyond what an edit changes: smoothing and the tongue read their neighbours.
_MARGIN_S = 0.5
_MAX_MOTIONS = 12
# Beyond what the model reads around a span.
_FAR_S = 3.0
_STYLE = re.compile(r"([\d.e-]+) (.+)")


@dataclass(frozen=True, kw_only=True)
class Change:
    """A span of a take before and after an edit; its first frame is at `first_s` seconds of the take."""

    first_s: float
    old: Motion
    new: Motion


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What is done to the model's motion, as in `protocol.Animate`."""

    speed: float = 1.0
    strength: float = 1.0
    smoothing_s: float = 0.0
    tongue: tuple[str, ...] = ()


class MouthState:
    """A take's motion as the model made it, and the same after each edit."""

    def __init__(self, raw: Motion, steering: Steering, style_N: np.ndarray, finish: Finish) -> None:
        """Read the worker's motion.

        Args:
            raw: With its phones, its memory, and the track that it follows.
            steering: The model.
            style_N: Of the speaker.
            finish: What was done to the motion then.
        """
        assert raw.memory_RM is not None and raw.phones is not None
        self._raw, self._memory_RM, self._phones = replace(raw, basis_KV3=None), raw.memory_RM, raw.phones
        self._steering, self._style_N = steering, style_N
        self._finish = finish
        self._first = raw.track or Track()
        self._motions: Recent[frozenset[Sounding], np.ndarray] = Recent(_MAX_MOTIONS)

    def changes(self, old: Track, new: Track, spans_s: Sequence[tuple[float, float]]) -> list[Change]:
        """What an edit changes, in parts that do not overlap.

        Args:
            old, new: The track before and after it, in seconds as the scene plays the sound.
            spans_s: Where they differ, likewise.
        """
        speed = self._finish.speed
        if speed != 1.0:
            old, new = old.at_speed(1 / speed), new.at_speed(1 / speed)
        before_TK, after_TK = self._weights(old), self._weights(new, old)
        reach_s = FADE_S + _MARGIN_S + 2 * self._finish.smoothing_s * speed
        parts: list[tuple[int, int]] = []
        for start_s, end_s in sorted(spans_s):
            first = max(0, int((start_s * speed - reach_s) * self._raw.fps))
            last = min(len(before_TK), int((end_s * speed + reach_s) * self._raw.fps) + 1)
            if parts and first <= parts[-1][1]:
                parts[-1] = parts[-1][0], max(last, parts[-1][1])
            elif first < last:
                parts.append((first, last))
        return [
            Change(
                first_s=first / self._raw.fps / speed,
                old=self._part(before_TK, old, first, last),
                new=self._part(after_TK, new, first, last),
            )
            for first, last in parts
        ]

    def _weights(self, track: Track, near: Track | None = None) -> np.ndarray:
        """The motion (T, K) that follows a track; made from that of the track `near`, if it is known."""
        key = mouth_of(track)
        if key == mouth_of(self._first):
            return self._raw.weights_TK
        known_TK = self._motions.get(key)
        if known_TK is None:
            base, weights_TK = self._first, self._raw.weights_TK.copy()
            if near is not None and mouth_of(near) in self._motions:
                base, weights_TK = near, self._motions[mouth_of(near)].copy()
            for span_s in changed_spans(base, track):
                first, part_TK = self._steering.changed(
                    self._memory_RM, self._phones, _near(track, span_s), self._style_N, weights_TK, span_s
                )
                weights_TK[first : first + len(part_TK)] = part_TK
            weights_TK[len(self._memory_RM) :] = weights_TK[len(self._memory_RM) - 1]  # the last pose is held
            known_TK = weights_TK
        return self._motions.put(key, known_TK)

    def _part(self, weights_TK: np.ndarray, track: Track, first: int, last: int) -> Motion:
        """Frames [first, last) with all that the take's settings do to them."""
        raw = replace(
            self._raw,
            weights_TK=weights_TK[first:last],
            memory_RM=None,
            track=None,
            phones=_phones_there(self._phones, track, first / self._raw.fps, last / self._raw.fps),
        )
        motion = with_tongue(raw.at_speed(self._finish.speed), self._finish.tongue)
        return prepared(motion, strength=self._finish.strength, smoothing_s=self._finish.smoothing_s)


def open_state(raw: Motion, model: Path, finish: Finish) -> MouthState:
    """The state of a take that the worker has just made.

    Raises:
        UserError: The model does not follow a track, or cannot be read.
    """
    steering, styles = _steering(model, (model / "config.json").stat().st_mtime_ns)
    parts = (_STYLE.fullmatch(part) for part in raw.info["style"].split(" + "))
    shares = {found[2]: float(found[1]) for found in parts if found}
    style_N = np.array([shares.get(name, 0.0) for name in styles], np.float32)
    return MouthState(covering(raw), steering, style_N, finish)


@lru_cache(maxsize=2)
def _steering(model: Path, _mtime_ns: int) -> tuple[Steering, tuple[str, ...]]:
    """The model, which is read again when it has changed."""
    folder = ModelFolder.open(model)
    return Steering(folder), folder.config.styles


def _near(track: Track, span_s: tuple[float, float]) -> Track:
    """What of a track counts for a span: a long one need not be read whole for every edit."""
    start_s, end_s = span_s[0] - WARM_UP_S - _FAR_S, span_s[1] + _FAR_S
    return Track(
        phones=tuple(phone for phone in track.phones if phone.end_s > start_s and phone.start_s < end_s),
        directions=tuple(some for some in track.directions if some.end_s > start_s and some.start_s < end_s),
    )


def _phones_there(phones: Phones, track: Track, start_s: float, end_s: float) -> Phones:
    """What is spoken between two times, counted from the first: what was heard, or what the track forces."""
    first = max(0, int((start_s - phones.first_s) * phones.rate_hz))
    last = min(len(phones.posteriors_LP), int((end_s - phones.first_s) * phones.rate_hz) + 2)
    at_s = phones.first_s + first / phones.rate_hz
    there = replace(phones, posteriors_LP=phones.posteriors_LP[first : max(first, last)], first_s=at_s)
    near = (p for p in track.phones if p.end_s > start_s - 1 and p.start_s < end_s + 1)
    return spoken(there, near).later(-start_s)
