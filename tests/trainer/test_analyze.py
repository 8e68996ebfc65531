# SPDX-License-Identifier: GPL-3.0-or-later
"""The `analyze` verb: pictures, the report, and its notes on what is missing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
Image = pytest.importorskip("PIL.Image")

from tests.trainer.miniature_faces import write_vocaset  # noqa: E402
from tests.trainer.miniature_librispeech import write_librispeech  # noqa: E402
from trainer.analysis.analyze import analyze  # noqa: E402
from trainer.analysis.encoders_under_test import Given, TestedEncoder, open_encoders, recognise, word_vectors  # noqa: E402
from trainer.analysis.ground_truth import AlignedUtterance, read_utterances, write_times  # noqa: E402
from trainer.analysis.homophones import Token  # noqa: E402
from trainer.analysis.mouth_strips import SOUNDS, MouthRegion, at_times, columns, phones_at, sounds  # noqa: E402
from trainer.analysis.pictures import (  # noqa: E402
    Mouth,
    Opening,
    ShadedMouth,
    aperture_against_audio,
    error_maps,
    mouths_in_slow_motion,
    near_homophone_map,
    training_curves,
)
from trainer.analysis.report import Literal, Note, Picture, Section, Table, four_digits, write_report  # noqa: E402
from trainer.datasets.corpora import list_clips  # noqa: E402
from trainer.experiments.analysis import Analyze, librispeech, smoke, vocaset  # noqa: E402
from trainer.motion.curves import write_motion  # noqa: E402
from trainer.motion.shapes import flame_opening  # noqa: E402
from trainer.speech.prepared import SpeechRecord  # noqa: E402
from wav2sem_blender.pipeline.checkpoint import Wav2SemConfig, save_wav2sem  # noqa: E402
from wav2sem_blender.pipeline.motion import Motion  # noqa: E402
from wav2sem_blender.pipeline.nn.encoders import build_backbone  # noqa: E402
from wav2sem_blender.pipeline.nn.wav2sem import Wav2Sem  # noqa: E402

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="development data (../shared/data) is not here")
TINY = {
    "conv_dim": [8] * 7,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
SAID = {
    "the ship": [("DH", "AH"), ("SH", "IH", "P")],
    "sheep ship": [("SH", "IY", "P"), ("SH", "IH", "P")],
    "the sheep": [("DH", "AH"), ("SH", "IY", "P")],
    "zoo when": [("Z", "UW"), ("W", "EH", "N")],
    "one zoo": [("W", "AH", "N"), ("Z", "UW")],
    "when one": [("W", "EH", "N"), ("W", "AH", "N")],
}
PHONE_S = 0.1


class Outline(HTMLParser):
    """Collects a file's references, and checks that every element is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def outline(report: Path) -> Outline:
    parser = Outline()
    parser.feed(report.read_text(encoding="utf-8"))
    parser.close()
    return parser


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Prepared speech whose phones all last 0.1 s, each sentence spoken twice, and motion of one clip."""
    root = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    records, sounds, first = [], [], 0
    for take in range(2):
        for text, words in SAID.items():
            phones = [phone for word in words for phone in word]
            timing = [(phone, i * PHONE_S, (i + 1) * PHONE_S) for i, phone in enumerate(phones)]
            sounds.append(rng.integers(-9000, 9000, int(len(phones) * PHONE_S * 16000)).astype(np.int16))
            name = f"{text.replace(' ', '_')}_{take}"
            record = SpeechRecord(
                name=name, corpus="toy", speaker="someone", split="valid", text=text, first=first,
                n_samples=len(sounds[-1]), phones=timing,
            )  # fmt: skip
            records.append(asdict(record))
            first += len(sounds[-1])
    (root / "speech").mkdir()
    np.save(root / "speech" / "audio.npy", np.concatenate(sounds))
    (root / "speech" / "clips.json").write_text(json.dumps(records))
    weights_TK = np.abs(np.sin(np.arange(12)))[:, None].repeat(2, 1)
    write_motion(root / "motion", ("jawOpen", "mouthClose"), [("the_ship_0", "grid_s1", "valid", weights_TK)])
    return root


@pytest.fixture(scope="module")
def tiny() -> Analyze:
    return replace(smoke(), corpora=(), pairs=20, tsne_tokens=3)


def test_one_report_with_everything_in_it(prepared: Path, tiny: Analyze, tmp_path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    (run / "metrics.jsonl").write_text('{"step": 0, "loss": 2.0}\n{"step": 50, "loss": 0.5}\n')
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "results.json").write_text('{"lve": "<4.109e-05>"}')
    out = tmp_path / "out"
    report = analyze(tiny, prepared, out, ["default", str(run), str(evaluation)], "cpu")
    page = outline(report)
    assert report == out / "report.html" and page.open == []
    assert page.references and all(link.startswith(("data:image/png;base64,", "#s")) for link in page.references)
    assert "script" not in page.tags and "link" not in page.tags
    assert page.tags.count("img") == 3, "t-SNE, aperture, curves: the whole face's mesh is not in this data"
    text = report.read_text(encoding="utf-8")
    assert "0.0397" in text and "0.2909" in text and "&lt;4.109e-05&gt;" in text
    assert "No error map: the rest face is not in the data" in text
    assert {path.suffix for path in out.iterdir()} == {".html", ".json", ".png"}
    rows = json.loads((out / "analysis.json").read_text())["homophones"]
    by = {(row["slicing"], row["variant"], row["distance"]): row for row in rows}
    assert len(by) == len(rows) == 2 * 5 * 3
    plain, constant = (by["audio", variant, "mse"] for variant in ("without Wav2Sem", "constant F_s"))
    for kind in ("near-homophones", "random pairs", "same word"):
        assert constant[kind]["mean"] == pytest.approx(plain[kind]["mean"], rel=1e-4)
    assert by["audio", "with Wav2Sem", "mse"]["near-homophones"]["mean"] > plain["near-homophones"]["mean"] > 0
    assert plain["near / random"]["mean"] == pytest.approx(
        plain["near-homophones"]["mean"] / plain["random pairs"]["mean"], rel=0.2
    )


@needs_data
def test_smoke_on_the_development_corpora(tmp_path) -> None:
    analyze(smoke(), SHARED, tmp_path, ["default"], "cpu")
    assert {path.name.partition("_")[0] for path in tmp_path.glob("*.png")} == {"tsne", "aperture", "error", "mouths"}
    facts = json.loads((tmp_path / "analysis.json").read_text())
    assert {row["clip"] for row in facts["lips"]} >= {"1114_3_15"} and all(-1 <= row["r"] <= 1 for row in facts["lips"])
    seen = {(row["sound"].partition(":")[0], row["face"]) for row in facts["mouths"]}
    assert seen == {(kind, face) for kind in SOUNDS for face in ("filmed", "default")}
    shown = {row["clip"] for row in facts["mouths"]}
    assert [clip.split for clip in list_clips(SHARED) if clip.name in shown] == ["valid"]


@needs_data
def test_lips_are_measured_above_rest() -> None:
    """A face that grows by a tenth: its lips and their gap at rest grow by a tenth."""
    with np.load(SHARED / "flame2023_open" / "flame2023_open.npz") as flame:
        grown_KV3 = flame["v_template"][None]
    motion = Motion(weights_TK=np.array([[0], [0], [0.1]]), channels=("size",), fps=30, basis_KV3=grown_KV3)
    mouth = MouthRegion(SHARED).moved("grown", motion, np.array([0.0, 2 / 30]))
    corner, other = mouth.outer_mm_FP2[0, [0, 10]]
    upper, lower = mouth.inner_mm_FP2[0, [5, 15]]
    width_mm, gap_mm = np.linalg.norm(corner - other), np.linalg.norm(upper - lower)
    assert 40 < width_mm < 60 and 0 < gap_mm < 3 and np.abs(upper + lower).max() < 1e-3
    np.testing.assert_allclose(mouth.width_mm_F, [0, width_mm / 10], atol=1e-4)
    np.testing.assert_allclose(mouth.opening_mm_F, [0, gap_mm / 10], atol=1e-4)
    assert mouth.shaded is not None and 0 < mouth.shaded.lip_V.mean() < 0.5


def test_the_longest_sound_away_from_pauses_is_shown() -> None:
    said = [("SIL", 0, 0.2), ("B", 0.2, 0.6), ("UW", 0.6, 0.7), ("P", 0.7, 0.8), ("AE", 0.8, 0.84), ("F", 0.84, 0.9)]
    assert sounds(said) == {"p, b, m": ("P", 0.7, 0.8), "f, v": ("F", 0.84, 0.9), "w, oo": ("UW", 0.6, 0.7)}
    times_F, sounding_F = columns(("P", 0.7, 0.8))
    np.testing.assert_allclose(np.diff(times_F), 1 / 30)
    assert phones_at(said, times_F) == ["UW", "UW", "UW", "P", "P", "P", "AE", "AE", "F"]
    assert sounding_F.tolist() == [phone == "P" for phone in phones_at(said, times_F)]


def test_between_frames_and_beyond_the_ends() -> None:
    track_TX = np.arange(4.0)[:, None] * (1, 10)
    times_F = np.array([-1, 0.02, 0.06, 9])
    np.testing.assert_allclose(at_times(track_TX, 25, times_F), np.array([0, 0.5, 1.5, 3])[:, None] * (1, 10))
    np.testing.assert_array_equal(at_times(track_TX[:1], 25, times_F), np.zeros((4, 2)))


def test_the_nearer_skin_hides_what_is_behind_it(tmp_path) -> None:
    """A lip in front of and behind a sheet of skin, and a lip seen from behind, listed in any order."""
    corners_3 = np.array([[-30, -30], [30, -30], [0, 15]])
    ring_FP2 = np.full((1, 3, 2), np.nan)
    red = []
    for lip_z, lip in ((1, [0, 1, 2]), (-1, [0, 1, 2]), (1, [0, 2, 1])):
        vertices_V3 = np.vstack([np.column_stack([corners_3, np.full(3, z)]) for z in (lip_z, 0.0)])
        shaded = ShadedMouth(
            vertices_mm_FV3=vertices_V3[None],
            triangles_G3=np.array([lip, [3, 4, 5]]),
            lip_V=np.repeat([1.0, 0.0], 3),
            inside_V=np.zeros(6),
        )
        mouth = Mouth(name="m", outer_mm_FP2=ring_FP2, inner_mm_FP2=ring_FP2, chin_mm_FP2=ring_FP2,
                      opening_mm_F=np.zeros(1), width_mm_F=np.zeros(1), shaded=shaded)  # fmt: skip
        path = mouths_in_slow_motion(tmp_path / "m.png", "m", [mouth], ["P"], np.zeros(1), np.zeros(1, bool))
        with Image.open(path) as picture:
            rgb_YX3 = np.asarray(picture.convert("RGB")).astype(int)
        red.append(int(((rgb_YX3[..., 0] - rgb_YX3[..., 1]) > 60).sum()))
    assert red[0] > 1000 and red[1] == red[2] == 0


def test_alignments_are_kept(tmp_path) -> None:
    """LibriSpeech's layout has no phone times; a second analysis reuses those of the first."""
    texts = write_librispeech(tmp_path / "data", subsets=("dev-clean",), speakers=1, utterances=1)
    phones = [("SH", 0.0, 0.1), ("IH", 0.1, 0.2), ("P", 0.2, 0.3)]
    (tmp_path / "out").mkdir()
    write_times(tmp_path / "out" / "alignments.tsv.gz", {name: phones for name in texts})
    found = read_utterances(tmp_path / "data", librispeech(), tmp_path / "out")
    assert [(u.name, u.phones, u.split) for u in found] == [(name, phones, "valid") for name in texts]
    assert found[0].text == texts[found[0].name].lower() and found[0].samples().dtype == np.float32


