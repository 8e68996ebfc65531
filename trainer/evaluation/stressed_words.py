# SPDX-License-Identifier: GPL-3.0-or-later
"""Which words a speaker stresses, told from the text, from what is left of the prosody in babble, and from both.

A word is stressed if a syllable of it is one on which the add-on may raise the brows (`upper_face.STRESSED`), heard
without noise. So this asks what text could add where the sound is bad or absent; the voices are unseen.

Shapes: W words, D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import soundfile as sf
from tqdm import tqdm

from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ, Speech
from wav2sem_blender.pipeline.infer import SpeechAnimator
from wav2sem_blender.pipeline.prosody import listen
from wav2sem_blender.pipeline.upper_face import STRESSED
from wav2sem_blender.pipeline.words.spoken import TRUST, track_of
from wav2sem_blender.pipeline.words.track import Word
from wav2sem_blender.pipeline.words.transcript import parse_transcript

from ..datasets.corpora import Clip, list_clips
from ..speech.token_features import TokenEncoder
from .conditions import N_BABBLERS, add_noise, equally_loud
from .protocols import EvaluateText

CORPORA = ("librispeech_251", "librispeech_4_aligned", "vctk")
TEXTS = ("no text", "place and length", "shuffled", "without context", "in context")
_SILENT = -2.0  # prominence of a word in which no syllable is heard
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the vectors' part in the logistic regression
_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class SpokenWords:
    """A recording's words that were found: whether they are stressed (W,), and the features (W, D) that tell it."""

    split: str
    stressed_W: np.ndarray
    heard: Mapping[str, np.ndarray]
    told: Mapping[str, np.ndarray]


def stressed_words(config: EvaluateText, data: Path, animator: SpeechAnimator, encoder: TokenEncoder) -> dict[str, Any]:
    """`words` and the `share` of them that is stressed in the judged split, and `rows`: for each sound and text the
    AUC, its 95 % interval over recordings, and `gain`, what it adds to the control "place and length", with its own.
    Empty without a corpus of `CORPORA`."""
    clips = [clip for clip in list_clips(data) if clip.corpus in CORPORA and clip.text]
    spoken = [
        found
        for clip in tqdm(clips, desc="stressed words", unit="clip")
        if (found := spoken_words(clip, clips, config.snr_db, animator, encoder))
    ]
    return stress_rows(config, spoken)


def stress_rows(config: EvaluateText, spoken: Sequence[SpokenWords]) -> dict[str, Any]:
    """As `stressed_words`."""
    judged = [each for each in spoken if each.split == config.split]
    if not all(any(each.split == split for each in spoken) for split in ("train", "valid", config.split)):
        return {"words": 0, "recordings": 0, "share": 0.0, "rows": []}
    true = [each.stressed_W for each in judged]
    told: dict[tuple[str, str], list[np.ndarray]] = {}
    for sound, text in itertools.product(("nothing", *spoken[0].heard), TEXTS):
        if (sound, text) != ("nothing", TEXTS[0]):
            told[sound, text] = _told(spoken, judged, sound, text, config.seeds[0])
    rng = np.random.default_rng(0)
    draws = rng.integers(len(judged), size=(_DRAWS, len(judged)))
    aucs = {key: _aucs(true, own, draws) for key, own in told.items()}
    rows = [
        {"sound": sound, "text": text, "auc": _interval(auc), "gain": _interval(auc - aucs[sound, TEXTS[1]])}
        for (sound, text), auc in aucs.items()
    ]
    share = float(np.concatenate(true).mean())
    return {"words": sum(map(len, true)), "recordings": len(judged), "share": share, "rows": rows}


def spoken_words(
    clip: Clip, others: Sequence[Clip], snr_db: Iterable[float], animator: SpeechAnimator, encoder: TokenEncoder
) -> SpokenWords | None:
    """Hear a recording, find its words, and listen to them in babble of the same split; None if no word is found."""
    samples_S = _samples(clip)
    phones = animator.animate(samples_S, SAMPLE_RATE_HZ).phones
    assert phones is not None and clip.text is not None
    texts = clip.text.split()
    rest = list(track_of(phones, parse_transcript(clip.text, language="en"), "en").track.words)
    found: list[tuple[int, Word]] = []
    for i, text in enumerate(texts):
        if rest and rest[0].text == text:
            word = rest.pop(0)
            found += [(i, word)] if word.confidence >= TRUST else []
    if not found:
        return None
    rows, words = [i for i, _ in found], [word for _, word in found]
    babble_S = _babble(clip, others, len(samples_S))
    seconds_W = np.array([word.end_s - word.start_s for word in words])
    heard = {
        f"babble, {snr:g} dB": np.column_stack(
            [_prominence(add_noise(samples_S, babble_S, snr), words), np.log(seconds_W)]
        )
        for snr in snr_db
    }
    contextual_WE, embeddings_WE = encoder.of_words(texts)
    place_W3 = np.array([(np.log1p(i), np.log1p(len(texts) - 1 - i), len(texts[i])) for i in rows])
    return SpokenWords(
        split=clip.split,
        stressed_W=_prominence(samples_S, words) > STRESSED,
        heard=heard,
        told={"place and length": place_W3, "in context": contextual_WE[rows], "without context": embeddings_WE[rows]},
    )


