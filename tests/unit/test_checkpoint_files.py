# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in a checkpoint's place, and checkpoints that were saved otherwise: imported, or refused with what helps."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wav2sem_blender.errors import UserError, user_text
from wav2sem_blender.pipeline import checkpoint, restricted_pickle
from wav2sem_blender.pipeline.stand_ins import stand_in

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 424242424\n"
IN_PLACE = {
    "LFS pointer": (LFS, "Git LFS pointer, not the file itself; run git lfs pull"),
    "annex pointer": (b"/annex/objects/MD5E-s1--0.pth\n", "git annex get"),
    "annex path": (b"../../.git/annex/objects/xx/yy/MD5E-s1--0", "git annex get"),
    "page": (b"<!DOCTYPE html><title>Quota exceeded</title>", "is a web page"),
    "page after blanks": (b"\xef\xbb\xbf\r\n  <HTML lang=en>", "is a web page"),
    "page in UTF-16": ("\ufeff<html>".encode("utf-16-le"), "is a web page"),
    "answer of a store": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
    "nothing": (b"", "is empty (0 bytes)"),
}


@pytest.fixture(params=IN_PLACE)
def in_place(request: pytest.FixtureRequest) -> tuple[bytes, str]:
    return IN_PLACE[request.param]


def refused(task: Any) -> str:
    with pytest.raises(UserError) as caught:
        task()
    return str(caught.value)


def check(said: str, wanted: str) -> None:
    """It says what lies there, and never that it should be downloaded again unless that helps."""
    assert wanted in said
    assert ("download it again" in said.lower()) == ("0 bytes" in wanted)


def test_a_checkpoint(in_place: tuple[bytes, str], tmp_path: Path) -> None:
    published = pytest.importorskip("wav2sem_blender.pipeline.official.published")
    for name in ("x.pth", "x.npz", "x.safetensors", "x.ckpt"):
        (tmp_path / name).write_bytes(in_place[0])
        said = refused(lambda name=name: published.read_file(tmp_path / name))
        check(said, in_place[1])
        assert said.startswith(name)


def test_a_pickle(in_place: tuple[bytes, str], tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(in_place[0])
    check(refused(lambda: restricted_pickle.load(tmp_path / "x.pkl")), in_place[1])


def test_a_sound(in_place: tuple[bytes, str], tmp_path: Path) -> None:
    audio = pytest.importorskip("wav2sem_blender.pipeline.audio")
    (tmp_path / "x.wav").write_bytes(in_place[0])
    said = refused(lambda: audio.Speech.from_file(tmp_path / "x.wav"))
    assert in_place[1] in said or "the file is empty (0 bytes)" in said


@pytest.mark.parametrize("name", [checkpoint.CONFIG_FILE, checkpoint.WEIGHTS_FILE, checkpoint.ENCODER_ONNX])
def test_a_file_of_a_model_folder(name: str, in_place: tuple[bytes, str], tmp_path: Path) -> None:
    """A repository that was cloned without its large files has these in a model's folder."""
    from wav2sem_blender.assets import DEFAULT_MODEL

    for file in DEFAULT_MODEL.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(in_place[0])
    said = refused(lambda: checkpoint.open_folder(tmp_path))
    assert in_place[1] in said and said.startswith(name)


def test_files_that_are_themselves_are_nothing_else(tmp_path: Path) -> None:
    for number, content in enumerate((b"PK\x03\x04", b"\x80\x02}", b"RIFF", b"{}", b"\x89HDF", b"version https://a.b")):
        (tmp_path / str(number)).write_bytes(content)
        assert stand_in(tmp_path / str(number)) is None
    assert stand_in(tmp_path / "missing") is None and stand_in(tmp_path) is None


# Checkpoints -------------------------------------------------------------------------------------------------------


def state() -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    return {"encoder.weight": torch.ones(3, 2), "encoder.bias": torch.zeros(3), "decoder.weight": torch.ones(2, 2)}


def saved(content: Any, path: Path) -> Path:
    import torch

    torch.save(content, path)
    return path


def read(path: Path) -> dict[str, Any]:
    from wav2sem_blender.pipeline.official.published import read_file

    return read_file(path)


WRAPPED = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [1]}},
    "beside a Namespace": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=1e-4)},
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "compiled, then parallel": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "parallel, then compiled": lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    "a part compiled": lambda state: {key.replace(".", "._orig_mod."): value for key, value in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrappers_are_taken_off(wrap: str, tmp_path: Path) -> None:
    wanted = state()
    found = read(saved(WRAPPED[wrap](wanted), tmp_path / "x.pth"))
    assert sorted(found) == sorted(wanted) and all(found[key].equal(wanted[key]) for key in wanted)


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    wanted = state()
    from safetensors.torch import save_file

    save_file(wanted, tmp_path / "x.safetensors")
    assert sorted(read(tmp_path / "x.safetensors")) == sorted(wanted)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["encoder.weight", "decoder.weight"])
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_weight_that_is_no_number_is_named(value: float, key: str, precision: str, tmp_path: Path) -> None:
    import torch

    bad = {name: tensor.to(getattr(torch, precision)) for name, tensor in state().items()}
    bad[key][1, 1] = value
    said = refused(lambda: read(saved({"state_dict": bad}, tmp_path / "x.pth")))
    assert key in said and "NaN or infinity" in said and "ownload" not in said


