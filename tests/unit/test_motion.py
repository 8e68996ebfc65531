# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: round trips, Live Link Face columns, and errors for damaged files."""

from __future__ import annotations

import csv
import pickle
import stat

import numpy as np
import pytest

from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline import motion as motion_module
from wav2sem_blender.pipeline.motion import ARKIT_CHANNELS, Motion

RNG = np.random.default_rng(7)


def random_motion(n_frames=17, channels=("jawOpen", "mouthPucker", "mouthSmileLeft"), fps=30.0, n_vertices=5, **fields):
    weights_TK = RNG.normal(size=(n_frames, len(channels))).astype(np.float32)
    basis_KV3 = RNG.normal(size=(len(channels), n_vertices, 3)).astype(np.float32) if n_vertices else None
    return Motion(weights_TK=weights_TK, channels=channels, fps=fps, basis_KV3=basis_KV3, **fields)


@pytest.mark.parametrize("n_frames", [0, 1, 31, 1777])
@pytest.mark.parametrize("n_vertices", [0, 7])
def test_npz_round_trip_is_exact(tmp_path, n_frames, n_vertices):
    motion = random_motion(
        n_frames, fps=24000 / 1001, n_vertices=n_vertices, info={"audio": "größe 声.wav", "notes": "a\nb"}
    )
    motion.save(tmp_path / "x.npz")
    loaded = Motion.load(tmp_path / "x.npz")
    assert loaded.weights_TK.tobytes() == motion.weights_TK.tobytes()
    assert loaded.weights_TK.shape == (n_frames, 3)
    assert loaded.channels == motion.channels
    assert loaded.fps == motion.fps
    assert loaded.info == motion.info
    assert (loaded.basis_KV3 is None) == (n_vertices == 0)
    if n_vertices:
        assert loaded.basis_KV3.tobytes() == motion.basis_KV3.tobytes()


