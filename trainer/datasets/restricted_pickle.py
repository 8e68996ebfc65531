# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a pickle of numpy arrays and built-in containers, and nothing else: a data set must not run code.

VOCASET and BIWI come as pickles of Python 2, whose strings are latin-1. Nothing is imported by a name in the file: the
few callables that numpy's pickles need are answered by functions of this module, which make arrays of bytes and open no
file. Every other name is refused before anything is called.
"""

from __future__ import annotations

import pickle
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from wav2sem_blender.errors import MissingFileError, UserError

# Booleans, numbers and strings; neither objects nor structures nor dates.
PLAIN_DTYPE = re.compile(r"[biufcSU]\d{1,9}")
# Smaller arrays are not worth a place in the temporary file.
MAPPED_BYTES = 1 << 16
DAMAGED = (
    pickle.UnpicklingError, AssertionError, AttributeError, LookupError, TypeError, ValueError, OverflowError,
    MemoryError, RecursionError,
)  # fmt: skip


def load(path: Path, *, map_arrays: bool = False) -> Any:
    """Read the file's object; its arrays are read-only.

    Args:
        path: A pickle of any protocol, written by Python 2 or 3, NumPy 1 or 2.
        map_arrays: Put arrays of 64 KiB and more into an unnamed temporary file and map them, so that a pickle of
            gigabytes needs little memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file names anything but arrays and containers ("refused: posix.system"), or it is damaged or
            cut off; the message has its size in bytes.
        OSError: the file cannot be read, or the temporary folder is full.
    """
    if not path.is_file():
        raise MissingFileError("{path}: there is no such file", path=path)
    size = path.stat().st_size
    with path.open("rb") as file, tempfile.TemporaryFile(prefix="wav2sem_") if map_arrays else nullcontext() as spilled:
        try:
            loaded = _Unpickler(_Source(file, size), spilled).load()
            return _Resolver(_mapped(spilled))(loaded)
        except _Refused as error:
            raise UserError(
                "{path}: refused: {error}; only numpy arrays and built-in containers are read from pickles",
                path=path.name,
                error=error,
            ) from None
        except OSError as error:
            raise UserError(
                "{path}: it cannot be read, or its {size:.1f} GB of arrays not be stored in {gettempdir} "
                "({reason}); free some space there, or set TMPDIR",
                path=path.name,
                size=size / 1e9,
                gettempdir=tempfile.gettempdir(),
                reason=error.strerror,
            ) from error
        except EOFError as error:
            raise UserError(
                "{path}: the file ends after {size} bytes in the middle of an object; copy or download it again",
                path=path.name,
                size=size,
            ) from error
        except DAMAGED as error:
            raise UserError(
                "{path}: {size} bytes that are no readable pickle ({name}: {error}); copy or download it again",
                path=path.name,
                size=size,
                name=type(error).__name__,
                error=error,
            ) from error


class _Refused(Exception):
    """A name or an array that data do not need."""


class _Source:
    """The file, which gives no more than it has: a length in a pickle is a claim, and memory is taken for it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def read(self, n: int) -> bytes:
        if n > self._size - self._file.tell():
            raise EOFError
        return self._file.read(n)

    def readline(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line


class _Unpickler(pickle._Unpickler):
    """The one written in Python: its memo is a dict, where the C one reserves an array as long as the file claims."""

    def __init__(self, source: _Source, spill: IO[bytes] | None) -> None:
        super().__init__(source, encoding="latin1")  # type: ignore[arg-type]  # bytes-like read and readline suffice
        if spill:
            self.memo = _ShortMemo()
        arrays: dict[str, Callable] = {"_reconstruct": partial(_reconstruct, spill), "scalar": _scalar}
        self._admitted: dict[tuple[str, str], Callable] = {
            **{(f"numpy.{core}.multiarray", name): call for core in ("core", "_core") for name, call in arrays.items()},
            **{(f"numpy.{core}.numeric", "_frombuffer"): partial(_from_buffer, spill) for core in ("core", "_core")},
            ("numpy", "ndarray"): _ndarray,
            ("numpy", "dtype"): _DType,
            ("_codecs", "encode"): _encode,
            ("collections", "OrderedDict"): OrderedDict,
        }
        builtins: dict[str, Callable] = {
            "set": set, "frozenset": frozenset, "complex": complex, "bytes": _bytes, "bytearray": _bytearray,
        }  # fmt: skip
        for module in ("builtins", "__builtin__"):
            self._admitted |= {(module, name): call for name, call in builtins.items()}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._admitted:
            raise _Refused(f"{module}.{name}")
        return _Admitted(self._admitted[module, name])


class _ShortMemo(dict[int, Any]):
    """What later parts of the pickle may refer to, without the arrays' bytes: those are in the file by then.

    A reference to them would find an array without content, which is an error.
    """

    def __setitem__(self, index: int, value: Any) -> None:
        long = any(isinstance(part, (str, bytes, bytearray)) and len(part) >= MAPPED_BYTES for part in _parts(value))
        super().__setitem__(index, _Array(None) if long else value)


def _parts(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


class _Admitted:
    """A callable that a pickle can call, but neither change nor look into."""

    __slots__ = ("_call",)
    _call: Callable

    def __init__(self, call: Callable) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *about: Any) -> Any:
        return self._call(*about)

    def is_ndarray(self) -> bool:
        return self._call is _ndarray

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"a change of {name}")

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a change of a callable's state")


