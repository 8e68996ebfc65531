# SPDX-License-Identifier: GPL-3.0-or-later
"""What `analyze` and `evaluate table1` look at, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from wav2sem_blender.errors import UserError

from ..evaluation.protocols import EvaluateVertices

PARTS = ("homophones", "tsne", "apertures", "errors", "mouths", "curves")


@dataclass(frozen=True, kw_only=True)
class Analyze:
    """One analysis.

    Attributes:
        parts: Sections of the report, from `PARTS`.
        corpora: Corpora of the data used for the word distances; () uses all.
        max_utterances: Most utterances to use, evenly spread over the corpora; 0 uses all. Those without phone times
            are aligned first.
        words: Words drawn for each seed (Choi et al. 2024: 10,000).
        pairs: Word pairs of each kind drawn for each seed.
        seeds: One draw of words and pairs each; the report shows the spread over them.
        max_distance: The largest phone edit distance of near-homophones, divided by the longer word's phones; it is
            above 0.
        max_similarity: Pairs with a larger cosine of their words' text vectors (MiniLM) count as synonyms and are left
            out. Inflections lie above 0.55 ("walk", "walked": 0.87), unrelated words near 0.3 ("ship", "sheep": 0.24).
        slicings: "audio": a word's own sound goes through the encoders; "features": its frames are cut out of the
            utterance's features.
        min_word_s: Shorter words are left out: the encoders need 25 ms for one frame.
        tsne_pairs, tsne_tokens: Word pairs in the t-SNE picture, and spoken examples of each word.
        faces: Face data with true motion: "vocaset", "biwi", "custom", or "" for those of the bundled recipe.
        clips: Clips with true motion in the aperture pictures and in the error map.
        sentences, voices: How many held-out filmed sentences, and how many of held-out voices without a film, are drawn
            as mouth strips; speakers take turns.
        longest_s: Longer clips with true motion are cut off here.
    """

    parts: tuple[str, ...] = PARTS
    corpora: tuple[str, ...] = ()
    max_utterances: int = 0
    words: int = 10_000
    pairs: int = 10_000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    max_distance: float = 0.4
    max_similarity: float = 0.55
    slicings: tuple[str, ...] = ("audio", "features")
    min_word_s: float = 0.1
    tsne_pairs: int = 6
    tsne_tokens: int = 25
    faces: str = ""
    clips: int = 3
    longest_s: float = 10.0
    sentences: int = 2
    voices: int = 1

    def __post_init__(self) -> None:
        for name, given, known in (("parts", self.parts, PARTS), ("slicings", self.slicings, ("audio", "features"))):
            if not set(given) <= set(known):
                raise UserError(
                    "{name} {given}: choose from {known}",
                    name=name,
                    given=", ".join(given),
                    known=", ".join(known),
                )
        if self.faces not in ("", "vocaset", "biwi", "custom"):
            raise UserError('faces {faces!r}: choose vocaset, biwi, custom or ""', faces=self.faces)
        if not self.seeds or min(self.words, self.pairs, self.clips) < 1 or not 0 < self.max_distance < 1:
            raise UserError("at least one seed, word, pair and clip are needed, and a max_distance between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class CompareHosts:
    """The paper's Table 1: hosts with and without Wav2Sem on several data sets.

    Attributes:
        sets: How each data set is evaluated. Its `kind` is the name of its folder in --data, in any case, and the end
            of its models' names in --models.
        words: Near-homophones in LibriSpeech, which is a folder of that name in --data.
    """

    sets: tuple[EvaluateVertices, ...]
    words: Analyze
