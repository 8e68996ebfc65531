# SPDX-License-Identifier: GPL-3.0-or-later
"""Redraws regions of the interface."""

from __future__ import annotations

import bpy


def redraw(context: bpy.types.Context, area_type: str = "VIEW_3D", region_type: str = "UI") -> None:
    """Redraw the sidebars of the 3D viewports, or another kind of region."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions if area.type == area_type else ():
                if region.type == region_type:
                    region.tag_redraw()
