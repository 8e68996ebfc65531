# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows of a host's motion: together they are the recording, and they meet without a seam."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from wav2sem_blender.pipeline.nn.long_recordings import cross_faded, window_starts  # noqa: E402


@pytest.mark.parametrize("n_frames", [1, 10, 11, 13, 20, 37, 100])
def test_windows_overlap_enough_and_end_with_the_recording(n_frames: int) -> None:
    starts = window_starts(n_frames, 10, 3)
    assert starts[0] == 0 and min(starts[-1] + 10, n_frames) == n_frames
    assert all(before + 10 - start >= 3 for before, start in zip(starts, starts[1:], strict=False))
    assert len(starts) == (1 if n_frames <= 10 else -(-(n_frames - 3) // 7))


def test_equal_windows_fade_into_themselves_and_others_from_one_to_the_next() -> None:
    done: list[float] = []

    def same(start, stop, progress):
        progress(1.0)
        return torch.arange(start, stop).float()[None, :, None].expand(2, -1, 3)

    whole = cross_faded(24, same, done.append, longest=10, overlap=3)
    assert torch.allclose(whole, torch.arange(24).float()[None, :, None].expand(2, 24, 3))
    assert done == pytest.approx([1 / 3, 2 / 3, 1])

    made = iter([0.0, 1.0])
    faded = cross_faded(
        17, lambda start, stop, _: torch.full((1, stop - start, 1), next(made)), None, longest=10, overlap=3
    )
    assert faded[0, :, 0].tolist() == pytest.approx([0] * 7 + [0.25, 0.5, 0.75] + [1] * 7)


def test_a_short_recording_is_one_window_as_it_is() -> None:
    motion = torch.randn(1, 8, 3)
    assert torch.equal(cross_faded(8, lambda *_: motion, None, longest=10, overlap=3), motion)
