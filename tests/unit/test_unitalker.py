# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker: its encoders against transformers, its decoder against a plain one, its heads, losses and files."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import torch.nn.functional as F  # noqa: E402

from wav2sem_blender.errors import Text, UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelFolder  # noqa: E402
from wav2sem_blender.pipeline.face_names import guess_key_map  # noqa: E402
from wav2sem_blender.pipeline.flame_parameters import Flame  # noqa: E402
from wav2sem_blender.pipeline.hosts.unitalker import (  # noqa: E402
    ARKIT,
    ARKIT_ORDER,
    BIWI,
    FLAME_PARAMETERS,
    HEADS,
    RELEASES,
    STYLES,
    VOCASET,
    UniTalker,
)
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import XLSR_53, build_backbone, encode  # noqa: E402
from wav2sem_blender.pipeline.nn.host_network import Example  # noqa: E402
from wav2sem_blender.pipeline.nn.unitalker import PCA_ARRAYS, Pca, from_published  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import SemanticFusion  # noqa: E402
from wav2sem_blender.pipeline.official import export_official, import_official  # noqa: E402
from wav2sem_blender.pipeline.official import unitalker as official  # noqa: E402
from wav2sem_blender.pipeline.windows import Window, plan_separate  # noqa: E402

from .released_files import TINY, beside_wav2sem, released_encoder  # noqa: E402, TID252

GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "hosts" / "unitalker_b.npz"
WIDTH, N_STYLES, FEATURES = 12, 5, 20


def released_state(
    heads: dict[str, int], width: int = WIDTH, features: int = FEATURES, style: int = 6, n_styles: int = N_STYLES
) -> dict[str, torch.Tensor]:
    """The decoder's and the heads' weights by the table of the release, random."""
    torch.manual_seed(0)
    state = {
        "decoder.learnable_style_emb.weight": torch.randn(n_styles, style),
        "decoder.audio_feature_map.weight": torch.randn(width, features) / features**0.5,
        "decoder.audio_feature_map.bias": torch.randn(width),
    }
    for i in range(3):
        layer = f"decoder.tcn.first_net.conv_layers.{i}"
        n_inputs = width if i else width + style
        for name in ("conv",) if i else ("conv", "residual_layer.0"):
            state[f"{layer}.{name}.weight"] = torch.randn(width, n_inputs, 3) / (3 * n_inputs) ** 0.5
            state[f"{layer}.{name}.bias"] = torch.randn(width)
        state[f"{layer}.norm.weight"] = 1 + torch.randn(width) / 5
        state[f"{layer}.norm.bias"] = torch.randn(width)
    for name, n_values in heads.items():
        state[f"out_head_dict.{name}.weight"] = torch.randn(n_values, width) / width**0.5
        state[f"out_head_dict.{name}.bias"] = torch.randn(n_values)
    return state


def with_encoder(state: dict[str, torch.Tensor], encoder: EncoderConfig) -> dict[str, torch.Tensor]:
    """A whole file: with an encoder of random weights."""
    torch.manual_seed(1)
    with torch.device("meta"):
        shapes = build_backbone(encoder.kind, encoder.config).state_dict()
    return {f"audio_encoder.{key}": torch.randn(value.shape) / 4 for key, value in shapes.items()} | state


def plain(state: dict, hidden_TD: torch.Tensor, style: int, head: str) -> np.ndarray:
    """What a head predicts of one clip, frame by frame, in NumPy."""
    w = {name: value.double().numpy() for name, value in state.items()}
    memory_TM = hidden_TD.double().numpy() @ w["decoder.audio_feature_map.weight"].T
    memory_TM = memory_TM + w["decoder.audio_feature_map.bias"]
    style_S = w["decoder.learnable_style_emb.weight"][style]
    frames = [np.concatenate([memory_M, style_S]) for memory_M in memory_TM]

    def convolved(name: str, t: int) -> np.ndarray:
        taps = w[f"{name}.weight"]
        around = [frames[s] if 0 <= s < len(frames) else np.zeros_like(frames[0]) for s in (t - 1, t, t + 1)]
        return sum(taps[:, :, k] @ around[k] for k in range(3)) + w[f"{name}.bias"]

    for i in range(3):
        layer = f"decoder.tcn.first_net.conv_layers.{i}"
        after = []
        for t in range(len(frames)):
            x = convolved(f"{layer}.conv", t)
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{layer}.norm.weight"] + w[f"{layer}.norm.bias"]
            after.append(np.maximum(x + (frames[t] if i else convolved(f"{layer}.residual_layer.0", t)), 0))
        frames = after
    return np.array(frames) @ w[f"out_head_dict.{head}.weight"].T + w[f"out_head_dict.{head}.bias"]


