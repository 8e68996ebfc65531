# SPDX-License-Identifier: GPL-3.0-or-later
"""UniTalker's recipe on miniature data sets: the PCA, the frozen first epoch, what is learnt, resuming, Wav2Sem."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.trainer.host_training import losses, trained  # noqa: E402
from tests.trainer.miniature_faces import VOCASET_SUBJECTS, write_biwi, write_vocaset  # noqa: E402
from trainer.datasets.opening import open_face_data  # noqa: E402
from trainer.experiments.hubert import TOY_SIZES  # noqa: E402
from trainer.experiments.unitalker import (  # noqa: E402
    unitalker_biwi_smoke,
    unitalker_smoke,
    unitalker_smoke_wav2sem,
)
from trainer.runs.checkpoints import load_newest  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.hosts.unitalker import UniTalker  # noqa: E402
from wav2sem_blender.pipeline.nn.host_network import Example  # noqa: E402
from wav2sem_blender.pipeline.nn.unitalker import pca_of  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402

NEVER = 10_000


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """One short clip of training, one of validation."""
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported", subjects=VOCASET_SUBJECTS[1:3], sentences=(21,), seconds=0.5)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = load_newest(folder / "checkpoints")
    assert found is not None
    return {key.removeprefix("model."): value for key, value in found[1]["model"].items()}


def test_a_pca_explains_the_frames_as_a_decomposition_does() -> None:
    rng = np.random.default_rng(0)
    frames_BX = (rng.normal(size=(40, 5)) * [5, 4, 3, 2, 1]) @ rng.normal(size=(5, 30)) + 7
    pca = pca_of(frames_BX.astype(np.float32), 3)
    centred_BX = frames_BX - frames_BX.mean(0)
    _, strengths, right = np.linalg.svd(centred_BX, full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(pca.components_QX * right[:3], 1)), 1, atol=1e-4)
    np.testing.assert_allclose(pca.components_QX @ pca.components_QX.T, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(pca.spread_Q, strengths[:3] / np.sqrt(40), rtol=1e-3)
    np.testing.assert_allclose(pca.spread_Q, (centred_BX @ pca.components_QX.T).std(0), rtol=1e-3)
    with pytest.raises(UserError, match="a PCA of 40 components needs more frames than the 40"):
        pca_of(frames_BX.astype(np.float32), 40)


def without_noise(config):
    """A recipe that learns a clip by heart soon."""
    still = dict.fromkeys(("hidden_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.0)
    encoder = replace(config.encoder, config={**config.encoder.config, **still})
    host = replace(config.host, dropout=0.0, pivot_share=0.0)
    fast = {"epochs": 40, "learning_rate": 1e-2, "checkpoint_every": 20, "valid_clips": 0, "mask_share": 0.0}
    return replace(config, encoder=encoder, host=host, **fast)


@pytest.fixture(scope="module")
def by_heart(vocaset: Path, tmp_path_factory) -> Path:
    return trained(without_noise(unitalker_smoke()), vocaset, tmp_path_factory.mktemp("runs") / "face")


def test_a_clip_is_learnt(by_heart: Path, vocaset: Path) -> None:
    found = losses(by_heart)
    assert found[-1] < found[0] / 10
    animator = SpeechAnimator.load(by_heart / "model")
    faces = open_face_data("vocaset", vocaset)
    clip = next(clip for clip in faces.clips if clip.split == "train")
    assert animator.folder.config.styles == ("pivot", *faces.styles)
    offsets_TV3 = faces.vertices(clip) - faces.template(clip.subject)
    motion = animator.animate(faces.samples(clip), 16_000, clip.subject)
    n_frames = min(motion.n_frames, len(offsets_TV3))
    error = np.square(motion.vertex_offsets()[:n_frames] - offsets_TV3[:n_frames]).mean()
    assert error < 0.2 * np.square(offsets_TV3 - offsets_TV3.mean(0)).mean()


def test_the_encoder_learns_from_the_second_epoch_on(vocaset: Path, tmp_path) -> None:
    fresh = {}
    for epochs in (1, 2):
        config = replace(unitalker_smoke(), epochs=epochs, learning_rate=1e-2, valid_clips=0)
        fresh[epochs] = weights(trained(config, vocaset, tmp_path / str(epochs)))
    changed = {key for key, value in fresh[2].items() if not torch.equal(value, fresh[1][key])}
    assert any(key.startswith("audio_encoder.encoder.") for key in changed)
    assert not any(key.startswith("audio_encoder.feature_extractor.") for key in changed)
    torch.manual_seed(config.seed)
    from trainer.loops.finetune import build_model

    before = build_model(config, open_face_data("vocaset", vocaset), None, None).state_dict()
    moved = {key for key, value in fresh[1].items() if not torch.equal(value, before[key])}
    assert moved and not any(key.startswith("audio_encoder.") for key in moved)
    found = load_newest(tmp_path / "2" / "checkpoints")
    assert found is not None and {int(state["step"]) for state in found[1]["optimiser"]["state"].values()} == {1}


def test_a_resumed_run_ends_with_the_same_weights(vocaset: Path, tmp_path) -> None:
    """Stopped between the second epoch, in which the optimiser starts anew, and the end."""
    config = replace(unitalker_smoke(), epochs=4, learning_rate=1e-2, checkpoint_every=2, valid_clips=0)
    whole, folder = trained(config, vocaset, tmp_path / "whole"), tmp_path / "resumed"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("run.json", "metrics.jsonl"):
        (folder / name).write_bytes((whole / name).read_bytes())
    first = min((whole / "checkpoints").iterdir())
    (folder / "checkpoints" / first.name).write_bytes(first.read_bytes())
    trained(config, vocaset, folder, resume=True)
    after, expected = weights(folder), weights(whole)
    assert all(torch.equal(after[key], expected[key]) for key in expected)


def test_biwi_is_learnt_at_a_fifth_and_animated_at_full_size(tmp_path) -> None:
    write_biwi(tmp_path / "biwi", layout="exported", subjects=("F2",), sentences=(1,), seconds=0.5)
    folder = trained(without_noise(unitalker_biwi_smoke()), tmp_path / "biwi", tmp_path / "face")
    found = losses(folder)
    assert found[-1] < found[0] / 10
    faces = open_face_data("biwi", tmp_path / "biwi")
    (clip,) = faces.clips
    offsets_TV3 = faces.vertices(clip) - faces.template(clip.subject)
    motion = SpeechAnimator.load(folder / "model").animate(faces.samples(clip), 16_000, clip.subject)
    assert motion.fps == 25
    n_frames = min(motion.n_frames, len(offsets_TV3))
    error_TV3 = motion.vertex_offsets()[:n_frames] - offsets_TV3[:n_frames]
    assert np.square(error_TV3).mean() < 0.2 * np.square(offsets_TV3 - offsets_TV3.mean(0)).mean()


def test_a_wav2sem_stays_as_it_is(vocaset: Path, tmp_path) -> None:
    torch.manual_seed(0)
    config = Wav2SemConfig(config=TOY_SIZES, target_dim=8)
    state = Wav2Sem(config.config, config.target_dim).state_dict()
    save_wav2sem(tmp_path / "wav2sem", config, {f"wav2sem.{key}": value.numpy() for key, value in state.items()})
    recipe = replace(unitalker_smoke_wav2sem(), epochs=2, learning_rate=1e-2, valid_clips=0)
    folder = trained(recipe, vocaset, tmp_path / "face", None, tmp_path / "wav2sem")
    model = ModelFolder.open(folder / "model")
    for key, value in model.tensors("wav2sem.").items():
        np.testing.assert_array_equal(value, state[key].numpy())
    assert np.abs(model.tensors("fusion.semantic_feature_map.")["weight"]).sum() > 0


def test_some_clips_are_learnt_in_the_style_of_the_pivot() -> None:
    network = replace(UniTalker(), pivot_share=1.0).network(51, 3)
    torch.nn.init.normal_(network.out_head_dict["inhouse_blendshape_weight"].weight)
    network.dropout.p = 0.0
    memory_BRM, target_BTX = torch.randn(1, 5, 256), torch.zeros(1, 5, 51)

    def loss(style: int) -> float:
        style_BN = torch.eye(3)[[style]]
        with torch.no_grad():
            return float(network.loss(Example(memory_BRM=memory_BRM, style_BN=style_BN, target_BTX=target_BTX)))

    assert loss(1) == loss(2) == loss(0)
    network.eval()
    assert loss(1) != loss(2)


def test_too_few_frames_for_the_components_are_named(vocaset: Path, tmp_path) -> None:
    host = replace(unitalker_smoke().host, heads=((unitalker_smoke().host.head, 200),))
    with pytest.raises(UserError, match="a PCA of 200 components needs more frames"):
        trained(replace(unitalker_smoke(), host=host), vocaset, tmp_path / "face")
