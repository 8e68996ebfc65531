# SPDX-License-Identifier: GPL-3.0-or-later
"""Wav2Sem's `model.pth.tar`, and the Wav2Sem inside a face model's file.

Only CodeTalker's is published in code: the frozen module is saved as `Wav2Bert.*`, and FC as `bert_feature_map.*`. The
files of all other hosts use the same two names beside the host's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import EncoderConfig, Wav2SemConfig
from ..nn.wav2sem import RELEASED, Wav2Sem
from .published import Source, State, check_keys, renamed, require_architecture

BERT_DIM = 768
INSIDE, FUSION = "Wav2Bert.", "bert_feature_map."
CONFIG = Wav2SemConfig(config=RELEASED, target_dim=BERT_DIM)
NAMES = (
    ("FeatureExtractor.", "encoder.feature_extractor."),
    ("FeatureProjection.", "encoder.feature_projection."),
    ("Encoder.", "encoder.encoder."),
)
_MASK_EMBEDDING = "encoder.masked_spec_embed"


def recognised(state: Mapping[str, Tensor]) -> bool:
    """Whether this is a Wav2Sem's own file."""
    return any(key.startswith("FeatureExtractor.") for key in state)


def is_inside(state: Mapping[str, Tensor]) -> bool:
    """Whether a face model's file has one."""
    return any(key.startswith(INSIDE) for key in state)


def read(path: Path, state: Mapping[str, Tensor]) -> State:
    """The state dict of `nn.wav2sem.Wav2Sem`, of the tensors of a Wav2Sem's file."""
    fresh = Wav2Sem(CONFIG.config, CONFIG.target_dim).state_dict()
    # The file lacks only the mask embedding, which is used in pre-training alone.
    ours = {_MASK_EMBEDDING: fresh[_MASK_EMBEDDING], **renamed(state, NAMES)}
    check_keys(path, ours, fresh)
    return ours


def take(source: Source) -> State | None:
    """The Wav2Sem and FC of a face model's file, by their names in `FaceModel`; None where it has none.

    They are removed from the source.
    """
    if not any(key.startswith((INSIDE, FUSION)) for key in source.state):
        return None
    fusion = {f"fusion.semantic_feature_map.{name}": source.take(FUSION + name) for name in ("weight", "bias")}
    inside = {key.removeprefix(INSIDE): value for key, value in source.state.items() if key.startswith(INSIDE)}
    source.state = {key: value for key, value in source.state.items() if not key.startswith((INSIDE, FUSION))}
    return {f"wav2sem.{key}": value for key, value in read(source.path, inside).items()} | fusion


def beside_a_host(config: Wav2SemConfig, state: Mapping[str, Tensor], prefix: str) -> State:
    """The reverse of `take`: `state` is that of a `FaceModel`.

    Raises:
        UserError: The Wav2Sem has not the released architecture.
    """
    own = {key.removeprefix("wav2sem."): value for key, value in state.items() if key.startswith("wav2sem.")}
    released = {prefix + INSIDE + key: value for key, value in write(config, own).items()}
    fusion = {f"{prefix}{FUSION}{name}": state[f"fusion.semantic_feature_map.{name}"] for name in ("weight", "bias")}
    return released | fusion


def write(config: Wav2SemConfig, state: Mapping[str, Tensor]) -> State:
    """The tensors of a Wav2Sem (its state dict) by their released names.

    Raises:
        UserError: Its architecture is not the released one.
    """
    kinds = (EncoderConfig(kind="wav2vec2", config=some) for some in (config.config, RELEASED))
    require_architecture("this Wav2Sem", *kinds)
    return renamed({key: value for key, value in state.items() if key != _MASK_EMBEDDING}, NAMES, back=True)


def export_wav2sem(config: Wav2SemConfig, state: Mapping[str, Tensor], file: Path) -> None:
    """Write a Wav2Sem for its released code; as `write`."""
    torch.save({"state_dict": write(config, state)}, file)
