# SPDX-License-Identifier: GPL-3.0-or-later
"""`evaluate table1` on miniature VOCASET, BIWI and LibriSpeech with small random models of some of the rows."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from tests.trainer import miniature_faces  # noqa: E402
from tests.trainer.test_evaluate import BIWI_HOST, save_tiny  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.analysis import table1 as table1_module  # noqa: E402
from trainer.analysis.table1 import compare_hosts  # noqa: E402
from trainer.datasets.biwi import BIWI  # noqa: E402
from trainer.datasets.vocaset import VOCASET  # noqa: E402
from trainer.evaluation import controls as controls_module  # noqa: E402
from trainer.evaluation.host_rows import NOT_GIVEN, PAPER_HOSTS, find_models, verdict  # noqa: E402
from trainer.experiments.evaluation import table1, table1_smoke  # noqa: E402
from trainer.loops.ablation import HEADS  # noqa: E402

WIDTH = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """VOCASET's test subject with three sentences, BIWI's Test-A with two, and LibriSpeech."""
    folder = tmp_path_factory.mktemp("data")
    subjects = (VOCASET.splits[2].subjects[0],)
    miniature_faces.write_vocaset(folder / "VOCASET", layout="exported", subjects=subjects, sentences=(21, 22, 23))
    miniature_faces.write_biwi(folder / "biwi", layout="exported", subjects=("F3",), sentences=(37, 38))
    (folder / "biwi" / "regions").mkdir()
    for name, rows in (("lve.txt", range(75, 115)), ("fdd.txt", range(20))):
        indices = [str(miniature_faces.BIWI_GRID[1] * row + column) for row in rows for column in (60, 61, 62)]
        (folder / "biwi" / "regions" / name).write_text(", ".join(indices))
    (folder / "LibriSpeech").mkdir()
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """FaceFormer on VOCASET with and without Wav2Sem, and without on BIWI; a run; an ablation; a stray folder."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny(folder / "faceformer-vocaset", semantic=False)
    save_tiny(folder / "faceformer-wav2sem-vocaset" / "model")
    biwi = {"n_vertices": BIWI.n_vertices, "styles": BIWI.splits[0].subjects, "host": BIWI_HOST, "unit": "sqrt_area"}
    save_tiny(folder / "faceformer-biwi", semantic=False, **biwi)
    (folder / "faceformer-large-vocaset").mkdir()
    (folder / "ablation").mkdir()
    seeds = [dict.fromkeys(HEADS, 0.5), dict.fromkeys(HEADS, 0.7)]
    (folder / "ablation" / "results.json").write_text(json.dumps({"wav2sem": seeds, "constant": seeds[:1]}))
    return folder


