# SPDX-License-Identifier: GPL-3.0-or-later
"""Wav2Sem: a whole utterance's audio -> one vector in a text model's sentence space, and its fusion into the features.

Source: "Wav2Sem: Plug-and-Play Audio Semantic Decoupling for 3D Speech-Driven Facial Animation", CVPR 2025.
Shapes: B batch, S samples, L encoder frames, T animation frames, D phone-level features, E sentence space, M memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from .encoders import build_backbone, encode
from .whisper import sinusoids

_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}
RELEASED = {**_BASE, "num_attention_heads": 12, "do_stable_layer_norm": False}
"""The released checkpoint: 12 heads, post-norm. With 8 heads the same file loads without any error and is wrong."""
PAPER = {**_BASE, "num_attention_heads": 8, "do_stable_layer_norm": True}
"""The paper's text: 8 heads, pre-norm."""


class Wav2Sem(nn.Module):
    """Encoder, mean over time, and a projection where the encoder's width is not the target's.

    `target_dim` is 768 for BERT (CLS or token mean) and 384 for MiniLM.
    """

    def __init__(self, encoder_config: Mapping[str, Any], target_dim: int) -> None:
        super().__init__()
        self.encoder = build_backbone("wav2vec2", encoder_config)
        hidden = self.encoder.config.hidden_size
        self.projection = nn.Identity() if hidden == target_dim else nn.Linear(hidden, target_dim)

    def forward(self, waveform_BS: Tensor, sample_lengths_B: Tensor | None = None) -> Tensor:
        """Sentence vectors F_s (B, E). With `sample_lengths_B` a row equals that of its recording without padding."""
        hidden_BLD, mask_BL = encode(self.encoder, waveform_BS, sample_lengths_B=sample_lengths_B)
        if mask_BL is None:
            return self.projection(hidden_BLD.mean(1))
        mask_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLD.dtype)
        return self.projection((hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1))


class FeatureReader(nn.Module):
    """A Wav2Sem that reads the phone-level features (B, L, D) instead of the recording.

    Every `stride` frames become one, at 12.5 Hz for 4; a small transformer, the mean over time and a projection follow.
    `config` has `feature_size` (D), `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `stride` and `dropout`.
    """

    def __init__(self, config: Mapping[str, Any], target_dim: int) -> None:
        super().__init__()
        self.stride, width = config["stride"], config["hidden_size"]
        self.joined = nn.Conv1d(config["feature_size"], width, self.stride, self.stride)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                config["num_attention_heads"],
                4 * width,
                config.get("dropout", 0.0),
                "gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config["num_hidden_layers"])
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, target_dim)

    def forward(self, features_BLD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Sentence vectors F_s (B, E). `lengths_B` are the frames of padded recordings, at least `stride` each."""
        hidden_BLH = self.joined(features_BLD.transpose(1, 2)).transpose(1, 2)
        hidden_BLH = hidden_BLH + sinusoids(hidden_BLH.shape[1], hidden_BLH.shape[2], hidden_BLH.device)
        padding_BL = None
        if lengths_B is not None:
            padding_BL = (
                torch.arange(hidden_BLH.shape[1], device=hidden_BLH.device) >= (lengths_B // self.stride)[:, None]
            )
        for layer in self.layers:
            hidden_BLH = layer(hidden_BLH, src_key_padding_mask=padding_BL)
        hidden_BLH = self.norm(hidden_BLH)
        if padding_BL is None:
            return self.projection(hidden_BLH.mean(1))
        real_BL1 = (~padding_BL).unsqueeze(-1).to(hidden_BLH.dtype)
        return self.projection((hidden_BLH * real_BL1).sum(1) / real_BL1.sum(1))


class SemanticFusion(nn.Module):
    """FC(FC(F_s) + F_p): the one place where semantics enter, in training and in inference.

    Without `semantic_dim` there is only the outer FC (`audio_feature_map`), as in a host without Wav2Sem; without
    `memory_dim` only the inner one. `legacy_predict` leaves the inner FC out, as the released `predict` does although
    its `forward` applies it; it needs E = D.
    """

    def __init__(
        self, feature_dim: int, memory_dim: int | None, semantic_dim: int | None, *, legacy_predict: bool = False
    ) -> None:
        super().__init__()
        if legacy_predict and semantic_dim not in (None, feature_dim):
            raise UserError(
                "legacy_predict adds F_s ({semantic_dim} wide) to F_p ({feature_dim} wide); the widths must be equal",
                semantic_dim=semantic_dim,
                feature_dim=feature_dim,
            )
        self.legacy_predict = legacy_predict
        self.audio_feature_map = nn.Linear(feature_dim, memory_dim) if memory_dim else nn.Identity()
        self.semantic_feature_map = nn.Linear(semantic_dim, feature_dim) if semantic_dim is not None else None

    def forward(self, features_BTD: Tensor, semantic_BTE: Tensor | None = None) -> Tensor:
        """Fuse.

        Args:
            features_BTD: F_p.
            semantic_BTE: F_s as (B, T, E), or (B, 1, E) for one vector an utterance; None without a Wav2Sem.

        Returns:
            decoder memory (B, T, M).
        """
        if self.semantic_feature_map is not None:
            if semantic_BTE is None:
                raise ValueError("this model has a Wav2Sem: F_s is needed (zeros switch semantics off)")
            inner_BTD = semantic_BTE if self.legacy_predict else self.semantic_feature_map(semantic_BTE)
            features_BTD = features_BTD + inner_BTD
        return self.audio_feature_map(features_BTD)
