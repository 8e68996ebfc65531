# SPDX-License-Identifier: GPL-3.0-or-later
"""The cached NumPy decoder and the cached torch decoder against the plain loop that recomputes the prefix."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wav2sem_blender.pipeline.hosts.faceformer import RELEASES, FaceFormer, MotionDecoder  # noqa: E402
from wav2sem_blender.pipeline.nn.faceformer import FaceDecoder, alignment_mask, biased_causal_mask  # noqa: E402

FLAME = RELEASES["faceformer-vocaset"].host
BIWI = RELEASES["faceformer-biwi"].host


def random_decoder(config: FaceFormer, channels: int = 9, styles: int = 3, seed: int = 0) -> FaceDecoder:
    torch.manual_seed(seed)
    decoder = FaceDecoder(config, channels, styles).eval()
    torch.nn.init.normal_(decoder.motion_head.weight, std=0.2)
    torch.nn.init.normal_(decoder.motion_head.bias, std=0.2)
    return decoder


def recompute_prefix(decoder: FaceDecoder, memory_1RM, style_1N):
    """FaceFormer's own loop: every step runs the whole prefix through the layer and the motion head."""
    config = decoder.config
    n_frames = memory_1RM.shape[1] // config.memory_per_frame
    style_1M = decoder.style(style_1N)
    embedded_1tM = style_1M[None]
    for t in range(1, n_frames + 1):
        hidden_1tM = decoder.layer(
            embedded_1tM + decoder.positions[torch.arange(t) % config.period],
            memory_1RM,
            tgt_mask=biased_causal_mask(t, config.heads, config.period),
            memory_mask=alignment_mask(n_frames, config.memory_per_frame)[:t],
        )
        output_1tK = decoder.motion_head(hidden_1tM)
        fed_1M = decoder.feedback_map(output_1tK[:, -1]) + style_1M
        embedded_1tM = torch.cat([embedded_1tM, fed_1M[None]], 1)
    return output_1tK


def numpy_decoder(decoder: FaceDecoder) -> MotionDecoder:
    return MotionDecoder(decoder.config, {key: value.numpy() for key, value in decoder.state_dict().items()})


@pytest.mark.parametrize("config", [FLAME, BIWI], ids=["30fps", "25fps"])
@pytest.mark.parametrize("n_frames", [1, 2, 31, 95])
def test_cached_equals_recomputed(config: FaceFormer, n_frames: int) -> None:
    decoder = random_decoder(config)
    memory = torch.randn(1, n_frames * config.memory_per_frame, config.dim)
    style = torch.tensor([[0.2, 0.5, 0.3]])
    with torch.no_grad():
        expected_TK = recompute_prefix(decoder, memory, style)[0].numpy()
        torch_TK = decoder(memory, style)[0].numpy()
        folded_TK = decoder.recomputed(memory, style)[0].numpy()
    numpy_TK = numpy_decoder(decoder).decode(memory[0].numpy(), style[0].numpy())
    assert np.abs(expected_TK).max() > 0.1
    np.testing.assert_allclose(torch_TK, expected_TK, atol=1e-5)
    np.testing.assert_allclose(folded_TK, expected_TK, atol=1e-5)
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


@pytest.mark.parametrize("config", [FLAME, BIWI], ids=["30fps", "25fps"])
@pytest.mark.parametrize("loop", ["forward", "recomputed"])
def test_gradients_equal_the_plain_loops(config: FaceFormer, loop: str) -> None:
    """The plain loop feeds back vertices. Folding them away must keep the gradient of the feedback."""
    decoder = random_decoder(config, channels=300)
    memory = torch.randn(1, 40 * config.memory_per_frame, config.dim, requires_grad=True)
    style, target = torch.eye(3)[:1], torch.randn(1, 40, 300)
    learnt = [memory, *decoder.parameters()]
    gradients = [
        torch.autograd.grad(torch.nn.functional.mse_loss(run(memory, style), target), learnt)
        for run in (getattr(decoder, loop), lambda *inputs: recompute_prefix(decoder, *inputs))
    ]
    for folded, plain in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        np.testing.assert_allclose(folded, plain, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize("config", [FLAME, BIWI], ids=["30fps", "25fps"])
def test_dropout_reaches_every_published_place(config: FaceFormer) -> None:
    """With one frame, which has no past, the cached and the recomputing loop draw noise with equal moments."""
    decoder = random_decoder(config).train()
    memory = torch.randn(1, config.memory_per_frame, config.dim).expand(6000, -1, -1)
    style = torch.eye(3)[:1].expand(6000, -1)
    with torch.no_grad():
        cached_BK, recomputed_BK = decoder(memory, style)[:, 0], decoder.recomputed(memory, style)[:, 0]
    spread = float(recomputed_BK.std(0).mean())
    assert spread > 0.01
    np.testing.assert_allclose(cached_BK.mean(0), recomputed_BK.mean(0), atol=0.1 * spread)
    np.testing.assert_allclose(cached_BK.std(0), recomputed_BK.std(0), rtol=0.08)


def test_teacher_forcing_feeds_the_true_previous_frame() -> None:
    """Fed its own motion as the truth it predicts the same, except frame 0, which is fed a motion of zero."""
    decoder = random_decoder(FLAME)
    torch.nn.init.zeros_(decoder.feedback_map.bias)
    memory, style = torch.randn(1, 40, 64), torch.eye(3)[:1]
    with torch.no_grad():
        own = decoder(memory, style)
        np.testing.assert_allclose(decoder(memory, style, own), own, atol=1e-5)
        decoder.feedback_map.bias += 1.0
        own = decoder(memory, style)
        assert (decoder(memory, style, own)[0, 0] - own[0, 0]).abs().max() > 1e-3
