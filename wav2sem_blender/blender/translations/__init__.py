# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on in the user's language; English is what stands in the code.

Each language is a JSON file here: English to its translation. What an entry leaves open is numbered, as in
'"{0}" has no faces ({1} vertices)'.

Names, tooltips and literal labels are translated by Blender itself. A sentence with names or numbers in it arises as
finished English, often where there is no Blender: in `pipeline` and in the worker's process. It is recognised by its
entry where it is shown, so that whoever raises an error need not know of languages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

import bpy

LANGUAGES = ("de", "zh_HANS")
# For words that mean another thing elsewhere in Blender, whose own translation comes first: its "Face" is a polygon.
CONTEXT = "wav2sem"

# Blender asks in the first one for names and tooltips, in the second one for buttons.
_CONTEXTS = ("*", "Operator", CONTEXT)
_OPEN = re.compile(r"\{(\d)\}")
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")

Translate = Callable[[str, str], str]


@cache
def catalogue(language: str) -> dict[str, str]:
    """English to the language of that name, in Blender's spelling."""
    return json.loads((Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def translated(sentence: str, translate: Translate = bpy.app.translations.pgettext_iface) -> str:
    """A sentence as the user shall read it; what has no translation stays as it is.

    Args:
        sentence: In English, with names and numbers filled in. Only what stands without quotation marks may itself be
            translated.
        translate: Blender's function for labels, tooltips or reports, each of which the user may leave in English.
    """
    found = _recognised(sentence)
    if found is None:
        parts = _SENTENCE_END.split(sentence)
        return " ".join(translated(part, translate) for part in parts) if len(parts) > 1 else sentence
    entry, filled = found
    words, names = translate(entry, CONTEXT), _names(entry)
    shown = tuple(part if number in names else translated(part, translate) for number, part in enumerate(filled))
    # An entry without a word of its own, such as "{0}.", fits what nobody knows, too.
    return words.format(*shown) if shown != filled or _weight(entry) else sentence


@lru_cache(maxsize=512)
def _recognised(sentence: str) -> tuple[str, tuple[str, ...]] | None:
    """The entry that a sentence was made from, and what it was filled in with."""
    if sentence in catalogue(LANGUAGES[0]):
        return sentence, ()
    for entry, pattern in _patterns():
        match = pattern.fullmatch(sentence)
        if match:
            return entry, match.groups()
    return None


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Entries with something open, the wordiest first."""
    entries = sorted(
        (entry for entry in catalogue(LANGUAGES[0]) if _OPEN.search(entry)),
        key=lambda entry: (_weight(entry), len(entry)),
        reverse=True,
    )
    # Every second piece is the number of what is open.
    return [(entry, re.compile("(.*?)".join(map(re.escape, _OPEN.split(entry)[::2])), re.DOTALL)) for entry in entries]


def _weight(entry: str) -> int:
    return sum(map(str.isalpha, entry))


@cache
def _names(entry: str) -> frozenset[int]:
    """Numbers of what stands between quotation marks."""
    return frozenset(map(int, re.findall(r'"\{(\d)\}"', entry)))


def register() -> None:
    """Hand the languages to Blender."""
    bpy.app.translations.register(
        __name__,
        {
            language: {(context, entry): words for entry, words in catalogue(language).items() for context in _CONTEXTS}
            for language in LANGUAGES
        },
    )


def unregister() -> None:
    """Take them back."""
    bpy.app.translations.unregister(__name__)
