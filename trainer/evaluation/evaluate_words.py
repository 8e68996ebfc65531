# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate words --data ../shared/data --out work/words --model default`

How well the words of a transcript are found in what the ear heard: the times of their edges against published ones,
what becomes of a transcript with wrong words, and the speed.

Shapes: L encoder frames, P phones.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from tqdm import tqdm

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.infer import SpeechAnimator
from wav2sem_blender.pipeline.phones import BILABIALS, PHONES, Phones
from wav2sem_blender.pipeline.words.spoken import TRUST, track_of
from wav2sem_blender.pipeline.words.track import Track, Word
from wav2sem_blender.pipeline.words.transcript import parse_transcript

from ..speech.phones import Timing
from ..speech.word_times import READERS, TimedClip, timed_clips
from .given_texts import with_wrong_words
from .protocols import EvaluateWords
from .tables import table, write_results

NEAR_S = 0.06
_NEAR_BILABIAL_S = 0.06
EDGE_HEADS = ("recordings", "voices", "words", "found", "start, ms", "end, ms", "edges, ms", "within 60 ms", "bias, ms")
WRONG_HEADS = ("recordings", "right words trusted", "wrong words doubted", "of another's text trusted")
PHONE_HEADS = ("recordings", "p, b, m", "heard", "right text", "wrong words", "another's text")


@dataclass(frozen=True)
class _Group:
    """Recordings that are judged together."""

    name: str
    clips: list[tuple[TimedClip, Phones]]


def evaluate_words(config: EvaluateWords, data: Path, out: Path, model: str, device: str) -> dict[str, Any]:
    """Write results.json and results.md.

    `edges`: for each group the words, the share that was found, the median error of their starts, ends and of both,
    the share of all edges (also of words that were not found) within 60 ms, and the median of the signed error.
    `wrong`: with a share of the words exchanged, how many of the right words are trusted, how many of the wrong ones
    are not, and how many words are trusted of another recording's text. `phones`: F1 of p, b and m on 10 ms steps.
    `speed`: seconds of sound aligned in a second.

    Raises:
        MissingFileError: There is no model, or no recording with times.
        UserError: The model does not tell phones.
    """
    animator = SpeechAnimator.load(model, device=device)
    if tuple(animator.folder.config.phones) != PHONES:
        raise UserError("{model} does not tell our phones", model=model)
    heard: list[tuple[TimedClip, Phones]] = []
    for clip in tqdm(list(timed_clips(data, config.russian)), desc="hear", unit="clip"):
        samples_S, rate_hz = sf.read(clip.path, dtype="float32")
        phones = animator.animate(samples_S, rate_hz).phones
        assert phones is not None
        heard.append((clip, phones))
    groups = [_Group(name, [each for each in heard if _name(each[0]) == name]) for name in _names(heard)]
    joined = [_joined([each for each in heard if each[0].speaker == speaker]) for speaker in _speakers(heard)]
    groups += [_Group("readers, all clips of each as one", joined)] if joined else []
    rng = np.random.default_rng(config.seed)
    results = {
        "model": {"name": animator.folder.config.name, "weights_sha256": animator.folder.weights_sha256},
        "date": date.today().isoformat(),
        "trust": TRUST,
        "exchanged": config.exchanged,
        "edges": [_edges(group) for group in groups],
        "wrong": [_wrong(group, config.exchanged, rng) for group in groups if _has_others(group)],
        "phones": [_phones(group, config.exchanged, rng) for group in groups if _has_phones(group)],
        "speed": _speed(groups),
    }
    write_results(out, results, _markdown(results))
    return results


def _name(clip: TimedClip) -> str:
    seen = "heard in training" if clip.split == "train" else "unseen"
    return f"{clip.corpus}, {clip.language}, {seen}"


def _names(heard: Iterable[tuple[TimedClip, Phones]]) -> list[str]:
    return list(dict.fromkeys(_name(clip) for clip, _ in heard))


def _speakers(heard: Iterable[tuple[TimedClip, Phones]]) -> list[str]:
    return list(dict.fromkeys(clip.speaker for clip, _ in heard if clip.corpus == READERS))


