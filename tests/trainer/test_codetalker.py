# SPDX-License-Identifier: GPL-3.0-or-later
"""CodeTalker's two stages on miniature data sets: what is learnt, what stays frozen, resuming, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_faces import VOCASET_SUBJECTS, write_biwi, write_vocaset  # noqa: E402
from tests.trainer.two_stages import NEVER, losses, run_in  # noqa: E402
from trainer.experiments import face, hosts, prior  # noqa: E402
from trainer.experiments.hubert import TOY_SIZES  # noqa: E402
from trainer.loops.finetune import Learner, finetune  # noqa: E402
from trainer.loops.pretrain_prior import PriorLearner, pretrain_prior  # noqa: E402
from trainer.runs.stages import PRIOR_FILE, read_prior  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig, open_folder, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402

SPEECH = np.random.default_rng(0).standard_normal(8_000)


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """One short clip of training, one of validation."""
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported", subjects=VOCASET_SUBJECTS[1:3], sentences=(21,), seconds=0.5)
    return folder


@pytest.fixture(scope="module")
def codec(vocaset: Path, tmp_path_factory) -> Path:
    """Stage 1 that knows the clip by heart."""
    config = replace(prior.smoke(), epochs=80, learning_rate=3e-3, halve_every=0, checkpoint_every=NEVER, valid_clips=0)
    return run_in(tmp_path_factory.mktemp("runs") / "codec", config, pretrain_prior, vocaset)


def test_both_stages_learn_a_clip_and_stage_1_and_wav2sem_stay(vocaset: Path, codec: Path, tmp_path) -> None:
    found = losses(codec)
    assert found[-1] < found[0] / 10
    torch.manual_seed(1)
    semantics = Wav2SemConfig(config=TOY_SIZES, target_dim=24)
    state = Wav2Sem(semantics.config, semantics.target_dim).state_dict()
    save_wav2sem(tmp_path / "wav2sem", semantics, {f"wav2sem.{key}": value.numpy() for key, value in state.items()})
    config = hosts.codetalker_smoke_wav2sem()
    config = replace(config, epochs=60, learning_rate=3e-3, checkpoint_every=NEVER, mask_share=0.0)
    config = replace(config, host=replace(config.host, dropout=0.0))
    folder = run_in(tmp_path / "face", config, finetune, vocaset, None, tmp_path / "wav2sem", prior=codec)
    found = losses(folder)
    assert found[-1] < found[0] / 10
    model = ModelFolder.open(folder / "model")
    kept = model.tensors("decoder.autoencoder.") | model.tensors("published.autoencoder.")
    assert all(np.array_equal(value, kept[name]) for name, value in read_prior(codec).items())
    heard, start = model.tensors("wav2sem."), open_folder(tmp_path / "wav2sem").tensors("wav2sem.")
    assert all(np.array_equal(value, heard[name]) for name, value in start.items())
    motion = SpeechAnimator.load(folder / "model").animate(SPEECH, 16_000)
    assert motion.weights_TK.shape == (14, 33) and model.config.provenance["prior"] == "codec"
    assert not model.config.legacy_predict and json.loads((folder / "valid.json").read_text())["clips"] == 1


def test_biwi(tmp_path) -> None:
    write_biwi(tmp_path / "biwi", layout="exported", subjects=("F2",), sentences=(1, 33), seconds=0.5)
    codec = run_in(tmp_path / "codec", prior.biwi_smoke(), pretrain_prior, tmp_path / "biwi")
    watched = json.loads((codec / "valid.json").read_text())
    assert watched["clips"] == 1 and watched["loss"] > 0
    # A published stage-1 file is a prior too.
    published = read_prior(codec) | {"encoder.encoder_pos_embedding.pe": torch.zeros(5000, 1, 32)}
    torch.save({"state_dict": published}, tmp_path / "biwi_stage1.pth.tar")
    prior_file, config = tmp_path / "biwi_stage1.pth.tar", hosts.codetalker_biwi_smoke()
    folder = run_in(tmp_path / "face", config, finetune, tmp_path / "biwi", None, None, prior=prior_file)
    kept = ModelFolder.open(folder / "model").tensors("decoder.autoencoder.quantize.")
    assert np.array_equal(kept["embedding.weight"], published["quantize.embedding.weight"])
    motion = SpeechAnimator.load(folder / "model").animate(SPEECH, 16_000)
    assert motion.fps == 25 and motion.vertex_offsets().shape == (12, 23370, 3)


def test_stopped_runs_continue_bit_for_bit(vocaset: Path, codec: Path, tmp_path, monkeypatch) -> None:
    """Also where the learning rate is halved."""
    first = replace(prior.smoke(), epochs=4, checkpoint_every=2, valid_clips=0, halve_every=1)
    second = replace(hosts.codetalker_smoke(), epochs=4, checkpoint_every=2, valid_clips=0)
    for config, loop, learner, stages in (
        (first, pretrain_prior, PriorLearner, {}),
        (second, finetune, Learner, {"hubert": None, "wav2sem": None, "prior": codec}),
    ):
        whole, stopped = (tmp_path / f"{loop.__name__}_{name}" for name in ("whole", "stopped"))
        run_in(whole, config, loop, vocaset, **stages)
        calls = iter(range(3))
        with monkeypatch.context() as patch:
            forward = learner.forward
            patch.setattr(learner, "forward", lambda *given, ends=forward, left=calls: (next(left), ends(*given))[1])
            with pytest.raises(StopIteration):
                run_in(stopped, config, loop, vocaset, **stages)
        run_in(stopped, config, loop, vocaset, resume=True, **stages)
        if loop is pretrain_prior:
            ends = [read_prior(folder) for folder in (whole, stopped)]
            assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
            rates = [json.loads(line)["lr"] for line in (stopped / "metrics.jsonl").read_text().splitlines()]
            assert rates == pytest.approx([first.learning_rate / 2**n for n in (1, 2, 3, 4)])
        else:
            ends = [ModelFolder.open(folder / "model").weights_sha256 for folder in (whole, stopped)]
            assert ends[0] == ends[1]


def test_what_cannot_be_trained_is_named(vocaset: Path, codec: Path, tmp_path) -> None:
    other = hosts.codetalker_smoke()
    other = replace(other, host=replace(other.host, code_width=16))
    for config, stages, message in (
        (other, {"prior": codec}, "codec: its prior is of another host or data set"),
        (hosts.codetalker_smoke(), {}, "give --prior RUN"),
        (hosts.codetalker_smoke(), {"prior": vocaset}, "run.json is missing"),
        (face.smoke(), {"prior": codec}, "this host has one stage: leave --prior out"),
    ):
        with pytest.raises(UserError, match=message):
            run_in(tmp_path / "face", config, finetune, vocaset, None, None, **stages)
    with pytest.raises(UserError, match="this host has one stage: train it with `finetune`"):
        run_in(tmp_path / "prior", replace(prior.smoke(), host=face.smoke().host), pretrain_prior, vocaset)
    assert not (tmp_path / "prior" / PRIOR_FILE).exists() and not (tmp_path / "face" / "run.json").exists()
    with pytest.raises(UserError, match="epochs and batch must be at least 1"):
        replace(prior.smoke(), epochs=0)
