# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCA: its grid, its network against a plain loop, its variables, its loss, and where F_s enters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import given_features
from wav2sem_blender.pipeline.hosts.voca import LETTERS, RELEASES, Voca, VocaGrid
from wav2sem_blender.pipeline.phones import PHONES

FIXTURE = Path(__file__).parents[3] / "shared/fixtures/hosts/voca_formula.npz"
SMALL = Voca(features=5, conv_dims=(6, 4, 4, 7), hidden=9, keys=3)
N_STYLES, N_OUTPUTS = 2, 12
SPEECH = "VOCA/SpeechEncoder/"


def test_the_published_sizes() -> None:
    release = RELEASES["voca"]
    assert len(release.styles) == 8 and release.n_vertices == 5023 and release.host.grid.fps == 60


@pytest.mark.parametrize(("n_samples", "n_frames"), [(16_000, 60), (16_133, 60), (16_134, 61), (25_600, 96)])
def test_frames_are_counted_from_the_duration_and_read_by_the_clock(n_samples: int, n_frames: int) -> None:
    """As np.interp of the two time axes, which holds the last value."""
    positions_T = VocaGrid(fps=60).positions(n_samples)
    assert len(positions_T) == n_frames
    values_L = np.random.default_rng(0).normal(size=n_samples // 320)
    expected_T = np.interp(np.arange(n_frames) / 60, np.arange(len(values_L)) / 50, values_L)
    np.testing.assert_allclose(np.interp(positions_T, np.arange(len(values_L)), values_L), expected_T, atol=1e-12)


def test_json_gives_the_settings_back() -> None:
    assert Voca(conv_dims=[32, 32, 64, 64]) == Voca()  # type: ignore[arg-type]


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        self.torch = pytest.importorskip("torch")
        self.torch.manual_seed(0)

    def network(self):
        network = SMALL.network(N_OUTPUTS, N_STYLES)
        self.torch.nn.init.normal_(network.expression_offset.weight, std=0.3)
        norm = network.batch_norm
        for tensor, value in ((norm.running_mean, 0.3), (norm.running_var, 2.0), (norm.weight, 1.5), (norm.bias, -0.2)):
            tensor.data.fill_(value)
        return network.eval()

    def published(self) -> dict[str, np.ndarray]:
        from wav2sem_blender.pipeline.nn.voca import to_published

        return to_published(self.network().state_dict())

    def test_it_equals_a_plain_loop_over_tensorflows_variables(self) -> None:
        from wav2sem_blender.pipeline.nn.voca import from_published

        state = self.published()
        rng = np.random.default_rng(0)
        memory_BTD = rng.normal(size=(2, 21, SMALL.features)).astype(np.float32)
        style_BN = np.eye(N_STYLES, dtype=np.float32)[[1, 0]]
        with self.torch.no_grad():
            found_BTX = from_published("voca", state)(*map(self.torch.from_numpy, (memory_BTD, style_BN)))
        expected_BTX = [
            plain(state, memory_TD, style_N) for memory_TD, style_N in zip(memory_BTD, style_BN, strict=True)
        ]
        np.testing.assert_allclose(found_BTX, expected_BTX, atol=2e-6)

    def test_golden_values(self) -> None:
        if not FIXTURE.is_file():
            pytest.skip("../shared/fixtures is not here")
        from trainer.host_checks import check_host

        assert check_host("voca_formula", FIXTURE)["prediction"] < 1e-5

    def test_variables_go_there_and_back_and_adams_are_left_out(self) -> None:
        from wav2sem_blender.pipeline.nn.voca import OFFICIAL_NAMES, from_published, to_published

        state = self.published()
        shapes = {name.removeprefix("VOCA/"): value.shape for name, value in state.items()}
        assert shapes["SpeechEncoder/conv1/weights"] == (3, 1, SMALL.features + N_STYLES, 6)
        assert shapes["SpeechEncoder/fc1/weights"] == (7 + N_STYLES, 9)
        assert shapes["ExpressionLayer/expression_offset/weights"] == (3, N_OUTPUTS)
        assert shapes["SpeechEncoder/batch_norm/moving_variance"] == (1,)
        training = {f"{name}/Adam_1": value for name, value in state.items()}
        training |= {"beta1_power": np.float32(0.9), "global_step": np.int64(7)}
        again = to_published(from_published("voca", state | training).state_dict())
        assert again.keys() == state.keys() == set(OFFICIAL_NAMES.values())
        assert all(np.array_equal(again[name], state[name]) for name in state)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({f"{SPEECH}fc2/weights": None}, f"weight {SPEECH}fc2/weights is missing"),
            ({"VOCA/Other/weights": np.zeros(3)}, "weight VOCA/Other/weights is unknown"),
            ({f"{SPEECH}fc2/weights": np.zeros((8, 3))}, r"fc2.weight has the shape \(3, 8\); \(3, 9\)"),
            ({f"{SPEECH}conv1/weights": np.zeros((3, 1, 2, 6))}, "fc1/weights and .*conv1/weights do not fit"),
        ],
        ids=["missing", "unknown", "shape", "too narrow"],
    )
    def test_what_does_not_fit_is_named(self, changed: dict[str, np.ndarray | None], message: str) -> None:
        from wav2sem_blender.pipeline.nn.voca import from_published

        state = {name: value for name, value in (self.published() | changed).items() if value is not None}
        with pytest.raises(UserError, match=message):
            from_published("voca", state)

    def test_the_loss_sums_over_xyz_and_weighs_velocity_tenfold(self) -> None:
        from wav2sem_blender.pipeline.nn.host_network import Example

        network = self.network()
        memory_BTD, style_BN = self.torch.randn(2, 6, SMALL.features), self.torch.eye(N_STYLES)
        target_BTX = self.torch.randn(2, 6, N_OUTPUTS)
        with self.torch.no_grad():
            loss = network.loss(Example(memory_BRM=memory_BTD, style_BN=style_BN, target_BTX=target_BTX))
            off = (network(memory_BTD, style_BN) - target_BTX).numpy().reshape(2, 6, -1, 3)
        position = np.mean([(off[b, t, v] ** 2).sum() for b in range(2) for t in range(6) for v in range(4)])
        steps = [((off[b, t + 1, v] - off[b, t, v]) ** 2).sum() for b in range(2) for t in range(5) for v in range(4)]
        assert float(loss) == pytest.approx(position + 10 * np.mean(steps), rel=1e-5)

    def test_the_keys_make_the_same_vertices(self) -> None:
        """Exactly, although fewer than the hidden units; and every weight is in -1 … 1."""
        network = self.network()
        memory_BTD, style_BN = 3 * self.torch.randn(1, 40, SMALL.features), self.torch.eye(N_STYLES)[:1]
        with self.torch.no_grad():
            expected_TX = network(memory_BTD, style_BN)[0]
            keys = network.on_keys()
            on_keys = keys.host.network(len(keys.channels), N_STYLES).eval()
            on_keys.load_state_dict(keys.state)
            weights_TK = on_keys(memory_BTD, style_BN)[0]
        assert keys.channels == ("key_00", "key_01", "key_02", "bias") and keys.host == SMALL
        np.testing.assert_allclose(
            np.einsum("tk,kvx->tvx", weights_TK, keys.basis_KV3).reshape(40, -1), expected_TX, atol=1e-6
        )
        assert weights_TK.abs().max() <= 1 and (weights_TK[:, -1] == 1).all() and not keys.error

    def test_a_long_recording_in_pieces_equals_the_whole(self, monkeypatch) -> None:
        from wav2sem_blender.pipeline.nn import voca

        monkeypatch.setattr(voca, "FRAMES_AT_ONCE", 16)
        network, done = self.network(), []
        memory_BTD, style_BN = self.torch.randn(2, 70, SMALL.features), self.torch.eye(N_STYLES)
        with self.torch.no_grad():
            found_BTX = network.generate(memory_BTD, style_BN, 0, done.append)
            np.testing.assert_allclose(found_BTX, network(memory_BTD, style_BN), atol=1e-6)
        assert done == [16 / 70, 32 / 70, 48 / 70, 64 / 70, 1.0]

    def imported(self, tmp_path: Path, kind: str = "voca", extra: dict[str, np.ndarray] | None = None) -> Path:
        pytest.importorskip("transformers")
        from wav2sem_blender.pipeline.nn.voca import to_published
        from wav2sem_blender.pipeline.official import import_official

        network = RELEASES[kind].host.network(15069, 8)
        network.fc1.weight.data.mul_(10)
        self.torch.nn.init.normal_(network.expression_offset.weight, std=0.1)
        network.batch_norm.running_mean.fill_(-3.0)
        network.batch_norm.running_var.fill_(9.0)
        file = tmp_path / "variables.npz"
        np.savez(file, **to_published(network.state_dict()), **(extra or {}))
        return import_official(file, kind, tmp_path / kind)

    def test_a_file_of_variables_there_and_back_moves_the_same(self, tmp_path: Path) -> None:
        from wav2sem_blender.pipeline.checkpoint import ModelFolder
        from wav2sem_blender.pipeline.official import export_official

        folder = ModelFolder.open(self.imported(tmp_path))
        assert folder.config.channels == (*(f"key_{i:02d}" for i in range(50)), "bias")
        assert folder.config.encoder.config["source"] == "file" and folder.config.provenance == {"imported": "voca"}
        (again,) = export_official(folder, tmp_path)
        memory_TD = np.random.default_rng(0).normal(-3, 3, (5, 29)).astype(np.float32)
        with np.load(tmp_path / "variables.npz") as before, np.load(again) as after:
            assert set(after) == set(before)
            one, other = (plain(dict(state), memory_TD, np.eye(8)[3]) for state in (before, after))
        np.testing.assert_allclose(other, one, atol=1e-6)
        assert np.abs(one).max() > 0.05

    def test_a_wav2sem_comes_along_and_goes_back(self, tmp_path: Path, monkeypatch) -> None:
        from tests.unit.released_files import SENTENCE_DIM, beside_wav2sem
        from wav2sem_blender.pipeline import SpeechAnimator
        from wav2sem_blender.pipeline.official import export_official

        fused = {name: value.numpy() for name, value in beside_wav2sem(monkeypatch, 29).items()}
        animator = SpeechAnimator.load(self.imported(tmp_path, extra=fused), engine="torch", device="cpu")
        assert animator.folder.tensors()["fusion.semantic_feature_map.weight"].shape == (29, SENTENCE_DIM)
        waveform_S = np.random.default_rng(0).normal(size=16_000)
        np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(-3, 3, (50, 29)).astype(np.float32))
        motions = [
            animator.animate(waveform_S, 16_000, semantic_strength=strength, features=tmp_path / "x.npy")
            for strength in (0.0, 1.0)
        ]
        assert np.abs(motions[1].weights_TK - motions[0].weights_TK).max() > 1e-4
        (written,) = export_official(animator.folder, tmp_path)
        with np.load(written) as back:
            assert all(np.array_equal(back[name], value) for name, value in fused.items())
        del fused["bert_feature_map.bias"]
        with pytest.raises(UserError, match="variables.npz: the key bert_feature_map.bias is missing"):
            self.imported(tmp_path, extra=fused)

    def test_it_reads_logits_beside_the_recording_at_its_own_times(self, tmp_path: Path) -> None:
        import soundfile

        from wav2sem_blender.pipeline import SpeechAnimator

        recording = tmp_path / "speech.wav"
        soundfile.write(recording, np.random.default_rng(0).normal(0, 0.1, 24_000), 16_000)
        animator = SpeechAnimator.load(self.imported(tmp_path))
        with pytest.raises(UserError, match=r"speech.npy: missing. This model reads DeepSpeech's logits .* 29 values"):
            animator.animate_file(recording)
        logits_LD = np.random.default_rng(1).normal(-3, 3, (75, 29)).astype(np.float32)
        np.save(tmp_path / "speech.npy", logits_LD[:, None])
        motion = animator.animate_file(recording, style=2)
        memory_TD = np.stack([np.interp(np.arange(90) / 60, np.arange(75) / 50, column) for column in logits_LD.T], 1)
        with np.load(tmp_path / "variables.npz") as state:
            expected_TX = plain(dict(state), memory_TD, np.eye(8)[2])
        assert motion.fps == 60 and motion.info["notes"] == "DeepSpeech's logits were read from speech.npy."
        np.testing.assert_allclose(motion.vertex_offsets().reshape(90, -1), expected_TX, atol=2e-6)
        np.savez(tmp_path / "named.npz", logits=logits_LD)
        named = animator.animate_file(recording, style=2, features=tmp_path / "named.npz")
        np.testing.assert_array_equal(named.weights_TK, motion.weights_TK)
        with pytest.raises(UserError, match="audio: this model reads DeepSpeech.s logits .* in memory"):
            animator.animate(logits_LD[:, 0].repeat(320), 16_000)

    def test_the_stand_in_hears_by_the_bundled_model_and_says_so(self, tmp_path: Path) -> None:
        from wav2sem_blender.assets import DEMO_SPEECH
        from wav2sem_blender.pipeline import SpeechAnimator
        from wav2sem_blender.pipeline.checkpoint import ModelFolder
        from wav2sem_blender.pipeline.official import export_official

        folder = self.imported(tmp_path, "voca-stand-in")
        assert ModelFolder.open(folder).config.encoder.config["source"] == "stand-in"
        animator = SpeechAnimator.load(folder)
        motion = animator.animate_file(DEMO_SPEECH)
        assert "phones stand in for DeepSpeech's logits" in motion.info["notes"]
        assert motion.phones is not None and motion.weights_TK[:, :-1].std(0).max() > 1e-3
        with pytest.raises(UserError, match="this model hears by a stand-in"):
            export_official(ModelFolder.open(folder), tmp_path)

    def test_the_stand_ins_letters_have_the_scale_of_the_logits(self) -> None:
        from wav2sem_blender.pipeline.official.voca import stand_in_layer

        layer = stand_in_layer(self.torch.tensor([-3.0]), self.torch.tensor([9.0]))
        weight_DP, bias_D = layer["audio_encoder.projection.weight"], layer["audio_encoder.projection.bias"]
        letters_PD = weight_DP.T + bias_D
        assert float(letters_PD.mean()) == pytest.approx(-3, abs=1e-4)
        assert float(letters_PD.var(correction=0)) == pytest.approx(9, rel=1e-4)
        for phone in "BFM":
            assert LETTERS[letters_PD[PHONES.index(phone)].argmax()] == phone.lower()

    def test_the_sentence_is_added_to_the_logits_at_60_hz_before_the_zeros_around_them(self) -> None:
        """FC = 0 is the plain host, and any FC the plain host on H + FC(F_s)."""
        pytest.importorskip("transformers")
        from wav2sem_blender.pipeline.checkpoint import ModelConfig, Wav2SemConfig
        from wav2sem_blender.pipeline.nn.face_model import FaceModel

        tiny = {"conv_dim": [8] * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        tiny |= {"intermediate_size": 16, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        config = ModelConfig(
            name="voca",
            encoder=given_features.encoder("x", SMALL.features, stand_in=False),
            wav2sem=Wav2SemConfig(config=tiny, target_dim=6),
            host=SMALL,
            channels=("a", "b", "c"),
            styles=("one", "two"),
        )
        assert ModelConfig.from_json(config.to_json()) == config
        model = FaceModel(config).eval()
        self.torch.nn.init.normal_(model.decoder.expression_offset.weight, std=3)
        logits_BLD, waveform_BS = self.torch.randn(1, 50, SMALL.features), self.torch.randn(1, 16_000)
        positions_BT = self.torch.from_numpy(SMALL.grid.positions(16_000)).float()[None]
        style_BN, inner = self.torch.eye(2)[:1], model.fusion.semantic_feature_map
        assert inner.weight.shape == (SMALL.features, 6)
        with self.torch.no_grad():
            semantic_BTE = model.semantics(waveform_BS)
            at_60_hz = [np.interp(positions_BT[0], np.arange(50), column) for column in logits_BLD[0].T]
            plain_BTD = self.torch.tensor(np.stack(at_60_hz, 1), dtype=self.torch.float32)[None]
            found = model.decoder(model.memory(logits_BLD, positions_BT, semantic_BTE), style_BN)
            expected = model.decoder(plain_BTD + inner(semantic_BTE), style_BN)
            assert (expected - model.decoder(plain_BTD, style_BN)).abs().max() > 1e-3
            np.testing.assert_allclose(found, expected, atol=1e-5)
            inner.weight.zero_()
            inner.bias.zero_()
            found = model.decoder(model.memory(logits_BLD, positions_BT, semantic_BTE), style_BN)
            np.testing.assert_allclose(found, model.decoder(plain_BTD, style_BN), atol=1e-5)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((50, 28), np.float32), r"float32 of the shape \(50, 28\); floats of the shape \(frames, 29\)"),
        (np.zeros((50, 29), np.int16), "int16 of the shape"),
        (np.zeros((80, 29), np.float32), "80 frames are 1.60 s at 50 a second, but the recording has 1.00 s"),
        (np.full((50, 29), np.nan, np.float32), "some values are NaN"),
        (np.array([{}]), "not one array of NumPy"),
    ],
    ids=["width", "type", "length", "NaN", "pickle"],
)
def test_wrong_feature_files_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=f"x.npy: {message}"):
        given_features.read_features(tmp_path / "x.npy", 29, 1.0)


