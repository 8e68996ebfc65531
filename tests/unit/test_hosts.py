# SPDX-License-Identifier: GPL-3.0-or-later
"""The host seam: its table, its frame grids, the loss, and where F_s enters a host that differs from FaceFormer."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.checkpoint_kinds import CHECKPOINT_KINDS
from wav2sem_blender.pipeline.frame_timing import FrameGrid, encoder_frames
from wav2sem_blender.pipeline.hosts import HOSTS, host_class, host_module
from wav2sem_blender.pipeline.hosts.faceformer import FEEDBACK, RELEASES, FaceFormer
from wav2sem_blender.pipeline.hosts.faceformer_channels import FaceFormerChannels, FaceWeights

VOCASET, BIWI = RELEASES["faceformer-vocaset"].host, RELEASES["faceformer-biwi"].host


@pytest.mark.parametrize("kind", HOSTS)
def test_a_host_is_its_settings_and_its_module_is_its_kind(kind: str) -> None:
    settings = host_class(kind)
    assert kind == settings.KIND and settings.__module__ == host_module(kind).__name__
    assert settings.__dataclass_params__.frozen
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(settings))


def test_every_published_face_is_described_by_its_host() -> None:
    hosts = {kind.host for kind in CHECKPOINT_KINDS if kind.host}
    assert "faceformer" in hosts <= set(HOSTS)
    for host in hosts:
        listed = {kind.name for kind in CHECKPOINT_KINDS if kind.host == host}
        assert listed == set(host_module(host).RELEASES)
        assert all(host == release.host.KIND for release in host_module(host).RELEASES.values())


def test_settings_cost_no_torch() -> None:
    names = ", ".join(f"hosts.host_class({kind!r})()" for kind in HOSTS)
    code = f"import sys; from wav2sem_blender.pipeline import hosts; {names}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_unknown_kinds_and_rates_are_named() -> None:
    for kind in ("nothing", None, ["faceformer"]):
        with pytest.raises(UserError, match="unknown host kind .* knows .*faceformer, faceformer_channels"):
            host_class(kind)
    with pytest.raises(UserError, match="faceformer_channels at 24 fps with 1 memory frames"):
        FaceFormerChannels().at_rate(24)


def test_a_host_at_another_rate_is_the_published_one() -> None:
    assert VOCASET.at_rate(30) == VOCASET and BIWI.at_rate(25) == BIWI
    assert replace(VOCASET, dim=128, ffn_dim=256).at_rate(25) == BIWI


@pytest.mark.parametrize("n_samples", [400, 720, 16_000, 16_320, 400 + 320 * 204, 320_000])
def test_grids(n_samples: int) -> None:
    n_enc_frames = encoder_frames(n_samples)
    interpolated, paired = VOCASET.grid, BIWI.grid
    assert paired.animation_frames(n_samples) == n_enc_frames // 2
    assert paired.positions(n_samples).tolist() == list(range(2 * (n_enc_frames // 2)))
    positions_R = interpolated.positions(n_samples)
    assert len(positions_R) == interpolated.animation_frames(n_samples) == int(n_enc_frames / 50.0 * 30)
    if len(positions_R) > 1:
        assert positions_R[0] == 0 and positions_R[-1] == n_enc_frames - 1
        np.testing.assert_allclose(np.diff(positions_R), (n_enc_frames - 1) / (len(positions_R) - 1), atol=1e-12)


def test_a_grid_may_interpolate_and_pair() -> None:
    """FaceDiffuser on VOCASET: features are resampled to two for each animation frame."""
    grid = FrameGrid(fps=30, memory_per_frame=2, before_transformer=False)
    assert grid.positions(16_000, 25).tolist() == np.linspace(0, 48, 50).tolist()


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")

    def decoder(self, host: FaceFormer, n_outputs: int = 12):
        self.torch.manual_seed(0)
        decoder = host.network(n_outputs, 2).eval()
        self.torch.nn.init.normal_(decoder.motion_head.weight, std=0.3)
        return decoder

    @pytest.mark.parametrize("host", [VOCASET, BIWI], ids=["VOCASET", "BIWI"])
    def test_what_a_host_decodes_is_what_its_network_predicts(self, host) -> None:
        network = self.decoder(host)
        memory_1RM = self.torch.randn(1, 20 * host.memory_per_frame, host.dim)
        with self.torch.no_grad():
            expected_TX = network(memory_1RM, self.torch.eye(2)[:1])[0]
        decoder = host.decoder({name: value.numpy() for name, value in network.state_dict().items()})
        done: list[float] = []
        decoded_TX = decoder.decode(memory_1RM[0].numpy(), np.eye(2)[0], 7, done.append)
        np.testing.assert_allclose(decoded_TX, expected_TX, atol=1e-5)
        assert done == [0.0]

    @pytest.mark.parametrize("feedback", FEEDBACK)
    def test_the_loss_compares_the_prediction_of_the_settings_feedback(self, feedback: str) -> None:
        from wav2sem_blender.pipeline.nn.host_network import Example

        network = self.decoder(FaceFormer(feedback=feedback))
        memory_BRM, style_BN = self.torch.randn(2, 9, 64), self.torch.eye(2)
        target_BTX = self.torch.randn(2, 9, 12)
        with self.torch.no_grad():
            predicted = {
                "published": network.recomputed(memory_BRM, style_BN),
                "cached": network(memory_BRM, style_BN),
                "teacher": network(memory_BRM, style_BN, target_BTX),
            }
            expected = {name: float((value - target_BTX).square().mean()) for name, value in predicted.items()}
            loss = network.loss(Example(memory_BRM=memory_BRM, style_BN=style_BN, target_BTX=target_BTX))
        assert float(loss) == pytest.approx(expected[feedback], rel=1e-6)
        assert abs(expected["teacher"] - expected["cached"]) > 1e-3

    def test_the_bundled_models_loss_is_the_faces_and_is_not_saved(self) -> None:
        from wav2sem_blender.pipeline.nn.face_loss import FaceLoss
        from wav2sem_blender.pipeline.nn.host_network import Example

        network = self.decoder(FaceFormerChannels(), 3)
        names = set(network.state_dict())
        rng = np.random.default_rng(0)
        basis_KV3, gap_K = rng.normal(0, 0.01, (3, 5023, 3)).astype(np.float32), rng.normal(0, 0.01, 3)
        network.criterion = FaceLoss(FaceWeights(), basis_KV3, gap_K)
        assert set(network.state_dict()) == names
        memory_BRM, style_BN = self.torch.randn(2, 9, 64), self.torch.eye(2)
        target_BTX = self.torch.rand(2, 9, 3)
        with self.torch.no_grad():
            loss = network.loss(Example(memory_BRM=memory_BRM, style_BN=style_BN, target_BTX=target_BTX))
            expected = FaceLoss(FaceWeights(), basis_KV3, gap_K)(network(memory_BRM, style_BN), target_BTX)
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)

    def test_a_host_may_read_behind_the_transformer_and_take_the_features_themselves(self, monkeypatch) -> None:
        """UniTalker reads behind the encoder; FaceDiffuser projects pairs itself. FC(F_s) is added all the same."""
        pytest.importorskip("transformers")
        from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, Wav2SemConfig
        from wav2sem_blender.pipeline.nn.encoders import encode, resample_features
        from wav2sem_blender.pipeline.nn.face_model import FaceModel

        class Behind(FaceFormer):
            grid = FrameGrid(fps=30, before_transformer=False)
            memory_width = None

        tiny = {"conv_dim": [8] * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        tiny |= {"intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        config = ModelConfig(
            name="behind",
            encoder=EncoderConfig(kind="hubert", config=tiny),
            wav2sem=Wav2SemConfig(config=tiny, target_dim=5),
            host=Behind(),
            channels=("a",),
            styles=("one",),
        )
        self.torch.manual_seed(0)
        model = FaceModel(config).eval()
        waveform_BS = self.torch.randn(1, 16_000)
        positions_BR = self.torch.from_numpy(config.host.grid.positions(16_000)).float()[None]
        with self.torch.no_grad():
            semantic_BTE = model.semantics(waveform_BS)
            memory_BRD = model.memory(waveform_BS, positions_BR, semantic_BTE)
            hidden_BLD, _ = encode(model.audio_encoder, waveform_BS)
            added_B1D = model.fusion.semantic_feature_map(semantic_BTE)
            before_BRD, _ = encode(model.audio_encoder, waveform_BS, positions_BR)
        expected_BRD = resample_features(hidden_BLD, positions_BR) + added_B1D
        assert memory_BRD.shape == (1, 29, 16)
        np.testing.assert_allclose(memory_BRD, expected_BRD, atol=1e-6)
        assert (before_BRD + added_B1D - memory_BRD).abs().mean() > 0.01
