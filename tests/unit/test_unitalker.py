# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker: its encoders against transformers, its decoder against a plain one, its grid, windows and losses."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
import torch.nn.functional as F  # noqa: E402

from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline.hosts.unitalker import (  # noqa: E402
    ARKIT,
    ARKIT_ORDER,
    BIWI,
    CHANNELS,
    EMOTALK,
    HEADS,
    STYLES,
    VOCASET,
    UniTalker,
)
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import XLSR_53, build_backbone, encode  # noqa: E402
from wav2sem_blender.pipeline.nn.host_network import Example  # noqa: E402
from wav2sem_blender.pipeline.nn.unitalker import Pca, from_published  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import SemanticFusion  # noqa: E402
from wav2sem_blender.pipeline.windows import Window, plan_separate  # noqa: E402

from .plain_unitalker import FEATURES, N_STYLES, WIDTH, plain, released_state  # noqa: E402, TID252
from .released_files import TINY  # noqa: E402, TID252

GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "hosts" / "unitalker_b.npz"


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
    assert {*ARKIT_ORDER, "tongueOut"} == set(ARKIT_CHANNELS) == set(CHANNELS[EMOTALK])
    assert CHANNELS[EMOTALK][::10] == (
        *("browDownLeft", "eyeLookDownLeft", "eyeWideLeft", "mouthFrownRight", "mouthRollUpper", "noseSneerRight"),
    )
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


def test_the_released_codes_outputs() -> None:
    if not GOLDEN.is_file():
        pytest.skip("the golden values of the released code are not here")
    from trainer.host_checks import TOLERANCE, check_host

    differences = check_host("unitalker_b", GOLDEN)
    assert set(differences) == {"out_biwi", "out_pca", "gt_pca", "out_arkit"}
    assert max(differences.values()) <= TOLERANCE
