# SPDX-License-Identifier: GPL-3.0-or-later
"""Translations of the add-on's interface; the code is in English.

Each language is a JSON file here, from English to its translation. Values have names, as in
'"{mesh}" has no faces ({n_vertices} vertices)'.

Blender translates names, tooltips and literal labels itself. A text with values is an `errors.Text`, which remembers
its template, so that the pipeline and the worker, which run without Blender, need no translations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import bpy

from ...errors import Text

LANGUAGES = ("de", "zh_HANS")
# For words that Blender itself translates in another sense: its "Face" is a polygon.
CONTEXT = "wav2sem"

# Blender looks up names and tooltips in the first, buttons in the second.
_CONTEXTS = ("*", "Operator", CONTEXT)
_QUOTED = re.compile(r'"\{(\w+)')

# Returns a string; the stubs of bpy say None.
Translate = Callable[[str, str], Any]


@cache
def catalogue(language: str) -> dict[str, str]:
    """The translations into a language, by their English; `language` as Blender spells it."""
    return json.loads((Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def translated(sentence: str, translate: Translate = bpy.app.translations.pgettext_iface) -> str:
    """A text in the user's language; unchanged where it has no translation.

    Args:
        sentence: In English. A `Text` is looked up by its template; its values are translated too, except names in
            quotation marks.
        translate: Blender's function for labels, tooltips or reports, each of which the user may keep in English.
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
    """Give Blender the translations."""
    bpy.app.translations.register(
        __name__,
        {
            language: {(context, entry): words for entry, words in catalogue(language).items() for context in _CONTEXTS}
            for language in LANGUAGES
        },
    )


def unregister() -> None:
    """Remove them."""
    bpy.app.translations.unregister(__name__)
