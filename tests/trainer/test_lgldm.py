# SPDX-License-Identifier: GPL-3.0-or-later
"""LG-LDM's two stages on miniature data sets: what is learnt, what stays frozen, resuming, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_faces import VOCASET_SUBJECTS, write_biwi, write_vocaset  # noqa: E402
from tests.trainer.test_mead import N_VERTICES, write_mead  # noqa: E402
from tests.trainer.two_stages import NEVER, losses, run_in  # noqa: E402
from trainer.datasets.mead_offsets import MeadOffsets  # noqa: E402
from trainer.experiments import hosts, prior  # noqa: E402
from trainer.experiments.hubert import TOY_SIZES  # noqa: E402
from trainer.loops.finetune import finetune  # noqa: E402
from trainer.loops.pretrain_prior import pretrain_prior  # noqa: E402
from trainer.runs.stages import read_prior  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig, open_folder, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.nn.lgldm import LgLdmNetwork  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """One short clip of training, one of validation."""
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported", subjects=VOCASET_SUBJECTS[1:3], sentences=(21,), seconds=0.5)
    return folder


@pytest.fixture(scope="module")
def codec(vocaset: Path, tmp_path_factory) -> Path:
    """Stage 1 that knows the clip by heart."""
    config = replace(prior.lgldm_smoke(), epochs=70, learning_rate=6e-3, checkpoint_every=NEVER, valid_clips=0)
    return run_in(tmp_path_factory.mktemp("runs") / "codec", config, pretrain_prior, vocaset)


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    config, folder = Wav2SemConfig(config=TOY_SIZES, target_dim=24), tmp_path_factory.mktemp("imported") / "wav2sem"
    state = Wav2Sem(config.config, config.target_dim).state_dict()
    save_wav2sem(folder, config, {f"wav2sem.{key}": value.numpy() for key, value in state.items()})
    return folder


def test_both_stages_learn_a_clip_and_stage_1_and_wav2sem_stay(
    vocaset: Path, codec: Path, sentence_encoder: Path, tmp_path
) -> None:
    found = losses(codec)
    assert found[-1] < found[0] / 10
    config = replace(hosts.lgldm_smoke_wav2sem(), epochs=60, learning_rate=6e-3, checkpoint_every=NEVER, mask_share=0.0)
    folder = run_in(tmp_path / "face", config, finetune, vocaset, None, sentence_encoder, prior=codec)
    found = losses(folder)
    assert np.mean(found[-5:]) < found[0] / 10  # the times are drawn at random
    model = ModelFolder.open(folder / "model")
    kept = model.tensors("decoder.autoencoder.") | model.tensors("published.autoencoder.")
    assert all(np.array_equal(value, kept[name]) for name, value in read_prior(codec).items())
    heard = model.tensors("wav2sem.")
    assert all(
        np.array_equal(value, heard[n]) for n, value in open_folder(sentence_encoder).tensors("wav2sem.").items()
    )
    speech = np.random.default_rng(0).standard_normal(8_000)
    animator = SpeechAnimator.load(folder / "model")
    motion = animator.animate(speech, 16_000, seed=5)
    assert motion.weights_TK.shape == (14, 33) and motion.info["seed"] == "5"
    assert np.array_equal(motion.weights_TK, animator.animate(speech, 16_000, seed=5).weights_TK)
    assert json.loads((folder / "valid.json").read_text())["clips"] == 1


def test_biwi_learns_its_validation_sentences_too(tmp_path) -> None:
    write_biwi(tmp_path / "biwi", layout="exported", subjects=("F2",), sentences=(1, 33), seconds=0.5)
    codec = run_in(tmp_path / "codec", prior.lgldm_biwi_smoke(), pretrain_prior, tmp_path / "biwi")
    folder = run_in(tmp_path / "face", hosts.lgldm_biwi_smoke(), finetune, tmp_path / "biwi", None, None, prior=codec)
    assert len(losses(codec)) == len(losses(folder)) == 2
    motion = SpeechAnimator.load(folder / "model").animate(np.random.default_rng(0).standard_normal(16_000), 16_000)
    assert motion.fps == 25 and motion.vertex_offsets().shape == (24, 23370, 3)


def test_mead_learns_the_emotion_of_a_take(tmp_path, monkeypatch) -> None:
    """Only the strongest takes of the published men; another emotion has another codebook, and moves otherwise."""
    data = write_mead(tmp_path / "mead", ("M003_001_6_2", "M035_001_1_2", "M003_001_6_1", "W009_001_6_2"))
    monkeypatch.setattr(MeadOffsets, "n_vertices", N_VERTICES)
    monkeypatch.setattr(MeadOffsets, "n_outputs", 3 * N_VERTICES)
    faces = MeadOffsets(data)
    assert [(clip.name, clip.split) for clip in faces.clips] == [("M003_001_6_2", "train"), ("M035_001_1_2", "valid")]
    assert faces.skipped == {"not in the published split": 2}
    style_1N = faces.style(faces.clips[0], faces.styles)
    assert [faces.styles[i] for i in np.flatnonzero(style_1N)] == ["M003", "angry"]
    parameters_TX = faces.parameters(faces.clips[0])
    moved_TV3 = faces.flame.vertices(parameters_TX, np.zeros(300)) - faces.flame.template_V3
    np.testing.assert_allclose(faces.targets(faces.clips[0]), moved_TV3.reshape(12, -1), atol=1e-6)

    codec = run_in(tmp_path / "codec", prior.lgldm_mead_smoke(), pretrain_prior, data)
    folder = run_in(tmp_path / "face", hosts.lgldm_mead_smoke(), finetune, data, None, None, prior=codec)
    animator, speech = SpeechAnimator.load(folder / "model"), np.random.default_rng(0).standard_normal(16_000)
    angry, sad = (animator.animate(speech, 16_000, f"M003 + {emotion}", seed=1) for emotion in ("angry", "sad"))
    assert angry.weights_TK.shape[0] == 24 and np.abs(angry.weights_TK - sad.weights_TK).max() > 1e-4
    assert angry.info["style"] == "1 M003 + 1 angry"


def test_a_take_without_an_emotion_is_refused(tmp_path) -> None:
    write_mead(tmp_path, ("M003_001",), flame=False)
    with pytest.raises(UserError, match=r"M003_001.npy: its name has no emotion and level, which LG-LDM learns"):
        MeadOffsets(tmp_path)


def test_a_stopped_run_continues_bit_for_bit(vocaset: Path, codec: Path, tmp_path, monkeypatch) -> None:
    config = replace(hosts.lgldm_smoke(), epochs=4, checkpoint_every=2, valid_clips=0)
    whole = run_in(tmp_path / "whole", config, finetune, vocaset, None, None, prior=codec)
    calls = iter(range(3))
    with monkeypatch.context() as patch:
        loss = LgLdmNetwork.loss
        patch.setattr(LgLdmNetwork, "loss", lambda *given: (next(calls), loss(*given))[1])
        with pytest.raises(StopIteration):
            run_in(tmp_path / "stopped", config, finetune, vocaset, None, None, prior=codec)
    run_in(tmp_path / "stopped", config, finetune, vocaset, None, None, prior=codec, resume=True)
    weights = [ModelFolder.open(folder / "model").weights_sha256 for folder in (whole, tmp_path / "stopped")]
    assert weights[0] == weights[1]


def test_a_prior_of_another_host_is_refused(vocaset: Path, codec: Path, tmp_path) -> None:
    other = replace(hosts.lgldm_smoke(), host=replace(hosts.lgldm_smoke().host, code_width=16))
    with pytest.raises(UserError, match="its prior is of another host or data set"):
        run_in(tmp_path / "other", other, finetune, vocaset, None, None, prior=codec)
    with pytest.raises(UserError, match="give --prior RUN"):
        run_in(tmp_path / "none", hosts.lgldm_smoke(), finetune, vocaset, None, None)
