# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker against a slow reference, the published loop: every step recomputes everything, on vertices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline.hosts import codetalker as settings  # noqa: E402
from wav2sem_blender.pipeline.hosts.codetalker import BIWI, VOCASET, CodeTalker  # noqa: E402
from wav2sem_blender.pipeline.nn import codetalker  # noqa: E402
from wav2sem_blender.pipeline.nn.alignment import AlignmentDecoder  # noqa: E402
from wav2sem_blender.pipeline.nn.codec import CodecSizes, VectorQuantiser  # noqa: E402
from wav2sem_blender.pipeline.nn.codetalker import CODEC, from_published  # noqa: E402
from wav2sem_blender.pipeline.nn.host_network import Example  # noqa: E402

from .tiny_codetalker import HOSTS  # noqa: E402, TID252

GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "hosts"
N_OUTPUTS, N_STYLES = 12, 3
by_data = pytest.mark.parametrize("data", HOSTS)


def network_of(host: CodeTalker, seed: int = 0):
    torch.manual_seed(seed)
    network = host.network(N_OUTPUTS, N_STYLES).eval()
    for name, value in network.state_dict().items():
        if "norm" not in name:
            value.normal_(std=0.4)
    return network


def heard(host: CodeTalker, n_frames: int):
    return torch.randn(1, n_frames * host.memory_per_frame, host.dim), torch.tensor([[0.0, 1.0, 0.0]])


# The reference: plain functions on a state dict, in the words of the published code.


