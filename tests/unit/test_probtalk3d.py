# SPDX-License-Identifier: GPL-3.0-or-later
"""ProbTalk3D and LSF-Animation against a plain reference, their draw, their losses, and where F_s enters."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.hosts.lsf import LSF
from wav2sem_blender.pipeline.hosts.probtalk3d import EMOTIONS, LEVELS, RELEASES, SPEAKERS, ProbTalk3D

torch = pytest.importorskip("torch")
F = torch.nn.functional

FIXTURES = Path(__file__).parents[3] / "shared/fixtures/hosts"
SMALL = ProbTalk3D(
    dim=16, heads=2, ffn_dim=24, prior_blocks=2, blocks=2, n_codes=6, code_width=8, feature_dim=12, longest=100
)
SMALL_LSF = LSF(
    **{name: getattr(SMALL, name) for name in ("dim", "heads", "ffn_dim", "prior_blocks", "n_codes", "code_width")},
    **{"blocks": 3, "feature_dim": 12, "emotion_dim": 10, "tokens": 3, "fusion_dim": 4, "shape_dim": 7},
)
N_STYLES, N_OUTPUTS, N_FRAMES = 5, 53, 9
HOSTS = pytest.mark.parametrize("host", [SMALL, SMALL_LSF], ids=lambda host: host.KIND)


def network_of(host: ProbTalk3D):
    torch.manual_seed(0)
    network = host.network(N_OUTPUTS, N_STYLES).eval()
    torch.nn.init.normal_(network.motion_prior.quantize.embedding.weight)
    return network


def memory_of(host: ProbTalk3D, n_frames: int = N_FRAMES, batch: int = 1):
    width = host.feature_dim + getattr(host, "emotion_dim", 0)
    return torch.randn(batch, 2 * n_frames, width, generator=torch.Generator().manual_seed(1))


class Plain:
    """The formulas of the released code, one frame and one pair at a time, from a state dict."""

    def __init__(self, state, host: ProbTalk3D) -> None:
        self.w, self.host = state, host

    def linear(self, name: str, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def norm(self, name: str, x):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def squashed(self, name: str, x_TM):
        weight, bias = self.w[f"{name}.weight"], self.w[f"{name}.bias"]
        n = len(x_TM)
        taps = [x_TM[[min(max(t + k - 2, 0), n - 1) for t in range(n)]] @ weight[:, :, k].T for k in range(5)]
        y_TM = F.leaky_relu(sum(taps) + bias, 0.2)
        return (y_TM - y_TM.mean(0)) / (y_TM.var(0, unbiased=False) + 1e-5).sqrt()

    def placed(self, x_TM):
        width = x_TM.shape[1]
        waves = [(math.sin, math.cos)[i % 2] for i in range(width)]
        rates = [math.exp(-(i // 2 * 2) * math.log(1e4) / width) for i in range(width)]
        rows = [[wave(t * rate) for wave, rate in zip(waves, rates, strict=True)] for t in range(len(x_TM))]
        return x_TM + torch.tensor(rows)

    def block(self, name: str, x_TM):
        heads, width = self.host.heads, x_TM.shape[1]
        read = self.norm(f"{name}.net.0.fn.norm", x_TM)
        query, key, value = self.linear(f"{name}.net.0.fn.fn.to_qkv", read).split(width, 1)
        size, mixed = width // heads, []
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            mixed.append((query[:, own] @ key[:, own].T / math.sqrt(width)).softmax(1) @ value[:, own])
        x_TM = x_TM + self.linear(f"{name}.net.0.fn.fn.to_out", torch.cat(mixed, 1))
        read = self.linear(f"{name}.net.1.fn.fn.l1", self.norm(f"{name}.net.1.fn.norm", x_TM))
        return x_TM + self.linear(f"{name}.net.1.fn.fn.l2", F.gelu(read, approximate="tanh"))

    def stack(self, name: str, x_TM, n_blocks: int):
        for j in range(n_blocks):
            parts = {f"block.net.{i}.": self.below(f"{name}.net.{2 * j + i}.") for i in (0, 1)}
            state = {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}
            x_TM = Plain(state, self.host).block("block", x_TM)
        return x_TM

    def below(self, prefix: str):
        return {key.removeprefix(prefix): value for key, value in self.w.items() if key.startswith(prefix)}

    def encoded(self, motion_TX):
        name = "motion_prior.motion_encoder"
        x_TM = self.squashed(
            f"{name}.squasher.0.0", F.leaky_relu(self.linear(f"{name}.feature_mapping.0", motion_TX), 0.2)
        )
        x_TM = self.placed(self.linear(f"{name}.encoder_linear_embedding.net", x_TM))
        return self.stack(f"{name}.encoder_transformer", x_TM, self.host.prior_blocks)

    def decoded(self, latent_TM):
        name = "motion_prior.motion_decoder"
        x_TM = self.linear(f"{name}.decoder_linear_embedding.net", self.squashed(f"{name}.expander.0.0", latent_TM))
        x_TM = self.stack(f"{name}.decoder_transformer", self.placed(x_TM), self.host.prior_blocks)
        return self.linear(f"{name}.feature_mapping_reverse", x_TM)

    def distances(self, latent_TM):
        """The pieces run along time, channel after channel."""
        moments = latent_TM.T.flatten().tolist()
        width = self.host.code_width
        pieces = torch.tensor([moments[i : i + width] for i in range(0, len(moments), width)])
        return torch.cdist(pieces, self.w["motion_prior.quantize.embedding.weight"]).square()

    def looked_up(self, codes, shape):
        rows = self.w["motion_prior.quantize.embedding.weight"][codes]
        return rows.flatten().reshape(shape[1], shape[0]).T

    def latent(self, memory_RD, style_N):
        name = "feature_predictor"
        pairs = torch.stack([torch.cat([memory_RD[2 * t], memory_RD[2 * t + 1]]) for t in range(len(memory_RD) // 2)])
        x_TM = self.linear(f"{name}.audio_feature_map", pairs) * self.linear(f"{name}.style_embedding", style_N)
        x_TM = self.linear(f"{name}.encoder_linear_embedding.net", self.squashed(f"{name}.squasher.0.0", x_TM))
        return self.stack(f"{name}.encoder_transformer", self.placed(x_TM), self.host.blocks)


class PlainFused(Plain):
    """LSF's predictor, whose fusion goes over all pairs of frames."""

    def latent(self, memory_RD, style_N):
        host, name = self.host, "feature_predictor"
        style_M = self.linear(f"{name}.style_proj", style_N)
        streams = []
        for part, layer, squash in (
            (memory_RD[:, : host.feature_dim], "audio_feat", "squash_a"),
            (memory_RD[:, host.feature_dim :], "emo_feat", "squash_e"),
        ):
            pairs = part.reshape(len(part) // 2, -1)
            x_TM = self.squashed(f"{name}.{squash}.0", self.linear(f"{name}.{layer}", pairs) * style_M)
            streams.append(self.placed(self.linear(f"{name}.lin_embed.net", x_TM)))
        speech, emotion = streams
        tokens = self.w[f"{name}.fusion_tokens"][0]
        for layer in range(host.blocks):
            speech = self.block(f"{name}.audio_blocks.{layer}", torch.cat([tokens, speech]))[len(tokens) :]
            emotion = self.block(f"{name}.emo_blocks.{layer}", torch.cat([tokens, emotion]))[len(tokens) :]
            tokens = self.fused(f"{name}.fusion_blocks.{layer}", tokens, emotion, speech)
        return speech

    def fused(self, name: str, tokens, emotion, speech):
        emotion, speech = self.norm(f"{name}.norm_v", emotion), self.norm(f"{name}.norm_a", speech)
        pairs = torch.stack([torch.cat([e, a]) for e in emotion for a in speech])
        query = self.linear(f"{name}.attn.q", self.norm(f"{name}.norm_mm", tokens))
        key, value = self.linear(f"{name}.attn.kv", pairs).chunk(2, 1)
        heads, size, mixed = self.host.heads, self.host.fusion_dim // self.host.heads, []
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            scores = query[:, own] @ key[:, own].T / math.sqrt(self.host.dim / heads)
            mixed.append(scores.softmax(1) @ value[:, own])
        tokens = tokens + self.linear(f"{name}.attn.proj", torch.cat(mixed, 1))
        read = F.gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm_mlp", tokens)))
        return tokens + self.linear(f"{name}.mlp.fc2", read)


def plain_of(network):
    kind = PlainFused if isinstance(network.config, LSF) else Plain
    return kind({key: value.detach().clone() for key, value in network.state_dict().items()}, network.config)


def test_the_published_sizes() -> None:
    release = RELEASES["probtalk3d-mead"]
    assert release.styles == (*SPEAKERS, *EMOTIONS, *LEVELS) and len(release.styles) == 43
    state = {key: tuple(value.shape) for key, value in release.host.network(53, 43).state_dict().items()}
    assert state["feature_predictor.audio_feature_map.weight"] == (256, 1536)
    assert state["motion_prior.quantize.embedding.weight"] == (256, 128)
    assert "motion_prior.motion_decoder.feature_mapping_reverse.bias" not in state


@pytest.mark.parametrize(("n_samples", "n_frames"), [(16_000, 24), (16_320, 25), (400 + 320 * 6, 3)])
def test_an_odd_last_frame_is_dropped(n_samples: int, n_frames: int) -> None:
    grid = SMALL.grid
    assert grid.animation_frames(n_samples) == n_frames
    assert grid.positions(n_samples).tolist() == list(range(2 * n_frames))


def test_settings_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match="a width of 16 is no multiple of 5 heads"):
        replace(SMALL, heads=5)
    with pytest.raises(UserError, match="probtalk3d at 30 fps: it has 25 fps only"):
        SMALL.at_rate(30)
    assert SMALL_LSF.at_rate(25) is SMALL_LSF
    assert SMALL_LSF.flops(20) > SMALL.flops(20) > SMALL.flops(10) * 1.5


