# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundled model's recipe, stage by stage, on a few real clips at toy size; and what can be checked by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from trainer.__main__ import main  # noqa: E402
from trainer.datasets.corpora import list_clips  # noqa: E402
from trainer.evaluation.lipsync import CLOSED  # noqa: E402
from trainer.loops.ablation import HEADS  # noqa: E402
from trainer.loops.finetune_channels import Teacher, change_speed  # noqa: E402
from trainer.loops.pretrain_hubert import random_span_mask  # noqa: E402
from trainer.motion.curves import MotionStore, solve  # noqa: E402
from trainer.motion.landmarks import USED, LandmarkBasis  # noqa: E402
from trainer.motion.phoneme_driven import shares_of  # noqa: E402
from trainer.motion.targets import (  # noqa: E402
    AGAINST_THE_TUCK,
    PARTED_GAP,
    POSES,
    ROUNDED_GAP,
    ROUNDED_SHARE,
    TUCKED,
    TUCKED_GAP_M,
    PosedMouth,
    manners,
    mixed,
    part_lips,
    rest_in_pauses,
    round_lips,
    seal_lips,
    tuck_lower_lip,
)
from trainer.speech.augment import Augmenter  # noqa: E402
from trainer.speech.augmentation import RECORDED, Augmentation  # noqa: E402
from trainer.speech.batches import CropSampler, frame_times_s  # noqa: E402
from trainer.speech.phones import BILABIALS, PHONES, frame_labels  # noqa: E402
from trainer.speech.prepared import SpeechRecord, SpeechStore  # noqa: E402
from wav2sem_blender.pipeline import SpeechAnimator  # noqa: E402
from wav2sem_blender.pipeline.frame_timing import FrameGrid  # noqa: E402
from wav2sem_blender.pipeline.mouth import PRESSED_M, close_lips  # noqa: E402

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="development data (../shared/data) is not here")

LIPS = (*("jawOpen", "mouthClose", "mouthPucker", "mouthPressLeft", "mouthPressRight"), *TUCKED, *AGAINST_THE_TUCK)
LIPS_GAP_K = 0.001 * np.array([31, -31, 1, -1.4, -1.4, -5, 4, 4, -1, -7, 3, 3])  # about what the bundled basis does
MOUTH = PosedMouth(channels=LIPS, gap_K=LIPS_GAP_K)


def speaking(**weights: float) -> np.ndarray:
    """A second (30, K) of these weights."""
    return np.tile([weights.get(name, 0.0) for name in LIPS], (30, 1))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """A dozen clips of the real corpora, in their layouts."""
    root = tmp_path_factory.mktemp("corpora")
    picks = {
        "grid_s1": sorted((SHARED / "grid_s1").glob("*.flac"))[:60:5],
        "vctk": sorted((SHARED / "vctk").glob("*.flac"))[:80:10],
        "facegood": [SHARED / "facegood" / "1114_3_15.flac"],
    }
    for corpus, clips in picks.items():
        (root / corpus).mkdir()
        for clip in clips:
            for source in clip.parent.glob(f"*{clip.stem}.*"):
                os.symlink(source, root / corpus / source.name)
    os.symlink(SHARED / "vctk" / "transcripts.tsv", root / "vctk" / "transcripts.tsv")
    os.symlink(SHARED / "facegood" / "shirley_1119_bs_name316.npy", root / "facegood" / "shirley_1119_bs_name316.npy")
    for corpus in ("flame2023_open", "ict_facekit", "regions"):
        os.symlink(SHARED / corpus, root / corpus)
    return root


@pytest.fixture(scope="module")
def work(corpora: Path, tmp_path_factory) -> Path:
    """Prepared data and one run of every stage."""
    work = tmp_path_factory.mktemp("work")
    data = ["--data", str(corpora), "--out", str(work)]
    for what in ("basis", "smoke", "motion"):
        assert main(["prepare", what, *data]) == 0
    assert main(["prepare", "driven", "--data", str(work), "--out", str(work)]) == 0
    run = ["--data", str(work), "--out"]
    assert main(["pretrain-hubert", "bundled_smoke", *run, str(work / "hubert")]) == 0
    assert main(["pretrain", "bundled_smoke", *run, str(work / "wav2sem"), "--hubert", str(work / "hubert")]) == 0
    stages = ["--hubert", str(work / "hubert"), "--wav2sem", str(work / "wav2sem")]
    assert main(["finetune", "bundled_smoke", *run, str(work / "face"), *stages]) == 0
    assert main(["export", "bundled", "--data", str(work / "face"), "--out", str(work / "model")]) == 0
    return work


