# SPDX-License-Identifier: GPL-3.0-or-later
"""The csv table: its seconds, frames and values are the motion's; a failed write leaves no file."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.curve_table import save_table

from .made_up_motions import as_motion, wandering  # noqa: TID252


def test_rows_are_the_motion(tmp_path):
    motion = as_motion(wandering(48, 3), fps=24000 / 1001)
    save_table(motion, tmp_path / "a.csv", first_frame=101)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["time", "frame", *motion.channels]
    table = np.array(rows, dtype=float)
    np.testing.assert_allclose(table[:, 0], np.arange(48) * 1001 / 24000, atol=1e-6)
    np.testing.assert_array_equal(table[:, 1], np.arange(101, 149))
    np.testing.assert_allclose(table[:, 2:], motion.weights_TK, atol=1e-6)


def test_a_folder_that_is_not_there_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv cannot be written .* choose another folder"):
        save_table(as_motion(wandering(5)), tmp_path / "nowhere" / "a.csv")
    assert list(tmp_path.iterdir()) == []