def test_face_data_gives_error_maps_and_says_what_it_lacks(tmp_path) -> None:
    write_vocaset(tmp_path / "data")
    config = replace(vocaset(), clips=1, longest_s=1.0)
    report = analyze(config, tmp_path / "data", tmp_path / "out", ["default"], "cpu")
    text = report.read_text(encoding="utf-8")
    assert "vertices are dots" in text and "no run folder was given" in text
    assert size(tmp_path / "out" / "error_map.png") == (2 * 560 + 140, 700)


def test_speech_without_words_is_a_sentence_not_a_crash(tmp_path, tiny: Analyze) -> None:
    (tmp_path / "data").mkdir()
    report = analyze(tiny, tmp_path / "data", tmp_path / "out", [], "cpu")
    text = report.read_text(encoding="utf-8")
    assert "Left out, as there is no transcribed speech" in text and "Left out: no clip with known motion" in text


def test_what_cannot_be_analysed_is_named(tmp_path, tiny: Analyze) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; --model"):
        recognise([str(tmp_path / "gone")])
    with pytest.raises(ValueError, match="nothing to analyse"):
        recognise([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="check --data"):
        analyze(tiny, tmp_path / "gone", tmp_path, ["default"], "cpu")
    with pytest.raises(ValueError, match="parts dreams"):
        Analyze(parts=("dreams",))


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_an_encoder_takes_every_wav2sem_of_its_width(tmp_path, kind) -> None:
    build_backbone(kind, TINY).save_pretrained(tmp_path / "encoder")
    for name, width in (("fitting", 16), ("wide", 24)):
        wav2sem = Wav2Sem(TINY, width)
        tensors = {f"wav2sem.{key}": value.numpy() for key, value in wav2sem.state_dict().items()}
        save_wav2sem(tmp_path / name, Wav2SemConfig(config=TINY, target_dim=width), tensors)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"config": {"encoder_config": TINY}}))
    torch.save(Wav2Sem(TINY, 16).state_dict(), run / "wav2sem.pt")
    paths = [str(tmp_path / name) for name in ("encoder", "fitting", "wide", "run")]
    tested_encoders, notes = open_encoders(recognise(paths), "cpu")
    named = [(tested.name, tested.kind) for tested in tested_encoders]
    assert named == [("encoder + fitting", kind), ("encoder + run", kind)]
    assert notes == ["wide is not added to encoder: its F_s is not 16 wide."]
    alone, _ = open_encoders(Given(encoders={"encoder": tmp_path / "encoder"}), "cpu")
    assert alone[0].wav2sem is None and alone[0].note == "no Wav2Sem to add"


