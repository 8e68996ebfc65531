# SPDX-License-Identifier: GPL-3.0-or-later
"""Replaces `pipeline/infer.py` in the tests' package; the recording's name says what it does."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import UserError
from .audio import linger
from .motion import Motion
from .phones import Phones
from .words.directions import meant
from .words.track import Direction, Phone, Track, Word

LOADS = []


class SpeechAnimator:
    def __init__(self, model, engine, device):
        self.model, self.engine, self.device = model, engine, device
        self.notes = []

    @classmethod
    def load(cls, model="default", engine="auto", device="auto"):
        if "broken" in model:
            raise UserError("{model}: model.safetensors is damaged.", model=model)
        linger("model", Path(model))
        LOADS.append(model)
        return cls(model, engine, device)

    def animate_speech(
        self,
        speech,
        style=0,
        semantic_strength=1.0,
        progress=None,
        articulation=0.0,
        seed=0,
        track=None,
        transcript=None,
        language="",
    ):
        for stage in ("semantics", "features", "motion"):
            linger(stage, speech.path, progress)
        if speech.path.stem == "crash":
            print("about to crash", file=sys.stderr, flush=True)
            os._exit(3)
        elif speech.path.stem == "bug":
            raise KeyError("encoder.layers.7")
        elif speech.path.stem == "shapes":
            np.zeros(2) + np.zeros(3)
        elif speech.path.stem == "memory":
            raise MemoryError
        elif speech.path.stem == "fill":
            with (speech.temp_dir / "waveform.raw").open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        info = {"engine": "fake", "device": "cpu", "loads": str(len(LOADS)), "audio_sha256": "ab" * 32}
        info |= {"audio": speech.path.name, "model": self.model, "python": sys.executable, "argv": " ".join(sys.argv)}
        info |= {"style": str(style), "semantic_strength": str(semantic_strength), "path": str(speech.path)}
        info |= {"articulation": str(articulation), "track": str(track)}
        self.notes.append(f"style {style}")
        phones = one_l() if speech.path.stem == "phones" else None
        motion = replace(make_motion(info), phones=phones)
        if phones is not None:  # as of a model that can follow a track
            motion = replace(motion, memory_RM=np.zeros((motion.n_frames, 4)), info={**info, "style": "1 natural"})
        if transcript is not None:
            motion = replace(motion, track=said(transcript, language))
            self.notes += transcript.notes
        return motion


def said(transcript, language):
    """The words of a transcript, one every 0.25 s from 0.5 s on, each as a forced L."""
    starts_s = [0.5 + 0.25 * i for i in range(len(transcript.words))]
    return Track(
        words=tuple(Word(word.text, at, at + 0.25) for word, at in zip(transcript.words, starts_s, strict=True)),
        phones=tuple(Phone("L", at, at + 0.25) for at in starts_s),
        directions=tuple(
            Direction(name, starts_s[m.first], starts_s[m.stop - 1] + 0.25, value)
            for m in transcript.marks
            if m.first < m.stop
            for name, value in meant(m.name, m.value)
        ),
        language=language or "en",
    )


def one_l():
    """The phone L from 0.5 to 1 s of two seconds."""
    posteriors_LP = np.zeros((100, 2))
    posteriors_LP[:, 0] = 1
    posteriors_LP[25:50] = 0, 1
    return Phones(names=("SIL", "L"), posteriors_LP=posteriors_LP, first_s=0.01)


def make_motion(info):
    """Two seconds at 30 fps: a jaw that opens and closes linearly, and a pucker that rises beyond 1."""
    time_s = np.arange(61) / 30
    jaw = 1 - np.abs(time_s - 1)
    weights_TK = np.stack([jaw, 0.9 * time_s, -0.25 * jaw], axis=1)
    basis_KV3 = None
    if "flame" in info["model"]:
        basis_KV3 = np.random.default_rng(0).normal(0, 0.01, (3, 5023, 3))
    return Motion(
        weights_TK=weights_TK,
        channels=("jawOpen", "mouthPucker", "mouthSmileLeft"),
        fps=30.0,
        basis_KV3=basis_KV3,
        info=info,
    )
