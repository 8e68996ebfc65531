# SPDX-License-Identifier: GPL-3.0-or-later
"""LG-LDM against a slow reference that follows the published formulas, and against its released code's outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.frame_timing import encoder_frames
from wav2sem_blender.pipeline.hosts.lgldm import MEAD_EMOTIONS, MEAD_SUBJECTS, RELEASES, LgLdm

torch = pytest.importorskip("torch")
F = torch.nn.functional

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared/fixtures/hosts"
TINY = {"dim": 16, "n_layers": 2, "audio_dim": 6, "codec_heads": 2, "codec_ffn_dim": 12}
TINY |= {"codec_blocks": 1, "code_width": 4}
N_OUTPUTS = 12


def tiny(kind: str, **settings) -> LgLdm:
    codec_dim = 16 if kind == "lgldm-vocaset" else 8  # the other class has a linear layer between the two widths
    return replace(RELEASES[kind].host, heads=4, codec_dim=codec_dim, **TINY, **settings)


def made(kind: str, seed: int = 0, **settings):
    """A tiny network of random weights, in eval mode."""
    torch.manual_seed(seed)
    host = tiny(kind, **settings)
    network = host.network(N_OUTPUTS, 3 + host.emotions).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


def inputs(network, n_frames: int, seed: int = 1):
    """Memory, style (subject 1; for MEAD the fifth emotion), latents."""
    generator = torch.Generator().manual_seed(seed)
    config = network.config
    memory = torch.randn(1, n_frames * config.memory_per_frame, config.audio_dim, generator=generator)
    style = torch.zeros(1, 3 + config.emotions)
    style[0, 1] = 1
    if config.emotions:
        style[0, 3 + 4] = 1
    return memory, style, torch.randn(1, n_frames, config.dim, generator=generator)


def slow_x0(network, x_TD, time: int, memory_RM, style_N):
    """The denoiser by its formulas, frame by frame and head by head, from its state dict."""
    w = {name.removeprefix("denoise_fn."): value.double() for name, value in network.state_dict().items()}
    config, n_frames = network.config, len(x_TD)
    biwi = config.mish_on_style

    def linear(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(name, x):
        return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attend(name, query, keys, biases):
        size = config.dim // config.heads
        q_weight, k_weight, v_weight = w[f"{name}.in_proj_weight"].chunk(3)
        q_bias, k_bias, v_bias = w[f"{name}.in_proj_bias"].chunk(3)
        heads = []
        for head in range(config.heads):
            own = slice(head * size, (head + 1) * size)
            q = (q_weight @ query + q_bias)[own]
            scores = [q @ (k_weight @ key + k_bias)[own] / size**0.5 + biases[head][i] for i, key in enumerate(keys)]
            shares = torch.stack(scores).softmax(0)
            heads.append(sum(s * (v_weight @ key + v_bias)[own] for s, key in zip(shares, keys, strict=True)))
        return linear(f"{name}.out_proj", torch.cat(heads))

    pairs = memory_RM.double().reshape(n_frames, -1)
    one_hot = F.one_hot(torch.tensor(time), 1000).double()
    when = F.mish(linear("time_embedd.0", one_hot))
    memory = [linear("audio_extract.2", F.mish(linear("audio_extract.0", pair))) + when for pair in pairs]
    subject = style_N[:3].double()
    told = F.mish(linear("style_embedd.0", subject)) if biwi else linear("style_embedd", subject)
    if config.emotions:
        told = told + linear("emotion_embedd", style_N[3:].double())
    x = []
    for t, latent in enumerate(x_TD.double()):
        row = t % 30 if config.periodic_positions else t
        rates = torch.exp(-torch.arange(0, config.dim, 2).double() * np.log(1e4) / config.dim)
        position = torch.stack([torch.sin(row * rates), torch.cos(row * rates)], 1).flatten()
        query = linear("latent_encoder", latent) if biwi else F.mish(linear("latent_encoder.0", latent))
        x.append(query + told + position)
    for layer in range(config.n_layers):
        name, before = f"transformer_decoder.layers.{layer}", list(x)
        for t in range(n_frames):
            slopes = [2 ** (-8 * (head + 1) / config.heads) for head in range(config.heads)]
            biases = [[-slope * ((t - j) // config.period) for j in range(t + 1)] for slope in slopes]
            y = norm(f"{name}.norm1", before[t] + attend(f"{name}.self_attn", before[t], before[: t + 1], biases))
            own = attend(f"{name}.multihead_attn", y, [memory[t]], [[0.0]] * config.heads)
            y = norm(f"{name}.norm2", y + own)
            x[t] = norm(f"{name}.norm3", y + linear(f"{name}.linear2", linear(f"{name}.linear1", y).relu()))
    return torch.stack([linear("latent_decoder", frame) for frame in x])


def slow_alphas() -> np.ndarray:
    """The share of the signal that is left at each of the 1000 times."""
    f = [np.cos((k / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 for k in range(1001)]
    return np.cumprod([1 - min(1 - f[k + 1] / f[k], 0.9999) for k in range(1000)])


def assert_close(ours, theirs, tolerance: float = 1e-5) -> None:
    ours, theirs = np.asarray(ours.detach(), np.float64), np.asarray(theirs.detach(), np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("kind", RELEASES)
def test_the_denoiser_follows_the_published_formulas(kind: str) -> None:
    """35 frames: beyond the period of 30 (VOCASET, MEAD) or 25 (BIWI), where the bias begins."""
    network = made(kind)
    memory, style, latents = inputs(network, 35)
    with torch.no_grad():
        expected = slow_x0(network, latents[0], 411, memory[0], style[0])
        heard, told = network.denoise_fn.heard(memory), network.denoise_fn.told(style)
        assert_close(network.denoise_fn(latents, torch.tensor([411]), heard, told)[0], expected)
        assert_close(network.denoise_fn.prepared(heard, told)(latents, 411)[0], expected)


def test_latents_and_speech_are_cut_to_the_shorter() -> None:
    network = made("lgldm-vocaset")
    memory, style, latents = inputs(network, 7)
    with torch.no_grad():
        told, heard = network.denoise_fn.told(style), network.denoise_fn.heard(memory)
        short = network.denoise_fn(latents, torch.tensor([3]), heard[:, :5], told)
        assert_close(short, network.denoise_fn(latents[:, :5], torch.tensor([3]), heard, told))
    assert short.shape == (1, 5, 16)


@pytest.mark.parametrize(("kind", "finished"), [("lgldm-vocaset", False), ("lgldm-biwi", True)])
def test_ddim_skips_its_last_step_unless_it_is_told_to_finish(kind: str, finished: bool) -> None:
    network, alphas = made(kind, sampling_steps=4, finished=finished), slow_alphas()
    memory, style, x = inputs(network, 3)
    ours = network.ddim(memory, style, x)
    x = x[0].double()
    for time, following in ((999, 749), (749, 499), (499, 249), (249, -1)):
        x0 = slow_x0(network, x, time, memory[0], style[0])
        if following >= 0:
            noise = (x - alphas[time] ** 0.5 * x0) / (1 - alphas[time]) ** 0.5
            x = alphas[following] ** 0.5 * x0 + (1 - alphas[following]) ** 0.5 * noise
        elif finished:
            x = x0
    assert_close(ours[0], x, 1e-4)  # float32 beside float64, over the loop


@pytest.mark.parametrize(("n_steps", "last"), [(100, 9), (50, 19)])
def test_the_noise_of_the_skipped_step_remains(n_steps: int, last: int) -> None:
    from wav2sem_blender.pipeline.nn.lgldm import ddim_times

    times = ddim_times(n_steps, 1000)
    assert len(times) == n_steps + 1 and times[0] == 999 and times[-2:] == [last, -1]


def test_the_loss_is_that_of_the_latents_and_of_the_motion() -> None:
    from wav2sem_blender.pipeline.nn.host_network import Example

    network, alphas = made("lgldm-mead"), slow_alphas()
    memory, style, _ = inputs(network, 6)
    target = torch.randn(1, 6, N_OUTPUTS)
    torch.manual_seed(5)
    loss = network.loss(Example(memory_BRM=memory, style_BN=style, target_BTX=target))
    torch.manual_seed(5)
    time, noise = int(torch.randint(0, 1000, (1,))), torch.randn(1, 6, 16)
    codec, emotion = network.autoencoder, style[:, 3:]
    latents = codec.encode(target, emotion)
    noisy = alphas[time] ** 0.5 * latents + (1 - alphas[time]) ** 0.5 * noise
    x0 = slow_x0(network, noisy[0], time, memory[0], style[0])
    rows = codec.quantize.embedding.weight[256 * 4 : 256 * 5].double()  # the fifth emotion's
    codes = torch.stack([rows[(piece - rows).square().sum(1).argmin()] for piece in x0.reshape(-1, 4)])
    motion = codec.motion_from(codes.reshape(1, 6, 16).float())
    expected = (x0 - latents[0]).square().mean() + (motion - target).square().mean()
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)


def test_training_moves_the_denoiser_and_leaves_the_codec() -> None:
    from wav2sem_blender.pipeline.nn.host_network import Example

    network = made("lgldm-biwi").train()
    memory, style, _ = inputs(network, 4)
    network.loss(Example(memory_BRM=memory, style_BN=style, target_BTX=torch.randn(1, 4, N_OUTPUTS))).backward()
    learnt = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learnt == {name for name in network.state_dict() if name.startswith("denoise_fn.")}
    assert all(network.get_parameter(name).grad.abs().sum() > 0 for name in learnt if "time_embedd" not in name)


def test_a_seed_gives_its_motion_again_and_another_gives_another() -> None:
    network = made("lgldm-vocaset", sampling_steps=3)
    memory, style, _ = inputs(network, 9)
    done: list[float] = []
    first = network.generate(memory, style, 1, done.append)
    assert torch.equal(first, network.generate(memory, style, 1))
    assert (first - network.generate(memory, style, 2)).abs().max() > 0.01
    assert first.shape == (1, 9, N_OUTPUTS) and done == sorted(done) and len(done) == 3


def test_a_long_recording_is_sampled_in_windows(monkeypatch) -> None:
    network = made("lgldm-mead", sampling_steps=3)
    memory, style, _ = inputs(network, 20)
    whole = network.generate(memory, style, 1)
    monkeypatch.setattr(LgLdm, "LONGEST", 12)
    monkeypatch.setattr(LgLdm, "OVERLAP", 4)
    windowed = network.generate(memory, style, 1)
    assert windowed.shape == whole.shape and torch.isfinite(windowed).all()
    monkeypatch.setattr(LgLdm, "LONGEST", 20)
    assert torch.equal(network.generate(memory, style, 1), whole)


def test_a_single_frame_is_refused() -> None:
    network = made("lgldm-vocaset")
    memory, style, _ = inputs(network, 1)
    with pytest.raises(UserError, match="no fewer than 2 animation frames; this recording has 1"):
        network.generate(memory, style)


@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_sentence_vectors_are_added_to_the_encoders_states(scale: float) -> None:
    """FC = 0 equals the plain host; any FC equals the plain host on H + FC(F_s), which commutes with the pairs."""
    from wav2sem_blender.pipeline.nn.wav2sem import SemanticFusion

    network = made("lgldm-biwi", sampling_steps=3)
    memory, style, _ = inputs(network, 5)
    torch.manual_seed(3)
    fusion = SemanticFusion(6, None, 5)
    torch.nn.init.normal_(fusion.semantic_feature_map.weight, std=scale)
    torch.nn.init.zeros_(fusion.semantic_feature_map.bias)
    semantic = torch.randn(1, 1, 5)
    with torch.no_grad():
        fused = network.generate(fusion(memory, semantic), style, 4)
        added = F.linear(semantic, fusion.semantic_feature_map.weight)
        plain = network.generate(memory + added, style, 4)
    assert torch.equal(fused, plain)
    assert torch.equal(plain, network.generate(memory, style, 4)) == (scale == 0)


@pytest.mark.parametrize("kind", RELEASES)
def test_a_published_file_has_these_names_and_shapes(kind: str) -> None:
    release = RELEASES[kind]
    with torch.device("meta"):
        network = release.host.network(3 * release.n_vertices, len(release.styles))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    d = {"lgldm-vocaset": 1024, "lgldm-biwi": 1024, "lgldm-mead": 512}[kind]
    audio = {"lgldm-vocaset": 1024, "lgldm-biwi": 1536, "lgldm-mead": 2048}[kind]
    style, latent = (
        ("style_embedd.0", "latent_encoder") if kind == "lgldm-biwi" else ("style_embedd", "latent_encoder.0")
    )
    subjects = {"lgldm-vocaset": 8, "lgldm-biwi": 6, "lgldm-mead": 25}[kind]
    expected = {
        "audio_extract.0.weight": (d, audio),
        "audio_extract.2.weight": (d, d),
        "time_embedd.0.weight": (d, 1000),
        f"{latent}.weight": (d, d),
        "latent_decoder.weight": (d, d),
        f"{style}.weight": (d, subjects),
        "transformer_decoder.layers.7.self_attn.in_proj_weight": (3 * d, d),
        "transformer_decoder.layers.7.linear1.weight": (2 * d, d),
    }
    assert expected.items() <= {name.removeprefix("denoise_fn."): shape for name, shape in shapes.items()}.items()
    assert not any("layers.8" in name for name in shapes)
    assert ("denoise_fn.emotion_embedd.weight" in shapes) == (kind == "lgldm-mead")
    codebook = {"lgldm-vocaset": (256, 64), "lgldm-biwi": (256, 128), "lgldm-mead": (1792, 64)}[kind]
    assert shapes["autoencoder.quantize.embedding.weight"] == codebook
    assert ("autoencoder.decoder.vertice_map_reverse.bias" in shapes) == (kind == "lgldm-vocaset")


def test_published_weights_load_by_name_and_what_does_not_fit_is_named() -> None:
    from wav2sem_blender.pipeline.nn.lgldm import from_published

    network = made("lgldm-biwi")
    state = network.state_dict() | {"denoise_fn.audio_encoder.a": torch.ones(1), "betas": torch.ones(1000)}
    again = from_published("lgldm-biwi", state | {"denoise_fn.PE.pe": torch.ones(1)})
    assert again.config == replace(network.config, codec_heads=again.config.codec_heads) and not again.training
    memory, style, latents = inputs(network, 3)
    assert torch.equal(again.ddim(memory, style, latents), network.ddim(memory, style, latents))
    without = {name: value for name, value in state.items() if "linear1.bias" not in name}
    with pytest.raises(UserError, match=r"denoise_fn.transformer_decoder.layers.0.linear1.bias is missing"):
        from_published("lgldm-biwi", without)
    with pytest.raises(UserError, match=r"denoise_fn.emotion_embedd.weight is unknown"):
        from_published("lgldm-biwi", state | {"denoise_fn.emotion_embedd.weight": torch.ones(1)})
    with pytest.raises(UserError, match=r"style_embedd.weight is missing"):
        from_published("lgldm-vocaset", state)


ENCODER = {"conv_dim": [8] * 7, "hidden_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
ENCODER |= {"intermediate_size": 8, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}


def published_files(monkeypatch, folder: Path, kind: str):
    """A tiny release: its network, its stage 1 and stage 2 on disk, and their tensors."""
    from wav2sem_blender.pipeline.checkpoint import EncoderConfig
    from wav2sem_blender.pipeline.nn.encoders import build_backbone
    from wav2sem_blender.pipeline.official import lgldm as files

    encoder = EncoderConfig(kind="hubert", config=ENCODER)
    release = replace(RELEASES[kind], host=replace(tiny(kind), codec_heads=8), n_vertices=N_OUTPUTS // 3)
    monkeypatch.setitem(RELEASES, kind, release)
    monkeypatch.setitem(files.ENCODERS, kind, encoder)
    torch.manual_seed(0)
    network = release.host.network(N_OUTPUTS, len(release.styles)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    parts = {prefix: {} for prefix in ("denoise_fn.", "autoencoder.")}
    for name, value in network.state_dict().items():
        prefix = name.partition(".")[0] + "."
        parts[prefix][name if prefix == "denoise_fn." else name.removeprefix(prefix)] = value
    stage_2, stage_1 = parts.values()
    for name, value in build_backbone("hubert", ENCODER).state_dict().items():
        old = name.replace("parametrizations.weight.original0", "weight_g")
        stage_2["denoise_fn.audio_encoder." + old.replace("parametrizations.weight.original1", "weight_v")] = value
    shape = {"lgldm-vocaset": (1, 630, 16), "lgldm-biwi": (5000, 1, 16), "lgldm-mead": (1, 5000, 16)}[kind]
    stage_2 |= {"denoise_fn.PE.pe": torch.zeros(shape), "betas": torch.zeros(1000)}
    table = torch.zeros(5000, 1, tiny(kind).codec_dim)
    stage_1 |= {f"{side}.{side}_pos_embedding.pe": table for side in ("encoder", "decoder")}
    torch.save({"epoch": 100, "model": stage_2, "opt": {"state": {}}}, folder / "model-100.mpt")
    torch.save({"model" if kind == "lgldm-mead" else "state_dict": stage_1}, folder / "stage1.pth.tar")
    return network, folder / "stage1.pth.tar", folder / "model-100.mpt", stage_1, stage_2


@pytest.mark.parametrize("kind", RELEASES)
@pytest.mark.parametrize("with_wav2sem", [False, True], ids=["plain", "wav2sem"])
def test_published_files_come_back_as_they_were(monkeypatch, tmp_path, kind: str, with_wav2sem: bool) -> None:
    from wav2sem_blender.pipeline import SpeechAnimator
    from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig
    from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem
    from wav2sem_blender.pipeline.official import export_official, import_official
    from wav2sem_blender.pipeline.official import wav2sem as sentences

    network, stage_1_file, stage_2_file, stage_1, stage_2 = published_files(monkeypatch, tmp_path, kind)
    if with_wav2sem:
        monkeypatch.setattr(sentences, "CONFIG", Wav2SemConfig(config=ENCODER, target_dim=6))
        monkeypatch.setattr(sentences, "RELEASED", ENCODER)
        semantic = sentences.write(sentences.CONFIG, Wav2Sem(ENCODER, 6).state_dict())
        stage_2 |= {f"denoise_fn.Wav2Bert.{key}": value for key, value in semantic.items()}
        stage_2 |= {f"denoise_fn.bert_feature_map.{n}": v for n, v in torch.nn.Linear(6, 6).state_dict().items()}
        torch.save({"epoch": 100, "model": stage_2, "opt": {}}, stage_2_file)
    files = [stage_1_file, stage_2_file] if with_wav2sem else [stage_2_file, stage_1_file]  # any order will do
    folder = ModelFolder.open(import_official(files[0], "auto", tmp_path / "model", beside=files[1:]))
    assert folder.config.host == replace(RELEASES[kind].host, on_keys=True)
    assert folder.config.styles == RELEASES[kind].styles and folder.config.channels[-1] == "bias"
    waveform = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    motion = SpeechAnimator.load(folder.path).animate(waveform, 16_000, style=1, seed=3)
    whole = torch.load(stage_2_file, weights_only=True)["model"]
    assert whole.keys() == stage_2.keys()

    from wav2sem_blender.pipeline.engine_torch import load_state
    from wav2sem_blender.pipeline.nn.face_model import FaceModel

    face = FaceModel(folder.config).eval()
    face.load_state_dict(load_state(folder))
    heard = (waveform - waveform.mean()) / (waveform.var() + 1e-7) ** 0.5
    grid = folder.config.host.grid
    style = torch.eye(len(folder.config.styles))[[1]]
    with torch.no_grad():
        positions = torch.from_numpy(grid.positions(16_000)).float()[None]
        waveform_1S = torch.from_numpy(heard)[None]
        memory = face.memory(waveform_1S, positions, face.semantics(waveform_1S))
        expected = network.generate(memory, style, 3)[0].unflatten(1, (-1, 3))
    assert_close(torch.from_numpy(motion.vertex_offsets()), expected, 1e-4)

    back = export_official(folder, tmp_path)
    assert [path.name for path in back] == ["model-100_stage2.mpt", "model-100_stage1.pth.tar"]
    for path, original in zip(back, (stage_2, stage_1), strict=True):
        content = torch.load(path, weights_only=True)
        again = next(content[name] for name in ("model", "state_dict") if name in content)
        assert set(again) >= set(original)
        computed = {key for key in original if key.endswith(".pe") or key == "betas"}
        assert all(torch.equal(again[key], original[key]) for key in set(original) - computed)
        assert all(again[key].shape == original[key].shape for key in computed)
    assert len([key for key in torch.load(back[0], weights_only=True)["model"] if "denoise_fn" not in key]) == 12


def test_files_that_do_not_belong_together_are_named(monkeypatch, tmp_path) -> None:
    from wav2sem_blender.errors import MissingFileError
    from wav2sem_blender.pipeline.official import import_official

    _, stage_1_file, stage_2_file, stage_1, stage_2 = published_files(monkeypatch, tmp_path, "lgldm-vocaset")
    with pytest.raises(MissingFileError, match=r"model-100.mpt: it needs LG-LDM's stage-1 file \(the codec\) too"):
        import_official(stage_2_file, "auto", tmp_path / "out")
    with pytest.raises(UserError, match=r"stage1.pth.tar: "):
        import_official(stage_1_file, "lgldm-vocaset", tmp_path / "out", beside=[stage_1_file])
    torch.save(stage_1 | {"decoder.vertice_map_reverse.weight": torch.zeros(70110, 16)}, tmp_path / "biwi.pth.tar")
    with pytest.raises(UserError, match=r"biwi.pth.tar: decoder.vertice_map_reverse.weight has shape \(70110, 16\)"):
        import_official(stage_2_file, "auto", tmp_path / "out", beside=[tmp_path / "biwi.pth.tar"])
    wide = stage_2 | {"denoise_fn.audio_extract.0.weight": torch.zeros(16, 9)}
    torch.save({"model": wide}, tmp_path / "wide.mpt")
    with pytest.raises(UserError, match=r"wide.mpt: .*audio_extract.0.weight has shape \(16, 9\), \(16, 6\)"):
        import_official(tmp_path / "wide.mpt", "auto", tmp_path / "out", beside=[stage_1_file])
    with pytest.raises(UserError, match=r"model-100.mpt: .* keys are missing"):
        import_official(stage_2_file, "lgldm-mead", tmp_path / "out", beside=[stage_1_file])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("n_samples", [16_000, 160_000, 163_333, 320_000])
def test_frames_are_counted_as_published(n_samples: int) -> None:
    n_enc_frames = encoder_frames(n_samples)
    assert RELEASES["lgldm-vocaset"].host.grid.animation_frames(n_samples) == int(n_enc_frames / 50.0 * 30)
    for kind in ("lgldm-biwi", "lgldm-mead"):
        grid = RELEASES[kind].host.grid
        assert grid.animation_frames(n_samples) == min(int(n_samples / 16_000 * 24), n_enc_frames // 2)
        assert grid.positions(n_samples).tolist() == list(range(2 * grid.animation_frames(n_samples)))
    assert RELEASES["lgldm-biwi"].host.grid.animation_frames(160_000) == 240


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match="lgldm at 25 fps: these settings are for 30"):
        LgLdm().at_rate(25)
    with pytest.raises(UserError, match="audio_dim 1024: its encoder is 768 wide"):
        LgLdm().feature_width(768)
    with pytest.raises(UserError, match="sampling_steps 0"):
        LgLdm(sampling_steps=0)
    with pytest.raises(UserError, match="dim 100 must be a multiple"):
        LgLdm(dim=100)


def test_a_speaker_and_an_emotion_are_a_sum_of_styles() -> None:
    from wav2sem_blender.pipeline.infer import style_weights

    names = RELEASES["lgldm-mead"].styles
    weights_N = style_weights("M005 + fear", names)
    assert {names[i]: weights_N[i] for i in np.flatnonzero(weights_N)} == {"M005": 1, "fear": 1}
    with pytest.raises(UserError, match="style 'calm': this model has M003, "):
        style_weights("M005 + calm", names)


def test_mead_has_25_subjects_and_7_emotions() -> None:
    assert len(MEAD_SUBJECTS) == len(set(MEAD_SUBJECTS)) == 25 and len(MEAD_EMOTIONS) == 7
    assert MEAD_SUBJECTS[0] == "M003" and MEAD_SUBJECTS[8] == "M022" and MEAD_SUBJECTS[-1] == "M040"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the released code's outputs are not beside the repository")
@pytest.mark.parametrize("kind", ["lgldm_vocaset_fdm", "lgldm_mead_fdm"])
def test_outputs_of_the_released_code(kind: str) -> None:
    from trainer.host_checks import TOLERANCE, check_host

    differences = check_host(kind, GOLDEN / f"{kind}.npz")
    wanted = {"forward", "loss", "x0_pred", "ddim_result", "alphas_cumprod"} if "vocaset" in kind else {"forward"}
    assert set(differences) == wanted and max(differences.values()) <= TOLERANCE