def test_slicing_by_hand() -> None:
    """Feature slicing averages the utterance's own frames; audio slicing hears only the word."""
    torch.manual_seed(0)
    encoder, wav2sem = build_backbone("hubert", TINY).eval(), Wav2Sem(TINY, 16).eval()
    tested = TestedEncoder(
        name="tiny", kind="hubert", encoder=encoder, wav2sem=wav2sem, inner=torch.nn.Identity(), note=""
    )
    sound_S = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    utterance = AlignedUtterance(name="u", corpus="c", split="valid", text="", phones=[], samples=lambda: sound_S)
    whole = [Token(word="all", start_s=0.0, end_s=1.0), Token(word="part", start_s=0.25, end_s=0.5)]
    by_slice = {s: word_vectors(tested, [utterance], whole, s, "cpu") for s in ("audio", "features")}
    np.testing.assert_allclose(by_slice["audio"][0][0], by_slice["features"][0][0], atol=1e-6)
    normal = torch.from_numpy((sound_S - sound_S.mean()) / sound_S.std())[None]
    with torch.inference_mode():
        hidden_LD = encoder(normal).last_hidden_state[0].numpy()
    times_L = (np.arange(len(hidden_LD)) * 320 + 200) / 16_000
    expected_D = hidden_LD[(times_L >= 0.25) & (times_L < 0.5)].mean(0)
    np.testing.assert_allclose(by_slice["features"][0][1], expected_D, atol=1e-5)
    semantic_ND = by_slice["features"][1]
    np.testing.assert_array_equal(semantic_ND[0], semantic_ND[1])
    assert np.abs(by_slice["audio"][1][0] - by_slice["audio"][1][1]).max() > 1e-4