def test_a_part_of_a_recording_reads_its_part_of_the_file(tmp_path: Path) -> None:
    logits_LD = np.random.default_rng(0).normal(size=(100, 29)).astype(np.float32)
    np.save(tmp_path / "x.npy", logits_LD)
    part_LD = given_features.read_features(tmp_path / "x.npy", 29, 0.5, begins_s=1.006)
    np.testing.assert_array_equal(part_LD, logits_LD[50:75])
    with pytest.raises(UserError, match="100 frames are 2.00 s at 50 a second, but the recording has 3.10 s"):
        given_features.read_features(tmp_path / "x.npy", 29, 1.6, begins_s=1.5)


def plain(state: dict[str, np.ndarray], memory_TD: np.ndarray, style_N: np.ndarray) -> np.ndarray:
    """VOCA one window and one output frame at a time, in double precision: offsets (T, X)."""
    speech = {name.removeprefix(SPEECH): value.astype(np.float64) for name, value in state.items()}
    frames = []
    zeros = np.zeros((8, memory_TD.shape[1]))
    padded = np.concatenate([zeros, memory_TD, zeros])
    for t in range(len(memory_TD)):
        window = padded[t : t + 16]
        norm = {name: speech[f"batch_norm/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")}
        window = (window - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-5) * norm["gamma"] + norm["beta"]
        x = np.concatenate([window, np.tile(style_N, (16, 1))], 1)
        for i in range(1, 5):
            weights, biases = speech[f"conv{i}/weights"], speech[f"conv{i}/biases"]
            x = np.concatenate([x, np.zeros((1, x.shape[1]))])
            halves = [sum(x[2 * j + k] @ weights[k, 0] for k in range(3)) for j in range(len(x) // 2)]
            x = np.maximum(np.array(halves) + biases, 0)
        h = np.tanh(np.concatenate([x.ravel(), style_N]) @ speech["fc1/weights"] + speech["fc1/biases"])
        h = h @ speech["fc2/weights"] + speech["fc2/biases"]
        offset = "VOCA/ExpressionLayer/expression_offset"
        frames.append(h @ state[f"{offset}/weights"] + state[f"{offset}/biases"])
    return np.array(frames)
