# SPDX-License-Identifier: GPL-3.0-or-later
"""The published recipe on miniature data sets: what is learnt, what stays frozen, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_faces import VOCASET_SUBJECTS, write_biwi, write_custom, write_vocaset  # noqa: E402
from trainer.datasets.opening import open_face_data  # noqa: E402
from trainer.evaluation.metrics import sequence_errors  # noqa: E402
from trainer.evaluation.regions import find_regions  # noqa: E402
from trainer.experiments.face import biwi_smoke, custom_smoke, smoke, smoke_wav2sem  # noqa: E402
from trainer.loops.finetune import (  # noqa: E402
    Examples,
    Learner,
    build_model,
    finetune,
    mask_spans,
)
from trainer.runs.checkpoints import load_newest  # noqa: E402
from trainer.runs.run import Run  # noqa: E402
from trainer.speech.batches import normalise  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import ModelFolder, Wav2SemConfig, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.frame_timing import FrameGrid  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import resample_features  # noqa: E402
from wav2sem_blender.pipeline.nn.face_model import FaceModel  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocaset")
    write_vocaset(folder, layout="exported")
    return folder


def open_run(folder: Path, config, **more) -> Run:
    return Run(folder, verb="finetune", name="smoke", config=config, device="cpu", **more)


def trained(config, data: Path, folder: Path, wav2sem: Path | None = None) -> Path:
    run = open_run(folder, config)
    try:
        finetune(config, data, run, None, wav2sem)
    finally:
        run.close()
    return folder


@pytest.fixture(scope="module")
def vocaset_run(vocaset: Path, tmp_path_factory) -> Path:
    return trained(replace(smoke(), learning_rate=1e-2, epochs=3), vocaset, tmp_path_factory.mktemp("runs") / "face")


def test_a_run_ends_with_a_model_that_animates(vocaset_run: Path, vocaset: Path) -> None:
    """The model folder moves every vertex as the trained torch module does, without an export."""
    animator = SpeechAnimator.load(vocaset_run / "model")
    faces = open_face_data("vocaset", vocaset)
    clip = next(clip for clip in faces.clips if clip.split == "valid")
    samples = faces.samples(clip)
    motion = animator.animate(samples, 16_000, style=3)
    assert motion.fps == 30 and motion.channels[0] == "key_00" and animator.folder.config.styles == faces.styles

    found = load_newest(vocaset_run / "checkpoints")
    assert found is not None
    state = {key.removeprefix("model."): value for key, value in found[1]["model"].items()}
    model = FaceModel(animator.folder.config, 3 * 5023).eval()
    model.load_state_dict(state)
    positions = torch.from_numpy(FrameGrid(fps=30).positions(len(samples))).float()[None]
    with torch.no_grad():
        expected_TX = model(torch.from_numpy(normalise(samples))[None], positions, torch.eye(8)[[3]])[0].numpy()
    offsets_TX = motion.vertex_offsets().reshape(len(expected_TX), -1)
    assert np.abs(expected_TX).max() > 1e-3
    np.testing.assert_allclose(offsets_TX, expected_TX, atol=1e-4 * np.abs(expected_TX).max())


def test_a_run_describes_itself(vocaset_run: Path) -> None:
    described = json.loads((vocaset_run / "run.json").read_text())
    assert described["clips"] == {"train": 4, "valid": 1} and len(described["data_sha256"]) == 64
    assert described["skipped"], "the miniature lacks most of the published sentences"
    provenance = SpeechAnimator.load(vocaset_run / "model").folder.config.provenance
    assert provenance["experiment"] == "smoke" and provenance["data_sha256"] == described["data_sha256"]
    rows = [json.loads(line) for line in (vocaset_run / "metrics.jsonl").read_text().splitlines()]
    watched = [row["valid_loss"] for row in rows if "valid_loss" in row]
    assert len(watched) == 3 and watched[-1] != watched[0]


def without_noise(config):
    """Nothing random while training."""
    quiet = {f"{name}_dropout": 0.0 for name in ("hidden", "attention", "activation", "feat_proj")} | {"layerdrop": 0.0}
    encoder = replace(config.encoder, config=dict(config.encoder.config) | quiet)
    return replace(config, encoder=encoder, host=replace(config.host, dropout=0.0), mask_share=0.0)


def test_one_clip_is_learnt_by_heart(tmp_path) -> None:
    """Run as in the extension, from audio alone, its LVE is below 1e-7 m²; that of a face at rest is above 1e-4."""
    write_vocaset(tmp_path, layout="exported", subjects=VOCASET_SUBJECTS[:1], sentences=(1,), seconds=0.5)
    faces = open_face_data("vocaset", tmp_path)
    clip = faces.clips[0]
    samples = faces.samples(clip)
    n_frames = FrameGrid(fps=30).animation_frames(len(samples))
    path = tmp_path / "vertices_npy" / f"{clip.name}.npy"
    np.save(path, np.load(path)[: 2 * n_frames])  # as many frames as inference will count
    config = replace(without_noise(smoke()), epochs=120, learning_rate=2e-4, checkpoint_every=1000)
    folder = trained(config, tmp_path, tmp_path / "face")
    offsets_TV3 = SpeechAnimator.load(folder / "model").animate(samples, 16_000, style=clip.subject).vertex_offsets()
    template_V3, truth_TV3 = faces.template(clip.subject), faces.vertices(clip)
    regions = find_regions(tmp_path, faces.topology, faces.n_vertices)
    lips_R, upper_R = regions.lips.indices_R, regions.upper.indices_R
    learnt = sequence_errors(offsets_TV3 + template_V3, truth_TV3, template_V3, lips_R, upper_R)
    rest = sequence_errors(np.broadcast_to(template_V3, truth_TV3.shape), truth_TV3, template_V3, lips_R, upper_R)
    assert len(offsets_TV3) == len(truth_TV3) == n_frames
    assert learnt.lve < 1e-7 and rest.lve > 1e-4


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory) -> Path:
    """An imported Wav2Sem of 24 dimensions, which the fusion maps to the encoder's width."""
    torch.manual_seed(1)
    config = Wav2SemConfig(config=smoke().encoder.config, target_dim=24)
    folder = tmp_path_factory.mktemp("imported") / "wav2sem"
    state = Wav2Sem(config.config, config.target_dim).state_dict()
    save_wav2sem(folder, config, {f"wav2sem.{key}": value.numpy() for key, value in state.items()})
    return folder


