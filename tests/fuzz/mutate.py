# SPDX-License-Identifier: GPL-3.0-or-later
"""Damages files and JSON by chance; the same `random.Random` damages them in the same way, on every machine.

A small mutator of our own instead of a library: a case is a target, a seed and a number, so a failure of one machine is
made again on another by naming them, and the whole of it runs in the environment that the tests have anyway.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

# Numbers that formats and programs treat in a special way.
_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_LARGE = (2**40, 2**62, 2**63 - 1, 2**64 - 1)
_PACKED = ("<H", ">H", "<I", ">I", "<Q", ">Q", "B")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 10**4, 10**9, 10**18, 2**63, 10**400, 0.5, -0.5, 1e-300, 1e300, 1e9),
    *(float("nan"), float("inf"), "", "0", "a", "x" * 5000, "\ud800", "\0", "../victim", "/dev/zero", "null"),
    *([], [[]], [0], [None], [1, "a"], {}, {"": {}}, {"a": None}),
)


def damaged(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """A file with one to six changes.

    Args:
        content: The file.
        other: Another one, of which pieces may come.
        chance: What decides.
    """
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        chance.choice(_CHANGES)(data, other, chance)
    return bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """Somewhere, in half of all cases in the header."""
    if not data:
        return 0
    return chance.randrange(min(len(data), 200) if chance.random() < 0.5 else len(data))


def _flip(data: bytearray, _other: bytes, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 40))):
        if data:
            data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _set(data: bytearray, _other: bytes, chance: random.Random) -> None:
    at = _place(data, chance)
    data[at : at + 1] = bytes((chance.choice((0, 1, 127, 128, 255, chance.randrange(256))),))


def _number(data: bytearray, _other: bytes, chance: random.Random) -> None:
    form = chance.choice(_PACKED)
    at, size = _place(data, chance), struct.calcsize(form)
    value = chance.choice((*_NUMBERS, *_LARGE, len(data), len(data) * 2)) % (1 << 8 * size)
    data[at : at + size] = struct.pack(form, value)


def _cut(data: bytearray, _other: bytes, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _remove(data: bytearray, _other: bytes, chance: random.Random) -> None:
    at = _place(data, chance)
    del data[at : at + chance.choice((1, 2, 4, 16, 100, 1000))]


def _zero(data: bytearray, _other: bytes, chance: random.Random) -> None:
    at = _place(data, chance)
    size = min(len(data) - at, chance.choice((1, 4, 16, 64, 512)))
    data[at : at + size] = bytes((chance.choice((0, 255)),)) * size


def _repeat(data: bytearray, _other: bytes, chance: random.Random) -> None:
    at = _place(data, chance)
    piece = bytes(data[at : at + chance.choice((1, 4, 32, 300))])
    data[at:at] = piece * chance.choice((1, 2, 20))


def _insert(data: bytearray, other: bytes, chance: random.Random) -> None:
    at, begin = _place(data, chance), chance.randrange(max(1, len(other)))
    piece = other[begin : begin + chance.choice((1, 8, 64, 600))]
    if chance.random() < 0.5:
        data[at:at] = piece
    else:
        data[at : at + len(piece)] = piece


def _append(data: bytearray, other: bytes, chance: random.Random) -> None:
    data += chance.choice((other, bytes(chance.choice((1, 100, 5000))), chance.randbytes(64), bytes(data)))


_CHANGES = (_flip, _flip, _set, _set, _number, _number, _cut, _remove, _zero, _repeat, _insert, _append)


def damaged_json(value: Any, chance: random.Random) -> bytes:
    """JSON text of a value with one to three changes; some are no JSON."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2, 3))):
        _change(value, chance)
    text = json.dumps(value)
    if chance.random() < 0.08:
        return damaged(text.encode("utf-8", errors="replace"), b'{"a": [[[[1e999, NaN', chance)
    if chance.random() < 0.03:
        depth = chance.choice((10, 40, 1000, 100_000))
        text = text.replace("null", "[" * depth + "]" * depth, 1)
    return text.encode("utf-8")


def _change(root: Any, chance: random.Random) -> None:
    """Change one item of a tree of dicts and lists."""
    places = list(_places(root))
    if not places:
        return
    parent, key = chance.choice(places)
    kind = chance.random()
    if kind < 0.55:
        parent[key] = _nudged(parent[key], chance) if chance.random() < 0.4 else copy.deepcopy(chance.choice(_VALUES))
    elif kind < 0.75:
        del parent[key]
    elif kind < 0.9:
        other_parent, other_key = chance.choice(places)
        parent[key] = copy.deepcopy(other_parent[other_key])
    elif isinstance(parent, dict):
        parent[chance.choice(("", "extra", f"{key}_", "kind", "config"))] = copy.deepcopy(chance.choice(_VALUES))
    else:
        parent.insert(key, copy.deepcopy(chance.choice((parent[key], *_VALUES))))


def _nudged(value: Any, chance: random.Random) -> Any:
    """A value of the same type that may be in range."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((value + 1, value - 1, value * 2, value // 2, -value, value * 1000, value**4))
    if isinstance(value, float):
        return chance.choice((-value, value * 1000, value / 1000, value + 1))
    if isinstance(value, str):
        return chance.choice((value.upper(), value + "x", value[:-1], value * 1000))
    return value


def _places(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
