# SPDX-License-Identifier: GPL-3.0-or-later
"""The ear and what reads it, in torch: Whisper as transformers has it, sentence vectors of padded features, and the
bundled host in NumPy and torch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, Wav2SemConfig  # noqa: E402
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import encode  # noqa: E402
from wav2sem_blender.pipeline.nn.face_model import FaceModel  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import FeatureReader  # noqa: E402
from wav2sem_blender.pipeline.nn.whisper import Whisper  # noqa: E402

SIZES = {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128}
READER = {"feature_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "stride": 4}


def test_the_encoder_is_transformers_whisper() -> None:
    """On 30 s, which is all that theirs takes."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    theirs = WhisperEncoder(WhisperConfig(num_mel_bins=80, **SIZES)).eval()
    ours = Whisper(SIZES | {"hidden_size": 32}).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert all(key.startswith("adapter.") for key in missing) and unexpected == ["embed_positions.weight"]
    spectrogram = torch.randn(1, 3000, 80)
    with torch.no_grad():
        expected = theirs(spectrogram.transpose(1, 2)).last_hidden_state
        np.testing.assert_allclose(ours.hidden(ours.convolve(spectrogram)), expected, atol=1e-4)
        features, mask = encode(ours, spectrogram)
    assert features.shape == (1, 1500, 32) and mask is None


def test_features_are_read_between_frames_behind_the_transformer() -> None:
    torch.manual_seed(0)
    encoder = Whisper(SIZES | {"hidden_size": 32}).eval()
    spectrogram = torch.randn(1, 41, 80)
    with torch.no_grad():
        whole, _ = encode(encoder, spectrogram)
        read, _ = encode(encoder, spectrogram, torch.tensor([[0.0, 1.5, 20.0]]))
    assert whole.shape[1] == 21
    np.testing.assert_allclose(read[0, 1], (whole[0, 1] + whole[0, 2]) / 2, atol=1e-6)
    np.testing.assert_allclose(read[0, ::2], whole[0, [0, 20]], atol=1e-6)


def test_padding_does_not_change_a_sentence_vector() -> None:
    torch.manual_seed(0)
    reader = FeatureReader(READER, 8).eval()
    features = torch.randn(2, 60, 32)
    with torch.no_grad():
        alone = reader(features[:1, :43])
        padded = reader(features, torch.tensor([43, 60]))
        whole = reader(features[1:])
    assert alone.shape == (1, 8)
    np.testing.assert_allclose(padded, torch.cat([alone, whole]), atol=1e-5)


def test_a_shared_model_hears_once() -> None:
    config = ModelConfig(
        name="toy",
        encoder=EncoderConfig(kind="whisper", config=SIZES | {"hidden_size": 32}),
        wav2sem=Wav2SemConfig(config=READER, target_dim=8, shared=True),
        host=FaceFormerChannels(look_ahead=2),
        channels=("jawOpen", "mouthPucker"),
        styles=("natural", "clear", "mumbled"),
        articulation=("mumbled", "clear"),
        phones=("SIL", "P", "AA"),
    )
    assert ModelConfig.from_json(config.to_json()) == config and config.one_encoder
    model = FaceModel(config).eval()
    with torch.no_grad():
        features, phones = model.hear(torch.randn(1, 100, 80))
        assert model.wav2sem(features).shape == (1, 8)
    assert features.shape == (1, 50, 32) and phones.shape == (1, 50, 3)
    np.testing.assert_allclose(phones.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("n_frames", (1, 2, 5, 30, 31, 95))
@pytest.mark.parametrize("look_ahead", (0, 4))
def test_the_decoder_is_the_network_clipped(n_frames: int, look_ahead: int) -> None:
    torch.manual_seed(n_frames)
    host = FaceFormerChannels(look_ahead=look_ahead)
    network = host.network(5, 3).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    decoder = host.decoder({key: value.numpy() for key, value in network.state_dict().items()})
    memory, style = torch.randn(1, n_frames, 64), torch.tensor([[0.3, 0.7, 0.0]])
    with torch.no_grad():
        free = network(memory, style)[0].numpy()
    weights = decoder.decode(memory[0].numpy(), style[0].numpy())
    np.testing.assert_allclose(weights, free.clip(0, 1), atol=1e-6)
    assert free.min() < 0 <= weights.min()


def test_a_frame_sees_what_comes_after_it() -> None:
    torch.manual_seed(0)
    network = FaceFormerChannels(look_ahead=4).network(5, 3).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    memory, style = torch.randn(1, 40, 64), torch.eye(3)[:1]
    later = memory.clone()
    later[:, 20] += 1
    with torch.no_grad():
        changed = (network(memory, style) - network(later, style)).abs().amax((0, 2))
    assert changed[12] > 1e-6 and changed[:12].max() == 0  # 2 x 4 frames ahead, no more