def test_frozen_parts_stay_as_they_are(vocaset: Path, sentence_encoder: Path, tmp_path) -> None:
    config = replace(smoke_wav2sem(), learning_rate=1e-2, epochs=2)
    torch.manual_seed(config.seed)
    start = build_model(config, open_face_data("vocaset", vocaset), None, sentence_encoder).state_dict()
    folder = trained(config, vocaset, tmp_path / "face", wav2sem=sentence_encoder)
    after = ModelFolder.open(folder / "model").tensors()
    changed = {key for key, value in after.items() if key in start and not np.array_equal(value, start[key])}
    assert not {key for key in changed if key.startswith(("audio_encoder.feature_extractor.", "wav2sem."))}
    for part in ("audio_encoder.encoder.", "audio_encoder.feature_projection.", "fusion.", "decoder.style."):
        kept = {key for key in start if key.startswith(part)} - changed
        # A bias of all keys cancels in the softmax, so its gradient is rounding only.
        assert not {key for key in kept if not key.endswith("k_proj.bias")}, part
    assert "audio_encoder.masked_spec_embed" in changed
    motion = SpeechAnimator.load(folder / "model").animate(np.random.default_rng(0).standard_normal(16_000), 16_000)
    assert motion.weights_TK.shape == (29, 65)


