# SPDX-License-Identifier: GPL-3.0-or-later
"""The cached NumPy decoder and the cached torch decoder against the plain loop that recomputes the prefix."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wav2sem_blender.pipeline.checkpoint import DecoderConfig  # noqa: E402
from wav2sem_blender.pipeline.decoder import MotionDecoder  # noqa: E402
from wav2sem_blender.pipeline.nn.faceformer import FaceDecoder, alignment_mask, biased_causal_mask  # noqa: E402

FLAME = DecoderConfig()
BIWI = DecoderConfig(dim=128, ffn_dim=256, period=25, fps=25, memory_per_frame=2)


def random_decoder(config: DecoderConfig, channels: int = 9, styles: int = 3, seed: int = 0) -> FaceDecoder:
    torch.manual_seed(seed)
    decoder = FaceDecoder(config, channels, styles).eval()
    torch.nn.init.normal_(decoder.motion_head.weight, std=0.2)
    torch.nn.init.normal_(decoder.motion_head.bias, std=0.2)
    return decoder


def recompute_prefix(decoder: FaceDecoder, memory_1RM, style_1N) -> np.ndarray:
    """FaceFormer's own loop: every step runs the whole prefix through nn.TransformerDecoderLayer and keeps its end."""
    config = decoder.config
    n_frames = memory_1RM.shape[1] // config.memory_per_frame
    done = torch.zeros(1, 0, decoder.motion_head.out_features)
    for t in range(n_frames):
        unknown = torch.cat([done, torch.zeros(1, 1, done.shape[2])], 1)
        memory = memory_1RM[:, : (t + 1) * config.memory_per_frame]
        done = torch.cat([done, decoder.teacher_forced(memory, unknown, style_1N)[:, -1:]], 1)
    return done[0].numpy()


def numpy_decoder(decoder: FaceDecoder) -> MotionDecoder:
    return MotionDecoder(decoder.config, {key: value.numpy() for key, value in decoder.state_dict().items()})


@pytest.mark.parametrize("config", [FLAME, BIWI], ids=["30fps", "25fps"])
@pytest.mark.parametrize("n_frames", [1, 2, 31, 95])
def test_cached_equals_recomputed(config: DecoderConfig, n_frames: int) -> None:
    decoder = random_decoder(config)
    memory = torch.randn(1, n_frames * config.memory_per_frame, config.dim)
    style = torch.tensor([[0.2, 0.5, 0.3]])
    with torch.no_grad():
        expected_TK = recompute_prefix(decoder, memory, style)
        torch_TK = decoder(memory, style)[0].numpy()
    numpy_TK = numpy_decoder(decoder).decode(memory[0].numpy(), style[0].numpy())
    assert np.abs(expected_TK).max() > 0.1
    np.testing.assert_allclose(torch_TK, expected_TK, atol=1e-5)
    np.testing.assert_allclose(numpy_TK, expected_TK, atol=1e-5)


def test_cache_slides_without_a_jump() -> None:
    """Beyond the cache's length the output differs from the unbounded one by far less than the motion itself."""
    decoder = numpy_decoder(random_decoder(FLAME))
    memory = np.random.default_rng(0).standard_normal((400, 64)).astype(np.float32)
    unbounded_TK = decoder.decode(memory, np.eye(3)[0], max_cached_frames=400)
    bounded_TK = decoder.decode(memory, np.eye(3)[0], max_cached_frames=120)
    np.testing.assert_array_equal(bounded_TK[:120], unbounded_TK[:120])
    assert np.abs(bounded_TK - unbounded_TK).mean() < 0.1 * unbounded_TK.std()
    frame_steps = np.abs(np.diff(bounded_TK, axis=0)).mean(1)
    assert frame_steps[239] < 3 * np.median(frame_steps)  # where the cache is copied to its start


def test_future_does_not_reach_back() -> None:
    decoder = numpy_decoder(random_decoder(FLAME))
    memory = np.random.default_rng(1).standard_normal((60, 64)).astype(np.float32)
    changed = memory.copy()
    changed[40:] += 1
    first, second = (decoder.decode(m, np.eye(3)[1]) for m in (memory, changed))
    np.testing.assert_array_equal(first[:40], second[:40])
    assert np.abs(first[40:] - second[40:]).max() > 1e-3


def test_masks() -> None:
    mask = biased_causal_mask(70, heads=4, period=30)
    assert mask[0, 65, 64] == 0 and mask[0, 65, 35] == -0.25 and mask[3, 65, 5] == -2 * 4.0**-4
    assert mask[2, 3, 4] == float("-inf")
    assert alignment_mask(2, 2).tolist() == [[False, False, True, True], [True, True, False, False]]


def test_gradient_flows_through_the_feedback() -> None:
    decoder = random_decoder(FLAME)
    memory = torch.randn(1, 12, 64, requires_grad=True)
    decoder(memory, torch.eye(3)[:1])[0, -1].sum().backward()
    assert memory.grad[0, 0].abs().max() > 0