def _joined(clips: Sequence[tuple[TimedClip, Phones]]) -> tuple[TimedClip, Phones]:
    """A reader's recordings one after another, as one recording with one text."""
    first, heard = clips[0]
    words, phones, at_s = [], [], 0.0
    for clip, each in clips:
        words += [word._replace(start_s=word.start_s + at_s, end_s=word.end_s + at_s) for word in clip.words]
        phones += [(name, start_s + at_s, end_s + at_s) for name, start_s, end_s in clip.phones or []]
        at_s += len(each.posteriors_LP) / each.rate_hz
    clip = TimedClip(
        name=first.speaker, corpus=first.corpus, speaker=first.speaker, language=first.language, split=first.split,
        path=first.path, text="\n".join(clip.text for clip, _ in clips), words=tuple(words), phones=phones,
    )  # fmt: skip
    return clip, Phones(posteriors_LP=np.concatenate([each.posteriors_LP for _, each in clips]), first_s=heard.first_s)


def _aligned(heard: Phones, texts: Sequence[str], language: str) -> tuple[Track, list[Word | None]]:
    """The track of a text, and the track's word for each word of it; None for those that the track lacks."""
    track = track_of(heard, parse_transcript("\n".join(texts), language=language), language).track
    words: list[Word | None] = []
    rest = list(track.words)
    for text in texts:
        words.append(rest.pop(0) if rest and rest[0].text == text else None)
    assert not rest, "words of the track are those of the text, in its order"
    return track, words


def _edges(group: _Group) -> dict[str, Any]:
    starts: list[float] = []
    ends: list[float] = []
    n_found = n_words = 0
    for clip, heard in group.clips:
        _, words = _aligned(heard, [word.text for word in clip.words], clip.language)
        for said, word in zip(clip.words, words, strict=True):
            n_words += 1
            is_found = word is not None and word.confidence >= TRUST
            n_found += is_found
            for own, errors in ((said.start_s, starts), (said.end_s, ends)):
                if np.isfinite(own):
                    edge = np.inf if word is None else word.start_s if errors is starts else word.end_s
                    errors.append(edge - own)
    both = np.array(starts + ends)
    return {
        "group": group.name,
        "clips": len(group.clips),
        "voices": len({clip.speaker for clip, _ in group.clips}),
        "words": n_words,
        "found": n_found / n_words,
        "start_ms": 1000 * float(np.median(np.abs(starts))),
        "end_ms": 1000 * float(np.median(np.abs(ends))),
        "edge_ms": 1000 * float(np.median(np.abs(both))),
        "near": float((np.abs(both) <= NEAR_S).mean()),
        "bias_ms": 1000 * float(np.median(both)),
    }


def _with_wrong_words(group: _Group, share: float, rng: np.random.Generator) -> list[tuple[list[str], np.ndarray]]:
    """Each clip's words, of which a share is replaced by other words of the group, and which those are."""
    every = sorted({word.text.lower() for clip, _ in group.clips for word in clip.words})
    texts = ([word.text for word in clip.words] for clip, _ in group.clips)
    return [with_wrong_words(words, every, share, rng) for words in texts]


def _wrong(group: _Group, share: float, rng: np.random.Generator) -> dict[str, Any]:
    right, wrong, others = [], [], []
    for (clip, heard), (texts, is_wrong) in zip(group.clips, _with_wrong_words(group, share, rng), strict=True):
        _, words = _aligned(heard, texts, clip.language)
        trusted = np.array([word is not None and word.confidence >= TRUST for word in words])
        right += trusted[~is_wrong].tolist()
        wrong += (~trusted[is_wrong]).tolist()
    for (clip, heard), other in zip(group.clips, _others(group), strict=True):
        _, words = _aligned(heard, [word.text for word in other.words], clip.language)
        others += [word is not None and word.confidence >= TRUST for word in words]
    return {
        "group": group.name,
        "right_trusted": float(np.mean(right)),
        "wrong_doubted": float(np.mean(wrong)),
        "other_trusted": float(np.mean(others)),
    }


def _has_others(group: _Group) -> bool:
    return len({clip.text for clip, _ in group.clips}) > 1


def _others(group: _Group) -> list[TimedClip]:
    """For each recording the next one with another text; some voices read the same sentences."""
    clips = [clip for clip, _ in group.clips]
    return [
        next(other for other in (*clips[i + 1 :], *clips[:i]) if other.text != clip.text)
        for i, clip in enumerate(clips)
    ]


