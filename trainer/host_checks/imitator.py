# SPDX-License-Identifier: GPL-3.0-or-later
"""Imitator against its released code: the whole inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from wav2sem_blender.pipeline.nn.imitator import PREFIX, from_published

from . import Outputs, state_of


def check(golden: Mapping[str, np.ndarray], kind: str, beside: Callable[[str], Mapping[str, np.ndarray]]) -> Outputs:
    """Every output of the file: the cached decoding, and the released loop without dropout."""
    state = {name: torch.from_numpy(value) for name, value in state_of(golden).items()}
    network = from_published(kind, state)
    features_BLD, style_BN = (torch.from_numpy(golden[name]) for name in ("features", "one_hot"))
    audio = (state[f"{PREFIX}audio_feature_map.{name}"] for name in ("weight", "bias"))
    memory_BRM = F.linear(features_BLD, *audio)
    with torch.no_grad():
        found = {name: getattr(network, name)(memory_BRM, style_BN) for name in ("forward", "recomputed")}
    theirs = golden["prediction"]
    return {
        f"prediction ({name})": (value.numpy() + golden["template"][:, None], theirs) for name, value in found.items()
    }
