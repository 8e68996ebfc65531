# SPDX-License-Identifier: GPL-3.0-or-later
"""Official checkpoints -> model folders: FaceFormer's vocaset.pth and biwi.pth, Wav2Sem's model.pth.tar, and the
Wav2Sem part of a CodeTalker stage-2 file. And back: a model trained here in the format of the released files.

FaceFormer's linear head becomes named keys without loss: its 64 columns are rotated so that the first keys carry most
motion, and its bias is one more key that is always 1.

Shapes: M decoder width, K = M + 1 channels, V vertices, X = 3V.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import MissingFileError, UserError
from . import IMPORT_KINDS
from .checkpoint import (
    BASIS_KEY,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    ModelFolder,
    Wav2SemConfig,
    check_replaceable,
    save_model,
    save_wav2sem,
)
from .decoder import periodic_positions
from .nn.encoders import KINDS, build_backbone
from .nn.faceformer import FaceFormer
from .nn.wav2sem import RELEASED, Wav2Sem

AUTO = "auto"
BERT_DIM = 768
BASE_ENCODER = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
BIAS_CHANNEL = "bias"
PUBLISHED_FRAMES = 600
Names = tuple[tuple[str, str], ...]
_FACEFORMER_NAMES = (
    ("audio_feature_map.", "fusion.audio_feature_map."),
    ("transformer_decoder.layers.0.", "decoder.layer."),
    ("obj_vector.", "decoder.style."),
    ("vertice_map_r.", "decoder.motion_head."),
    ("vertice_map.", "decoder.feedback_map."),
)
_WAV2SEM_NAMES = (
    ("FeatureExtractor.", "encoder.feature_extractor."),
    ("FeatureProjection.", "encoder.feature_projection."),
    ("Encoder.", "encoder.encoder."),
)
_WEIGHT_NORM_NAMES = (
    ("pos_conv_embed.conv.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"),
    ("pos_conv_embed.conv.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"),
)
_ARCHITECTURE = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("conv_dim", "conv_kernel", "conv_stride", "conv_bias", "feat_extract_norm", "do_stable_layer_norm"),
    *("num_conv_pos_embeddings", "num_conv_pos_embedding_groups"),
)


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
    gives sentence vectors, and training fuses it into a face model. Kind "auto" tells them apart by their keys.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown kind, or a file that is truncated, no checkpoint, or another model's; the message names
            the size in bytes or the key.
        UserError: `output` holds something that is no model of ours.
    """
    path = Path(file)
    if kind not in (AUTO, *IMPORT_KINDS):
        raise UserError("kind {kind!r}: known are {names}", kind=kind, names=", ".join((AUTO, *IMPORT_KINDS)))
    check_replaceable(Path(output))
    state = _read(path)
    if kind == AUTO:
        kind = _kind_of(path, state)
    if kind in _HOSTS:
        _import_faceformer(path, state, kind, Path(output))
    else:
        _import_wav2sem(path, state, kind, Path(output))
    return Path(output)


def _kind_of(path: Path, state: Mapping[str, Tensor]) -> str:
    for prefix, kind in (("Wav2Bert.", "codetalker-wav2sem"), ("FeatureExtractor.", "wav2sem")):
        if any(key.startswith(prefix) for key in state):
            return kind
    n_values = len(state["vertice_map_r.weight"]) if "vertice_map_r.weight" in state else 0
    for kind, host in _HOSTS.items():
        if n_values == 3 * host.n_vertices:
            return kind
    raise UserError(
        "{path}: its keys are of none of the known checkpoints: {import_kinds}",
        path=path.name,
        import_kinds=", ".join(IMPORT_KINDS),
    )


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError("{path}: no such file", path=path)
    size = path.stat().st_size
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError and RuntimeError
        raise UserError(
            "{path}: {size} bytes that torch cannot read as weights ({name}); the file is truncated, not a "
            "checkpoint, or holds more than tensors. Download it again.",
            path=path.name,
            size=size,
            name=type(error).__name__,
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError("{path}: {size} bytes, but no state dict of tensors is in it", path=path.name, size=size)
    return {key.removeprefix("module."): value.float() for key, value in state.items()}


def _import_faceformer(path: Path, state: dict[str, Tensor], kind: str, output: Path) -> None:
    host = _HOSTS[kind]
    config = ModelConfig(
        name=path.stem,
        encoder=EncoderConfig(kind="wav2vec2", config=BASE_ENCODER),
        wav2sem=None,
        decoder=host.decoder,
        channels=key_channels(host.decoder.dim),
        styles=host.styles,
        topology=host.topology,
        basis_unit=host.basis_unit,
        provenance={"imported": kind},
    )
    state.pop("PPE.pe", None)
    n_values = len(_take(path, state, "vertice_map_r.weight"))
    if n_values != 3 * host.n_vertices:
        raise UserError(
            "{path}: vertice_map_r.weight has {n_values} rows, {kind} has {n_vertices}",
            path=path.name,
            n_values=n_values,
            kind=kind,
            n_vertices=3 * host.n_vertices,
        )
    renamed = {_renamed(key, _FACEFORMER_NAMES): value for key, value in state.items()}
    _check(path, renamed, FaceFormer(config, 3 * host.n_vertices).state_dict())
    on_keys, basis_KV3 = vertices_to_keys(renamed)
    tensors = {key: value.numpy() for key, value in on_keys.items()}
    save_model(output, config, tensors | {BASIS_KEY: basis_KV3})


def key_channels(width: int) -> tuple[str, ...]:
    """The channels that `vertices_to_keys` makes of a decoder of this width."""
    return (*(f"key_{i:02d}" for i in range(width)), BIAS_CHANNEL)


def vertices_to_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], np.ndarray]:
    """A model whose head predicts vertices -> the same motion on named keys, with the fold of its feedback kept.

    Args:
        state: state dict of `FaceFormer` with 3V outputs.

    Returns:
        state dict of `FaceFormer` with the channels of `key_channels`, and the basis (K, V, 3) float32.
    """
    head, norm = "decoder.motion_head", "decoder.layer.norm3"
    rotated, basis_KV3 = rotate_head(
        state[f"{head}.weight"], state[f"{head}.bias"], {name: state[f"{norm}.{name}"] for name in ("weight", "bias")}
    )
    flat_KX = torch.from_numpy(basis_KV3.reshape(len(basis_KV3), -1)).double()
    feedback_MX = state["decoder.feedback_map.weight"].double()
    rotated["decoder.feedback_map.weight"] = (feedback_MX @ flat_KX.T).float()
    return dict(state) | rotated, basis_KV3