def _has_phones(group: _Group) -> bool:
    return all(clip.phones for clip, _ in group.clips) and _has_others(group)


def _phones(group: _Group, share: float, rng: np.random.Generator) -> dict[str, Any]:
    exchanged = _with_wrong_words(group, share, rng)
    others = _others(group)

    def texts_of(kind: str, i: int) -> list[str] | None:
        if kind == "heard":
            return None
        if kind == "wrong":
            return exchanged[i][0]
        said = others[i] if kind == "other" else group.clips[i][0]
        return [word.text for word in said.words]

    row: dict[str, Any] = {"group": group.name}
    for kind in ("heard", "right", "wrong", "other"):
        counts = np.zeros(4)
        for i, (clip, heard) in enumerate(group.clips):
            texts = texts_of(kind, i)
            if texts is None:
                spans = [(span.name, span.start_s, span.end_s) for span in heard.spans()]
            else:
                track, _ = _aligned(heard, texts, clip.language)
                spans = [(phone.name, phone.start_s, phone.end_s) for phone in track.phones]
            counts += _counted(spans, clip.phones or [])
        said, told, claimed, true = counts
        recall, precision = told / said, true / claimed
        row[kind] = 2 * recall * precision / (recall + precision)
        row["n"] = int(said)
    return row


def _counted(spans: Sequence[Timing], said: Sequence[Timing]) -> np.ndarray:
    """Said p, b, m; those of them that a claimed one lies near; claimed ones; those of them that a said one lies near.

    Near is within 60 ms, which the lips need anyway.
    """

    def middles(some: Sequence[Timing]) -> np.ndarray:
        return np.array([(start_s, end_s) for name, start_s, end_s in some if name in BILABIALS]).reshape(-1, 2)

    a_N2, b_N2 = middles(said), middles(spans)

    def near(some_N2: np.ndarray, others_N2: np.ndarray) -> int:
        gap_NN = np.maximum(some_N2[:, None, 0] - others_N2[None, :, 1], others_N2[None, :, 0] - some_N2[:, None, 1])
        return int((gap_NN.min(1, initial=np.inf) <= _NEAR_BILABIAL_S).sum())

    return np.array([len(a_N2), near(a_N2, b_N2), len(b_N2), near(b_N2, a_N2)], float)


def _speed(groups: Sequence[_Group]) -> list[dict[str, Any]]:
    rows = []
    for group in groups:
        sound_s = sum(len(heard.posteriors_LP) / heard.rate_hz for _, heard in group.clips)
        begin_s = time.perf_counter()
        for clip, heard in group.clips:
            _aligned(heard, [word.text for word in clip.words], clip.language)
        passed_s = time.perf_counter() - begin_s
        rows.append({"group": group.name, "sound_s": sound_s, "speed": sound_s / passed_s})
    return rows


def _markdown(results: dict[str, Any]) -> str:
    edges = [
        [
            f"{row['group']}: {row['clips']}",
            *(str(row["voices"]), str(row["words"]), f"{row['found']:.3f}"),
            *(f"{row[name]:.0f}" for name in ("start_ms", "end_ms", "edge_ms")),
            *(f"{row['near']:.3f}", f"{row['bias_ms']:+.0f}"),
        ]
        for row in results["edges"]
    ]
    wrong = [
        [row["group"], *(f"{row[name]:.3f}" for name in ("right_trusted", "wrong_doubted", "other_trusted"))]
        for row in results["wrong"]
    ]
    phones = [
        [row["group"], str(row["n"]), *(f"{row[name]:.3f}" for name in ("heard", "right", "wrong", "other"))]
        for row in results["phones"]
    ]
    speed = "; ".join(f"{row['group']} {row['speed']:.0f}" for row in results["speed"])
    return (
        f"# Words: {results['model']['name']}\n\n{table(EDGE_HEADS, edges)}\n\n"
        f"With {results['exchanged']:.0%} of the words exchanged; trusted are those from {results['trust']:g}:\n\n"
        f"{table(WRONG_HEADS, wrong)}\n\n"
        f"F1 of p, b and m among the track's phones, within 60 ms:\n\n{table(PHONE_HEADS, phones)}\n\n"
        f"Seconds of sound aligned in a second: {speed}.\n"
    )
