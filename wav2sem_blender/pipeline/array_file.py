# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays of NumPy's .npy and .npz files, which a stranger may have written.

What a file claims is compared with its size before anything is reserved: the header of an array names its shape and
type, and 5 MB of packed zeros can claim to be gigabytes. Nothing in a file is executed.
"""

from __future__ import annotations

import errno
import io
import zipfile
from collections.abc import Container
from math import prod
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from ..errors import UserError

MAX_BYTES = 4 << 30
"""Of the arrays of one file together."""
# Motion in silence packs well, weights hardly at all. Small files may hold anything.
_MAX_GROWTH, _SMALL_BYTES = 64, 64 << 20
_MAX_ENTRIES = 10_000
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without a limit
_PLAIN = "biufcSU"
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ArrayFileError(UserError):
    """A file that holds no arrays, or claims too many; the message says why, not which file."""


def read_arrays(path: Path, names: Container[str] | None = None, limit_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name.

    Args:
        path: The file.
        names: Those that are read; None for all.
        limit_bytes: What they may take together.

    Raises:
        ArrayFileError: It is no .npz file, it is damaged, or it claims more than it can hold.
        OSError: It cannot be read.
    """
    with path.open("rb") as file, _Damage():
        if file.read(2) != b"PK":
            raise ArrayFileError("it is not an npz archive")
        budget = _Budget(path.stat().st_size, limit_bytes)
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            if len(entries) > _MAX_ENTRIES:
                raise ArrayFileError("it holds {n_arrays} arrays", n_arrays=len(entries))
            wanted = {entry.filename.removesuffix(".npy"): entry for entry in entries}
            wanted = {name: entry for name, entry in wanted.items() if names is None or name in names}
            for name, entry in wanted.items():
                if entry.compress_type not in _PACKED:
                    raise ArrayFileError("{name} is packed in a way that NumPy does not write", name=name)
                with archive.open(entry) as stream:
                    budget.check(name, stream, entry.file_size)
            arrays = {}
            for name, entry in wanted.items():
                with archive.open(entry) as stream:
                    arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
            return arrays


def read_array(path: Path, limit_bytes: int = MAX_BYTES) -> np.ndarray:
    """The array of an .npy file, or the only one of an .npz file; raises as `read_arrays`."""
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive:
        arrays = list(read_arrays(path, limit_bytes=limit_bytes).values())
        if len(arrays) != 1:
            raise ArrayFileError("it holds {n_arrays} arrays instead of one", n_arrays=len(arrays))
        return arrays[0]
    with path.open("rb") as file, _Damage():
        size = path.stat().st_size
        _Budget(size, limit_bytes).check(path.stem, file, size)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def write_arrays(file: IO[bytes], **arrays: np.ndarray) -> None:
    """Write an .npz file of these arrays by name.

    The archive is made in memory: one that fails while it is written, on a full disk, complains once more on standard
    error when Python collects it.

    Raises:
        OSError: The file cannot be written.
    """
    archive = io.BytesIO()
    np.savez(archive, **arrays)  # type: ignore[arg-type]
    file.write(archive.getbuffer())


def is_zip(file: Path | BinaryIO) -> bool:
    """Whether a file is a zip archive, damaged or not; `zipfile.is_zipfile` raises on some that are damaged.

    Raises:
        OSError: It cannot be read.
    """
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:
        return True


class _Budget:
    """What the arrays of a file of `size` bytes may take."""

    def __init__(self, size: int, limit_bytes: int) -> None:
        self._size, self._left = size, min(limit_bytes, max(_SMALL_BYTES, _MAX_GROWTH * size))

    def check(self, name: str, stream: IO[bytes] | BinaryIO, n_bytes: int) -> None:
        """Read an array's header; `n_bytes` is what there is of it with the header."""
        shape, dtype = _header(stream)
        if dtype.kind not in _PLAIN or dtype.itemsize == 0:
            raise ArrayFileError(
                "{name} is of the type {dtype}, and no array of numbers or text", name=name, dtype=dtype
            )
        # An array without elements may still claim a length that nobody can count to.
        if prod(max(n, 1) for n in shape) * dtype.itemsize > self._left:
            raise ArrayFileError(
                "{name} claims the shape {shape} of {dtype}, too much for a file of {size} bytes",
                name=name, shape=shape, dtype=dtype, size=self._size,
            )  # fmt: skip
        claimed = prod(shape) * dtype.itemsize
        if claimed > n_bytes - stream.tell():
            raise ArrayFileError("{name} is cut off", name=name)
        self._left -= claimed


def _header(stream: IO[bytes] | BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = _READ_HEADER[version](stream)
    except Exception as error:  # its parser is Python's own, which even runs out of memory on brackets
        raise ArrayFileError("the header of an array is damaged ({kind})", kind=type(error).__name__) from error
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ArrayFileError("an array claims the shape {shape}", shape=shape)
    return shape, dtype


class _Damage:
    """What zipfile and NumPy raise on damaged files, which can be anything, becomes an `ArrayFileError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, (UserError, MemoryError)) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a damaged offset
            return
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ArrayFileError("{reason}", reason=reason) from error
