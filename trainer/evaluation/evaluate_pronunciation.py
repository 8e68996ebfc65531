# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m trainer evaluate pronunciation --data . --out work/pronunciation --model default`

How the add-on pronounces words that it never learned: those that are next by frequency behind the ones that
`prepare pronunciation` takes, against espeak-ng. No face model takes part.
"""

from __future__ import annotations

import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.words.pronunciation import LANGUAGES, pronounce

from ..speech.phones import BILABIALS, LABIODENTALS
from ..speech.pronunciation import edit_distance, rare_words
from .protocols import EvaluatePronunciation
from .tables import table, write_results

_LIPS = frozenset((*BILABIALS, *LABIODENTALS))


def evaluate_pronunciation(config: EvaluatePronunciation, out: Path) -> dict[str, Any]:
    """Write results.json and results.md: for each language the words, the errors by phone and by word, and those of
    p, b, m, f and v alone, in their order.

    Raises:
        MissingFileError: espeak-ng is not installed.
        UserError: wordfreq is not.
    """
    if find_spec("wordfreq") is None:
        raise UserError("{module} is not installed; pip install wordfreq", module="wordfreq")
    rows: list[dict[str, Any]] = []
    for code, name in LANGUAGES.items():
        said = list(itertools.islice(rare_words(code), config.words))
        if not said:
            continue
        found = pronounce([word for word, _ in said], code)
        pairs = [(own, phones) for own, (_, phones) in zip(found, said, strict=True)]
        lips = [tuple([phone for phone in some if phone in _LIPS] for some in pair) for pair in pairs]
        rows.append(
            {
                "language": name,
                "words": len(said),
                "phone_error": _error(pairs),
                "word_error": sum(own != phones for own, phones in pairs) / len(pairs),
                "lip_error": _error(lips),
            }
        )
    results = {"languages": rows}
    heads = ("language", "words", "phone error", "word error", "p, b, m, f, v")
    cells = [
        [row["language"], str(row["words"]), *(f"{row[k]:.3f}" for k in ("phone_error", "word_error", "lip_error"))]
        for row in rows
    ]
    write_results(out, results, f"# Pronunciation of words that were not learnt\n\n{table(heads, cells)}\n")
    return results


def _error(pairs: list[Any]) -> float:
    """Insertions, deletions and substitutions for each true one."""
    return sum(edit_distance(own, phones) for own, phones in pairs) / max(1, sum(len(phones) for _, phones in pairs))
