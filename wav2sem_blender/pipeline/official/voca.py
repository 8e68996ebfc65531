# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCA's TensorFlow variables in an npz file, which the user writes in five lines (see docs/hosts.md).

The checkpoint does not hold DeepSpeech, whose logits VOCA reads. One kind of model reads them from a file beside each
recording. The other hears by a stand-in: the bundled model's phones.

Shapes: K keys, X = 3V, P phones, D logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from .. import given_features
from ..checkpoint import ModelFolder
from ..hosts.voca import LETTERS, LETTERS_OF_PHONES, LOGITS, LOGITS_NAME, RELEASES, STAND_IN, Voca
from ..nn.voca import HEAD_KEY, from_published, to_published
from ..phones import PHONES
from .published import Published, Source, State, check_rows

PREFIX = ""


def recognised(state: Mapping[str, Tensor]) -> str | None:
    """As `Format`. The file fits both kinds; without a choice it is the published one."""
    return "voca" if HEAD_KEY in state else None


def read(kind: str, source: Source) -> Published:
    """As `Format`."""
    check_rows(source, HEAD_KEY, kind, 3 * RELEASES[kind].n_vertices)
    network = from_published(kind, source.state)
    state = {f"decoder.{key}": value for key, value in network.state_dict().items()}
    stand_in = kind == STAND_IN
    if stand_in:
        state |= stand_in_layer(network.batch_norm.running_mean, network.batch_norm.running_var)
    encoder = given_features.encoder(LOGITS_NAME, LOGITS, stand_in=stand_in)
    return Published.of(RELEASES[kind], encoder, state)


def stand_in_layer(mean_1: Tensor, variance_1: Tensor) -> State:
    """A linear layer from the phones' probabilities to letters, by spelling; a guess, which nothing was fitted to.

    Its outputs get the mean and the variance of the logits that the batch norm remembers, if all phones are equally
    frequent.
    """
    spelt_PD = np.zeros((len(PHONES), LOGITS), np.float32)
    for phone, letters in zip(PHONES, LETTERS_OF_PHONES.split(), strict=True):
        spelt_PD[PHONES.index(phone), [LETTERS.index(letter) for letter in letters]] = 1 / len(letters)
    scale = float((variance_1 / spelt_PD.var()).sqrt())
    weight_DP = torch.from_numpy(spelt_PD.T.copy()) * scale
    bias_D = (mean_1 - scale * spelt_PD.mean()).expand(LOGITS).clone()
    return {"audio_encoder.projection.weight": weight_DP, "audio_encoder.projection.bias": bias_D}


def write(model: ModelFolder) -> dict[str, dict[str, Any]]:
    """As `Format`."""
    from ..engine_torch import load_state

    config, basis_KV3 = model.config, model.basis()
    if not isinstance(config.host, Voca) or basis_KV3 is None:
        raise UserError(
            "{model}: VOCA's format holds its network and a vertex head; this model differs", model=config.name
        )
    if given_features.is_stand_in(config.encoder):
        template = "{model}: VOCA's format is for {features}; this model hears by a stand-in"
        raise UserError(template, model=config.name, features=LOGITS_NAME)
    state = load_state(model, "decoder.")
    basis_XK = torch.from_numpy(basis_KV3.reshape(len(basis_KV3), -1).T)
    for name in ("expression_offset.weight", "expression_offset.bias"):
        state[name] = basis_XK @ state[name]
    return {f"{config.name}.npz": to_published(state)}