def test_frozen_means_eval(vocaset: Path, sentence_encoder: Path) -> None:
    """Dropout and LayerDrop would change F_s at every call; `train()` must not switch them on."""
    model = build_model(smoke_wav2sem(), open_face_data("vocaset", vocaset), None, sentence_encoder)
    model.train()
    waveform = torch.randn(1, 16_000)
    first, again = model.semantics(waveform), model.semantics(waveform)
    assert not first.requires_grad and torch.equal(first, again)
    assert model.audio_encoder.training and model.decoder.training


def test_feedback_modes(vocaset: Path) -> None:
    """Without dropout "published" and "cached" are one loss; "teacher" is another."""
    faces = open_face_data("vocaset", vocaset)
    config = without_noise(smoke())
    model = build_model(config, faces, None, None)
    torch.nn.init.normal_(model.decoder.motion_head.weight, std=1e-2)
    example = Examples(model, faces, torch.device("cpu"))(faces.clips[0])
    losses = {}
    for feedback in ("published", "cached", "teacher"):
        model.decoder.config = replace(config.host, feedback=feedback)
        losses[feedback] = float(Learner(config, model)([example]).detach())
    assert losses["cached"] == pytest.approx(losses["published"], rel=1e-5)
    assert abs(losses["teacher"] / losses["published"] - 1) > 1e-4


def test_spans_are_masked_in_training_only(vocaset: Path) -> None:
    torch.manual_seed(0)
    for n_frames in (3, 29, 299):
        masked = mask_spans(n_frames, share=0.05, length=10, at_least=2).numpy()
        edges = np.flatnonzero(np.diff(np.pad(masked.astype(int), 1)))
        assert (edges[1::2] - edges[::2]).min() >= min(10, n_frames)
    assert 11 <= masked.sum() <= 20, "two spans: 5 % of 299 frames are 15, the least is two spans of ten"
    assert sum(int(mask_spans(1000, 0.05, 10, 2).sum()) for _ in range(50)) / 50 == pytest.approx(49, abs=3)
    faces = open_face_data("vocaset", vocaset)
    config = replace(without_noise(smoke()), mask_share=0.05)
    learner = Learner(config, build_model(config, faces, None, None))
    torch.nn.init.normal_(learner.model.decoder.motion_head.weight, std=1e-3)
    example = Examples(learner.model, faces, torch.device("cpu"))(faces.clips[0])
    trained_on = {float(learner.train()([example]).detach()) for _ in range(4)}
    watched = {float(learner.eval()([example]).detach()) for _ in range(2)}
    assert len(trained_on) > 1 and len(watched) == 1


def test_features_are_read_at_the_recorded_frames() -> None:
    features = torch.randn(1, 5, 49)
    expected = torch.nn.functional.interpolate(features, size=31, mode="linear", align_corners=True)
    second = 16_000  # samples: 49 encoder frames
    positions = torch.from_numpy(FrameGrid.at_rate(30).positions(second, 31)).float()[None]
    np.testing.assert_allclose(resample_features(features.transpose(1, 2), positions)[0].T, expected[0], atol=1e-5)
    assert FrameGrid.at_rate(25).positions(second, 20).tolist() == list(range(40)), "BIWI is cropped, not stretched"
    assert np.array_equal(FrameGrid.at_rate(30).positions(second, 29), FrameGrid.at_rate(30).positions(second))


def test_styles_are_the_training_subjects_in_order(vocaset: Path) -> None:
    faces = open_face_data("vocaset", vocaset)
    examples = Examples(build_model(smoke(), faces, None, None), faces, torch.device("cpu"))
    by_split = {clip.split: examples(clip) for clip in faces.clips}
    own = faces.styles.index(next(clip for clip in reversed(faces.clips) if clip.split == "train").subject)
    assert by_split["train"].style_KN.tolist() == torch.eye(8)[[own]].tolist()
    assert torch.equal(by_split["valid"].style_KN, torch.eye(8)), "an unknown subject is predicted in every style"


