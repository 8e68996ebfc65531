# SPDX-License-Identifier: GPL-3.0-or-later
"""Words: an edited phone's span made anew, also in Blender with its strips and keys, and a transcript aligned.

python tests/bench/edited_words.py [--short]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import soundfile
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

# A take with its strips in the Sequencer; words are renamed one after another. Undo and drawing are not in it.
IN_BLENDER = """
import json, sys, time
import bpy
import wav2sem_blender
from wav2sem_blender.blender.animate import update_mouth
from wav2sem_blender.blender.scene import speech_track, takes
from wav2sem_blender.blender.scene.demo_head import build_demo_head
from wav2sem_blender.blender.ui.speech_track import phones_of_text
bpy.ops.wm.read_factory_settings(use_empty=True)
wav2sem_blender.register()
head = build_demo_head()
bpy.context.view_layer.objects.active = head
head.select_set(True)
said = dict(transcript=sys.argv[2], engine="onnx", device="cpu")
assert bpy.ops.wav2sem.animate(filepath=sys.argv[1], object=head.name, **said) == {"FINISHED"}
assert bpy.ops.wav2sem.show_words() == {"FINISHED"}
take = takes.of_face(head)[0]
seconds = []
for old, new in (("pond", "bond"), ("music", "movie"), ("paper", "piper"), ("ships", "chips")):
    strips = speech_track.strips_of(take.action)[1]  # an update replaces some of them
    word = [strip for strip in strips if strip.type == "TEXT" and strip.text == old]
    word[len(word) // 2].text = new
    start = time.process_time()
    done = update_mouth.follow(head, take, pronounce=phones_of_text)
    seconds.append(time.process_time() - start)
    assert done.n_spans and done.edited is not None
wav2sem_blender.unregister()
print("EDIT " + json.dumps({"ms": 1000 * min(seconds), "strips": len(strips)}))
"""


def measure_in_blender() -> Row:
    """What Blender computes after an edit: strips read, words pronounced, the span solved, its keys written."""
    name = f"Blender, computed for an edited word in a take of {TAKE_S:g} s"
    with tempfile.TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        soundfile.write(speech, speech_samples(TAKE_S), 16_000)
        said = " ".join([SAID] * round(TAKE_S / SAID_S))
        command = [sys.executable, "-c", IN_BLENDER, str(speech), said]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith("EDIT ")]
    if result.returncode or not lines:
        return skipped(name, (result.stderr.strip() or "no answer").splitlines()[-1])
    edit = json.loads(lines[0].removeprefix("EDIT "))
    name += f" with {edit['strips']} strips"
    return Row(name=name, value=edit["ms"], unit="ms", aim="<= 100", met=edit["ms"] <= 100)


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
    return [measure_edit(heard), measure_in_blender(), *measure_alignment(heard, 5 if chosen.short else 30)]


if __name__ == "__main__":
    run_alone(measure)
