# SPDX-License-Identifier: GPL-3.0-or-later
"""Near-homophones (words that sound alike but mean different things) in real utterances, and their distances.

The protocol is that of Choi et al. 2024 ("Self-Supervised Speech Representations are More Phonetic than Semantic"),
which Wav2Sem's paper follows: CMU phones, edit distance divided by the longer word's phones.

Shapes: N words or spoken examples, P pairs, D features, E sentence space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np

from ..speech.phones import PHONES, Timing

Phones = tuple[str, ...]
PAIR_KINDS = ("near-homophones", "random pairs", "same word")
DISTANCES = ("mse", "euclidean", "cosine")


@dataclass(frozen=True, kw_only=True)
class Token:
    """One spoken word: seconds [start_s, end_s) of utterance number `utterance`, which says text number `sentence`."""

    word: str
    utterance: int = 0
    sentence: int = 0
    start_s: float
    end_s: float


@cache
def pronunciations() -> Mapping[str, tuple[Phones, ...]]:
    """Word -> its pronunciations in pocketsphinx's copy of the CMU dictionary, the usual one first."""
    from pocketsphinx import get_model_path

    known: dict[str, list[Phones]] = {}
    for line in Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines():
        word, *phones = line.split()
        known.setdefault(word.partition("(")[0], []).append(tuple(phones))
    return {word: tuple(variants) for word, variants in known.items()}


def spoken_words(text: str, phones: Sequence[Timing], known: Mapping[str, tuple[Phones, ...]]) -> list[Token]:
    """Where each word of `text` is spoken, by the utterance's phone times.

    The dictionary's phones of the whole text are aligned with the spoken ones by fewest edits. A word counts only if
    its spoken phones are one of its pronunciations and no pause interrupts it.
    """
    words = [word for word in (word.strip("'") for word in text.split()) if word in known]
    wanted = [(i, phone) for i, word in enumerate(words) for phone in known[word][0]]
    if not wanted:
        return []
    spoken = [(at, phone) for at, (phone, _, _) in enumerate(phones) if phone != "SIL"]
    owners = _owners([phone for _, phone in wanted], [phone for _, phone in spoken])
    tokens = []
    owned = ((wanted[owner][0], at) for owner, (at, _) in zip(owners, spoken, strict=True))
    for i, group in groupby(owned, key=lambda pair: pair[0]):
        rows = [at for _, at in group]
        unbroken = rows == list(range(rows[0], rows[-1] + 1))
        if unbroken and tuple(phones[at][0] for at in rows) in known[words[i]]:
            tokens.append(Token(word=words[i], start_s=phones[rows[0]][1], end_s=phones[rows[-1]][2]))
    return tokens


def _owners(wanted: list[str], spoken: list[str]) -> list[int]:
    """For each spoken phone, the wanted one that it matches on a path of fewest edits."""
    cost = [list(range(len(spoken) + 1))]
    for i, phone in enumerate(wanted, start=1):
        row = [i]
        for j, other in enumerate(spoken):
            row.append(min(cost[-1][j] + (phone != other), cost[-1][j + 1] + 1, row[j] + 1))
        cost.append(row)
    owners = [0] * len(spoken)
    i, j = len(wanted), len(spoken)
    while j:
        owners[j - 1] = max(0, i - 1)
        if i and cost[i][j] == cost[i - 1][j - 1] + (wanted[i - 1] != spoken[j - 1]):
            i, j = i - 1, j - 1
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
        else:
            j -= 1
    return owners


def phone_distances(word: Phones, others: Sequence[Phones]) -> np.ndarray:
    """Edit distance (N,) of one word's phones to each of the others', divided by the longer one's length."""
    code = {phone: i for i, phone in enumerate(PHONES)}
    lengths_N = np.array([len(other) for other in others])
    table_NL = np.full((len(others), int(lengths_N.max(initial=0))), -1)
    for row, other in zip(table_NL, others, strict=True):
        row[: len(other)] = [code[phone] for phone in other]
    previous_NL = np.broadcast_to(np.arange(table_NL.shape[1] + 1), (len(others), table_NL.shape[1] + 1))
    for i, phone in enumerate(word, start=1):
        current_NL = np.empty_like(previous_NL)
        current_NL[:, 0] = i
        replaced_NL = previous_NL[:, :-1] + (table_NL != code[phone])
        for j in range(1, current_NL.shape[1]):
            either_N = np.minimum(previous_NL[:, j], current_NL[:, j - 1]) + 1
            current_NL[:, j] = np.minimum(either_N, replaced_NL[:, j - 1])
        previous_NL = current_NL
    edits_N = previous_NL[np.arange(len(others)), lengths_N]
    return edits_N / np.maximum(lengths_N, len(word))


