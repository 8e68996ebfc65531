# SPDX-License-Identifier: GPL-3.0-or-later
"""VOCA's recipe on miniature data sets: 60 frames a second, pairs of frames, given features, and the stand-in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.trainer.host_training import losses, trained  # noqa: E402
from tests.trainer.miniature_faces import VOCASET_SUBJECTS, write_biwi, write_vocaset  # noqa: E402
from trainer.datasets.opening import open_face_data  # noqa: E402
from trainer.experiments.hosts import (  # noqa: E402
    voca_biwi_smoke,
    voca_smoke,
    voca_smoke_wav2sem,
    voca_vocaset,
)
from trainer.experiments.hubert import TOY_SIZES  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.nn.host_network import Example  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """One short clip of training and one to watch."""
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported", subjects=VOCASET_SUBJECTS[1:3], sentences=(21,), seconds=0.5)
    return folder


def test_a_clip_is_learnt_from_pairs_of_its_60_frames_a_second(vocaset: Path, tmp_path: Path) -> None:
    host = replace(voca_smoke().host, pairs=24)
    recipe = {"epochs": 90, "learning_rate": 2e-3, "valid_clips": 0, "checkpoint_every": 1000}
    config = replace(voca_smoke(), host=host, **recipe)
    folder = trained(config, vocaset, tmp_path / "face")
    found = losses(folder)
    assert np.mean(found[-5:]) < found[0] / 10
    animator = SpeechAnimator.load(folder / "model")
    faces = open_face_data("vocaset_60", vocaset)
    (clip,) = (clip for clip in faces.clips if clip.split == "train")
    truth_TV3 = faces.vertices(clip)
    assert faces.fps == 60 and len(truth_TV3) == 30
    motion = animator.animate(faces.samples(clip), 16_000, style=clip.subject)
    assert motion.fps == 60 and motion.channels[-2:] == ("key_07", "bias")
    assert "stand in for DeepSpeech's logits" in motion.info["notes"]
    off_TV3 = motion.vertex_offsets() - (truth_TV3 - faces.template(clip.subject))
    still = np.square(truth_TV3 - faces.template(clip.subject)).mean()
    assert np.square(off_TV3).mean() < still / 5
    assert animator.folder.config.encoder.config["source"] == "stand-in"


def test_biwi_is_learnt_at_its_25_frames_a_second(tmp_path: Path) -> None:
    write_biwi(tmp_path, layout="exported", subjects=("F2",))
    folder = trained(voca_biwi_smoke(), tmp_path, tmp_path / "face")
    assert ModelFolder.open(folder / "model").config.host.grid.fps == 25


def test_resuming_is_bit_identical(vocaset: Path, tmp_path: Path) -> None:
    """The pairs are drawn anew at every step."""
    config = replace(voca_smoke(), epochs=4, checkpoint_every=2)
    whole = trained(config, vocaset, tmp_path / "whole")
    trained(replace(config, epochs=2), vocaset, tmp_path / "parts")
    described = json.loads((tmp_path / "parts" / "run.json").read_text())
    described["config"]["epochs"] = 4
    (tmp_path / "parts" / "run.json").write_text(json.dumps(described))
    parts = trained(config, vocaset, tmp_path / "parts", resume=True)
    ours, theirs = (ModelFolder.open(folder / "model").tensors() for folder in (whole, parts))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert losses(whole) == losses(parts)


def test_the_wav2sem_is_frozen_and_its_fc_is_29_wide(vocaset: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = Wav2SemConfig(config=TOY_SIZES, target_dim=24)
    state = {f"wav2sem.{key}": value for key, value in Wav2Sem(config.config, 24).state_dict().items()}
    save_wav2sem(tmp_path / "wav2sem", config, {key: value.numpy() for key, value in state.items()})
    recipe = replace(voca_smoke_wav2sem(), epochs=3, learning_rate=1e-2)
    folder = trained(recipe, vocaset, tmp_path / "face", None, tmp_path / "wav2sem")
    after = ModelFolder.open(folder / "model").tensors()
    assert after["fusion.semantic_feature_map.weight"].shape == (29, 24)
    assert all(np.array_equal(after[key], value.numpy()) for key, value in state.items())


def test_logits_come_from_the_datas_features_folder(vocaset: Path, tmp_path: Path) -> None:
    toy = voca_smoke().host
    recipe = replace(voca_vocaset(), host=toy, batch=1, epochs=1)
    with pytest.raises(UserError, match=r"features/FaceTalk_170904_00128_TA_sentence21.npy: missing. .* 29 values"):
        trained(recipe, vocaset, tmp_path / "without")
    (vocaset / "features").mkdir()
    for clip in open_face_data("vocaset", vocaset).clips:
        logits_LD = np.random.default_rng(0).normal(size=(25, 1, 29)).astype(np.float32)
        np.save(vocaset / "features" / f"{clip.name}.npy", logits_LD)
    folder = trained(recipe, vocaset, tmp_path / "with")
    hashes = [json.loads((tmp_path / name / "run.json").read_text())["data_sha256"] for name in ("without", "with")]
    assert hashes[0] != hashes[1], "the features are data too"
    model = ModelFolder.open(folder / "model")
    assert model.config.encoder.config["source"] == "file"
    assert not any(key.startswith("audio_encoder.") for key in model.tensors())


def test_the_loss_of_pairs_is_the_clips_on_average() -> None:
    """In eval mode the batch norm is fixed, so drawing every pair many times gives the loss of the whole clip."""
    torch.manual_seed(0)
    host = replace(voca_smoke().host, features=5, pairs=4000)
    network = host.network(12, 2).eval()
    memory_BRM, target_BTX = torch.randn(1, 7, 5), torch.randn(1, 7, 12)
    # The frames at the ends are in one pair, the others in two: without them in the loss both weigh frames alike.
    with torch.no_grad():
        target_BTX[:, [0, -1]] = network(memory_BRM, torch.eye(2)[:1])[:, [0, -1]]
        example = Example(memory_BRM=memory_BRM, style_BN=torch.eye(2)[:1], target_BTX=target_BTX)
        off = (network(memory_BRM, example.style_BN) - target_BTX)[0].unflatten(-1, (-1, 3))
        pairs = torch.stack([off[:-1], off[1:]], 1)
        expected = pairs.square().sum(-1).mean() + 10 * pairs.diff(dim=1).square().sum(-1).mean()
        assert float(network.batch_loss([example, example])) == pytest.approx(float(expected), rel=0.03)
