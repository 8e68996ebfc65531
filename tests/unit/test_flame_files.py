# SPDX-License-Identifier: GPL-3.0-or-later
"""ProbTalk3D's and LSF-Animation's published files in both directions, and the keys that the user's FLAME makes."""

from __future__ import annotations

import io
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from wav2sem_blender.errors import MissingFileError, UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator, flame_parameters, official  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import EncoderConfig  # noqa: E402
from wav2sem_blender.pipeline.flame_parameters import KEYS, N_SHAPES, Flame  # noqa: E402
from wav2sem_blender.pipeline.hosts.lsf import LSF  # noqa: E402
from wav2sem_blender.pipeline.hosts.probtalk3d import SPEAKERS, STYLES, ProbTalk3D  # noqa: E402
from wav2sem_blender.pipeline.official import lsf, probtalk3d  # noqa: E402

from .released_files import TINY, beside_wav2sem, released_encoder  # noqa: E402, TID252

N_VERTICES = 40
SIZES = {"dim": 16, "heads": 2, "ffn_dim": 24, "prior_blocks": 1, "blocks": 2, "n_codes": 6, "code_width": 8}
SMALL = ProbTalk3D(**SIZES, feature_dim=16)
EMOTION = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "tokens": 3, "prenet_layers": 1}
EMOTION |= {"num_hidden_layers": 1, "position_layers": 1, "position_kernel": 3, "position_groups": 2}
EMOTION |= {"conv_dim": (4,) * 7, "alibi_heads": 2}
SMALL_LSF = LSF(**SIZES, feature_dim=16, emotion_dim=8, tokens=2, fusion_dim=4)


@pytest.fixture
def flame_file(tmp_path: Path) -> Path:
    """FLAME's arrays of random values: a face of a few centimetres."""
    rng = np.random.default_rng(0)
    regressor = rng.random((5, N_VERTICES))
    weights = rng.random((N_VERTICES, 5))
    np.savez(
        tmp_path / "flame.npz",
        v_template=rng.normal(0, 0.05, (N_VERTICES, 3)),
        shapedirs=rng.normal(0, 1e-3, (N_VERTICES, 3, 400)),
        posedirs=rng.normal(0, 1e-3, (N_VERTICES, 3, 36)),
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        weights=weights / weights.sum(1, keepdims=True),
    )
    return tmp_path / "flame.npz"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing expects small encoders and networks."""
    encoder = EncoderConfig(kind="hubert", config=TINY)
    for module, host in ((probtalk3d, SMALL), (lsf, SMALL_LSF)):
        monkeypatch.setattr(module, "ENCODER", encoder)
        monkeypatch.setattr(
            module, "RELEASES", {kind: replace(release, host=host) for kind, release in module.RELEASES.items()}
        )
    monkeypatch.setattr(lsf, "emotion_config", lambda scale: EncoderConfig(kind="emotion2vec", config=EMOTION))


def released(host: ProbTalk3D, encoder: dict = TINY, emotion: dict = EMOTION) -> dict:
    """A checkpoint's state dict by the names of the release, with what the training measured."""
    from wav2sem_blender.pipeline.nn.emotion2vec import Emotion2Vec

    torch.manual_seed(0)
    state = dict(host.network(53, len(SPEAKERS) if isinstance(host, LSF) else len(STYLES)).state_dict())
    torch.nn.init.normal_(state["motion_prior.quantize.embedding.weight"])
    for name, value in released_encoder("hubert", encoder).items():
        state[name.replace("audio_encoder.", probtalk3d.ENCODER_NAME)] = value
    if isinstance(host, LSF):
        state |= {f"audio_model.{name}": value for name, value in Emotion2Vec(emotion).state_dict().items()}
        state["audio_model.modality_encoders.AUDIO.decoder.proj.weight"] = torch.ones(2)
    return state | {"_losses.losses_train.total": torch.tensor(3.0), "motion_prior._losses.count": torch.ones(())}


HOSTS = pytest.mark.parametrize(("kind", "host"), [("probtalk3d-mead", SMALL), ("lsf-mead", SMALL_LSF)])


class _Settings:
    """Lightning stores objects like this beside the weights."""

    def __init__(self) -> None:
        self.nfeats = 53


