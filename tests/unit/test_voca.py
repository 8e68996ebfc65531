# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCA: its grid, its network against a plain loop, its variables, its loss, and where F_s enters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.hosts.voca import OFFICIAL_NAMES, RELEASES, Voca, VocaGrid

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
        from wav2sem_blender.pipeline.nn.voca import from_published, to_published

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
        assert weights_TK.abs().max() <= 1 and (weights_TK[:, -1] == 1).all() and keys.error < 1e-6

    def test_a_long_recording_in_pieces_equals_the_whole(self, monkeypatch) -> None:
        from wav2sem_blender.pipeline.nn import voca

        monkeypatch.setattr(voca, "FRAMES_AT_ONCE", 16)
        network, done = self.network(), []
        memory_BTD, style_BN = self.torch.randn(2, 70, SMALL.features), self.torch.eye(N_STYLES)
        with self.torch.no_grad():
            found_BTX = network.generate(memory_BTD, style_BN, 0, done.append)
            np.testing.assert_allclose(found_BTX, network(memory_BTD, style_BN), atol=1e-6)
        assert done == [16 / 70, 32 / 70, 48 / 70, 64 / 70, 1.0]


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
