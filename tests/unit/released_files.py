# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of published files for tests: encoders of random weights under their released names, and a small Wav2Sem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from torch import Tensor

TINY: dict[str, Any] = {
    **{"conv_dim": [8] * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
SENTENCE_DIM = 5


def released_encoder(kind: str, config: dict[str, Any]) -> dict[str, Tensor]:
    """`audio_encoder.*` as transformers named it when the hosts were released."""
    from wav2sem_blender.pipeline.nn.encoders import build_backbone

    state = {}
    for name, value in build_backbone(kind, config).state_dict().items():
        old = name.replace("parametrizations.weight.original0", "weight_g")
        state[f"audio_encoder.{old.replace('parametrizations.weight.original1', 'weight_v')}"] = value
    return state


def beside_wav2sem(monkeypatch: pytest.MonkeyPatch, width: int) -> dict[str, Tensor]:
    """`Wav2Bert.*` and `bert_feature_map.*` for features of this width, small; importing then expects that size."""
    import torch

    from wav2sem_blender.pipeline.checkpoint import Wav2SemConfig
    from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem
    from wav2sem_blender.pipeline.official import wav2sem

    monkeypatch.setattr(wav2sem, "CONFIG", Wav2SemConfig(config=TINY, target_dim=SENTENCE_DIM))
    monkeypatch.setattr(wav2sem, "RELEASED", TINY)
    inside = wav2sem.write(wav2sem.CONFIG, Wav2Sem(TINY, SENTENCE_DIM).state_dict())
    fusion = {"weight": torch.randn(width, SENTENCE_DIM), "bias": torch.randn(width)}
    return {f"{wav2sem.INSIDE}{name}": value for name, value in inside.items()} | {
        f"{wav2sem.FUSION}{name}": value for name, value in fusion.items()
    }
