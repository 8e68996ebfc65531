# SPDX-License-Identifier: GPL-3.0-or-later
"""Imitator: its cached decoding against a plain loop, its keys, its loss, and where F_s enters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from trainer.host_checks import check_host  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline.hosts.imitator import RELEASES, Imitator  # noqa: E402
from wav2sem_blender.pipeline.nn import alignment, codec  # noqa: E402
from wav2sem_blender.pipeline.nn.host_network import Example  # noqa: E402
from wav2sem_blender.pipeline.nn.imitator import ImitatorNetwork, from_published  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import SemanticFusion  # noqa: E402

from .released_files import TINY, beside_wav2sem, released_encoder  # noqa: E402, TID252

GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "hosts" / "imitator.npz"
WIDTH, N_OUTPUTS, N_STYLES = 16, 12, 3
STYLE = torch.tensor([[0.2, 0.5, 0.3]])


def network(fps: int = 30) -> ImitatorNetwork:
    """A small one of random weights, none of them 0."""
    torch.manual_seed(0)
    made = Imitator(dim=WIDTH).at_rate(fps).network(N_OUTPUTS, N_STYLES).eval()
    for parameter in made.parameters():
        if not parameter.any() or parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def memory(n_frames: int, fps: int = 30) -> torch.Tensor:
    return torch.randn(1, n_frames * (2 if fps == 25 else 1), WIDTH, generator=torch.Generator().manual_seed(1))


def plain(made: ImitatorNetwork, memory_1RM: torch.Tensor, style_1N: torch.Tensor) -> torch.Tensor:
    """The released loop: the whole prefix at every step, positions by the batch index, motion once at the end."""
    layer = made.transformer_decoder.layers[0]
    per_frame = made.config.grid.memory_per_frame
    n_frames = memory_1RM.shape[1] // per_frame
    position = torch.tensor([[[float(i % 2) for i in range(WIDTH)]]])  # sine and cosine of 0
    fed = torch.zeros(1, 1, WIDTH)
    for t in range(1, n_frames + 1):
        future = torch.ones(t, t, dtype=torch.bool).triu(1)
        other = torch.ones(t, memory_1RM.shape[1], dtype=torch.bool)
        for i in range(t):
            other[i, i * per_frame : (i + 1) * per_frame] = False
        hidden = layer(fed + position, memory_1RM, tgt_mask=future, memory_mask=other)
        fed = torch.cat([fed, hidden[:, -1:]], 1)
    x = hidden + F.linear(style_1N, made.obj_vector.weight)
    weights = dict(made.vertice_map_r.decoder.named_parameters())
    for i in range(4):
        x = F.leaky_relu(F.linear(x, weights[f"{2 * i}.weight"], weights[f"{2 * i}.bias"]), 0.01)
    return F.linear(x, weights["final_out_layer.weight"], weights["final_out_layer.bias"])


@pytest.mark.parametrize("fps", [30, 25])
@pytest.mark.parametrize("n_frames", [1, 2, 37])
def test_cached_decoding_equals_the_plain_loop(n_frames: int, fps: int) -> None:
    made, memory_1RM = network(fps), memory(n_frames, fps)
    with torch.no_grad():
        expected_TX = plain(made, memory_1RM, STYLE)[0]
        cached_TX, recomputed_TX = made(memory_1RM, STYLE)[0], made.recomputed(memory_1RM, STYLE)[0]
    assert expected_TX.shape == (n_frames, N_OUTPUTS) and expected_TX.abs().max() > 0.1
    np.testing.assert_allclose(cached_TX, expected_TX, atol=1e-5)
    np.testing.assert_allclose(recomputed_TX, expected_TX, atol=1e-5)


def test_progress_grows_and_no_frames_give_no_motion() -> None:
    told: list[float] = []
    network().generate(memory(95), STYLE, progress=told.append)
    assert told == [0, 30 / 95, 60 / 95, 90 / 95]
    assert network()(memory(0), STYLE).shape == (1, 0, N_OUTPUTS)


def test_a_frame_looks_back_a_limited_way_and_never_ahead(monkeypatch) -> None:
    made, memory_1RM = network(), memory(40)
    whole_TX = made(memory_1RM, STYLE)[0].detach()
    changed_1RM = memory_1RM.clone()
    changed_1RM[:, 25:] += 1
    np.testing.assert_array_equal(made(changed_1RM, STYLE)[0, :25].detach(), whole_TX[:25])
    monkeypatch.setattr(alignment, "MAX_CACHED_FRAMES", 20)
    short_TX = made(memory_1RM, STYLE)[0].detach()
    np.testing.assert_allclose(short_TX[:20], whole_TX[:20], atol=1e-6)
    assert 1e-5 < (short_TX - whole_TX).abs().max() < 0.5 * whole_TX.std()


def test_the_style_changes_the_face_and_not_the_features() -> None:
    """So a new actor's style is learnt on features that are computed once."""
    made, memory_1RM = network(), memory(20)
    with torch.no_grad():
        first, second = (made(memory_1RM, style[None]) for style in torch.eye(N_STYLES)[:2])
        of_the_first = made.vertice_map_r(made.features(memory_1RM), made.obj_vector(torch.eye(N_STYLES)[:1]))
    assert (first - second).abs().mean() > 0.01
    np.testing.assert_array_equal(first, of_the_first)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_counts_vertices_changes_and_closed_lips(weighted: bool) -> None:
    made, memory_1RM = network(), memory(9)
    target_1TX = torch.randn(1, 9, N_OUTPUTS)
    weight_1T = torch.rand(1, 9) if weighted else None
    off_TX = (plain(made, memory_1RM, STYLE) - target_1TX)[0].detach().double().numpy()
    expected = np.square(off_TX).mean() + 10 * np.square(np.diff(off_TX, axis=0)).mean()
    if weight_1T is not None:
        expected += 5 * (weight_1T[0, :, None].numpy() * np.square(off_TX)).mean()
    example = Example(memory_BRM=memory_1RM, style_BN=STYLE, target_BTX=target_1TX, weight_BT=weight_1T)
    loss = made.loss(example)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in made.parameters())


