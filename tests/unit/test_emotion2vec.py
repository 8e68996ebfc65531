# SPDX-License-Identifier: GPL-3.0-or-later
"""emotion2vec: its front half is transformers' data2vec; its blocks against a plain loop over heads and frames."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import torch.nn.functional as F  # noqa: E402

from wav2sem_blender.pipeline.checkpoint import EncoderConfig  # noqa: E402
from wav2sem_blender.pipeline.frame_timing import encoder_frames  # noqa: E402
from wav2sem_blender.pipeline.nn.emotion2vec import Emotion2Vec, build_emotion_encoder, feel, slopes  # noqa: E402
from wav2sem_blender.pipeline.official.lsf import emotion_config  # noqa: E402

SIZES = {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20, "tokens": 2, "prenet_layers": 1}
SIZES |= {"num_hidden_layers": 2, "position_layers": 3, "position_kernel": 5, "position_groups": 4}
SIZES |= {"conv_dim": (8,) * 7, "alibi_heads": 3}
AUDIO = "modality_encoders.AUDIO."


def encoder_of(**changed: int) -> Emotion2Vec:
    torch.manual_seed(0)
    made = Emotion2Vec({**SIZES, **changed}).eval()
    for name, values in made.named_parameters():
        torch.nn.init.normal_(values, 1.0 if name.endswith(("norm1.weight", "norm2.weight", "alibi_scale")) else 0, 0.3)
    return made


def test_the_published_size() -> None:
    """emotion2vec_base has 93.8 M parameters with the decoder of its own training, which has 0.57 M."""
    with torch.device("meta"):
        encoder = Emotion2Vec({})
    n_parameters = sum(values.numel() for values in encoder.parameters())
    decoder = 5 * 384 * (1 + 5 * 384 // 16) + 5 * 384 * (768 - 384) // 16 + 768 * (384 + 1)
    assert (n_parameters + decoder) / 1e6 == pytest.approx(93.8, abs=0.1)
    assert encoder.state_dict()[f"{AUDIO}relative_positional_encoder.5.0.weight"].shape == (768, 48, 19)


def test_the_front_half_is_transformers_data2vec() -> None:
    from transformers import Data2VecAudioConfig, Data2VecAudioModel

    ours = encoder_of()
    theirs = Data2VecAudioModel(
        Data2VecAudioConfig(
            hidden_size=12,
            num_hidden_layers=1,
            num_attention_heads=3,
            intermediate_size=20,
            conv_dim=(8,) * 7,
            num_conv_pos_embeddings=3,
            conv_pos_kernel_size=5,
            num_conv_pos_embedding_groups=4,
        )
    ).eval()
    audio = ours.modality_encoders["AUDIO"]
    for layer, (convolution, _, norm, _) in zip(
        theirs.feature_extractor.conv_layers, audio.local_encoder.conv_layers, strict=True
    ):
        layer.conv.load_state_dict(convolution.state_dict())
        layer.layer_norm.load_state_dict(norm[1].state_dict())
    theirs.feature_projection.layer_norm.load_state_dict(audio.project_features[1].state_dict())
    theirs.feature_projection.projection.load_state_dict(audio.project_features[2].state_dict())
    for layer, own in zip(theirs.encoder.pos_conv_embed.layers, audio.relative_positional_encoder[1:-1], strict=True):
        layer.conv.load_state_dict(own[0].state_dict())
    waveform_1S = torch.randn(1, 4_000)
    with torch.no_grad():
        features = theirs.feature_extractor(waveform_1S).transpose(1, 2)
        hidden, _ = theirs.feature_projection(features)
        expected = hidden + theirs.encoder.pos_conv_embed(hidden)
        local = audio.project_features(audio.local_encoder(waveform_1S))
        found = local + audio.relative_positional_encoder(local)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("scales", [1, 3])
def test_the_blocks_are_post_norm_with_a_bias_of_distance(scales: int) -> None:
    encoder = encoder_of(alibi_layers=scales)
    w = {name: value.detach() for name, value in encoder.state_dict().items()}
    audio, waveform_1S = encoder.modality_encoders["AUDIO"], torch.randn(1, 3_000)
    scale = w[f"{AUDIO}alibi_scale"]
    scale[0, 0, 0] = -1.0  # a negative scale counts as 0

    def norm(name: str, x):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def block(name: str, x_LD, scale_H):
        query, key, value = F.linear(x_LD, w[f"{name}.attn.qkv.weight"], w[f"{name}.attn.qkv.bias"]).split(12, 1)
        mixed = torch.zeros_like(x_LD)
        for h, slope in enumerate((2**-4, 2**-8, 2**-2)):
            own = slice(4 * h, 4 * h + 4)
            scores = query[:, own] @ key[:, own].T / 2
            for i in range(2, len(x_LD)):
                for j in range(2, len(x_LD)):
                    scores[i, j] -= max(float(scale_H[h]), 0) * slope * abs(i - j)
            mixed[:, own] = scores.softmax(1) @ value[:, own]
        x_LD = norm(f"{name}.norm1", x_LD + F.linear(mixed, w[f"{name}.attn.proj.weight"], w[f"{name}.attn.proj.bias"]))
        inner = F.gelu(F.linear(x_LD, w[f"{name}.mlp.fc1.weight"], w[f"{name}.mlp.fc1.bias"]))
        return norm(f"{name}.norm2", x_LD + F.linear(inner, w[f"{name}.mlp.fc2.weight"], w[f"{name}.mlp.fc2.bias"]))

    with torch.no_grad():
        x_LD = audio.project_features(audio.local_encoder(waveform_1S))
        x_LD = (x_LD + audio.relative_positional_encoder(x_LD))[0]
        x_LD = norm(f"{AUDIO}context_encoder.norm", torch.cat([w[f"{AUDIO}extra_tokens"][0], x_LD]))
        for layer, name in enumerate((f"{AUDIO}context_encoder.blocks.0", "blocks.0", "blocks.1")):
            x_LD = block(name, x_LD, scale[layer % scales, 0, :, 0, 0])
        found = feel(encoder, waveform_1S)
    assert found.shape == (1, encoder_frames(3_000), 12)
    np.testing.assert_allclose(found[0], x_LD[2:], atol=2e-5)


def test_slopes_are_alibis() -> None:
    assert slopes(8) == [2.0**-n for n in range(1, 9)]
    assert slopes(12)[8:] == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])
    assert math.prod(slopes(4)) == 2.0 ** -(2 + 4 + 6 + 8)


def test_a_file_shows_how_many_scales_it_has() -> None:
    assert emotion_config(torch.ones(1, 1, 12, 1, 1)) == EncoderConfig(kind="emotion2vec", config={})
    found = emotion_config(torch.ones(12, 1, 1, 1, 1))
    assert found.config == {"alibi_layers": 12, "alibi_heads": 1}
    small = {"conv_dim": [8] * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    other = build_emotion_encoder(EncoderConfig(kind="hubert", config=small))
    assert feel(other.eval(), torch.randn(1, 3_000)).shape == (1, encoder_frames(3_000), 16)
