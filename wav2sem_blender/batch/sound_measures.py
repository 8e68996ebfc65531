# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report says of a recording: level, peak, clipping, noise, silence, and the picture of its waveform.

Shapes: C channels, N source samples, S samples at 16 kHz, F frames of 20 ms, B bars of the picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..pipeline.audio import Speech

N_BARS = 120
_FRAME = 320
_BLOCK = _FRAME * 2048
_FLOOR_DB = -100.0
# A frame is silence below this part of the way from the noise to the loud frames, as where `audio.py` looks for pauses;
# digital silence counts as noise that is this far below them.
_QUIET_FRACTION, _LARGEST_RANGE_DB = 0.35, 60.0
# A sample at full scale whose neighbour is there too is clipped: a single one may be a peak of its own.
_FULL_SCALE = 0.9985


def measures(path: Path, speech: Speech) -> dict[str, float]:
    """Level and noise in dB of full scale, `clipped` and `silence` as shares.

    The level is that of the louder frames, and the noise that of the quietest tenth, both of the mono sound.
    """
    peak, clipped = _at_full_scale(path)
    frames_db_F = _frames_db(speech)
    loud_db, noise_db = np.percentile(frames_db_F, [95, 10])
    range_db = min(loud_db - noise_db, _LARGEST_RANGE_DB)
    speaking_F = frames_db_F >= loud_db - (1 - _QUIET_FRACTION) * range_db
    level_db = 10 * np.log10(np.mean(10 ** (frames_db_F[speaking_F] / 10)))
    return {
        "level_db": round(float(level_db), 1),
        "peak_db": round(max(_FLOOR_DB, 20 * float(np.log10(max(peak, 1e-5)))), 1),
        "clipped": round(clipped, 6),
        "noise_db": round(float(noise_db), 1),
        "silence": round(float(1 - speaking_F.mean()), 3),
    }


def bars(speech: Speech) -> np.ndarray:
    """The loudest sample in each of B equal parts, uint8 (B,), 255 is the loudest of all."""
    starts_B = np.linspace(0, speech.n_samples, N_BARS + 1).astype(int)[:-1]  # `MIN_DURATION_S` leaves none empty
    peaks_B = np.zeros(N_BARS)
    for at in range(0, speech.n_samples, _BLOCK):
        loud_S = np.abs(speech.read(at, min(at + _BLOCK, speech.n_samples)))
        first, last = np.searchsorted(starts_B, [at, at + len(loud_S) - 1], "right") - 1
        inside = np.maximum(starts_B[first : last + 1] - at, 0)
        peaks_B[first : last + 1] = np.maximum(peaks_B[first : last + 1], np.maximum.reduceat(loud_S, inside))
    return np.rint(255 * peaks_B / max(float(peaks_B.max()), 1e-9)).astype(np.uint8)


def _at_full_scale(path: Path) -> tuple[float, float]:
    """The peak in 0..1, and the share of clipped samples, over all channels of the source."""
    from ..pipeline.sound_file import open_sound  # the page's maker needs no sound library

    peak, n_clipped, n_all = 0.0, 0, 0
    with open_sound(path) as sound:
        for block_NC in sound.blocks(None):
            scale = 1 / 32768 if block_NC.dtype == np.int16 else 1.0
            block_peak = scale * max(float(block_NC.max()), -float(block_NC.min()))
            peak = max(peak, block_peak)
            n_all += block_NC.size
            if block_peak >= _FULL_SCALE:
                full_NC = np.abs(block_NC.astype(np.float32)) * np.float32(scale) >= _FULL_SCALE
                n_clipped += int((full_NC[1:] & full_NC[:-1]).sum())
    return peak, n_clipped / max(1, n_all)


def _frames_db(speech: Speech) -> np.ndarray:
    """Level of each whole frame (F,), in pieces, so that a long recording needs no memory."""
    pieces = []
    for start in range(0, speech.n_samples, _BLOCK):
        samples_S = speech.read(start, min(start + _BLOCK, speech.n_samples), normalised=False)
        whole = len(samples_S) - len(samples_S) % _FRAME
        if whole:
            frames_FS = samples_S[:whole].reshape(-1, _FRAME)
            pieces.append(frames_FS.var(axis=1, dtype=np.float64))  # of the sound alone, without an offset
    power_F = np.concatenate(pieces) if pieces else np.zeros(1)
    return 10 * np.log10(np.maximum(power_F, 10 ** (_FLOOR_DB / 10)))