def test_an_encoder_that_hears_samples_as_they_are_gets_them_so() -> None:
    torch.manual_seed(0)
    encoder = build_backbone("wavlm", TINY).eval()
    # The encoder's group norm hides the level of a louder recording.
    samples_S = 0.001 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    utterances = [
        AlignedUtterance(name="a", corpus="c", split="test", text="one", phones=[], samples=lambda: samples_S)
    ]
    tokens = [Token(word="one", start_s=0.0, end_s=1.0)]
    features = {}
    for normalised in (True, False):
        tested = TestedEncoder(
            name="x", kind="wavlm", encoder=encoder, wav2sem=None, inner=None, note="", normalised=normalised
        )
        features[normalised], _ = word_vectors(tested, utterances, tokens, "audio", "cpu")
    with torch.inference_mode():
        heard_D = encoder(torch.from_numpy(samples_S)[None]).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(features[False][0], heard_D, atol=1e-5)
    assert np.abs(features[True][0] - features[False][0]).max() > 1e-4


def test_opening_is_the_lips_distance() -> None:
    offsets_TV3 = np.zeros((2, 5023, 3))
    offsets_TV3[1, 3531, 1], offsets_TV3[1, 3504, 1] = 0.001, -0.004
    np.testing.assert_allclose(flame_opening(offsets_TV3), [0, 0.005])


