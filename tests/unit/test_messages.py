# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/messages.md and the table of the user guide have every message of the sources."""

from __future__ import annotations

import ast
import textwrap

import pytest

from tools import messages

REMEDY = f"run: {messages.COMMAND}"


def told(source: str, path: str = "blender/ui/module.py") -> set[tuple[str, str]]:
    """The templates of a module and their kinds."""
    tree = ast.parse(textwrap.dedent(source))
    return set(messages._messages_of(tree, path, messages._error_classes([tree])))


def test_the_page_is_made_from_the_sources() -> None:
    assert messages.PAGE.read_text(encoding="utf-8") == messages.page(), REMEDY


def test_the_guides_table_is_made_from_the_sources() -> None:
    assert messages.GUIDE.read_text(encoding="utf-8") == messages.guide(), REMEDY


def test_every_place_has_messages() -> None:
    found = {message.place for message in messages.messages()}
    assert found == {heading for heading, _, _ in messages.PLACES}


@pytest.mark.parametrize(
    "source, expected",
    [
        ('raise UserError("{file}: gone; choose another", file=f)', ("{file}: gone; choose another", "error")),
        ("class GoneError(UserError):\n    pass\nraise GoneError('No sound here')", ("No sound here", "error")),
        ("TEXT = 'No sound here'\nraise UserError(TEXT)", ("No sound here", "error")),
        ("def f():\n    words = 'a b' if x else 'c d'\n    return Text(words)", ("c d", "note")),
        ("WORDS = {'A': 'a b'}\ndef f(k):\n    raise UserError(WORDS[k])", ("a b", "error")),
        ("for words in ('a b', 'c d'):\n    notes.append(Text(words))", ("c d", "note")),
        ("def fail(words):\n    raise UserError(words)\nfail('a b')", ("a b", "error")),
        ("def disabled_reason():\n    return '' if x else 'Choose a mesh'", ("Choose a mesh", "error")),
        ("self.tell({'INFO'}, 'All is well')", ("All is well", "note")),
        ("self.tell({'WARNING'}, 'All is lost')", ("All is lost", "error")),
    ],
)
def test_a_message_is_found_however_it_is_written(source: str, expected: tuple[str, str]) -> None:
    assert expected in told(source)


def test_a_template_from_elsewhere_is_reported() -> None:
    with pytest.raises(messages.UnreadableTemplateError, match=r"module\.py, line 1"):
        told("raise UserError(compute())")


def test_a_message_parts_into_fact_and_remedy() -> None:
    message = messages.Message(template="{file} is empty; record it again.", kind="error", path="files.py")
    assert (message.fact, message.remedy) == ("… is empty", "record it again.")
