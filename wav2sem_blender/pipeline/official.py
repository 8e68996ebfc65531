# SPDX-License-Identifier: GPL-3.0-or-later
"""Published checkpoints (`checkpoint_kinds.py`) become model folders, and models become files in the published format.

A host's linear head on vertices becomes named keys without loss: its columns are rotated so that the first keys carry
most of the motion, and its bias is one more key that is always 1.

Shapes: M decoder width, K = M + 1 channels, V vertices, X = 3V.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import MissingFileError, Text, UserError
from .checkpoint import (
    BASIS_KEY,
    EncoderConfig,
    ModelConfig,
    ModelFolder,
    Wav2SemConfig,
    check_replaceable,
    save_model,
    save_wav2sem,
)
from .checkpoint_kinds import AUTO, CHECKPOINT_KINDS, KIND_NAMES
from .hosts import faceformer, host_module
from .hosts.protocol import Release
from .nn.encoders import KINDS
from .nn.face_model import FaceModel
from .nn.wav2sem import RELEASED, Wav2Sem

BERT_DIM = 768
BASE_ENCODER = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
BIAS_CHANNEL = "bias"
PUBLISHED_FRAMES = 600
# Root mean square of the change of the vertices' motion, against the same weights in float32.
ROUNDING_PERCENT = {torch.float16: 0.13, torch.bfloat16: 1.0}
Names = tuple[tuple[str, str], ...]
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


def import_official(
    file: str | os.PathLike[str], kind: str, output: str | os.PathLike[str], notes: list[Text] | None = None
) -> Path:
    """Write a model folder from a published file.

    A host becomes a whole model. A Wav2Sem is an encoder without a face: `SpeechAnimator.load` on its folder gives
    sentence vectors, and training fuses it into a face model. Kind "auto" recognises the file by its keys. Weights in
    half precision are computed in float32 from then on, and `notes` gets a sentence about it.

    Raises:
        MissingFileError: There is no such file.
        UserError: The kind is unknown; the file is truncated, no checkpoint, or another model's (the message names its
            size or the key); or `output` holds anything but a model of ours.
    """
    path = Path(file)
    if kind not in (AUTO, *KIND_NAMES):
        raise UserError("kind {kind!r}: known are {known}", kind=kind, known=", ".join((AUTO, *KIND_NAMES)))
    check_replaceable(Path(output))
    stored = _read(path)
    if notes is not None:
        notes += _precision_notes(path, stored)
    state = {key: value.float() for key, value in stored.items()}
    if kind == AUTO:
        kind = _kind_of(path, state)
    host = _host_of(kind)
    if host is not None:
        _import_host(path, state, kind, host, Path(output))
    else:
        _import_wav2sem(path, state, kind, Path(output))
    return Path(output)


def _host_of(kind: str) -> ModuleType | None:
    """The module of the kind's host; None for a Wav2Sem."""
    name = next(known.host for known in CHECKPOINT_KINDS if known.name == kind)
    return host_module(name) if name else None


