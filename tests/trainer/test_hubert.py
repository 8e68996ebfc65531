# SPDX-License-Identifier: GPL-3.0-or-later
"""HuBERT's masked prediction: labels on the encoder's frames, the published loss, both iterations on real clips, and
checks by hand."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")

import torchaudio.compliance.kaldi  # noqa: E402

from tests.trainer.miniature_librispeech import write_librispeech  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.experiments import hubert  # noqa: E402
from trainer.loops import clusters  # noqa: E402
from trainer.loops.clusters import (  # noqa: E402
    LabelledRecording,
    LabelledSpeech,
    cluster_quality,
    fit_centroids,
    hidden_states,
    labelled_speech,
    mfcc,
    nearest,
)
from trainer.loops.pretrain_hubert import (  # noqa: E402
    ClusterTask,
    batch_slices,
    pretrain_hubert,
    schedule_of,
    span_mask,
)
from trainer.runs.run import Run  # noqa: E402
from trainer.speech.prepared import SpeechRecord  # noqa: E402
from trainer.speech.recordings import SoundFiles  # noqa: E402
from wav2sem_blender.pipeline.frame_timing import encoder_frames  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import build_backbone, load_backbone  # noqa: E402

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="development data (../shared/data) is not here")
SMOKE = hubert.smoke()
CALM = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "layerdrop": 0.0}
CALM_SMOKE = replace(SMOKE, encoder=replace(SMOKE.encoder, config=dict(SMOKE.encoder.config) | CALM))


@pytest.fixture(scope="module")
def vowels(tmp_path_factory) -> Path:
    """Recordings of three speakers, at least 3 s each, with four sounds in random order, which a toy encoder can
    learn."""
    root = tmp_path_factory.mktemp("vowels")
    rng = np.random.default_rng(0)
    for i in range(9):
        pitch_hz = 90 + 30 * (i % 3)
        sounds = []
        while sum(map(len, sounds)) < 16_000 * (3 + 0.1 * i):
            t_s = np.arange(int(rng.uniform(0.1, 0.3) * 16_000)) / 16_000
            formant_hz = (400, 1000, 2000, 3500)[rng.integers(4)]
            harmonics = np.arange(1, 40)[:, None] * pitch_hz
            level = np.exp(-(((harmonics - formant_hz) / 300) ** 2))
            sounds.append((level * np.sin(2 * np.pi * harmonics * t_s)).sum(0))
        samples = np.concatenate(sounds)
        soundfile.write(
            root / f"{i % 3}-1-{i:04d}.flac", 0.1 * samples + 0.001 * rng.standard_normal(len(samples)), 16_000
        )
    return root


def new_run(folder: Path, config: hubert.PretrainHubert, resume: bool = False) -> Run:
    return Run(folder, verb="pretrain-hubert", name="test", config=config, device="cpu", resume=resume)


@pytest.fixture
def task(vowels: Path, tmp_path: Path) -> ClusterTask:
    torch.manual_seed(0)
    run = new_run(tmp_path / "run", CALM_SMOKE)
    return ClusterTask(CALM_SMOKE, labelled_speech(CALM_SMOKE.task, vowels, run, None), run)


@pytest.mark.parametrize("n_samples", [400, 559, 560, 719, 720, 16_000, 16_079, 16_080, 33_333])
def test_every_encoder_frame_has_one_mfcc_frame(n_samples: int) -> None:
    features_MD = mfcc(np.random.default_rng(0).standard_normal(n_samples).astype(np.float32))
    assert features_MD.shape == (1 + (n_samples - 400) // 160, 39)
    assert len(features_MD[::2]) == encoder_frames(n_samples)


def test_mfcc_and_encoder_hear_the_same_samples() -> None:
    """MFCC frame 2 l depends on samples 320 l .. 320 l + 399 and no others, as encoder frame l does."""
    samples_S = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    before = mfcc(samples_S)[::2, :13]
    for at, changed in ((320 * 4 - 1, [3]), (320 * 4, [3, 4]), (320 * 4 + 100, [4]), (320 * 4 + 399, [4, 5])):
        moved_S = samples_S.copy()
        moved_S[at] += 3
        assert np.flatnonzero(np.abs(mfcc(moved_S)[::2, :13] - before).max(1) > 1e-4).tolist() == changed


def test_deltas_of_a_ramp(monkeypatch) -> None:
    """d_t = sum n (c_{t+n} - c_{t-n}) / (2 sum n^2), n = 1, 2, the ends repeated: by hand on c_t = 3 t."""
    ramp = 3 * torch.arange(9.0)[:, None].expand(9, 13)
    monkeypatch.setattr(torchaudio.compliance.kaldi, "mfcc", lambda *args, **kwargs: ramp)
    features_MD = mfcc(np.zeros(1, np.float32))
    delta = np.array([1.5, 2.4, 3, 3, 3, 3, 3, 2.4, 1.5])
    np.testing.assert_allclose(features_MD[:, 13:26], np.repeat(delta[:, None], 13, 1), atol=1e-6)
    # at t = 1: (2.4's neighbours: 3 - 1.5) + 2 (3 - 1.5) over 10
    np.testing.assert_allclose(features_MD[1, 26:], 0.45, atol=1e-6)
    np.testing.assert_allclose(features_MD[4, 26:], 0, atol=1e-6)


def test_clusters_are_found_again_and_depend_on_the_seed_alone() -> None:
    rng = np.random.default_rng(0)
    centres_KD = rng.normal(0, 10, (8, 39))
    truth_N = rng.integers(8, size=4000)
    features_ND = (centres_KD[truth_N] + rng.normal(0, 0.5, (4000, 39))).astype(np.float32)
    found = fit_centroids(features_ND, SMOKE.task, seed=1)
    np.testing.assert_array_equal(found, fit_centroids(features_ND, SMOKE.task, seed=1))
    labels_N = nearest(features_ND, found)
    assert len({(a, b) for a, b in zip(truth_N, labels_N, strict=True)}) == 8, "one cluster for each centre"
    assert labels_N.dtype == np.uint16
    with pytest.raises(ValueError, match="7 frames of speech cannot make 8 clusters"):
        fit_centroids(features_ND[:7], SMOKE.task, seed=1)


def test_labels_are_kept_until_the_recipe_changes(vowels: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", SMOKE)
    labels = tmp_path / "run" / "labels" / "labels.npy"
    speech = labelled_speech(SMOKE.task, vowels, run, None)
    written = labels.stat().st_mtime_ns
    assert len(speech.recordings) == 9 and {r.speaker for r in speech.recordings} == {"0", "1", "2"}
    assert len({r.speaker for r in speech.recordings if r.split == "valid"}) == 1
    for recording in speech.recordings:
        assert len(speech.labels(recording)) == encoder_frames(recording.n_samples)
        np.testing.assert_array_equal(speech.labels(recording, 5, 7), speech.labels(recording)[5:12])
    labelled_speech(replace(SMOKE.task, batch_s=1.0), vowels, run, None)
    assert labels.stat().st_mtime_ns == written, "the batch is not in the recipe of the labels"
    labelled_speech(replace(SMOKE.task, n_clusters=5), vowels, run, None)
    assert labels.stat().st_mtime_ns > written and np.load(labels).max() == 4
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_prepared_speech_is_clustered_in_its_own_splits(tmp_path: Path) -> None:
    """Labels belong to its samples, its test part is unused, and its phones judge the clusters."""
    rng = np.random.default_rng(0)
    audio_S = (3000 * rng.standard_normal(3 * 48_000)).astype(np.int16)
    splits = ("train", "valid", "test")
    records = [
        SpeechRecord(
            name=f"clip_{i}", corpus="vctk", speaker=f"p{i}", split=split, text=None,
            first=48_000 * i, n_samples=48_000, phones=[("SIL", 0.0, 1.0), ("AA", 1.0, 3.0)],
        )
        for i, split in enumerate(splits)
    ]  # fmt: skip
    (tmp_path / "speech").mkdir()
    np.save(tmp_path / "speech" / "audio.npy", audio_S)
    (tmp_path / "speech" / "clips.json").write_text(json.dumps([asdict(record) for record in records]))
    speech = labelled_speech(SMOKE.task, tmp_path, new_run(tmp_path / "run", SMOKE), None)
    assert [(r.path, r.split) for r in speech.recordings] == [("clip_0", "train"), ("clip_1", "valid")]
    np.testing.assert_array_equal(speech.samples(speech.recordings[1], 100, 50) * 32768, audio_S[48_100:48_150])
    np.testing.assert_array_equal(speech.samples(speech.recordings[0]) * 32768, audio_S[:48_000])
    assert cluster_quality(speech, speech.recordings)["phones"] == 2


def test_labels_last_as_long_as_sounds(task: ClusterTask) -> None:
    labels = np.concatenate([task._speech.labels(recording) for recording in task._speech.recordings])
    assert len(set(labels.tolist())) == 8 and np.mean(np.diff(labels) == 0) > 0.6


def test_only_masked_frames_count(task: ClusterTask) -> None:
    crops, _ = task.batch(0)
    task.model.eval()
    before = task.loss(task.model, crops)[0].item()
    labels_L = task._speech._labels_L = np.array(task._speech._labels_L)
    first = crops[0].recording.first + crops[0].first_sample // 320

    def after_changing(frame: int) -> float:
        labels_L[first + frame] = (labels_L[first + frame] + 1) % 8
        return task.loss(task.model, crops)[0].item()

    for frame in np.flatnonzero(~crops[0].masked_L)[::6]:
        assert after_changing(frame) == before
    assert after_changing(np.flatnonzero(crops[0].masked_L)[0]) != before


def test_the_loss_is_the_published_one(task: ClusterTask) -> None:
    """Mean over masked frames of -log softmax(cos / 0.1) at the label, plus 10 times the CNN's mean square."""
    crops, audio_s = task.batch(0)
    assert len({crop.n_samples for crop in crops}) == 1 and 6 < audio_s <= 8
    model = task.model.eval()
    terms = []
    with torch.no_grad():
        loss = task.loss(model, crops)[0]
        encoder = model.audio_encoder
        waveform = torch.from_numpy(np.stack([task._waveform(crop) for crop in crops]))
        energy = encoder.feature_extractor(waveform).square().mean()
        masked = torch.from_numpy(np.stack([crop.masked_L for crop in crops]))
        encoder.config.apply_spec_augment = True  # transformers' own masking, otherwise off
        hidden = encoder(waveform, mask_time_indices=masked).last_hidden_state
        for crop, hidden_LD in zip(crops, hidden, strict=True):
            for frame in np.flatnonzero(crop.masked_L):
                cosines = torch.cosine_similarity(model.projection(hidden_LD[frame])[None], model.label_embeddings)
                terms.append(-torch.log_softmax(cosines / 0.1, 0)[task._labels(crop)[frame]])
    assert float(loss) == pytest.approx(float(torch.stack(terms).mean() + 10 * energy), abs=1e-4)


