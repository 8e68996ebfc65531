# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch modules' properties: frame rates, padding, fusion, head counts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from wav2sem_blender.pipeline.grid import animation_frames, encoder_frames, feature_positions  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import build_backbone, encode, feature_lengths, resample_features  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import PAPER, RELEASED, SemanticFusion, Wav2Sem  # noqa: E402

TINY = {
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@pytest.mark.parametrize(
    ("seconds", "frames_30", "frames_25"), [(1, 29, 24), (10, 299, 249), (20, 599, 499)]
)  # fmt: skip
def test_published_frame_counts(seconds: int, frames_30: int, frames_25: int) -> None:
    enc_frames = encoder_frames(16000 * seconds)
    assert (animation_frames(enc_frames, 30), animation_frames(enc_frames, 25)) == (frames_30, frames_25)


def test_frame_count_keeps_the_float_expression() -> None:
    assert [animation_frames(n, 30) for n in (205, 410, 820, 845)] == [int(n / 50.0 * 30) for n in (205, 410, 820, 845)]
    assert any(animation_frames(n, 30) != 3 * n // 5 for n in (205, 410, 820, 845))


@pytest.mark.parametrize("n_enc_frames", [49, 205, 733])
def test_resampling_equals_interpolate(n_enc_frames: int) -> None:
    features = torch.randn(2, n_enc_frames, 5)
    positions = torch.from_numpy(feature_positions(n_enc_frames, 30)).float().expand(2, -1)
    expected = F.interpolate(features.transpose(1, 2), size=positions.shape[1], mode="linear", align_corners=True)
    # Both hold positions in float32: 6e-5 of a frame at frame 700, on white noise.
    np.testing.assert_allclose(resample_features(features, positions), expected.transpose(1, 2), atol=6e-4)


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_rate_is_converted_before_the_projection(kind: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(kind, TINY).eval()
    waveform = torch.randn(1, 16000)
    positions = torch.from_numpy(feature_positions(49, 30)).float()[None]
    with torch.no_grad():
        hidden, _ = encode(backbone, waveform, positions)
        native, _ = encode(backbone, waveform)
        reference = backbone(waveform).last_hidden_state
    assert hidden.shape == (1, 29, 32)
    np.testing.assert_allclose(native, reference, atol=1e-5)
    assert (hidden - resample_features(native, positions)).abs().mean() > 0.05  # another function, not a later step


def test_padding_is_kept_out_of_the_mean() -> None:
    """Exact but for the first layer's group norm, whose statistics see the padding: so it is switched off here."""
    torch.manual_seed(0)
    model = Wav2Sem(TINY | {"feat_extract_norm": "layer", "conv_bias": True}, target_dim=24).eval()
    short, long = torch.randn(1, 9000), torch.randn(1, 16000)
    padded = torch.cat([F.pad(short, (0, 7000)), long])
    with torch.no_grad():
        alone = torch.cat([model(short), model(long)])
        together = model(padded, torch.tensor([9000, 16000]))
        naive = model(padded)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert (naive[0] - alone[0]).abs().max() > 1e-2
    assert feature_lengths(model.encoder, torch.tensor([400, 719, 720, 16000])).tolist() == [1, 1, 2, 49]


def test_released_and_paper_variants() -> None:
    released, paper = build_backbone("wav2vec2", RELEASED), build_backbone("wav2vec2", PAPER)
    assert sum(p.numel() for p in released.parameters()) == 94_370_944 + 768  # + the mask embedding
    assert released.encoder.layers[0].attention.num_heads == 12
    assert paper.encoder.layers[0].attention.num_heads == 8
    assert type(paper.encoder).__name__.endswith("StableLayerNorm")


def test_fusion_broadcasts_over_time_and_batch() -> None:
    fusion = SemanticFusion(6, 4, semantic_dim=3)
    features, semantic = torch.randn(2, 5, 6), torch.randn(2, 3)
    fused = fusion(features, semantic[:, None])
    by_hand = fusion.audio_feature_map(features[1, 4] + fusion.semantic_feature_map(semantic[1]))
    np.testing.assert_allclose(fused[1, 4].detach(), by_hand.detach(), atol=1e-6)
    with pytest.raises(ValueError, match="F_s is needed"):
        fusion(features)


def test_legacy_predict_leaves_the_inner_layer_out() -> None:
    fusion = SemanticFusion(6, 4, semantic_dim=6, legacy_predict=True)
    features, semantic = torch.randn(1, 5, 6), torch.randn(1, 1, 6)
    expected = fusion.audio_feature_map(features + semantic)
    np.testing.assert_allclose(fusion(features, semantic).detach(), expected.detach(), atol=1e-6)
    with pytest.raises(ValueError, match="widths must be equal"):
        SemanticFusion(6, 4, semantic_dim=3, legacy_predict=True)