def memory_of(state: dict, hidden_BTD: torch.Tensor) -> torch.Tensor:
    return F.linear(hidden_BTD, state["decoder.audio_feature_map.weight"], state["decoder.audio_feature_map.bias"])


def made_up_pca(n_components: int, n_values: int) -> Pca:
    """Like the pca.npz of a release: later components vary less."""
    rng = np.random.default_rng(0)
    components_QX = np.linalg.qr(rng.normal(size=(n_values, n_components)))[0].T
    spread_Q = 2.0 / (1 + np.arange(n_components))
    return Pca(components_QX, rng.normal(size=n_values), rng.normal(size=n_components), spread_Q)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("wavlm", {}),
        ("wav2vec2", {key: XLSR_53[key] for key in ("do_stable_layer_norm", "feat_extract_norm", "conv_bias")}),
    ],
    ids=["WavLM base plus", "XLSR-53"],
)
def test_an_encoder_hears_as_transformers_does(kind: str, config: dict) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(kind, {**TINY, **config}).eval()
    for parameter in backbone.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5)
    waveform_BS = torch.randn(2, 8000)
    with torch.no_grad():
        expected_BLD = backbone(waveform_BS).last_hidden_state
        hidden_BLD, _ = encode(backbone, waveform_BS)
        short_LD = encode(backbone, waveform_BS, sample_lengths_B=torch.tensor([8000, 5000]))[0][1, :15]
        alone_LD = backbone(waveform_BS[1:, :5000]).last_hidden_state[0]
    np.testing.assert_allclose(hidden_BLD, expected_BLD, atol=1e-6)
    assert expected_BLD.std() > 0.1
    np.testing.assert_allclose(short_LD, alone_LD, atol=2e-5)
    norms = [name for name, _ in backbone.named_modules() if name.endswith("conv_layers.6.layer_norm")]
    assert len(norms) == (1 if kind == "wav2vec2" else 0)


