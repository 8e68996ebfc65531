# SPDX-License-Identifier: GPL-3.0-or-later
"""Official checkpoints -> model folders: FaceFormer's vocaset.pth and biwi.pth, Wav2Sem's model.pth.tar, and the
Wav2Sem part of a CodeTalker stage-2 file.

FaceFormer's linear head becomes named keys without loss: its 64 columns are rotated so that the first keys carry most
motion, and its bias is one more key that is always 1.

Shapes: M decoder width, K = M + 1 channels, V vertices, X = 3V.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import IMPORT_KINDS
from .checkpoint import BASIS_KEY, DecoderConfig, EncoderConfig, ModelConfig, Wav2SemConfig, save_model, save_wav2sem
from .nn.encoders import build_backbone
from .nn.faceformer import FaceFormer
from .nn.wav2sem import RELEASED, Wav2Sem

BERT_DIM = 768
BASE_ENCODER = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
BIAS_CHANNEL = "bias"


@dataclass(frozen=True, kw_only=True)
class _Host:
    decoder: DecoderConfig
    n_vertices: int
    topology: str
    basis_unit: str
    styles: tuple[str, ...]


_HOSTS = {
    "faceformer-vocaset": _Host(
        decoder=DecoderConfig(dim=64, ffn_dim=128),
        n_vertices=5023,
        topology="flame",
        basis_unit="m",
        styles=tuple(
            f"FaceTalk_{subject}_TA"
            for subject in (
                *("170728_03272", "170904_00128", "170725_00137", "170915_00223"),
                *("170811_03274", "170913_03279", "170904_03276", "170912_03278"),
            )
        ),
    ),
    "faceformer-biwi": _Host(
        decoder=DecoderConfig(dim=128, ffn_dim=256, period=25, fps=25, memory_per_frame=2),
        n_vertices=23370,
        topology="biwi",
        basis_unit="sqrt_area",
        styles=("F2", "F3", "F4", "M3", "M4", "M5"),
    ),
}


def import_official(file: str | os.PathLike[str], kind: str, output: str | os.PathLike[str]) -> Path:
    """Write a model folder from an official file.

    A FaceFormer becomes a whole model. A Wav2Sem is an encoder without a face: of its folder `SpeechAnimator.load`
    gives sentence vectors, and training fuses it into a face model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown kind, or a file that is truncated, no checkpoint, or another model's; the message names
            the size in bytes or the key.
    """
    path = Path(file)
    if kind not in IMPORT_KINDS:
        raise ValueError(f"kind {kind!r}: known are {', '.join(IMPORT_KINDS)}")
    state = _read(path)
    if kind in _HOSTS:
        _import_faceformer(path, state, kind, Path(output))
    else:
        _import_wav2sem(path, state, kind, Path(output))
    return Path(output)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    size = path.stat().st_size
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError and RuntimeError
        raise ValueError(
            f"{path.name}: {size} bytes that torch cannot read as weights ({type(error).__name__}); "
            "the file is truncated, not a checkpoint, or holds more than tensors. Download it again."
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path.name}: {size} bytes, but no state dict of tensors is in it")
    return {key.removeprefix("module."): value.float() for key, value in state.items()}


def _import_faceformer(path: Path, state: dict[str, Tensor], kind: str, output: Path) -> None:
    host = _HOSTS[kind]
    channels = (*(f"key_{i:02d}" for i in range(host.decoder.dim)), BIAS_CHANNEL)
    config = ModelConfig(
        name=path.stem,
        encoder=EncoderConfig(kind="wav2vec2", config=BASE_ENCODER),
        wav2sem=None,
        decoder=host.decoder,
        channels=channels,
        styles=host.styles,
        topology=host.topology,
        basis_unit=host.basis_unit,
        provenance={"imported": kind},
    )
    state.pop("PPE.pe", None)
    head = {name: _take(path, state, name) for name in ("vertice_map_r.weight", "vertice_map_r.bias")}
    feedback = {name: _take(path, state, name) for name in ("vertice_map.weight", "vertice_map.bias")}
    wanted = 3 * host.n_vertices
    if len(head["vertice_map_r.bias"]) != wanted:
        raise ValueError(
            f"{path.name}: vertice_map_r.bias has {len(head['vertice_map_r.bias'])} values, {kind} has {wanted}"
        )
    renamed = {_rename_faceformer(key): value for key, value in state.items()}
    norm = {name: _take(path, renamed, f"decoder.layer.norm3.{name}", remove=False) for name in ("weight", "bias")}
    rotated, basis_KV3 = rotate_head(head["vertice_map_r.weight"], head["vertice_map_r.bias"], norm)
    renamed |= rotated
    flat_KX = torch.from_numpy(basis_KV3.reshape(len(channels), -1))
    renamed["decoder.feedback_map.weight"] = (feedback["vertice_map.weight"].double() @ flat_KX.double().T).float()
    renamed["decoder.feedback_map.bias"] = feedback["vertice_map.bias"]
    _check(path, renamed, FaceFormer(config).state_dict())
    tensors = {key: value.numpy() for key, value in renamed.items()}
    save_model(output, config, tensors | {BASIS_KEY: basis_KV3})


def _rename_faceformer(key: str) -> str:
    key = _rename_weight_norm(key)
    key = re.sub(r"^audio_feature_map\.", "fusion.audio_feature_map.", key)
    key = re.sub(r"^transformer_decoder\.layers\.0\.", "decoder.layer.", key)
    return re.sub(r"^obj_vector\.", "decoder.style.", key)


def _rename_weight_norm(key: str) -> str:
    key = key.replace("pos_conv_embed.conv.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0")
    return key.replace("pos_conv_embed.conv.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1")


def rotate_head(weight_XM: Tensor, bias_X: Tensor, norm: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], np.ndarray]:
    """Head on vertices -> head on M rotated keys and a constant one, equal in what they say of every vertex.

    The decoder's last layer norm gives h = gain * n + shift with |n| <= sqrt(M): the rotation is found for n, whose
    components are alike, and the keys are scaled so that every weight lies in [-1, 1], inside Blender's sliders.

    Returns:
        motion_head's weight (K, M) and bias (K,) by their names in `FaceFormer`, and the basis (K, V, 3) float32.
    """
    gain, shift = norm["weight"].double().numpy(), norm["bias"].double().numpy()
    if np.abs(gain).min() < 1e-4:  # a dead unit cannot be divided by; rotate the plain columns instead
        gain, shift = np.full_like(gain, np.abs(gain).max()), np.zeros_like(shift)
    weight, bias = weight_XM.double().numpy(), bias_X.double().numpy()
    left, strength, right = np.linalg.svd(weight * gain, full_matrices=False)
    bound = np.sqrt(len(gain))
    head_KM = np.concatenate([right / gain / bound, np.zeros((1, len(gain)))])
    head_K = np.concatenate([-(right / gain) @ shift / bound, [1.0]])
    basis_KX = np.concatenate([(left * strength * bound).T, (bias + weight @ shift)[None]])
    rotated = {
        "decoder.motion_head.weight": torch.from_numpy(head_KM).float(),
        "decoder.motion_head.bias": torch.from_numpy(head_K).float(),
    }
    return rotated, basis_KX.reshape(len(basis_KX), -1, 3).astype(np.float32)


def _import_wav2sem(path: Path, state: dict[str, Tensor], kind: str, output: Path) -> None:
    fusion: dict[str, Tensor] = {}
    if kind == "codetalker-wav2sem":
        for name in ("weight", "bias"):
            value = _take(path, state, f"bert_feature_map.{name}")
            fusion[f"fusion.semantic_feature_map.{name}"] = value
        state = {key.removeprefix("Wav2Bert."): value for key, value in state.items() if key.startswith("Wav2Bert.")}
    renamed = {_rename_wav2sem(key): value for key, value in state.items()}
    config = Wav2SemConfig(config=RELEASED, target_dim=BERT_DIM)
    # The only tensor that the official file lacks: masking's embedding, unused outside pre-training.
    renamed.setdefault("encoder.masked_spec_embed", build_backbone("wav2vec2", RELEASED).masked_spec_embed.detach())
    _check(path, renamed, Wav2Sem(config.config, config.target_dim).state_dict())
    tensors = {f"wav2sem.{key}": value.numpy() for key, value in renamed.items()}
    save_wav2sem(output, config, tensors | {key: value.numpy() for key, value in fusion.items()})


def _rename_wav2sem(key: str) -> str:
    for theirs, ours in (("FeatureExtractor", "feature_extractor"), ("FeatureProjection", "feature_projection")):
        key = re.sub(rf"^{theirs}\.", f"encoder.{ours}.", key)
    return _rename_weight_norm(re.sub(r"^Encoder\.", "encoder.encoder.", key))


def _take(path: Path, state: dict[str, Tensor], key: str, remove: bool = True) -> Tensor:
    if key not in state:
        raise ValueError(f"{path.name}: key {key} is missing; it is another model's file")
    return state.pop(key) if remove else state[key]


def _check(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = sorted(set(expected) - set(state))
    unknown = sorted(set(state) - set(expected))
    if missing:
        raise ValueError(
            f"{path.name}: key {missing[0]} is missing ({len(missing)} in all); it is another model's file"
        )
    if unknown:
        raise ValueError(f"{path.name}: unknown key {unknown[0]} ({len(unknown)} in all); it is another model's file")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"{path.name}: {key} has shape {tuple(value.shape)}, {tuple(expected[key].shape)} is expected"
            )
