# SPDX-License-Identifier: GPL-3.0-or-later
"""Data are read back equal; any other name or claim in a pickle is refused by name and never run."""

from __future__ import annotations

import functools
import os
import pickle
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.miniature_faces import write_python2_pickle
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.restricted_pickle import load


class _Call:
    """Pickles as `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self._reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self._reduced


def _write(path: Path, content: bytes | Any) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


ARRAYS = {
    "float32": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "big-endian": np.arange(6, dtype=">i2").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "int16 audio": np.array([-32768, 0, 32767], np.int16),
    "empty": np.zeros((0, 3)),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "no axes": np.array(2.5),
    "bool": np.array([True, False]),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_every_protocol_come_back_equal(name: str, protocol: int, tmp_path: Path) -> None:
    array = ARRAYS[name]
    value = load(_write(tmp_path / "a.pkl", pickle.dumps({"x": [array, array]}, protocol)))
    assert value["x"][0].dtype == array.dtype
    np.testing.assert_array_equal(value["x"][0], array)
    assert value["x"][1] is value["x"][0]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_containers_and_scalars_come_back_equal(protocol: int, tmp_path: Path) -> None:
    value = {
        "tuple": (1, 2.5, None, True, 3 + 4j, 1 << 70),
        "sets": [{1, 2}, frozenset("ab")],
        "bytes": [b"", b"\x00\xff", bytearray(b"xy")],
        "numpy": [np.float32(0.1), np.int64(-3)],
        "nested": {"a": {"b": [[], {}, ()]}},
    }
    assert load(_write(tmp_path / "a.pkl", pickle.dumps(value, protocol))) == value


def test_python_2_pickles_are_read_as_latin_1(tmp_path: Path) -> None:
    audio = np.arange(-128, 128, dtype=np.int16)
    write_python2_pickle(tmp_path / "a.pkl", {"FaceTalk": {"sentence01": {"audio": audio, "sample_rate": 22_000}}})
    content = (tmp_path / "a.pkl").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct" in content and b"T\x00\x02\x00\x00" in content  # a byte string
    recorded = load(tmp_path / "a.pkl")["FaceTalk"]["sentence01"]
    np.testing.assert_array_equal(recorded["audio"], audio)
    assert recorded["sample_rate"] == 22_000
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1")["FaceTalk"]["sentence01"]["audio"], audio)


def test_numpy_2_names_are_read(tmp_path: Path) -> None:
    array = np.arange(4.0)
    written = pickle.dumps(array, 2).replace(b"numpy._core.", b"numpy.core.")
    renamed = written.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    assert renamed != written
    np.testing.assert_array_equal(load(_write(tmp_path / "a.pkl", renamed)), array)


def test_arrays_cannot_be_changed(tmp_path: Path) -> None:
    array = load(_write(tmp_path / "a.pkl", np.zeros(3)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


MALICIOUS = {
    "system": (_Call(os.system, "touch ran"), f"{os.name}.system"),
    "eval": (_Call(eval, "open('ran', 'w')"), "__builtin__.eval"),
    "getattr": (_Call(getattr, "x", "upper"), "__builtin__.getattr"),
    "open": (_Call(open, "ran", "w"), "(_?io|__builtin__).open"),
    "partial": (_Call(functools.partial, print), "functools.partial"),
    "path": (Path("x"), "pathlib"),
    "numpy.load": (_Call(np.load, "ran"), r"numpy.*\.load"),
    "numpy.fromfile": (_Call(np.fromfile, "ran"), r"numpy.*fromfile"),
    "numpy.memmap": (_Call(np.memmap, "ran", "u1", "w+", 0, (1,)), r"numpy.*memmap"),
    "object array": (np.array([_Call(os.system, "touch ran"), 1], object), f"{os.name}.system|dtype O|objects"),
    "plain object array": (np.array([None, {}], object), "dtype O"),
    "structured array": (np.zeros(2, [("a", "f4")]), "dtype V"),
    "dates": (np.zeros(2, "M8[s]"), "dtype M"),
    "array class": (np.ma.masked_array([1, 2]), "numpy.ma"),
    "own class": (_Call(list), "__builtin__.list"),
    "the class itself": (np.ndarray, "callable"),
    "array called": (_Call(np.ndarray, (10**9,)), "called by itself"),
    "huge bytearray": (_Call(bytearray, 10**12), "no readable pickle"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_everything_else_is_refused_by_name_and_not_run(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    value, named = MALICIOUS[name]
    path = _write(tmp_path / "templates.pkl", pickle.dumps(value, 2))
    with pytest.raises(ValueError, match=rf"templates\.pkl: (refused: )?.*({named})"):
        load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["templates.pkl"]


HAND_WRITTEN = {
    "text protocol": (b"cos\nsystem\n(S'touch ran'\ntR.", "refused: os.system"),
    "instance opcode": (b"(S'touch ran'\nios\nsystem\n.", "refused: os.system"),
    "dotted name": (b"\x80\x04\x8c\x08builtins\x8c\x0cset.__init__\x93.", "refused: builtins.set.__init__"),
    "numpy's attribute": (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", "refused: numpy.ndarray.dump"),
    "copyreg": (b"ccopy_reg\n_reconstructor\n.", "refused: copy_reg._reconstructor"),
    "import by name": (b"cantigravity\nx\n.", "refused: antigravity.x"),
    "persistent id": (b"Pabc\n.", "no readable pickle"),
    "changed callable": (b"cnumpy\ndtype\n}(U\x05_callK\x01ub.", "refused: a change"),
    "changed callable's slots": (b"cnumpy\ndtype\nN}(U\x05_callK\x01u\x86b.", "refused: a change"),
    "new object of a callable": (b"\x80\x02cbuiltins\nset\n)\x81.", "no readable pickle"),
    "array of a callable's class": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00U\x01btR.",
        "another class",
    ),
    "array without content": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00U\x01btR.",
        "without content",
    ),
    "codec": (b"c_codecs\nencode\n(U\x01aU\x05utf-7tR.", "refused: _codecs.encode to utf-7"),
    "a list that holds itself": (b"]q\x00h\x00a.", "RecursionError"),
    "no pickle": (b"PK\x03\x04 a zip", "no readable pickle|ends after"),
    "nothing": (b"", "0 bytes"),
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_hand_written_pickles_are_refused(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, said = HAND_WRITTEN[name]
    with pytest.raises(ValueError, match=said):
        load(_write(tmp_path / "templates.pkl", content))
    assert [file.name for file in tmp_path.iterdir()] == ["templates.pkl"]


def _huge(n: int) -> bytes:
    return struct.pack("<Q", n)


CLAIMS = {
    "bytes": b"\x80\x04\x8e" + _huge(1 << 45) + b"x.",
    "text": b"\x80\x04\x8d" + _huge(1 << 45) + b"x.",
    "bytearray": b"\x80\x05\x96" + _huge(1 << 60) + b"x.",
    "frame": b"\x80\x04\x95" + _huge(1 << 45) + b"N.",
    "memo": b"]r\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claimed_lengths_take_no_memory(name: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.pkl", CLAIMS[name])
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name == "memo":
        assert load(path) == []
    else:
        with pytest.raises(ValueError, match="bytes"):
            load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def _laughs(opcode: bytes, hashed: bytes) -> bytes:
    """Nested containers, each twice in the next, of which the last is hashed: a few bytes that take forever."""
    return b"\x80\x04}" + hashed.replace(b"LAUGHS", b")" + (b"2" + opcode) * 60)


LAUGHS = {
    "tuples as a key": (_laughs(b"\x86", b"LAUGHSK\x01s."), "refused: a key that is a tuple or a set"),
    "tuples in a set": (_laughs(b"\x86", b"\x8f(LAUGHS\x90s."), "refused: a key that is a tuple or a set"),
    "tuples in a set that is called": (
        _laughs(b"\x86", b"c__builtin__\nset\n](LAUGHSe\x85Rs."),
        "refused: a key that is a tuple or a set",
    ),
    "frozen sets": (_laughs(b"\x86", b"(LAUGHS\x91K\x01s."), "refused: a key that is a tuple or a set"),
    "a deep tuple": (b"\x80\x04})" + b"\x85" * 1_000_000 + b"K\x01s.", "refused: a key that is a tuple or a set"),
    "a deep list": (b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".", "RecursionError"),
}


@pytest.mark.parametrize("name", LAUGHS)
def test_nested_containers_cost_no_time(name: str, tmp_path: Path) -> None:
    content, said = LAUGHS[name]
    started = time.perf_counter()
    with pytest.raises(UserError, match=rf"a\.pkl: .*{said}"):
        load(_write(tmp_path / "a.pkl", content))
    assert time.perf_counter() - started < 10


def test_tuples_are_tuples_again(tmp_path: Path) -> None:
    loaded = load(_write(tmp_path / "a.pkl", [(), (1, (2,)), [(3, 4)], frozenset([5])]))
    assert loaded == [(), (1, (2,)), [(3, 4)], frozenset([5])]
    assert [type(value) for value in loaded] == [tuple, tuple, list, frozenset]


def test_shared_references_do_not_multiply(tmp_path: Path) -> None:
    value: list = [1]
    for _ in range(60):
        value = [value, value]
    loaded = load(_write(tmp_path / "a.pkl", value))
    assert loaded[0] is loaded[1]


@pytest.mark.parametrize(
    ("shape", "raw"), [((3,), b"\0" * 8), ((1 << 40,), b"\0" * 8), ((-1,), b"\0" * 8), (("a",), b"")]
)
def test_an_array_has_as_many_bytes_as_its_shape_says(shape: tuple, raw: bytes, tmp_path: Path) -> None:
    np_reconstruct = np.zeros(1).__reduce__()[0]
    state = (1, shape, np.dtype("f8"), False, raw)
    call = _Call(np_reconstruct, np.ndarray, (0,), b"b", state=state)
    with pytest.raises(ValueError, match=r"a\.pkl: .*array"):
        load(_write(tmp_path / "a.pkl", pickle.dumps(call, 2)))


def test_a_file_cut_off_anywhere_says_its_size(tmp_path: Path) -> None:
    whole = pickle.dumps({"FaceTalk": np.arange(100.0), "more": [1, "two"]}, 2)
    for size in range(1, len(whole), 7):
        with pytest.raises(ValueError, match=rf"a\.pkl: .*\b{size} bytes"):
            load(_write(tmp_path / "a.pkl", whole[:size]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="templates.pkl"):
        load(tmp_path / "templates.pkl")