def test_pictures_have_their_size_and_are_not_blank(tmp_path) -> None:
    rng = np.random.default_rng(0)
    words = ["ship", "sheep"] * 6
    panels = {"before": rng.normal(size=(12, 4)), "after": rng.normal(size=(12, 4))}
    tsne = near_homophone_map(tmp_path / "tsne.png", panels, words, [("ship", "sheep")])
    curve = Opening(name="model", opening_mm_T=np.linspace(0, 5, 30), fps=30)
    sound_S = rng.normal(size=16_000)
    lips = aperture_against_audio(tmp_path / "lips.png", "clip", sound_S, [curve], [("P", 0.1, 0.2)])
    rest_V3, faces_F3 = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1.0]]), np.array([[0, 1, 2], [1, 3, 2]])
    errors = error_maps(tmp_path / "errors.png", {"model": np.array([0, 1, 2, 3.0])}, rest_V3, faces_F3, "mm")
    training = training_curves(tmp_path / "training.png", {"run": [{"step": 0, "loss": 2.0}, {"step": 9, "loss": 1.0}]})
    ring_FP2 = rng.normal(size=(9, 20, 2)) * 10
    ring_FP2[0] = np.nan
    zeros = np.where(np.arange(9) == 0, np.nan, 0.0)
    filmed = Mouth(name="filmed", outer_mm_FP2=ring_FP2, inner_mm_FP2=ring_FP2 / 2, chin_mm_FP2=ring_FP2[:, :5],
                   opening_mm_F=zeros, width_mm_F=zeros)  # fmt: skip
    times_F, sounding_F = columns(("P", 0.7, 0.8))
    mouths = mouths_in_slow_motion(tmp_path / "mouths.png", "P", [filmed] * 2, ["P"] * 9, times_F, sounding_F)
    sizes = {tsne: (1200, 620), mouths: (1734, 464), lips: (1320, 620), errors: (700, 700), training: (440, 390)}
    for path, expected in sizes.items():
        assert size(path) == expected
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_the_report_escapes_and_embeds(tmp_path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "dot.png")
    table = Table(caption="a & b", header=["<x>", "n"], rows=[["</table>", 0.00012345], ["rest", 3]])
    blocks = [
        "<b>",
        table,
        Picture(path=tmp_path / "dot.png", caption='a "dot"'),
        Note(text="none"),
        Literal(text="<&>"),
    ]
    page = outline(write_report(tmp_path / "r.html", "T < U", [Section(title="S", blocks=blocks)]))
    assert page.open == [] and page.tags.count("table") == 1 and "b" not in page.tags
    assert (
        four_digits(0.00012345) == "0.0001234"
        and four_digits(-1.5) == "−1.5"
        and four_digits(float("nan")) == "–"
        and four_digits(3) == "3"
    )
