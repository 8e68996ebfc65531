# SPDX-License-Identifier: GPL-3.0-or-later
"""Exact values of motion.py and retarget.py: files read back, what is refused, extremes and closures that are kept."""

from __future__ import annotations

import csv
import dataclasses
import zipfile

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS, Motion, is_motion_file
from wav2sem_blender.pipeline.retarget import prepared, resample, smooth
from wav2sem_blender.pipeline.visemes import closures

from .made_up_motions import as_motion, wandering  # noqa: TID252

RNG = np.random.default_rng(12)


class TestFiles:
    @pytest.mark.parametrize("fps", [0.4, 24000 / 1001, 60])
    @pytest.mark.parametrize("n_frames", [0, 1, 131])
    def test_a_csv_has_every_weight_and_frame_again(self, tmp_path, fps, n_frames):
        channels = tuple(RNG.permutation(ARKIT_CHANNELS)[:23].tolist())
        weights_TK = RNG.normal(size=(n_frames, 23)).astype(np.float32)
        Motion(weights_TK=weights_TK, channels=channels, fps=fps).save(tmp_path / "x.csv")
        with (tmp_path / "x.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        read_TK = [[float(row[name[0].upper() + name[1:]]) for name in channels] for row in rows]
        np.testing.assert_allclose(np.reshape(read_TK, (-1, 23)), weights_TK.clip(0, 1), atol=5.1e-9)
        base = max(1, round(fps))
        fields = [[int(field) for field in row["Timecode"].split(".")[0].split(":")] for row in rows]
        frames = [((hour * 60 + minute) * 60 + second) * base + frame for hour, minute, second, frame in fields]
        assert frames == list(range(n_frames)) and all(frame < base for *_, frame in fields)

    def test_which_files_may_be_written_anew(self, tmp_path):
        path = tmp_path / "x"
        path.write_bytes(b"")
        assert is_motion_file(path), "an empty file is nobody's"
        for suffix in ("npz", "csv"):
            Motion(weights_TK=np.ones((2, 1)), channels=("jawOpen",), fps=25).save(tmp_path / f"x.{suffix}")
            assert is_motion_file(tmp_path / f"x.{suffix}")
        header, *rows = (tmp_path / "x.csv").read_bytes().splitlines(keepends=True)
        taken = [row.replace(b"00:00:00:0", b"13:07:41:0") for row in rows]
        for content in (b"a", header, header + b"".join(taken), b"x" + header + b"".join(rows), b"".join(rows)):
            path.write_bytes(content)
            assert not is_motion_file(path)
        np.savez(tmp_path / "other.npz", format_version=1, weights_TK=np.zeros((1, 1)))
        assert not is_motion_file(tmp_path / "other.npz")

    @pytest.mark.parametrize(
        ("n_unknown", "named"), [(1, "key_0;"), (3, "key_0, key_1, key_2;"), (4, "key_0, key_1, key_2,? …;")]
    )
    def test_up_to_three_channels_without_a_column_are_named(self, tmp_path, n_unknown, named):
        channels = ("jawOpen", *(f"key_{n}" for n in range(n_unknown)))
        with pytest.raises(UserError, match=f"no column for {named}"):
            Motion(weights_TK=np.zeros((1, len(channels))), channels=channels, fps=30).save(tmp_path / "x.csv")

    @pytest.mark.parametrize("name", ["x.txt", "x.bvh", "x.npy", "x.zip", "x"])
    def test_other_suffixes(self, tmp_path, name):
        with pytest.raises(UserError, match=r"saved as \.npz or \.csv"):
            as_motion(np.zeros((1, 1))).save(tmp_path / name)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("version", [0, 2])
    def test_only_this_format_is_read(self, tmp_path, version):
        as_motion(np.zeros((1, 1))).save(tmp_path / "x.npz")
        arrays = dict(np.load(tmp_path / "x.npz"))
        np.savez(tmp_path / "x.npz", **{**arrays, "format_version": version})
        with pytest.raises(UserError, match=f"motion format {version}; this version reads format 1"):
            Motion.load(tmp_path / "x.npz")

    def test_the_cause_is_the_first_line_of_what_went_wrong(self, tmp_path, monkeypatch):
        for content in (b"", b"AB", b"PL", bytes([128])):
            (tmp_path / "x.npz").write_bytes(content)
            with pytest.raises(UserError, match=r"damaged, or no motion file \(it is not an npz archive\)"):
                Motion.load(tmp_path / "x.npz")

        def load(*arguments, **options):
            raise ValueError("the first line.\nthe second")

        (tmp_path / "x.npz").write_bytes(b"PK")
        monkeypatch.setattr(zipfile, "ZipFile", load)
        with pytest.raises(UserError, match=r"damaged, or no motion file \(the first line\)"):
            Motion.load(tmp_path / "x.npz")


class TestMotion:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weights_TK": np.zeros((4, 2, 1))}, r"weights_TK has the shape \(4, 2, 1\)"),
            ({"weights_TK": np.zeros((4, 1))}, "1 columns but there are 2 channels"),
            ({"weights_TK": np.zeros((4, 3))}, "3 columns but there are 2 channels"),
            ({"basis_KV3": np.zeros((2, 5, 4))}, r"\(2, 5, 4\); \(2, vertices, 3\)"),
            ({"basis_KV3": np.zeros((3, 5, 3))}, r"\(3, 5, 3\); \(2, vertices, 3\)"),
            ({"channels": ("b", "a", "b", "a")}, "channel a occurs twice"),
            ({"fps": -0.5}, "fps is -0.5"),
        ],
    )
    def test_what_does_not_fit(self, change, message):
        with pytest.raises(UserError, match=message):
            Motion(**{"weights_TK": np.zeros((4, 2)), "channels": ("a", "b"), "fps": 30.0, **change})

    def test_hundreds_of_channels(self):
        motion = as_motion(np.ones((2, 300)), n_vertices=4)
        np.testing.assert_allclose(motion.vertex_offsets()[1], motion.basis_KV3.sum(axis=0), atol=1e-5)

    def test_it_is_a_value_that_nobody_changes(self):
        motion, same = as_motion(np.zeros((7, 1))), as_motion(np.zeros((7, 1)))
        assert motion.duration_s == pytest.approx(7 / 30) and as_motion(np.zeros((3, 1)), fps=0.5).duration_s == 6.0
        assert motion != same and len({motion, same}) == 2, "arrays have no single answer to =="
        with pytest.raises(dataclasses.FrozenInstanceError):
            motion.fps = 25.0
        with pytest.raises(TypeError):
            Motion(np.zeros((1, 1)), ("a",), 30)