def _kind_of(path: Path, state: Mapping[str, Tensor]) -> str:
    for prefix, kind in (("Wav2Bert.", "codetalker-wav2sem"), ("FeatureExtractor.", "wav2sem")):
        if any(key.startswith(prefix) for key in state):
            return kind
    for kind in KIND_NAMES:
        host = _host_of(kind)
        if host and len(state.get(host.HEAD_KEY, ())) == 3 * host.RELEASES[kind].n_vertices:
            return kind
    raise UserError("{file}: its keys fit no known checkpoint: {known}", file=path.name, known=", ".join(KIND_NAMES))


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError("{file}: no such file", file=path)
    size = path.stat().st_size
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError and RuntimeError
        raise UserError(
            "{file}: {size} bytes that torch cannot read as weights ({error}); the file is truncated, not a "
            "checkpoint, or holds more than tensors. Download it again.",
            file=path.name,
            size=size,
            error=type(error).__name__,
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError("{file}: {size} bytes without a state dict of tensors", file=path.name, size=size)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _precision_notes(path: Path, state: Mapping[str, Tensor]) -> list[Text]:
    """What the rounding of the file's weights changes, measured on a FaceFormer of random weights."""
    found = {value.dtype for value in state.values()}
    return [
        Text(
            "{file}: its weights are in half precision ({precision}). They are computed in float32 from now on; their "
            "rounding changes the motion by about {percent:g} %.",
            file=path.name,
            precision=str(precision).removeprefix("torch."),
            percent=percent,
        )
        for precision, percent in ROUNDING_PERCENT.items()
        if precision in found
    ]


def _import_host(path: Path, state: dict[str, Tensor], kind: str, host: ModuleType, output: Path) -> None:
    release: Release = host.RELEASES[kind]
    head = _take(path, state, host.HEAD_KEY)
    if len(head) != 3 * release.n_vertices:
        raise UserError(
            "{file}: {key} has {n_rows} rows, {kind} has {n_expected}",
            file=path.name,
            key=host.HEAD_KEY,
            n_rows=len(head),
            kind=kind,
            n_expected=3 * release.n_vertices,
        )
    config = ModelConfig(
        name=path.stem,
        encoder=EncoderConfig(kind="wav2vec2", config=BASE_ENCODER),
        wav2sem=None,
        host=release.host,
        channels=key_channels(head.shape[1]),
        styles=release.styles,
        topology=release.topology,
        basis_unit=release.basis_unit,
        provenance={"imported": kind},
    )
    weights = {key: value for key, value in state.items() if key not in host.IGNORED_KEYS}
    renamed = {_renamed(key, host.OFFICIAL_NAMES): value for key, value in weights.items()}
    _check(path, renamed, FaceModel(config, 3 * release.n_vertices).state_dict())
    on_keys, basis_KV3 = vertices_to_keys(renamed)
    tensors = {key: value.numpy() for key, value in on_keys.items()}
    save_model(output, config, tensors | {BASIS_KEY: basis_KV3})


def key_channels(width: int) -> tuple[str, ...]:
    """The channels that `vertices_to_keys` makes from a decoder of this width."""
    return (*(f"key_{i:02d}" for i in range(width)), BIAS_CHANNEL)


def vertices_to_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], np.ndarray]:
    """Turn a model whose head predicts vertices into one on named keys, with the same motion and feedback.

    Args:
        state: State dict of a `FaceModel` with 3V outputs.

    Returns:
        The state dict of a `FaceModel` with the channels of `key_channels`, and the basis (K, V, 3) float32.
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

    The feedback is solved (least squares) on the motions that the basis can make; no other motion is fed back.
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
    """Our name of an official key, or with `back` the official name of ours."""
    prefixes, parts = ([pair[::-1] for pair in some] if back else some for some in (names, _WEIGHT_NORM_NAMES))
    for old, new in prefixes:
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    for old, new in parts:
        key = key.replace(old, new)
    return key


def rotate_head(weight_XM: Tensor, bias_X: Tensor, norm: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], np.ndarray]:
    """Turn a head on vertices into one on M rotated keys and a constant key, which give the same vertices.

    The decoder's last layer norm gives h = gain * n + shift with |n| <= sqrt(M). The rotation is solved for n, whose
    components have the same scale, and the keys are scaled so that every weight lies in [-1, 1], as Blender's sliders.

    Returns:
        The weight (K, M) and bias (K,) of motion_head by their names in `FaceModel`, and the basis (K, V, 3) float32.
    """
    gain, shift = norm["weight"].double().numpy(), norm["bias"].double().numpy()
    if np.abs(gain).min() < 1e-4:  # a dead unit would divide by zero: rotate the plain columns
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
    fresh = Wav2Sem(config.config, config.target_dim).state_dict()
    # The official file lacks only the mask embedding, which is used in pre-training alone.
    renamed.setdefault("encoder.masked_spec_embed", fresh["encoder.masked_spec_embed"])
    _check(path, renamed, fresh)
    tensors = {f"wav2sem.{key}": value.numpy() for key, value in renamed.items()}
    save_wav2sem(output, config, tensors | {key: value.numpy() for key, value in fusion.items()})


def export_faceformer(model: ModelFolder, file: Path) -> None:
    """Write a model for FaceFormer's own code: a bare state dict with the released names and shapes.

    Raises:
        UserError: The format cannot hold the model: it has a Wav2Sem, no basis, or another architecture.
    """
    config, host, basis_KV3 = model.config, model.config.host, model.basis()
    if not isinstance(host, faceformer.FaceFormer) or config.wav2sem is not None or basis_KV3 is None:
        raise UserError(
            "{model}: FaceFormer's format holds its decoder and a vertex head, and no Wav2Sem; this model differs",
            model=config.name,
        )
    _require_base(config.name, config.encoder.config, BASE_ENCODER)
    state = {key: torch.from_numpy(value) for key, value in model.tensors().items() if key != BASIS_KEY}
    positions_pM = torch.from_numpy(host.positions())
    official = {
        _renamed(key, faceformer.OFFICIAL_NAMES, back=True): value
        for key, value in keys_to_vertices(state, basis_KV3).items()
    }
    torch.save(official | {"PPE.pe": positions_pM.repeat(PUBLISHED_FRAMES // host.period + 1, 1)[None]}, file)


def export_wav2sem(config: Wav2SemConfig, state: Mapping[str, Tensor], file: Path) -> None:
    """Write a Wav2Sem (its state dict) for its released code.

    Raises:
        UserError: Its architecture is not the released one.
    """
    _require_base("this Wav2Sem", config.config, RELEASED)
    kept = {key: value for key, value in state.items() if not key.endswith("masked_spec_embed")}
    torch.save({"state_dict": {_renamed(key, _WAV2SEM_NAMES, back=True): value for key, value in kept.items()}}, file)


def _require_base(name: str, config: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """Compare configs, defaults included: shapes do not show head counts and norm orders."""
    found, wanted = (KINDS["wav2vec2"][0](**some).to_dict() for some in (config, base))
    for key in _ARCHITECTURE:
        if found[key] != wanted[key]:
            raise UserError(
                "{model}: its encoder has {key} = {found}; the official format has {wanted}",
                model=name,
                key=key,
                found=found[key],
                wanted=wanted[key],
            )


def _take(path: Path, state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise UserError("{file}: the key {key} is missing; this is another model's file", file=path.name, key=key)
    return state[key]


def _check(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = sorted(set(expected) - set(state))
    unknown = sorted(set(state) - set(expected))
    if missing:
        raise UserError(
            "{file}: {n_keys} keys are missing, such as {key}; this is another model's file",
            file=path.name,
            n_keys=len(missing),
            key=missing[0],
        )
    if unknown:
        raise UserError(
            "{file}: {n_keys} keys are unknown, such as {key}; this is another model's file",
            file=path.name,
            n_keys=len(unknown),
            key=unknown[0],
        )
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise UserError(
                "{file}: {key} has shape {found}, {expected} is expected",
                file=path.name,
                key=key,
                found=tuple(value.shape),
                expected=tuple(expected[key].shape),
            )