@HOSTS
@pytest.mark.parametrize("with_wav2sem", [False, True])
def test_a_file_speaks_through_flames_keys_and_comes_back(
    kind, host, with_wav2sem, flame_file, small, tmp_path, monkeypatch
) -> None:
    state = released(host)
    if with_wav2sem:
        state |= beside_wav2sem(monkeypatch, 16)
    torch.save({"state_dict": state, "hyper_parameters": _Settings()}, tmp_path / "stage_2.ckpt")
    official.import_official(tmp_path / "stage_2.ckpt", "auto", tmp_path / "model", beside=[flame_file])
    animator = SpeechAnimator.load(tmp_path / "model")
    config = animator.folder.config
    assert config.channels == KEYS and (config.wav2sem is not None) == with_wav2sem
    assert config.styles == (("neutral_face", *SPEAKERS) if host is SMALL_LSF else STYLES)
    assert config.provenance["keys_error"] == pytest.approx(Flame.read(flame_file).keys().error_m)
    waveform = np.random.default_rng(1).standard_normal(9_600)
    motion = animator.animate(waveform, 16_000, style=1, seed=3)
    again, other = (animator.animate(waveform, 16_000, style=1, seed=seed).weights_TK for seed in (3, 4))
    assert np.array_equal(motion.weights_TK, again) and not np.array_equal(motion.weights_TK, other)
    assert motion.fps == 25 and motion.weights_TK.shape == (14, 59) and motion.info["seed"] == "3"
    (file,) = official.export_official(animator.folder, tmp_path)
    back = torch.load(file, weights_only=True)["state_dict"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


class _Runs:
    def __reduce__(self):
        return (print, ("code ran",))


def test_nothing_in_a_lightning_file_runs(small, flame_file, tmp_path, capsys) -> None:
    torch.save({"state_dict": released(SMALL), "hyper_parameters": {"a": [_Runs()]}}, tmp_path / "stage_2.ckpt")
    official.import_official(tmp_path / "stage_2.ckpt", "auto", tmp_path / "model", beside=[flame_file])
    torch.save({"state_dict": {**released(SMALL), "x": _Runs()}}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=r"bad\.ckpt: x is no tensor with values"):
        official.import_official(tmp_path / "bad.ckpt", "auto", tmp_path / "other", beside=[flame_file])
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old"])
def test_a_key_that_would_be_hashed_for_years(tmp_path, is_zip) -> None:
    """1 kB: each tuple holds the one before it twice, and the last one is the key of a dict."""
    doubled = b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
    endless = b"\x80\x02})q\x00" + doubled + b"K\x01s."
    torch.save({"a": torch.zeros(2)}, plain := io.BytesIO(), _use_new_zipfile_serialization=is_zip)
    file = tmp_path / "endless.pth"
    if is_zip:
        with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(file, "w") as made:
            for name in whole.namelist():
                made.writestr(name, endless if name.endswith("data.pkl") else whole.read(name))
    else:
        content = plain.getvalue()
        starts = [at for at in range(len(content)) if content.startswith(b"\x80\x02", at)]
        file.write_bytes(content[: starts[3]] + endless)
    began_s = time.monotonic()
    with pytest.raises(UserError, match=r"endless\.pth: \d+ bytes that claim to be more than they can hold"):
        official.import_official(file, "auto", tmp_path / "model")
    assert time.monotonic() - began_s < 10


def test_a_number_that_is_repeated_to_gigabytes(tmp_path) -> None:
    torch.save({"a": torch.zeros(1).expand(2_000_000_000)}, tmp_path / "small.pth")
    with pytest.raises(UserError, match=r"small\.pth: \d+ bytes that claim to be 8000000000 bytes of weights"):
        official.import_official(tmp_path / "small.pth", "auto", tmp_path / "model")


@HOSTS
def test_a_missing_flame_file_is_asked_for(kind, host, small, flame_file, tmp_path) -> None:
    torch.save({"state_dict": released(host)}, tmp_path / "stage_2.ckpt")
    with pytest.raises(UserError, match=f"{host.KIND} predicts FLAME's parameters: give your FLAME file"):
        official.import_official(tmp_path / "stage_2.ckpt", kind, tmp_path / "model")
    (tmp_path / "generic_model.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"generic_model.npz: not an .npz of FLAME's arrays"):
        official.import_official(
            tmp_path / "stage_2.ckpt", kind, tmp_path / "model", beside=[tmp_path / "generic_model.npz"]
        )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posedirs": None}, "FLAME's array posedirs is missing"),
        ({"shapedirs": np.zeros((N_VERTICES, 3, 60))}, "it has 60 shape and expression columns; 350 are needed"),
        ({"J_regressor": np.zeros((4, N_VERTICES))}, r"J_regressor has shape \(4, 40\); FLAME's has \(5, 40\)"),
    ],
)
def test_a_flame_file_that_does_not_fit_is_described(change, message, flame_file) -> None:
    with np.load(flame_file) as stored:
        arrays = {**stored, **change}
    np.savez(flame_file, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(UserError, match=message):
        Flame.read(flame_file)


@HOSTS
def test_wrong_files_are_named(kind, host, small, flame_file, tmp_path) -> None:
    state = released(host)
    prior = {
        key.removeprefix("motion_prior."): value for key, value in state.items() if key.startswith("motion_prior.")
    }
    style_key = lsf.STYLE_NAME if host is SMALL_LSF else probtalk3d.STYLE_KEY
    fewer = {**state, style_key: state[style_key][:, :20]}
    cut = {key: value for key, value in state.items() if "expander" not in key}
    cases = [
        (prior, "this is stage 1, the codec"),
        (fewer, "has 20 styles, "),
        (cut, "expander.0.0.bias; this is another"),
    ]
    if host is SMALL_LSF:
        no_emotion = {key: value for key, value in state.items() if not key.startswith("audio_model.")}
        cases.append((no_emotion, "it needs the emotion encoder, emotion2vec_base.pt, too"))
        cases.append(
            ({k: v for k, v in state.items() if "identity" not in k}, "identity_extractor.0.weight is missing")
        )
    for content, message in cases:
        torch.save({"state_dict": content}, tmp_path / "file.ckpt")
        with pytest.raises((UserError, MissingFileError), match=message):
            official.import_official(tmp_path / "file.ckpt", kind, tmp_path / "model", beside=[flame_file])


def test_the_emotion_encoder_may_come_from_its_own_file(small, flame_file, tmp_path) -> None:
    state = released(SMALL_LSF)
    name = "audio_model."
    own = {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
    torch.save({"model": own, "cfg": _Settings()}, tmp_path / "emotion2vec_base.pt")
    torch.save({"state_dict": {key: value for key, value in state.items() if name not in key}}, tmp_path / "a.ckpt")
    torch.save({"state_dict": state}, tmp_path / "b.ckpt")
    beside = [flame_file, tmp_path / "emotion2vec_base.pt"]
    models = [
        SpeechAnimator.load(official.import_official(tmp_path / file, "lsf-mead", tmp_path / file[0], beside=beside))
        for file in ("a.ckpt", "b.ckpt")
    ]
    first, second = (model.animate(np.sin(np.arange(9_600.0)), 16_000).weights_TK for model in models)
    assert np.array_equal(first, second)


def test_the_files_may_be_named_in_any_order(small, flame_file, tmp_path) -> None:
    torch.save({"state_dict": released(SMALL)}, tmp_path / "stage_2.ckpt")
    np.save(tmp_path / "face.npy", Flame.read(flame_file).template_V3)
    files = [tmp_path / "face.npy", flame_file, tmp_path / "stage_2.ckpt"]
    for first in range(3):
        given, *beside = files[first:] + files[:first]
        folder = official.import_official(given, "auto", tmp_path / f"model_{first}", beside=beside)
        assert SpeechAnimator.load(folder).folder.config.provenance["imported"] == "probtalk3d-mead"


def test_the_neutral_face_makes_the_speaker(small, flame_file, tmp_path) -> None:
    """A style of its own, which equals the mixture of the training speakers that the released code feeds."""
    torch.save({"state_dict": released(SMALL_LSF)}, tmp_path / "stage_2.ckpt")
    flame, shape_S = Flame.read(flame_file), np.random.default_rng(2).normal(0, 1, N_SHAPES)
    lines = ["o face", *("v " + " ".join(map(repr, map(float, xyz))) for xyz in flame.neutral(shape_S)), "f 1 2 3"]
    (tmp_path / "face.obj").write_text("\n".join(lines))
    np.save(tmp_path / "face.npy", flame.neutral(shape_S))
    animators = []
    for beside in ([flame_file, tmp_path / "face.obj"], [flame_file, tmp_path / "face.npy"], [flame_file]):
        folder = tmp_path / f"model_{len(animators)}"
        official.import_official(tmp_path / "stage_2.ckpt", "lsf-mead", folder, beside=beside)
        animators.append(SpeechAnimator.load(folder))
    network = lsf.from_published("lsf", released(SMALL_LSF), heads=2)
    with torch.no_grad():
        fitted = torch.from_numpy(flame.shape_of(flame.neutral(shape_S))).float()
        mixture_N = network.identity_extractor(fitted).numpy()
    waveform = np.random.default_rng(1).standard_normal(9_600)
    by_face, by_npy, mean_face = (animator.animate(waveform, 16_000).weights_TK for animator in animators)
    mixed = animators[0].animate(waveform, 16_000, style=[0, *mixture_N]).weights_TK
    np.testing.assert_allclose(by_face, mixed, atol=1e-5)
    np.testing.assert_allclose(by_npy, by_face, atol=1e-5)
    assert np.abs(mean_face - by_face).max() > 1e-3


def test_a_style_that_leaves_something_open_is_completed() -> None:
    network = SMALL.network(53, len(STYLES))

    def named(*names: str):
        return torch.tensor([[float(name in names) for name in STYLES]])

    cases = [
        (["M009"], ["M009", "neutral", "level_1"]),
        (["angry"], ["M003", "angry", "level_2"]),
        (["W011", "sad", "level_3"], ["W011", "sad", "level_3"]),
        ([], ["M003", "neutral", "level_1"]),
    ]
    for given, whole in cases:
        assert torch.equal(network._whole_style(named(*given)), named(*whole))
    assert torch.equal(SMALL.network(53, 4)._whole_style(torch.eye(4)), torch.eye(4))


def test_keys_make_the_face_of_parameters(flame_file) -> None:
    flame, rng = Flame.read(flame_file), np.random.default_rng(3)
    flame = replace(flame, jaw_poses_V39=np.zeros_like(flame.jaw_poses_V39))
    shape_S = rng.normal(size=N_SHAPES)
    basis_KV3 = flame.keys(shape_S).basis_KV3
    jaw_TX, expression_TX = np.zeros((5, 53)), np.zeros((5, 53))
    jaw_TX[:, 50:] = rng.normal(0, 0.4, (5, 3))
    expression_TX[:, :50] = rng.normal(0, 1.5, (5, 50))
    for parameters_TX in (jaw_TX, expression_TX):
        expected_TV3 = flame.vertices(parameters_TX, shape_S) - flame.neutral(shape_S)
        by_keys = np.tensordot(flame_parameters.key_weights(parameters_TX), basis_KV3, axes=(1, 0))
        assert np.abs(expected_TV3).max() > 1e-3
        np.testing.assert_allclose(by_keys, expected_TV3, atol=1e-7)


def test_flame_is_posed_as_its_own_code_poses_it(flame_file) -> None:
    """One vertex at a time: corrections, then the turn about the joint, by the weight of the jaw."""
    flame, rng = Flame.read(flame_file), np.random.default_rng(4)
    parameters_X, shape_S = rng.normal(0, 0.4, 53), rng.normal(size=N_SHAPES)
    found_V3 = flame.vertices(parameters_X[None], shape_S)[0]
    vector = parameters_X[50:]
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    cross_33 = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn_33 = np.eye(3) + np.sin(angle) * cross_33 + (1 - np.cos(angle)) * cross_33 @ cross_33
    shaped_V3 = flame.template_V3 + flame.shapes_V3S @ shape_S + flame.expressions_V3E @ parameters_X[:50]
    joint_3 = flame.joint_V @ shaped_V3
    for vertex, start in enumerate(shaped_V3):
        posed = start + flame.jaw_poses_V39[vertex] @ (turn_33 - np.eye(3)).ravel()
        share = flame.jaw_weight_V[vertex]
        expected = share * (turn_33 @ (posed - joint_3) + joint_3) + (1 - share) * posed
        np.testing.assert_allclose(found_V3[vertex], expected, atol=1e-12)


def test_a_shape_is_found_again(flame_file) -> None:
    flame, shape_S = Flame.read(flame_file), np.zeros(N_SHAPES)
    shape_S[:20] = np.random.default_rng(5).normal(size=20)
    found = flame.neutral(flame.shape_of(flame.neutral(shape_S)))
    np.testing.assert_allclose(found, flame.neutral(shape_S), atol=1e-4)
    with pytest.raises(UserError, match="the neutral face has 3 vertices, FLAME has 40"):
        flame.shape_of(np.zeros((3, 3)))


def test_parameters_of_3dmead_are_scaled_to_0_and_1() -> None:
    parameters_TX = np.concatenate([np.full((1, 50), -3.0), np.full((1, 3), 0.5)], 1)
    outputs_TX = flame_parameters.from_flame(parameters_TX)
    assert outputs_TX.tolist() == [[0.0] * 50 + [1.0] * 3]
    np.testing.assert_allclose(flame_parameters.to_flame(outputs_TX * 2 - 0.5), [[-6.0] * 50 + [0.8] * 3], atol=1e-6)