def test_the_cnn_learns_a_tenth_as_fast(task: ClusterTask) -> None:
    crops, _ = task.batch(0)
    gradients = {}
    for factor in (1.0, 0.1):
        task.model.settings = replace(task.settings, feature_gradient=factor)
        task.model.zero_grad()
        task.loss(task.model, crops)[0].backward()
        gradients[factor] = {name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None}
    cnn = [name for name in gradients[1.0] if "feature_extractor" in name]
    assert len(cnn) == 9
    for name, gradient in gradients[1.0].items():
        scale = 0.1 if name in cnn else 1.0
        torch.testing.assert_close(gradients[0.1][name], scale * gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (hubert.base_mfcc(), {0: 0, 16_000: 2.5e-4, 32_000: 5e-4, 141_000: 2.5e-4, 250_000: 0}),
        (hubert.base_features(), {32_000: 5e-4, 216_000: 2.5e-4, 400_000: 0}),
        (hubert.bundled(), {0: 4e-6, 299: 1.2e-3, 3650: 6e-4, 7000: 0}),
        (hubert.bundled_anywhere(), {299: 7e-4, 4150: 3.5e-4, 8000: 0}),
    ],
)
def test_learning_rates(config: hubert.PretrainHubert, expected: dict[int, float]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    factor = schedule_of(config, torch.optim.AdamW([parameter], lr=config.peak_lr)).lr_lambdas[0]
    assert {step: config.peak_lr * factor(step) for step in expected} == pytest.approx(expected, abs=1e-9)


def test_mask_statistics() -> None:
    """62 or 63 spans of 10 in 780 frames, drawn without replacement, cover 1 - (1 - 62.4 / 770)^10 = 57 %."""
    rng = np.random.default_rng(0)
    single = [span_mask((1, 780), 0.8, 10, rng)[0] for _ in range(200)]
    assert np.mean(single) == pytest.approx(0.56, abs=0.012)
    for masked_L in single[:20]:
        edges = np.flatnonzero(np.diff(np.pad(masked_L.astype(int), 1)))
        assert (edges[1::2] - edges[::2]).min() >= 10
    assert {int(span_mask((1, 24), 0.8, 10, rng).sum()) for _ in range(200)} <= set(range(11, 21)), "two spans at least"
    batch = span_mask((16, 780), 0.8, 10, rng)
    assert len(set(batch.sum(1).tolist())) == 1, "every row has equally many"
    assert np.mean(batch) == pytest.approx(0.53, abs=0.02) and len({row.tobytes() for row in batch}) == 16
    with pytest.raises(ValueError, match="11 encoder frames are too few for 2 masked spans"):
        span_mask((1, 11), 0.8, 10, rng)


def test_batch_slices() -> None:
    """Batches of 10: four of 2 and 3 (cut to 2), two of 4 and 5 (cut to 4), longest crop 6; the last is filled up."""
    lengths = np.array([2, 2, 3, 3, 3, 4, 5, 9])
    assert batch_slices(lengths, 6, 10.0) == [slice(0, 5), slice(5, 7), slice(7, 8)]
    assert batch_slices(np.array([4, 4, 4, 4, 4]), 6, 9.0) == [slice(0, 2), slice(2, 4), slice(3, 6)]
    assert batch_slices(np.array([8, 8]), 6, 3.0) == [slice(0, 1), slice(1, 2)], "one at least"


def test_an_epoch_takes_every_recording_and_any_process_draws_the_same(task: ClusterTask, vowels: Path) -> None:
    per_epoch = len(task._slices)
    drawn = [task.batch(step)[0] for step in range(2 * per_epoch)]
    for epoch in (drawn[:per_epoch], drawn[per_epoch:]):
        assert {crop.recording for crops in epoch for crop in crops} == set(task._train)
    again = ClusterTask(CALM_SMOKE, task._speech, task._run).batch(per_epoch + 1)[0]
    for one, other in zip(drawn[per_epoch + 1], again, strict=True):
        assert (one.recording, one.first_sample, one.n_samples) == (
            other.recording,
            other.first_sample,
            other.n_samples,
        )
        np.testing.assert_array_equal(one.masked_L, other.masked_L)
    for crop in sum(drawn, []):
        assert crop.first_sample % 320 == 0 and crop.first_sample + crop.n_samples <= crop.recording.n_samples


def test_micro_batches_do_not_change_the_loss(vowels: Path, tmp_path: Path) -> None:
    losses = []
    for accumulate in (1, 3):
        config = replace(CALM_SMOKE, accumulate=accumulate)
        run = new_run(tmp_path / str(accumulate), config)
        pretrain_hubert(config, vowels, run)
        rows = (run.folder / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(row)["loss"] for row in rows])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