@HOSTS
def test_it_equals_a_plain_reference(host: ProbTalk3D) -> None:
    network, memory_1RD, motion_1TX = network_of(host), memory_of(host), torch.rand(1, N_FRAMES, N_OUTPUTS)
    plain, style_1N = plain_of(network), torch.tensor([[0.0, 0.2, 0.8, 0.0, 1.0]])
    with torch.no_grad():
        latent_TM = plain.latent(memory_1RD[0], style_1N[0])
        codes = plain.distances(latent_TM).argmin(1)
        expected = plain.decoded(plain.looked_up(codes, latent_TM.shape))
        np.testing.assert_allclose(network.latents(memory_1RD, style_1N)[0], latent_TM, atol=2e-5)
        assert network.quantised(latent_TM[None])[1].tolist() == codes.tolist() and len(set(codes.tolist())) > 1
        np.testing.assert_allclose(network(memory_1RD, style_1N)[0], expected, atol=2e-5)
        np.testing.assert_allclose(network.motion_prior.encode(motion_1TX)[0], plain.encoded(motion_1TX[0]), atol=2e-5)


@HOSTS
def test_clips_of_a_batch_do_not_touch(host: ProbTalk3D) -> None:
    network, memory_BRD = network_of(host), memory_of(host, batch=2)
    style_BN = torch.rand(2, N_STYLES)
    with torch.no_grad():
        both = network(memory_BRD, style_BN)
        each = torch.cat([network(memory_BRD[i : i + 1], style_BN[i : i + 1]) for i in (0, 1)])
    np.testing.assert_allclose(both, each, atol=2e-5)