class TestResample:
    @pytest.mark.parametrize("fps", [7, 10, 24000 / 1001, 25])
    def test_wide_peaks_and_valleys_are_kept_exactly(self, fps):
        """Slopes of six frames, so that a slope is not a turn; turns lie further apart than new frames."""
        heights = RNG.uniform(0.5, 1, 60) * np.tile([1, -1], 30)
        curve_T = np.interp(np.arange(12 * 59 + 1), 12 * np.arange(60), heights).astype(np.float32)
        out_T = resample(as_motion(curve_T), fps).weights_TK[:, 0]
        for n in range(1, 59):
            at = int(np.rint(12 * n / 30 * fps))
            assert out_T[at] == curve_T[12 * n]
        plain_T = np.interp(np.arange(len(out_T)) * 30 / fps, np.arange(len(curve_T)), curve_T)
        turns = np.rint(12 * np.arange(1, 59) / 30 * fps).astype(int)
        between = np.delete(np.arange(len(out_T)), turns)
        np.testing.assert_allclose(out_T[between], plain_T[between], atol=1e-6)

    @pytest.mark.parametrize(("peak", "valley", "kept"), [(0.8, 0.1, 0.1), (0.9, 0.3, 0.9), (-0.15, -0.95, -0.95)])
    def test_of_two_extremes_on_one_frame_the_one_that_would_be_missed_most(self, peak, valley, kept):
        curve_T = np.linspace(0.4, 0.6, 31) if peak > 0 else np.linspace(-0.6, -0.4, 31)
        middle = curve_T[15]
        curve_T[14], curve_T[16] = peak, valley
        out_T = resample(as_motion(curve_T, fps=60), 20).weights_TK[:, 0]
        assert out_T[5] == np.float32(kept) and middle == pytest.approx(0.5 * np.sign(peak))

    def test_extremes_beside_the_ends(self):
        curve_T = np.full(31, 0.5)
        curve_T[1], curve_T[29] = 0.0, 1.0
        out_T = resample(as_motion(curve_T, fps=60), 20).weights_TK[:, 0]
        assert len(out_T) == 10 and out_T[0] == 0.0
        np.testing.assert_allclose(out_T[1:], 0.5)  # the second one lies on a frame that the motion no longer has
        with pytest.raises(UserError, match="shift of inf ms"):
            resample(as_motion(curve_T), 30, later_s=float("inf"))


class TestSmooth:
    @pytest.mark.parametrize("seconds", [0.03, 0.1, 0.3])
    def test_without_closures_it_is_a_gaussian(self, seconds):
        curve_T = wandering(200, 1)[:, 0].astype(np.float32)
        sigma = seconds * 30 / np.sqrt(8 * np.log(2))
        lags = np.arange(-100, 101)
        kernel = np.exp(-0.5 * (lags / sigma) ** 2)
        expected_T = np.convolve(np.pad(curve_T, 100, mode="edge"), kernel / kernel.sum(), mode="valid")
        np.testing.assert_allclose(smooth(as_motion(curve_T), seconds).weights_TK[:, 0], expected_T, atol=1e-4)

    @pytest.mark.parametrize("opening", [0.0, 0.03, 0.04])
    @pytest.mark.parametrize("seconds", [0.05, 0.1])
    def test_a_closure_keeps_the_pose_by_how_closed_and_how_near_it_is(self, opening, seconds):
        jaw_T = 0.5 + 0.05 * np.sin(np.arange(121))
        jaw_T[60] = opening
        motion = Motion(weights_TK=jaw_T[:, None], channels=("jawOpen",), fps=30)
        closed_T = closures(motion)
        assert closed_T[60] > 0.05 and not np.delete(closed_T, 60).any()
        smoothed_T = smooth(as_motion(jaw_T), seconds).weights_TK[:, 0]
        sigma = seconds * 30 / 2.3548
        kept_T = min(1, 2 * closed_T[60]) * np.exp(-0.5 * ((np.arange(121) - 60) / sigma) ** 2)
        kept_T[np.abs(np.arange(121) - 60) > np.ceil(4 * sigma)] = 0
        expected_T = smoothed_T + kept_T * (jaw_T - smoothed_T)
        np.testing.assert_allclose(smooth(motion, seconds).weights_TK[:, 0], expected_T, atol=1e-6)

    def test_what_the_settings_make_of_a_motion(self):
        motion = as_motion(wandering(60))
        out = prepared(motion, strength=1.5, smoothing_s=0.1)
        np.testing.assert_allclose(out.weights_TK, 1.5 * smooth(motion, 0.1).weights_TK, atol=1e-6)
        np.testing.assert_array_equal(prepared(motion).weights_TK, motion.weights_TK)
        with pytest.raises(TypeError):
            prepared(motion, 1.5)
