# SPDX-License-Identifier: GPL-3.0-or-later
"""`evaluate` on miniature VOCASET, BIWI and custom data with small random models: tables, controls, what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer import miniature_faces  # noqa: E402
from trainer import controls as controls_module  # noqa: E402
from trainer.controls import NONE, TRAINED, controls, derangement, injecting  # noqa: E402
from trainer.evaluate import Predictor, evaluate  # noqa: E402
from trainer.experiments import evaluation, find  # noqa: E402
from trainer.experiments.evaluation import EvaluateVertices  # noqa: E402
from trainer.face_data import open_face_data  # noqa: E402
from trainer.vocaset import VOCASET  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import (  # noqa: E402
    BASIS_KEY,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    Wav2SemConfig,
    save_model,
)
from wav2sem_blender.pipeline.nn.faceformer import FaceFormer  # noqa: E402

TINY = {
    "conv_dim": [8] * 7,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
STYLES = ("first", "second")
WIDTH = 16
BIWI_DECODER = DecoderConfig(dim=16, ffn_dim=16, period=25, fps=25, memory_per_frame=2)


def save_tiny(
    folder: Path, *, semantic: bool = True, n_vertices: int = 5023, styles=STYLES, decoder=None, unit: str = "m"
) -> Path:
    """A model of random weights whose motion is some centimetres."""
    torch.manual_seed(0)
    decoder = decoder or DecoderConfig(dim=16, ffn_dim=16)
    config = ModelConfig(
        name="tiny",
        encoder=EncoderConfig(kind="wav2vec2", config=TINY),
        wav2sem=Wav2SemConfig(config=TINY, target_dim=WIDTH) if semantic else None,
        decoder=decoder,
        channels=("one", "two", "bias"),
        styles=tuple(styles),
        basis_unit=unit,
    )
    model = FaceFormer(config)
    torch.nn.init.normal_(model.decoder.motion_head.weight)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    basis_KV3 = np.random.default_rng(1).normal(0, 0.002, (3, n_vertices, 3)).astype(np.float32)
    save_model(folder, config, tensors | {BASIS_KEY: basis_KV3})
    return folder


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """Three test clips of one unseen subject, and one of training."""
    folder = tmp_path_factory.mktemp("vocaset")
    subjects = (VOCASET.splits[0].subjects[0], VOCASET.splits[2].subjects[0])
    miniature_faces.write_vocaset(folder, layout="exported", subjects=subjects, sentences=(21, 22, 23))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def results(vocaset, model, tmp_path_factory):
    """One evaluation with all controls, and its folder; texts have random vectors of the model's width."""
    out = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls_module, "_text_vectors", random_text_vectors)
        return evaluate(EvaluateVertices(kind="vocaset"), vocaset, out, str(model), "cpu"), out


def random_text_vectors(texts, *_arguments, **_options) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((len(texts), WIDTH)).astype(np.float32)


def row(results, name: str):
    return next(r for r in results["rows"] if r["semantics"] == name)


def test_every_control_is_a_row_with_its_own_figures(results) -> None:
    rows = results[0]["rows"]
    assert [r["semantics"] for r in rows] == [
        "trained", "none", "constant", "shuffled", "bert_c", "bert_m", "still",
    ]  # fmt: skip
    assert not any(r["unavailable"] for r in rows)
    assert all(r["lve_frames"] > 0 and r["mve_frames"] > 0 for r in rows)
    assert len({r["lve_frames"] for r in rows}) >= 6, "the vectors must reach the motion"
    assert row(results[0], "bert_c")["lve_frames"] == row(results[0], "bert_m")["lve_frames"]  # one random source


