# SPDX-License-Identifier: GPL-3.0-or-later
"""Sentences in a layout, which breaks no lines by itself."""

from __future__ import annotations

import textwrap

import bpy

# Of the interface's font, at scale 1: a little more than most texts need.
_CHARACTER_PX = 6.0
_MARGIN_PX = 90


def draw(layout: bpy.types.UILayout, context: bpy.types.Context, text: str, icon: str = "NONE") -> None:
    """A text in as many lines as the region's width asks for, the first one with an icon."""
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(lines(context, text)):
        blank = "BLANK1" if icon != "NONE" else "NONE"
        column.label(text=line, icon=blank if number else icon, translate=False)


def lines(context: bpy.types.Context, text: str) -> list[str]:
    """The text in pieces that fit into a box of the region."""
    width_px = context.region.width if context.region else 600
    scale = context.preferences.system.ui_scale or 1.0  # 0 without a window
    n_characters = max(24, int((width_px / scale - _MARGIN_PX) / _CHARACTER_PX))
    return textwrap.wrap(text, n_characters, break_on_hyphens=False)
