# SPDX-License-Identifier: GPL-3.0-or-later
"""The header of a .safetensors file: names, types and shapes of the weights, read and checked before the weights are.

The header is JSON of a bounded size; offsets are compared with the file, so what it names is what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..json_file import JsonError, parse_json

Shapes = Mapping[str, tuple[int, ...]]
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""The types that NumPy has."""
_METADATA = "__metadata__"
_MAX_HEADER_BYTES = 16 << 20
_MAX_AXES = 8


def read_shapes(path: Path) -> Shapes:
    """Name -> shape of every tensor.

    Raises:
        UserError: It is no such file, it is damaged, or a tensor's type is one that NumPy lacks, such as bfloat16.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise _damaged(path, f"its header would have {length} of {size} bytes")
        try:
            header = parse_json(file.read(length))
        except JsonError as error:
            raise _damaged(path, error.text) from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no object")
    ranges = [_range(path, name, entry) for name, entry in header.items() if name != _METADATA]
    end = 0
    for begin, stop in sorted(ranges):
        if begin != end:
            raise _damaged(path, "its tensors overlap or leave a gap")
        end = stop
    if end != size - 8 - length:
        raise _damaged(path, f"its tensors would have {end} of {size - 8 - length} bytes")
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != _METADATA}


def _range(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes lie behind the header."""
    entry = entry if isinstance(entry, dict) else {}
    shape, offsets, kind = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if not (_are_counts(shape) and _are_counts(offsets) and len(offsets) == 2 and isinstance(kind, str)):
        raise _damaged(path, f"the description of {name}")
    if kind not in _ITEM_BYTES:
        raise UserError(
            "{file}: {tensor} is of the type {type}, which NumPy lacks; write the weights as float32 or float16",
            file=path,
            tensor=name,
            type=kind,
        )
    begin, stop = offsets
    if len(shape) > _MAX_AXES or prod(shape) * _ITEM_BYTES[kind] != stop - begin:
        raise _damaged(path, f"{name} has not the size of its shape")
    return begin, stop


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError("{file}: no weights, or damaged ({reason}); copy it again", file=path, reason=reason)


def check_shapes(path: Path, found: Shapes, wanted: Shapes, besides: tuple[str, ...] = ("",)) -> None:
    """Compare the weights of a file with what a model's description makes of them.

    Args:
        path: The file.
        found: Its tensors.
        wanted: Those that the model has, as config.json describes it.
        besides: How the names of tensors begin that may be there too; any, by default.

    Raises:
        UserError: A tensor is missing, unknown, or of another shape; the message names it.
    """
    for name, shape in wanted.items():
        if name not in found:
            raise UserError(
                "{file}: {tensor} is missing; config.json describes another model. Copy the whole folder again",
                file=path,
                tensor=name,
            )
        if found[name] != shape:
            raise UserError(
                "{file}: {tensor} has the shape {found}, but by config.json it is {expected}. Copy the whole folder "
                "again",
                file=path,
                tensor=name,
                found=found[name],
                expected=shape,
            )
    unknown = sorted(name for name in set(found) - set(wanted) if not name.startswith(besides))
    if unknown:
        raise UserError(
            "{file}: {tensor} is no tensor of the model that config.json describes. Copy the whole folder again",
            file=path,
            tensor=unknown[0],
        )
