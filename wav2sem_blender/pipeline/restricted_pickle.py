# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a pickle of numpy arrays and built-in containers, and nothing else: a data set must not run code.

VOCASET, BIWI and FLAME come as pickles of Python 2, whose strings are latin-1. Three rules make reading them safe:

1. `find_class` imports nothing. `ADMITTED` has every name that may stand in a file and the function or class of this
   module (or of Python's own containers) that answers it. Any other name is refused before anything is called.
2. The file can change unfinished arrays and dtypes only (opcode BUILD), and it cannot make objects of a class (NEWOBJ).
3. Tuples and frozen sets cannot be hashed while the file is read. Keys are therefore plain values: 72 bytes of nested
   tuples as a key would otherwise be hashed for years.

Time and memory can still grow with the square of a hostile file's size; they never grow faster.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np

from ..errors import MissingFileError, UserError
from .array_file import is_zip
from .stand_ins import refuse_stand_in

# Booleans, numbers and strings; no objects, structures or dates.
PLAIN_DTYPE = re.compile(r"[biufcSU]\d{1,9}")
PLAIN_VALUES = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic)
# Of Python 2 and of NumPy 2: today's name, or the name that most files have.
RENAMED = {
    "__builtin__": "builtins",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}
REFUSED_OPCODES = (pickle.NEWOBJ[0], pickle.NEWOBJ_EX[0], pickle.PERSID[0], pickle.BINPERSID[0])
DAMAGED = (
    pickle.UnpicklingError, AssertionError, AttributeError, EOFError, LookupError, TypeError, ValueError,
    OverflowError, MemoryError, RecursionError,
)  # fmt: skip
_MAX_STORAGE_FIELDS = 8
# A state dict's tuples are sizes, strides and the arguments of a tensor.
MAX_VISITS = 1_000_000
# Before zip files torch wrote a magic number, a version, the system and the state dict, each by itself.
OLD_PARTS = 4


def load(path: Path) -> Any:
    """Read the file's object; its arrays are read-only.

    Args:
        path: A pickle of any protocol, written by Python 2 or 3, NumPy 1 or 2.

    Raises:
        MissingFileError: no such file.
        UserError: the file names anything but arrays and containers ("refused: posix.system"), or it is damaged or
            cut off; the message has its size in bytes.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise MissingFileError("{path}: there is no such file", path=path)
    refuse_stand_in(path)
    content = path.read_bytes()
    try:
        return _Finish()(_Unpickler(_Content(content), encoding="latin1").load())
    except _Refused as error:
        raise UserError(
            "{path}: refused: {error}; only numpy arrays and built-in containers are read from pickles",
            path=path.name, error=error,
        ) from None  # fmt: skip
    except DAMAGED as error:
        if isinstance(error, TypeError) and "unhashable" in str(error):  # to download it again would not help
            raise UserError(
                "{path}: refused: a key that is a tuple or a set; no data set has such keys", path=path.name
            ) from None
        raise UserError(
            "{path}: {size} bytes that are no readable pickle ({kind}: {error}); copy or download it again",
            path=path.name, size=len(content), kind=type(error).__name__, error=error,
        ) from error  # fmt: skip


def read_templates(path: Path) -> Mapping[str, np.ndarray]:
    """Subject -> rest face, of a data set's templates.pkl.

    Raises:
        UserError: It holds anything else.
    """
    templates = load(path)
    if not isinstance(templates, dict) or not all(isinstance(value, np.ndarray) for value in templates.values()):
        raise UserError("{path}: not templates (a dict of subject -> array is needed)", path=path.name)
    return templates


class _Refused(Exception):
    """A name or an array that data do not need."""


class _Content(io.BytesIO):
    """Bytes that end with an error: the lengths in a pickle are claims."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError("cut off")
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError("cut off")
        return line


class _Tuple(list):
    """A tuple while the file is read: it cannot be hashed."""


