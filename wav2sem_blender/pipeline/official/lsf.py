# SPDX-License-Identifier: GPL-3.0-or-later
"""LSF-Animation's Lightning checkpoint of stage 2, which holds both encoders and the codec."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..hosts.lsf import LSF
from ..nn.lsf import IDENTITY_NAME, STYLE_NAME, LSFNetwork
from ..nn.published import loaded, need
from .probtalk3d import common_sizes, n_outputs, own_part


def from_published(kind: str, state: Mapping[str, Tensor], heads: int = 8) -> LSFNetwork:
    """The network of a released file, of the sizes that its tensors have; without the two encoders.

    Raises:
        UserError: A tensor is missing, unknown or of another shape; the message names it.
    """
    state, prefix = own_part(state), "feature_predictor."
    names = ("audio_feat.weight", "emo_feat.weight", "fusion_tokens")
    speech, emotion, tokens = (need(state, prefix + name) for name in names)
    shape = state.get(f"{IDENTITY_NAME}0.weight")
    n_blocks = sum(key.startswith(f"{prefix}audio_blocks.") and "to_qkv" in key for key in state)
    config = LSF(
        **common_sizes(state, heads, n_blocks),
        feature_dim=speech.shape[1] // 2,
        emotion_dim=emotion.shape[1] // 2,
        tokens=tokens.shape[1],
        fusion_dim=len(need(state, f"{prefix}fusion_blocks.0.attn.q.weight")),
        shape_dim=0 if shape is None else shape.shape[1],
    )
    return loaded(config.network(n_outputs(state), need(state, STYLE_NAME).shape[1]), state)