def test_a_mask_may_be_minus_infinity(tmp_path: Path) -> None:
    import torch

    whole = {**state(), "decoder.attn_mask": torch.full((2, 2), -float("inf"))}
    assert "decoder.attn_mask" in read(saved(whole, tmp_path / "x.pth"))


class _Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def test_what_is_no_state_dict_is_named_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    remedy = "torch.save(model.state_dict(), FILE)"
    cases: dict[str, tuple[Any, str]] = {
        "keys": ({"net": {"a": 1}, "epoch": 3}, "'net', 'epoch'"),
        "a list": ([1, 2], "it holds a list"),
        "one tensor": (torch.ones(3), "it holds a Tensor"),
        "a whole model": (torch.nn.Linear(2, 2), "program objects"),
        "code": (_Program(), "program objects"),
        "an item": ({"state_dict": {**state(), "step": 7}}, "step is no tensor with values, but a int"),
        "nothing": ({}, "its keys are none"),
    }
    for name, (content, wanted) in cases.items():
        said = refused(lambda content=content: read(saved(content, tmp_path / "x.pth")))
        assert wanted in said and remedy in said and "ownload" not in said, name
    assert "code ran" not in capsys.readouterr().out
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "scripted.pt")
    said = refused(lambda: read(tmp_path / "scripted.pt"))
    assert "TorchScript" in said and remedy in said


def test_a_file_whose_end_is_missing_is_to_be_downloaded_again(tmp_path: Path) -> None:
    path = saved(state(), tmp_path / "x.pth")
    whole = path.read_bytes()
    for size in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        said = refused(lambda: read(path))
        assert f"{size} bytes, and its end is missing; copy or download it again" in said


def test_random_bytes_are_refused_without_a_useless_remedy(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for size in (1, 10, 1000, 100_000):
        (tmp_path / "x.pth").write_bytes(chance.bytes(size))
        said = refused(lambda: read(tmp_path / "x.pth"))
        assert "cannot read as weights" in said and "ownload" not in said


def test_packed_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(80 << 20))
    said = refused(lambda: read(tmp_path / "x.pth"))
    assert "claim to be more than they can hold" in said


def test_a_damaged_model_that_is_itself_is_called_damaged(tmp_path: Path) -> None:
    from wav2sem_blender.assets import DEFAULT_MODEL

    for file in DEFAULT_MODEL.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / checkpoint.WEIGHTS_FILE).unlink()
    (tmp_path / checkpoint.WEIGHTS_FILE).write_bytes(b"\0" * 100)
    assert "its sha256 differs" in refused(lambda: checkpoint.open_folder(tmp_path))
    config = json.loads((DEFAULT_MODEL / checkpoint.CONFIG_FILE).read_text())
    assert checkpoint.WEIGHTS_FILE in config["files"]


def test_memory_that_runs_out_is_not_the_file_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    path = saved(state(), tmp_path / "x.pth")

    def load(*_arguments: Any, **_named: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError) as caught:
        read(path)
    assert "not enough memory" in str(user_text(caught.value))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_folder_with_a_weight_that_is_no_number(value: float, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    (tmp_path / checkpoint.WEIGHTS_FILE).write_bytes(
        safetensors.save({"decoder.a": np.array([1, value], np.float16), "decoder.mask": np.array([-np.inf], "f4")})
    )
    folder = checkpoint._Folder(path=tmp_path, weights_sha256="", files=frozenset())
    assert "decoder.a holds NaN or infinity" in refused(lambda: folder.tensors("decoder."))
    assert list(folder.tensors("decoder.mask")) == [""]


def test_an_archive_that_claims_to_span_disks_is_damaged_and_no_bug(tmp_path: Path) -> None:
    """Found by the fuzzer: Python's own test for archives raises on it."""
    from wav2sem_blender.pipeline.motion import Motion, is_motion_file

    disks = b"PK\x06\x07" + (1).to_bytes(4, "little") + bytes(8) + (9).to_bytes(4, "little")
    content = b"PK\x03\x04" + bytes(60) + disks + b"PK\x05\x06" + bytes(18)
    (tmp_path / "x.npz").write_bytes(content)
    assert not is_motion_file(tmp_path / "x.npz")
    assert "damaged, or no motion file" in refused(lambda: Motion.load(tmp_path / "x.npz"))
    (tmp_path / "x.pth").write_bytes(content)
    pytest.importorskip("torch")
    assert "cannot read as weights" in refused(lambda: read(tmp_path / "x.pth"))