class _FrozenSet(set):
    """A frozen set while the file is read: it cannot be hashed."""


class _DType:
    """numpy.dtype(spec) and its byte order, for plain values only."""

    def __init__(self, spec: str, *_flags: Any) -> None:
        if not isinstance(spec, str) or not PLAIN_DTYPE.fullmatch(spec):
            raise _Refused(f"an array of dtype {str(spec)[:40]}")
        self.dtype = np.dtype(spec)

    def build(self, state: Any) -> None:
        _version, order, subdtype, names, fields, *_sizes = state
        if (subdtype, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise _Refused("a structured dtype")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array while the file is read; `finished` is the real one."""

    finished: np.ndarray | None = None

    def __init__(self, kind: Any, *_placeholder: Any) -> None:
        if kind is not _ndarray:
            raise _Refused("an array of another class than numpy.ndarray")

    def build(self, state: Any) -> None:
        shape, dtype, fortran, raw = state[-4:]
        self.fill(raw, dtype.dtype, shape, "F" if fortran else "C")

    def fill(self, raw: Any, dtype: np.dtype, shape: Any, order: Literal["C", "F"]) -> None:
        if not isinstance(raw, (str, bytes, bytearray)):
            raise _Refused("an array of objects")
        content = raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
        if not all(type(n) is int and n >= 0 for n in shape) or prod(shape) * dtype.itemsize != len(content):
            raise ValueError(f"an array {tuple(shape)} of {dtype} has {len(content)} bytes")
        self.finished = np.frombuffer(content, dtype).reshape(tuple(shape), order=order)


def _ndarray(*_about: Any) -> None:
    raise _Refused("numpy.ndarray called by itself")


def _from_buffer(raw: Any, dtype: _DType, shape: Any, order: str) -> _Array:
    array = _Array(_ndarray)
    array.fill(raw, dtype.dtype, shape, "F" if order == "F" else "C")
    return array


def _scalar(dtype: _DType, raw: str | bytes) -> np.generic:
    (value,) = np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype.dtype)
    return value


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    return bytearray(_encode(content, encoding) if isinstance(content, str) else bytes(memoryview(content)))


ADMITTED: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): _FrozenSet,
    ("builtins", "complex"): complex,
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytearray,
}


def _load_bytearray(unpickler: Any) -> None:
    """As the library's, which reserves what the file claims before it reads."""
    (size,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(min(size, sys.maxsize))))


def _unhashable(opcode: bytes, kind: type) -> Callable[[_Unpickler], None]:
    """The opcode's own reader, which leaves a `kind` on the stack."""
    read: Callable[[Any], None] = pickle._Unpickler.dispatch[opcode[0]]

    def load_unhashable(unpickler: _Unpickler) -> None:
        read(unpickler)
        unpickler.stack[-1] = kind(unpickler.stack[-1])

    return load_unhashable


class _Unpickler(pickle._Unpickler):
    """The one in Python: its memo is a dict, while the one in C reserves an array as long as the file claims."""

    stack: list[Any]

    def find_class(self, module: str, name: str) -> Callable:
        admitted = ADMITTED.get((RENAMED.get(module, module), name))
        if admitted is None:
            raise _Refused(f"{module}.{name}")
        return admitted

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _DType)):
            raise _Refused("a change of anything but an array")
        self.stack[-1].build(state)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{code: read for code, read in pickle._Unpickler.dispatch.items() if code not in REFUSED_OPCODES},
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: _load_bytearray,
        pickle.FROZENSET[0]: _unhashable(pickle.FROZENSET, _FrozenSet),
        **{code[0]: _unhashable(code, _Tuple) for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)},
    }


