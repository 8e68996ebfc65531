# SPDX-License-Identifier: GPL-3.0-or-later
"""Face data sets in their on-disk formats: data survive a round trip, and every bad input is named or counted."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

from tests.trainer.miniature_faces import (
    Written,
    biwi_triangles,
    write_biwi,
    write_custom,
    write_obj,
    write_python2_pickle,
    write_vocaset,
)
from trainer.datasets.biwi import BIWI, export_biwi, preprocess, read_vl
from trainer.datasets.custom import held_out
from trainer.datasets.exported_faces import split_clips
from trainer.datasets.face_data import FaceData
from trainer.datasets.meshes import read_obj, surface_area
from trainer.datasets.opening import open_face_data
from trainer.datasets.vocaset import ORIGINAL_FILES, VOCASET, export_vocaset
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.frame_timing import FrameGrid
from wav2sem_blender.pipeline.hosts.faceformer import RELEASES

TRAIN = VOCASET.splits[0].subjects[0]
FIRST = f"{TRAIN}_sentence01"
VALID, TEST = VOCASET.splits[1].subjects[0], VOCASET.splits[2].subjects[0]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> dict[str, tuple[Path, dict[str, Written]]]:
    root = tmp_path_factory.mktemp("faces")
    writers: dict[str, Callable[[Path], dict[str, Written]]] = {
        "vocaset": lambda folder: write_vocaset(folder, seconds=0.5),
        "vocaset exported": lambda folder: write_vocaset(folder, layout="exported", seconds=0.5),
        "biwi": lambda folder: write_biwi(folder, seconds=0.4),
        "biwi exported": lambda folder: write_biwi(folder, layout="exported", seconds=0.4),
        "custom": lambda folder: write_custom(folder, seconds=0.5),
    }
    return {name: (root / name, write(root / name)) for name, write in writers.items()}


@pytest.fixture
def copy(corpora, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a corpus to damage."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(corpora[name][0], tmp_path / name))

    return make


def _kind(name: str) -> str:
    return name.split()[0]


def _clip(data: FaceData, name: str):
    (clip,) = [clip for clip in data.clips if clip.name == name]
    return clip


@pytest.mark.parametrize("layout", ["vocaset", "vocaset exported"])
def test_vocaset_gives_back_what_was_written(corpora, layout: str) -> None:
    folder, written = corpora[layout]
    data = open_face_data("vocaset", folder)
    assert (data.fps, data.n_vertices, data.unit, data.topology) == (30, 5023, "m", "flame")
    for clip in data.clips:
        source = written[clip.name]
        np.testing.assert_array_equal(data.vertices(clip), source.vertices_FV3[::2])
        np.testing.assert_array_equal(data.template(clip.subject), source.template_V3)
        assert clip.text == source.text
    assert data.vertices(data.clips[0]).dtype == np.float32
    assert np.ptp(data.vertices(data.clips[0]), axis=0).max() > 0.005  # the face moves by millimetres


@pytest.mark.parametrize("layout", ["vocaset", "vocaset exported", "biwi", "biwi exported", "custom"])
def test_samples_are_the_recording_at_16_khz_with_its_level(corpora, layout: str) -> None:
    folder, written = corpora[layout]
    data = open_face_data(_kind(layout), folder)
    clip = data.clips[-1]
    recorded_N = written[clip.name].samples_N / 32768
    expected_S = soxr.resample(recorded_N - recorded_N.mean(), written[clip.name].rate_hz, 16_000)
    samples_S = data.samples(clip)
    assert samples_S.dtype == np.float32 and samples_S.flags.writeable
    assert len(samples_S) == len(expected_S)
    np.testing.assert_allclose(samples_S, expected_S, atol=2e-4)


def test_splits_are_as_published() -> None:
    def names(published, subjects) -> set[str]:
        return {published.clip_name.format(subject=s, sentence=n) for s in subjects for n in range(1, 41)}

    everything = {s for split in VOCASET.splits for s in split.subjects}
    present = names(VOCASET, everything)
    clips, skipped = split_clips(VOCASET, present, present, {})
    assert Counter(clip.split for clip in clips) == {"train": 320, "valid": 40, "test": 40}
    assert skipped == {"outside the published splits": 80}
    assert VOCASET.styles[0] == "FaceTalk_170728_03272_TA" and VOCASET.styles[-1] == "FaceTalk_170912_03278_TA"
    assert not set(VOCASET.styles) & {clip.subject for clip in clips if clip.split != "train"}
    present = names(BIWI, [*(f"F{i}" for i in range(1, 9)), *(f"M{i}" for i in range(1, 7))])
    clips, _ = split_clips(BIWI, present, present, {})
    assert Counter(clip.split for clip in clips) == {"train": 192, "valid": 24, "test": 24, "test_b": 32}
    assert BIWI.styles == ("F2", "F3", "F4", "M3", "M4", "M5")
    assert {clip.subject for clip in clips if clip.split == "test"} == set(BIWI.styles)
    assert {c.name for c in clips if c.split == "valid" and c.subject == "F2"} == {f"F2_e{n}" for n in range(33, 37)}


def test_styles_are_those_of_the_official_checkpoint() -> None:
    for published, kind in ((VOCASET, "faceformer-vocaset"), (BIWI, "faceformer-biwi")):
        release = RELEASES[kind]
        assert published.styles == release.styles
        assert (published.n_vertices, published.topology) == (release.n_vertices, release.topology)
        assert (published.unit, published.fps) == (release.basis_unit, release.host.grid.fps)


def test_missing_sequences_are_counted(copy) -> None:
    folder = copy("vocaset exported")
    (folder / "wav" / f"{FIRST}.wav").unlink()
    (folder / "vertices_npy" / f"{VALID}_sentence21.npy").unlink()
    data = open_face_data("vocaset", folder)
    assert [clip.name for clip in data.clips] == [
        f"{TRAIN}_sentence21",
        f"{VOCASET.styles[1]}_sentence01",
        f"{VOCASET.styles[1]}_sentence21",
        f"{TEST}_sentence21",
    ]
    assert data.skipped == {
        "sequence missing": 394,
        "recording missing": 1,
        "motion missing": 1,
        "outside the published splits": 2,
    }
    assert data.styles == VOCASET.styles


@pytest.mark.parametrize(("layout", "export"), [("vocaset", export_vocaset), ("biwi", export_biwi)])
def test_an_export_reads_as_the_original_does(corpora, tmp_path: Path, layout: str, export) -> None:
    original = open_face_data(layout, corpora[layout][0])
    exported = export(corpora[layout][0], tmp_path / "out")
    for ours, theirs in zip(exported.clips, original.clips, strict=True):
        np.testing.assert_array_equal(exported.vertices(ours), original.vertices(theirs))
        np.testing.assert_array_equal(exported.samples(ours), original.samples(theirs))
        np.testing.assert_array_equal(exported.template(ours.subject), original.template(theirs.subject))
        assert ours == theirs
    assert not list((tmp_path / "out").rglob("*.part"))


def test_an_interrupted_export_goes_on(corpora, tmp_path: Path, capsys) -> None:
    export_vocaset(corpora["vocaset"][0], tmp_path)
    assert "6 clips of vocaset; sequence missing: 394; outside the published splits: 2" in capsys.readouterr().out
    lost, kept = (tmp_path / "vertices_npy" / f"{TRAIN}_sentence{n}.npy" for n in ("01", "21"))
    content, written_ns = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.rename(lost.with_name(f"{lost.name}.part"))
    export_vocaset(corpora["vocaset"][0], tmp_path)
    assert lost.read_bytes() == content
    assert kept.stat().st_mtime_ns == written_ns


@pytest.mark.parametrize("layout", ["biwi", "biwi exported"])
def test_biwi_is_preprocessed_and_cropped_to_the_audio(corpora, layout: str) -> None:
    folder, written = corpora[layout]
    data = open_face_data("biwi", folder)
    triangles = biwi_triangles()
    assert [(clip.name, clip.split) for clip in data.clips] == [
        ("F2_e01", "train"), ("F2_e33", "valid"), ("F2_e37", "test"), ("F1_e37", "test_b"),
    ]  # fmt: skip
    for clip in data.clips:
        vertices_TV3 = data.vertices(clip)
        # 0.4 s are 10 frames of motion, and (6400 - 400) // 320 + 1 = 19 encoder frames, or 9 frames at 25 fps.
        assert vertices_TV3.shape == (9, 23_370, 3)
        source_FV3 = written[clip.name].vertices_FV3[:9]
        expected_TV3 = source_FV3 if "exported" in layout else [preprocess(frame, triangles) for frame in source_FV3]
        np.testing.assert_allclose(vertices_TV3, expected_TV3, atol=1e-6)
        np.testing.assert_allclose(surface_area(vertices_TV3[4].astype(float), triangles), 1, rtol=1e-5)
    np.testing.assert_allclose(data.template("F2").mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize("layout", ["biwi", "biwi exported"])
def test_biwi_decodes_a_recording_once_for_all_reads_of_its_vertices(corpora, layout: str, monkeypatch) -> None:
    decoded = []
    from_file = Speech.from_file
    monkeypatch.setattr(Speech, "from_file", lambda path: (decoded.append(path.stem), from_file(path))[1])
    data = open_face_data("biwi", corpora[layout][0])
    first, second = data.clips[:2]
    cropped = [len(data.vertices(first)) for _ in range(3)]
    assert cropped == [FrameGrid.at_rate(25).animation_frames(len(data.samples(first)))] * 3
    assert decoded == [first.name, first.name]  # once for the vertices, once for the samples
    data.samples(second)
    data.vertices(second)
    assert decoded[2:] == [second.name]


def test_biwi_keeps_all_motion_where_the_audio_is_longer(corpora, copy) -> None:
    folder = copy("biwi exported")
    source = corpora["biwi exported"][1]["F2_e01"]
    sf.write(folder / "wav" / "F2_e01.wav", np.resize(source.samples_N, 2 * len(source.samples_N)), source.rate_hz)
    data = open_face_data("biwi", folder)
    np.testing.assert_array_equal(data.vertices(data.clips[0]), source.vertices_FV3)


def test_biwi_preprocessing_by_hand() -> None:
    vertices_V3 = np.array([[0.0, 0.0, 5.0], [4.0, 0.0, 5.0], [0.0, 6.0, 5.0], [0.0, 0.0, 5.0]])
    # Area 12; the mean is (1, 1.5, 5); y and z change sign.
    expected_V3 = np.array([[-1, 1.5, 0], [3, 1.5, 0], [-1, -4.5, 0], [-1, 1.5, 0]]) / np.sqrt(12)
    np.testing.assert_allclose(preprocess(vertices_V3, np.array([[0, 1, 2]])), expected_V3, rtol=1e-6)


@pytest.mark.parametrize("header_bytes", [4, 8])
def test_vl_files_have_a_count_of_four_or_eight_bytes(tmp_path: Path, header_bytes: int) -> None:
    frame_V3 = np.random.default_rng(0).normal(size=(23_370, 3)).astype("<f4")
    path = tmp_path / "frame_001.vl"
    path.write_bytes((23_370).to_bytes(header_bytes, "little") + frame_V3.tobytes())
    assert path.stat().st_size == {4: 280_444, 8: 280_448}[header_bytes]
    np.testing.assert_array_equal(read_vl(path), frame_V3)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(ValueError, match=rf"frame_001.vl: {280_428 + header_bytes} bytes"):
        read_vl(path)
    path.write_bytes((23_369).to_bytes(header_bytes, "little") + frame_V3.tobytes())
    with pytest.raises(ValueError, match="begins with that count"):
        read_vl(path)


def test_obj_polygons_textures_and_backward_indices(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text(
        "# scan\nmtllib a.mtl\nv 0 0 0 0.5 0.5 0.5\nv 1 0 0\nvt 0 0\nv 1 1 0\nv 0 1 0\nvn 0 0 1\n"
        "f 1/1/1 2/1/1 3//1 4\nf -4 -3 -2\n"
    )
    vertices_V3, triangles_G3 = read_obj(path)
    np.testing.assert_array_equal(vertices_V3, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(triangles_G3, [[0, 1, 2], [0, 2, 3], [0, 1, 2]])
    path.write_text("v 0 0\n")
    with pytest.raises(ValueError, match="a.obj, line 1"):
        read_obj(path)


def _set(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(path, change(np.load(path)))


def _with(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(motion: np.ndarray) -> np.ndarray:
        motion[8:11, 11] = value
        return motion

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with(np.nan), r"2 frames have NaN .*the first at 0\.13 s \(frame 4 at 30 fps\)"),
        (_with(np.inf), r"2 frames have NaN or infinite"),
        (lambda motion: motion[:, :-3], "15066"),
        (lambda motion: (1000 * motion).astype(int), "int64"),
        (lambda motion: motion * 1000, "unit, pose or person"),
        (lambda motion: motion * np.tile([1, -1, -1], 5023), "unit, pose or person"),
    ],
    ids=["nan", "infinite", "count", "integers", "unit", "upside down"],
)
def test_bad_motion_is_named_by_clip(copy, change, said: str) -> None:
    folder = copy("vocaset exported")
    _set(folder / "vertices_npy" / f"{FIRST}.npy", change)
    data = open_face_data("vocaset", folder)
    with pytest.raises(ValueError, match=f"{FIRST}: .*{said}"):
        data.vertices(_clip(data, FIRST))
    assert len(data.vertices(data.clips[1])) == 15


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda template: template[:-1], f"{TRAIN}: .* needed"),
        (lambda template: np.where(np.arange(3) == 1, np.nan, template), f"{TRAIN}: holds NaN"),
        (lambda template: (1000 * template).astype(int), f"{TRAIN}: int64"),
        (None, f"no template of subject {TRAIN}"),
    ],
    ids=["count", "nan", "integers", "missing"],
)
@pytest.mark.parametrize("layout", ["vocaset", "vocaset exported"])
def test_a_bad_template_is_named_by_subject_on_opening(copy, corpora, layout: str, change, said: str) -> None:
    folder = copy(layout)
    templates = {name.rpartition("_")[0]: clip.template_V3 for name, clip in corpora[layout][1].items()}
    template = templates.pop(TRAIN)
    if change:
        templates[TRAIN] = change(template)
    write_python2_pickle(folder / "templates.pkl", templates)
    with pytest.raises(ValueError, match=said):
        open_face_data("vocaset", folder)


def test_a_larger_subject_passes_but_millimetres_are_refused(copy, corpora) -> None:
    folder = copy("vocaset")
    templates = {name.rpartition("_")[0]: clip.template_V3 for name, clip in corpora["vocaset"][1].items()}
    write_python2_pickle(folder / "templates.pkl", templates | {TRAIN: 1.1 * templates[TRAIN]})
    data = open_face_data("vocaset", folder)
    assert len(data.vertices(_clip(data, FIRST))) == 15
    write_python2_pickle(folder / "templates.pkl", templates | {TRAIN: 1000 * templates[TRAIN]})
    data = open_face_data("vocaset", folder)
    with pytest.raises(ValueError, match=f"{FIRST}: its mean face is .* away from the subject's template"):
        data.vertices(_clip(data, FIRST))


@pytest.mark.parametrize("missing", ORIGINAL_FILES)
def test_each_missing_file_is_named(copy, missing: str) -> None:
    folder = copy("vocaset")
    (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"{missing} is missing"):
        open_face_data("vocaset", folder)


@pytest.mark.parametrize("damaged", ORIGINAL_FILES)
def test_each_of_the_four_files_cut_off_says_its_size(copy, damaged: str) -> None:
    path = copy("vocaset") / damaged
    size = path.stat().st_size // 2
    os.truncate(path, size)
    with pytest.raises(ValueError, match=rf"{damaged}: .*\b{size} bytes"):
        open_face_data("vocaset", path.parent)


class _Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("pickled", ["subj_seq_to_idx.pkl", "raw_audio_fixed.pkl", "templates.pkl"])
def test_a_malicious_pickle_is_refused_by_name(copy, pickled: str, monkeypatch) -> None:
    folder = copy("vocaset")
    monkeypatch.chdir(folder)
    (folder / pickled).write_bytes(pickle.dumps({TRAIN: {"sentence01": _Malicious()}}, 2))
    with pytest.raises(ValueError, match=f"{pickled}: refused: {os.name}.system"):
        open_face_data("vocaset", folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({0: 0, 1: 10_000}, "up to row 10000"),
        ({0: -1}, "different versions"),
        ({}, "0 frames"),
        ([1, 2], "does not map frames"),
        ({0: "x"}, "does not map frames"),
    ],
    ids=["beyond", "negative", "none", "list", "text"],
)
def test_rows_must_be_rows_of_the_vertices(copy, rows, said: str) -> None:
    folder = copy("vocaset")
    write_python2_pickle(folder / "subj_seq_to_idx.pkl", {TRAIN: {"sentence01": rows}})
    with pytest.raises(ValueError, match=f"{FIRST}.*({said})"):
        open_face_data("vocaset", folder)


def test_frames_are_read_in_order_whatever_the_order_in_the_file(copy, corpora) -> None:
    folder = copy("vocaset")
    rows = {frame: frame for frame in reversed(range(30))}
    write_python2_pickle(folder / "subj_seq_to_idx.pkl", {TRAIN: {"sentence01": rows}})
    data = open_face_data("vocaset", folder)
    np.testing.assert_array_equal(data.vertices(data.clips[0]), corpora["vocaset"][1][FIRST].vertices_FV3[::2])


def test_a_clip_with_another_takes_audio_is_skipped_and_named(tmp_path: Path) -> None:
    write_vocaset(tmp_path, layout="exported", subjects=[TRAIN], sentences=range(1, 12), seconds=0.2)
    wav = tmp_path / "wav" / f"{FIRST}.wav"
    sf.write(wav, np.resize(sf.read(wav)[0], 2 * 22_000), 22_000)
    data = open_face_data("vocaset", tmp_path)
    assert FIRST not in {clip.name for clip in data.clips} and len(data.clips) == 10
    assert data.skipped[f"{FIRST}: 2.00 s of audio, but 0.20 s of motion"] == 1


@pytest.mark.parametrize("layout", ["vocaset", "vocaset exported", "biwi", "biwi exported"])
def test_many_clips_of_another_length_are_an_error(copy, layout: str) -> None:
    folder = copy(layout)
    for wav in folder.glob("[wa]*/*.wav"):
        sf.write(wav, np.resize(sf.read(wav)[0], 5 * 22_000), 22_000)
    if layout == "vocaset":
        recorded = {"audio": np.ones(5 * 22_000, np.int16), "sample_rate": 22_000}
        write_python2_pickle(folder / "raw_audio_fixed.pkl", {TRAIN: {"sentence01": recorded}})
    with pytest.raises(ValueError, match=r"the first: .*: 5\.00 s of audio, but 0\.[45]0 s of motion"):
        open_face_data(_kind(layout), folder)


@pytest.mark.parametrize("layout", ["vocaset exported", "biwi", "biwi exported", "custom"])
def test_a_file_that_is_no_sound_is_named(copy, layout: str) -> None:
    folder = copy(layout)
    wav = next(folder.glob(f"[wa]*/{open_face_data(_kind(layout), folder).clips[0].name}.wav"))
    wav.write_bytes(b"no sound at all")
    with pytest.raises(ValueError, match=wav.name):
        open_face_data(_kind(layout), folder)


def test_motion_with_pickled_objects_is_refused(copy) -> None:
    folder = copy("vocaset exported")
    np.save(folder / "vertices_npy" / f"{FIRST}.npy", np.array([_Malicious()], object), allow_pickle=True)
    with pytest.raises(ValueError, match=f"{FIRST}.npy: .* not a whole .npy array"):
        open_face_data("vocaset", folder)


def test_missing_parts_of_biwi_are_named(copy) -> None:
    folder = copy("biwi")
    (folder / "rigid_scans" / "F2.obj").unlink()
    with pytest.raises(FileNotFoundError, match="F2.obj"):
        open_face_data("biwi", folder)
    write_obj(folder / "rigid_scans" / "F2.obj", np.eye(3), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="F2.obj: 3 vertices and 1 triangles"):
        open_face_data("biwi", folder)
    shutil.rmtree(folder / "rigid_scans")
    with pytest.raises(FileNotFoundError, match="rigid_scans is missing"):
        open_face_data("biwi", folder)


def test_biwi_recordings_may_be_called_cut(copy) -> None:
    folder = copy("biwi")
    (folder / "audio" / "F2_e01.wav").rename(folder / "audio" / "F2_e01_cut.wav")
    assert open_face_data("biwi", folder).clips[0].name == "F2_e01"


def test_unknown_kinds_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose from vocaset, vocaset_60, biwi, custom"):
        open_face_data("meads", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_face_data("vocaset", tmp_path / "nowhere")
    for name in ("vertices_npy", "wav"):
        (tmp_path / name).mkdir()
    write_python2_pickle(tmp_path / "templates.pkl", {"a": np.zeros(3)})
    with pytest.raises(FileNotFoundError, match="one would be called F2_e01"):
        open_face_data("biwi", tmp_path)


def test_custom_is_read_in_metres_at_the_models_rate(corpora) -> None:
    folder, written = corpora["custom"]
    data = open_face_data("custom", folder)
    assert (data.fps, data.n_vertices, data.unit, data.topology) == (30, 300, "m", "miniature")
    assert data.styles == ("anna", "ben") and not data.skipped
    for clip in data.clips:
        np.testing.assert_array_equal(data.vertices(clip), written[clip.name].vertices_FV3[::2])
        np.testing.assert_array_equal(data.template(clip.subject), written[clip.name].template_V3)
        assert clip.text == written[clip.name].text
    assert Counter(clip.split for clip in data.clips)["valid"] == 1


@pytest.mark.parametrize(("fps", "seen", "step"), [(25, 25, 1), (30, 30, 1), (50, 25, 2), (60, 30, 2)])
def test_custom_rates_and_units(tmp_path: Path, fps: int, seen: int, step: int) -> None:
    written = write_custom(tmp_path, fps=fps, unit="mm", clips=2, seconds=0.6, n_vertices=50)
    data = open_face_data("custom", tmp_path)
    assert data.fps == seen
    source = written["anna_001"]
    vertices_TV3 = data.vertices(_clip(data, "anna_001"))
    n_kept = 14 if seen == 25 else 18  # 29 encoder frames are 14 frames at 25 fps
    assert len(vertices_TV3) == n_kept
    np.testing.assert_allclose(vertices_TV3, source.vertices_FV3[::step][:n_kept] / 1000, rtol=1e-6)
    np.testing.assert_allclose(data.template("anna"), source.template_V3 / 1000, rtol=1e-6)


def test_custom_splits_by_list_or_by_rule(tmp_path: Path) -> None:
    write_custom(tmp_path, seconds=0.3, split={"valid": ["anna_002"], "test": ["ben_001", "ben_002", "ben_003"]})
    data = open_face_data("custom", tmp_path)
    assert {clip.name: clip.split for clip in data.clips} == {
        "anna_001": "train", "anna_002": "valid", "anna_003": "train",
        "ben_001": "test", "ben_002": "test", "ben_003": "test",
    }  # fmt: skip
    assert data.styles == ("anna",)  # a subject without training clips has no style
    names = [f"clip_{i}" for i in range(400)]
    assert 30 < len(held_out(names)) < 70
    assert set(held_out(names[:200])) <= set(held_out(names))
    assert len(held_out(names[:1])) == 0 and len(held_out(["a", "b"])) == 1


def test_custom_template_of_all_subjects_as_obj(tmp_path: Path) -> None:
    written = write_custom(tmp_path, subjects=["anna"], seconds=0.3, n_vertices=50)
    shutil.rmtree(tmp_path / "templates")
    template_V3 = written["anna_001"].template_V3
    write_obj(tmp_path / "template.obj", template_V3, np.array([[0, 1, 2]]))
    data = open_face_data("custom", tmp_path)
    np.testing.assert_allclose(data.template("anna"), template_V3, atol=1e-6)
    assert tmp_path / "template.obj" in data.files()


def test_custom_missing_files_are_counted(copy) -> None:
    folder = copy("custom")
    (folder / "wav" / "anna_001.wav").unlink()
    (folder / "vertices" / "ben_002.npy").unlink()
    shutil.copyfile(folder / "wav" / "ben_001.wav", folder / "wav" / "carl_001.wav")
    data = open_face_data("custom", folder)
    assert data.skipped == {"recording missing": 1, "motion missing": 1, "not in dataset.json": 1}
    assert [clip.name for clip in data.clips] == ["anna_002", "anna_003", "ben_001", "ben_003"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("fps", 24, "fps 24; choose from"),
        ("fps", [30], "fps"),
        ("unit", "inch", "unit 'inch'; choose from m, cm, mm"),
        ("subjects", {}, "names no subject"),
        ("subjects", {"anna": "anna_001"}, "subjects must map"),
        ("subjects", {"anna": ["anna_001"], "ben": ["anna_001"]}, "lists clip anna_001 2 times"),
        ("split", {"validation": ["anna_001"]}, "split names validation"),
        ("split", {"valid": ["dora_001"]}, "split names dora_001"),
        ("split", {"test": ["anna_001"], "valid": ["anna_001"]}, "split lists clip anna_001 2 times"),
        ("subjects", {"dora": ["anna_001"]}, "dora.npy is missing; give each subject"),
        ("framerate", 30, "framerate"),
        ("fps", 30, "anna_001: 0.50 s of audio, but 1.67 s of motion at 30 fps"),
    ],
)  # fmt: skip
def test_a_wrong_description_says_what_is_wrong(copy, key: str, value, said: str) -> None:
    folder = copy("custom")
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    _set(folder / "vertices" / "anna_001.npy", lambda motion: np.concatenate([motion, motion[:20]]))
    path.write_text(json.dumps(description | {key: value}))
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        open_face_data("custom", folder)


def test_custom_without_clips_says_why(copy) -> None:
    folder = copy("custom")
    shutil.rmtree(folder / "wav")
    with pytest.raises(ValueError, match="no clip has both its wav and its vertices .*'recording missing': 6"):
        open_face_data("custom", folder)


def test_custom_meshes_must_be_one(copy) -> None:
    folder = copy("custom")
    _set(folder / "templates" / "ben.npy", lambda template: template[:-1])
    with pytest.raises(ValueError, match="template of ben: 299 vertices, that of anna has 300"):
        open_face_data("custom", folder)


def test_every_file_that_is_read_is_hashed(corpora) -> None:
    for name, n_files in (("vocaset", 4), ("vocaset exported", 13), ("biwi", 2 + 4 + 40), ("biwi exported", 9)):
        files = open_face_data(_kind(name), corpora[name][0]).files()
        assert len(files) == n_files and all(path.is_file() for path in files)
    assert len(open_face_data("custom", corpora["custom"][0]).files()) == 1 + 2 + 6 + 6