def test_unseen_subjects_are_predicted_under_all_styles(results) -> None:
    data = results[0]["data"]
    assert (data["clips"], data["subjects"], data["sequences"]) == (3, 1, 3 * len(STYLES))
    assert list(results[0]["per_style"]) == list(STYLES)
    lines = [json.loads(line) for line in (results[1] / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 6 * 3 * len(STYLES)
    own = [line for line in lines if line["semantics"] == TRAINED]
    assert row(results[0], TRAINED)["lve_sequences"] == pytest.approx(np.mean([line["lve"] for line in own]))


def test_a_known_subject_has_its_own_style(vocaset, tmp_path) -> None:
    known = VOCASET.splits[0].subjects[0]
    tiny = save_tiny(tmp_path / "tiny", styles=("someone", known), semantic=False)
    out = tmp_path / "out"
    measured = evaluate(EvaluateVertices(kind="vocaset", split="train"), vocaset, out, str(tiny), "cpu")
    assert measured["data"]["styles"] == [known] and measured["data"]["sequences"] == measured["data"]["clips"] == 3
    asked = EvaluateVertices(kind="vocaset", split="train", styles=("someone",))
    other = evaluate(asked, vocaset, out, str(tiny), "cpu")
    assert other["data"]["styles"] == ["someone"]
    assert row(other, TRAINED)["lve_frames"] != row(measured, TRAINED)["lve_frames"]
    with pytest.raises(ValueError, match="style 'nobody'"):
        evaluate(dataclasses.replace(asked, styles=("nobody",)), vocaset, out, str(tiny), "cpu")


def test_frames_come_from_the_audio_alone(vocaset, model, results) -> None:
    """1 s is 29 frames for the model; the recording has 30."""
    faces = open_face_data("vocaset", vocaset)
    assert len(faces.vertices(faces.clips[0])) == 30
    assert results[0]["data"]["frames"] == 3 * len(STYLES) * 29
    line = json.loads((results[1] / "metrics.jsonl").read_text().splitlines()[0])
    assert line["n_frames"] == 29 and line["predicted_longer_by"] == -1


def test_report_is_a_markdown_table_that_says_what_it_shows(results) -> None:
    text = (results[1] / "results.md").read_text()
    for fact in (
        "our own list (flame_regions.json), lips, 293 vertices",
        "upper face, 1095 vertices",
        "LVE and FDD m², MVE m",
        "test split, 3 clips of 1 subjects, 30 fps",
        "6 of 3 clips, under the styles first, second; 174 frames",
        "LVE, frames pooled | LVE, mean of sequences",
        results[0]["date"],
        results[0]["model"]["weights_sha256"][:12],
        "| FaceFormer | Wav2Sem, CVPR 2025 | 4.1090e-05 |",
        "| FaceFormer + Wav2Sem | Wav2Sem, CVPR 2025 | 3.9891e-05 |",
        "unit is not recoverable",
    ):
        assert fact in text, fact
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1, block
    assert json.loads((results[1] / "results.json").read_text())["rows"] == results[0]["rows"]


def test_a_model_without_wav2sem_has_no_controls(vocaset, tmp_path) -> None:
    tiny = save_tiny(tmp_path / "tiny", semantic=False)
    measured = evaluate(EvaluateVertices(kind="vocaset"), vocaset, tmp_path / "out", str(tiny), "cpu")
    assert [r["semantics"] for r in measured["rows"]] == [TRAINED, "still"]
    assert measured["rows"][0]["label"] == "the model (no Wav2Sem)"


def test_a_perfect_prediction_has_errors_of_exactly_zero(vocaset, model, tmp_path, monkeypatch) -> None:
    faces = open_face_data("vocaset", vocaset)
    predictor = Predictor(SpeechAnimator.load(model), (STYLES[0],), tmp_path / "predictions")

    def predicted(clip):
        motion = predictor.animator.animate(faces.samples(clip), 16_000, STYLES[0])
        return faces.template(clip.subject) + motion.vertex_offsets()

    monkeypatch.setattr(type(faces), "vertices", lambda _faces, clip: predicted(clip))
    config = EvaluateVertices(kind="vocaset", styles=(STYLES[0],), controls=False)
    own = row(evaluate(config, vocaset, tmp_path / "out", str(model), "cpu"), TRAINED)
    assert {key: own[key] for key in own if key.startswith(("lve", "mve", "fdd"))} == dict.fromkeys(
        ("lve_frames", "lve_sequences", "mve_frames", "mve_sequences", "fdd", "fdd_abs"), 0.0
    )


def test_an_interrupted_evaluation_goes_on(vocaset, model, results, monkeypatch, capsys) -> None:
    calls = []
    animate = SpeechAnimator.animate
    monkeypatch.setattr(SpeechAnimator, "animate", lambda self, *a, **k: calls.append(a) or animate(self, *a, **k))
    monkeypatch.setattr(controls_module, "_text_vectors", random_text_vectors)
    (results[1] / "predictions" / "none" / f"{VOCASET.splits[2].subjects[0]}_sentence22.npz").unlink()
    again = evaluate(EvaluateVertices(kind="vocaset"), vocaset, results[1], str(model), "cpu")
    assert len(calls) == len(STYLES) and again["rows"] == results[0]["rows"]


def test_predictions_of_another_model_are_not_taken(vocaset, model, tmp_path) -> None:
    config = EvaluateVertices(kind="vocaset", controls=False, max_clips=1)
    first = evaluate(config, vocaset, tmp_path / "out", str(model), "cpu")
    plain = save_tiny(tmp_path / "plain", semantic=False)
    second = evaluate(config, vocaset, tmp_path / "out", str(plain), "cpu")
    assert row(first, TRAINED)["lve_frames"] != row(second, TRAINED)["lve_frames"]


def test_derangements_leave_nothing_in_place() -> None:
    for count in range(2, 30):
        order = derangement(count, seed=count)
        assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
    assert derangement(20, 0).tolist() == derangement(20, 0).tolist() != derangement(20, 1).tolist()
    with pytest.raises(ValueError, match="at least two"):
        derangement(1, 0)


def test_constant_is_one_vector_and_shuffled_are_others() -> None:
    heard = {f"clip{i}": np.full(3, float(i), np.float32) for i in range(4)}
    rows = {r.name: r for r in controls(heard, dict.fromkeys(heard), "", seed=0)}
    constant, shuffled = rows["constant"].vectors, rows["shuffled"].vectors
    assert constant is not None and shuffled is not None
    assert {tuple(vector) for vector in constant.values()} == {(1.5, 1.5, 1.5)}
    assert all((shuffled[name] != heard[name]).all() for name in heard)
    assert sorted(v[0] for v in shuffled.values()) == [0, 1, 2, 3]
    assert rows[NONE].strength == 0


def test_missing_texts_and_widths_are_said_in_the_row(vocaset, model, tmp_path, monkeypatch) -> None:
    heard = {"a": np.zeros(WIDTH, np.float32), "b": np.ones(WIDTH, np.float32)}
    untold = controls(heard, {"a": "hello", "b": None}, "", seed=0)
    assert [r.unavailable for r in untold if r.name == "bert_c"] == [
        "1 of 2 clips have no text; add sentences.tsv beside the data"
    ]
    assert [r.unavailable for r in controls({"a": heard["a"]}, {"a": None}, "", 0) if r.name == "shuffled"] == [
        "there is one clip only"
    ]
    monkeypatch.setattr(controls_module, "_text_vectors", lambda texts, *_a, **_k: np.zeros((len(texts), 7)))
    evaluate(EvaluateVertices(kind="vocaset", max_clips=2), vocaset, tmp_path, str(model), "cpu")
    text = (tmp_path / "results.md").read_text()
    assert f"not measured: text vectors have 7 dimensions, this model's sentence space {WIDTH}" in text


def test_a_text_model_that_is_not_there_is_said_in_the_row(tmp_path) -> None:
    heard = {"a": np.zeros(WIDTH, np.float32), "b": np.ones(WIDTH, np.float32)}
    rows = controls(heard, {"a": "hello", "b": "you"}, str(tmp_path / "nowhere"), seed=0)
    assert all("nowhere" in r.unavailable for r in rows if r.name.startswith("bert"))


def test_an_injected_vector_is_what_the_strength_scales(model) -> None:
    animator, engine = injecting(SpeechAnimator.load(model))
    speech = np.random.default_rng(0).standard_normal(16_000)
    engine.start(None)
    own = animator.animate(speech, 16_000).weights_TK
    (vector_E,) = engine.heard
    engine.start(2 * vector_E)
    np.testing.assert_allclose(animator.animate(speech, 16_000, semantic_strength=0.5).weights_TK, own, atol=1e-6)
    engine.start(np.zeros_like(vector_E))
    off = animator.animate(speech, 16_000).weights_TK
    engine.start(None)
    np.testing.assert_array_equal(animator.animate(speech, 16_000, semantic_strength=0).weights_TK, off)
    assert np.abs(off - own).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_vertices": 100}, r"vertices: 100 against 5023"),
        ({"decoder": BIWI_DECODER}, r"frames per second: 25 against 30"),
        ({"unit": "sqrt_area"}, r"unit: sqrt_area against m"),
    ],
)
def test_a_model_of_other_data_is_refused(vocaset, tmp_path, options, message) -> None:
    tiny = save_tiny(tmp_path / "tiny", **options)
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateVertices(kind="vocaset"), vocaset, tmp_path / "out", str(tiny), "cpu")


def test_a_split_that_is_not_there_is_refused(vocaset, model, tmp_path) -> None:
    with pytest.raises(ValueError, match="no clip of the valid split is on disk; there are clips of: test, train"):
        evaluate(EvaluateVertices(kind="vocaset", split="valid"), vocaset, tmp_path, str(model), "cpu")


def test_experiments_are_the_published_splits() -> None:
    names = [function.__name__ for function in evaluation.EXPERIMENTS]
    assert names == ["vocaset", "biwi_a", "biwi_b", "custom", "bundled", "smoke"]
    found = {name: find("evaluate", name) for name in names}
    assert (found["biwi_a"].split, found["biwi_b"].split) == ("test", "test_b")
    assert (found["vocaset"].kind, found["vocaset"].split, found["vocaset"].styles) == ("vocaset", "test", ())
