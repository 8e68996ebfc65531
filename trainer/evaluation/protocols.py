# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocols of `evaluate`: which outputs are compared with which recordings, and with which controls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvaluateVertices:
    """LVE, MVE and FDD of a model on recorded meshes.

    Attributes:
        kind: layout of --data: "vocaset", "biwi" or "custom".
        split: "test" (BIWI: Test-A, seen subjects), "test_b" (BIWI's unseen subjects), "valid" or "train".
        styles: the model's styles to predict under. Empty is as published: a training subject's own style, all styles
            for subjects that training never saw.
        controls: predict with wrong and with perfect semantics too; costs five times as much. Ignored without Wav2Sem.
        text_model: folder or hub name of the BERT-architecture model behind the oracle rows; None is the one that the
            model says its Wav2Sem learnt from, or else the MiniLM from PyPI, which is "".
        normalise_target: scale of its vectors, as `pretrain`'s setting of that name; None is the model's own.
        regions: folder of vertex lists; "" looks in --data and --data/regions.
        max_clips: the first clips only; 0 is all.
        seed: which clip's F_s another clip gets in the shuffled control.
    """

    kind: str
    split: str = "test"
    styles: tuple[str, ...] = ()
    controls: bool = True
    text_model: str | None = None
    normalise_target: bool | None = None
    regions: str = ""
    max_clips: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluateChannels:
    """Lip sync and motion of a model on prepared speech and motion, as the bundled model is judged.

    Attributes:
        split: "valid", which models are chosen by, or "test", which they are judged by, once.
        conditions: names of `trainer/evaluation/conditions.py` to hear the recordings under beside clean; None is all
            (babble needs a second speaker in the split).
        languages: speak other languages too, with espeak-ng.
        semantic_strength: scales F_s; 0 is off, 1 as trained.
        seed: of the noises and rooms.
    """

    split: str = "valid"
    conditions: tuple[str, ...] | None = None
    languages: bool = True
    semantic_strength: float = 1.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluatePrompts:
    """Lip closures of a model on telephone prompts of people who speak five languages.

    Attributes:
        max_clips: of each language; those of a smaller number are among those of a larger one.
        shortest_s, longest_s: durations that are taken; aligners lose their way in long recordings.
        least_score: of the alignment, below it a prompt is left out; 0 is best. Wrong transcripts that align at all
            come to -44 and below, right ones of the language furthest from English to -36.
        wrong_transcripts: on so many clips a language, another prompt's transcript is tried too.
        semantic_strength: scales F_s; 0 is off, 1 as trained.
    """

    max_clips: int = 300
    shortest_s: float = 1.5
    longest_s: float = 8.0
    least_score: float = -40.0
    wrong_transcripts: int = 20
    semantic_strength: float = 1.0
