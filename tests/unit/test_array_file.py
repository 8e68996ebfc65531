# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays are written whole or not at all, and a full disk is told once."""

from __future__ import annotations

import errno
import gc
import io

import numpy as np
import pytest

from wav2sem_blender.pipeline.array_file import read_arrays, write_arrays


def test_what_is_written_is_read(tmp_path):
    arrays = {"weights": np.arange(6.0).reshape(2, 3), "names": np.array(["jawOpen", "口"])}
    with (tmp_path / "a.npz").open("xb") as file:
        write_arrays(file, **arrays)
    read = read_arrays(tmp_path / "a.npz")
    assert read.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(read[name], value)


class FullDisk(io.BytesIO):
    """Holds 1,000 bytes."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_is_one_error(monkeypatch):
    complaints = []
    monkeypatch.setattr("sys.unraisablehook", complaints.append)
    with pytest.raises(OSError, match="No space left"), FullDisk() as disk:
        write_arrays(disk, weights=np.zeros(10_000))
    gc.collect()
    assert not complaints
