# SPDX-License-Identifier: GPL-3.0-or-later
"""Imitator and FaceDiffuser on miniature data sets: what is learnt, what stays frozen, resuming, and adaptation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.host_training import losses, trained  # noqa: E402
from tests.trainer.miniature_faces import VOCASET_SUBJECTS, write_biwi, write_vocaset  # noqa: E402
from tests.trainer.test_finetune import without_noise  # noqa: E402
from trainer.datasets.closures import Closures, weights_of  # noqa: E402
from trainer.datasets.opening import open_face_data  # noqa: E402
from trainer.experiments import facediffuser, imitator  # noqa: E402
from trainer.loops.adapt import Actor  # noqa: E402
from trainer.loops.finetune import Examples, Learner, build_model  # noqa: E402
from trainer.runs.run import Run  # noqa: E402
from wav2sem_blender.errors import UserError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402

NEVER = 10_000
SMOKE = {"imitator": imitator.imitator_smoke(), "facediffuser": facediffuser.facediffuser_smoke()}
SPEECH_S = np.random.default_rng(0).standard_normal(16_000)


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """One short clip of training, one of validation, and two of an actor of the test split."""
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported", subjects=VOCASET_SUBJECTS[1:], sentences=(21, 22), seconds=0.5)
    return folder


@pytest.mark.parametrize("kind", SMOKE)
def test_a_clip_is_learnt_with_frozen_semantics(kind: str, tmp_path) -> None:
    """To a tenth of the loss, without changing F_s; and RUN/model animates."""
    write_vocaset(tmp_path / "one", layout="exported", subjects=VOCASET_SUBJECTS[1:2], sentences=(21,), seconds=0.4)
    torch.manual_seed(1)
    semantic = Wav2SemConfig(config=SMOKE["imitator"].encoder.config, target_dim=24)
    state = {f"wav2sem.{key}": value.numpy() for key, value in Wav2Sem(semantic.config, 24).state_dict().items()}
    save_wav2sem(tmp_path / "wav2sem", semantic, state)
    rate = {"imitator": 5e-4, "facediffuser": 3e-3}[kind]
    config = replace(without_noise(SMOKE[kind]), semantics=True, epochs=32, learning_rate=rate, checkpoint_every=NEVER)
    folder = trained(config, tmp_path / "one", tmp_path / "face", None, tmp_path / "wav2sem")
    found = losses(folder)
    assert np.mean(found[-5:]) < found[0] / 10
    model = ModelFolder.open(folder / "model")
    after = model.tensors("wav2sem.")
    assert all(np.array_equal(after[key.removeprefix("wav2sem.")], value) for key, value in state.items())
    animator = SpeechAnimator.load(folder / "model", engine="torch", device="cpu")
    motion = animator.animate(SPEECH_S, 16_000, 1)
    assert motion.fps == 30 and np.abs(motion.vertex_offsets()).max() > 1e-4
    assert ("seed" in motion.info) == (kind == "facediffuser")


@pytest.mark.parametrize("kind", SMOKE)
def test_biwi_trains_too(kind: str, tmp_path) -> None:
    write_biwi(tmp_path / "biwi", layout="exported", subjects=("F2",), sentences=(1, 33))
    config = {"imitator": imitator.imitator_biwi_smoke(), "facediffuser": facediffuser.facediffuser_biwi_smoke()}[kind]
    folder = trained(config, tmp_path / "biwi", tmp_path / "face")
    assert set(json.loads((folder / "valid.json").read_text())) == {"clips", "mse", "max_error"}
    animator = SpeechAnimator.load(folder / "model", engine="torch", device="cpu")
    motion = animator.animate(SPEECH_S, 16_000)
    assert motion.fps == 25 and motion.vertex_offsets().shape == (24, 23370, 3)


@pytest.mark.parametrize("kind", SMOKE)
def test_a_stopped_run_continues_bit_for_bit(kind: str, vocaset: Path, tmp_path, monkeypatch) -> None:
    config = replace(SMOKE[kind], epochs=2, checkpoint_every=1, valid_clips=0)
    whole = trained(config, vocaset, tmp_path / "whole")
    calls = iter(range(3))
    with monkeypatch.context() as patch:
        forward = Learner.forward
        patch.setattr(Learner, "forward", lambda *given: (next(calls), forward(*given))[1])
        with pytest.raises(StopIteration):
            trained(config, vocaset, tmp_path / "stopped")
    trained(config, vocaset, tmp_path / "stopped", resume=True)
    weights = [ModelFolder.open(folder / "model").weights_sha256 for folder in (whole, tmp_path / "stopped")]
    assert weights[0] == weights[1]


def test_facediffuser_leaves_the_first_layers_and_the_projection_alone(vocaset: Path) -> None:
    model = build_model(SMOKE["facediffuser"], open_face_data("vocaset", vocaset), None, None)
    frozen = {name for name, parameter in model.audio_encoder.named_parameters() if not parameter.requires_grad}
    parts = ("feature_extractor.", "feature_projection.", "encoder.layers.0.")
    assert frozen == {name for name, _ in model.audio_encoder.named_parameters() if name.startswith(parts)}


def test_imitator_counts_closed_lips_more(vocaset: Path, tmp_path) -> None:
    """The weights of the user's files; without them those of the phones that the bundled model hears."""
    faces = open_face_data("vocaset", vocaset)
    clip = next(clip for clip in faces.clips if clip.split == "train")
    n_frames = len(faces.vertices(clip))
    np.testing.assert_allclose(weights_of([(0.2, 0.3)], 12, 30), [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 0.75, 0.5])
    (tmp_path / "closures").mkdir()
    weight_T = np.random.default_rng(0).random(n_frames + 2)
    np.save(tmp_path / "closures" / f"{clip.name}.npy", weight_T)
    closures = Closures(tmp_path)
    assert closures.source == "closures/*.npy of the data"
    config = replace(SMOKE["imitator"], closures=True, host=replace(SMOKE["imitator"].host, dropout=0.0), mask_share=0)
    model = build_model(config, faces, None, None).eval()
    plain, weighted = (
        Learner(config, model).eval()([Examples(model, faces, torch.device("cpu"), some)(clip)])
        for some in (None, closures)
    )
    target_TX = (faces.vertices(clip) - faces.template(clip.subject)).reshape(n_frames, -1)  # the new model rests
    expected = 5 * (weight_T[:n_frames, None] * target_TX**2).mean()
    assert (weighted - plain).item() == pytest.approx(expected, rel=1e-3)
    np.save(tmp_path / "closures" / f"{clip.name}.npy", weight_T[:3])
    with pytest.raises(UserError, match=f"{clip.name}.npy: 3 weights; {n_frames} finite ones are needed"):
        closures(clip, SPEECH_S, n_frames, 30)
    heard = Closures(vocaset)
    assert heard.source == "phones that the bundled model hears"
    weight_T = heard(clip, faces.samples(clip), n_frames, 30)
    assert weight_T.shape == (n_frames,) and 0 <= weight_T.min() <= weight_T.max() <= 1