@needs_data
def test_a_model_trained_here_loads_and_animates(work: Path) -> None:
    speech = np.random.default_rng(0).standard_normal(16_000)
    by_engine = [SpeechAnimator.load(work / "model", engine=e).animate(speech, 16_000) for e in ("onnx", "torch")]
    assert by_engine[0].weights_TK.shape == (29, len(MotionStore(work / "motion").channels))
    np.testing.assert_allclose(by_engine[0].weights_TK, by_engine[1].weights_TK, atol=1e-4)


@needs_data
def test_runs_describe_themselves(work: Path) -> None:
    run = json.loads((work / "hubert" / "run.json").read_text())
    assert run["experiment"] == "bundled_smoke" and run["config"]["steps"] == 3 and len(run["commit"]) >= 7
    metrics = [json.loads(line) for line in (work / "hubert" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["step"] == 0 and metrics[0]["loss"] > 1


@needs_data
def test_prepared_speech_is_aligned(work: Path) -> None:
    store = SpeechStore(work / "speech")
    timed = [record for record in store.records if record.phones]
    assert len(timed) >= 10
    for record in timed:
        starts = [start for _, start, _ in record.phones]
        assert starts == sorted(starts) and record.phones[-1][2] <= record.n_samples / 16000 + 0.05
        assert {phone for phone, _, _ in record.phones} <= set(PHONES)


@needs_data
def test_captured_motion_follows_the_tracked_lips(work: Path) -> None:
    store = MotionStore(work / "motion")
    jaw = store.channels.index("jawOpen")
    grid = [record for record in store.records if record.style == "grid_s1"]
    assert grid and {record.style for record in store.records} == {"grid_s1", "artist"}
    for record in grid:
        weights_TK = store.weights(record)
        assert weights_TK.min() >= 0 and weights_TK.max() <= 1
        assert weights_TK[:, jaw].max() > 0.05
        assert (weights_TK[:, store.channels.index("mouthClose")] <= weights_TK[:, jaw] + 1e-6).all()


@needs_data
def test_evaluation_knows_a_still_face_from_a_moving_one(work: Path) -> None:
    out = work / "evaluation"
    assert main(["evaluate", "bundled", "--model", str(work / "model"), "--data", str(work), "--out", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())["motion"]
    assert results["artist"]["mve_mm"] > 0 and results["artist"]["lve_mm"] > results["artist"]["mve_mm"]
    assert (out / "apertures" / "facegood" / "1114_3_15.npz").is_file()


def test_what_is_missing_is_named(tmp_path, capsys) -> None:
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["pretrain-hubert", "bundled_smoke", *arguments]) == 1
    assert "no prepared speech" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="none of the corpora is here"):
        list(list_clips(tmp_path))


def test_frame_labels() -> None:
    phones = [("B", 0.10, 0.20), ("AA", 0.20, 0.35), ("M", 0.50, 0.60)]
    labels = frame_labels(phones, np.array([0.05, 0.10, 0.25, 0.40, 0.55, 0.70]))
    assert [PHONES[i] for i in labels] == ["SIL", "B", "AA", "SIL", "M", "SIL"]
    assert frame_times_s(np.array([0.0, 50.0])).tolist() == [0.0125, 1.0125]


def test_fit_recovers_known_weights() -> None:
    """Landmarks moved by known weights, in the channels' range, come back as those weights."""
    rng = np.random.default_rng(0)
    channels = ("jawOpen", "mouthSmileLeft", "mouthSmileRight")
    basis_KP3 = rng.normal(0, 0.01, (3, len(USED), 3))
    t = np.linspace(0, 2 * np.pi, 40)
    true_TK = np.stack([0.5 + 0.3 * np.sin(t), 0.3 + 0.1 * np.cos(t), 0.3 + 0.1 * np.cos(t)], 1)
    landmarks = LandmarkBasis(basis_KP3=basis_KP3, rest_P3=np.zeros((len(USED), 3)), rigid_R3=np.zeros((3, 3)))
    moved = np.einsum("tk,kpd->tpd", true_TK, basis_KP3)
    found = np.ones(40, bool)
    found[10:13] = False  # bridged, not believed
    fitted_TK = solve(landmarks, channels, moved, found)
    np.testing.assert_allclose(fitted_TK, true_TK, atol=0.03)


def test_driven_lips_meet_on_bilabials_only() -> None:
    phones = [("AA", 0.0, 0.4), ("B", 0.4, 0.5), ("AA", 0.5, 1.0)]
    shares = shares_of(phones, 30)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert shares[13, PHONES.index("B")] == 1 and shares[6, PHONES.index("AA")] == 1
    spoken = speaking(jawOpen=0.3, mouthPucker=0.2, mouthUpperUpLeft=0.1)
    driven = close_lips(spoken, phones, MOUTH, fps=30)
    np.testing.assert_allclose(MOUTH.gap(driven)[12:16], -PRESSED_M, atol=1e-9)
    np.testing.assert_array_equal(driven[[0, 5, 20, 29]], spoken[[0, 5, 20, 29]])
    np.testing.assert_array_equal(driven[:, LIPS.index("mouthPucker")], 0.2)  # rounded neighbours reach into a b


def test_lips_that_nearly_met_are_sealed_on_bilabials() -> None:
    """1.5 mm of gap go; 12 mm are another sound's, and stay."""
    phones = [("AA", 0.0, 0.4), ("B", 0.4, 0.5), ("AA", 0.5, 1.0)]
    for gap_mm, left_mm in ((1.5, -0.3), (12.0, 12.0)):
        target = speaking(jawOpen=gap_mm / 31)
        sealed = seal_lips(target, phones, MOUTH)
        np.testing.assert_allclose(1000 * MOUTH.gap(sealed)[12:16], left_mm, atol=1e-6)
        np.testing.assert_array_equal(sealed[[0, 5, 20, 29]], target[[0, 5, 20, 29]])
        np.testing.assert_array_equal(sealed[:, 0], target[:, 0])


@pytest.mark.parametrize("jaw, close", [(0.25, 0.1), (0.25, 0.25), (0.02, 0.0)], ids=["wide", "closed", "jaw shut"])
def test_the_lower_lip_goes_to_the_teeth_on_f_and_lips_stay_apart(jaw: float, close: float) -> None:
    target = speaking(jawOpen=jaw, mouthClose=close, mouthPucker=0.4, mouthRollUpper=0.1, mouthLowerDownLeft=0.2)
    tucked = tuck_lower_lip(target, [("AA", 0.0, 0.4), ("F", 0.4, 0.5), ("UW", 0.5, 1.0)], MOUTH)
    moved = dict(zip(LIPS, tucked.T, strict=True))
    for name, weight in TUCKED.items():
        np.testing.assert_allclose(moved[name][13:16], weight)
    for name in AGAINST_THE_TUCK:
        np.testing.assert_allclose(moved[name][13:16], 0, atol=1e-9)
    np.testing.assert_allclose((tucked @ LIPS_GAP_K)[13:16], TUCKED_GAP_M)
    np.testing.assert_array_equal(moved["mouthPucker"], 0.4)  # the oo that follows is already round
    assert tucked.min() >= 0 and (moved["jawOpen"] == jaw).all() == (jaw > 0.1)
    np.testing.assert_allclose(tucked[[0, 5, 10, 18, 29]], target[[0, 5, 10, 18, 29]], atol=1e-9)
    assert np.abs(np.diff(moved["mouthRollLower"])).max() < 0.75 * TUCKED["mouthRollLower"], "a ramp, no jump"


def test_a_tuck_is_less_on_a_short_v_and_where_the_lips_stay_far_apart() -> None:
    roll, spoken = LIPS.index("mouthRollLower"), speaking(jawOpen=0.2, mouthClose=0.1)
    long, short = (
        tuck_lower_lip(spoken, [("AA", 0.0, 0.4), ("V", 0.4, end), ("AA", end, 1.0)], MOUTH)[:, roll].max()
        for end in (0.5, 0.44)
    )
    assert 0.5 * long < short < 0.7 * long
    swallowed = speaking(jawOpen=0.5)
    np.testing.assert_array_equal(tuck_lower_lip(swallowed, [("V", 0.4, 0.5)], MOUTH), swallowed)


@pytest.mark.parametrize("phones", ["M F", "F M", "B V", "V P"])
def test_lips_beside_f_and_v_stay_sealed(phones: str) -> None:
    """Taught motion: pressed on all of the bilabial, ajar and tucked on the other."""
    first, second = phones.split()
    timed = [("AA", 0.0, 0.4), (first, 0.4, 0.55), (second, 0.55, 0.7), ("AA", 0.7, 1.0)]
    record = SpeechRecord(name="", corpus="", speaker="", split="", text="", first=0, n_samples=16000, phones=timed)
    taught = Teacher(mouth=MOUTH)(speaking(jawOpen=0.08), record)
    gap_T, roll_T = taught @ LIPS_GAP_K, taught[:, LIPS.index("mouthRollLower")]
    early, late = slice(12, 17), slice(17, 22)
    labial, dental = (early, late) if first in BILABIALS else (late, early)
    np.testing.assert_allclose(gap_T[labial], -PRESSED_M, atol=1e-6)
    assert roll_T[labial].max() == 0
    assert roll_T[dental].max() > 0.7 and gap_T[dental][roll_T[dental] > 0.7].min() > 0.8 * TUCKED_GAP_M


def test_lips_part_for_every_sound_that_is_not_a_labial() -> None:
    """th, n and w between closed lips: opened by the jaw, a rounded sound a little less; m, v and pauses are left."""
    phones = [("SIL", 0.0, 0.3), ("M", 0.3, 0.4), ("DH", 0.6, 0.8), ("N", 0.8, 0.9), ("W", 1.0, 1.2), ("V", 1.25, 1.3)]
    nearly_closed = np.tile(speaking(jawOpen=0.04, mouthClose=0.02)[:1], (40, 1))
    nearly_closed[:5] = speaking(jawOpen=0.4)[:1]  # before the m: the clip's widest opening
    parted = part_lips(nearly_closed, phones, MOUTH)
    np.testing.assert_allclose(MOUTH.gap(parted)[18:27], PARTED_GAP * 0.4 * 0.031)
    np.testing.assert_allclose(MOUTH.gap(parted)[31:35], ROUNDED_GAP * 0.4 * 0.031)
    assert CLOSED < ROUNDED_GAP < PARTED_GAP
    for untouched in (slice(0, 17), slice(38, 40)):
        np.testing.assert_array_equal(parted[untouched], nearly_closed[untouched])
    assert parted[20, LIPS.index("mouthClose")] < 1e-9, "it lets go before the jaw drops"
    wide = np.tile(speaking(jawOpen=0.3)[:1], (40, 1))
    np.testing.assert_array_equal(part_lips(wide, phones, MOUTH), wide)


def test_the_lips_nearly_close_and_narrow_on_w() -> None:
    phones = [("AA", 0.0, 0.4), ("W", 0.4, 0.5), ("AA", 0.5, 1.0)]
    spoken = speaking(jawOpen=0.2)
    rounded = round_lips(spoken, phones, MOUTH)
    np.testing.assert_allclose(MOUTH.gap(rounded)[13:15], ROUNDED_GAP * 0.2 * 0.031, atol=1e-9)
    np.testing.assert_allclose(
        rounded[13:15, LIPS.index("mouthPucker")], POSES["round"][1]["mouthPucker"] * ROUNDED_SHARE
    )
    np.testing.assert_array_equal(rounded[[0, 5, 20, 29]], spoken[[0, 5, 20, 29]])


TOLD = [("SIL", 0.0, 0.4), ("AA", 0.4, 0.6), ("M", 0.6, 0.7), ("UW", 0.7, 0.9), ("V", 0.9, 1.0)]


@pytest.mark.parametrize("weights", [{"natural": 1.0}, {"clear": 1.0}, {"mumbled": 1.0}, {"clear": 0.5, "artist": 0.5}])
def test_every_manner_can_be_animated_and_closes_the_lips(weights: dict[str, float]) -> None:
    """Weights in [0, 1], left as right, mouthClose within the jaw, rest in silence, lips sealed on m: mixtures too."""
    rough = speaking(jawOpen=0.09, mouthUpperUpLeft=0.04, mouthPucker=0.1) - 0.01
    taught = mixed(manners(rough, TOLD, 1.0, MOUTH), weights)
    assert taught.min() >= 0 and taught.max() <= 1
    np.testing.assert_array_equal(taught[:, LIPS.index("mouthPressLeft")], taught[:, LIPS.index("mouthPressRight")])
    assert (taught[:, 1] <= taught[:, 0] + 1e-9).all() and taught[:4].max() == 0
    assert MOUTH.gap(taught)[18:21].max() < 1e-9


def test_clear_motion_rounds_and_opens_more_and_mumbled_motion_less() -> None:
    by_manner = manners(speaking(jawOpen=0.12, mouthPucker=0.1), TOLD, 1.0, MOUTH)
    pucker, jaw = ({name: motion[:, k] for name, motion in by_manner.items()} for k in (LIPS.index("mouthPucker"), 0))
    assert pucker["clear"][24] > 0.6 and pucker["natural"][24] == 0.1 and pucker["mumbled"][24] < 0.06
    assert jaw["clear"][15] > 0.35 and jaw["natural"][15] == 0.12 and jaw["mumbled"][15] < 0.06


def test_motion_without_phone_times_is_not_corrected() -> None:
    spoken = speaking(jawOpen=0.4, mouthPucker=0.3)
    by_manner = manners(spoken, None, 1.0, MOUTH)
    for name in ("natural", "clear", "artist"):
        np.testing.assert_array_equal(by_manner[name], spoken)
    np.testing.assert_allclose(by_manner["mumbled"][0, :3], [0.18, 0, 0.165])


def test_driven_mouth_rests_in_pauses() -> None:
    phones = [("SIL", 0.0, 0.5), ("AA", 0.5, 1.0), ("SIL", 1.0, 1.1), ("AA", 1.1, 1.5), ("SIL", 1.5, 2.0)]
    rested = rest_in_pauses(np.ones((60, 1)), phones, 2.0)[:, 0]
    assert rested[:10].max() == 0 and rested[53:].max() < 1e-9 + 1 / 6
    assert rested[15:45].min() == 1, "sounds and short gaps keep their motion"


def test_speed_moves_sound_and_motion_together() -> None:
    samples = np.sin(np.arange(16000) * 0.01).astype(np.float32)
    ramp = np.linspace(0, 1, 31)[:, None].astype(np.float32)
    faster, moved = change_speed(samples, np.stack([ramp, 2 * ramp]), 1.25)
    assert len(faster) == 12800 and moved.shape == (2, 24, 1)
    np.testing.assert_allclose(moved[0, :, 0], np.arange(24) * 1.25 / 30, atol=1e-6)
    np.testing.assert_allclose(moved[1], 2 * moved[0], atol=1e-6)


@needs_data
def test_augmentation_is_seeded_and_keeps_the_length(work: Path) -> None:
    store = SpeechStore(work / "speech")
    samples = store.samples(store.records[0])
    always = Augmentation(
        noise_chance=1, band_chance=1, room_chance=1, clip_chance=1, codec_chance=1, equaliser_db=8, level_db=(-8, 8)
    )
    for seed in range(8):
        first, again = (Augmenter(store, always, seed)(samples) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert len(first) == len(samples) and np.abs(first - samples).max() > 1e-3
    np.testing.assert_array_equal(Augmenter(store, RECORDED, 0)(samples), samples)


@needs_data
def test_crops_without_speech_are_silence_to_the_labels(work: Path) -> None:
    store = SpeechStore(work / "speech")
    sampler = CropSampler(store, store.records, {"vctk": 1.0}, Augmentation(speechless_chance=1.0))
    positions = FrameGrid(fps=30).positions(32_000)
    for seed in range(4):
        crop = sampler.crop(32_000, positions, np.random.default_rng(seed))
        assert crop.labels_T.max() == 0 and len(crop.labels_T) == len(positions) and np.isfinite(crop.samples_S).all()
        assert crop.samples_S.std() > 1e-4


@needs_data
def test_no_speaker_is_in_two_parts() -> None:
    clips = list(list_clips(SHARED))
    parts: dict[str, set[str]] = {}
    for clip in clips:
        if clip.corpus not in ("grid_s1", "facegood"):
            parts.setdefault(clip.speaker, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in parts.values())
    tested = {clip.corpus for clip in clips if clip.split == "test"}
    assert tested == {"grid_s1", "librispeech_251", "vctk", "picovoice_orders", "picovoice_words"}
    assert all(clip.text for clip in clips if clip.corpus == "librispeech_251")


@needs_data
def test_semantics_are_ablated_and_a_stopped_ablation_goes_on(work: Path, capsys) -> None:
    run = ["--data", str(work), "--out", str(work / "ablation"), "--hubert", str(work / "hubert")]
    command = ["finetune", "ablation_smoke", *run, "--wav2sem", str(work / "wav2sem")]
    assert main(command) == 0
    path = work / "ablation" / "results.json"
    results = json.loads(path.read_text())
    assert list(results) == ["none", "constant", "shuffled", "wav2sem", "text"]
    assert {key for rows in results.values() for row in rows for key in row} <= {*HEADS, "seed"}
    kept = {kind: rows for kind, rows in results.items() if kind != "shuffled"}
    path.write_text(json.dumps(kept))
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    again = json.loads(path.read_text())
    assert again["shuffled"][0] == pytest.approx(results["shuffled"][0]), "the same seed gives the same model"
    assert "shuffled, seed 0" in capsys.readouterr().out


def test_mask_spans_have_their_length() -> None:
    masked = random_span_mask((1, 4000), chance=0.002, length=6, generator=torch.Generator().manual_seed(0))[0].numpy()
    edges = np.flatnonzero(np.diff(np.pad(masked.astype(int), 1)))
    runs = edges[1::2] - edges[::2]
    assert len(runs) > 2 and np.all(runs[:-1] >= 6)