def test_the_frames_are_the_duration_rounded_and_read_behind_the_encoder() -> None:
    grid, biwi = UniTalker().grid, UniTalker().at_rate(25).grid
    assert [grid.animation_frames(n) for n in (16_000, 16_266, 16_267, 400_000)] == [30, 30, 31, 750]
    assert [biwi.animation_frames(n) for n in (16_000, 16_320, 16_321)] == [25, 26, 26]
    assert not grid.before_transformer
    assert grid.positions(16_000).tolist() == np.linspace(0, 48, 30).tolist()


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("window_s", [25.0, 12.5, 6.25])
def test_windows_cover_a_long_recording(fps: int, window_s: float) -> None:
    grid, n_samples = UniTalker().at_rate(fps).grid, 61 * 16_000 + 777
    windows = plan_separate(n_samples, grid, window_s)
    assert windows[0].start == 0 and windows[-1].stop == n_samples
    assert windows[-1].last == grid.animation_frames(n_samples)
    for one, other in itertools.pairwise(windows):
        assert one.stop - one.start == int(window_s * 16_000) and one.last - other.first > 0
        assert other.first / fps == other.start / 16_000
    if window_s == 25.0:
        assert [window.start // 16_000 for window in windows] == [0, 20, 40]
    assert plan_separate(25 * 16_000, UniTalker().grid, 25.0) == [Window(0, 400_000, 0, 750, margin=0.0)]


def test_the_arkit_head_has_all_of_arkit_but_the_tongue() -> None:
    assert len(ARKIT_ORDER) == HEADS[ARKIT].width == 51
    assert {*ARKIT_ORDER, "tongueOut"} == set(ARKIT_CHANNELS)
    # As the author listed them, by position.
    told = {0: "eyeBlinkLeft", 8: "eyeWideLeft", 13: "eyeLookUpRight", 16: "browInnerUp", 19: "jawOpen"}
    told |= {20: "mouthClose", 23: "jawForward", 24: "mouthUpperUpLeft"}
    assert {i: ARKIT_ORDER[i] for i in told} == told
    assert len(STYLES) == len(set(STYLES)) == 935


def test_every_head_predicts_what_a_plain_decoder_does() -> None:
    state = released_state({ARKIT: 51, BIWI: 4})
    hidden_BTD = torch.randn(2, 7, FEATURES)
    pca = made_up_pca(6, 15)
    for head in (ARKIT, BIWI):
        network = from_published("unitalker", state, head, pca)
        with torch.no_grad():
            predicted_BTX = network(memory_of(state, hidden_BTD), torch.eye(N_STYLES)[[2, 4]])
        for i, style in enumerate((2, 4)):
            expected_TX = plain(state, hidden_BTD[i], style, head)
            if head == BIWI:
                expected_TX = expected_TX @ pca.components_QX[:4] + pca.mean_X
            np.testing.assert_allclose(predicted_BTX[i], expected_TX, atol=1e-5)
        assert predicted_BTX.std() > 0.1


def test_no_frames_give_no_motion() -> None:
    network = from_published("unitalker", released_state({ARKIT: 51}))
    assert network(torch.zeros(1, 0, WIDTH), torch.eye(N_STYLES)[:1]).shape == (1, 0, 51)


def test_semantics_are_added_in_front_of_the_decoder() -> None:
    """FC = 0 is the plain host; any FC is the plain host on H + FC(F_s)."""
    state = released_state({ARKIT: 51})
    network = from_published("unitalker", state)
    fusion = SemanticFusion(FEATURES, WIDTH, 9)
    fusion.audio_feature_map.load_state_dict(
        {name: state[f"decoder.audio_feature_map.{name}"] for name in ("weight", "bias")}
    )
    hidden_1TD, semantic_11E, style_1N = torch.randn(1, 6, FEATURES), torch.randn(1, 1, 9), torch.eye(N_STYLES)[:1]
    with torch.no_grad():
        added_11D = fusion.semantic_feature_map(semantic_11E)
        predicted = network(fusion(hidden_1TD, semantic_11E), style_1N)
        np.testing.assert_allclose(predicted[0], plain(state, (hidden_1TD + added_11D)[0], 0, ARKIT), atol=1e-5)
        for parameter in fusion.semantic_feature_map.parameters():
            parameter.zero_()
        silent = network(fusion(hidden_1TD, semantic_11E), style_1N)
    np.testing.assert_allclose(silent[0], plain(state, hidden_1TD[0], 0, ARKIT), atol=1e-5)
    assert (silent - predicted).abs().max() > 0.01


def test_the_loss_of_vertices_counts_their_components_a_little() -> None:
    state = released_state({VOCASET: 4})
    pca = made_up_pca(6, 15)
    network = from_published("unitalker", state, VOCASET, pca)
    hidden_1TD, target_1TX = torch.randn(1, 7, FEATURES), torch.randn(1, 7, 15)
    example = Example(memory_BRM=memory_of(state, hidden_1TD), style_BN=torch.eye(N_STYLES)[:1], target_BTX=target_1TX)
    values_TP = plain(state, hidden_1TD[0], 0, VOCASET)
    components_TX = pca.components_QX[:4]
    vertices = np.square(values_TP @ components_TX + pca.mean_X - target_1TX[0].numpy()).mean()
    components = np.square(values_TP - (target_1TX[0].numpy() - pca.mean_X) @ components_TX.T).mean()
    with torch.no_grad():
        assert float(network.loss(example)) == pytest.approx(vertices + 0.01 * components, rel=1e-5)


def test_the_loss_of_blendshapes_is_that_of_the_vertices_that_they_make() -> None:
    network = from_published("unitalker", released_state({ARKIT: 51}))
    memory_1TM, target_1TK = torch.randn(1, 7, WIDTH), torch.rand(1, 7, 51)
    style_1N = torch.eye(N_STYLES)[:1]
    shapes_KX = torch.randn(51, 12)
    example = Example(memory_BRM=memory_1TM, style_BN=style_1N, target_BTX=target_1TK)
    with torch.no_grad():
        error_TK = network(memory_1TM, style_1N)[0] - target_1TK[0]
        assert float(network.loss(example)) == pytest.approx(float(error_TK.square().mean()), rel=1e-5)
        network.blendshapes_KX = shapes_KX
        expected = (error_TK @ shapes_KX).square().mean() + 1e-4 * error_TK.square().mean()
        assert float(network.loss(example)) == pytest.approx(float(expected), rel=1e-5)
    assert "blendshapes_KX" not in network.state_dict()


def test_what_is_missing_is_named() -> None:
    state = released_state({ARKIT: 51, BIWI: 4})
    with pytest.raises(UserError, match=f"the head {BIWI} .* pca.npz is needed"):
        from_published("unitalker", state, BIWI)
    with pytest.raises(UserError, match=f"weight out_head_dict.{VOCASET}.weight is missing"):
        from_published("unitalker", state, VOCASET)
    del state["decoder.tcn.first_net.conv_layers.1.conv.bias"]
    with pytest.raises(UserError, match="layers.1.conv.bias is missing"):
        from_published("unitalker", state)
    with pytest.raises(UserError, match="no head nose; this model has"):
        replace(UniTalker(), head="nose")


class TestFiles:
    """Official files, tiny where the size does not matter."""

    HEADS: ClassVar = {BIWI: 4, VOCASET: 150, ARKIT: 51, "3DETF_blendshape_weight": 52}
    WAVEFORM_S = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 100

    @pytest.fixture
    def encoder(self, monkeypatch) -> EncoderConfig:
        """WavLM, tiny."""
        tiny = EncoderConfig(kind="wavlm", config=TINY)
        monkeypatch.setitem(official.ENCODERS, "B", tiny)
        return tiny

    @pytest.fixture
    def file(self, tmp_path, encoder) -> Path:
        state = with_encoder(released_state(self.HEADS, features=TINY["hidden_size"]), encoder)
        torch.save(state, tmp_path / "UniTalker-B.pt")
        return tmp_path / "UniTalker-B.pt"

    @staticmethod
    def pca_file(folder: Path, n_vertices: int, n_components: int) -> tuple[Path, Pca]:
        rng = np.random.default_rng(1)
        components_QX = np.linalg.qr(rng.normal(size=(3 * n_vertices, n_components)))[0].T
        spread_Q = 0.01 / (1 + np.arange(n_components))
        pca = Pca(components_QX, rng.normal(size=3 * n_vertices) / 1e3, 0.1 * spread_Q, spread_Q)
        np.savez(folder / "pca.npz", **dict(zip(PCA_ARRAYS, pca, strict=True)))
        return folder / "pca.npz", pca

    def values(
        self, state: dict, encoder: EncoderConfig, fps: int, style: int, head: str, waveform_S: np.ndarray = WAVEFORM_S
    ) -> np.ndarray:
        """What the released code predicts of a recording, written out."""
        backbone = build_backbone(encoder.kind, encoder.config).eval()
        prefix = "audio_encoder."
        backbone.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        with torch.no_grad():
            hidden_1LD = backbone(torch.from_numpy(waveform_S)[None]).last_hidden_state
            n_frames = round(len(waveform_S) / 16_000 * fps)
            read = F.interpolate(hidden_1LD.mT, size=n_frames, mode="linear", align_corners=True).mT
        return plain(state, read[0], style, head)

    def test_the_arkit_head_drives_arkit_keys(self, file, encoder, tmp_path) -> None:
        notes: list[Text] = []
        pca_file, _ = self.pca_file(tmp_path, 4, 6)
        import_official(file, "auto", tmp_path / "model", notes, [pca_file])
        assert [str(note) for note in notes] == [
            "pca.npz was not used: UniTalker's ARKit weights need no other file. For another head, choose its kind."
        ]
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        config, state = animator.folder.config, torch.load(file, weights_only=True)
        assert config.styles == ("pivot", "1", "2", "3", "4") and animator.folder.basis() is None
        for style, row in (("pivot", -1), ("3", 2)):
            motion = animator.animate(self.WAVEFORM_S, 16_000, style)
            expected_TK = self.values(state, encoder, 30, row, ARKIT)
            np.testing.assert_allclose(motion.weights_TK, expected_TK, atol=2e-4)
        assert motion.fps == 30 and motion.channels == ARKIT_ORDER and motion.weights_TK.std() > 0.1
        keys = guess_key_map(ARKIT_CHANNELS)
        assert set(ARKIT_ORDER) <= set(keys.channels)

    @pytest.mark.parametrize(("kind", "head", "fps", "n_vertices"), [
        ("unitalker-vocaset", VOCASET, 30, 5023), ("unitalker-biwi", BIWI, 25, 23370)
    ])  # fmt: skip
    def test_the_components_of_vertices_become_keys(self, file, encoder, tmp_path, kind, head, fps, n_vertices) -> None:
        pca_file, pca = self.pca_file(tmp_path, n_vertices, self.HEADS[head] + 2)
        import_official(file, kind, tmp_path / "model", beside=[pca_file])
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        motion = animator.animate(self.WAVEFORM_S, 16_000, "2")
        n_keys, width = min(128, self.HEADS[head]), self.HEADS[head]
        config = animator.folder.config
        scale = 0.2 if head == BIWI else 1.0
        assert motion.fps == fps and motion.channels == (*(f"key_{i:02d}" for i in range(n_keys)), "bias")
        # Components beyond the keys stay at their mean.
        values_TP = self.values(torch.load(file, weights_only=True), encoder, fps, 1, head)
        values_TP[:, n_keys:] = pca.centre_Q[n_keys:width]
        expected_TX = (values_TP @ pca.components_QX[:width] + pca.mean_X) / scale
        found_TX = motion.vertex_offsets().reshape(len(expected_TX), -1)
        np.testing.assert_allclose(found_TX, expected_TX, atol=1e-4 * np.abs(expected_TX).max())
        lost_V = (pca.spread_Q[n_keys:width, None] * pca.components_QX[n_keys:width]) ** 2
        error = np.sqrt(lost_V.sum(0).reshape(-1, 3).sum(1).max()) if n_keys < width else 0.0
        assert config.provenance.get("keys_error", 0.0) == pytest.approx(error, rel=1e-3)

    def test_flames_parameters_move_the_users_flame(self, file, encoder, tmp_path) -> None:
        rng = np.random.default_rng(2)
        shapes = {"v_template": (30, 3), "shapedirs": (30, 3, 400), "posedirs": (30, 3, 36), "J_regressor": (5, 30)}
        arrays = {name: 0.001 * rng.standard_normal(shape) for name, shape in shapes.items()}
        arrays["v_template"] *= 100
        arrays["weights"] = rng.dirichlet(np.ones(5), 30)
        np.savez(tmp_path / "flame.npz", **arrays)
        state = torch.load(file, weights_only=True)
        state |= {
            f"out_head_dict.{FLAME_PARAMETERS}.{name}": value
            for name, value in (("weight", 0.03 * torch.randn(413, WIDTH)), ("bias", 0.03 * torch.randn(413)))
        }
        torch.save(state, file)
        with pytest.raises(UserError, match="it needs your FLAME as .npz for unitalker-flame too"):
            import_official(file, "unitalker-flame", tmp_path / "model")
        import_official(file, "unitalker-flame", tmp_path / "model", beside=[tmp_path / "flame.npz"])
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        motion = animator.animate(self.WAVEFORM_S, 16_000)
        parameters_TX = self.values(state, encoder, 30, -1, FLAME_PARAMETERS)
        moving_TX = parameters_TX[:, 300:403]
        flame = Flame.read(tmp_path / "flame.npz", 100)
        expected_TV3 = flame.vertices(moving_TX, np.zeros(300)) - flame.template_V3
        off_TV3 = motion.vertex_offsets() - expected_TV3
        # What is lost are products of an expression and a turn.
        assert np.sqrt(np.square(off_TV3).mean()) < 0.05 * np.sqrt(np.square(expected_TV3).mean())
        assert motion.channels[99:101] == ("flame_expression_100", "flame_jaw_x") and len(motion.channels) == 109
        np.testing.assert_allclose(motion.weights_TK[:, :100], moving_TX[:, :100] / 3, atol=1e-4)
        (written,) = official.write(animator.folder).values()
        assert written.keys() == state.keys() and all(torch.equal(written[key], state[key]) for key in state)

    @pytest.mark.parametrize("kind", ["unitalker-arkit", "unitalker-biwi"])
    def test_every_head_goes_back_into_the_file(self, file, tmp_path, kind) -> None:
        pca_file, pca = self.pca_file(tmp_path, 23370, 6)
        import_official(file, kind, tmp_path / "model", beside=[pca_file])
        (tmp_path / "out").mkdir()
        written = export_official(ModelFolder.open(tmp_path / "model"), tmp_path / "out")
        back, state = torch.load(written[0], weights_only=True), torch.load(file, weights_only=True)
        assert back.keys() == state.keys()
        assert all(torch.equal(back[key], state[key]) for key in state)
        if kind == "unitalker-biwi":
            with np.load(written[1]) as stored:
                np.testing.assert_allclose(stored["components_to_data"], pca.components_QX[:4], atol=1e-6)
        assert [path.name for path in written] == ["UniTalker-B.pt", "pca.npz"][: len(written)]

    def test_a_file_of_ones_own_training_holds_its_pca(self, file, encoder, tmp_path) -> None:
        _, pca = self.pca_file(tmp_path, 23370, 6)
        state = torch.load(file, weights_only=True)
        names = ("feat_to_data", "data_bias", "feat_mean", "feat_std")
        for name, array in zip(names, pca, strict=True):
            state[f"pca_layer_dict.{BIWI}.{name}"] = torch.from_numpy(array).float()
        torch.save(state, tmp_path / "own.pt")
        import_official(tmp_path / "own.pt", "unitalker-biwi", tmp_path / "model")
        basis_KV3 = ModelFolder.open(tmp_path / "model").basis()
        expected_X = 3 * pca.spread_Q[0] * pca.components_QX[0] / 0.2
        np.testing.assert_allclose(basis_KV3[0].ravel(), expected_X, atol=1e-6)

    @pytest.mark.parametrize("large", [False, True], ids=["B", "L"])
    def test_a_wav2sem_beside_it_comes_along(self, tmp_path, monkeypatch, large: bool) -> None:
        """The encoder's weights may have the names of earlier releases of torch, as the Wav2Sem's."""
        sizes = {**XLSR_53, **TINY, "hidden_size": 24} if large else TINY
        encoder = EncoderConfig(kind="wav2vec2" if large else "wavlm", config=sizes)
        monkeypatch.setitem(official.ENCODERS, "L" if large else "B", encoder)
        state = released_state({ARKIT: 51}, features=sizes["hidden_size"])
        fused = beside_wav2sem(monkeypatch, sizes["hidden_size"])
        torch.save(state | fused | released_encoder(encoder.kind, sizes), tmp_path / "fused.pt")
        import_official(tmp_path / "fused.pt", "auto", tmp_path / "model")
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        assert animator.folder.config.wav2sem is not None
        motions = [animator.animate(self.WAVEFORM_S, 16_000, semantic_strength=strength) for strength in (0.0, 1.0)]
        assert np.abs(motions[1].weights_TK - motions[0].weights_TK).max() > 1e-3
        (written,) = export_official(animator.folder, tmp_path)
        back = torch.load(written, weights_only=True)
        for name, value in (state | fused).items():
            assert torch.equal(back[name], value), name
        assert not any("weight_g" in name for name in back if name.startswith("audio_encoder."))
        del fused["bert_feature_map.weight"]
        torch.save(state | fused | released_encoder(encoder.kind, sizes), tmp_path / "half.pt")
        with pytest.raises(UserError, match="half.pt: the key bert_feature_map.weight is missing"):
            import_official(tmp_path / "half.pt", "auto", tmp_path / "half")

    def test_what_does_not_fit_is_named(self, file, tmp_path, monkeypatch) -> None:
        state = torch.load(file, weights_only=True)
        pca_file, _ = self.pca_file(tmp_path, 5023, 100)
        cases = [
            ("unitalker-vocaset", [], "it needs the pca.npz of unitalker-vocaset too"),
            ("unitalker-biwi", [pca_file], r"components have the shape \(100, 15069\); at least 4 of 70110 values"),
            ("unitalker-vocaset", [pca_file], r"\(100, 15069\); at least 150 of 15069 values"),
        ]
        for kind, beside, message in cases:
            with pytest.raises(UserError, match=message):
                import_official(file, kind, tmp_path / "model", beside=beside)
        np.savez(tmp_path / "other.npz", mean=np.zeros(3))
        with pytest.raises(UserError, match=r"other.npz: no pca.npz of UniTalker's release"):
            import_official(file, "unitalker-vocaset", tmp_path / "model", beside=[tmp_path / "other.npz"])
        monkeypatch.setitem(official.ENCODERS, "B", EncoderConfig(kind="wavlm", config={**TINY, "hidden_size": 24}))
        with pytest.raises(UserError, match=r"shape .*16.*, .*24.* is expected"):
            import_official(file, "unitalker-arkit", tmp_path / "model")
        torch.save({key: value for key, value in state.items() if ".norm." not in key}, file)
        with pytest.raises(UserError, match=r"UniTalker-B.pt: the weight tcn.*norm.* is missing"):
            import_official(file, "unitalker-arkit", tmp_path / "model")
        torch.save({key: value for key, value in state.items() if ARKIT not in key}, file)
        with pytest.raises(UserError, match=f"the key out_head_dict.{ARKIT}.weight is missing"):
            import_official(file, "unitalker-arkit", tmp_path / "model")

    def test_a_large_file_is_told_by_its_encoder(self, tmp_path, monkeypatch) -> None:
        """And a long recording is cut into windows of 25 s that are normalised, counted and decoded one by one."""
        large = EncoderConfig(kind="wav2vec2", config={**XLSR_53, **TINY})
        monkeypatch.setitem(official.ENCODERS, "L", large)
        state = with_encoder(released_state({ARKIT: 51}, features=16), large)
        torch.save(state, tmp_path / "UniTalker-L.pt")
        import_official(tmp_path / "UniTalker-L.pt", "auto", tmp_path / "model")
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        assert animator.folder.config.encoder == large
        louder_S = np.linspace(0.05, 0.4, 47 * 16_000 + 300, dtype=np.float32)
        waveform_S = louder_S * np.random.default_rng(0).standard_normal(len(louder_S)).astype(np.float32)
        fade_F1 = np.linspace(1, 0, 150)[:, None]
        expected_TK = None
        for start_s in (0, 20, 40):
            part_S = waveform_S[start_s * 16_000 : (start_s + 25) * 16_000]
            part_S = (part_S - part_S.mean()) / part_S.std()
            part_TK = self.values(state, large, 30, -1, ARKIT, part_S)
            if expected_TK is None:
                expected_TK = part_TK
                continue
            faded_FK = fade_F1 * expected_TK[-150:] + (1 - fade_F1) * part_TK[:150]
            expected_TK = np.concatenate([expected_TK[:-150], faded_FK, part_TK[150:]])
        done: list[float] = []
        progress = lambda stage, fraction: done.append(fraction) if stage == "motion" else None  # noqa: E731
        motion = animator.animate(waveform_S, 16_000, progress=progress)
        np.testing.assert_allclose(motion.weights_TK, expected_TK, atol=2e-4)
        assert motion.n_frames == round(len(waveform_S) / 16_000 * 30) and done[-1] == 1.0 and len(done) > 2

    def test_a_released_file_of_full_size_comes_back_whole(self, tmp_path) -> None:
        heads = {name: head.width for name, head in HEADS.items()}
        state = with_encoder(released_state(heads, 256, 768, 64, len(STYLES)), official.ENCODERS["B"])
        torch.save(state, tmp_path / "UniTalker-B-D0-D7.pt")
        import_official(tmp_path / "UniTalker-B-D0-D7.pt", "unitalker-arkit", tmp_path / "model")
        folder = ModelFolder.open(tmp_path / "model")
        assert folder.config.styles[:2] == ("pivot", "D0-1") and folder.config.styles[-1] == "D7-11"
        assert folder.config.host == RELEASES["unitalker-arkit"].host
        back = official.write(folder)["UniTalker-B-D0-D7.pt"]
        assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


def test_the_released_codes_outputs() -> None:
    if not GOLDEN.is_file():
        pytest.skip("the golden values of the released code are not here")
    from trainer.host_checks import TOLERANCE, check_host

    differences = check_host("unitalker_b", GOLDEN)
    assert set(differences) == {"out_biwi", "out_pca", "gt_pca", "out_arkit"}
    assert max(differences.values()) <= TOLERANCE
