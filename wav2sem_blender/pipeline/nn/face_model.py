# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole face model: speech encoder, optional Wav2Sem, fusion, and the network of its host.

Shapes: B batch, S samples, L encoder frames (50 Hz), R memory frames, C channels of the CNN, D features, E sentence
space, M memory width, N styles, T animation frames, X outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .encoders import build_backbone, contextualise, convolve, encode, resample_features
from .wav2sem import FeatureReader, SemanticFusion, Wav2Sem

if TYPE_CHECKING:
    from ..checkpoint import ModelConfig


class FaceModel(nn.Module):
    """Speech to channel weights.

    The Wav2Sem is frozen and stays in eval mode: under `train()` its dropout and LayerDrop would make F_s random.
    """

    def __init__(self, config: ModelConfig, n_outputs: int | None = None) -> None:
        """`n_outputs`: X where the network does not predict the channels (3V in training on vertices)."""
        super().__init__()
        self.config = config
        self.audio_encoder = build_backbone(config.encoder.kind, config.encoder.config)
        self.wav2sem: Wav2Sem | FeatureReader | None = None
        if config.wav2sem is not None:
            architecture = FeatureReader if config.wav2sem.shared else Wav2Sem
            self.wav2sem = architecture(config.wav2sem.config, config.wav2sem.target_dim)
        if self.wav2sem is not None:
            self.wav2sem.eval().requires_grad_(False)
        width = self.audio_encoder.config.hidden_size
        self.phone_head = nn.Linear(width, len(config.phones)) if config.phones else None
        self.fusion = SemanticFusion(
            config.host.feature_width(width),
            config.host.memory_width,
            config.wav2sem.target_dim if config.wav2sem else None,
            legacy_predict=config.legacy_predict,
        )
        self.decoder = config.host.network(n_outputs or len(config.channels), len(config.styles))

    def train(self, mode: bool = True) -> FaceModel:
        """As for every module, without the Wav2Sem."""
        super().train(mode)
        if self.wav2sem is not None:
            self.wav2sem.eval()
        return self

    def semantics(self, waveform_BS: Tensor) -> Tensor | None:
        """F_s (B, 1, E) without gradients, or None without a Wav2Sem."""
        if self.wav2sem is None:
            return None
        with torch.no_grad():
            return self.wav2sem(waveform_BS).unsqueeze(1)

    def hear(self, spectrogram_BFM: Tensor) -> tuple[Tensor, Tensor]:
        """Of a shared encoder: its features (B, L, D) and the phones' probabilities (B, L, P)."""
        features_BLD, _ = encode(self.audio_encoder, spectrogram_BFM)
        if self.phone_head is None:
            return features_BLD, features_BLD.new_zeros(*features_BLD.shape[:2], 0)
        return features_BLD, self.phone_head(features_BLD).softmax(-1)

    def convolved(self, waveform_BS: Tensor, positions_BR: Tensor) -> Tensor:
        """The CNN's features (B, R, C), or (B, L, C) for a host that reads positions behind the transformer."""
        features_BLC = convolve(self.audio_encoder, waveform_BS)
        if self.config.host.grid.before_transformer:
            return resample_features(features_BLC, positions_BR)
        return features_BLC

    def features(self, convolved: Tensor, positions_BR: Tensor, masked_BT: Tensor | None = None) -> Tensor:
        """F_p (B, R, D) of `convolved`; `masked_BT` hides frames of it behind the mask embedding."""
        hidden_BTD = contextualise(self.audio_encoder, convolved, masked_BT=masked_BT)
        if self.config.host.grid.before_transformer:
            return hidden_BTD
        return resample_features(hidden_BTD, positions_BR)

    def memory(self, waveform_BS: Tensor, positions_BR: Tensor, semantic_BTE: Tensor | None) -> Tensor:
        """The memory (B, R, M); `semantic_BTE` is F_s, scaled already."""
        convolved = self.convolved(waveform_BS, positions_BR)
        return self.fusion(self.features(convolved, positions_BR), semantic_BTE)

    def forward(self, waveform_BS: Tensor, positions_BR: Tensor, style_BN: Tensor) -> Tensor:
        """Prediction (B, T, X), with semantics at full strength."""
        return self.decoder(self.memory(waveform_BS, positions_BR, self.semantics(waveform_BS)), style_BN)
