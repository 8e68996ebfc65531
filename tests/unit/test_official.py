# SPDX-License-Identifier: GPL-3.0-or-later
"""Official checkpoints (random weights, official names and shapes) against FaceFormer's forward, written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from wav2sem_blender.pipeline import SpeechAnimator, official  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import (  # noqa: E402
    BASIS_KEY,
    EncoderConfig,
    ModelConfig,
    ModelFolder,
    Wav2SemConfig,
    open_folder,
    save_model,
)
from wav2sem_blender.pipeline.checkpoint_kinds import KIND_NAMES  # noqa: E402
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import build_backbone  # noqa: E402
from wav2sem_blender.pipeline.nn.faceformer import FaceDecoder, alignment_mask, biased_causal_mask  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import PAPER, RELEASED  # noqa: E402
from wav2sem_blender.pipeline.official import export_official, import_official  # noqa: E402
from wav2sem_blender.pipeline.official.published import BASE_ENCODER, Source  # noqa: E402
from wav2sem_blender.pipeline.official.wav2sem import export_wav2sem  # noqa: E402


def faceformer_state(width: int, n_values: int, n_styles: int, period: int) -> dict:
    """FaceFormer's state dict by the table of its release; the motion is a few millimetres."""
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(width, 4, 2 * width, batch_first=True)
    state = {f"transformer_decoder.layers.0.{key}": value for key, value in layer.state_dict().items()}
    for name in ("norm1", "norm2", "norm3"):
        state[f"transformer_decoder.layers.0.{name}.weight"] = 1 + 0.2 * torch.randn(width)
        state[f"transformer_decoder.layers.0.{name}.bias"] = 0.2 * torch.randn(width)
    for key, value in build_backbone("wav2vec2", BASE_ENCODER).state_dict().items():
        old = key.replace("parametrizations.weight.original0", "weight_g")
        state[f"audio_encoder.{old.replace('parametrizations.weight.original1', 'weight_v')}"] = value
    state |= {
        "audio_feature_map.weight": torch.randn(width, 768) * 0.05,
        "audio_feature_map.bias": torch.randn(width) * 0.05,
        "vertice_map.weight": torch.randn(width, n_values),
        "vertice_map.bias": torch.randn(width) * 0.1,
        "vertice_map_r.weight": torch.randn(n_values, width) * 1e-3,
        "vertice_map_r.bias": torch.randn(n_values) * 1e-3,
        "obj_vector.weight": torch.randn(width, n_styles),
        "PPE.pe": torch.zeros(1, (600 // period + 1) * period, width),
    }
    return state


def plain_faceformer(state: dict, waveform_S: np.ndarray, style: int) -> np.ndarray:
    """FaceFormer.predict at 30 fps, the prefix recomputed at every step; offsets (T, V, 3) from the template."""
    backbone = build_backbone("wav2vec2", BASE_ENCODER).eval()
    prefix = "audio_encoder."
    backbone.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    prefix = "transformer_decoder.layers.0."
    layer = nn.TransformerDecoderLayer(64, 4, 128, batch_first=True).eval()
    layer.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    features = backbone.feature_extractor(torch.from_numpy(waveform_S)[None])
    n_frames = int(features.shape[2] / 50.0 * 30)
    features = F.interpolate(features, size=n_frames, mode="linear", align_corners=True).transpose(1, 2)
    hidden = backbone.encoder(backbone.feature_projection(features)[0]).last_hidden_state
    memory = F.linear(hidden, state["audio_feature_map.weight"], state["audio_feature_map.bias"])
    style_M = state["obj_vector.weight"][:, style]
    positions = torch.from_numpy(FaceFormer().positions()).repeat(1 + n_frames // 30, 1)
    inputs = [style_M]
    for t in range(n_frames):
        target = torch.stack(inputs)[None] + positions[: t + 1]
        mask = biased_causal_mask(t + 1, 4, 30)
        memory_mask = alignment_mask(n_frames, 1)[: t + 1]
        out = layer(target, memory, tgt_mask=mask, memory_mask=memory_mask)
        offsets = F.linear(out[0], state["vertice_map_r.weight"], state["vertice_map_r.bias"])
        inputs.append(F.linear(offsets[-1], state["vertice_map.weight"], state["vertice_map.bias"]) + style_M)
    return offsets.reshape(n_frames, -1, 3).numpy()


def test_vocaset_speaks_as_the_official_code(tmp_path) -> None:
    state = faceformer_state(64, 15069, 8, 30)
    torch.save(state, tmp_path / "vocaset.pth")
    import_official(tmp_path / "vocaset.pth", "faceformer-vocaset", tmp_path / "model")
    animator = SpeechAnimator.load(tmp_path / "model")
    waveform = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    motion = animator.animate(waveform, 16_000, style=3)
    normalised = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
    with torch.no_grad():
        expected_TV3 = plain_faceformer(state, normalised, style=3)
    assert motion.fps == 30 and motion.channels[0] == "key_00" and motion.channels[-1] == "bias"
    assert np.abs(expected_TV3).max() > 1e-3
    np.testing.assert_allclose(motion.vertex_offsets(), expected_TV3, atol=1e-4 * np.abs(expected_TV3).max())
    assert np.abs(motion.weights_TK).max() <= 1.0 + 1e-5, "weights must fit Blender's sliders"
    strength_K = (motion.weights_TK.std(0)[:-1] ** 2) * (motion.basis_KV3[:-1] ** 2).sum((1, 2))
    assert strength_K[:8].sum() > strength_K[-8:].sum()
    by_name = animator.animate(waveform, 16_000, style="FaceTalk_170915_00223_TA")
    np.testing.assert_array_equal(by_name.weights_TK, motion.weights_TK)
    exported = back_as_official(state, animator.folder, tmp_path)
    with torch.no_grad():
        again_TV3 = plain_faceformer(exported, normalised, style=3)
    np.testing.assert_allclose(again_TV3, expected_TV3, atol=1e-4 * np.abs(expected_TV3).max())


def back_as_official(state: dict, folder: ModelFolder, out: Path) -> dict:
    """The exported file has the released names and shapes, and every weight that the import did not rotate."""
    (written,) = export_official(folder, out)
    exported = torch.load(written, weights_only=True)
    assert {key: value.shape for key, value in exported.items()} == {key: value.shape for key, value in state.items()}
    for key, value in state.items():
        if not key.startswith(("vertice_map", "PPE")):
            assert torch.equal(exported[key], value), key
    for key in ("vertice_map_r.weight", "vertice_map_r.bias"):
        np.testing.assert_allclose(exported[key], state[key], atol=1e-6 * float(state[key].abs().max()))
    return exported


def test_biwi_has_25_fps_and_its_own_vertices(tmp_path) -> None:
    torch.save(faceformer_state(128, 70110, 6, 25), tmp_path / "biwi.pth")
    import_official(tmp_path / "biwi.pth", "faceformer-biwi", tmp_path / "model")
    motion = SpeechAnimator.load(tmp_path / "model").animate(np.random.default_rng(0).standard_normal(16_000), 16_000)
    assert motion.fps == 25 and motion.weights_TK.shape == (24, 129)
    assert motion.basis_KV3.shape == (129, 23370, 3)


def test_a_model_without_an_official_format_is_refused(tmp_path) -> None:
    config = ModelConfig(
        name="small",
        encoder=EncoderConfig(kind="hubert", config={"num_attention_heads": 8}),
        wav2sem=None,
        host=FaceFormer(),
        channels=("a", "b"),
        styles=("one",),
    )
    with_basis = {BASIS_KEY: np.zeros((2, 5, 3), np.float32)}
    folder = save_model(tmp_path / "model", config, with_basis)
    with pytest.raises(ValueError, match="num_attention_heads = 8; the official format has 12"):
        export_official(folder, tmp_path)
    with pytest.raises(ValueError, match="holds its decoder and a vertex head; this model differs"):
        export_official(save_model(tmp_path / "bare", config, {}), tmp_path)
    with pytest.raises(ValueError, match="this Wav2Sem: its encoder has num_attention_heads = 8"):
        export_wav2sem(Wav2SemConfig(config=PAPER, target_dim=768), {}, tmp_path / "x.pth.tar")
    assert not list(tmp_path.glob("*.pth*"))


def test_named_keys_and_vertices_are_one_model() -> None:
    """There and back, for a decoder with a feedback that only its own motions can show."""
    torch.manual_seed(0)
    decoder = FaceDecoder(FaceFormer(), 300, 2).eval()
    torch.nn.init.normal_(decoder.motion_head.weight, std=1e-2)
    torch.nn.init.normal_(decoder.motion_head.bias, std=1e-2)
    on_keys = decoder.on_keys()
    keyed = FaceDecoder(FaceFormer(), len(on_keys.channels), 2).eval()
    keyed.load_state_dict(on_keys.state)
    basis_KV3 = on_keys.basis_KV3
    back = FaceDecoder(FaceFormer(), 300, 2).eval()
    back.load_state_dict(keyed.on_vertices(basis_KV3))
    memory, style = torch.randn(1, 40, 64), torch.eye(2)[:1]
    with torch.no_grad():
        expected_TX = decoder(memory, style)[0]
        motion_TX = keyed(memory, style)[0] @ torch.from_numpy(basis_KV3).flatten(1)
        again_TX = back(memory, style)[0]
    np.testing.assert_allclose(motion_TX, expected_TX, atol=1e-5 * float(expected_TX.abs().max()))
    np.testing.assert_allclose(again_TX, expected_TX, atol=1e-5 * float(expected_TX.abs().max()))


def released_wav2sem() -> dict:
    state = {}
    for key, value in build_backbone("wav2vec2", RELEASED).state_dict().items():
        if key == "masked_spec_embed":
            continue
        for ours, theirs in (
            ("feature_extractor.", "FeatureExtractor."),
            ("feature_projection.", "FeatureProjection."),
            ("encoder.", "Encoder."),
            ("parametrizations.weight.original0", "weight_g"),
            ("parametrizations.weight.original1", "weight_v"),
        ):
            key = key.replace(ours, theirs, 1)
        state[key] = value
    return state


@pytest.mark.parametrize("kind", ["wav2sem", "codetalker-wav2sem"])
def test_wav2sem_files(tmp_path, kind: str) -> None:
    from safetensors.numpy import load_file

    state = released_wav2sem()
    assert len(state) == 210
    if kind == "codetalker-wav2sem":
        state = {f"Wav2Bert.{key}": value for key, value in state.items()} | {"autoencoder.x": torch.zeros(2)}
        state |= {"bert_feature_map.weight": torch.eye(768), "bert_feature_map.bias": torch.zeros(768)}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "model.pth.tar")
    import_official(tmp_path / "model.pth.tar", kind, tmp_path / "wav2sem")
    tensors = load_file(tmp_path / "wav2sem" / "model.safetensors")
    name = "wav2sem.encoder.encoder.layers.11.attention.k_proj.weight"
    official = state[("Wav2Bert." if kind != "wav2sem" else "") + "Encoder.layers.11.attention.k_proj.weight"]
    np.testing.assert_array_equal(tensors[name], official)
    assert ("fusion.semantic_feature_map.weight" in tensors) == (kind == "codetalker-wav2sem")
    waveform = np.random.default_rng(0).standard_normal(16_000)
    assert SpeechAnimator.load(tmp_path / "wav2sem").semantic(waveform, 16_000).shape == (768,)
    if kind == "wav2sem":
        folder = open_folder(tmp_path / "wav2sem")
        weights = {key: torch.from_numpy(value) for key, value in folder.tensors("wav2sem.").items()}
        export_wav2sem(folder.config, weights, tmp_path / "again.pth.tar")
        again = torch.load(tmp_path / "again.pth.tar", weights_only=True)["state_dict"]
        assert again.keys() == state.keys() and all(torch.equal(again[key], value) for key, value in state.items())


def test_half_precision_is_said_with_its_error(tmp_path) -> None:
    state = faceformer_state(64, 15069, 8, 30)
    waveform = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    moved_TV3, notes = {}, []
    for name, precision in (("whole", torch.float32), ("half", torch.float16)):
        torch.save({key: value.to(precision) for key, value in state.items()}, tmp_path / f"{name}.pth")
        assert notes == []
        import_official(tmp_path / f"{name}.pth", "faceformer-vocaset", tmp_path / name, notes)
        moved_TV3[name] = SpeechAnimator.load(tmp_path / name).animate(waveform, 16_000).vertex_offsets()
    assert [str(note) for note in notes] == [
        "half.pth: its weights are in half precision (float16). They are computed in float32 from now on; their "
        "rounding changes the motion by about 0.13 %."
    ]
    difference = np.sqrt(np.square(moved_TV3["half"] - moved_TV3["whole"]).mean())
    motion = np.sqrt(np.square(moved_TV3["whole"] - moved_TV3["whole"].mean(0)).mean())
    assert 0.0003 < difference / motion < 0.005


def test_the_keys_tell_the_kind(tmp_path) -> None:
    head = "vertice_map_r.weight"
    states = {
        "wav2sem": {"FeatureExtractor.x": torch.zeros(1)},
        "codetalker-wav2sem": {"Wav2Bert.FeatureExtractor.x": torch.zeros(1)},
        "faceformer-vocaset": {head: torch.zeros(15069, 1)},
        "faceformer-biwi": {head: torch.zeros(70110, 1)},
        "imitator-vocaset": {"nn_model.vertice_map_r.decoder.final_out_layer.weight": torch.zeros(15069, 1)},
        **{
            f"facediffuser-{data}": {
                "cond_projection.weight": torch.zeros(1),
                "final_layer.weight": torch.zeros(n_rows, 1),
            }
            for data, n_rows in (("vocaset", 15069), ("biwi", 70110))
        },
        **{
            f"lgldm-{data}": {f"denoise_fn.{key}": torch.zeros(1) for key in ("latent_decoder.weight", own)}
            for data, own in (("vocaset", "x"), ("biwi", "style_embedd.0.weight"), ("mead", "emotion_embedd.weight"))
        },
        **{
            f"codetalker-{data}": {"feat_map.weight": torch.zeros(1), "vertice_map.weight": torch.zeros(1, n_rows)}
            for data, n_rows in (("vocaset", 15069), ("biwi", 70110))
        },
        "probtalk3d-mead": {"feature_predictor.style_embedding.weight": torch.zeros(1)},
        "lsf-mead": {"feature_predictor.style_proj.weight": torch.zeros(1)},
        **{
            f"unitalker-{name}": {
                "decoder.learnable_style_emb.weight": torch.zeros(935, 64),
                f"out_head_dict.{head_name}.weight": torch.zeros(1),
            }
            for name, head_name in (
                ("arkit", "inhouse_blendshape_weight"),
                ("emotalk", "3DETF_blendshape_weight"),
                ("vocaset", "FLAME_5023_vertices"),
                ("biwi", "BIWI_23370_vertices"),
                ("flame", "flame_params_from_dadhead"),
            )
        },
        "voca": {"VOCA/ExpressionLayer/expression_offset/biases": torch.zeros(15069)},
    }
    assert states.keys() == set(KIND_NAMES) - {"voca-stand-in"}
    assert {kind: official._recognised(Source(path=tmp_path, state=state))[0] for kind, state in states.items()} == {
        kind: kind for kind in states
    }
    torch.save({head: torch.zeros(9, 1)}, tmp_path / "small.pth")
    with pytest.raises(ValueError, match=r"small.pth: its keys fit no known checkpoint: wav2sem, "):
        import_official(tmp_path / "small.pth", "auto", tmp_path / "out")


class _Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def test_bad_files_are_named(tmp_path, capsys) -> None:
    whole = tmp_path / "x.pth"
    torch.save({"audio_feature_map.weight": torch.zeros(64, 768)}, whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:700])
    torch.save({"state_dict": _Malicious()}, tmp_path / "evil.pth")
    cases = [
        ("none.pth", FileNotFoundError, "no such file"),
        ("cut.pth", ValueError, "cut.pth: 700 bytes, and its end is missing"),
        ("evil.pth", ValueError, "evil.pth: it holds program objects"),
        ("x.pth", ValueError, "the key vertice_map_r.weight is missing"),
    ]
    for name, error, message in cases:
        with pytest.raises(error, match=message):
            import_official(tmp_path / name, "faceformer-vocaset", tmp_path / "out")
    with pytest.raises(ValueError, match="known are auto, wav2sem"):
        import_official(whole, "nonesuch", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "code ran" not in capsys.readouterr().out


def test_wrong_shape_is_named(tmp_path) -> None:
    state = released_wav2sem()
    state["FeatureProjection.projection.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "w.pth.tar")
    with pytest.raises(ValueError, match=r"feature_projection.projection.bias has shape \(5,\), \(768,\) is expected"):
        import_official(tmp_path / "w.pth.tar", "wav2sem", tmp_path / "out")
