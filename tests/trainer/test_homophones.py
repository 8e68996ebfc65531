# SPDX-License-Identifier: GPL-3.0-or-later
"""Near-homophones: distances of words and of vectors, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.analysis.homophones import (
    PAIR_KINDS,
    Token,
    distances,
    draw_pairs,
    near_homophones,
    phone_distances,
    spoken_words,
    with_semantics,
)

KNOWN = {
    "ship": (("SH", "IH", "P"),),
    "sheep": (("SH", "IY", "P"),),
    "ships": (("SH", "IH", "P", "S"),),
    "the": (("DH", "AH"), ("DH", "IY")),
    "shipping": (("SH", "IH", "P", "IH", "NG"),),
    "zoo": (("Z", "UW"),),
}


def test_phone_distance_is_edits_over_the_longer_word() -> None:
    others = [KNOWN[word][0] for word in ("ship", "sheep", "ships", "the", "shipping", "zoo")]
    np.testing.assert_allclose(phone_distances(KNOWN["ship"][0], others), [0, 1 / 3, 1 / 4, 1, 2 / 5, 1])
    kitten, sitting = ("K", "IH", "T", "AH", "N"), ("S", "IH", "T", "IH", "N", "G")
    np.testing.assert_allclose(phone_distances(kitten, [sitting]), [3 / 6])
    assert phone_distances(("AA", "B"), [("B", "AA")])[0] == 1, "a swap is two edits"


def test_phone_distance_is_symmetric_and_near_pairs_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    sounds = ("B", "P", "AA", "IY", "S")
    words = list({tuple(rng.choice(sounds, rng.integers(1, 6)).tolist()) for _ in range(60)})
    all_NN = np.array([phone_distances(word, words) for word in words])
    np.testing.assert_allclose(all_NN, all_NN.T)
    expected = [(i, j) for i in range(len(words)) for j in range(i + 1, len(words)) if 0 < all_NN[i, j] <= 0.4]
    assert near_homophones(words, 0.4).tolist() == [list(pair) for pair in expected] and len(expected) > 10


def test_homophones_proper_are_not_near_homophones() -> None:
    assert near_homophones([("N", "AY", "T"), ("N", "AY", "T")], 0.4).shape == (0, 2)
    assert near_homophones([("N", "AY", "T")], 0.4).shape == (0, 2)


def test_words_are_read_off_the_phones() -> None:
    phones = [("SIL", 0.0, 0.2), ("DH", 0.2, 0.25), ("IY", 0.25, 0.3), ("SH", 0.3, 0.4), ("IY", 0.4, 0.5)]
    phones += [("P", 0.5, 0.6), ("SIL", 0.6, 0.9), ("Z", 0.9, 1.0), ("UW", 1.0, 1.2)]
    found = [(token.word, token.start_s, token.end_s) for token in spoken_words("the sheep 'zoo' xyzzy", phones, KNOWN)]
    assert found == [("the", 0.2, 0.3), ("sheep", 0.3, 0.6), ("zoo", 0.9, 1.2)]


def test_a_word_said_differently_is_left_out() -> None:
    phones = [("SH", 0.0, 0.1), ("AA", 0.1, 0.2), ("P", 0.2, 0.3), ("Z", 0.3, 0.4), ("UW", 0.4, 0.5)]
    assert [token.word for token in spoken_words("ship zoo", phones, KNOWN)] == ["zoo"]
    broken = [("Z", 0.0, 0.1), ("SIL", 0.1, 0.4), ("UW", 0.4, 0.5)]
    assert spoken_words("zoo", broken, KNOWN) == [] and spoken_words("", broken, KNOWN) == []


@pytest.fixture
def tokens() -> list[Token]:
    """Four words in six sentences, each said by two speakers."""
    words = ("ship", "sheep", "zoo", "the")
    return [
        Token(word=word, utterance=2 * sentence + speaker, sentence=sentence, start_s=0, end_s=1)
        for sentence in range(6)
        for speaker in range(2)
        for word in words
    ]


def test_pairs_have_their_kind_occur_once_and_span_two_sentences(tokens: list[Token]) -> None:
    words = ["sheep", "ship", "the", "zoo"]
    near_P2 = np.array([[0, 1], [2, 3]])
    drawn = draw_pairs(tokens, near_P2, words, n_words=1000, n_pairs=40, seed=3)
    assert set(drawn) == set(PAIR_KINDS)
    close = {frozenset(("sheep", "ship")), frozenset(("the", "zoo"))}
    for kind, pairs in drawn.items():
        assert 10 < len(pairs) <= 40 and len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)
        assert (pairs[:, 0] < pairs[:, 1]).all()
        for a, b in pairs:
            said = frozenset((tokens[a].word, tokens[b].word))
            assert tokens[a].sentence != tokens[b].sentence
            assert {"near-homophones": said in close, "same word": len(said) == 1}.get(
                kind, said not in close and len(said) == 2
            )
    again = draw_pairs(tokens, near_P2, words, n_words=1000, n_pairs=40, seed=3)
    other = draw_pairs(tokens, near_P2, words, n_words=1000, n_pairs=40, seed=4)
    assert all(np.array_equal(drawn[kind], again[kind]) for kind in PAIR_KINDS)
    assert not np.array_equal(drawn["near-homophones"], other["near-homophones"])


def test_words_of_only_one_sentence_are_left_out(tokens: list[Token]) -> None:
    rare = [token for token in tokens if token.word != "ship" or token.sentence == 0]
    drawn = draw_pairs(rare, np.array([[0, 1]]), ["sheep", "ship", "the", "zoo"], 1000, 40, seed=0)
    assert all(len(pairs) == 0 for pairs in drawn.values())


def test_distances_by_hand() -> None:
    found = distances(np.array([[1.0, 2.0, 2.0], [1.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found["mse"], [8 / 3, 1 / 3])
    np.testing.assert_allclose(found["euclidean"], [np.sqrt(8), 1])
    np.testing.assert_allclose(found["cosine"], [1 - 1 / 3, 0], atol=1e-12)


def test_a_constant_changes_no_distance_and_a_constant_per_clip_moves_clips_apart_equally() -> None:
    """F_s is one vector per clip: within a clip nothing changes; between two clips d² grows equally for all words."""
    rng = np.random.default_rng(0)
    clips_N = np.repeat([0, 1], 200)
    features_ND = np.concatenate([rng.normal(size=(200, 16)) for _ in range(2)])
    features_ND -= np.repeat([features_ND[:200].mean(0), features_ND[200:].mean(0)], 200, axis=0)
    semantic_ND = rng.normal(size=(2, 16))[clips_N]
    variants = with_semantics(features_ND, semantic_ND, clips_N, seed=0)
    before, after = variants["without Wav2Sem"], variants["with Wav2Sem"]
    for clip in (slice(0, 200), slice(200, 400)):
        np.testing.assert_allclose(np.diff(after[clip], axis=0), np.diff(before[clip], axis=0), atol=1e-12)
    constant = variants["constant F_s"]
    for kind in ("mse", "euclidean"):
        np.testing.assert_allclose(
            distances(constant[:200], constant[200:])[kind], distances(before[:200], before[200:])[kind]
        )
    first, second = np.meshgrid(np.arange(200), np.arange(200, 400), indexing="ij")

    def mean_mse(vectors_ND: np.ndarray) -> float:
        return float(distances(vectors_ND[first.ravel()], vectors_ND[second.ravel()])["mse"].mean())

    shift = float(((semantic_ND[0] - semantic_ND[-1]) ** 2).mean())
    assert mean_mse(after) - mean_mse(before) == pytest.approx(shift, rel=1e-9)


def test_shuffling_gives_each_owner_one_vector_of_another() -> None:
    owners_N = np.array([5, 5, 9, 2, 2, 9])
    semantic_ND = owners_N[:, None] * np.ones((6, 3))
    shuffled = with_semantics(np.zeros((6, 3)), semantic_ND, owners_N, seed=1)["shuffled F_s"][:, 0]
    assert (shuffled != owners_N).all() and sorted(set(shuffled)) == [2, 5, 9]
    assert all(len(set(shuffled[owners_N == owner])) == 1 for owner in (2, 5, 9))
