# SPDX-License-Identifier: GPL-3.0-or-later
"""FaceFormer's decoder in NumPy: how far it looks back, large scores, positions and progress, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from wav2sem_blender.pipeline.hosts.faceformer import MAX_CACHED_FRAMES, RELEASES, MotionDecoder, _Past

pytest.importorskip("torch")

from .test_decoder import numpy_decoder, random_decoder, recompute_prefix  # noqa: E402, TID252

HOSTS = [RELEASES["faceformer-vocaset"].host, RELEASES["faceformer-biwi"].host]
RNG = np.random.default_rng(13)
by_rate = pytest.mark.parametrize("config", HOSTS, ids=["30fps", "25fps"])


@by_rate
def test_positions_are_sines_and_cosines_of_ten_thousands_powers(config):
    for t, row_M in enumerate(config.positions()):
        for i in range(0, config.dim, 2):
            angle = t / 10_000 ** (i / config.dim)
            np.testing.assert_allclose(row_M[i : i + 2], (np.sin(angle), np.cos(angle)), atol=1e-5)
    assert len(config.positions()) == config.period


@pytest.mark.parametrize("max_cached_frames", [1, 2, 20, 47, 94, 95, 96])
def test_beyond_the_cache_a_frame_attends_to_exactly_the_newest(max_cached_frames):
    class Masked(MotionDecoder):
        """Keeps everything and masks what lies further back."""

        def _lag_bias(self, n_frames):
            bias_HC = super()._lag_bias(n_frames)
            bias_HC[:, : max(0, n_frames - max_cached_frames)] = -np.inf
            return bias_HC

    decoder = numpy_decoder(random_decoder(HOSTS[0]))
    memory_RM = RNG.standard_normal((95, 64)).astype(np.float32)
    style_N = np.eye(3, dtype=np.float32)[1]
    masked_TK = Masked(decoder.config, decoder._tensors).decode(memory_RM, style_N, max_cached_frames=95)
    bounded_TK = decoder.decode(memory_RM, style_N, max_cached_frames=max_cached_frames)
    np.testing.assert_allclose(bounded_TK, masked_TK, atol=2e-6)
    unbounded_TK = decoder.decode(memory_RM, style_N)
    assert (np.abs(bounded_TK - unbounded_TK).max() > 1e-3) == (max_cached_frames < 95)


@by_rate
def test_every_weight_has_its_place(config):
    """A new layer's biases are 0 and its norms 1, which hides where they go."""
    import torch

    decoder = random_decoder(config)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight += 0.1 * torch.randn(weight.shape)
        memory_1RM = torch.randn(1, 33 * config.memory_per_frame, config.dim)
        style_1N = torch.tensor([[0.5, 0.7, -0.2]])
        expected_TK = recompute_prefix(decoder, memory_1RM, style_1N)[0].numpy()
    decoded_TK = numpy_decoder(decoder).decode(memory_1RM[0].numpy(), style_1N[0].numpy())
    np.testing.assert_allclose(decoded_TK, expected_TK, atol=1e-5 * np.abs(expected_TK).max())


def test_no_product_of_the_bundled_width_is_worth_a_thread():
    """OpenBLAS computes larger ones in threads, which wait for each other on a busy machine."""
    n_frames = MAX_CACHED_FRAMES
    past = _Past(HOSTS[0], n_frames, np.zeros((HOSTS[0].heads, n_frames), np.float32))
    decoder = numpy_decoder(random_decoder(HOSTS[0]))
    matrices = [past.keys[0, :, :n_frames], past.values[0, 0, :n_frames], decoder._step_4MM[0]]
    matrices += [decoder._tensors[f"layer.{name}.weight"] for name in ("self_attn.out_proj", "linear1", "linear2")]
    assert max(matrix.size for matrix in matrices) < 9216
    assert past.values.shape[1] * past.values.shape[3] * HOSTS[0].heads == HOSTS[0].dim


@by_rate
def test_scores_of_hundreds_overflow_nothing(config):
    import torch

    decoder = random_decoder(config)
    with torch.no_grad():
        for attention in (decoder.layer.self_attn, decoder.layer.multihead_attn):
            attention.in_proj_weight[: 2 * config.dim] *= 12
        memory_1RM = 3 * torch.randn(1, 12 * config.memory_per_frame, config.dim)
        style_1N = torch.tensor([[1.0, 0.0, 0.0]])
        expected_TK = recompute_prefix(decoder, memory_1RM, style_1N)[0].numpy()
    decoded_TK = numpy_decoder(decoder).decode(memory_1RM[0].numpy(), style_1N[0].numpy())
    np.testing.assert_allclose(decoded_TK, expected_TK, atol=1e-3)


@by_rate
def test_progress_once_a_second(config):
    seen: list[float] = []
    memory_RM = np.zeros((95 * config.memory_per_frame, config.dim), np.float32)
    numpy_decoder(random_decoder(config)).decode(memory_RM, np.eye(3)[0], progress=seen.append)
    assert seen == [n * config.fps / 95 for n in range(4)]
