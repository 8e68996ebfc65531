# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceDiffuser: sampling without vertices against a plain loop with them, its keys, its loss, and where F_s enters."""

from __future__ import annotations

import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402

from trainer.host_checks import check_host  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline.frame_timing import encoder_frames  # noqa: E402
from wav2sem_blender.pipeline.hosts.facediffuser import RELEASES, FaceDiffuser  # noqa: E402
from wav2sem_blender.pipeline.nn.facediffuser import FaceDiffuserNetwork, from_published  # noqa: E402
from wav2sem_blender.pipeline.nn.host_network import Example  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import SemanticFusion  # noqa: E402

from .released_files import TINY, beside_wav2sem, released_encoder  # noqa: E402, TID252

GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "hosts"
WIDTH, AUDIO, STEPS, N_OUTPUTS, N_STYLES = 8, 6, 12, 30, 3
STYLE = torch.tensor([[0.0, 1.0, 0.0]])


def network(**changed: int) -> FaceDiffuserNetwork:
    """A small one of random weights and templates, none of them 0."""
    torch.manual_seed(0)
    host = FaceDiffuser(**{"dim": WIDTH, "steps": STEPS, "audio_dim": AUDIO, **changed})
    made = host.network(N_OUTPUTS, N_STYLES).eval()
    for parameter in (*made.final_layer.parameters(), made.norm_cond.bias, made.templates_NX):
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def weights_of(made: FaceDiffuserNetwork) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in made.state_dict().items()}


