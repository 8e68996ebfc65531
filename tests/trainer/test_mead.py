# SPDX-License-Identifier: GPL-3.0-or-later
"""3DMEAD in miniature: its splits and what is refused; both stages of ProbTalk3D and LSF-Animation on it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

torch = pytest.importorskip("torch")

from tests.trainer.two_stages import NEVER, losses, run_in  # noqa: E402
from trainer.datasets.mead import FLAME_FILE, by_identity, by_other_identities, by_sentence, take_of  # noqa: E402
from trainer.datasets.opening import open_face_data  # noqa: E402
from trainer.experiments import mead, mead_prior  # noqa: E402
from trainer.experiments.hubert import TOY_SIZES  # noqa: E402
from trainer.loops.finetune import Learner, finetune  # noqa: E402
from trainer.loops.pretrain_prior import pretrain_prior  # noqa: E402
from trainer.runs.stages import read_emotion, read_prior  # noqa: E402
from wav2sem_blender.errors import MissingFileError, UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import (  # noqa: E402
    EncoderConfig,
    ModelFolder,
    Wav2SemConfig,
    open_folder,
    save_wav2sem,
)
from wav2sem_blender.pipeline.flame_parameters import KEYS, from_flame  # noqa: E402
from wav2sem_blender.pipeline.hosts.probtalk3d import SPEAKERS, STYLES  # noqa: E402
from wav2sem_blender.pipeline.nn.emotion2vec import Emotion2Vec  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import build_backbone  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402
from wav2sem_blender.pipeline.official.lsf import PRETRAINING  # noqa: E402

N_FRAMES, N_VERTICES = 12, 20
WITHOUT_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "layerdrop"), 0.0)
CLIPS = ("W019_001_5_2", "M029_035_0_0")


def write_mead(folder: Path, clips: tuple[str, ...] = CLIPS, flame: bool = True) -> Path:
    """The layout of ProbTalk3D's script: smooth parameters, noise as sound, and FLAME's arrays of random values."""
    rng = np.random.default_rng(0)
    for name in ("param", "wav"):
        (folder / name).mkdir(parents=True)
    for name in clips:
        waves_TP = np.sin(np.arange(N_FRAMES)[:, None] / rng.uniform(1, 4, 103))
        scale_P = np.r_[np.full(100, 1.5), np.full(3, 0.2)]
        shape_TS = np.repeat(rng.normal(0, 1, (1, 300)), N_FRAMES, 0)
        np.save(folder / "param" / f"{name}.npy", np.concatenate([shape_TS, waves_TP * scale_P], 1)[None].astype("f4"))
        sf.write(folder / "wav" / f"{name}.wav", rng.normal(0, 0.1, 8_000), 16_000)
    if flame:
        np.savez(
            folder / FLAME_FILE,
            v_template=rng.normal(0, 0.05, (N_VERTICES, 3)),
            shapedirs=rng.normal(0, 1e-3, (N_VERTICES, 3, 400)),
            posedirs=np.zeros((N_VERTICES, 3, 36)),
            J_regressor=np.full((5, N_VERTICES), 1 / N_VERTICES),
            weights=np.full((N_VERTICES, 5), 0.2),
        )
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_mead(tmp_path_factory.mktemp("mead"))


@pytest.fixture(scope="module")
def codec(data: Path, tmp_path_factory) -> Path:
    """Stage 1 that knows the clips by heart."""
    config = replace(mead_prior.mead_smoke(), epochs=100, learning_rate=1e-2, checkpoint_every=NEVER, valid_clips=0)
    return run_in(tmp_path_factory.mktemp("runs") / "codec", config, pretrain_prior, data)


def test_the_published_splits() -> None:
    names = [
        f"{speaker}_{sentence:03d}_{emotion}_0"
        for speaker in (*SPEAKERS, "M032", "M037", "W040", "M001")
        for sentence in range(1, 42)
        for emotion in (0, 6)
    ]
    takes = [take_of(name) for name in names]
    assert Counter(map(by_sentence, takes)) == Counter(
        {"train": 32 * 56, "valid": 32 * 7, "test": 32 * 7, None: len(names) - 32 * 70}
    )
    splits = ("train", "valid", "test")
    speakers = [{take.speaker for take in takes if by_identity(take) == split} for split in splits]
    assert [len(some) for some in speakers] == [22, 5, 5] and "W019" in speakers[0]
    assert speakers[1] == {"M028", "M029", "M030", "M031", "W009"}
    assert {by_other_identities(take) for take in takes if take.speaker in ("M032", "M037", "M001")} == {
        *("valid", "test"),
        None,
    }
    assert take_of("M003_001") == ("M003", 1, None, None) and take_of("readme") is None


def test_what_is_read(data: Path) -> None:
    faces = open_face_data("mead_sentences", data)
    assert [(clip.name, clip.split) for clip in faces.clips] == [("M029_035_0_0", "valid"), ("W019_001_5_2", "train")]
    clip = faces.clips[1]
    stored_TP = np.load(data / "param" / "W019_001_5_2.npy")[0]
    target_TX = faces.targets(clip)
    assert target_TX.shape == (N_FRAMES, 53) and faces.n_outputs == 53
    np.testing.assert_allclose(target_TX[:, :50], (stored_TP[:, 300:350] + 3) / 6, atol=1e-6)
    np.testing.assert_allclose(target_TX[:, 50:], (stored_TP[:, 400:] + 0.1) / 0.6, atol=1e-6)
    style_N = faces.style(clip, STYLES)[0]
    assert {name for name, on in zip(STYLES, style_N, strict=True) if on} == {"W019", "disgusted", "level_3"}
    shapes = open_face_data("mead_identities", data)
    np.testing.assert_allclose(shapes.style(shapes.clips[1], shapes.styles)[0], stored_TP[0, :300])
    offsets_TV3 = faces.flame.vertices(faces.parameters(clip), faces.shape(clip)) - faces._template("W019")
    assert offsets_TV3.shape == (N_FRAMES, N_VERTICES, 3) and np.abs(offsets_TV3).max() > 1e-3


def test_longer_motion_is_cut_and_the_prior_needs_no_sound(tmp_path) -> None:
    folder = write_mead(tmp_path / "mead", CLIPS[:1])
    sf.write(folder / "wav" / f"{CLIPS[0]}.wav", np.random.default_rng(0).normal(0, 0.1, 6_000), 16_000)
    faces = open_face_data("mead_sentences", folder)
    whole_TX = from_flame(faces.parameters(faces.clips[0]))
    np.testing.assert_array_equal(faces.targets(faces.clips[0]), whole_TX[:9])
    compressed = open_face_data("mead_identities", folder)
    expected = [np.interp(np.linspace(0, N_FRAMES - 1, 9), range(N_FRAMES), column) for column in whole_TX.T]
    np.testing.assert_allclose(compressed.targets(compressed.clips[0]), np.transpose(expected), atol=1e-5)
    (folder / "wav" / f"{CLIPS[0]}.wav").unlink()
    assert open_face_data("mead_sentences", folder).skipped == {"recording missing": 1}
    prior = open_face_data("mead_prior", folder)
    assert len(prior.targets(prior.clips[0])) == N_FRAMES


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda folder: (folder / "param").rename(folder / "other"),
            MissingFileError,
            r"there is no param/\*.npy here",
        ),
        (
            lambda folder: (folder / "param/W019_001_5_2.npy").rename(folder / "param/W019_001.npy"),
            UserError,
            "W019_001.npy: its name has no emotion and level, which ProbTalk3D learns; call it W019_001_EMOTION_LEVEL",
        ),
        (
            lambda folder: (folder / "param/W019_001_5_2.npy").rename(folder / "param/W019_001_8_2.npy"),
            UserError,
            "emotion 8, level 2; emotions are 0 to 7, levels 0 to 2",
        ),
        (
            lambda folder: np.save(folder / "param/W019_001_5_2.npy", np.zeros((1, 9, 56), "f4")),
            UserError,
            r"W019_001_5_2.npy: float32 \(1, 9, 56\); floats of shape \(1, frames, 403\)",
        ),
        (
            lambda folder: np.save(folder / "param/W019_001_5_2.npy", np.full((1, 9, 403), np.nan, "f4")),
            UserError,
            "W019_001_5_2.npy: some parameters are NaN",
        ),
        (lambda folder: (folder / FLAME_FILE).unlink(), MissingFileError, "flame.npz is missing: your FLAME 2020"),
    ],
)
def test_what_does_not_fit_is_named(spoil, error, message, tmp_path) -> None:
    folder = write_mead(tmp_path / "mead")
    spoil(folder)
    with pytest.raises(error, match=message):
        faces = open_face_data("mead_sentences", folder)
        faces.prepare(torch.nn.Module())
        faces.targets(faces.clips[-1])


def test_faces_without_labels_need_none(tmp_path) -> None:
    folder = write_mead(tmp_path / "mead", ("M003_001",))
    faces = open_face_data("mead_identities", folder)
    assert [clip.name for clip in faces.clips] == ["M003_001"]


@pytest.mark.parametrize("host", ["probtalk3d", "lsf"])
def test_both_stages_learn_a_clip_and_the_frozen_parts_stay(host, data: Path, codec: Path, tmp_path) -> None:
    found = losses(codec)
    assert found[-1] < found[0] / 10
    torch.manual_seed(1)
    semantics = Wav2SemConfig(config=TOY_SIZES, target_dim=24)
    state = Wav2Sem(semantics.config, semantics.target_dim).state_dict()
    save_wav2sem(tmp_path / "wav2sem", semantics, {f"wav2sem.{key}": value.numpy() for key, value in state.items()})
    config = getattr(mead, f"{host}_smoke_wav2sem")()
    config = replace(config, epochs=80, learning_rate=1e-3, checkpoint_every=NEVER, mask_share=0.0, valid_clips=0)
    config = replace(config, encoder=replace(config.encoder, config=TOY_SIZES | WITHOUT_DROPOUT))
    folder = run_in(tmp_path / "face", config, finetune, data, None, tmp_path / "wav2sem", prior=codec)
    found = losses(folder)
    assert min(found) < found[0] / 10  # a code that changes is a step up: the last is rarely the best
    model = ModelFolder.open(folder / "model")
    kept = model.tensors("decoder.motion_prior.")
    assert all(np.array_equal(value, kept[name]) for name, value in read_prior(codec).items())
    heard, start = model.tensors("wav2sem."), open_folder(tmp_path / "wav2sem").tensors("wav2sem.")
    assert all(np.array_equal(value, heard[name]) for name, value in start.items())
    motion = SpeechAnimator.load(folder / "model").animate(np.random.default_rng(1).standard_normal(8_000), 16_000)
    assert motion.channels == KEYS and motion.weights_TK.shape == (12, 59)
    assert model.config.styles == (STYLES if host == "probtalk3d" else ("neutral_face", *SPEAKERS))


@pytest.mark.parametrize("host", ["probtalk3d", "lsf"])
def test_a_stopped_run_continues_bit_for_bit(host, data: Path, codec: Path, tmp_path, monkeypatch) -> None:
    config = replace(getattr(mead, f"{host}_smoke")(), epochs=4, checkpoint_every=2)
    stages = {"hubert": None, "wav2sem": None, "prior": codec}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_in(whole, config, finetune, data, **stages)
    calls, forward = iter(range(3)), Learner.forward
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "forward", lambda *given: (next(calls), forward(*given))[1])
        with pytest.raises(StopIteration):
            run_in(stopped, config, finetune, data, **stages)
    run_in(stopped, config, finetune, data, resume=True, **stages)
    first, second = (ModelFolder.open(folder / "model").weights_sha256 for folder in (whole, stopped))
    assert first == second
    watched = json.loads((whole / "valid.json").read_text())
    assert watched["clips"] == 1 and 0 < watched["mse"] < watched["max_error"]


def test_training_without_flame_or_emotion2vec_ends_before_it_starts(codec: Path, tmp_path) -> None:
    folder = write_mead(tmp_path / "mead", flame=False)
    stages = {"hubert": None, "wav2sem": None, "prior": codec}
    with pytest.raises(MissingFileError, match="flame.npz is missing"):
        run_in(tmp_path / "a", mead.probtalk3d_smoke(), finetune, folder, **stages)
    config = replace(mead.lsf_smoke(), emotion_weights="emotion2vec_base.pt")
    config = replace(config, emotion=EncoderConfig(kind="emotion2vec", config={}))
    with pytest.raises(MissingFileError, match="emotion2vec_base.pt is missing: emotion2vec's released weights"):
        run_in(tmp_path / "b", config, finetune, folder, **stages)
    torch.save({"model": {"x": torch.zeros(1)}}, folder / "emotion2vec_base.pt")
    with pytest.raises(UserError, match="alibi_scale is missing; these are not emotion2vec's weights"):
        run_in(tmp_path / "c", config, finetune, folder, **stages)


def test_the_emotion_encoder_may_be_any(data: Path, tmp_path) -> None:
    """emotion2vec from its own file, whose decoder is not read, or an encoder in transformers' folder."""
    small = {"hidden_size": 12, "num_attention_heads": 3, "alibi_heads": 3, "conv_dim": (4,) * 7, "position_groups": 4}
    small |= {"num_hidden_layers": 1, "prenet_layers": 1, "intermediate_size": 8, "position_layers": 1}
    felt = Emotion2Vec(small).state_dict()
    torch.save({"model": {**felt, f"{PRETRAINING[0]}proj.bias": torch.zeros(1)}}, tmp_path / "e.pt")
    found, state = read_emotion(EncoderConfig(kind="emotion2vec", config={}), "e.pt", tmp_path)
    assert found.config == {"alibi_heads": 3} and state.keys() == felt.keys()
    backbone = build_backbone("hubert", TOY_SIZES)
    backbone.save_pretrained(tmp_path / "hubert")
    found, state = read_emotion(mead.TOY_ENCODER, str(tmp_path / "hubert"), data)
    assert found.kind == "hubert" and torch.equal(state["encoder.layer_norm.bias"], backbone.encoder.layer_norm.bias)


def test_an_emotion_encoder_of_another_width_is_refused() -> None:
    host = mead.lsf_smoke().host
    with pytest.raises(UserError, match="lsf reads 64 features, of the speech and the emotion side by side, not 32"):
        host.network(53, 2)(torch.zeros(1, 8, 32), torch.eye(2)[:1])


def test_evaluation_takes_each_clips_own_style(data: Path, codec: Path, tmp_path) -> None:
    from trainer.evaluation import evaluate

    model = run_in(tmp_path / "face", mead.probtalk3d_smoke(), finetune, data, None, None, prior=codec) / "model"
    animator, faces = SpeechAnimator.load(model), open_face_data("mead_sentences", data)
    predictor = evaluate.Predictor(animator, (), tmp_path / "kept", faces.fps)
    clip = faces.clips[0]
    assert predictor.styles(clip) == ("M029 + neutral + level_1",)
    made = predictor.predict(clip, faces.samples(clip), evaluate.Semantics(name="own", label="own"))
    by_hand = animator.animate(faces.samples(clip), 16_000, "M029+neutral+level_1").weights_TK
    np.testing.assert_array_equal(made.weights_NTK, by_hand[None])
    assert predictor.offsets(by_hand).shape == (12, N_VERTICES, 3)