def stage1(w: dict, prefix: str, x_TM, squasher: str):
    """Squasher, linear, row 0 of the positions, blocks."""
    padded = F.pad(x_TM.T[None], (2, 2), mode="replicate")
    x = F.leaky_relu(F.conv1d(padded, w[f"{squasher}.0.0.weight"], w[f"{squasher}.0.0.bias"]), 0.2)[0]
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    name = prefix.split(".")[-1]
    x = x.T @ w[f"{prefix}_linear_embedding.net.weight"].T + w[f"{prefix}_linear_embedding.net.bias"]
    width = x.shape[1]
    x = x + torch.tensor([0.0, 1.0]).repeat(width // 2)
    block = f"{prefix}_transformer.net"
    for j in range(2):
        part, n_heads = f"{block}.{2 * j}.fn", 4
        q, k, v = (norm(w, f"{part}.norm", x) @ w[f"{part}.fn.to_qkv.weight"].T).chunk(3, 1)
        mixed = []
        for h in range(n_heads):
            own = slice(h * width // n_heads, (h + 1) * width // n_heads)
            mixed.append((q[:, own] @ k[:, own].T * width**-0.5).softmax(1) @ v[:, own])
        x = x + torch.cat(mixed, 1) @ w[f"{part}.fn.to_out.weight"].T + w[f"{part}.fn.to_out.bias"]
        part = f"{block}.{2 * j + 1}.fn"
        inner = norm(w, f"{part}.norm", x) @ w[f"{part}.fn.l1.weight"].T + w[f"{part}.fn.l1.bias"]
        x = x + F.gelu(inner, approximate="tanh") @ w[f"{part}.fn.l2.weight"].T + w[f"{part}.fn.l2.bias"]
    assert name in ("encoder", "decoder")
    return x


def norm(w: dict, name: str, x):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def encoded(w: dict, offset_TX):
    x = F.leaky_relu(offset_TX @ w["encoder.vertice_mapping.0.weight"].T + w["encoder.vertice_mapping.0.bias"], 0.2)
    x = stage1(w, "encoder.encoder", x, "encoder.squasher")
    if "encoder.encoder_linear_embedding_post.net.weight" in w:
        x = x @ w["encoder.encoder_linear_embedding_post.net.weight"].T
        x = x + w["encoder.encoder_linear_embedding_post.net.bias"]
    return x


def quantised(w: dict, latent_TZ):
    rows = w["quantize.embedding.weight"]
    pieces = latent_TZ.reshape(-1, rows.shape[1])
    nearest = [min(range(len(rows)), key=lambda i: float((piece - rows[i]).square().sum())) for piece in pieces]
    return rows[nearest].reshape(latent_TZ.shape)


def decoded(w: dict, latent_TZ):
    x = latent_TZ
    if "decoder.decoder_linear_embedding_pre.net.weight" in w:
        x = x @ w["decoder.decoder_linear_embedding_pre.net.weight"].T
        x = x + w["decoder.decoder_linear_embedding_pre.net.bias"]
    x = stage1(w, "decoder.decoder", x, "decoder.expander")
    return x @ w["decoder.vertice_map_reverse.weight"].T + w.get("decoder.vertice_map_reverse.bias", 0)


def torch_decoder(network, host: CodeTalker):
    layer = torch.nn.TransformerDecoderLayer(host.dim, host.heads, host.ffn_dim, batch_first=True)
    decoder = torch.nn.TransformerDecoder(layer, host.layers).eval()
    decoder.load_state_dict(network.transformer_decoder.state_dict())
    return decoder


def attended(decoder, host: CodeTalker, x_TM, memory_RM):
    n_frames, n_memory = len(x_TM), len(memory_RM)
    lag = torch.arange(n_frames)[:, None] - torch.arange(n_frames)[None]
    bias = torch.stack([-(lag // host.period) * 2.0 ** (-8 * (h + 1) / host.heads) for h in range(host.heads)])
    bias[:, lag < 0] = -torch.inf
    own = torch.arange(n_frames)[:, None] == torch.arange(n_memory)[None] // host.memory_per_frame
    angle = torch.arange(n_frames)[:, None] % host.period / 10000 ** (torch.arange(0, host.dim, 2) / host.dim)
    positions = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)
    return decoder((x_TM + positions)[None], memory_RM[None], bias, ~own)[0]


def predicted(network, host: CodeTalker, memory_RM, style_M):
    """The published inference: every step decodes all codes so far into vertices."""
    w = {key.removeprefix(CODEC): value for key, value in network.state_dict().items()}
    decoder, fed = torch_decoder(network, host), [style_M]
    for step in range(len(memory_RM) // host.memory_per_frame):
        features = attended(decoder, host, torch.stack(fed), memory_RM) @ w["feat_map.weight"].T
        codes = quantised(w, features)
        offset_tX = decoded(w, codes.expand(2, -1))[:1] if step == 0 else decoded(w, codes)
        fed.append(offset_tX[-1] @ w["vertice_map.weight"].T + w["vertice_map.bias"] + style_M)
    return offset_tX


@by_data
@pytest.mark.parametrize("n_frames", [1, 2, 3, 11])
@torch.no_grad()
def test_inference_equals_the_published_loop(data: str, n_frames: int) -> None:
    host = HOSTS[data]
    network = network_of(host)
    memory_1RM, style_1N = heard(host, n_frames)
    expected_TX = predicted(network, host, memory_1RM[0], network.learnable_style_emb.weight[1])
    assert expected_TX.shape == (n_frames, N_OUTPUTS) and expected_TX.std() > 0.1
    told: list[float] = []
    predicted_TX = network.generate(memory_1RM, style_1N, progress=told.append)[0]
    # One frame twice over has no variance over time, so there rounding errors are divided by the root of 1e-5.
    tolerance = (1e-4 if n_frames == 1 else 1e-5) * float(expected_TX.abs().max())
    np.testing.assert_allclose(predicted_TX, expected_TX, atol=tolerance)
    np.testing.assert_allclose(told, [(t + 1) / n_frames for t in range(n_frames)])


@by_data
def test_the_loss_is_that_of_the_vertices_and_of_the_latents(data: str) -> None:
    host = HOSTS[data]
    network = network_of(host)
    (memory_1RM, style_1N), target_TX = heard(host, 7), torch.randn(7, N_OUTPUTS)
    w = {key.removeprefix(CODEC): value for key, value in network.state_dict().items()}
    with torch.no_grad():
        fed_TX = F.pad(target_TX[:-1], (0, 0, 1, 0)) @ w["vertice_map.weight"].T + w["vertice_map.bias"]
        hidden_TM = attended(
            torch_decoder(network, host), host, fed_TX + w["learnable_style_emb.weight"][1], memory_1RM[0]
        )
        latent_TZ = hidden_TM @ w["feat_map.weight"].T
        vertices = (decoded(w, quantised(w, latent_TZ)) - target_TX).square().mean()
        latents = (latent_TZ - quantised(w, encoded(w, target_TX))).square().mean()
    network.train()
    network.position_dropout.p = 0.0
    for layer in network.transformer_decoder.layers:
        layer.eval()
    loss = network.loss(Example(memory_BRM=memory_1RM, style_BN=style_1N, target_BTX=target_TX[None]))
    assert loss.item() == pytest.approx(float(vertices + latents), rel=1e-5)
    loss.backward()
    # The loss reaches stage 2 through the codes; stage 1 stays as it is, and in eval mode.
    assert network.feat_map.weight.grad.abs().max() > 0 and network.vertice_map.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in network.autoencoder.parameters())
    assert not network.autoencoder.training and network.position_dropout.training


@by_data
@torch.no_grad()
def test_keys_give_the_same_motion_and_what_they_leave_out_is_measured(data: str, monkeypatch) -> None:
    host = HOSTS[data]
    network = network_of(host)
    memory_1RM, style_1N = heard(host, 11)
    expected_TX = network(memory_1RM, style_1N)[0]
    scale = float(expected_TX.abs().max())

    def on_keys():
        keys = network.on_keys()
        animated = keys.host.network(len(keys.channels), N_STYLES).eval()
        animated.load_state_dict(keys.state)
        weights_TK = animated(memory_1RM, style_1N)[0]
        np.testing.assert_allclose(weights_TK[:, -1], 1, atol=1e-6)
        return keys, weights_TK.numpy() @ keys.basis_KV3.reshape(len(keys.channels), -1)

    keys, exact_TX = on_keys()
    np.testing.assert_allclose(exact_TX, expected_TX, atol=2e-5 * scale)
    assert len(keys.channels) == N_OUTPUTS + 1 and keys.error < 1e-5 * scale
    # Nothing of the published files is lost: with what only an export needs, the network is whole again.
    own = {name for name in network.state_dict() if name in keys.state and name not in keys.published}
    again = from_published(f"codetalker-{data}", {name: keys.state[name] for name in own} | keys.published)
    assert set(again.state_dict()) == set(network.state_dict())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())
    # Fewer keys: the codes, and so the feedback, are those of the whole face; the motion is a little off.
    monkeypatch.setattr(codetalker, "head_on_keys", lambda *some, **named: HEAD_ON_KEYS(*some, **named, max_keys=6))
    keys, near_TX = on_keys()
    off = np.sqrt(np.square(near_TX - expected_TX.numpy()).reshape(11, -1, 3).sum(2).mean(0)).max()
    assert len(keys.channels) == 7 and 0.2 * keys.error < off < 5 * keys.error
    assert off < 0.7 * float(expected_TX.std())


HEAD_ON_KEYS = codetalker.head_on_keys


@torch.no_grad()
def test_styles_mix_as_in_the_published_interpolation() -> None:
    host = HOSTS["vocaset"]
    network = network_of(host)
    memory_1RM, _ = heard(host, 5)
    embeddings = network.learnable_style_emb.weight
    mixed_M = 0.3 * embeddings[0] + 0.7 * embeddings[2]
    expected_TX = predicted(network, host, memory_1RM[0], mixed_M)
    mixture_TX = network(memory_1RM, torch.tensor([[0.3, 0.0, 0.7]]))[0]
    np.testing.assert_allclose(mixture_TX, expected_TX, atol=1e-5 * float(expected_TX.abs().max()))


@torch.no_grad()
def test_a_long_recording_is_made_in_windows_that_meet_without_a_jump(monkeypatch) -> None:
    host = HOSTS["biwi"]
    network = network_of(host)
    memory_1RM, style_1N = heard(host, 50)
    monkeypatch.setattr(CodeTalker, "LONGEST", 20)
    monkeypatch.setattr(CodeTalker, "OVERLAP", 5)
    told: list[float] = []
    long_TX = network.generate(memory_1RM, style_1N, progress=told.append)[0]
    first_TX = network(memory_1RM[:, :40], style_1N)[0]
    last_TX = network(memory_1RM[:, -40:], style_1N)[0]
    np.testing.assert_array_equal(long_TX[:15], first_TX[:15])  # windows of 20 start at 0, 15 and 30
    np.testing.assert_array_equal(long_TX[35:], last_TX[5:])
    assert len(told) == 60 and told == sorted(told) and told[-1] == 1


@pytest.mark.parametrize(("heads", "memory_per_frame", "period"), [(4, 1, 3), (4, 2, 3), (8, 1, 30), (2, 1, None)])
@torch.no_grad()
def test_the_aligned_decoder_gives_the_same_frame_by_frame(heads: int, memory_per_frame: int, period) -> None:
    torch.manual_seed(0)
    decoder = AlignmentDecoder(16, heads, 2, period=period, memory_per_frame=memory_per_frame).eval()
    x_BTM, memory_BRM = torch.randn(2, 9, 16), torch.randn(2, 9 * memory_per_frame, 16)
    decoding = decoder.cached(memory_BRM)
    stepped_BTM = torch.stack([decoding.step(frame_BM) for frame_BM in x_BTM.unbind(1)], 1)
    np.testing.assert_allclose(stepped_BTM, decoder(x_BTM, memory_BRM), atol=1e-5)
    # A frame depends on its past and on its own memory.
    changed = memory_BRM.clone()
    changed[:, 4 * memory_per_frame] += 1
    moved_T = (decoder(x_BTM, changed) - decoder(x_BTM, memory_BRM)).abs().amax((0, 2))
    assert moved_T[:4].max() == 0 and moved_T[4] > 1e-3


def test_of_equally_near_rows_the_first_is_taken_and_an_emotion_has_rows_of_its_own() -> None:
    quantiser = VectorQuantiser(2 * 256, 2)
    with torch.no_grad():
        quantiser.embedding.weight.copy_(torch.arange(2 * 2 * 256).reshape(-1, 2))
        quantiser.embedding.weight[256] = 1000.0
        latent = torch.tensor([[[1.0, 2.0, 2.0, 3.0]]], requires_grad=True)
    quantised_BTZ, codes, loss = quantiser(latent)
    assert codes.tolist() == [0, 1] and quantised_BTZ.tolist() == [[[0.0, 1.0, 2.0, 3.0]]]
    assert loss.item() == pytest.approx(1.25 * 0.5)
    quantised_BTZ.sum().backward(retain_graph=True)
    assert latent.grad.tolist() == [[[1.0] * 4]]
    assert quantiser.codes(latent, emotion=1).tolist() == [1, 1]  # row 257, counted from row 256


def test_what_is_missing_or_too_much_is_named() -> None:
    state = network_of(HOSTS["vocaset"]).state_dict()
    assert from_published("codetalker-vocaset", state | {"PPE.pe": torch.zeros(1)}).config.layers == 2
    for name in ("vertice_map.weight", "vertice_map.bias", "transformer_decoder.layers.1.linear2.bias"):
        with pytest.raises(UserError, match=f"the weight {name} is missing"):
            from_published("codetalker-vocaset", {key: value for key, value in state.items() if key != name})
    stage2 = {key: value for key, value in state.items() if not key.startswith(CODEC)}
    with pytest.raises(UserError, match="the weight encoder.vertice_mapping.0.weight is missing"):
        from_published("codetalker-vocaset", stage2)
    with pytest.raises(UserError, match="the weight obj_vector.weight is unknown"):
        from_published("codetalker-vocaset", state | {"obj_vector.weight": torch.zeros(1)})


def test_settings() -> None:
    assert VOCASET.at_rate(25).memory_per_frame == 2 and BIWI.at_rate(25) == BIWI
    for wrong, message in (({"fps": 24}, "codetalker at 24 fps"), ({"code_width": 60}, "codes of 60 values")):
        with pytest.raises(UserError, match=message):
            replace(VOCASET, **wrong)
    sizes = {data: codetalker.codec_sizes(host, 3 * n) for data, host, n in (("v", VOCASET, 5023), ("b", BIWI, 23370))}
    assert sizes["v"] == CodecSizes(n_outputs=15069)
    assert sizes["b"] == CodecSizes(n_outputs=70110, code_width=128, extra_linear=True, head_bias=False)
    # 10 s: about 45,000 frames pass the codec's 48 squares of its width, less the last block's; two operations each.
    assert VOCASET.flops(300) == pytest.approx(45_000 * 43 * 1024**2 * 2, rel=0.1)
    assert VOCASET.flops(600) > 3.5 * VOCASET.flops(300)
    assert VOCASET.flops(6000) == pytest.approx(VOCASET.flops(600) * (6000 - 120) / 480, rel=1e-6)
    assert settings.RELEASES["codetalker-biwi"].n_vertices == 23370


@pytest.mark.parametrize("kind", [f"codetalker_{data}_stage{stage}" for data in HOSTS for stage in (1, 2)])
def test_outputs_of_the_released_code(kind: str) -> None:
    pytest.importorskip("trainer.host_checks", reason="the trainer's requirements are not installed")
    from trainer.host_checks import TOLERANCE, check_host

    file = GOLDEN / f"{kind}.npz"
    if not file.is_file():
        pytest.skip("golden values of the released code are not in the repository")
    differences = check_host(kind, file)
    stage1, stage2 = {"codes", "reconstruction", "quant_loss"}, {"prediction", "loss", "loss_motion", "loss_reg"}
    assert set(differences) == (stage1 if kind.endswith("1") else stage2)
    assert max(differences.values()) < TOLERANCE
