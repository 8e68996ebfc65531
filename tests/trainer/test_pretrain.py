# SPDX-License-Identifier: GPL-3.0-or-later
"""Wav2Sem's pretraining: the published numbers, batches, losses, and whole runs on a miniature LibriSpeech."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer.miniature_librispeech import write_librispeech  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.datasets.librispeech import LibriSpeech  # noqa: E402
from trainer.experiments import wav2sem as experiments  # noqa: E402
from trainer.experiments.wav2sem import PretrainWav2Sem  # noqa: E402
from trainer.loops import pretrain as module  # noqa: E402
from trainer.loops.pretrain import build_wav2sem, contrastive_loss, padded, pretrain, take_over  # noqa: E402
from trainer.runs.epochs import Epochs, Loader  # noqa: E402
from trainer.runs.run import Run  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402

SMOKE = experiments.smoke()
STILL = replace(SMOKE, encoder_config=dict(SMOKE.encoder_config) | {"layerdrop": 0.0})


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAV2SEM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def libri(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("libri")
    write_librispeech(root, speakers=2, utterances=5, longest_s=1.2)
    return root


def train(config: PretrainWav2Sem, data: Path, out: Path, hubert: Path | None = None) -> dict[str, torch.Tensor]:
    run = Run(out, verb="pretrain", name="test", config=config, device="cpu")
    try:
        pretrain(config, data, run, hubert)
    finally:
        run.close()
    return torch.load(out / "wav2sem.pt", weights_only=True)


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng([0, *key])


def test_published_numbers() -> None:
    paper, released = experiments.paper(), experiments.released()
    assert paper.encoder_config["num_attention_heads"] == 8 and paper.encoder_config["do_stable_layer_norm"]
    assert (paper.optimiser, paper.peak_lr, paper.schedule, paper.weight_decay) == ("adam", 1e-4, "constant", 0)
    assert released.encoder_config["num_attention_heads"] == 12 and not released.encoder_config["do_stable_layer_norm"]
    assert (released.optimiser, released.peak_lr, released.weight_decay) == ("adamw", 1e-5, 0.01)
    assert (released.schedule, released.halve_epochs) == ("halving", 20)
    for config in (paper, released):
        assert (config.batching, config.batch, config.accumulate, config.epochs) == ("shuffled", 1, 1, 200)
        assert (config.target, config.normalise_target, config.contrastive) == ("cls", False, 0)
        assert config.clip is None and config.warmup_steps == 0 and config.precision == "no" and config.published_init
        encoder = config.encoder_config
        assert (encoder["hidden_size"], encoder["num_hidden_layers"], encoder["intermediate_size"]) == (768, 12, 3072)
        names = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")
        assert [encoder[name] for name in names] == [0.1] * 5
    assert experiments.paper_mean() == replace(paper, target="mean")
    fast = experiments.fast()
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "do_stable_layer_norm")
    assert [fast.encoder_config[key] for key in shape] == [released.encoder_config[key] for key in shape]
    assert fast.precision == "bf16" and fast.batching == "bucketed" and fast.contrastive > 0


def test_the_bundled_recipe_is_unchanged() -> None:
    bundled = experiments.bundled()
    assert (bundled.target, bundled.normalise_target, bundled.contrastive) == ("mean", True, 0.2)
    assert (bundled.steps, bundled.batch, bundled.longest_s, bundled.peak_lr) == (700, 10, 16.0, 6e-4)
    assert (bundled.warmup_steps, bundled.clip, bundled.weight_decay, bundled.precision) == (50, 1.0, 0.01, "bf16")
    assert bundled.encoder_config["hidden_size"] == 192 and bundled.encoder_config["num_hidden_layers"] == 3


@pytest.mark.parametrize(
    "change",
    [{"batching": "random"}, {"optimiser": "sgd"}, {"target": "pooler"}, {"epochs": 3}, {"batch_s": 0.0}, {"steps": 0}],
)
def test_impossible_configs_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="choose from|not both|batch_s"):
        replace(SMOKE, **change)


def test_published_weights_are_torchs_defaults() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Conv1d(32, 32, 16, groups=4)
    model = build_wav2sem(replace(SMOKE, published_init=True), 32)
    bound = 32**-0.5
    for name, weight in model.state_dict().items():
        if name.endswith("q_proj.weight"):
            assert 0.95 * bound < weight.abs().max() <= bound
    position = model.encoder.encoder.pos_conv_embed.conv.weight.detach()
    assert position.shape == plain.weight.shape
    np.testing.assert_allclose(position.std(), plain.weight.detach().std(), rtol=0.05)
    assert position.abs().max() <= (8 * 16) ** -0.5 + 1e-6
    own = build_wav2sem(SMOKE, 32).state_dict()["encoder.encoder.layers.0.attention.q_proj.weight"]
    np.testing.assert_allclose(own.std(), 0.02, rtol=0.1)


@pytest.mark.parametrize("shape", [{"size": 1}, {"size": 7}, {"batch_samples": 60.0}, {"size": 2, "at_least": 5}])
@pytest.mark.parametrize("count", [1, 9, 200])
def test_every_utterance_comes_once_an_epoch(shape: dict, count: int) -> None:
    lengths = np.random.default_rng(1).integers(2, 16, count)
    epochs = Epochs(lengths, rng, **shape)
    orders = []
    for epoch in range(3):
        batches = [epochs(epoch * len(epochs) + i) for i in range(len(epochs))]
        orders.append([index for batch in batches for index in batch])
        assert sorted(orders[-1]) == list(range(count))
        assert min(map(len, batches)) >= min(count, shape.get("at_least", 1))
    assert count < 200 or orders[0] != orders[1] != orders[2]
    again = Epochs(lengths, rng, **shape)
    assert again(2 * len(epochs)) == epochs(2 * len(epochs)), "a resumed run draws the same"


def test_buckets_hold_similar_lengths_within_their_limit() -> None:
    lengths = np.random.default_rng(1).integers(32_000, 256_000, 3000)
    limit = 100 * 16_000
    epochs = Epochs(lengths, rng, batch_samples=limit)
    batches = [lengths[epochs(step)] for step in range(len(epochs))]
    padded_samples = np.array([len(batch) * batch.max() for batch in batches])
    assert padded_samples.max() < 1.1 * limit, "memory is bounded"
    assert lengths.sum() / padded_samples.sum() > 0.93, "little padding"
    companies = [set(map(frozenset, (epochs(e * len(epochs) + i) for i in range(len(epochs))))) for e in range(2)]
    assert len(companies[0] & companies[1]) < 0.05 * len(epochs), "another company every epoch"


def test_planning_is_quick_for_the_whole_of_librispeech() -> None:
    lengths = np.random.default_rng(0).integers(20_000, 270_000, 281_241)
    epochs = Epochs(lengths, rng, batch_samples=1_600_000)
    assert sum(epochs.sizes) == 281_241 and len(epochs(len(epochs))) in epochs.sizes


def test_only_this_process_reads_ahead() -> None:
    read = []

    def load(step: int, place: int, index: int) -> np.ndarray:
        read.append((step, place, index))
        return np.full(3, index, np.float32)

    with Loader(lambda step: [10 * step, 10 * step + 1, 10 * step + 2], load, 4, process=1, n_processes=2) as loader:
        assert [item.samples()[0] for item in loader(0)][1] == 1
        assert [float(item.samples()[0]) for item in loader(1)] == [10, 11, 12], "others can be asked for"
    assert {(step, place) for step, place, _ in read} <= {(s, 1) for s in range(4)} | {(0, 0), (0, 2), (1, 0), (1, 2)}


def test_a_damaged_recording_stops_with_its_name() -> None:
    def load(step: int, place: int, index: int) -> np.ndarray:
        raise ValueError("84-121123-0007.flac: cannot be decoded")

    with Loader(lambda step: [0], load, 1) as loader, pytest.raises(ValueError, match="84-121123-0007"):
        loader(0)[0].samples()


def test_contrastive_term_by_hand_and_shared() -> None:
    torch.manual_seed(0)
    vectors, targets = torch.randn(6, 8), torch.randn(6, 8)
    texts = ["a", "b", "c", "a", "d", "e"]
    unit = torch.nn.functional.normalize
    logits = (unit(vectors, dim=1) @ unit(targets, dim=1).T / 0.07).double()
    logits[0, 3] = logits[3, 0] = -torch.inf  # a repeated sentence is not a wrong answer
    expected = -torch.log_softmax(logits, 1).diagonal().mean()
    np.testing.assert_allclose(contrastive_loss(vectors, targets, range(6), texts), expected, rtol=1e-5)
    parts = [contrastive_loss(vectors[i::2], targets, range(i, 6, 2), texts) for i in range(2)]
    np.testing.assert_allclose(torch.stack(parts).mean(), expected, rtol=1e-5)  # as in one process


def test_equal_lengths_need_no_mask() -> None:
    waveform, lengths = padded([np.ones(3, np.float32), np.ones(5, np.float32)])
    assert waveform.tolist() == [[1, 1, 1, 0, 0], [1] * 5] and lengths.tolist() == [3, 5]
    assert padded([np.ones(3, np.float32)] * 2)[1] is None


def test_same_seed_same_weights(libri: Path, tmp_path: Path) -> None:
    first, again, other = (
        train(replace(SMOKE, seed=seed), libri, tmp_path / name) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_the_files_of_a_run(libri: Path, tmp_path: Path) -> None:
    state = train(replace(SMOKE, steps=52, validate_every=50), libri, tmp_path / "run")
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    config = described["config"]
    rebuilt = Wav2Sem(config["encoder_config"], described["target_dim"])
    rebuilt.load_state_dict(state)
    assert (config["target"], described["target_dim"], described["skipped"]) == ("cls", 384, {})
    assert described["utterances"] == {"train": 10, "valid": 4} and len(described["data_sha256"]) == 64
    report = json.loads((tmp_path / "run" / "valid.json").read_text())["dev-clean"]
    assert report["clips"] == 4 and report["chance"] >= 0.25 and 0 < report["l1_of_constant"] < 1
    logged = {row["step"]: row for row in rows(tmp_path / "run")}
    assert logged[50]["valid_l1"] > 0 and "valid_l1" not in logged[51]


def test_the_loss_falls_when_a_few_utterances_are_learnt_by_heart(libri: Path, tmp_path: Path) -> None:
    config = replace(STILL, steps=60, peak_lr=3e-3, warmup_steps=5)
    train(config, libri, tmp_path / "run")
    losses = [row["loss"] for row in rows(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_published_presets_run_at_toy_size(libri: Path, tmp_path: Path, preset: str) -> None:
    full = getattr(experiments, preset)()
    keys = ("num_attention_heads", "do_stable_layer_norm")
    toy = {"hidden_size": 48, "num_hidden_layers": 1, "intermediate_size": 64}
    config = dict(SMOKE.encoder_config) | {key: full.encoder_config[key] for key in keys} | toy
    state = train(replace(full, encoder_config=config, epochs=2, halve_epochs=1), libri, tmp_path / "run")
    seen = rows(tmp_path / "run")
    assert [row["step"] for row in seen] == [*range(10), 19], "10 utterances, one an update, 2 epochs"
    factors = {"paper": [1.0] * 11, "released": [1.0] * 9 + [0.5, 0.25]}[preset]  # of the rate after the step
    np.testing.assert_allclose([row["lr"] for row in seen], full.peak_lr * np.array(factors), rtol=1e-6)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_more_micro_batches_than_utterances_enlarge_the_batch(libri: Path, tmp_path: Path, capsys) -> None:
    config = replace(SMOKE, batching="shuffled", batch_s=0.0, accumulate=3)
    train(config, libri, tmp_path / "run")
    assert "1 processes x 3 micro-batches need 3 utterances per update" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["global_batch"]["least"] == 3
    with pytest.raises(ValueError, match="10 utterances are too few for 11"):
        train(replace(config, accumulate=11), libri, tmp_path / "other")


def test_micro_batches_change_nothing(libri: Path, tmp_path: Path) -> None:
    whole, cut = (train(replace(STILL, accumulate=n), libri, tmp_path / str(n)) for n in (1, 3))
    for key, value in whole.items():
        np.testing.assert_allclose(cut[key], value, atol=2e-5, err_msg=key)


def test_the_convolutions_of_a_phone_encoder_are_frozen(libri: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    start = Wav2Sem(SMOKE.encoder_config, 384).encoder.state_dict()
    (tmp_path / "hubert").mkdir()
    prefixed = {f"audio_encoder.{key}": value for key, value in start.items()} | {"head.weight": torch.zeros(3)}
    torch.save(prefixed, tmp_path / "hubert" / "encoder.pt")
    state = train(SMOKE, libri, tmp_path / "run", tmp_path / "hubert")
    for key, value in start.items():
        frozen = key.startswith("feature_extractor.") or key == "masked_spec_embed"
        assert torch.equal(state[f"encoder.{key}"], value) == frozen, key
    with pytest.raises(FileNotFoundError, match="--hubert names a finished"):
        take_over(Wav2Sem(SMOKE.encoder_config, 384), tmp_path)


def test_the_bundled_recipe_on_prepared_speech(libri: Path, tmp_path: Path) -> None:
    """Augmented, in bf16, and drawn by step: two runs are equal."""
    recordings = [record for record in LibriSpeech(libri).records if record.split == "train"]
    samples = [np.int16(32767 * LibriSpeech(libri).samples(record)) for record in recordings]
    firsts = np.cumsum([0, *map(len, samples)]).tolist()
    (tmp_path / "speech").mkdir()
    np.save(tmp_path / "speech" / "audio.npy", np.concatenate(samples))
    clips = [
        {"name": r.name, "corpus": "vctk", "speaker": r.speaker, "split": "valid" if i < 3 else "train", "text": r.text}
        | {"first": firsts[i], "n_samples": len(samples[i]), "phones": None}
        for i, r in enumerate(recordings)
    ]
    (tmp_path / "speech" / "clips.json").write_text(json.dumps(clips))
    config = replace(experiments.bundled_smoke(), corpora=("vctk",))
    first, again = (train(config, tmp_path, tmp_path / name) for name in ("a", "b"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    report = json.loads((tmp_path / "a" / "valid.json").read_text())
    assert report["vctk"]["clips"] == 3 and report["vctk"]["l1"] > 0
    plain = train(replace(config, augmentation=None), tmp_path, tmp_path / "plain")
    assert any(not torch.equal(first[key], plain[key]) for key in first)


def test_user_errors_are_one_line(libri: Path, tmp_path: Path, capsys) -> None:
    command = ["pretrain", "smoke", "--device", "cpu", "--out", str(tmp_path / "run"), "--data"]
    (tmp_path / "empty").mkdir()
    assert main([*command, str(tmp_path / "empty")]) == 1
    assert "neither LibriSpeech" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no transcribed training speech of train-other-500"):
        train(replace(SMOKE, corpora=("train-other-500",)), libri, tmp_path / "none")
    with pytest.raises(ValueError, match=r"no transcribed training speech of at most 0.1 s"):
        train(replace(SMOKE, longest_s=0.1), libri, tmp_path / "short")


def test_the_smoke_run_by_the_command_line(libri: Path, tmp_path: Path, capsys) -> None:
    (libri / "train-clean-100" / "notes.md").write_text("mine")
    arguments = ["pretrain", "smoke", "--data", str(libri), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(arguments) == 0
    assert "left out: 1 x stray file" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["skipped"]["stray file"]["count"] == 1
    (libri / "train-clean-100" / "notes.md").unlink()
    assert module.open_speech(libri).records