def test_codes_are_drawn_as_often_as_their_distance_says_and_the_seed_repeats_them() -> None:
    network = network_of(replace(SMALL, temperature=8.0))
    latent_1TM = torch.randn(1, N_FRAMES, 16)
    plain = plain_of(network)
    odds_QN = (-plain.distances(latent_1TM[0]) / 8.0).softmax(1)
    rows_NC, counts_QN = network.motion_prior.quantize.embedding.weight, torch.zeros_like(odds_QN)
    draws = [network.drawn(latent_1TM, seed)[0] for seed in range(400)]
    for drawn_TM in draws:
        pieces_QC = drawn_TM.T.reshape(-1, SMALL.code_width)
        counts_QN += torch.cdist(pieces_QC, rows_NC) < 1e-6
    assert counts_QN.sum(1).tolist() == [400] * len(odds_QN)
    assert (counts_QN / 400 - odds_QN).abs().max() < 5 * 0.5 / math.sqrt(400)
    assert torch.equal(network.drawn(latent_1TM, 7)[0], draws[7]) and not torch.equal(draws[7], draws[8])
    network.config = replace(SMALL, temperature=1e-9)
    with torch.no_grad():
        np.testing.assert_allclose(network.drawn(latent_1TM, 3), network.quantised(latent_1TM)[0], atol=1e-6)