def test_saving_leaves_one_ordinary_file_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")
    random_motion().save(path)
    Motion.load(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.npz"]
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(motion_module.np, "savez", full)
    with pytest.raises(UserError, match=r"x\.npz cannot be written \(No space left on device\)"):
        random_motion().save(path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_an_error_with_the_path(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        random_motion().save(tmp_path / "nowhere" / "x.npz")


def test_vertex_offsets_are_the_weighted_sum():
    motion = random_motion(11, n_vertices=9)
    expected = np.einsum("tk,kvc->tvc", motion.weights_TK.astype(float), motion.basis_KV3.astype(float))
    assert motion.vertex_offsets().dtype == np.float32
    np.testing.assert_allclose(motion.vertex_offsets(), expected, atol=1e-5)
    np.testing.assert_allclose(motion.vertex_offsets(3, 6), expected[3:6], atol=1e-5)
    assert random_motion(n_vertices=0).vertex_offsets() is None


def test_duration_counts_the_last_frame():
    assert random_motion(300, fps=30).duration_s == 10.0
    assert random_motion(0).duration_s == 0.0


def test_other_number_types_become_float32():
    motion = Motion(weights_TK=[[0, 1], [1, 0]], channels=["a", "b"], fps=30)
    assert motion.weights_TK.dtype == np.float32 and motion.channels == ("a", "b") and motion.fps == 30.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_TK": np.zeros(3)}, "weights_TK has the shape"),
        ({"weights_TK": np.zeros((4, 2))}, "2 columns but there are 3 channels"),
        ({"weights_TK": np.full((4, 3), np.nan)}, "NaN"),
        ({"weights_TK": np.full((4, 3), 1e300)}, "too large"),
        ({"weights_TK": np.array([["a", "b", "c"]])}, "numbers"),
        ({"channels": ("a", "b", "a")}, "channel a occurs twice"),
        ({"channels": ("a", "", "c")}, "non-empty"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"basis_KV3": np.zeros((2, 5, 3))}, r"\(3, vertices, 3\)"),
        ({"basis_KV3": np.zeros((3, 5, 2))}, r"\(3, vertices, 3\)"),
        ({"info": {"a": 1}}, "info"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    fields = {"weights_TK": np.zeros((4, 3)), "channels": ("a", "b", "c"), "fps": 30.0}
    with pytest.raises(UserError, match=message):
        Motion(**{**fields, **change})


class TestLiveLinkFace:
    def read(self, path):
        with path.open(newline="") as file:
            return list(csv.reader(file))

    def test_columns_and_values(self, tmp_path):
        channels = ("mouthPucker", "eyeBlinkLeft", "tongueOut")
        motion = random_motion(4, channels)
        motion.save(tmp_path / "x.csv")
        header, *rows = self.read(tmp_path / "x.csv")
        assert header[:4] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft"]
        assert header[16:20] == ["JawForward", "JawRight", "JawLeft", "JawOpen"]
        assert header[-10:] == [
            *("TongueOut", "HeadYaw", "HeadPitch", "HeadRoll"),
            *("LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch", "RightEyeRoll"),
        ]
        assert len(header) == 63 and len(rows) == 4
        for row, weights_K in zip(rows, motion.weights_TK, strict=True):
            assert row[1] == "61"
            values = dict(zip(header[2:], map(float, row[2:]), strict=True))
            for name, weight in zip(("MouthPucker", "EyeBlinkLeft", "TongueOut"), weights_K, strict=True):
                assert values.pop(name) == pytest.approx(weight.clip(0, 1), abs=1e-8)
            assert set(values.values()) == {0.0}

    @pytest.mark.parametrize(
        ("fps", "frame", "timecode"),
        [
            (30, 0, "00:00:00:00.000"),
            (30, 29, "00:00:00:29.000"),
            (30, 30, "00:00:01:00.000"),
            (25, 25 * 61 + 3, "00:01:01:03.000"),
            (60, 60 * 3661 + 59, "01:01:01:59.000"),
            (24000 / 1001, 24, "00:00:01:00.000"),
        ],
    )
    def test_timecode(self, fps, frame, timecode):
        assert motion_module._timecode(frame, fps) == timecode

    def test_every_arkit_channel_has_its_own_column(self, tmp_path):
        motion = random_motion(2, ARKIT_CHANNELS[::-1], n_vertices=0)
        motion.save(tmp_path / "x.csv")
        rows = self.read(tmp_path / "x.csv")[1:]
        np.testing.assert_allclose(
            np.array(rows)[:, 2:54].astype(float), motion.weights_TK[:, ::-1].clip(0, 1), atol=1e-8
        )

    def test_other_channels_are_refused_with_a_remedy(self, tmp_path):
        with pytest.raises(UserError, match=r"no column for key_00, bias; save as \.npz"):
            random_motion(channels=("jawOpen", "key_00", "bias")).save(tmp_path / "x.csv")
        assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.npz or \.csv"):
        random_motion().save(tmp_path / "x.bvh")


def test_arkit_has_52_distinct_channels():
    assert len(set(ARKIT_CHANNELS)) == len(ARKIT_CHANNELS) == 52


def test_loading_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"x\.npz: there is no such motion file"):
        Motion.load(tmp_path / "x.npz")


def test_a_file_cut_anywhere_gives_one_value_error(tmp_path):
    path = tmp_path / "x.npz"
    random_motion(40).save(path)
    whole = path.read_bytes()
    for length in [0, 1, 2, 30, *RNG.integers(3, len(whole) - 1, 25)]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"x\.npz: damaged, or no motion file"):
            Motion.load(path)


def test_a_flipped_byte_never_gives_anything_but_a_value_error(tmp_path):
    path = tmp_path / "x.npz"
    random_motion(40).save(path)
    whole = path.read_bytes()
    for position in RNG.integers(0, len(whole), 80):
        broken = bytearray(whole)
        broken[position] ^= 0x55
        path.write_bytes(broken)
        try:
            Motion.load(path)  # a flip in a time stamp is harmless
        except ValueError as error:
            assert str(error).startswith("x.npz: ")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(UserError, match="'format_version' is missing"):
        Motion.load(path)
    path.write_bytes(pickle.dumps({"weights_TK": 1}))
    with pytest.raises(UserError, match="no motion file"):
        Motion.load(path)
    np.savez(path, format_version=1, weights_TK=np.array([{}], dtype=object), channels=["a"], fps=30.0, info="{}")
    with pytest.raises(UserError, match="no motion file"):
        Motion.load(path)


def test_a_newer_format_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(motion_module, "MOTION_FORMAT_VERSION", 2)
    random_motion().save(tmp_path / "x.npz")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"motion format 2; this version reads format 1\. Update"):
        Motion.load(tmp_path / "x.npz")