def plain_betas(n_steps: int) -> np.ndarray:
    def kept(u: float) -> float:
        return math.cos((u / n_steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array([min(1 - kept(i + 1) / kept(i), 0.999) for i in range(n_steps)])


def plain_step(w: dict, face_TX: np.ndarray, step: int, hidden_RD: np.ndarray, style_N: np.ndarray, template_X):
    """The published network on vertices, frame by frame, in NumPy: the face (T, X) without noise."""
    states = [np.zeros(WIDTH), np.zeros(WIDTH)]
    frames = []

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    for t, face_X in enumerate(face_TX):
        pair = np.concatenate([hidden_RD[2 * t], hidden_RD[2 * t + 1]])
        audio_M = w["cond_projection.weight"] @ pair + w["cond_projection.bias"]
        inputs_U = np.pad(w["input_projection.0.weight"] @ face_X + w["input_projection.0.bias"], 4)
        taps = w["input_projection.1.weight"][0, 0]
        convolved_U = np.array([taps @ inputs_U[u : u + 9] for u in range(2 * WIDTH)]) + w["input_projection.1.bias"]
        face_M = np.maximum(convolved_U, 0).reshape(-1, 2).max(1)
        embedded_M = w["time_mlp.0.weight"][:, step] + w["time_mlp.0.bias"]
        time_M = embedded_M * np.tanh(np.log1p(np.exp(embedded_M)))
        x = np.concatenate([audio_M, face_M, time_M])
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w["norm_cond.weight"] + w["norm_cond.bias"]
        for layer in (0, 1):
            gates_x = w[f"gru.weight_ih_l{layer}"] @ x + w[f"gru.bias_ih_l{layer}"]
            gates_h = w[f"gru.weight_hh_l{layer}"] @ states[layer] + w[f"gru.bias_hh_l{layer}"]
            (reset_x, keep_x, new_x), (reset_h, keep_h, new_h) = np.split(gates_x, 3), np.split(gates_h, 3)
            keep, new = sigmoid(keep_x + keep_h), np.tanh(new_x + sigmoid(reset_x + reset_h) * new_h)
            states[layer] = x = (1 - keep) * new + keep * states[layer]
        frames.append(w["final_layer.weight"] @ (x * (w["obj_vector.weight"] @ style_N)) + w["final_layer.bias"])
    return np.array(frames) + template_X


def plain_sample(w: dict, hidden_RD: np.ndarray, style_N: np.ndarray, template_X: np.ndarray, noises: list):
    """All steps on vertices; the first noise is the start. What is drawn for the last step counts for nothing."""
    betas = plain_betas(STEPS)
    kept = np.cumprod(1 - betas)
    face_TX = noises[0]
    for number, i in enumerate(reversed(range(STEPS)), start=1):
        clean_TX = plain_step(w, face_TX, i, hidden_RD, style_N, template_X)
        before = kept[i - 1] if i else 1.0
        mean_TX = betas[i] * math.sqrt(before) / (1 - kept[i]) * clean_TX
        mean_TX = mean_TX + (1 - before) * math.sqrt(1 - betas[i]) / (1 - kept[i]) * face_TX
        variance = betas[i] * (1 - before) / (1 - kept[i])
        face_TX = mean_TX + (math.sqrt(variance) * noises[number] if i else 0)
    return face_TX


def test_sampling_without_vertices_is_the_plain_sampling_with_them() -> None:
    made, memory_1RD = network(), torch.randn(1, 14, AUDIO)
    noises = [torch.randn(1, 7, N_OUTPUTS) for _ in range(STEPS + 1)]
    template_X = made.templates_NX[1].double().numpy()
    expected_TX = plain_sample(
        weights_of(made),
        memory_1RD[0].double().numpy(),
        STYLE[0].double().numpy(),
        template_X,
        [noise[0].double().numpy() for noise in noises],
    )
    fold_UM, rest_NU, _ = made.folded()
    drawn = iter(F.linear(noise, made.input_layer.weight) for noise in noises)
    sampled_TX = made.final_layer(made.sample(memory_1RD, STYLE, fold_UM, rest_NU, drawn))[0].detach().numpy()
    np.testing.assert_allclose(sampled_TX + template_X, expected_TX, atol=1e-5)
    assert np.abs(sampled_TX).max() > 0.1


def test_the_noise_has_the_covariance_of_the_vertices_noise() -> None:
    made = network()
    weight_UX = made.input_layer.weight.detach()
    noise_UU = made.folded()[2]
    np.testing.assert_allclose(noise_UU @ noise_UU.T, weight_UX @ weight_UX.T, atol=1e-6)


def test_a_seed_gives_the_same_motion_and_another_gives_another() -> None:
    made, memory_1RD = network(), torch.randn(1, 10, AUDIO)
    first, again, other = (made.generate(memory_1RD, STYLE, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first - other).abs().max() > 1e-4
    np.testing.assert_array_equal(made(memory_1RD, STYLE), made.generate(memory_1RD, STYLE, 0))


def test_progress_grows_and_no_frames_give_no_motion(monkeypatch) -> None:
    monkeypatch.setattr("wav2sem_blender.pipeline.nn.facediffuser._PROGRESS_S", -1)
    told: list[float] = []
    network().generate(torch.randn(1, 10, AUDIO), STYLE, 0, told.append)
    assert len(told) == STEPS - 1 and told == sorted(told) and 0 < told[0] < told[-1] < 1
    assert network().generate(torch.zeros(1, 0, AUDIO), STYLE).shape == (1, 0, N_OUTPUTS)


def test_the_last_layers_columns_are_keys_without_loss() -> None:
    made, memory_1RD = network(), torch.randn(1, 40, AUDIO)
    keyed = made.on_keys()
    on_keys = keyed.host.network(len(keyed.channels), N_STYLES).eval()
    on_keys.load_state_dict(keyed.state)
    with torch.no_grad():
        expected_TX, weights_TK = made.generate(memory_1RD, STYLE, 5)[0], on_keys.generate(memory_1RD, STYLE, 5)[0]
    assert keyed.basis_KV3.shape == (WIDTH + 1, N_OUTPUTS // 3, 3) and keyed.channels[-1] == "bias"
    np.testing.assert_allclose(weights_TK @ torch.from_numpy(keyed.basis_KV3).flatten(1), expected_TX, atol=1e-5)
    assert weights_TK.abs().max() <= 1 and keyed.error == 0 and expected_TX.abs().max() > 0.1
    for name, value in keyed.published.items():
        np.testing.assert_array_equal(value, made.state_dict()[name])


def test_another_face_can_be_moved() -> None:
    """In the published form and on keys, as if it were the one of the style's subject."""
    made, memory_1RD, template_X = network(), torch.randn(1, 20, AUDIO), torch.randn(N_OUTPUTS)
    keyed = made.on_keys()
    on_keys = keyed.host.network(len(keyed.channels), N_STYLES).eval()
    on_keys.load_state_dict(keyed.state)
    before_TX = made.generate(memory_1RD, STYLE, 5)[0]
    for some in (made, on_keys):
        some.move_face(template_X, lambda: keyed.published)
    expected_TX, weights_TK = (some.generate(memory_1RD, STYLE, 5)[0] for some in (made, on_keys))
    made_TX = weights_TK @ torch.from_numpy(keyed.basis_KV3).flatten(1)
    np.testing.assert_allclose(made_TX, expected_TX, atol=1e-5)
    assert (expected_TX - before_TX).abs().max() > 1e-3
    np.testing.assert_array_equal(made.templates_NX[1], template_X)


def test_columns_that_move_next_to_nothing_are_no_keys() -> None:
    made, memory_1RD = network(), torch.randn(1, 40, AUDIO)
    with torch.no_grad():
        made.final_layer.weight[:, 3:] *= 1e-5
        keyed = made.on_keys()
        on_keys = keyed.host.network(len(keyed.channels), N_STYLES).eval()
        on_keys.load_state_dict(keyed.state)
        expected_TX, weights_TK = made.generate(memory_1RD, STYLE, 5)[0], on_keys.generate(memory_1RD, STYLE, 5)[0]
    assert len(keyed.channels) == 4 and 0 < keyed.error < 1e-4
    made_TX = weights_TK @ torch.from_numpy(keyed.basis_KV3).flatten(1)
    assert (made_TX - expected_TX).abs().max() < 1e-4 * expected_TX.abs().max()


def test_the_loss_is_hubers_of_the_face_at_a_random_step() -> None:
    made, memory_1RD = network(), torch.randn(1, 14, AUDIO)
    template_1X, target_1TX = torch.randn(1, N_OUTPUTS), torch.randn(1, 9, N_OUTPUTS)  # 9 frames, speech for 7
    example = Example(memory_BRM=memory_1RD, style_BN=STYLE, target_BTX=target_1TX, template_BX=template_1X)
    noise_1TX, step = torch.randn(1, 9, N_OUTPUTS), 5
    kept = np.cumprod(1 - plain_betas(STEPS))[step]
    face_TX = (target_1TX + template_1X[:, None])[0, :7].double().numpy()
    noised_TX = math.sqrt(kept) * face_TX + math.sqrt(1 - kept) * noise_1TX[0, :7].double().numpy()
    memory_RD, style_N = memory_1RD[0].double().numpy(), STYLE[0].double().numpy()
    clean_TX = plain_step(weights_of(made), noised_TX, step, memory_RD, style_N, template_1X[0].double().numpy())
    off_TX = np.abs(clean_TX - face_TX)
    expected = np.where(off_TX < 1, off_TX**2 / 2, off_TX - 0.5).mean()
    found = made.loss_at(example, torch.tensor([step]), noise_1TX)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    losses = [made.loss(example) for _ in range(2)]
    assert losses[0].item() != losses[1].item()
    losses[0].backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in made.parameters())
    assert made.validation_loss(example).item() == made.validation_loss(example).item()
    np.testing.assert_array_equal(made.templates_NX[1], template_1X[0])  # learnt for inference


def test_semantics_are_added_to_the_features() -> None:
    """FC = 0 is the plain host; any FC is the plain host on H + FC(F_s)."""
    torch.manual_seed(0)
    made, fusion = network(), SemanticFusion(AUDIO, None, 7)
    hidden_1RD, semantic_11E = torch.randn(1, 14, AUDIO), torch.randn(1, 1, 7)
    with torch.no_grad():
        added_11D = fusion.semantic_feature_map(semantic_11E)
        fused = made.generate(fusion(hidden_1RD, semantic_11E), STYLE, 1)
        np.testing.assert_array_equal(fused, made.generate(hidden_1RD + added_11D, STYLE, 1))
        for parameter in fusion.semantic_feature_map.parameters():
            parameter.zero_()
        silent = made.generate(fusion(hidden_1RD, semantic_11E), STYLE, 1)
    np.testing.assert_array_equal(silent, made.generate(hidden_1RD, STYLE, 1))
    assert (silent - fused).abs().max() > 1e-4


@pytest.mark.parametrize("kind", RELEASES)
def test_frames_are_one_less_than_the_duration_has_and_all_have_speech(kind: str) -> None:
    grid = RELEASES[kind].host.grid
    fps = {"facediffuser-vocaset": 30, "facediffuser-biwi": 25}[kind]
    assert [grid.animation_frames(n) for n in (100, 16_000, 16_639)] == [0, fps - 1, int(16_639 / 16_000 * fps) - 1]
    assert not grid.before_transformer
    for n_samples in range(1500, 6000, 7):
        positions_R = grid.positions(n_samples)
        assert len(positions_R) == 2 * grid.animation_frames(n_samples)
        assert len(positions_R) == 0 or positions_R.max() <= encoder_frames(n_samples) - 1
    whole_R = grid.positions(16_000)
    assert whole_R[-1] == (48 if fps == 30 else 47) and (fps == 30 or np.diff(whole_R).tolist() == [1] * 47)


def released(made: FaceDiffuserNetwork) -> dict[str, torch.Tensor]:
    own = {name: value for name, value in made.state_dict().items() if name != "templates_NX"}
    return own | {"audio_encoder.masked_spec_embed": torch.zeros(4)}


def test_a_released_file_gives_the_network_and_others_are_refused() -> None:
    made = network(fps=25)
    made.templates_NX.zero_()
    state = released(made)
    loaded = from_published("facediffuser-biwi", state)
    assert loaded.config == made.config
    memory_1RD = torch.randn(1, 8, AUDIO)
    np.testing.assert_array_equal(loaded.generate(memory_1RD, STYLE, 2), made.generate(memory_1RD, STYLE, 2))
    lacking = {name: value for name, value in state.items() if name != "gru.bias_hh_l1"}
    with pytest.raises(UserError, match=r"gru\.bias_hh_l1 is missing"):
        from_published("facediffuser-biwi", lacking)
    with pytest.raises(UserError, match=r"feat_map\.weight is unknown"):
        from_published("facediffuser-biwi", state | {"feat_map.weight": torch.zeros(2)})
    with pytest.raises(UserError, match=r"norm_cond\.weight has the shape \(3,\); \(24,\) is expected"):
        from_published("facediffuser-biwi", state | {"norm_cond.weight": torch.zeros(3)})


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(UserError, match="at 60 fps: it has 30 and 25"):
        FaceDiffuser().at_rate(60)
    with pytest.raises(UserError, match="audio_dim 768: its encoder is 1024 wide"):
        FaceDiffuser().feature_width(1024)
    with pytest.raises(UserError, match="steps 1: at least 2 are needed"):
        FaceDiffuser(steps=1)


@pytest.mark.parametrize("kind", ["facediffuser_vocaset", "facediffuser_biwi"])
def test_the_released_code_gives_the_same(kind: str) -> None:
    file = GOLDEN / f"{kind}.npz"
    if not file.is_file():
        pytest.skip("the golden values of the released code are not here (../shared)")
    differences = check_host(kind, file)
    assert set(differences) == {"sample", "forward", "loss", "betas", "posterior_log_variance"}
    assert max(differences.values()) < 1e-5


class TestFiles:
    """Checkpoints of the released names, tiny but for the vertices."""

    WAVEFORM_S = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) / 100

    @pytest.fixture
    def encoder(self, monkeypatch) -> None:
        pytest.importorskip("transformers")
        from wav2sem_blender.pipeline.checkpoint import EncoderConfig
        from wav2sem_blender.pipeline.official import facediffuser

        monkeypatch.setattr(facediffuser, "ENCODER", EncoderConfig(kind="hubert", config=TINY))
        for kind, release in RELEASES.items():
            host = dataclasses.replace(release.host, audio_dim=TINY["hidden_size"])
            monkeypatch.setitem(RELEASES, kind, dataclasses.replace(release, host=host))

    def made_up(self, folder: Path, kind: str) -> tuple[Path, Path, dict, np.ndarray]:
        """A checkpoint and templates.pkl in `folder`; the state, and the templates (N, V, 3)."""
        release = RELEASES[kind]
        torch.manual_seed(0)
        host = dataclasses.replace(release.host, dim=WIDTH, steps=STEPS)
        made = host.network(3 * release.n_vertices, len(release.styles))
        torch.nn.init.normal_(made.final_layer.weight, std=1e-2)
        torch.nn.init.normal_(made.final_layer.bias, std=1e-2)
        own = {name: value for name, value in made.state_dict().items() if name != "templates_NX"}
        state = own | released_encoder("hubert", TINY)
        torch.save(state, folder / "model.pth")
        faces_NV3 = np.random.default_rng(0).normal(5, 2, (len(release.styles), release.n_vertices, 3))
        templates = dict(zip(release.styles, faces_NV3, strict=True))
        (folder / "templates.pkl").write_bytes(pickle.dumps(templates, protocol=2))
        return folder / "model.pth", folder / "templates.pkl", state, faces_NV3

    @pytest.mark.parametrize("kind", RELEASES)
    def test_a_model_samples_as_its_file_says(self, encoder, tmp_path, kind: str) -> None:
        """The same keys and seed as the network of the file; its templates as the released scripts scale them."""
        from wav2sem_blender.pipeline import SpeechAnimator
        from wav2sem_blender.pipeline.nn.encoders import build_backbone, resample_features
        from wav2sem_blender.pipeline.official import import_official

        file, templates, state, faces_NV3 = self.made_up(tmp_path, kind)
        import_official(file, "auto", tmp_path / "model", beside=[templates])
        animator = SpeechAnimator.load(tmp_path / "model", engine="torch", device="cpu")
        motion = animator.animate(self.WAVEFORM_S, 16_000, 1, seed=7)
        made, backbone = from_published(kind, state), build_backbone("hubert", TINY).eval()
        assert animator.folder.config.host == dataclasses.replace(made.config, folded=True)
        if kind == "facediffuser-biwi":
            low, high = faces_NV3.min(1, keepdims=True), faces_NV3.max(1, keepdims=True)
            faces_NV3 = (faces_NV3 - faces_NV3.mean(1, keepdims=True)) / (high - low)
        made.templates_NX.copy_(torch.from_numpy(faces_NV3).flatten(1))
        prefix = "audio_encoder."
        backbone.load_state_dict(
            {
                name.removeprefix(prefix)
                .replace("weight_g", "parametrizations.weight.original0")
                .replace("weight_v", "parametrizations.weight.original1"): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
        )
        sound_S = (self.WAVEFORM_S - self.WAVEFORM_S.mean()) / np.sqrt(self.WAVEFORM_S.var() + 1e-7)
        positions_1R = torch.from_numpy(made.config.grid.positions(16_000)).float()[None]
        with torch.no_grad():
            hidden_1LD = backbone(torch.from_numpy(sound_S)[None]).last_hidden_state
            expected_TX = made.generate(
                resample_features(hidden_1LD, positions_1R), torch.eye(8)[1:2, : len(faces_NV3)], 7
            )
        assert motion.info["seed"] == "7" and motion.fps == made.config.fps
        found_TX = motion.vertex_offsets().reshape(expected_TX.shape[1:])
        np.testing.assert_allclose(found_TX, expected_TX[0], atol=2e-4 * float(expected_TX.abs().max()))
        assert animator.animate(self.WAVEFORM_S, 16_000, 1, seed=8).weights_TK.tolist() != motion.weights_TK.tolist()

    @pytest.mark.parametrize("with_wav2sem", [False, True])
    def test_a_model_becomes_a_released_file_again(self, encoder, tmp_path, monkeypatch, with_wav2sem: bool) -> None:
        from wav2sem_blender.pipeline.checkpoint import ModelFolder
        from wav2sem_blender.pipeline.official import export_official, import_official

        file, templates, state, _ = self.made_up(tmp_path, "facediffuser-vocaset")
        if with_wav2sem:
            state |= beside_wav2sem(monkeypatch, TINY["hidden_size"])
            torch.save(state, file)
        import_official(file, "facediffuser-vocaset", tmp_path / "model", beside=[templates])
        (written,) = export_official(ModelFolder.open(tmp_path / "model"), tmp_path / "model")
        back = torch.load(written, weights_only=True)
        assert back.keys() == state.keys() and all(torch.equal(back[name], value) for name, value in state.items())

    def test_what_does_not_fit_is_named(self, encoder, tmp_path) -> None:
        from wav2sem_blender.pipeline.official import import_official

        file, templates, state, faces_NV3 = self.made_up(tmp_path, "facediffuser-vocaset")
        with pytest.raises(FileNotFoundError, match="it needs the neutral faces of its training subjects"):
            import_official(file, "facediffuser-vocaset", tmp_path / "model")
        cases = [
            ({"final_layer.weight": torch.zeros(70110, WIDTH)}, "has 70110 rows, facediffuser-vocaset has 15069"),
            ({"obj_vector.weight": torch.zeros(WIDTH, 9)}, "it has 9 speaking styles; .* facediffuser-vocaset have 8"),
            ({"cond_projection.weight": torch.zeros(WIDTH, 2048)}, r"has shape \(8, 2048\), \(8, 32\) is expected"),
            ({"feat_map.weight": torch.zeros(2)}, "1 keys are unknown, such as feat_map.weight"),
        ]
        for changed, message in cases:
            torch.save(state | changed, file)
            with pytest.raises(UserError, match=message):
                import_official(file, "facediffuser-vocaset", tmp_path / "model", beside=[templates])
        torch.save(state, file)
        others = {"F2": faces_NV3[0], RELEASES["facediffuser-vocaset"].styles[0]: faces_NV3[0]}
        templates.write_bytes(pickle.dumps(others, protocol=2))
        with pytest.raises(UserError, match=r"no face of FaceTalk_170904_00128_TA with 5023 vertices"):
            import_official(file, "facediffuser-vocaset", tmp_path / "model", beside=[templates])
