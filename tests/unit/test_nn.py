# SPDX-License-Identifier: GPL-3.0-or-later
"""The torch modules' properties: frame rates, padding, fusion, head counts."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from transformers.audio_utils import mel_filter_bank, spectrogram  # noqa: E402

from wav2sem_blender.pipeline.frame_timing import FrameGrid, encoder_frames  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import LogMel, build_backbone, encode, resample_features  # noqa: E402
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
    counted = [FrameGrid.at_rate(fps).animation_frames(16000 * seconds) for fps in (30, 25)]
    assert counted == [frames_30, frames_25]


def test_frame_count_keeps_the_float_expression() -> None:
    enc_frames = (205, 410, 820, 845)
    counted = [FrameGrid(fps=30).animation_frames(400 + 320 * (n - 1)) for n in enc_frames]
    assert counted == [int(n / 50.0 * 30) for n in enc_frames]
    assert counted != [3 * n // 5 for n in enc_frames]


@pytest.mark.parametrize("n_enc_frames", [49, 205, 733])
def test_resampling_equals_interpolate(n_enc_frames: int) -> None:
    features = torch.randn(2, n_enc_frames, 5)
    positions = torch.from_numpy(FrameGrid(fps=30).positions(400 + 320 * (n_enc_frames - 1))).float().expand(2, -1)
    expected = F.interpolate(features.transpose(1, 2), size=positions.shape[1], mode="linear", align_corners=True)
    # Both hold positions in float32: 6e-5 of a frame at frame 700, on white noise.
    np.testing.assert_allclose(resample_features(features, positions), expected.transpose(1, 2), atol=6e-4)


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_rate_is_converted_before_the_projection(kind: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(kind, TINY).eval()
    waveform = torch.randn(1, 16000)
    positions = torch.from_numpy(FrameGrid(fps=30).positions(16000)).float()[None]
    with torch.no_grad():
        hidden, _ = encode(backbone, waveform, positions)
        native, _ = encode(backbone, waveform)
        reference = backbone(waveform).last_hidden_state
    assert hidden.shape == (1, 29, 32)
    np.testing.assert_allclose(native, reference, atol=1e-5)
    assert (hidden - resample_features(native, positions)).abs().mean() > 0.05  # another function, not a later step


@pytest.mark.parametrize("stable", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_padded_batch_equals_its_recordings_one_by_one(stable: bool, norm: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = TINY | {"feat_extract_norm": norm, "conv_bias": norm == "layer", "do_stable_layer_norm": stable}
    model = Wav2Sem(config, target_dim=24).to(dtype).eval()
    lengths = [400, 16000, 719, 9000, 15999, *np.random.default_rng(0).integers(720, 16000, 4).tolist()]
    alone = [torch.randn(1, length, dtype=dtype) for length in lengths]
    padded = torch.cat([F.pad(waveform, (0, 16000 - waveform.shape[1]), value=3.0) for waveform in alone])
    target = torch.randn(len(lengths), 24, dtype=dtype)
    gradients = []
    one_by_one = torch.cat([model(waveform) for waveform in alone])
    together = model(padded, torch.tensor(lengths))
    for vectors in (one_by_one, together):
        model.zero_grad()
        (vectors * target).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    np.testing.assert_allclose(together.detach(), one_by_one.detach(), atol=1e-5)
    assert (model(padded) - one_by_one).abs().max() > 1e-2, "without lengths, padding must matter"
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()) + 1e-9)


def test_frames_of_padded_recordings() -> None:
    backbone = build_backbone("hubert", TINY)
    waveform, lengths = torch.randn(4, 16000), torch.tensor([400, 719, 720, 16000])
    hidden, mask = encode(backbone, waveform, sample_lengths_B=lengths)
    assert hidden.shape == (4, 49, 32) and mask.sum(1).tolist() == [encoder_frames(int(n)) for n in lengths]
    with pytest.raises(ValueError, match="exclude each other"):
        encode(backbone, waveform, torch.zeros(4, 2), lengths)


LOG_MEL = {key: value for key, value in TINY.items() if key != "conv_dim"} | {
    "n_mels": 40,
    "conv_dim": [16, 16],
    "conv_kernel": [3, 3],
    "conv_stride": [1, 2],
}


def test_a_log_mel_front_end_keeps_the_published_frames() -> None:
    backbone = build_backbone("hubert", LOG_MEL).eval()
    for n_samples in (400, 719, 720, 16_000, 16_079, 16_080, 33_333):
        assert encode(backbone, torch.randn(1, n_samples))[0].shape == (1, encoder_frames(n_samples), 32)
    clicks = torch.zeros(1, 16_000)
    clicks[0, 320 * 30 + 200] = 1.0  # the middle of frame 30's receptive field
    energy = (encode(backbone, clicks)[0] - encode(backbone, torch.zeros(1, 16_000))[0]).abs().sum(-1)[0]
    features = backbone.feature_extractor(clicks) - backbone.feature_extractor(torch.zeros(1, 16_000))
    assert int(features.abs().sum(1)[0].argmax()) == 30 and energy.max() > 0


def test_log_mel_is_what_transformers_computes() -> None:
    waveform = torch.randn(16_000)
    mels = LogMel(40)
    bank = mel_filter_bank(201, 40, 40.0, 8000.0, 16_000)
    expected = spectrogram(
        waveform.numpy(), np.hanning(401)[:-1], 400, 160, power=2.0, center=False, mel_filters=bank, mel_floor=0.0
    )
    expected = (np.log(expected / 400 + LogMel.FLOOR) - LogMel.MEAN) / LogMel.SCALE
    np.testing.assert_allclose(mels(waveform[None, None])[0], expected, atol=1e-4)


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
