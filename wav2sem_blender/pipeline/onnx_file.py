# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses an ONNX file that our export did not write, before ONNX Runtime opens it.

ONNX can loop without end, call other graphs, read other files of the disk, and name tensors of any size. Our export
(`trainer/loops/export.py`) needs none of these: one graph of a few hundred nodes of a fixed list of operators, whose
weights are in the file. This reads protobuf's wire format itself, since the extension carries no library for it, and
refuses every field that the export does not write.

Source: onnx.proto of ONNX 1.19; https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from math import prod
from pathlib import Path

from ..errors import UserError

MAX_PARTS = 50_000
OPERATORS = frozenset(
    """
    Abs Add Cast Clip Concat Conv Cos Div DynamicQuantizeLinear Equal Erf Expand Floor Gather GatherElements Gelu Gemm
    Greater GreaterOrEqual Identity InstanceNormalization IsNaN LayerNormalization Less Log MatMul MatMulInteger Max Min
    Mul Neg Not Pow Range ReduceL2 ReduceMean ReduceSum Relu Reshape Shape Sigmoid Sin Slice Softmax Split Sqrt Squeeze
    Sub Tanh Tile Transpose Unsqueeze Where
    """.split()
)
"""What encoders of all kinds become, as floats or with 8-bit matrices, and their nearest relatives. None has a graph
inside, and none makes more of a number in the file than `Expand`, `Range` and `Tile`, whose results the limit of memory
in `engine_onnx.py` bounds."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
# Numbers of the fields that the export writes.
_MODEL = {1, 2, 3, 4, 5, 6, _GRAPH := 7, _OPSET := 8, 14}
_GRAPH_FIELDS = {_NODE := 1, 2, _INITIALISER := 5, 10, 11, 12, 13, 16}
_NODE_FIELDS = {1, 2, 3, _OPERATOR := 4, _ATTRIBUTE := 5, 6, _DOMAIN := 7, 9}
_ATTRIBUTE_FIELDS = {1, 2, 3, 4, 7, 8, 13, 20}
_OPSET_FIELDS = {_OPSET_DOMAIN := 1, 2}
_TENSOR_FIELDS = {_SHAPE := 1, _TYPE := 2, 4, 5, 7, 8, _RAW := 9, 12, _LOCATION := 14}
_TYPED = (4, 5, 7)
_DOMAINS = ("", "ai.onnx")
_QUANTISERS = ("onnx.infer", "onnxruntime.quant")  # named, without an operator of them
_MAX_AXES = 8
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8}

Content = mmap.mmap | bytes
Field = tuple[int, int, int, int]
"""Number, wire type, and the range of its bytes; of a varint, its value and 0."""


class _ForeignError(Exception):
    """What the export would not write."""


def check_graph(path: Path) -> None:
    """Look at a file.

    Raises:
        UserError: It is damaged, or has what our export does not write.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_model(content)
    except (_ForeignError, IndexError, ValueError) as error:  # ValueError: an empty file, which cannot be mapped
        raise UserError(
            "{file}: no graph that `python -m trainer export` writes ({reason}); export the model again, or remove the "
            "ONNX files and use the torch engine",
            file=path,
            reason=error,
        ) from error


def _check_model(content: Content) -> None:
    graphs = 0
    for number, wire, begin, stop in _fields(content, 0, len(content), _MODEL):
        if number == _GRAPH:
            graphs += 1
            _check_graph(content, *_nested(wire, begin, stop))
        elif number == _OPSET:
            for field, *value in _fields(content, *_nested(wire, begin, stop), _OPSET_FIELDS):
                if field == _OPSET_DOMAIN:
                    _check_domain(_text(content, *value), (*_DOMAINS, *_QUANTISERS))
    if graphs != 1:
        raise _ForeignError(f"{graphs} graphs")


def _check_graph(content: Content, begin: int, stop: int) -> None:
    for n_parts, (number, wire, b, s) in enumerate(_fields(content, begin, stop, _GRAPH_FIELDS)):
        if n_parts >= MAX_PARTS:
            raise _ForeignError("too many nodes")
        if number == _NODE:
            _check_node(content, *_nested(wire, b, s))
        elif number == _INITIALISER:
            _check_tensor(content, *_nested(wire, b, s))


def _check_node(content: Content, begin: int, stop: int) -> None:
    operator = ""
    for number, *value in _fields(content, begin, stop, _NODE_FIELDS):
        if number == _OPERATOR:
            operator = _text(content, *value)
        elif number == _DOMAIN:
            _check_domain(_text(content, *value), _DOMAINS)
        elif number == _ATTRIBUTE:
            for _ in _fields(content, *_nested(*value), _ATTRIBUTE_FIELDS):
                pass
    if operator not in OPERATORS:
        raise _ForeignError(f"the operator {operator!r}")


def _check_domain(name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise _ForeignError(f"operators of {name!r}")


def _check_tensor(content: Content, begin: int, stop: int) -> None:
    shape: list[int] = []
    item_bytes, n_raw, n_typed = 0, None, 0
    for number, wire, b, s in _fields(content, begin, stop, _TENSOR_FIELDS):
        if number == _SHAPE:
            shape += [b] if wire == _VARINT else _packed(content, *_nested(wire, b, s))
        elif number == _TYPE:
            item_bytes = _ITEM_BYTES.get(b, 0)
        elif number == _RAW:
            b, s = _nested(wire, b, s)
            n_raw = s - b
        elif number in _TYPED:
            n_typed += s - b if wire == _BYTES else 8
        elif number == _LOCATION and (wire, b) != (_VARINT, 0):
            raise _ForeignError("a tensor in another file")
    if not item_bytes or len(shape) > _MAX_AXES:
        raise _ForeignError("a tensor of another type or shape")
    n_items = prod(shape)
    if (n_items > n_typed) if n_raw is None else (n_items * item_bytes != n_raw):
        raise _ForeignError(f"a tensor of the shape {shape} that is not in the file")


def _fields(content: Content, at: int, stop: int, known: set[int]) -> Iterator[Field]:
    while at < stop:
        tag, at = _varint(content, at, stop)
        number, wire = tag >> 3, tag & 7
        if number not in known:
            raise _ForeignError(f"field {number}")
        if wire == _VARINT:
            value, at = _varint(content, at, stop)
            yield number, wire, value, 0
            continue
        if wire == _BYTES:
            size, at = _varint(content, at, stop)
        elif wire in (_FIXED_64, _FIXED_32):
            size = 8 if wire == _FIXED_64 else 4
        else:
            raise _ForeignError(f"wire type {wire}")
        if size > stop - at:
            raise _ForeignError("it is cut off")
        yield number, wire, at, at + size
        at += size


def _varint(content: Content, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise _ForeignError("it is cut off")
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _ForeignError("a number of more than 64 bits")


def _packed(content: Content, at: int, stop: int) -> list[int]:
    numbers = []
    while at < stop:
        number, at = _varint(content, at, stop)
        numbers.append(number)
    return numbers


def _nested(wire: int, begin: int, stop: int) -> tuple[int, int]:
    if wire != _BYTES:
        raise _ForeignError("a part that is no part")
    return begin, stop


def _text(content: Content, wire: int, begin: int, stop: int) -> str:
    begin, stop = _nested(wire, begin, stop)
    return content[begin : min(stop, begin + 100)].decode("ascii", errors="replace")
