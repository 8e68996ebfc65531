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
        styles: the model's styles to predict under. Empty, as published, takes a training subject's own style, and all
            styles for unseen subjects, or nobody's (UniTalker's pivot).
        controls: also predict with wrong and with perfect semantics, which takes five times as long. Ignored without
            Wav2Sem.
        text_model: folder or hub name of the BERT-architecture model behind the oracle rows; None is the one
            that the model's Wav2Sem learnt from, or else "", the MiniLM from PyPI.
        normalise_target: as in `pretrain`; None is the model's own setting.
        regions: folder of vertex lists; "" looks in --data and --data/regions.
        max_clips: the first clips only; 0 is all.
        seed: of the shuffled control.
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
        split: "valid" to choose models by, or "test" for the final figures.
        conditions: from `trainer/evaluation/conditions.py`, in addition to clean; None is all (babble needs a second
            speaker in the split).
        languages: also measure other languages, spoken by espeak-ng.
        level_clips: also measure how many clips move at other levels (`trainer/evaluation/levels.py`); 0 is none.
        semantic_strength: scales F_s; 0 is off, 1 as trained.
        transcripts: "none", "right", or "wrong", in which a fifth of the words are others (`given_texts.py`).
        seed: of the noises, rooms and wrong words.
    """

    split: str = "valid"
    conditions: tuple[str, ...] | None = None
    languages: bool = True
    level_clips: int = 20
    semantic_strength: float = 1.0
    transcripts: str = "none"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluateSteering:
    """How well the mouth follows forced phones in recordings of unseen voices.

    Attributes:
        split: "valid" or "test".
        style: of the model.
        clips: how many recordings.
        share: of the phones that could be exchanged; each costs a decoding of its clip.
        seed: of the choice.
    """

    split: str = "valid"
    style: str = "natural"
    clips: int = 60
    share: float = 0.3
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluateWords:
    """How well a transcript's words are found, against published word times.

    Attributes:
        russian: how many of festvox-ru's recordings, of which there are 568.
        exchanged: share of the words that are replaced by others, to see which are trusted.
        seed: of those words.
    """

    russian: int = 100
    exchanged: float = 0.2
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluateText:
    """What text adds to sound: a filmed speaker's brows, head and lips, and which words of many voices are stressed.

    Attributes:
        split: "valid" to choose by, or "test" for the final figures.
        text_model: folder or hub name of a BERT-architecture model; "" is the MiniLM from PyPI.
        epochs: of each small network.
        seeds: one network each; they also order the shuffled words.
        snr_db: of the babble in which stressed words are also looked for.
    """

    split: str = "valid"
    text_model: str = ""
    epochs: int = 15
    seeds: tuple[int, ...] = (0, 1, 2)
    snr_db: tuple[float, ...] = (10.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class EvaluatePronunciation:
    """How the add-on pronounces words that it never learned.

    Attributes:
        words: of each language.
    """

    words: int = 500


@dataclass(frozen=True, kw_only=True)
class EvaluatePrompts:
    """Lip closures of a model on telephone prompts in five languages.

    Attributes:
        max_clips: of each language; a smaller number takes a subset of a larger one's.
        shortest_s, longest_s: durations to take; aligners get lost in long recordings.
        least_score: prompts whose alignment scores lower are left out; 0 is best. Wrong transcripts that align at all
            score -44 and below; right ones of the language furthest from English score -36.
        wrong_transcripts: number of clips per language on which another prompt's transcript is tried too.
        semantic_strength: scales F_s; 0 is off, 1 as trained.
        transcripts: as of `EvaluateChannels`.
        seed: of the wrong words.
    """

    max_clips: int = 300
    shortest_s: float = 1.5
    longest_s: float = 8.0
    least_score: float = -40.0
    wrong_transcripts: int = 20
    semantic_strength: float = 1.0
    transcripts: str = "none"
    seed: int = 0
