# SPDX-License-Identifier: GPL-3.0-or-later
"""LVE, MVE and FDD against figures worked out on paper, and their vertex lists."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from trainer.evaluation.metrics import ErrorTotals, SequenceErrors, sequence_errors
from trainer.evaluation.regions import (
    LIP_CHANNELS,
    LIP_MOTION_M,
    OWN_LISTS,
    find_regions,
    moved_vertices,
    write_own_lists,
)
from wav2sem_blender.assets import DEFAULT_MODEL
from wav2sem_blender.pipeline.checkpoint import ModelFolder

TEMPLATE = np.zeros((4, 3))
LIPS, UPPER = np.array([0, 1, 1]), np.array([2, 3, 3])  # with duplicates, like FLAME's lips


def moved(*frames: dict[int, tuple[float, float, float]]) -> np.ndarray:
    """Vertices (T, 4, 3) at rest except those named."""
    vertices_TV3 = np.zeros((len(frames), 4, 3))
    for frame, places in enumerate(frames):
        for vertex, place in places.items():
            vertices_TV3[frame, vertex] = place
    return vertices_TV3


def errors(predicted, truth, template=TEMPLATE) -> SequenceErrors:
    return sequence_errors(predicted, truth, template, LIPS, UPPER)


def test_lve_is_the_mean_of_the_largest_squared_lip_distance() -> None:
    predicted = moved({0: (3, 4, 0), 1: (1, 0, 0), 2: (9, 9, 9)}, {1: (0, 0, 2)})
    measured = errors(predicted, moved({}, {}))
    assert measured.lve == pytest.approx((25 + 4) / 2)  # no root, and without the upper face


def test_mve_is_the_mean_distance_of_all_vertices() -> None:
    measured = errors(moved({0: (3, 4, 0), 2: (0, 0, 1)}, {}), moved({}, {}))
    assert measured.mve == pytest.approx((5 + 1) / 8)


def test_fdd_is_signed_squared_and_of_the_population() -> None:
    # Vertex 2 moves by 0 and 2: squared 0 and 4, population std 2. Vertex 3 by 1 and 3: squared 1 and 9, std 4.
    truth = moved({3: (1, 0, 0)}, {2: (0, 2, 0), 3: (0, 0, 3)})
    expected = (2 + 4 + 4) / 3  # vertex 3 is listed twice
    assert errors(moved({}, {}), truth).fdd == pytest.approx(expected)
    assert errors(truth, moved({}, {})).fdd == pytest.approx(-expected)


def test_displacements_are_from_the_template() -> None:
    template = np.full((4, 3), 5.0)
    truth = template + moved({}, {2: (0, 2, 0)})
    assert errors(np.stack([template, template]), truth, template).fdd == pytest.approx(2 / 3)


def test_sequences_are_cut_to_the_shorter() -> None:
    short, long = moved({0: (1, 0, 0)}), moved({}, {0: (100, 0, 0)}, {2: (100, 0, 0)})
    for pair in ((short, long), (long, short)):
        measured = errors(*pair)
        assert (measured.n_frames, measured.lve, measured.mve, measured.fdd) == (1, 1.0, 0.25, 0.0)


def test_a_perfect_prediction_has_no_error_at_all() -> None:
    truth = np.random.default_rng(0).standard_normal((7, 4, 3)).astype(np.float32)
    assert errors(truth, truth) == SequenceErrors(n_frames=7, lve=0.0, mve=0.0, fdd=0.0)


def test_both_poolings() -> None:
    totals = ErrorTotals()
    totals.add(SequenceErrors(n_frames=1, lve=4.0, mve=2.0, fdd=-1.0))
    totals.add(SequenceErrors(n_frames=3, lve=8.0, mve=6.0, fdd=3.0))
    assert totals.means() == {
        "lve_frames": 7.0,
        "lve_sequences": 6.0,
        "mve_frames": 5.0,
        "mve_sequences": 4.0,
        "fdd": 1.0,
        "fdd_abs": 2.0,
    }
    assert totals.n_frames == 4
    with pytest.raises(ValueError, match="no sequence was measured"):
        ErrorTotals().means()


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.zeros((2, 3, 3)), np.zeros((2, 4, 3)), r"prediction has shape \(2, 3, 3\); .* needs \(frames, 4, 3\)"),
        (np.zeros((2, 4, 3)), np.zeros((2, 12)), "truth has shape"),
        (np.zeros((0, 4, 3)), np.zeros((2, 4, 3)), "no frames"),
        (np.full((2, 4, 3), np.nan), np.zeros((2, 4, 3)), "NaN or infinite"),
    ],
)
def test_what_cannot_be_compared_is_refused(predicted, truth, message) -> None:
    with pytest.raises(ValueError, match=message):
        errors(predicted, truth)


def test_a_region_of_another_mesh_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lips .* outside 0 … 3"):
        sequence_errors(np.zeros((1, 4, 3)), np.zeros((1, 4, 3)), TEMPLATE, np.array([4]), UPPER)


def test_lists_are_read_with_either_separator(tmp_path: Path) -> None:
    (tmp_path / "regions").mkdir()
    (tmp_path / "regions" / "lve.txt").write_text("2, 6, 6, 9")
    (tmp_path / "regions" / "fdd.txt").write_text("1,2,3\n")
    regions = find_regions(tmp_path, "biwi", 10)
    assert regions.lips.indices_R.tolist() == [2, 6, 6, 9] and regions.upper.indices_R.tolist() == [1, 2, 3]
    assert str(regions.lips) == "lve.txt, 4 vertices (3 distinct)" and str(regions.upper) == "fdd.txt, 3 vertices"


@pytest.mark.parametrize(("text", "message"), [("1, x", "separated by commas"), ("", "commas"), ("1, 10", "another")])
def test_unusable_lists_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "lve.txt").write_text(text)
    (tmp_path / "fdd.txt").write_text("1")
    with pytest.raises(ValueError, match=rf"lve.txt: .*{message}"):
        find_regions(tmp_path, "biwi", 10)


def test_two_lists_of_one_kind_are_ambiguous(tmp_path: Path) -> None:
    for name in ("lve.txt", "my_lve.txt", "fdd.txt"):
        (tmp_path / name).write_text("1")
    with pytest.raises(ValueError, match="lve.txt and my_lve.txt: keep one"):
        find_regions(tmp_path, "biwi", 10)


def test_flame_masks_come_before_our_own_list(tmp_path: Path) -> None:
    masks = {"lips": np.array([5, 4, 4]), "forehead": np.array([1, 2]), "eye_region": np.array([2, 3])}
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, protocol=2))
    regions = find_regions(tmp_path, "flame", 5023)
    assert regions.lips.indices_R.tolist() == [5, 4, 4] and regions.upper.indices_R.tolist() == [1, 2, 3]
    assert str(regions.lips) == "FLAME_masks.pkl lips, 3 vertices (2 distinct)"
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps({"lips": [1]}, protocol=2))
    with pytest.raises(ValueError, match="lips, forehead and eye_region are needed"):
        find_regions(tmp_path, "flame", 5023)


def test_without_any_list_flame_has_ours_and_other_meshes_a_remedy(tmp_path: Path) -> None:
    regions = find_regions(tmp_path, "flame", 5023)
    assert str(regions.lips) == "our own list (flame_regions.json), lips, 293 vertices"
    assert str(regions.upper) == "our own list (flame_regions.json), upper face, 1095 vertices"
    assert not set(regions.lips.indices_R) & set(regions.upper.indices_R)
    assert regions.upper.indices_R.max() < 3931, "eyeballs are no upper face"
    with pytest.raises(FileNotFoundError, match=r"put lve.txt .* BIWI/regions"):
        find_regions(tmp_path, "biwi", 23370)


def test_our_lips_are_those_of_the_bundled_basis() -> None:
    folder = ModelFolder.open(DEFAULT_MODEL)
    basis_KV3 = folder.basis()
    assert basis_KV3 is not None
    lips = moved_vertices(folder.config.channels, basis_KV3, LIP_CHANNELS, LIP_MOTION_M)
    assert lips == json.loads(OWN_LISTS.read_text())["lips"]


def test_our_lists_are_written_from_a_basis(tmp_path: Path) -> None:
    names = ("jawOpen", "mouthRollLower", "mouthRollUpper", "browInnerUp", "eyeBlinkLeft", "eyeLookUpLeft")
    basis_KV3 = np.zeros((6, 5, 3))
    for channel, vertex in enumerate((0, 1, 2, 3, 4, 0)):
        basis_KV3[channel, vertex, 1] = 0.005
    np.savez(tmp_path / "basis.npz", names=np.array(names), basis_KV3=basis_KV3)
    write_own_lists(tmp_path / "basis.npz", tmp_path / "lists.json")
    written = json.loads((tmp_path / "lists.json").read_text())
    assert (written["lips"], written["upper"]) == ([1, 2], [3, 4])