def test_it_learns(vowels: Path, tmp_path: Path) -> None:
    """A toy encoder predicts the masked sounds of nine recordings better than their frequencies do."""
    config = replace(CALM_SMOKE, steps=30, warmup_steps=5, peak_lr=3e-3)
    run = new_run(tmp_path / "run", config)
    pretrain_hubert(config, vowels, run)
    rows = [json.loads(row) for row in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["cross_entropy"] < 0.75 * rows[0]["cross_entropy"]
    assert rows[-1]["accuracy"] > 0.45 and rows[-1]["loss"] < 0.6 * rows[0]["loss"]


def test_hidden_states_in_pieces(monkeypatch) -> None:
    torch.manual_seed(0)
    backbone = build_backbone("hubert", SMOKE.encoder.config).eval()
    samples_S = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    whole = hidden_states(backbone, 1, False, samples_S)
    assert whole.shape == (62, 32)
    truncated = build_backbone("hubert", dict(SMOKE.encoder.config) | {"num_hidden_layers": 1}).eval()
    truncated.load_state_dict(backbone.state_dict(), strict=False)
    with torch.no_grad():
        shallow = truncated(torch.from_numpy(samples_S)[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(whole, shallow, atol=1e-5)
    monkeypatch.setattr(clusters, "PIECE_SAMPLES", 25 * 320)
    pieces = hidden_states(backbone, 1, False, samples_S)
    first = hidden_states(backbone, 1, False, samples_S[: 25 * 320 + 80])
    assert len(pieces) == 62 and len(first) == 25
    np.testing.assert_allclose(pieces[:25], first, atol=1e-6)


def test_cluster_quality_by_hand(tmp_path: Path) -> None:
    """12 frames: cluster 0 is all B, cluster 1 half AA, half SIL: 9 of 12 have their cluster's most frequent phone."""
    with gzip.open(tmp_path / "alignments.tsv.gz", "wt") as table:
        table.write("clip\ttier\tstart\tend\tlabel\na\tphones\t0.0\t0.12\tB\na\tphones\t0.12\t0.18\tAA\n")
    soundfile.write(tmp_path / "a.wav", np.zeros(400 + 11 * 320), 16_000)
    labels = tmp_path / "labels"
    labels.mkdir()
    np.save(labels / "labels.npy", np.repeat(np.array([0, 1], np.uint16), 6))
    recording = ("a.wav", "a", "train", 400 + 11 * 320, 0)
    (labels / "index.json").write_text(json.dumps({"recipe": {}, "skipped": {}, "recordings": [recording]}))
    speech = LabelledSpeech(SoundFiles(tmp_path), labels)
    quality = cluster_quality(speech, speech.recordings)
    expected = {"frames": 12, "phones": 3, "phone_purity": 0.75, "cluster_purity": 1.0, "pnmi": 2 / 3, "nmi": 0.8}
    assert quality == pytest.approx(expected)
    assert cluster_quality(speech, [LabelledRecording("b.wav", "b", "train", 400, 0)]) == {}


@needs_data
def test_any_folder_of_audio(tmp_path: Path) -> None:
    """A flat folder, any sample rate, files to leave out; and clusters of real speech carry phone information."""
    source = SHARED / "librispeech_4_aligned"
    root = tmp_path / "speech"
    root.mkdir()
    clips = sorted(source.glob("*.flac"))[::8]
    for path in (*clips, source / "alignments.tsv.gz"):
        os.symlink(path, root / path.name)
    (root / "4088-1-0000.flac").write_bytes(b"no audio")
    soundfile.write(root / "4406-1-0000.wav", np.zeros(300), 16_000)
    soundfile.write(root / "4406-1-0001.wav", np.full(9000, np.nan), 16_000, subtype="FLOAT")
    stereo = np.repeat(soundfile.read(clips[0])[0][:48_000, None], 2, 1)
    soundfile.write(root / "9999-1-0000.wav", stereo, 48_000)
    speech = labelled_speech(replace(SMOKE.task, n_clusters=50), root, new_run(tmp_path / "run", SMOKE), None)
    assert speech.skipped == {"unreadable": 2, "shorter than one frame": 1}
    assert {Path(recording.path).name for recording in speech.recordings} == {path.name for path in clips} | {
        "9999-1-0000.wav"
    }
    resampled = next(recording for recording in speech.recordings if recording.speaker == "9999")
    assert resampled.n_samples == 16_000 and len(speech.samples(resampled, 100, 50)) == 50
    quality = cluster_quality(speech, speech.recordings)
    assert quality["phone_purity"] > 0.3 and quality["pnmi"] > 0.25, "with shuffled labels: 0.2 and 0.02"


def test_both_iterations_on_librispeech(tmp_path: Path, capsys) -> None:
    root, first, second = tmp_path / "LibriSpeech", tmp_path / "1", tmp_path / "2"
    write_librispeech(root, subsets=("train-clean-100", "dev-clean", "test-clean"), utterances=4, longest_s=3.0)
    (root / "train-clean-100" / "100" / "1000" / "100-1000-0009.flac").write_bytes(b"no audio")
    data = ["--data", str(root), "--device", "cpu"]
    assert main(["pretrain-hubert", "smoke", *data, "--out", str(first)]) == 0
    assert main(["pretrain-hubert", "smoke_features", *data, "--out", str(second), "--hubert", str(first)]) == 0
    described = json.loads((second / "run.json").read_text())
    assert described["recordings"] == 16 and described["skipped"] == {"unreadable flac": 1}
    recordings = json.loads((second / "labels" / "index.json").read_text())["recordings"]
    assert {(path.split("/")[0], split) for path, _, split, _, _ in recordings} == {
        ("train-clean-100", "train"),
        ("dev-clean", "valid"),
    }
    assert np.load(second / "labels" / "centroids.npy").shape == (12, 32)
    assert np.load(second / "labels" / "labels.npy").dtype == np.uint16
    valid = json.loads((second / "valid.json").read_text())
    assert 1 < valid["masked_loss"] < 5 and 0 <= valid["masked_accuracy"] <= 1

    encoder = load_backbone(str(second / "encoder"), "hubert").eval()
    state = torch.load(second / "encoder.pt", weights_only=True)
    prefix = "audio_encoder."
    twin = build_backbone("hubert", described["config"]["encoder"]["config"]).eval()
    twin.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    waveform = torch.randn(1, 8000)
    torch.testing.assert_close(encoder(waveform).last_hidden_state, twin(waveform).last_hidden_state)
    assert json.loads((second / "encoder" / "preprocessor_config.json").read_text())["do_normalize"] is True

    arguments = ["pretrain-hubert", "smoke_features", *data, "--out"]
    assert main([*arguments, str(tmp_path / "3")]) == 1
    assert "name its pretrain-hubert run with --hubert" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "4"), "--hubert", str(tmp_path)]) == 1
    assert "is not a finished run" in capsys.readouterr().err
    assert main(["pretrain-hubert", "smoke", *data, "--out", str(tmp_path / "5"), "--hubert", str(first)]) == 1
    assert "leave --hubert out" in capsys.readouterr().err


