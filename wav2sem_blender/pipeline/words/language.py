# SPDX-License-Identifier: GPL-3.0-or-later
"""Which language a text is written in: by its script, then by its commonest words and pairs of letters.

The tables are made with the pronunciation (`python -m trainer prepare pronunciation`).

Shape suffixes: N languages, B buckets of letter pairs.
"""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np

from ...assets import PRONUNCIATION
from .pronunciation import LANGUAGES, languages_in, script_of

BUCKETS = 1021
STOP_WORDS = 60
_STOP_WORD = 3.0  # nats that a common word of a language says for it
_MOST_WORDS = 2000  # of a text that are looked at
_PRIOR = {"en": 1.0}


def buckets_of(word: str) -> np.ndarray:
    """The buckets of a word's pairs of letters, its ends included."""
    letters = unicodedata.normalize("NFC", f" {word.lower()} ")
    return np.array([(ord(a) * 31 + ord(b)) % BUCKETS for a, b in zip(letters[:-1], letters[1:], strict=True)])


def guess_language(words: Iterable[str]) -> str:
    """The code of the likeliest language, a key of `LANGUAGES`; "en" for a text without letters.

    Args:
        words: Of the text, as they are written.
    """
    some = [word.lower() for word, _ in zip(words, range(_MOST_WORDS), strict=False)]
    scripts = Counter(script for word in some if (script := script_of(word)))
    if not scripts:
        return "en"
    # A little kana makes Chinese letters Japanese.
    script = scripts.most_common(1)[0][0]
    if script == "CJK" and scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.05 * scripts.total():
        script = "HIRAGANA"
    candidates = [code for code in languages_in(script) if code != "hr" or script == "LATIN"]
    if len(candidates) < 2:
        return candidates[0] if candidates else "en"
    pairs_NB, stop_words = _tables()
    own = [word for word in some if script_of(word) == script]
    buckets = np.concatenate([buckets_of(word) for word in own])
    scores = {}
    for code in candidates:
        rare = pairs_NB[code][buckets].sum(dtype=np.float64) / 20
        scores[code] = _STOP_WORD * sum(word in stop_words[code] for word in own) - rare + _PRIOR.get(code, 0.0)
    return max(scores, key=scores.__getitem__)


@cache
def _tables() -> tuple[dict[str, np.ndarray], dict[str, frozenset[str]]]:
    with np.load(PRONUNCIATION, allow_pickle=False) as archive:
        about = json.loads(zlib.decompress(archive["about"].tobytes()))
        pairs_NB = archive["letter_pairs_NB"]
    pairs = dict(zip(about["languages"], pairs_NB, strict=True))
    return pairs, {code: frozenset(listed) for code, listed in about["stop_words"].items() if code in LANGUAGES}
