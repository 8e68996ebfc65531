# SPDX-License-Identifier: GPL-3.0-or-later
"""The Result panel: the takes of the chosen face, and buttons for the selected one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import bpy
from bpy.props import IntProperty, StringProperty

from ..scene import reduction, takes
from ..tasks.task import running_task
from .result_operators import (
    WAV2SEM_OT_make_active,
    WAV2SEM_OT_mute_take,
    WAV2SEM_OT_push_to_nla,
    WAV2SEM_OT_rebake,
    WAV2SEM_OT_reduce_keys,
    WAV2SEM_OT_remove_take,
    named,
    selected,
    take_disabled_reason,
    tolerance_property,
)
from .task_operator import draw_progress
from .widgets import SpeechPanel, draw_text, face_of, room_px, text_width, ui_scale

# Share of a list row that holds the name. In points, around it: the margins of list and panel, and the icon.
_NAME_SHARE = 0.5
_BESIDE_PT = 60
_ICON_PT = 33


def shortened(name: str, others: Sequence[str], room: float, width_of: Callable[[str], float]) -> str:
    """The name, shortened in the middle to fit, as in "demo_….001"; none of the others is shortened to the same."""

    def cut(start: int) -> tuple[str, str] | None:
        """The name from `start` on, after as much of its beginning as fits."""
        heads = (name[:n_first] for n_first in range(start, 0, -1))
        head = next((head for head in heads if width_of(f"{head}…{name[start:]}") <= room), None)
        return None if head is None else (head, name[start:])

    if width_of(name) <= room:
        return name
    # Prefer whole words.
    words = [found.start() for found in re.finditer(r"[\W_]", name)]
    for parts in map(cut, (len(name), *reversed(words), *range(len(name) - 1, 0, -1))):
        if parts is not None and not any(map(re.compile(".*".join(map(re.escape, parts))).fullmatch, others)):
            return "…".join(parts)
    ends = (f"…{name[start:]}" for start in range(1, len(name)))
    return next((end for end in ends if width_of(end) <= room), "…")


class WAV2SEM_UL_takes(bpy.types.UIList):
    """The takes of the chosen face, out of all actions in the file."""

    def draw_item(  # type: ignore[override]  # Blender passes the arguments by position
        self,
        context: bpy.types.Context,
        layout: bpy.types.UILayout,
        _data: Any,
        action: Any,
        _icon: int,
        _active_data: Any,
        _active_name: str,
    ) -> None:
        """The take's kind, name and frames, whether it is the active action, and whether it plays."""
        take = named(face_of(context), action.name)
        if take is None:
            return
        first, last = take.frames
        split = layout.split(factor=_NAME_SHARE)
        icon: Any = "HIDE_OFF" if take.is_upper_face else "SPEAKER"
        split.label(text=_label(context, action.name), icon=icon, translate=False)
        row = split.row(align=True)
        row.alignment = "RIGHT"
        row.active = not (take.is_kept or take.is_muted)
        row.label(text=f"{first}\N{EN DASH}{last}")
        if take.is_kept:
            row.label(text="", icon="FAKE_USER_ON")
            return
        row.label(text="", icon="ACTION" if take.is_active else "NLA")
        icon = "CHECKBOX_DEHLT" if take.is_muted else "CHECKBOX_HLT"
        row.operator(WAV2SEM_OT_mute_take.bl_idname, text="", icon=icon, emboss=False).action = action.name

    def filter_items(  # type: ignore[override]  # lists are as good as Blender's arrays
        self, context: bpy.types.Context, data: Any, name: str
    ) -> tuple[list[int], list[int]]:
        """Show only this face's takes."""
        shown = {take.action for take in takes.of_face(face_of(context))}
        wanted = self.filter_name.lower()
        return [
            self.bitflag_filter_item * (action in shown and wanted in action.name.lower())
            for action in getattr(data, name)
        ], []


class WAV2SEM_PT_result(SpeechPanel, bpy.types.Panel):
    """The takes of the face."""

    bl_label = "Result"
    bl_order = 3
    bl_options: ClassVar = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        """Draw the list, and the buttons for the selected take."""
        layout, manager = self.layout, context.window_manager
        take = selected(context)
        if take is None:
            draw_text(layout, context, take_disabled_reason(context), "INFO")
            return
        layout.template_list("WAV2SEM_UL_takes", "", bpy.data, "actions", manager, "wav2sem_take_index", rows=3)
        layout.prop(take.action, "name", text="")
        row = layout.row(align=True)
        row.operator(WAV2SEM_OT_make_active.bl_idname)
        row.operator(WAV2SEM_OT_push_to_nla.bl_idname)
        row = layout.row(align=True)
        row.operator(WAV2SEM_OT_rebake.bl_idname, icon="FILE_REFRESH")
        row.operator(WAV2SEM_OT_remove_take.bl_idname, icon="TRASH")
        row = layout.row(align=True)
        task = running_task()
        if isinstance(task, reduction.Reducing):
            draw_progress(row, task)
        else:
            row.prop(context.scene, "wav2sem_tolerance_mm", text="mm")
            row.operator(WAV2SEM_OT_reduce_keys.bl_idname)
        outcome = reduction.last_outcome(take)
        if outcome is not None:
            for sentence in outcome.words():
                draw_text(layout, context, sentence)


def _label(context: bpy.types.Context, name: str) -> str:
    """The action's name as it fits into its row."""
    others = [take.action.name for take in takes.of_face(face_of(context)) if take.action.name != name]
    room = _NAME_SHARE * room_px(context, _BESIDE_PT) - _ICON_PT * ui_scale(context)
    return shortened(name, others, room, text_width(context))


def _index(_manager: Any) -> int:
    take = selected(bpy.context)
    return bpy.data.actions.find(take.action.name) if take is not None else -1


def _select(manager: Any, index: int) -> None:
    if 0 <= index < len(bpy.data.actions):
        manager.wav2sem_take = bpy.data.actions[index].name


CLASSES = (WAV2SEM_UL_takes, WAV2SEM_PT_result)


def register() -> None:
    """Add a selection to the session, and a tolerance to every scene."""
    bpy.types.WindowManager.wav2sem_take = StringProperty(name="Action", description="Name of the selected action")
    bpy.types.WindowManager.wav2sem_take_index = IntProperty(
        name="Action", description="Index of the selected action", get=_index, set=_select
    )
    bpy.types.Scene.wav2sem_tolerance_mm = tolerance_property()


def unregister() -> None:
    """Remove them."""
    del bpy.types.Scene.wav2sem_tolerance_mm
    del bpy.types.WindowManager.wav2sem_take_index
    del bpy.types.WindowManager.wav2sem_take