def near_homophones(phones: Sequence[Phones], max_distance: float) -> np.ndarray:
    """Pairs (P, 2) of indices i < j, each once, whose phone distance d is 0 < d <= max_distance."""
    if len(phones) < 2:
        return np.zeros((0, 2), np.int64)
    counts_NC = np.array([[word.count(phone) for phone in PHONES] for word in phones], np.int16)
    lengths_N = counts_NC.sum(1)
    pairs = []
    for i, word in enumerate(phones[:-1]):
        # One edit adds at most one phone and removes at most one. This bound saves nearly all of the work.
        extra_NC = counts_NC[i + 1 :] - counts_NC[i]
        least_N = np.maximum(extra_NC.clip(0).sum(1), (-extra_NC).clip(0).sum(1))
        longer_N = np.maximum(lengths_N[i + 1 :], lengths_N[i])
        near = i + 1 + np.flatnonzero(least_N <= max_distance * longer_N + 1e-9)
        if len(near):
            distances = phone_distances(word, [phones[j] for j in near])
            pairs += [(i, j) for j in near[(distances > 0) & (distances <= max_distance + 1e-9)]]
    return np.array(pairs, np.int64).reshape(-1, 2)


def without_synonyms(pairs_P2: np.ndarray, words: Sequence[str], max_similarity: float) -> np.ndarray:
    """Pairs whose words' text vectors have a cosine of at most `max_similarity`.

    WordNet, which Choi et al. use, has no inflections as synonyms; the text model's vectors (MiniLM, mean of tokens)
    leave out "walk" and "walked" too.
    """
    from ..speech.sentences import text_vectors

    used = np.unique(pairs_P2)
    if not len(used):
        return pairs_P2
    vectors = text_vectors([words[i] for i in used], target="mean").numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.searchsorted(used, pairs_P2.T)
    return pairs_P2[np.einsum("pe,pe->p", vectors[first], vectors[second]) <= max_similarity]


def draw_pairs(
    tokens: Sequence[Token], near_P2: np.ndarray, words: Sequence[str], n_words: int, n_pairs: int, seed: int
) -> dict[str, np.ndarray]:
    """Pairs of spoken examples (P, 2) for each of `PAIR_KINDS`, from `n_words` tokens drawn with `seed`.

    Near-homophones: a word pair is drawn uniformly, then one example of each word. Random pairs and pairs of the same
    word use the words of those draws, so that all kinds have each word equally often; only words heard in at least two
    sentences take part. The two examples always come from different sentences, since within one F_s cancels.
    """
    rng = np.random.default_rng(seed)
    number = {word: i for i, word in enumerate(words)}
    examples: dict[int, list[int]] = {}
    for at in rng.permutation(len(tokens))[:n_words].tolist():
        examples.setdefault(number[tokens[at].word], []).append(at)
    usable = {i for i, some in examples.items() if len({tokens[at].sentence for at in some}) > 1}
    near = [(i, j) for i, j in near_P2.tolist() if i in usable and j in usable]
    if not near:
        return {kind: np.zeros((0, 2), np.int64) for kind in PAIR_KINDS}
    close = set(near) | {(j, i) for i, j in near}
    left, right = rng.permuted(rng.choice(near, 4 * n_pairs), axis=1).T.tolist()
    chosen = {
        "near-homophones": zip(left, right, strict=True),
        "random pairs": (
            (i, j) for i, j in zip(left, rng.permutation(right).tolist(), strict=True) if i != j and (i, j) not in close
        ),
        "same word": zip(left, left, strict=True),
    }
    drawn = {}
    for kind, word_pairs in chosen.items():
        found: dict[tuple[int, int], None] = {}
        for i, j in word_pairs:
            a, b = int(rng.choice(examples[i])), int(rng.choice(examples[j]))
            if tokens[a].sentence != tokens[b].sentence:
                found[min(a, b), max(a, b)] = None
        drawn[kind] = np.array(list(found)[:n_pairs], np.int64).reshape(-1, 2)
    return drawn


def distances(first_PD: np.ndarray, second_PD: np.ndarray) -> dict[str, np.ndarray]:
    """Distances (P,) by name: "mse" (mean of the squared differences, the unit the published figures seem to have),
    "euclidean" (root of their sum), "cosine" (1 - cosine)."""
    squared_PD = (first_PD - second_PD) ** 2
    norms_P = np.linalg.norm(first_PD, axis=1) * np.linalg.norm(second_PD, axis=1)
    cosine_P = np.einsum("pd,pd->p", first_PD, second_PD) / np.maximum(norms_P, 1e-12)
    return {"mse": squared_PD.mean(1), "euclidean": np.sqrt(squared_PD.sum(1)), "cosine": 1 - cosine_P}


def with_semantics(
    features_ND: np.ndarray, semantic_ND: np.ndarray, owners_N: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The features without F_s, with F_s, and with the control vectors (each (N, D)); "F_s alone" has no features.

    Shuffled: each owner of an F_s (`owners_N`: the example itself or its utterance) gets another's.
    Constant: the mean F_s everywhere; only the cosine distance can change.
    """
    _, first, index_N = np.unique(owners_N, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return {
        "without Wav2Sem": features_ND,
        "with Wav2Sem": features_ND + semantic_ND,
        "shuffled F_s": features_ND + semantic_ND[first[other]][index_N],
        "constant F_s": features_ND + semantic_ND.mean(0),
        "F_s alone": semantic_ND,
    }
