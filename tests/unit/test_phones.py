# SPDX-License-Identifier: GPL-3.0-or-later
"""Phones over time: validation, spans with their times and confidence, the table, and what a motion does with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.frame_timing import HOP_SAMPLES, RECEPTIVE_FIELD_SAMPLES
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.phones import PHONES, Phones, is_phone_table
from wav2sem_blender.pipeline.retarget import prepared, resample, shift
from wav2sem_blender.pipeline.visemes import OCULUS, as_visemes


def heard(*runs: tuple[str, int, float], names=("SIL", "TH", "L"), **timing) -> Phones:
    """Runs of (phone, frames, its probability); the others share the rest."""
    rows = []
    for name, n_frames, share in runs:
        row_P = np.full(len(names), (1 - share) / (len(names) - 1))
        row_P[names.index(name)] = share
        rows += [row_P] * n_frames
    return Phones(names=names, posteriors_LP=np.array(rows), **timing)


def test_there_are_39_phones_and_silence():
    assert len(PHONES) == len(set(PHONES)) == 40
    assert PHONES[0] == "SIL"


def test_spans_have_times_and_confidence():
    spans = heard(("SIL", 10, 1.0), ("TH", 5, 0.75), ("TH", 5, 0.5), ("L", 4, 0.875)).spans()
    assert [span.name for span in spans] == ["SIL", "TH", "L"]
    # Frame l hears samples 320 l to 320 l + 400.
    first_s = RECEPTIVE_FIELD_SAMPLES / 2 / 16_000
    bounds = [first_s + (frame - 0.5) * HOP_SAMPLES / 16_000 for frame in (0, 10, 20, 24)]
    np.testing.assert_allclose([span.start_s for span in spans], bounds[:-1], atol=1e-9)
    np.testing.assert_allclose([span.end_s for span in spans], bounds[1:], atol=1e-9)
    np.testing.assert_allclose([span.confidence for span in spans], [1.0, 0.625, 0.875], atol=1e-3)


@pytest.mark.parametrize(
    ("n_frames", "share", "is_kept"),
    [(1, 0.6, False), (1, 0.9999, True), (2, 0.6, False), (2, 0.9, True), (4, 0.6, True)],
)
def test_a_flicker_is_no_phone(n_frames, share, is_kept):
    spans = heard(("SIL", 8, 0.9), ("TH", n_frames, share), ("SIL", 8, 0.9)).spans()
    assert [span.name for span in spans] == (["SIL", "TH", "SIL"] if is_kept else ["SIL"])


def test_the_path_is_the_likeliest():
    """Against every possible path of six frames."""
    random = np.random.default_rng(3)
    for _ in range(5):
        posteriors_LP = random.dirichlet([0.5] * 3, size=6).astype(np.float16)
        phones = Phones(names=("SIL", "TH", "L"), posteriors_LP=posteriors_LP)
        paths_NL = np.stack(np.meshgrid(*[np.arange(3)] * 6, indexing="ij"), -1).reshape(-1, 6)
        log_LP = np.log(np.maximum(posteriors_LP.astype(float), 1e-4))
        score_N = log_LP[np.arange(6), paths_NL].sum(1) - 2.0 * (np.diff(paths_NL) != 0).sum(1)
        best_L = paths_NL[score_N.argmax()]
        expected = [phones.names[best_L[i]] for i in range(6) if i == 0 or best_L[i] != best_L[i - 1]]
        assert [span.name for span in phones.spans()] == expected


def test_no_frames_have_no_spans():
    assert Phones(posteriors_LP=np.zeros((0, 40))).spans() == ()


def test_speed_and_delay_move_the_spans():
    phones = heard(("SIL", 10, 0.9), ("TH", 10, 0.9))
    start_s = phones.spans()[1].start_s
    assert phones.at_speed(2.0).spans()[1].start_s == pytest.approx(start_s / 2)
    assert phones.at_speed(2.0).spans()[1].end_s == pytest.approx(phones.spans()[1].end_s / 2)
    assert phones.later(-0.1).spans()[1].start_s == pytest.approx(start_s - 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("SIL", "TH")}, "shape"),
        ({"names": ("SIL", "TH", "TH")}, "different"),
        ({"names": ("SIL", "TH", "")}, "non-empty"),
        ({"posteriors_LP": np.full((4, 3), 1.5)}, "outside 0 to 1"),
        ({"posteriors_LP": np.full((4, 3), np.nan)}, "outside 0 to 1"),
        ({"posteriors_LP": np.zeros(3)}, "shape"),
        ({"posteriors_LP": np.full((4, 3), "a")}, "shape"),
        ({"rate_hz": 0.0}, "frames per second"),
        ({"first_s": np.inf}, "frames per second"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        replace(heard(("SIL", 4, 0.9)), **change)


def test_the_table(tmp_path):
    path = tmp_path / "phones.tsv"
    path.touch()
    assert is_phone_table(path)
    heard(("SIL", 10, 1.0), ("TH", 10, 0.75), first_s=0.0).save_table(path)
    assert path.read_text() == ("start_s\tend_s\tphone\tconfidence\n0.000\t0.190\tSIL\t1.00\n0.190\t0.390\tTH\t0.75\n")
    assert is_phone_table(path)
    path.write_text("my notes\n")
    assert not is_phone_table(path)


@pytest.fixture
def motion() -> Motion:
    jaw_T = 0.5 - 0.5 * np.cos(np.arange(31))
    return Motion(
        weights_TK=jaw_T[:, None], channels=("jawOpen",), fps=30.0, phones=heard(("SIL", 20, 0.9), ("L", 29, 0.9))
    )


def test_a_motion_keeps_its_phones_in_its_file(motion, tmp_path):
    motion = replace(motion, phones=motion.phones.at_speed(1.5))
    motion.save(tmp_path / "line.npz")
    loaded = Motion.load(tmp_path / "line.npz").phones
    assert (loaded.names, loaded.rate_hz, loaded.first_s) == (("SIL", "TH", "L"), 75.0, pytest.approx(0.0125 / 1.5))
    assert loaded.posteriors_LP.dtype == np.float16
    np.testing.assert_array_equal(loaded.posteriors_LP, motion.phones.posteriors_LP)
    replace(motion, phones=None).save(tmp_path / "none.npz")
    assert Motion.load(tmp_path / "none.npz").phones is None
    with np.load(tmp_path / "line.npz") as file:
        assert file["format_version"] == 1, "earlier releases read the curves"


def test_damaged_phones_are_refused(motion, tmp_path):
    motion.save(tmp_path / "line.npz")
    with np.load(tmp_path / "line.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "half.npz", **{name: value for name, value in arrays.items() if name != "phone_timing"})
    with pytest.raises(UserError, match="phone_timing"):
        Motion.load(tmp_path / "half.npz")
    np.savez(tmp_path / "wrong.npz", **{**arrays, "phone_timing": np.zeros(5)})
    with pytest.raises(UserError, match="damaged"):
        Motion.load(tmp_path / "wrong.npz")


def test_phones_follow_what_is_done_to_the_motion(motion):
    start_s = motion.phones.spans()[1].start_s
    assert shift(motion, 100).phones.spans()[1].start_s == pytest.approx(start_s + 0.1)
    assert resample(motion, 24.0).phones.spans()[1].start_s == pytest.approx(start_s)
    assert motion.at_speed(2.0).phones.spans()[1].start_s == pytest.approx(start_s / 2)
    assert motion.at_speed(2.0).fps == 60.0
    assert prepared(motion, strength=0.5, smoothing_s=0.1).phones is motion.phones
    assert as_visemes(motion, OCULUS).phones is motion.phones
