# SPDX-License-Identifier: GPL-3.0-or-later
"""When the phones of prompts are spoken, and how reliable these times are.

espeak-ng pronounces a transcript, and pocketsphinx' English acoustic model aligns those phones. Clips that it cannot
align, or that fit badly, are left out: their transcript is wrong, or the language is too far from English. No face
model takes part in that choice. Two checks follow: how often another prompt's transcript would have passed, and whether
the sound is weakest at each p and b, since a closed mouth is nearly silent.

Shapes: S samples at 16 kHz, G steps of 5 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wav2sem_blender.errors import UserError

from ..datasets.prompts import ESPEAK_VOICES, Prompt
from ..speech.align import Aligned, Aligner
from ..speech.espeak import pronounce_words
from ..speech.phones import Timing
from ..speech.prepared import SAMPLE_RATE_HZ
from .protocols import EvaluatePrompts

LONGEST_PHONE_S = 0.5  # a longer phone has swallowed words that the transcript lacks
STEP, WINDOW = SAMPLE_RATE_HZ // 200, SAMPLE_RATE_HZ // 100
AROUND_S, NEAR_S = 0.100, 0.020
LIP_STOPS = ("P", "B")
NEARLY_SILENT = frozenset("SIL P B T D K G CH JH".split())


@dataclass(frozen=True, kw_only=True)
class TimedPrompt:
    """A prompt, its samples int16 (S,) and its phones."""

    prompt: Prompt
    samples_S: np.ndarray
    phones: list[Timing]


def timed_prompts(prompts: Sequence[Prompt], config: EvaluatePrompts) -> tuple[list[TimedPrompt], dict[str, Any]]:
    """The prompts of one language that align well, and figures: how many there were, had unknown sounds, failed or fit
    badly; the median score; the share of wrong transcripts that pass; and `weakest` of all p and b.

    Raises:
        MissingFileError: espeak-ng or ffmpeg is not installed.
    """
    aligner = Aligner()
    words = [_words(prompt) for prompt in prompts]
    wrong = [*words[1:], *words[:1]]
    timed: list[TimedPrompt] = []
    scores: list[float] = []
    failed = tried_wrong = passed_wrong = 0
    for prompt, right, other in zip(prompts, words, wrong, strict=True):
        if not right:
            continue
        samples_S = prompt.samples()
        aligned = aligner.pronounced(samples_S, right)
        failed += aligned is None
        if aligned and fits(aligned, config.least_score):
            timed.append(TimedPrompt(prompt=prompt, samples_S=samples_S, phones=aligned.phones))
            scores.append(aligned.score)
        if other and tried_wrong < config.wrong_transcripts:
            tried_wrong += 1
            misled = aligner.pronounced(samples_S, list(_as_long(other, right)))
            passed_wrong += misled is not None and fits(misled, config.least_score)
    unknown = sum(not some for some in words)
    figures = {
        "prompts": len(prompts),
        "unknown_sounds": unknown,
        "failed": failed,
        "poor": len(prompts) - unknown - failed - len(timed),
        "score": float(np.median(scores)) if scores else None,
        "wrong_passed": passed_wrong / tried_wrong if tried_wrong else None,
    }
    return timed, figures | weakest([(clip.samples_S, clip.phones) for clip in timed])


def fits(aligned: Aligned, least_score: float) -> bool:
    """Whether these phones plausibly explain the whole sound."""
    longest_s = max((end - start for phone, start, end in aligned.phones if phone != "SIL"), default=0.0)
    return aligned.score >= least_score and longest_s <= LONGEST_PHONE_S


def weakest(clips: Sequence[tuple[np.ndarray, Sequence[Timing]]]) -> dict[str, Any]:
    """Where the sound is weakest within 100 ms of each p and b without a silence or another stop nearby.

    `dip_ms`: quartiles of the weakest time after the phone's start; `dip_inside`: share that lies in the phone or 20 ms
    around it; `dip_by_chance`: that share for a random time; `stops`: their number.
    """
    after_ms, inside, chance = [], [], []
    for samples_S, phones in clips:
        level_G = _level_db(samples_S)
        for name, start, end in phones:
            if name not in LIP_STOPS or start < AROUND_S or end + AROUND_S > len(samples_S) / SAMPLE_RATE_HZ:
                continue
            if sum(n in NEARLY_SILENT and e > start - AROUND_S and b < end + AROUND_S for n, b, e in phones) > 1:
                continue
            first = int((start - AROUND_S) * 200)
            piece = level_G[first : int((end + AROUND_S) * 200)]
            dip_s = (first + int(piece.argmin())) / 200 + WINDOW / 2 / SAMPLE_RATE_HZ
            after_ms.append(1000 * (dip_s - start))
            inside.append(start - NEAR_S <= dip_s <= end + NEAR_S)
            chance.append((end - start + 2 * NEAR_S) / (end - start + 2 * AROUND_S))
    if not after_ms:
        return {"stops": 0, "dip_ms": None, "dip_inside": None, "dip_by_chance": None}
    quartiles = [float(ms) for ms in np.percentile(after_ms, (25, 50, 75))]
    shares = {"dip_inside": float(np.mean(inside)), "dip_by_chance": float(np.mean(chance))}
    return {"stops": len(after_ms), "dip_ms": quartiles} | shares


def _words(prompt: Prompt) -> list[tuple[str, ...]]:
    """Phones by word; none if the voice reads a part by another language's rules, or cannot read it."""
    try:
        return pronounce_words(prompt.text, ESPEAK_VOICES[prompt.language])
    except UserError:
        return []


def _as_long(words: Sequence[tuple[str, ...]], as_these: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Words, repeated until they have as many phones: a wrong transcript must not fail by its length alone."""
    wanted, n_phones = sum(map(len, as_these)), 0
    for i in range(wanted):
        if n_phones >= wanted:
            return
        word = words[i % len(words)]
        n_phones += len(word)
        yield word


def _level_db(samples_S: np.ndarray) -> np.ndarray:
    """Loudness (G,) of 10 ms windows, with treble raised, since the voice continues behind the closed lips of a b."""
    treble_S = np.diff(samples_S.astype(np.float64), prepend=0)
    frames_GS = np.lib.stride_tricks.sliding_window_view(treble_S, WINDOW)[::STEP]
    return 10 * np.log10((frames_GS**2).mean(1) + 1)