class _Finish:
    """The same data with real arrays, tuples and frozen sets; what is shared stays shared."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if id(value) not in self._done:
            self._done[id(value)] = self._finish(value)
        return self._done[id(value)]

    def _finish(self, value: Any) -> Any:
        if isinstance(value, PLAIN_VALUES):
            return value
        if isinstance(value, _Array):
            if value.finished is None:
                raise ValueError("an array without content")
            return value.finished
        if isinstance(value, dict):
            return {self(key): self(item) for key, item in value.items()}
        for kind, made in ((_Tuple, tuple), (_FrozenSet, frozenset), (list, list), (tuple, tuple), (set, set)):
            if isinstance(value, kind):
                return made(map(self, value))
        raise _Refused("a callable in place of data")


class EndlessError(ValueError):
    """Hashing what is in the file would not end."""


class ClaimError(ValueError):
    """The file claims to be much more than it holds."""


def check_claims(path: Path) -> None:
    """Walk a checkpoint of torch before torch reads it; damaged ones are left to torch.

    Torch's reader hashes what it reads, reserves what a storage claims to have, and unpacks. Here nothing is made: a
    tuple is only the number of items that hashing it would visit.

    Raises:
        EndlessError: As above.
        ClaimError: As above.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if not is_zip(file):
            file.seek(0)
            _walk(file, OLD_PARTS, size)
            return
        file.seek(0)
        with suppress(*_ZIP_DAMAGE), zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > MAX_GROWTH * size + _SMALL_BYTES:
                raise ClaimError(f"{unpacked} bytes")
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl"):
                    _walk(io.BytesIO(archive.read(entry)), 1, unpacked)


# Weights do not compress; some files name a tensor twice.
MAX_GROWTH = 16
_SMALL_BYTES = 1 << 20
_ZIP_DAMAGE = (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error, struct.error)


def _walk(file: BinaryIO, n_parts: int, n_items: int) -> None:
    """Read pickles one after the other, whose storages have at most `n_items` together."""
    try:
        for _ in range(n_parts):
            _Walker(file, n_items).load()
    except (EndlessError, ClaimError):
        raise
    except Exception:  # a walker of damaged bytes raises anything
        return


class _Counted:
    """How many items hashing it visits, and its numbers; as an argument it is empty."""

    def __init__(self, items: tuple) -> None:
        self.numbers = [item for item in items[:_MAX_STORAGE_FIELDS] if type(item) is int]
        self.n_visits: int = 1 + sum(item.n_visits if isinstance(item, _Counted) else 1 for item in items)
        if self.n_visits > MAX_VISITS:
            raise EndlessError(f"a tuple of more than {MAX_VISITS} items")

    def __iter__(self) -> Any:
        return iter(())


class _Anything(dict):
    """Any object, and what any class makes."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        super().__init__()

    def append(self, _item: Any) -> None:
        """Let go of it."""

    extend = append

    __hash__ = object.__hash__  # type: ignore[assignment]


def _counted(opcode: bytes) -> Callable[[_Walker], None]:
    """The opcode's own reader, which leaves a count in place of its tuple."""
    read: Callable[[Any], None] = pickle._Unpickler.dispatch[opcode[0]]

    def load_counted(walker: _Walker) -> None:
        read(walker)
        walker.stack[-1] = _Counted(walker.stack[-1])

    return load_counted


class _Walker(pickle._Unpickler):
    """The one in Python, whose opcodes can be replaced."""

    stack: list[Any]

    def __init__(self, file: BinaryIO, n_items: int) -> None:
        super().__init__(file)
        self._n_items_left = n_items

    def find_class(self, _module: str, _name: str) -> type:
        return _Anything

    def persistent_load(self, about: Any) -> Any:
        """A storage: its kind, type, key, place and number of items, which are at least a byte each."""
        n_items = max(about.numbers, default=0) if isinstance(about, _Counted) else 0
        if n_items > self._n_items_left:
            raise ClaimError(f"a storage of {n_items} items")
        return _Anything()

    def load_build(self) -> None:
        self.stack.pop()

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: _load_bytearray,
        **{code[0]: _counted(code) for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)},
    }