@pytest.fixture(scope="module")
def general(vocaset: Path, tmp_path_factory) -> Path:
    """A model of Imitator to adapt."""
    config = replace(without_noise(SMOKE["imitator"]), epochs=10, learning_rate=5e-4, valid_clips=0)
    return trained(config, vocaset, tmp_path_factory.mktemp("runs") / "face") / "model"


class TestAdaptation:
    CONFIG = replace(imitator.imitator_adapt_smoke(), subject=VOCASET_SUBJECTS[3], start_style=VOCASET_SUBJECTS[1])

    def adapt(self, config, vocaset: Path, folder: Path, general: Path | None, resume: bool = False) -> Path:
        return trained(config, vocaset, folder, None, None, general, resume=resume)

    def test_the_style_is_learnt_first_then_the_last_layer_too(self, vocaset: Path, general: Path, tmp_path) -> None:
        config = replace(self.CONFIG, epochs=(25, 25), learning_rate=1e-3)
        folder = self.adapt(config, vocaset, tmp_path / "actor", general)
        found = losses(folder)
        assert found[24] < 0.97 * found[0] and found[-1] < 0.7 * found[24]
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        watched = json.loads((folder / "valid.json").read_text())
        assert watched["adapted"] == pytest.approx(min(row["valid_loss"] for row in rows)) and watched["before"] > 0
        before, after = ModelFolder.open(general), ModelFolder.open(folder / "model")
        style = before.config.styles.index(self.CONFIG.start_style)
        assert after.config.styles[style] == VOCASET_SUBJECTS[3]
        styles = [folder.tensors("decoder.")["obj_vector.weight"] for folder in (before, after)]
        changed_N = (styles[0] != styles[1]).any(0)
        assert changed_N.tolist() == [i == style for i in range(8)]
        same = before.tensors("decoder.transformer_decoder."), after.tensors("decoder.transformer_decoder.")
        assert all(np.array_equal(same[1][name], value) for name, value in same[0].items())

    def test_the_first_stage_keeps_the_last_layer(self, vocaset: Path, general: Path, tmp_path, monkeypatch) -> None:
        """And a stopped run continues bit for bit, in either stage."""
        config = replace(self.CONFIG, epochs=(2, 2), checkpoint_every=1)
        heads: list[np.ndarray] = []
        forward = Actor.forward

        def watching(actor: Actor, clips) -> torch.Tensor:
            heads.append(actor.network.vertice_map_r.head.weight.detach().numpy().copy())
            return forward(actor, clips)

        monkeypatch.setattr(Actor, "forward", watching)
        whole = self.adapt(config, vocaset, tmp_path / "whole", general)
        assert all(np.array_equal(head, heads[0]) for head in heads[:4]) and not np.array_equal(heads[-1], heads[0])
        for stopped_at in (1, 3):
            calls = iter(range(stopped_at))
            folder = tmp_path / f"stopped{stopped_at}"
            with monkeypatch.context() as patch:
                update = Run.update
                patch.setattr(Run, "update", lambda run, u=update, c=calls: (next(c), u(run))[1])
                with pytest.raises(StopIteration):
                    self.adapt(config, vocaset, folder, general)
            self.adapt(config, vocaset, folder, general, resume=True)
            weights = [ModelFolder.open(run / "model").weights_sha256 for run in (whole, folder)]
            assert weights[0] == weights[1]

    def test_what_cannot_be_adapted_is_named(self, vocaset: Path, general: Path, tmp_path) -> None:
        cases = [
            (self.CONFIG, None, "give --prior MODEL"),
            (replace(self.CONFIG, subject=""), general, "the data have the subjects .*set `subject`"),
            (replace(self.CONFIG, train_clips=4), general, "has 2 clips; 4 are learnt and 1 held out"),
            (
                replace(self.CONFIG, start_style="nobody"),
                general,
                "no style nobody to start from; it has Face",
            ),
        ]
        for number, (config, start, message) in enumerate(cases):
            with pytest.raises(UserError, match=message):
                self.adapt(config, vocaset, tmp_path / str(number), start)
        other = trained(replace(SMOKE["facediffuser"], valid_clips=0), vocaset, tmp_path / "other") / "model"
        with pytest.raises(UserError, match="a model of facediffuser; adaptation is Imitator's"):
            self.adapt(self.CONFIG, vocaset, tmp_path / "last", other)
