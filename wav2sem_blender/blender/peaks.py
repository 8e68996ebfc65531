# SPDX-License-Identifier: GPL-3.0-or-later
"""How loud the chosen sound is from moment to moment, for the panel's waveform.

Blender's `aud` reads every format that Blender plays, but a whole film in one call that nothing interrupts. So a timer
reads a few seconds at each turn. Seeking in a compressed sound is not exact, which no picture shows.
Shapes: S samples, C channels, N peaks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import bpy

import aud  # isort: skip  (found only beside bpy)
import numpy as np

from . import compat, sound, sound_info
from .sidebar import redraw

# More than a wide sidebar has pixels.
N_PEAKS = 1024
# 4 to 17 ms of work at 48 kHz, by the format.
_SLICE_S = 4.0
_PAUSE_S = 0.02
_SLICES_PER_REDRAW = 8
_KEPT = 16


@dataclass(frozen=True)
class Part:
    """From where to where in which sound; `source` is another one where the sound has changed."""

    source: tuple[object, ...]
    start_s: float
    duration_s: float


class Reading:
    """A part of a sound as far as it is read.

    Attributes:
        part: Which.
        peaks_N: The loudest sample in each of as many equal pieces of the part, 0 where it is not read yet.
        n_slices: How often something came to it.
        is_done: Nothing more will come.
    """

    def __init__(self, opened: Any, part: Part) -> None:
        self.part, self.peaks_N = part, np.zeros(N_PEAKS, np.float32)
        self.n_slices, self.is_done = 0, False
        self._opened = opened

    def read_on(self) -> None:
        """Read the next few seconds; what cannot be decoded stays silent."""
        begin_s = self.n_slices * _SLICE_S
        end_s = min(begin_s + _SLICE_S, self.part.duration_s)
        self.n_slices += 1
        self.is_done = end_s >= self.part.duration_s
        try:
            # Opens the file, too, and raises; `data` ends the whole process where the file is gone.
            rate_hz, _ = self._opened.specs
            samples_SC = self._opened.limit(self.part.start_s + begin_s, self.part.start_s + end_s).data()
        except aud.error:
            self.is_done = True
            return
        if len(samples_SC):
            at_s_S = begin_s + np.arange(len(samples_SC)) / rate_hz
            piece_S = np.minimum(at_s_S * (N_PEAKS / self.part.duration_s), N_PEAKS - 1).astype(int)
            firsts = np.flatnonzero(np.diff(piece_S, prepend=-1))
            loudest = np.maximum.reduceat(np.abs(samples_SC).max(axis=1), firsts)
            pieces = piece_S[firsts]
            self.peaks_N[pieces] = np.maximum(self.peaks_N[pieces], loudest)


# The one that was asked for last is the last.
_readings: dict[Part, Reading] = {}


def of_scene(scene: bpy.types.Scene, info: sound_info.SoundInfo) -> Reading | None:
    """The panel's sound, what is not known of it being read from now on; None when its length or its speed is unknown.

    Args:
        scene: Whose panel.
        info: What the panel says about it.
    """
    part = _part(scene, info)
    if part is None:
        return None
    reading = _readings.pop(part, None)
    if reading is None:
        reading = Reading(sound_info.opened(scene), part)
    _readings[part] = reading
    while len(_readings) > _KEPT:
        del _readings[next(iter(_readings))]
    if not reading.is_done and not bpy.app.timers.is_registered(look):
        bpy.app.timers.register(look, first_interval=_PAUSE_S, persistent=True)
    return reading


def look() -> float | None:
    """Read some more of what was asked for last; the seconds until the next turn, None when all is read."""
    reading = next((reading for reading in reversed(_readings.values()) if not reading.is_done), None)
    if reading is None:
        return None
    reading.read_on()
    if reading.is_done or reading.n_slices % _SLICES_PER_REDRAW == 1:
        redraw(bpy.context)
    return _PAUSE_S


def shut_down() -> None:
    """Forget them."""
    _readings.clear()
    if bpy.app.timers.is_registered(look):
        bpy.app.timers.unregister(look)


def _part(scene: bpy.types.Scene, info: sound_info.SoundInfo) -> Part | None:
    if not info.duration_s:
        return None
    start_s = 0.0
    if scene.wav2sem.source == "STRIP":
        strip = compat.find_strip(scene, scene.wav2sem.strip)
        if len(strip.retiming_keys) > 1:
            return None
        start_s, _ = sound.trimmed_part(strip, compat.frame_rate_hz(scene))
    block = sound_info.chosen_sound(scene)
    if block is not None and block.packed_file is not None:
        return Part((block.session_uid, block.packed_file.size), start_s, info.duration_s)
    path = sound_info.chosen_path(scene)
    try:
        status = os.stat(path)
    except OSError:  # deleted since the panel looked
        return None
    return Part((path, status.st_mtime_ns, status.st_size), start_s, info.duration_s)