def _samples(clip: Clip) -> np.ndarray:
    return sf.read(clip.path, dtype="float32")[0]


def _babble(clip: Clip, others: Sequence[Clip], n_samples: int) -> np.ndarray:
    """`N_BABBLERS` other voices of the split at once, equally loud (S,)."""
    rng = np.random.default_rng(crc32(clip.name.encode()))
    voices = [other for other in others if other.split == clip.split and other.speaker != clip.speaker]
    drawn = rng.integers(len(voices), size=N_BABBLERS) if voices else ()
    return equally_loud((np.resize(_samples(voices[i]), n_samples) for i in drawn), n_samples)


def _prominence(samples_S: np.ndarray, words: Sequence[Word]) -> np.ndarray:
    """Of each word's most prominent syllable (W,)."""
    with Speech.from_array(samples_S, SAMPLE_RATE_HZ) as speech:
        at_N, prominence_N = listen(speech).stresses()
    return np.array(
        [prominence_N[(at_N >= w.start_s) & (at_N < w.end_s)].max(initial=_SILENT) for w in words], dtype=float
    )


def _features(
    spoken: Sequence[SpokenWords], sound: str, text: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the regression reads of all words beside their vectors, and the vectors (W, E); both may have no columns."""
    few = [each.heard[sound] for each in spoken] if sound != "nothing" else []
    plain_WD = np.concatenate(few) if few else np.zeros((sum(len(each.stressed_W) for each in spoken), 0))
    if text != TEXTS[0]:
        plain_WD = np.column_stack([plain_WD, np.concatenate([each.told["place and length"] for each in spoken])])
    if text in TEXTS[:2]:
        return plain_WD, plain_WD[:, :0]
    vectors_WE = np.concatenate([each.told["in context" if text == "shuffled" else text] for each in spoken])
    return plain_WD, rng.permutation(vectors_WE) if text == "shuffled" else vectors_WE


def _told(
    spoken: Sequence[SpokenWords], judged: Sequence[SpokenWords], sound: str, text: str, seed: int
) -> list[np.ndarray]:
    """Scores of the judged recordings' words by a logistic regression on "train"; its strength is chosen on "valid"."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    read = {}
    for name, some in (("train", None), ("valid", None), ("judged", judged)):
        own = some if some is not None else [each for each in spoken if each.split == name]
        read[name] = (*_features(own, sound, text, rng), np.concatenate([each.stressed_W for each in own]))
    scales = [(part.mean(0), part.std(0).clip(1e-6)) for part in read["train"][:2]]
    best: tuple[float, np.ndarray] = (-1.0, np.zeros(0))
    for strength in _STRENGTHS if read["train"][1].shape[1] else (1.0,):
        # The plain columns are made large, so that the penalty falls on the vectors alone.
        shaped = {
            name: np.column_stack([10 * (plain - scales[0][0]) / scales[0][1], (vectors - scales[1][0]) / scales[1][1]])
            for name, (plain, vectors, _) in read.items()
        }
        model = LogisticRegression(C=strength, max_iter=2000).fit(shaped["train"], read["train"][2])
        auc = roc_auc_score(read["valid"][2], model.decision_function(shaped["valid"]))
        if auc > best[0]:
            best = float(auc), model.decision_function(shaped["judged"])
    return np.split(best[1], np.cumsum([len(each.stressed_W) for each in judged])[:-1])


def _aucs(true: Sequence[np.ndarray], told: Sequence[np.ndarray], draws: np.ndarray) -> np.ndarray:
    """The AUC over all recordings, then over each draw of them."""
    from sklearn.metrics import roc_auc_score

    every = [range(len(true)), *draws]
    return np.array(
        [
            roc_auc_score(np.concatenate([true[i] for i in some]), np.concatenate([told[i] for i in some]))
            for some in every
        ]
    )


def _interval(values: np.ndarray) -> list[float]:
    """The first value, and the 2.5 and 97.5 percentiles of the others."""
    return [float(values[0]), *np.quantile(values[1:], (0.025, 0.975)).tolist()]