def test_dropout_reaches_the_training_loop_alone() -> None:
    made, memory_1RM = network().train(), memory(12)
    with torch.no_grad():
        noisy, again, clean = (run(memory_1RM, STYLE) for run in (made.recomputed, made.recomputed, made))
        assert (noisy - again).abs().max() > 1e-3
        np.testing.assert_array_equal(clean, made.eval()(memory_1RM, STYLE))


def test_its_columns_are_keys_without_loss() -> None:
    made, memory_1RM = network(), memory(30)
    keyed = made.on_keys()
    on_keys = keyed.host.network(len(keyed.channels), N_STYLES).eval()
    on_keys.load_state_dict(keyed.state)
    with torch.no_grad():
        expected_TX = made(memory_1RM, STYLE)[0]
        weights_TK = on_keys(memory_1RM, STYLE)[0]
    assert keyed.basis_KV3.shape == (len(keyed.channels), N_OUTPUTS // 3, 3) and keyed.channels[-1] == "bias"
    made_TX = weights_TK @ torch.from_numpy(keyed.basis_KV3).flatten(1)
    np.testing.assert_allclose(made_TX, expected_TX, atol=1e-5)
    assert keyed.error == 0 and weights_TK.abs().max() <= 1 + 1e-6
    moved_K = np.linalg.norm(keyed.basis_KV3[:-1].reshape(len(keyed.channels) - 1, -1), axis=1)
    assert (np.diff(moved_K) <= 1e-6).all()  # the first keys move the most
    back = network()
    back.load_state_dict(on_keys.on_vertices(keyed.basis_KV3))
    with torch.no_grad():
        np.testing.assert_allclose(back(memory_1RM, STYLE)[0], expected_TX, atol=1e-5)


def test_semantics_are_added_to_the_features() -> None:
    """FC = 0 is the plain host; any FC is the plain host on H + FC(F_s)."""
    torch.manual_seed(0)
    made, fusion = network(), SemanticFusion(20, WIDTH, 7)
    hidden_1RD, semantic_11E = torch.randn(1, 15, 20), torch.randn(1, 1, 7)
    with torch.no_grad():
        added_11D = fusion.semantic_feature_map(semantic_11E)
        fused = made(fusion(hidden_1RD, semantic_11E), STYLE)
        expected = plain(made, fusion.audio_feature_map(hidden_1RD + added_11D), STYLE)
        np.testing.assert_allclose(fused, expected, atol=1e-5)
        for parameter in fusion.semantic_feature_map.parameters():
            parameter.zero_()
        silent = made(fusion(hidden_1RD, semantic_11E), STYLE)
    assert (silent - fused).abs().max() > 1e-3
    np.testing.assert_allclose(silent, plain(made, fusion.audio_feature_map(hidden_1RD), STYLE).detach(), atol=1e-5)


def released(made: ImitatorNetwork) -> dict[str, torch.Tensor]:
    """A file's state dict: the network's, and what else a release holds."""
    others = {"audio_encoder.masked_spec_embed": torch.zeros(4), "PPE.pe": torch.zeros(600, 1, WIDTH)}
    others |= {"audio_feature_map.weight": torch.zeros(WIDTH, 4)}
    return {f"nn_model.{name}": value for name, value in (made.state_dict() | others).items()}


def test_a_released_file_gives_the_network() -> None:
    made = network()
    loaded = from_published("imitator-vocaset", released(made))
    with torch.no_grad():
        np.testing.assert_array_equal(loaded(memory(9), STYLE), made(memory(9), STYLE))


def test_other_files_are_refused_by_the_weight_that_differs() -> None:
    state = released(network())
    prefix = "nn_model.vertice_map_r.decoder"
    lacking = {name: value for name, value in state.items() if name != f"{prefix}.0.bias"}
    with pytest.raises(UserError, match=r"vertice_map_r\.decoder\.0\.bias is missing"):
        from_published("imitator-vocaset", lacking)
    with pytest.raises(UserError, match=r"feat_map\.weight is unknown"):
        from_published("imitator-vocaset", state | {"nn_model.feat_map.weight": torch.zeros(2)})
    with pytest.raises(UserError, match=r"decoder\.2\.weight has the shape \(3, 3\); \(16, 16\) is expected"):
        from_published("imitator-vocaset", state | {f"{prefix}.2.weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match=r"obj_vector\.weight is missing"):
        from_published("imitator-vocaset", {"audio_encoder.masked_spec_embed": torch.zeros(4)})


def test_the_released_sizes() -> None:
    release = RELEASES["imitator-vocaset"]
    shapes = {
        name: tuple(value.shape)
        for name, value in release.host.network(3 * release.n_vertices, len(release.styles)).state_dict().items()
    }
    assert shapes["vertice_map_r.decoder.final_out_layer.weight"] == (15069, 64)
    assert shapes["vertice_map_r.decoder.6.weight"] == (64, 64) and shapes["obj_vector.weight"] == (64, 8)
    assert shapes["transformer_decoder.layers.0.linear1.weight"] == (128, 64)
    assert "vertice_map_r.decoder.8.weight" not in shapes and release.host.memory_width == 64


def test_the_released_code_gives_the_same() -> None:
    if not GOLDEN.is_file():
        pytest.skip("the golden values of the released code are not here (../shared)")
    assert max(check_host("imitator", GOLDEN).values()) < 1e-5


class TestFiles:
    """Checkpoints of the released shape, with a tiny encoder."""

    WAVEFORM_S = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 100

    @pytest.fixture
    def file(self, tmp_path, monkeypatch) -> Path:
        pytest.importorskip("transformers")
        from wav2sem_blender.pipeline.checkpoint import EncoderConfig
        from wav2sem_blender.pipeline.official import imitator

        monkeypatch.setattr(imitator, "ENCODER", EncoderConfig(kind="wav2vec2", config=TINY))
        torch.manual_seed(0)
        release = RELEASES["imitator-vocaset"]
        made = release.host.network(3 * release.n_vertices, len(release.styles))
        torch.nn.init.normal_(made.vertice_map_r.head.weight, std=1e-3)
        state = made.state_dict() | released_encoder("wav2vec2", TINY)
        state |= {"audio_feature_map.weight": torch.randn(64, 16), "audio_feature_map.bias": torch.randn(64)}
        state["PPE.pe"] = codec.sinusoid(600, 64)[:, None]
        self.save(tmp_path / "general.ckpt", state)
        return tmp_path / "general.ckpt"

    @staticmethod
    def save(file: Path, state: dict) -> None:
        content = {"state_dict": {f"nn_model.{name}": value for name, value in state.items()}, "epoch": 3}
        torch.save(content, file)

    def test_the_released_code_moves_the_vertices_so(self, file, tmp_path) -> None:
        from wav2sem_blender.pipeline import SpeechAnimator
        from wav2sem_blender.pipeline.nn.encoders import build_backbone
        from wav2sem_blender.pipeline.official import import_official

        import_official(file, "auto", tmp_path / "model")
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        motion = animator.animate(self.WAVEFORM_S, 16_000, "FaceTalk_170725_00137_TA")
        state = torch.load(file, weights_only=True)["state_dict"]
        made, backbone = from_published("imitator-vocaset", state), build_backbone("wav2vec2", TINY).eval()
        prefix = "nn_model.audio_encoder."
        backbone.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        sound_S = (self.WAVEFORM_S - self.WAVEFORM_S.mean()) / np.sqrt(self.WAVEFORM_S.var() + 1e-7)
        with torch.no_grad():
            read = backbone.feature_extractor(torch.from_numpy(sound_S)[None])
            read = F.interpolate(read, size=int(read.shape[2] / 50.0 * 30), mode="linear", align_corners=True).mT
            hidden_1RD = backbone.encoder(backbone.feature_projection(read)[0]).last_hidden_state
            maps = (state[f"nn_model.audio_feature_map.{name}"] for name in ("weight", "bias"))
            expected_TX = made.recomputed(F.linear(hidden_1RD, *maps), torch.eye(8)[2:3])[0].numpy()
        assert motion.fps == 30 and motion.channels == (*(f"key_{i:02d}" for i in range(64)), "bias")
        found_TX = motion.vertex_offsets().reshape(len(expected_TX), -1)
        np.testing.assert_allclose(found_TX, expected_TX, atol=1e-4 * np.abs(expected_TX).max())
        assert np.abs(motion.weights_TK).max() <= 1.2

    @pytest.mark.parametrize("with_wav2sem", [False, True])
    def test_a_model_becomes_a_released_file_again(self, file, tmp_path, monkeypatch, with_wav2sem: bool) -> None:
        from wav2sem_blender.pipeline.checkpoint import ModelFolder
        from wav2sem_blender.pipeline.official import export_official, import_official

        state = torch.load(file, weights_only=True)["state_dict"]
        if with_wav2sem:
            state |= {f"nn_model.{name}": value for name, value in beside_wav2sem(monkeypatch, 16).items()}
            torch.save({"state_dict": state}, file)
        import_official(file, "imitator-vocaset", tmp_path / "model")
        folder = ModelFolder.open(tmp_path / "model")
        assert (folder.config.wav2sem is not None) == with_wav2sem
        (written,) = export_official(folder, tmp_path / "model")
        back = torch.load(written, weights_only=True)["state_dict"]
        assert written.name == "general.ckpt" and back.keys() == state.keys()
        for name, value in state.items():
            np.testing.assert_allclose(back[name], value, atol=1e-5 * max(1e-3, float(value.abs().max())))

    def test_what_does_not_fit_is_named(self, file, tmp_path) -> None:
        from wav2sem_blender.pipeline.official import import_official

        state = {k.removeprefix("nn_model."): v for k, v in torch.load(file, weights_only=True)["state_dict"].items()}
        head = "vertice_map_r.decoder.final_out_layer.weight"
        cases = [
            ({head: torch.zeros(70110, 64)}, "final_out_layer.weight has 70110 rows, imitator-vocaset has 15069"),
            ({"audio_feature_map.weight": torch.zeros(64, 24)}, r"has shape \(64, 24\), \(64, 16\) is expected"),
            ({"feat_map.weight": torch.zeros(2)}, "1 keys are unknown, such as .*feat_map.weight"),
            ({"bert_feature_map.weight": torch.zeros(16, 768)}, "the key bert_feature_map.bias is missing"),
        ]
        for changed, message in cases:
            self.save(tmp_path / "other.ckpt", state | changed)
            with pytest.raises(UserError, match=message):
                import_official(tmp_path / "other.ckpt", "imitator-vocaset", tmp_path / "model")
        self.save(tmp_path / "other.ckpt", {name: value for name, value in state.items() if "norm3" not in name})
        with pytest.raises(UserError, match="2 keys are missing, such as .*norm3"):
            import_official(tmp_path / "other.ckpt", "auto", tmp_path / "model")
