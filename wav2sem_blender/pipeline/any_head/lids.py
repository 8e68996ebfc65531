# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the lids of a transferred blink meet and slide over the eyeball. NumPy only.

The transferred blink comes from an eye that is open by another amount. Its motion is therefore scaled, column by column
across the eye, until the edge of the upper lid ends on the edge of the lower lid. If the scale would be far from 1, the
eye is of another kind (drawn, or large): then the lids close along their own edges, turning about the eyeball's centre.

Metres in the template face's frame (x to the character's left, y up, z forward).

Shapes: N vertices of the skin, C columns across an eye.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

COLUMNS = np.linspace(0.2, 0.8, 7)  # between the inner corner of the eye (0) and the outer (1)
HALF_COLUMN, HALF_HEIGHT, BEHIND = 0.07, 0.8, 0.12  # in widths of the eye
# In each column the upper lid falls by at least the first part of the largest fall, the lower by at most the second.
FALLS, STAYS = 0.35, 0.15
ENOUGH_COLUMNS = 4
# The blink is scaled only if the scale is this near to 1 in at least this part of the columns.
NEAR_SCALE, NEAR_COLUMNS = 0.35, 2 / 3
# Of an eye closed along its own edges: the upper lid's share of the way; the reach of the motion beyond the edges, in
# largest openings of the eye; the distance of the eye's centre behind the corners, in its widths, if there is no ball.
UPPER_SHARE, UPPER_REACH, LOWER_REACH, MIDDLE_BEHIND = 0.85, 1.1, 0.7, 0.45
BEYOND_CORNER = 0.06  # the edges end this far beyond the corners, in widths of the eye: most corners are guessed
LID_CLEARANCE_M = 0.0004  # closed lids stay this far in front of the eyeball


@dataclass(frozen=True, kw_only=True, eq=False)
class Eyeball:
    """The centre (3,) and radius of an eyeball in metres."""

    centre_3: np.ndarray
    radius_m: float


def assumed_eyeball(marks: Mapping[str, np.ndarray], side: str) -> Eyeball:
    """The usual place of an eyeball, for a head that has none."""
    inner_3, outer_3 = marks[f"eye_inner_{side}"], marks[f"eye_outer_{side}"]
    behind_m = MIDDLE_BEHIND * float(np.linalg.norm(outer_3 - inner_3))
    return Eyeball(centre_3=(inner_3 + outer_3) / 2 - [0.0, 0.0, behind_m], radius_m=behind_m)


def close_lids(
    blink_N3: np.ndarray, points_N3: np.ndarray, marks: Mapping[str, np.ndarray], side: str, ball: Eyeball | None
) -> np.ndarray:
    """The displacement (N, 3) of a transferred blink, corrected so that the lids meet.

    Args:
        blink_N3: The skin's displacement at weight 1.
        points_N3: The skin at rest.
        marks: Landmark positions by name.
        side: "left" or "right".
        ball: The eyeball, or None.
    """
    inner_3, outer_3 = marks[f"eye_inner_{side}"], marks[f"eye_outer_{side}"]
    across_3 = outer_3 - inner_3
    width = float(np.linalg.norm(across_3))
    along_N = (points_N3 - inner_3) @ across_3 / width**2
    off_N3 = points_N3 - inner_3 - along_N[:, None] * across_3
    at_eye_N = (np.abs(off_N3[:, 1]) < HALF_HEIGHT * width) & (off_N3[:, 2] > -BEHIND * width)
    scales_C = _scales(along_N, points_N3[:, 1], blink_N3[:, 1], at_eye_N)
    near_C = np.abs(scales_C - 1) < NEAR_SCALE  # False for NaN
    if near_C.sum() >= max(ENOUGH_COLUMNS, NEAR_COLUMNS * np.isfinite(scales_C).sum()):
        curve = np.polynomial.Polynomial.fit(COLUMNS[near_C], scales_C[near_C], 2)
        scale_N = curve(np.clip(along_N, COLUMNS[near_C].min(), COLUMNS[near_C].max()))
        blink_N3 = blink_N3 * scale_N[:, None]
    else:
        fall_N = _by_shape(along_N, off_N3[:, 1], at_eye_N)
        if fall_N is not None:
            blink_N3 = _glide(points_N3, fall_N * at_eye_N, (ball or assumed_eyeball(marks, side)).centre_3)
    return blink_N3 if ball is None else _clear(blink_N3, points_N3, ball)