def keys_to_vertices(state: Mapping[str, Tensor], basis_KV3: np.ndarray) -> dict[str, Tensor]:
    """The reverse of `vertices_to_keys`, for any basis: a head that predicts 3V values with the same motion.

    The feedback is found on the motions that the basis can make (least squares); no other motion is ever fed back.
    """
    basis_XK = torch.from_numpy(basis_KV3.reshape(len(basis_KV3), -1).T).double()
    head, feedback = "decoder.motion_head", "decoder.feedback_map.weight"
    on_vertices = {
        f"{head}.weight": (basis_XK @ state[f"{head}.weight"].double()).float(),
        f"{head}.bias": (basis_XK @ state[f"{head}.bias"].double()).float(),
        feedback: (state[feedback].double() @ torch.linalg.pinv(basis_XK, rtol=1e-6)).float(),
    }
    return dict(state) | on_vertices


def _renamed(key: str, names: Names, *, back: bool = False) -> str:
    """An official key as ours, or with `back` ours as the official one."""
    prefixes, parts = ([pair[::-1] for pair in some] if back else some for some in (names, _WEIGHT_NORM_NAMES))
    for old, new in prefixes:
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    for old, new in parts:
        key = key.replace(old, new)
    return key


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
    renamed = {_renamed(key, _WAV2SEM_NAMES): value for key, value in state.items()}
    config = Wav2SemConfig(config=RELEASED, target_dim=BERT_DIM)
    # The only tensor that the official file lacks: masking's embedding, unused outside pre-training.
    renamed.setdefault("encoder.masked_spec_embed", build_backbone("wav2vec2", RELEASED).masked_spec_embed.detach())
    _check(path, renamed, Wav2Sem(config.config, config.target_dim).state_dict())
    tensors = {f"wav2sem.{key}": value.numpy() for key, value in renamed.items()}
    save_wav2sem(output, config, tensors | {key: value.numpy() for key, value in fusion.items()})


def export_faceformer(model: ModelFolder, file: Path) -> None:
    """Write a model as FaceFormer's own code reads it: a bare state dict with the released names and shapes.

    Raises:
        ValueError: that format has no place for the model: it has a Wav2Sem, no basis, or another architecture.
    """
    config, basis_KV3 = model.config, model.basis()
    if config.wav2sem is not None or basis_KV3 is None:
        raise UserError(
            "{config}: FaceFormer's format has a vertex head and no Wav2Sem; this model has not",
            config=config.name,
        )
    _require_base(config.name, config.encoder.config, BASE_ENCODER)
    state = {key: torch.from_numpy(value) for key, value in model.tensors().items() if key != BASIS_KEY}
    period, width = config.decoder.period, config.decoder.dim
    positions_pM = torch.from_numpy(periodic_positions(period, width))
    official = {
        _renamed(key, _FACEFORMER_NAMES, back=True): value for key, value in keys_to_vertices(state, basis_KV3).items()
    }
    torch.save(official | {"PPE.pe": positions_pM.repeat(PUBLISHED_FRAMES // period + 1, 1)[None]}, file)


def export_wav2sem(config: Wav2SemConfig, state: Mapping[str, Tensor], file: Path) -> None:
    """Write a Wav2Sem (its state dict) as its released code reads it.

    Raises:
        ValueError: it has another architecture than the released one.
    """
    _require_base("this Wav2Sem", config.config, RELEASED)
    kept = {key: value for key, value in state.items() if not key.endswith("masked_spec_embed")}
    torch.save({"state_dict": {_renamed(key, _WAV2SEM_NAMES, back=True): value for key, value in kept.items()}}, file)


def _require_base(name: str, config: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Head counts and norm orders leave no trace in the shapes: compare what the configs mean, defaults included."""
    found, wanted = (KINDS["wav2vec2"][0](**some).to_dict() for some in (config, base))
    for key in _ARCHITECTURE:
        if found[key] != wanted[key]:
            raise UserError(
                "{name}: its encoder has {key} = {found}; the official format has {wanted}",
                name=name,
                key=key,
                found=found[key],
                wanted=wanted[key],
            )


def _take(path: Path, state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise UserError("{path}: key {key} is missing; it is another model's file", path=path.name, key=key)
    return state[key]


def _check(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = sorted(set(expected) - set(state))
    unknown = sorted(set(state) - set(expected))
    if missing:
        raise UserError(
            "{path}: key {missing} is missing ({n_missing} in all); it is another model's file",
            path=path.name,
            missing=missing[0],
            n_missing=len(missing),
        )
    if unknown:
        raise UserError(
            "{path}: unknown key {unknown} ({n_unknown} in all); it is another model's file",
            path=path.name,
            unknown=unknown[0],
            n_unknown=len(unknown),
        )
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise UserError(
                "{path}: {key} has shape {value_shape}, {shape} is expected",
                path=path.name,
                key=key,
                value_shape=tuple(value.shape),
                shape=tuple(expected[key].shape),
            )