def random_text_vectors(texts, *_arguments, **_options) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((len(texts), WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def made(data, models, tmp_path_factory):
    """All rows, and the folder of the reports."""
    out = tmp_path_factory.mktemp("out") / "table1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls_module, "_text_vectors", random_text_vectors)
        patch.setattr(table1_module, "near_homophone_blocks", heard_words)
        return compare_hosts(table1_smoke(), data, out, models, "cpu"), out


def heard_words(config, data, _out, given, _device, _shown):
    """What was asked for, in the place of the distances: random models and miniature speech have no words."""
    assert config == table1_smoke().words
    asked = f"{', '.join(given.models)} in {data.name}"
    return [asked], [{"asked": asked}]


def row(rows, name: str):
    return next(each for each in rows if each.name == name)


def test_every_host_has_four_rows_and_missing_models_are_named(made) -> None:
    rows, out = made
    assert [each.name for each in rows] == [
        f"{host}{wav2sem}-{kind}"
        for kind in ("vocaset", "biwi")
        for host in PAPER_HOSTS
        for wav2sem in ("", "-wav2sem")
    ]
    measured = [each.name for each in rows if each.results]
    assert measured == ["faceformer-vocaset", "faceformer-wav2sem-vocaset", "faceformer-biwi"]
    assert {each.unavailable for each in rows if not each.results} == {NOT_GIVEN}
    lines = (out / "results.md").read_text().splitlines()
    assert sum(f"| {NOT_GIVEN} |" in line for line in lines) == 21
    for label in ("VOCA", "VOCA + Wav2Sem", "LG-LDM", "LG-LDM + Wav2Sem"):
        assert sum(line.startswith(f"| {label} | {NOT_GIVEN} |") for line in lines) == 2


def test_published_figures_stand_beside_their_rows_and_unknown_ones_are_said_to_be(made) -> None:
    lines = (made[1] / "results.md").read_text().splitlines()
    (faceformer,) = [line for line in lines if "| 3.9891e-05 |" in line]
    assert faceformer.startswith("| FaceFormer + Wav2Sem | ")
    assert f"{row(made[0], 'faceformer-wav2sem-vocaset').figures()['lve_frames']:.4e}" in faceformer
    (codetalker,) = [line for line in lines if "CodeTalker, CVPR 2023" in line]
    assert f"| CodeTalker | {NOT_GIVEN} |" in codetalker and "| 4.7914e-04 |  | 4.1170e-05 |" in codetalker
    (voca, voca_biwi) = [line for line in lines if line.startswith("| VOCA |")]
    assert voca == voca_biwi and voca.endswith("|  |  |  | no figure known here |")
    other_unitalker = next(line for line in lines if "UniTalker's own" in line)
    assert other_unitalker.startswith("|  |  |") and "8.1400e-06" in other_unitalker


def test_the_controls_and_the_verdict_are_the_evaluations(made) -> None:
    rows, out = made
    own = row(rows, "faceformer-wav2sem-vocaset")
    (line,) = [s for s in (out / "results.md").read_text().splitlines() if s.startswith("| vocaset: FaceFormer +")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    lve = {name: own.figures(name)["lve_frames"] for name in ("trained", "none", "constant", "shuffled", "bert_c")}
    plain = row(rows, "faceformer-vocaset").figures()["lve_frames"]
    assert cells[1:6] == [f"{value:.4e}" for value in (plain, *list(lve.values())[:4])]
    wins = all(lve["trained"] < other for other in (plain, lve["constant"], lve["shuffled"]))
    assert cells[-1].startswith("not shown: p = " if wins else "no"), "two clips show nothing"
    sequences = [json.loads(s) for s in (out / "evaluations" / own.name / "metrics.jsonl").read_text().splitlines()]
    clips = sorted({s["clip"] for s in sequences})
    mean = {
        (name, clip): np.mean([s["lve"] for s in sequences if (s["semantics"], s["clip"]) == (name, clip)])
        for name in ("trained", "constant", "shuffled")
        for clip in clips
    }
    for cell, rival in zip(cells[-3:-1], ("constant", "shuffled"), strict=True):
        assert cell == f"{sum(mean['trained', clip] < mean[rival, clip] for clip in clips)} of 2"


def test_meaning_helps_only_beyond_chance_and_all_rivals() -> None:
    many, few = [(9, 10), (10, 10)], [(7, 10), (10, 10)]
    assert verdict(1.0, [2.0, 2.0, 2.0], many) == "yes"
    assert verdict(1.0, [2.0, 2.0, 2.0], few) == "not shown: p = 0.17"
    assert verdict(1.0, [0.5, 2.0, 2.0], many) == verdict(1.0, [None, 1.0, 2.0], many) == "no"
    assert verdict(1.0, [None, 2.0, 2.0], many).startswith("not known")


def test_the_ablation_and_the_near_homophones_are_there(made) -> None:
    text = (made[1] / "results.md").read_text()
    assert "| wav2sem | 2 | 0.600 ± 0.100 |" in text and "| constant | 1 | 0.500 ± 0.000 |" in text
    assert "## Near-homophones\n\nfaceformer-wav2sem-vocaset in LibriSpeech\n" in text
    assert "faceformer-large-vocaset in --models is no row's name" in text


def test_json_has_every_row_with_all_that_was_measured(made) -> None:
    rows, out = made
    results = json.loads((out / "results.json").read_text())
    assert [each["name"] for each in results["rows"]] == [each.name for each in rows]
    own = next(each for each in results["rows"] if each["name"] == "faceformer-wav2sem-vocaset")
    assert own["results"]["rows"] == row(rows, own["name"]).results["rows"] and own["published"][0]["lve"] == 3.9891e-5
    assert results["unused"] == ["faceformer-large-vocaset"]
    assert results["config"]["sets"][0]["max_clips"] == 2


class Page(HTMLParser):
    """What a page refers to, and the number of cells in each row of each table."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tables: list[list[int]] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.references += [value for key, value in attrs if key in ("src", "href")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += 1


def test_the_page_is_whole_and_refers_to_nothing_outside(made) -> None:
    page = Page()
    page.feed((made[1] / "report.html").read_text())
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert sum(reference.startswith("data:") for reference in page.references) == 2
    assert len(page.tables) >= 5 and all(len(set(cells)) == 1 for cells in page.tables)
    assert [len(cells) for cells in page.tables[:2]] == [12 + 1 + 1 + 3, 12 + 1 + 3]  # UniTalker is published twice


def test_what_cannot_be_measured_is_the_rows_reason(data, models, tmp_path) -> None:
    some = tmp_path / "models"
    shutil.copytree(models / "faceformer-vocaset", some / "faceformer-vocaset")
    save_tiny(some / "faceformer-wav2sem-vocaset", n_vertices=100)
    shutil.copytree(models / "faceformer-biwi", some / "faceformer-biwi")
    only = tmp_path / "data"
    shutil.copytree(data / "VOCASET", only / "VOCASET")
    rows = compare_hosts(table1_smoke(), only, tmp_path / "out", some, "cpu")
    assert "(vertices: 100 against 5023)" in row(rows, "faceformer-wav2sem-vocaset").unavailable
    assert row(rows, "faceformer-biwi").unavailable == "no BIWI in --data"
    assert row(rows, "faceformer-vocaset").results is not None
    text = (tmp_path / "out" / "results.md").read_text()
    assert "Left out: there is no LibriSpeech in --data." in text and "No model was measured on BIWI." in text
    assert "Left out: no model with a Wav2Sem was measured." in text


def test_a_model_that_is_not_what_its_name_says_stops_before_anything_is_measured(data, tmp_path) -> None:
    save_tiny(tmp_path / "a" / "faceformer-wav2sem-vocaset", semantic=False)
    with pytest.raises(ValueError, match=r"Wav2Sem: without instead of with"):
        compare_hosts(table1_smoke(), data, tmp_path / "out", tmp_path / "a", "cpu")
    save_tiny(tmp_path / "b" / "unitalker-vocaset", semantic=False)
    with pytest.raises(ValueError, match=r"host: faceformer instead of unitalker"):
        compare_hosts(table1_smoke(), data, tmp_path / "out", tmp_path / "b", "cpu")
    assert not (tmp_path / "out").exists()


def test_models_may_be_a_list(models, tmp_path) -> None:
    listed = tmp_path / "models.tsv"
    listed.write_text(f"faceformer-vocaset\t{models / 'faceformer-vocaset'}\n\nimitator-wav2sem-vocaset\there\n")
    found, unused = find_models(listed, ("vocaset", "biwi"))
    assert found == {
        ("vocaset", "faceformer", False): models / "faceformer-vocaset",
        ("vocaset", "imitator", True): tmp_path / "here",
    }
    assert unused == []
    listed.write_text("voca-biwi\there\nvoca-biwi\tthere\n")
    with pytest.raises(ValueError, match="a name is there twice"):
        find_models(listed, ("vocaset", "biwi"))
    listed.write_text("facefromer-vocaset\tsomewhere\n")
    with pytest.raises(ValueError, match="facefromer-vocaset: is no row of the table"):
        find_models(listed, ("vocaset", "biwi"))


def test_folders_that_hold_nothing_are_refused(data, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="check --models"):
        find_models(tmp_path / "nowhere", ("vocaset",))
    with pytest.raises(ValueError, match="holds no row of the table; a model is named HOST-SET"):
        find_models(tmp_path, ("vocaset",))
    with pytest.raises(FileNotFoundError, match="has no folder VOCASET or BIWI"):
        compare_hosts(table1(), tmp_path, tmp_path / "out", tmp_path, "cpu")
    with pytest.raises(ValueError, match="is a file; --data is the folder"):
        compare_hosts(table1(), Path(__file__), tmp_path / "out", tmp_path, "cpu")


def test_the_command_line(data, models, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(controls_module, "_text_vectors", random_text_vectors)
    only = tmp_path / "data"
    shutil.copytree(data / "VOCASET", only / "vocaset")
    command = ["evaluate", "table1_smoke", "--data", str(only), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--models", str(models)]) == 0
    assert "# Table 1: hosts without and with Wav2Sem" in capsys.readouterr().out
    assert main([*command, "--models", str(models)]) == 1 and "--resume" in capsys.readouterr().err
    assert main([*command, "--model", str(models), "--resume"]) == 0
