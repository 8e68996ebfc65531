# SPDX-License-Identifier: GPL-3.0-or-later
"""Draw regions of the interface anew."""

from __future__ import annotations

import bpy


def redraw(context: bpy.types.Context, area_type: str = "VIEW_3D", region_type: str = "UI") -> None:
    """Draw the sidebars anew, and not the views beside them; or another kind of region."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions if area.type == area_type else ():
                if region.type == region_type:
                    region.tag_redraw()
