# SPDX-License-Identifier: GPL-3.0-or-later
"""Whisper's log-mel spectrogram of a recording, each passage at its own level. NumPy; both engines and training use it.

Whisper scales a spectrogram by its loudest frame, so a passage far below the rest loses its detail. Here every frame is
measured against the speech around it: a quiet passage looks as it does alone, and silence elsewhere changes nothing.

Shapes: S samples at 16 kHz, F spectrogram frames (100 Hz), M mel bands.
"""

from __future__ import annotations

import functools

import numpy as np

N_MELS = 80
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160
RATE_HZ = 16_000
# The level is a mean over this time on each side, of powers to this exponent: loud frames count most, and yet a short
# bang hardly moves it.
_REACH_FRAMES = 120
_EXPONENT = 0.25
_SILENCE = 1e-6  # of the loudest power: 60 dB below it
# Passages more than 30 dB below the loudest are not raised further: they are pauses, not speech.
_MAX_GAIN = 3.0
# Whisper's scale, (log10 + 4) / 4, and the offset that puts speech where Whisper's own scaling puts it.
_OFFSET, _LOWEST = -4.3, -3.0
_PREEMPHASIS = np.float32(0.97)
# So many spectra stay in the processor's cache, which makes them 2.8 times as fast.
_SPECTRA_AT_ONCE, _FRAMES_AT_ONCE = 128, 3000


def frame_count(n_samples: int) -> int:
    """F of a recording."""
    return max(0, (n_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1)


def powers(samples_S: np.ndarray) -> np.ndarray:
    """Power of every hop of 10 ms, with low frequencies attenuated, float32 (S // 160,)."""
    hops = len(samples_S) // HOP_SAMPLES
    difference_S = np.diff(samples_S[: hops * HOP_SAMPLES], prepend=samples_S[:1])
    difference_S += (1 - _PREEMPHASIS) * samples_S[: hops * HOP_SAMPLES]
    return np.square(difference_S).reshape(hops, HOP_SAMPLES).mean(1)


def levels(power_F: np.ndarray) -> np.ndarray:
    """log10 of the power around every frame of a whole recording, float32 (F,), from the `powers` of its hops.

    Silence does not count: a passage after it has the level that it has alone.
    """
    window = np.hanning(2 * _REACH_FRAMES + 3)[1:-1]
    sounds_F = power_F > _SILENCE * power_F.max(initial=0)
    raised_F = np.where(sounds_F, power_F.astype(np.float64), 0) ** _EXPONENT
    mean_F = _around(raised_F, window) / np.maximum(_around(sounds_F.astype(float), window), 1e-9)
    level_F = np.log10(np.maximum(mean_F, 1e-4)) / _EXPONENT
    return np.maximum(level_F, level_F.max(initial=-np.inf) - _MAX_GAIN).astype(np.float32)


def _around(values_F: np.ndarray, window: np.ndarray) -> np.ndarray:
    return np.convolve(values_F, window)[_REACH_FRAMES : len(values_F) + _REACH_FRAMES]


def log_mel(samples_S: np.ndarray, level_F: np.ndarray) -> np.ndarray:
    """The spectrogram float32 (F, M); frame f covers samples [160 f, 160 f + 400).

    Args:
        samples_S: A whole recording or a part of it.
        level_F: `levels` of the same part, at least F of them.
    """
    n_frames = frame_count(len(samples_S))
    contiguous_S = np.ascontiguousarray(samples_S, np.float32)
    windows_FW = np.lib.stride_tricks.sliding_window_view(contiguous_S, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrogram_FM = np.empty((n_frames, N_MELS), np.float32)
    for start in range(0, n_frames, _FRAMES_AT_ONCE):
        stop = min(start + _FRAMES_AT_ONCE, n_frames)
        power_FW = np.empty((stop - start, len(mel_filters())), np.float32)
        for at in range(start, stop, _SPECTRA_AT_ONCE):
            spectra_FW = np.fft.rfft(windows_FW[at : min(at + _SPECTRA_AT_ONCE, stop)] * _hann(), axis=1)
            power_FW[at - start :][: len(spectra_FW)] = spectra_FW.real**2 + spectra_FW.imag**2
        spectrogram_FM[start:stop] = np.log10(np.maximum(power_FW @ mel_filters(), 1e-14))
    relative_FM = spectrogram_FM - level_F[:n_frames, None]
    return (np.maximum(relative_FM, _LOWEST) + np.float32(_OFFSET + 4)) / 4


def hear(samples_S: np.ndarray) -> np.ndarray:
    """The spectrogram (F, M) of a whole recording in memory."""
    return log_mel(samples_S, padded_levels(levels(powers(samples_S)), len(samples_S)))


def padded_levels(level_F: np.ndarray, n_samples: int) -> np.ndarray:
    """Levels for every spectrogram frame: the last hop's level goes on to the end."""
    missing = max(0, frame_count(n_samples) - len(level_F))
    return np.pad(level_F, (0, missing), mode="edge") if missing else level_F


@functools.cache
def _hann() -> np.ndarray:
    return np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)


@functools.cache
def mel_filters() -> np.ndarray:
    """Slaney's mel filters of equal area (201, M), 0 to 8 kHz, as Whisper has them."""
    hz_W = np.linspace(0, RATE_HZ / 2, WINDOW_SAMPLES // 2 + 1)
    edges_hz = _mel_to_hz(np.linspace(0, _hz_to_mel(RATE_HZ / 2), N_MELS + 2))
    rising = (hz_W[:, None] - edges_hz[:-2]) / np.diff(edges_hz)[:-1]
    falling = (edges_hz[2:] - hz_W[:, None]) / np.diff(edges_hz)[1:]
    triangles_WM = np.maximum(0, np.minimum(rising, falling))
    return (triangles_WM * (2 / (edges_hz[2:] - edges_hz[:-2]))).astype(np.float32)


# Slaney's scale: linear up to 1 kHz (15 mel), then 27 steps for a factor of 6.4.
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    return 3 * hz / 200 if hz < 1000 else 15 + np.log(hz / 1000) / _LOG_STEP


def _mel_to_hz(mel_N: np.ndarray) -> np.ndarray:
    return np.where(mel_N < 15, 200 * mel_N / 3, 1000 * np.exp(_LOG_STEP * (mel_N - 15)))