def test_biwi_and_a_studios_own_data_train_too(tmp_path) -> None:
    write_biwi(tmp_path / "biwi", layout="exported", subjects=("F2",), sentences=(1, 33))
    write_custom(tmp_path / "custom", subjects=("anna",), clips=2, seconds=0.6, fps=30)
    speech = np.random.default_rng(0).standard_normal(16_000)
    for config, fps, shape, unit in (
        (biwi_smoke(), 25, (24, 23370, 3), "sqrt_area"),
        (custom_smoke(), 30, (29, 300, 3), "m"),
    ):
        folder = trained(config, tmp_path / config.data, tmp_path / f"{config.data}_face")
        animator = SpeechAnimator.load(folder / "model")
        motion = animator.animate(speech, 16_000)
        assert motion.fps == fps and motion.vertex_offsets().shape == shape
        assert animator.folder.config.basis_unit == unit


def test_a_stopped_run_continues_bit_for_bit(vocaset: Path, tmp_path, monkeypatch) -> None:
    config = replace(smoke(), epochs=2, checkpoint_every=3, valid_clips=0)
    whole = trained(config, vocaset, tmp_path / "whole")
    calls = iter(range(5))
    with monkeypatch.context() as patch:
        forward = Learner.forward
        patch.setattr(Learner, "forward", lambda *given: (next(calls), forward(*given))[1])
        with pytest.raises(StopIteration):
            trained(config, vocaset, tmp_path / "stopped")
    run = open_run(tmp_path / "stopped", config, resume=True)
    finetune(config, vocaset, run, None, None)
    run.close()
    weights = [ModelFolder.open(folder / "model").weights_sha256 for folder in (whole, tmp_path / "stopped")]
    assert weights[0] == weights[1]


def test_what_cannot_be_trained_is_named(vocaset: Path, sentence_encoder: Path, tmp_path, monkeypatch) -> None:
    faces = open_face_data("vocaset", vocaset)
    plain, fused = smoke(), smoke_wav2sem()
    with pytest.raises(ValueError, match="give --wav2sem RUN"):
        build_model(fused, faces, None, None)
    with pytest.raises(ValueError, match="leave --wav2sem out"):
        build_model(plain, faces, None, sentence_encoder)
    with pytest.raises(FileNotFoundError, match="not a finished run"):
        build_model(plain, faces, tmp_path / "none", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="no such folder with config.json"):
        build_model(replace(plain, pretrained=str(tmp_path / "none")), faces, None, None)
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with pytest.raises(ValueError, match="a hubert encoder, the experiment asks for wav2vec2"):
        build_model(replace(plain, pretrained=str(tmp_path)), faces, None, None)
    with pytest.raises(ValueError, match="choose from published, cached, teacher"):
        replace(plain, host=replace(plain.host, feedback="recomputed"))
    faces.fps = 24
    with pytest.raises(ValueError, match="faceformer at 24 fps .* it has 30 fps with 1 or 25 fps with 2"):
        build_model(plain, faces, None, None)
    faces.fps = 30
    faces.styles = faces.styles[2:]
    clip = faces.clips[0]
    with pytest.raises(ValueError, match=f"{clip.name}: its subject {clip.subject} is not among the styles"):
        Examples(build_model(plain, faces, None, None), faces, torch.device("cpu"))(clip)


def test_a_loss_that_is_not_finite_stops_the_run(vocaset: Path, tmp_path) -> None:
    config = replace(smoke(), epochs=2, learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(ValueError, match=r"step 1, FaceTalk_\w+_sentence\d\d: the loss is (nan|inf)"):
        trained(config, vocaset, tmp_path / "face")
    assert [path.name[:13] for path in (tmp_path / "face" / "checkpoints").iterdir()] == ["step-00000001"]
    assert not (tmp_path / "face" / "model").exists()