def test_a_long_recording_is_read_in_windows_and_a_short_one_whole() -> None:
    network, style_1N = network_of(replace(SMALL, longest=20, overlap=4)), torch.eye(N_STYLES)[:1]
    memory_1RD, done = memory_of(SMALL, 50), []
    with torch.no_grad():
        motion_1TX = network.generate(memory_1RD, style_1N, 5, done.append)
        first = network.motion_prior.motion_from(network.drawn(network.latents(memory_1RD[:, :40], style_1N), 5))
        short = network.generate(memory_1RD[:, :40], style_1N, 5)
    assert motion_1TX.shape == (1, 50, N_OUTPUTS)
    np.testing.assert_allclose(motion_1TX[:, :15], first[:, :15], atol=1e-6)
    assert torch.equal(short, first)
    with pytest.raises(UserError, match="too short"):
        network.generate(memory_1RD[:, :3], style_1N)


@HOSTS
def test_losses_are_the_published_sums(host: ProbTalk3D) -> None:
    from wav2sem_blender.pipeline.nn.host_network import Example

    network, memory_1RD, style_1N = network_of(host), memory_of(host), torch.eye(N_STYLES)[:1]
    motion_1TX, plain = torch.rand(1, N_FRAMES, N_OUTPUTS), plain_of(network)
    loss = network.loss(Example(memory_BRM=memory_1RD, style_BN=style_1N, target_BTX=motion_1TX))
    prior_loss = network.prior_loss(motion_1TX)
    with torch.no_grad():
        encoded, latent = plain.encoded(motion_1TX[0]), plain.latent(memory_1RD[0], style_1N[0])
        wanted, found = (plain.looked_up(plain.distances(x).argmin(1), x.shape) for x in (encoded, latent))
        off = (plain.decoded(found) - motion_1TX[0]).abs()
        expected = (found - wanted).abs().mean() + 0.15 * off[:, :50].mean() + 0.1 * off[:, 50:].mean()
        off = (plain.decoded(wanted) - motion_1TX[0]).abs()
        codebook = 1.25 * (wanted - encoded).square().mean()
        prior = 1.5 * codebook + 0.5 * off[:, :50].mean() + 0.1 * off[:, 50:].mean()
    assert loss.item() == pytest.approx(float(expected), rel=1e-4)
    assert prior_loss.item() == pytest.approx(float(prior), rel=1e-4)
    (loss + prior_loss).backward()
    assert network.motion_prior.quantize.embedding.weight.grad.abs().sum() > 0
    first = network.feature_predictor.audio_feat if host is SMALL_LSF else network.feature_predictor.audio_feature_map
    assert first.weight.grad.abs().sum() > 0


def test_a_speaker_is_read_from_a_shape() -> None:
    network, memory_1RD, shape_1E = network_of(SMALL_LSF), memory_of(SMALL_LSF), torch.randn(1, 7)
    with torch.no_grad():
        speaker_1N = network.identity_extractor(shape_1E)
        assert float(speaker_1N.sum()) == pytest.approx(1)
        assert torch.equal(network(memory_1RD, shape_1E), network(memory_1RD, speaker_1N))