def test_a_resumed_run_ends_with_the_same_weights(vowels: Path, tmp_path: Path, monkeypatch) -> None:
    config = replace(SMOKE, steps=5, checkpoint_every=2)
    whole, stopped = new_run(tmp_path / "whole", config), new_run(tmp_path / "stopped", config)
    pretrain_hubert(config, vowels, whole)
    log = stopped.log

    def stop_after(step: int, **values) -> None:
        log(step, **values)
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(stopped, "log", stop_after)
    with pytest.raises(KeyboardInterrupt):
        pretrain_hubert(config, vowels, stopped)
    stopped.close()
    pretrain_hubert(config, vowels, new_run(tmp_path / "stopped", config, resume=True))
    ours, theirs = (torch.load(tmp_path / name / "encoder.pt", weights_only=True) for name in ("stopped", "whole"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_phones(tmp_path: Path, vowels: Path) -> None:
    """The bundled smoke on prepared speech: the same encoder file, a head of 40 phones, figures per corpus."""
    rng = np.random.default_rng(0)
    phones = [("B", 0.0, 0.5), ("AA", 0.5, 1.5), ("SIL", 1.5, 2.0)]
    records = []
    for i, (corpus, split) in enumerate([("grid_s1", "train"), ("vctk", "train"), ("vctk", "valid")]):
        facts = {"name": str(i), "corpus": corpus, "speaker": corpus, "split": split, "text": None}
        records.append(facts | {"first": 32_000 * i, "n_samples": 32_000, "phones": phones})
    (tmp_path / "speech").mkdir()
    np.save(tmp_path / "speech" / "audio.npy", rng.integers(-9000, 9000, 96_000).astype(np.int16))
    (tmp_path / "speech" / "clips.json").write_text(json.dumps(records))
    config = hubert.bundled_smoke()
    run = new_run(tmp_path / "run", config)
    pretrain_hubert(config, tmp_path, run)
    state = torch.load(run.folder / "encoder.pt", weights_only=True)
    assert state["head.weight"].shape == (40, 32) and "audio_encoder.masked_spec_embed" in state
    valid = json.loads((run.folder / "valid.json").read_text())
    assert list(valid) == ["vctk"] and 0 <= valid["vctk"]["frame_accuracy"] <= 1
    second = hubert.smoke_features()
    with pytest.raises(ValueError, match="was taught phones at 30 Hz"):
        pretrain_hubert(second, vowels, new_run(tmp_path / "second", second), run.folder)
    still = replace(config, steps=1, peak_lr=0.0)  # learns nothing, so it writes what it started with
    again = new_run(tmp_path / "again", still)
    pretrain_hubert(still, tmp_path, again, run.folder)
    assert torch.equal(torch.load(again.folder / "encoder.pt", weights_only=True)["head.weight"], state["head.weight"])
    other = replace(config, encoder=SMOKE.encoder)
    with pytest.raises(ValueError, match="has another encoder than this experiment"):
        pretrain_hubert(other, tmp_path, new_run(tmp_path / "third", other), run.folder)


def test_bad_data_is_one_clear_error(tmp_path: Path, vowels: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recordings here"):
        pretrain_hubert(SMOKE, tmp_path, new_run(tmp_path / "1", SMOKE))
    long = replace(SMOKE, task=replace(SMOKE.task, crop_s=(20.0, 30.0)))
    with pytest.raises(ValueError, match="no training recording has at least 20.0 s"):
        pretrain_hubert(long, vowels, new_run(tmp_path / "2", long))
    coarse = dict(SMOKE.encoder.config) | {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}
    other = replace(SMOKE, encoder=replace(SMOKE.encoder, config=coarse))
    with pytest.raises(ValueError, match="one frame every 320 samples"):
        pretrain_hubert(other, vowels, new_run(tmp_path / "3", other))