def _by_shape(along_N: np.ndarray, height_N: np.ndarray, at_eye_N: np.ndarray) -> np.ndarray | None:
    """The rise of each vertex (N,) that makes the edges of the lids meet; None if no edges are found.

    `height_N` is the height above the line between the corners of the eye.
    """
    edges: list[tuple[int, int]] = []
    for column in COLUMNS:
        here_N = at_eye_N & (np.abs(along_N - column) < HALF_COLUMN)
        upper, lower = np.flatnonzero(here_N & (height_N > 0)), np.flatnonzero(here_N & (height_N < 0))
        if len(upper) and len(lower):
            edges.append((upper[height_N[upper].argmin()], lower[height_N[lower].argmax()]))
    if len(edges) < ENOUGH_COLUMNS:
        return None
    top, bottom = np.array(edges).T
    inside_N = np.clip(along_N, -BEYOND_CORNER, 1.0 + BEYOND_CORNER)
    top_N, bottom_N = (_arch(along_N[edge], height_N[edge], inside_N) for edge in (top, bottom))
    opening_N = np.maximum(top_N - bottom_N, 0.0)
    greatest = float((height_N[top] - height_N[bottom]).max())
    above_N = _fade((height_N - top_N) / (UPPER_REACH * greatest))
    below_N = _fade((bottom_N - height_N) / (LOWER_REACH * greatest))
    is_upper_N = height_N > (top_N + bottom_N) / 2
    return np.where(is_upper_N, -UPPER_SHARE * above_N, (1 - UPPER_SHARE) * below_N) * opening_N


def _arch(at_C: np.ndarray, heights_C: np.ndarray, along_N: np.ndarray) -> np.ndarray:
    """A smooth curve (N,) that fits the heights of a lid's edge and ends at both corners."""

    def rows(at: np.ndarray) -> np.ndarray:
        ends = np.maximum((at + BEYOND_CORNER) * (1 + BEYOND_CORNER - at), 0.0)
        return np.stack([np.sqrt(ends), ends, ends * at], 1)  # a round eye has vertical edges at the corners

    found, *_ = np.linalg.lstsq(rows(at_C), heights_C, rcond=None)
    return rows(along_N) @ found


def _fade(x: np.ndarray) -> np.ndarray:
    """1 below 0, 0 above 1, smooth between."""
    t = np.clip(1 - x, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _glide(points_N3: np.ndarray, rise_N: np.ndarray, middle_3: np.ndarray) -> np.ndarray:
    """The displacement (N, 3) that raises each point at its distance from the centre of the eye."""
    out_N3 = points_N3 - middle_3
    raised_N3 = out_N3 + rise_N[:, None] * np.array([0.0, 1.0, 0.0])
    kept_N = np.linalg.norm(out_N3, axis=1) / np.maximum(np.linalg.norm(raised_N3, axis=1), 1e-9)
    return raised_N3 * kept_N[:, None] - out_N3


def _scales(along_N: np.ndarray, height_N: np.ndarray, rise_N: np.ndarray, at_eye_N: np.ndarray) -> np.ndarray:
    """The scale of the motion with which the lids meet in each column (C,); NaN where two lids are not found."""
    scales_C = np.full(len(COLUMNS), np.nan)
    for c, column in enumerate(COLUMNS):
        here = np.flatnonzero(at_eye_N & (np.abs(along_N - column) < HALF_COLUMN))
        if not len(here):
            continue
        fall = -rise_N[here]
        upper, lower = here[fall > FALLS * fall.max()], here[fall < STAYS * fall.max()]
        if not len(upper):
            continue
        top = upper[height_N[upper].argmin()]
        lower = lower[height_N[lower] < height_N[top]]
        if not len(lower):
            continue
        bottom = lower[height_N[lower].argmax()]
        closing = rise_N[bottom] - rise_N[top]
        if closing > 0:
            scales_C[c] = (height_N[top] - height_N[bottom]) / closing
    return scales_C


def _clear(moved_N3: np.ndarray, points_N3: np.ndarray, ball: Eyeball) -> np.ndarray:
    """Move skin that a motion brings into the eyeball out again, but no farther than it was at rest."""
    outward_N3 = points_N3 + moved_N3 - ball.centre_3
    distance_N = np.linalg.norm(outward_N3, axis=1)
    at_rest_N = np.linalg.norm(points_N3 - ball.centre_3, axis=1)
    least_N = np.minimum(at_rest_N, ball.radius_m + LID_CLEARANCE_M)
    push_N = np.maximum(least_N - distance_N, 0.0) * (np.linalg.norm(moved_N3, axis=1) > 0)
    return moved_N3 + outward_N3 * (push_N / np.maximum(distance_N, 1e-9))[:, None]
