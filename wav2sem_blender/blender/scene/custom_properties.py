# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads our custom properties. A .blend file of a stranger may have anything under their names.

What has another type or shape than we write counts as absent: panels read these at every redraw, and nobody can mend
them there. Of JSON, types are compared with a dataclass's annotations, and what does not fit is left out.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from ...errors import UserError
from ...json_file import parse_json

T = TypeVar("T")


def text(block: Any, name: str, default: str = "") -> str:
    """A text; `default` where there is none.

    Args:
        block: A data-block, or a part of one, with custom properties.
        name: The property.
        default: What stands for an absent one.
    """
    value = block.get(name)
    return value if isinstance(value, str) else default


def lines(block: Any, name: str) -> frozenset[str]:
    """The lines of a text, without empty ones."""
    return frozenset(filter(None, text(block, name).split("\n")))


def record(block: Any, name: str) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    return parsed_record(text(block, name))


def parsed_record(content: str) -> dict[str, Any]:
    """A JSON object from the text of a property; empty where it is none."""
    return as_dict(_parsed(content))


def texts(block: Any, name: str) -> list[str]:
    """A JSON list of texts; empty where there is none."""
    value = _parsed(text(block, name))
    return value if is_list_of(value, str) else []


def group(block: Any, name: str) -> Any:
    """A group of properties, as Blender's own mapping; empty where there is none."""
    value = block.get(name)
    return value if hasattr(value, "to_dict") else {}


def as_dict(value: Any) -> dict[str, Any]:
    """A JSON object that may be something else; then empty."""
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Whether it is a finite number and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_list_of(value: Any, kind: type, length: int | None = None) -> bool:
    """Whether it is a list of that type, and of that length; of `float` are lists of finite numbers."""
    if not isinstance(value, list) or length not in (None, len(value)):
        return False
    return all(is_number(item) if kind is float else isinstance(item, kind) for item in value)


def fitting(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values whose name is a field of a dataclass, and whose type is that of the field."""
    wanted = _fields(kind)
    return {name: value for name, value in values.items() if name in wanted and _fits(value, wanted[name])}


def described(kind: type[T], values: Mapping[str, Any]) -> T | None:
    """The dataclass of these values; None if a field that has no default is missing or does not fit."""
    try:
        return kind(**fitting(kind, values))
    except (TypeError, ValueError):
        return None


@cache
def _fields(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, types.UnionType):
        return any(_fits(value, some) for some in typing.get_args(wanted))
    if typing.get_origin(wanted) is typing.Literal:
        return value in typing.get_args(wanted)
    if wanted is float:
        return is_number(value)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31
    if wanted is type(None):
        return value is None
    return wanted is not Any and isinstance(wanted, type) and isinstance(value, wanted)


def _parsed(content: str) -> Any:
    if not content:
        return None
    try:
        return parse_json(content, half_characters=True)
    except UserError:
        return None
