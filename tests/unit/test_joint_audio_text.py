# SPDX-License-Identifier: GPL-3.0-or-later
"""The joint audio-text re-derivation: where the text enters, what it is read from, and how errors are weighed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer
from wav2sem_blender.pipeline.hosts.joint_audio_text import JointAudioText

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sf = pytest.importorskip("soundfile")

TINY = {"conv_dim": [8] * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY |= {"intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
N_TEXT, RATE_HZ = 5, 16_000


def described(host: FaceFormer):
    from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig

    return ModelConfig(
        name="joint",
        encoder=EncoderConfig(kind="wav2vec2", config=TINY),
        wav2sem=None,
        host=host,
        channels=("a", "b"),
        styles=("one",),
    )


def random_model(host: FaceFormer, seed: int = 0):
    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    torch.manual_seed(seed)
    model = FaceModel(described(host)).eval()
    torch.nn.init.normal_(model.decoder.motion_head.weight, std=0.3)
    return model


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """One second of sound."""
    sf.write(tmp_path / "clip.wav", np.random.default_rng(0).normal(0, 0.1, RATE_HZ), RATE_HZ)
    return tmp_path / "clip.wav"


@pytest.fixture
def animator(tmp_path: Path):
    from wav2sem_blender.pipeline import SpeechAnimator
    from wav2sem_blender.pipeline.checkpoint import save_model

    model = random_model(JointAudioText(text_dim=N_TEXT))
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    save_model(tmp_path / "model", model.config, tensors)
    return SpeechAnimator.load(tmp_path / "model", engine="torch")


def write_text(file: Path, seed: int, n_frames: int = 49) -> np.ndarray:
    features_LE = np.random.default_rng(seed).standard_normal((n_frames, N_TEXT)).astype(np.float16)
    np.save(file, features_LE)
    return features_LE.astype(np.float32)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_text_is_added_to_the_encoders_states_frame_by_frame(scale: float) -> None:
    """FC = 0 equals FaceFormer; any FC equals FaceFormer on H + FC(text)."""
    joint, plain = random_model(JointAudioText(text_dim=N_TEXT)), random_model(FaceFormer())
    state = joint.state_dict()
    plain.load_state_dict({name: value for name, value in state.items() if "semantic_feature_map" not in name})
    inner = joint.fusion.semantic_feature_map
    torch.nn.init.normal_(inner.weight, std=scale)
    torch.nn.init.zeros_(inner.bias)
    waveform, text = torch.randn(1, RATE_HZ), torch.randn(1, 29, N_TEXT)
    positions = torch.from_numpy(joint.config.host.grid.positions(RATE_HZ)).float()[None]
    with torch.no_grad():
        told = joint.memory(waveform, positions, text)
        features = joint.features(joint.convolved(waveform, positions), positions)
        expected = plain.fusion(features + text @ inner.weight.T)
        untold = plain.memory(waveform, positions, None)
    np.testing.assert_allclose(told, expected, atol=1e-5)
    assert torch.equal(told, untold) == (scale == 0)


def test_text_is_read_beside_the_recording_at_the_nearest_frames(animator, recording: Path) -> None:
    features_LE = write_text(recording.with_suffix(".text.npy"), 1)
    first = animator.animate_file(recording)
    model = random_model(JointAudioText(text_dim=N_TEXT))
    samples, _ = sf.read(recording, dtype="float32")
    heard = (samples - samples.mean()) / (samples.var() + 1e-7) ** 0.5
    positions_R = model.config.host.grid.positions(RATE_HZ)
    with torch.no_grad():
        memory = model.memory(
            torch.from_numpy(heard)[None],
            torch.from_numpy(positions_R).float()[None],
            torch.from_numpy(features_LE[[round(at) for at in positions_R]])[None],
        )
        expected_TK = model.decoder(memory, torch.ones(1, 1))[0]
    np.testing.assert_allclose(first.weights_TK, expected_TK, atol=1e-4)
    assert "clip.text.npy" in first.info["notes"]
    write_text(recording.with_suffix(".text.npy"), 2)
    assert np.abs(animator.animate_file(recording).weights_TK - first.weights_TK).max() > 0.01


def test_without_a_text_the_file_is_named_and_strength_0_needs_none(animator, recording: Path) -> None:
    with pytest.raises(MissingFileError, match=r"clip.text.npy: missing. .* the text's token features .* 5 values"):
        animator.animate_file(recording)
    silent = animator.animate_file(recording, semantic_strength=0)
    np.save(recording.with_suffix(".text.npy"), np.zeros((49, N_TEXT), np.float32))
    assert np.array_equal(silent.weights_TK, animator.animate_file(recording).weights_TK)
    write_text(recording.with_suffix(".text.npy"), 1, n_frames=149)
    with pytest.raises(UserError, match=r"149 frames are 2.98 s .* the recording has 1.00 s"):
        animator.animate_file(recording)


def test_errors_in_the_upper_face_count_more() -> None:
    from wav2sem_blender.pipeline.nn.host_network import Example
    from wav2sem_blender.pipeline.nn.joint_audio_text import UpperFaceLoss

    loss = UpperFaceLoss(9, np.array([2, 2]), 4.0)  # three vertices, the last is upper face; weights 0.5, 0.5, 2
    rest_BTX = torch.zeros(1, 2, 9)
    error_BTX = rest_BTX.clone()
    error_BTX[..., 1] = 3.0
    assert loss(error_BTX, rest_BTX).item() == pytest.approx(0.5 * 9 / 9)
    assert loss(error_BTX.roll(6, -1), rest_BTX).item() == pytest.approx(2 * 9 / 9)
    assert loss(rest_BTX + 2, rest_BTX).item() == pytest.approx(4.0)

    torch.manual_seed(0)
    network = JointAudioText(feedback="cached", upper_weight=4.0).network(9, 1).eval()
    example = Example(memory_BRM=torch.randn(1, 2, 64), style_BN=torch.ones(1, 1), target_BTX=error_BTX.roll(6, -1))
    names = set(network.state_dict())
    plain = network.loss(example).item()
    network.weigh(np.array([2]))
    assert network.loss(example).item() == pytest.approx(2 * plain, rel=1e-5)
    assert set(network.state_dict()) == names


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings in ({"text_dim": 0}, {"upper_weight": 0.5}):
        with pytest.raises(UserError, match="must be at least 1"):
            JointAudioText(**settings)
    assert JointAudioText().at_rate(25) == JointAudioText(fps=25, period=25, memory_per_frame=2)
    assert JointAudioText().text_width == 768 and FaceFormer().text_width == 0
