# SPDX-License-Identifier: GPL-3.0-or-later
"""`evaluate bundled` with the bundled model, on a few seconds of the demo in the layout of prepared data."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

torch = pytest.importorskip("torch")

from trainer.evaluation.channel_tables import channels_markdown  # noqa: E402
from trainer.evaluation.conditions import CLEAN, CONDITIONS  # noqa: E402
from trainer.evaluation.evaluate_channels import POOLED, MouthModel, evaluate_channels, judge_languages  # noqa: E402
from trainer.evaluation.lipsync import correlations, judge, pool_closures  # noqa: E402
from trainer.evaluation.mouth_shape import at_film_rate  # noqa: E402
from trainer.experiments.evaluation import EvaluateChannels, bundled, bundled_test  # noqa: E402
from trainer.motion.curves import write_motion, write_tracked  # noqa: E402
from trainer.motion.landmarks import LipGap, LipPoints  # noqa: E402
from trainer.motion.shapes import read_basis  # noqa: E402
from trainer.speech.prepared import SpeechRecord  # noqa: E402
from wav2sem_blender.assets import ASSETS  # noqa: E402
from wav2sem_blender.errors import MissingFileError  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402

LENGTH = 2 * 16_000
CLIPS = (("filmed", "grid_s1", "grid_s1"), ("read", "vctk", "vctk/a"), ("told", "librispeech_251", "librispeech/b"))
PHONES = [("SIL", 0.0, 0.3), ("M", 0.3, 0.4), ("AA", 0.4, 0.9), ("T", 0.9, 1.0), ("B", 1.2, 1.3), ("SIL", 1.7, 2.0)]
TAUGHT = [f"taught{i}" for i in range(8)]  # films of the lip reader
NO_VOICES = replace(bundled(), languages=False)


@pytest.fixture(scope="module")
def animator() -> SpeechAnimator:
    return SpeechAnimator.load("default", device="cpu")


@pytest.fixture(scope="module")
def work(animator, tmp_path_factory) -> Path:
    """Three clips of two seconds: one with a face, two without; all have phones, and the last is in the test split."""
    work = tmp_path_factory.mktemp("work")
    (work / "speech").mkdir()
    demo_S, _ = sf.read(ASSETS / "demo_speech.flac", dtype="int16")
    np.save(work / "speech" / "audio.npy", demo_S[: 4 * LENGTH])
    records = [
        SpeechRecord(
            name=name, corpus=corpus, speaker=speaker, split="valid", text=None, first=i * LENGTH, n_samples=LENGTH,
            phones=PHONES,
        )
        for i, (name, corpus, speaker) in enumerate(CLIPS)
    ]  # fmt: skip
    records.append(replace(records[-1], name="unheard", split="test", first=3 * LENGTH))
    records += [replace(records[0], name=name, split="train") for name in TAUGHT]
    (work / "speech" / "clips.json").write_text(json.dumps([asdict(record) for record in records]))
    channels = animator.folder.config.channels
    np.savez(work / "basis.npz", names=np.array(channels), basis_KV3=animator.folder.basis())
    own_TK = animator.animate(demo_S[:LENGTH].astype(np.float32) / 32768, 16_000).weights_TK
    write_motion(work / "motion", channels, [("filmed", "grid_s1", "valid", own_TK)])
    rng = np.random.default_rng(0)
    gap_T = rng.random(50)
    mesh = LipPoints(rest_P2=rng.normal(0, 20, (16, 2)), basis_KP2=rng.normal(0, 5, (len(channels), 16, 2)))
    points = {"filmed": at_film_rate(mesh.moved(own_TK), 30.0, 50)}
    points |= {name: rng.normal(0, 20, (50, 16, 2)) for name in TAUGHT}
    films = {
        name: LipGap(gap_T=gap_T, found_T=np.ones(50, bool), fps=25.0, points_TP2=points_TP2)
        for name, points_TP2 in points.items()
    }
    write_tracked(work / "motion", films, mesh)
    return work


@pytest.fixture(scope="module")
def results(work, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    return evaluate_channels(NO_VOICES, work, out, "default", "cpu"), out


def test_scores_are_those_of_the_written_apertures(results, work) -> None:
    measured, out = results
    with np.load(out / "apertures" / "grid_s1" / "filmed.npz") as file:
        aperture_T, fps = file["aperture"], float(file["fps"])
    gap_T = np.random.default_rng(0).random(50)
    expected = correlations(aperture_T, fps, LipGap(gap_T=gap_T, found_T=np.ones(50, bool), fps=25.0))
    grid = measured["lip_sync"]["grid_s1"]
    assert grid["correlation"]["r_by_lag"] == pytest.approx(expected)
    assert grid["closures"] == asdict(pool_closures([judge(aperture_T, fps, PHONES, 2.0)]))
    assert "correlation" not in measured["lip_sync"]["vctk"]


def test_unseen_voices_are_pooled_and_the_filmed_speaker_is_none(results) -> None:
    lip_sync = results[0]["lip_sync"]
    assert list(lip_sync) == ["grid_s1", "vctk", "librispeech_251", POOLED]
    assert (lip_sync[POOLED]["closures"]["clips"], lip_sync[POOLED]["closures"]["bilabials"]) == (2, 4)


def test_every_condition_is_heard_and_changes_the_scores(results) -> None:
    conditions = results[0]["conditions"]
    assert tuple(conditions) == CONDITIONS and conditions[CLEAN] == results[0]["lip_sync"]
    heard = {name: corpora["grid_s1"]["correlation"]["r"] for name, corpora in conditions.items()}
    assert len(set(heard.values())) == len(CONDITIONS)


def test_the_models_own_motion_has_no_error(results) -> None:
    (row,) = results[0]["motion"].values()
    assert row["clips"] == 1 and row["mve_mm"] == 0 < row["rest_mve_mm"] and row["aperture_r"] == pytest.approx(1)


def test_the_models_own_motion_has_its_own_shape(results) -> None:
    """The film in the fixture is what the model itself moves, and the reader learnt from another."""
    measured, out = results
    (row,) = measured["shapes"].values()
    assert row["clips"] == 1 and row["width_r"] == pytest.approx(1) and row["width_sd_ratio"] == pytest.approx(1)
    assert row["legibility"] == row["legibility_film"] and row["means"]["pbm"] == pytest.approx(
        row["means_film"]["pbm"], abs=1e-4
    )
    text = (out / "results.md").read_text()
    assert "| grid_s1 | 1 | 1.000 | 1.000 |" in text and "pbm: p b m" in text


def test_report_has_the_model_cards_tables(results, capsys) -> None:
    measured, out = results
    text = (out / "results.md").read_text()
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(measured))
    assert text == channels_markdown(measured)
    r = measured["lip_sync"]["grid_s1"]["correlation"]["r"]
    assert f"| grid_s1 | 1 | {r:.3f} |" in text and "valid split" in text
    noisy = measured["conditions"]["noise"]["grid_s1"]["correlation"]["r"]
    assert f"| noise | {noisy:.3f} ({100 * (noisy / r - 1):+.0f} %) |" in text
    assert "Not asked for." in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 6
    for block in tables:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_test_split_and_chosen_conditions(work, tmp_path) -> None:
    config = replace(bundled_test(), languages=False, conditions=("telephone",))
    measured = evaluate_channels(config, work, tmp_path, "default", "cpu")
    assert list(measured["lip_sync"]) == ["librispeech_251", POOLED] and measured["split"] == "test"
    assert list(measured["conditions"]) == [CLEAN, "telephone"] and measured["motion"] == {}
    assert "Against held-out motion" not in (tmp_path / "results.md").read_text()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EvaluateChannels(split="spare"), "no recording of the spare split, only of: test, train, valid"),
        (EvaluateChannels(conditions=("rain",)), "condition 'rain': choose from clean, babble"),
    ],
)
def test_missing_data_are_named(work, tmp_path, config, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_channels(config, work, tmp_path, "default", "cpu")


def test_motion_prepared_before_lips_were_kept_is_refused(work, tmp_path) -> None:
    for name in ("speech", "basis.npz"):
        (tmp_path / name).symlink_to(work / name)
    (tmp_path / "motion").mkdir()
    for name in ("weights.npy", "clips.json"):
        (tmp_path / "motion" / name).symlink_to(work / "motion" / name)
    with pytest.raises(FileNotFoundError, match="no tracked lips; run `python -m trainer prepare motion` again"):
        evaluate_channels(NO_VOICES, tmp_path, tmp_path / "out", "default", "cpu")


def test_languages_are_scored_separately(animator, work) -> None:
    demo_S = np.load(work / "speech" / "audio.npy")
    spoken = [("de", "eins", demo_S[:LENGTH], PHONES), ("fr", "un", demo_S[LENGTH : 2 * LENGTH], PHONES)]
    spoken.append(("de", "zwei", demo_S[LENGTH : 2 * LENGTH], PHONES))
    _, gap_K = read_basis(work / "basis.npz", animator.folder.config.channels)
    mouth = MouthModel(animator=animator, gap_K=gap_K, semantic_strength=1.0)
    found = judge_languages(mouth, spoken)
    assert {name: scores["closures"]["bilabials"] for name, scores in found.items()} == {"de": 4, "fr": 2}


def test_the_report_says_why_languages_were_not_measured(work, tmp_path, monkeypatch) -> None:
    def missing():
        raise MissingFileError("espeak-ng is not installed (Debian: `apt install espeak-ng`)")

    monkeypatch.setattr("trainer.speech.espeak.speak_languages", missing)
    measured = evaluate_channels(replace(bundled_test(), conditions=()), work, tmp_path, "default", "cpu")
    assert measured["languages"] == {}
    text = (tmp_path / "results.md").read_text()
    assert "Not measured: espeak-ng is not installed (Debian: `apt install espeak-ng`)." in text
    assert "harder conditions" not in text