@HOSTS
def test_released_names_give_the_network_back_and_others_are_refused(host: ProbTalk3D) -> None:
    from wav2sem_blender.pipeline.official import lsf, probtalk3d

    from_published = lsf.from_published if host is SMALL_LSF else probtalk3d.from_published
    network = network_of(host)
    state = dict(network.state_dict())
    again = from_published(host.KIND, {**state, "_losses.losses_train.total": torch.zeros(())}, heads=2)
    assert again.config == replace(host, longest=again.config.longest)
    memory_1RD, style_1N = memory_of(host), torch.eye(N_STYLES)[:1]
    assert torch.equal(again(memory_1RD, style_1N), network(memory_1RD, style_1N))
    missing = "motion_prior.motion_decoder.expander.0.0.weight"
    with pytest.raises(UserError, match=f"{missing} is missing"):
        from_published(host.KIND, {key: value for key, value in state.items() if key != missing}, heads=2)
    with pytest.raises(UserError, match="feature_predictor.more is unknown"):
        from_published(host.KIND, {**state, "feature_predictor.more": torch.zeros(1)}, heads=2)
    with pytest.raises(UserError, match="motion_prior.quantize.embedding.weight is missing"):
        from_published(host.KIND, {key: value for key, value in state.items() if "quantize" not in key}, heads=2)


@HOSTS
def test_semantics_enter_the_speech_alone(host: ProbTalk3D) -> None:
    """FC(F_s) = 0 is the plain host, any other is the plain host on H + FC(F_s); the emotion is heard without it."""
    pytest.importorskip("transformers")
    from wav2sem_blender.pipeline.checkpoint import EncoderConfig, ModelConfig, Wav2SemConfig
    from wav2sem_blender.pipeline.nn.encoders import encode
    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    tiny = {"conv_dim": [4] * 7, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    tiny |= {"intermediate_size": 8, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    emotion = EncoderConfig(kind="hubert", config={**tiny, "hidden_size": 10}) if host is SMALL_LSF else None
    config = ModelConfig(
        name="small",
        encoder=EncoderConfig(kind="hubert", config=tiny),
        wav2sem=Wav2SemConfig(config=tiny, target_dim=5),
        host=host,
        channels=tuple(f"parameter_{i}" for i in range(N_OUTPUTS)),
        styles=tuple("abcde"),
        emotion=emotion,
    )
    assert ModelConfig.from_json(config.to_json()).to_json() == config.to_json()
    torch.manual_seed(0)
    model = FaceModel(config)
    assert not any(
        model.train().get_submodule(name).training for name in ("wav2sem", *["emotion_encoder"] * bool(emotion))
    )
    model.eval()
    waveform_1S, style_1N = torch.randn(1, 4_800), torch.eye(5)[:1]
    positions_1R = torch.from_numpy(host.grid.positions(4_800)).float()[None]
    with torch.no_grad():
        hidden_1LD, _ = encode(model.audio_encoder, waveform_1S)
        plain_1RD = hidden_1LD[:, : positions_1R.shape[1]]
        added = model.fusion.semantic_feature_map(model.semantics(waveform_1S))
        emotions = model.emotions(waveform_1S, positions_1R)
        assert (emotions is None) == (emotion is None)
        for times in (1, 0):
            for parameter in model.fusion.semantic_feature_map.parameters():
                parameter.mul_(times)
            expected = model.beside(plain_1RD + times * added, emotions)
            np.testing.assert_allclose(
                model(waveform_1S, positions_1R, style_1N), model.decoder(expected, style_1N), atol=1e-5
            )


@pytest.mark.parametrize("kind", ["probtalk3d", "lsf"])
def test_it_equals_the_released_code(kind: str) -> None:
    from trainer.host_checks import TOLERANCE, check_host

    file = FIXTURES / f"{kind}.npz"
    if not file.is_file():
        pytest.skip("the outputs of the released code are not part of this repository")
    differences = check_host(kind, file)
    assert set(differences) >= {"latent", "codes", "vq_loss", "reconstruction", "prediction_latent", "prediction"}
    assert max(differences.values()) < TOLERANCE
