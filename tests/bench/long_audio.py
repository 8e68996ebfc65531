# SPDX-License-Identifier: GPL-3.0-or-later
"""What windows change in long recordings: the motion, overall and at the seams, compared with a single window.

python tests/bench/long_audio.py [--short]
"""

from __future__ import annotations

import argparse

import numpy as np
from report import DEFAULT_MODEL, Row, run_alone, skipped, speech_samples

from wav2sem_blender.pipeline import SpeechAnimator, windows
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.listening import utterance_windows

RATE_HZ = 16_000
CLIP_S = 30


def unbroken(animator: SpeechAnimator, samples: np.ndarray) -> np.ndarray:
    """Weights (T, K) with a single window, of at most 30 s, which is all that Whisper's positions were trained on."""
    animator._listener.window_s = len(samples) / RATE_HZ + 1
    try:
        return animator.animate(samples, RATE_HZ).weights_TK
    finally:
        animator._listener.window_s = windows.WINDOW_S


def drift(animator: SpeechAnimator, minutes: int) -> list[Row]:
    """The same half minute at both ends of a long recording: how late, and how different, the second motion is."""
    n_clips = 60 * minutes // CLIP_S
    motion = animator.animate(np.tile(speech_samples(CLIP_S), n_clips), RATE_HZ)
    n_frames = round(CLIP_S * motion.fps)
    # Without the clip's edges, where its neighbours differ.
    edge = round(2 * motion.fps)
    first_TK, last_TK = (motion.weights_TK[start : start + n_frames] for start in (n_frames, (n_clips - 2) * n_frames))
    inner_TK = first_TK[edge:-edge]

    def difference(lag: int) -> float:
        moved_TK = last_TK[edge + lag : len(last_TK) - edge + lag]
        return float(np.abs(moved_TK - inner_TK).mean() / np.abs(inner_TK - inner_TK.mean(0)).mean())

    lags = {lag: difference(lag) for lag in range(-5, 6)}
    late_ms = 1000 / motion.fps * min(lags, key=lags.__getitem__)
    name = f"drift, minute {minutes} against minute 1"
    return [
        Row(name=f"{name}: delay", value=late_ms, unit="ms", aim="0", met=late_ms == 0),
        Row(name=f"{name}: mean difference", value=100 * lags[0], unit="% of the motion"),
    ]


def measure(chosen: argparse.Namespace) -> list[Row]:
    """Relative difference and velocity at the seams, by length."""
    if not (DEFAULT_MODEL / "config.json").is_file():
        return [skipped("long audio", "the repository has no bundled model")]
    animator = SpeechAnimator.load("default", engine="onnx")
    rows: list[Row] = []
    for duration_s in (20, 30) if chosen.short else (20, 22, 26, 30):
        samples = speech_samples(duration_s)
        windowed_TK = animator.animate(samples, RATE_HZ).weights_TK
        whole_TK = unbroken(animator, samples)
        difference = np.abs(windowed_TK - whole_TK).mean() / np.abs(whole_TK - whole_TK.mean(0)).mean()
        name = f"windows, {duration_s} s"
        rows.append(
            Row(name=f"{name}: mean difference to one window", value=float(100 * difference), unit="% of the motion")
        )
        positions = animator.folder.config.host.grid.positions(len(samples))
        with Speech.from_array(samples, RATE_HZ) as speech:
            plan = utterance_windows(speech, positions)
        if len(plan) == 1:
            continue
        velocity_T = np.abs(np.diff(windowed_TK, axis=0)).mean(1)
        whole_velocity_T = np.abs(np.diff(whole_TK, axis=0)).mean(1)
        seam = np.concatenate([np.arange(b.first, a.last - 1) for a, b in zip(plan, plan[1:], strict=False)])
        ratio = velocity_T[seam].mean() / whole_velocity_T[seam].mean()
        rows.append(Row(name=f"{name}: velocity in the overlaps to one window's there", value=float(ratio), unit="x"))
    return rows + drift(animator, 5 if chosen.short else 60)


if __name__ == "__main__":
    run_alone(measure)
