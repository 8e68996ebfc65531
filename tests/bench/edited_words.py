# SPDX-License-Identifier: GPL-3.0-or-later
"""Words: an edited phone's span made anew, and a transcript aligned; in one process with one thread each.

python tests/bench/edited_words.py [--short]
"""

from __future__ import annotations

import argparse
import tracemalloc

import numpy as np
from report import DEFAULT_MODEL, Row, best_s, run_alone, skipped, speech_samples

from wav2sem_blender.pipeline import Motion, SpeechAnimator
from wav2sem_blender.pipeline.checkpoint import ModelFolder
from wav2sem_blender.pipeline.infer import style_weights
from wav2sem_blender.pipeline.steering import Steering
from wav2sem_blender.pipeline.words.spoken import track_of
from wav2sem_blender.pipeline.words.track import Phone, Track
from wav2sem_blender.pipeline.words.transcript import parse_transcript

TAKE_S = 60.0
SAID = "please put the paper boat by the pond my mother may move five more ships before we both hear the music"
SAID_S = 6.6


def measure_edit(heard: Motion) -> Row:
    """A p over a vowel in the middle of a take; the model's files are read already."""
    steering = Steering(ModelFolder.open(DEFAULT_MODEL))
    span_s = (TAKE_S / 2, TAKE_S / 2 + 0.1)
    track = Track(phones=(Phone("P", *span_s),))
    style_N = style_weights("natural", ModelFolder.open(DEFAULT_MODEL).config.styles)
    assert heard.memory_RM is not None and heard.phones is not None
    given = (heard.memory_RM, heard.phones, track, style_N)
    edit_ms = 1000 * best_s(lambda: steering.changed(*given, heard.weights_TK, span_s), 5)
    whole_ms = 1000 * best_s(lambda: steering.weights(*given), 2)
    name = f"an edited phone's span in a take of {TAKE_S:g} s ({whole_ms / edit_ms:.0f} times as fast as the whole)"
    return Row(name=name, value=edit_ms, unit="ms", aim="<= 100", met=edit_ms <= 100)


def measure_alignment(heard: Motion, minutes: float) -> list[Row]:
    """The demo's words over and over, found in as many repetitions of its sound."""
    assert heard.phones is not None
    rate_hz = heard.phones.rate_hz
    rows, peaks_mb = [], []
    for duration_s in (TAKE_S, 60 * minutes):
        n_frames = int(duration_s * rate_hz)
        posteriors_LP = np.resize(heard.phones.posteriors_LP, (n_frames, heard.phones.posteriors_LP.shape[1]))
        phones = type(heard.phones)(posteriors_LP=posteriors_LP, rate_hz=rate_hz, first_s=heard.phones.first_s)
        transcript = parse_transcript("\n".join([SAID] * round(duration_s / SAID_S)))
        seconds = best_s(lambda p=phones, t=transcript: track_of(p, t, "en"), 2)
        tracemalloc.start()
        track_of(phones, transcript, "en")
        peaks_mb.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
        name = f"a transcript found in {duration_s / 60:g} min"
        per_second = duration_s / seconds
        rows.append(Row(name=name, value=per_second, unit="audio s per s", aim=">= 100", met=per_second >= 100))
    name = f"memory of that, {minutes:g} min / 1 min ({peaks_mb[1]:.0f} / {peaks_mb[0]:.0f} MB)"
    return [*rows, Row(name=name, value=peaks_mb[1] / peaks_mb[0], unit="x")]


def measure(chosen: argparse.Namespace) -> list[Row]:
    """One take, heard once."""
    if not (DEFAULT_MODEL / "config.json").is_file():
        return [skipped("edited words", "the repository has no bundled model")]
    heard = SpeechAnimator.load("default", engine="onnx").animate(speech_samples(TAKE_S), 16_000)
    return [measure_edit(heard), *measure_alignment(heard, 5 if chosen.short else 30)]


if __name__ == "__main__":
    run_alone(measure)