class _DType:
    """numpy.dtype(spec) with its byte order, for plain values only."""

    def __init__(self, spec: str, *_flags: Any) -> None:
        if not isinstance(spec, str) or not PLAIN_DTYPE.fullmatch(spec):
            raise _Refused(f"an array of dtype {str(spec)[:40]}")
        self.dtype = np.dtype(spec)

    def __setstate__(self, state: tuple) -> None:
        _version, order, subdtype, names, fields, *_sizes = state
        if (subdtype, names, fields) != (None, None, None) or order not in ("<", ">", "|", "="):
            raise _Refused("a structured dtype")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array while the pickle is read; `resolve` makes the real one when all is known."""

    def __init__(self, spill: IO[bytes] | None) -> None:
        self._spill = spill
        self._raw: bytes | tuple[int, int] | None = None
        self.shape: tuple[int, ...] = ()
        self.dtype = np.dtype("u1")
        self.order: Literal["C", "F"] = "C"

    def __setstate__(self, state: tuple) -> None:
        self.shape, dtype, fortran, raw = state[-4:]
        self.dtype = dtype.dtype
        self.order = "F" if fortran else "C"
        if not isinstance(raw, (str, bytes, bytearray)):
            raise _Refused("an array of objects")
        self.fill(raw.encode("latin1") if isinstance(raw, str) else bytes(raw))

    def fill(self, raw: bytes) -> None:
        """Take the array's bytes, which must be as many as its shape and type say."""
        if not all(type(n) is int and n >= 0 for n in self.shape) or prod(self.shape) * self.dtype.itemsize != len(raw):
            raise UserError(
                "array {shape} of {dtype} with {n_raw} bytes",
                shape=self.shape,
                dtype=self.dtype,
                n_raw=len(raw),
            )
        if self._spill is None or len(raw) < MAPPED_BYTES:
            self._raw = raw
        else:
            self._raw = (self._spill.tell(), len(raw))
            self._spill.write(raw)

    def resolve(self, mapped: np.ndarray | None) -> np.ndarray:
        if self._raw is None:
            raise UserError("an array without content")
        if isinstance(self._raw, bytes):
            flat = np.frombuffer(self._raw, self.dtype)
        else:
            assert mapped is not None
            start, size = self._raw
            flat = mapped[start : start + size].view(self.dtype)
        return flat.reshape(self.shape, order=self.order)


def _ndarray(*_about: Any) -> None:
    raise _Refused("numpy.ndarray called by itself")


def _reconstruct(spill: IO[bytes] | None, kind: Any, *_placeholder: Any) -> _Array:
    if not isinstance(kind, _Admitted) or not kind.is_ndarray():
        raise _Refused("an array of another class than numpy.ndarray")
    return _Array(spill)


def _from_buffer(
    spill: IO[bytes] | None, raw: bytes | bytearray, dtype: _DType, shape: tuple[int, ...], order: str
) -> _Array:
    array = _Array(spill)
    array.dtype, array.shape, array.order = dtype.dtype, shape, "F" if order == "F" else "C"
    array.fill(bytes(raw))
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


def _mapped(spill: IO[bytes] | None) -> np.ndarray | None:
    if spill is None or not spill.tell():
        return None
    spill.flush()
    return np.memmap(spill, np.uint8, "r")  # type: ignore[call-overload]  # an open file is accepted


class _Resolver:
    """The same containers with real arrays in place of the unfinished ones; what is shared stays shared."""

    def __init__(self, mapped: np.ndarray | None) -> None:
        self._mapped = mapped
        self._done: dict[int, Any] = {}

    def __call__(self, value: Any) -> Any:
        if id(value) not in self._done:
            self._done[id(value)] = self._resolve(value)
        return self._done[id(value)]

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, _Array):
            return value.resolve(self._mapped)
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self(item) for item in value)
        if isinstance(value, (_Admitted, _DType)):
            raise _Refused("a callable in place of data")
        return value
