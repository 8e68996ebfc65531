# SPDX-License-Identifier: GPL-3.0-or-later
"""The chosen sound's waveform in the panel, as wide as it.

A panel cannot draw, but a label can show an icon of any pixels: two rows of them, the sound above the axis and its
mirror image below, so close that they touch. At some scales they overlap by a part of a pixel, which full colours hide.
Shapes: W pixels across, P pixels up from the axis, N peaks.
"""

from __future__ import annotations

import itertools
from typing import Any

import bpy
import bpy.utils.previews
import numpy as np

from . import peaks
from .sidebar import room_px, ui_scale
from .sound_info import SoundInfo

# An icon's side in its own pixels, on the screen, and of the height of a row, which leaves room around it.
TILE_PX = 32
_ICON_PT, _ICON_SHARE = 16, 0.8
# A row's height, Blender's unit of widths, too.
_UNIT_PT, _UNIT_EDGE_PX = 18, 2
# Of a sidebar's width: its tabs, and the panel's margins.
_MARGINS_PT = 56
# Side by side, at most.
_MOST_TILES = 96
# Of full scale: what is softer throughout looks soft.
_SOFT = 0.1
# Seen on dark and on light themes alike: what will be spoken, and what the range leaves out.
SPOKEN_RGB, LEFT_OUT_RGB = (84, 142, 222), (128, 128, 128)
# As many sidebars may show different ones.
_PICTURES = 4

_collection: Any = None
# What a picture shows, and its number; the one that was drawn last is the last.
_shown: dict[tuple[object, ...], int] = {}


def draw(layout: bpy.types.UILayout, context: bpy.types.Context, info: SoundInfo) -> None:
    """Two rows of icons; nothing for a sound whose waveform cannot be known."""
    reading = peaks.of_scene(context.scene, info)
    if reading is None:
        return
    column = layout.column(align=True)
    widths = _widths(context)
    for icons in _icons(reading, len(widths), _range(context.scene.wav2sem, reading.part.duration_s)):
        row = column.row(align=True)
        row.alignment, row.scale_y = "CENTER", _ICON_SHARE
        for icon, width in zip(icons, widths, strict=True):
            cell = row.row(align=True)
            cell.ui_units_x = width
            cell.label(text="", icon_value=icon)


def shut_down() -> None:
    """Remove the icons."""
    global _collection
    peaks.shut_down()
    _shown.clear()
    if _collection is not None:
        bpy.utils.previews.remove(_collection)
        _collection = None


def paint(peaks_N: np.ndarray, n_tiles: int, spoken: tuple[float, float]) -> np.ndarray:
    """The half above the axis, (P, W, 4) bytes, from the axis upwards, premultiplied as icons are.

    Args:
        peaks_N: How loud.
        n_tiles: Icons across.
        spoken: From where to where it is spoken, each 0..1.
    """
    width = n_tiles * TILE_PX
    firsts_W = np.arange(width) * len(peaks_N) // width
    height_W = np.maximum.reduceat(peaks_N, firsts_W) * (TILE_PX / max(_SOFT, float(peaks_N.max())))
    inside_W = (np.arange(width) >= spoken[0] * width) & (np.arange(width) < spoken[1] * width)
    # Silence is a thin line; the upper edge is smooth.
    opaque_PW = np.clip(np.maximum(1.0, height_W) - np.arange(TILE_PX)[:, None], 0.0, 1.0)
    colours_W4 = np.where(inside_W[:, None], (*SPOKEN_RGB, 255), (*LEFT_OUT_RGB, 255))
    return (opaque_PW[..., None] * colours_W4).astype(np.uint8)


def _icons(reading: peaks.Reading, n_tiles: int, spoken: tuple[float, float]) -> tuple[list[int], list[int]]:
    """Icons of the upper and of the lower row, painted anew only where they would show something else."""
    wanted = (reading.part, reading.n_slices, n_tiles, spoken)
    number = _shown.pop(wanted, None)
    is_new = number is None
    if number is None:
        number = len(_shown) if len(_shown) < _PICTURES else _shown.pop(next(iter(_shown)))
    _shown[wanted] = number
    upper, lower = ([_tile(f"{number} {half} {tile}") for tile in range(n_tiles)] for half in ("upper", "lower"))
    if is_new:
        pixels_PW4 = paint(reading.peaks_N, n_tiles, spoken)
        for tile in range(n_tiles):
            part_PP4 = pixels_PW4[:, tile * TILE_PX : (tile + 1) * TILE_PX]
            _fill(upper[tile], part_PP4)
            _fill(lower[tile], part_PP4[::-1])
    return [tile.icon_id for tile in upper], [tile.icon_id for tile in lower]


def _tile(name: str) -> bpy.types.ImagePreview:
    global _collection
    if _collection is None:
        _collection = bpy.utils.previews.new()
    if name not in _collection:
        _collection.new(name).icon_size = TILE_PX, TILE_PX
    return _collection[name]


def _fill(tile: bpy.types.ImagePreview, pixels_PP4: np.ndarray) -> None:
    tile.icon_pixels.foreach_set(np.ascontiguousarray(pixels_PP4).view(np.int32).ravel())


def _range(settings: Any, duration_s: float) -> tuple[float, float]:
    """What is spoken of the sound, from 0 to 1."""
    if not settings.use_range:
        return 0.0, 1.0
    return settings.range_start_s / duration_s, settings.range_end_s / duration_s or 1.0


def _widths(context: bpy.types.Context) -> list[float]:
    """Of the icons across, in Blender's unit: whole pixels, none more than an icon has, together the panel's width."""
    scale, room = ui_scale(context), int(room_px(context, _MARGINS_PT))
    unit_px = round(_UNIT_PT * scale) + _UNIT_EDGE_PX * context.preferences.system.pixel_size
    n_tiles = max(1, min(_MOST_TILES, -(-room // int(_ICON_PT * scale))))
    edges_px = [room * tile // n_tiles for tile in range(n_tiles + 1)]
    # Blender rounds down.
    return [(right + 0.1 - left) / unit_px for left, right in itertools.pairwise(edges_px)]
