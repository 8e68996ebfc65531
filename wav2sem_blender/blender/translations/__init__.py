# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on in the user's language; English is what stands in the code.

Each language is a JSON file here: English to its translation. What an entry leaves open has a name, as in
'"{mesh}" has no faces ({n_vertices} vertices)'.

Blender translates names, tooltips and literal labels by itself. A sentence with values is an `errors.Text`, which
remembers its template, so that code without Blender (the pipeline, the worker) need not know of languages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import bpy

from ...errors import Text

LANGUAGES = ("de", "zh_HANS")
# For words that mean another thing elsewhere in Blender, whose own translation comes first: its "Face" is a polygon.
CONTEXT = "wav2sem"

# Blender asks in the first one for names and tooltips, in the second one for buttons.
_CONTEXTS = ("*", "Operator", CONTEXT)
_QUOTED = re.compile(r'"\{(\w+)')

Translate = Callable[[str, str], str]


@cache
def catalogue(language: str) -> dict[str, str]:
    """English to the language of that name, in Blender's spelling."""
    return json.loads((Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def translated(sentence: str, translate: Translate = bpy.app.translations.pgettext_iface) -> str:
    """A sentence in the user's language; what has no translation stays as it is.

    Args:
        sentence: in English. A `Text` is found by its template. Its values are translated too, except names, which stand
            between quotation marks.
        translate: Blender's function for labels, tooltips or reports, each of which the user may leave in English.
    """
    if not isinstance(sentence, Text):
        return translate(sentence, CONTEXT) if sentence in catalogue(LANGUAGES[0]) else sentence
    names = _QUOTED.findall(sentence.template)
    shown = {
        name: translated(value, translate) if isinstance(value, str) and name not in names else value
        for name, value in sentence.values.items()
    }
    return translate(sentence.template, CONTEXT).format(**shown)


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
