# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by the Speech tab's panels and buttons: where they appear, which mesh they work on, and how they report."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import blf
import bpy

from ...errors import Text, report
from .. import compat
from ..sound.look import duration_words
from ..tasks.task import Task, running_task
from ..translations import CONTEXT, translated

# Taken from a sidebar's width, in points: its tabs and the panel's margins; an icon before the text.
_MARGINS_PT = 60
_ICON_PT = 20
# A word, a part of a path, or a Chinese character; with the space before it and the Chinese punctuation after it.
_PIECES = re.compile(
    r"\s*(?:[\u3400-\u9fff]|[^\s/\\\u3400-\u9fff]*[/\\]|[^\s/\\\u3400-\u9fff]+)[\u3000-\u303f\uff00-\uff60]*"
)
# Without a screen.
_DEFAULT_WIDTH_PT = 600


class SpeechPanel:
    """A panel of the Speech tab."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Speech"
    bl_translation_context = CONTEXT


class FaceSubPanel(SpeechPanel):
    """A sub-panel of Face."""

    bl_parent_id = "WAV2SEM_PT_face"


class AnimateSubPanel(SpeechPanel):
    """A sub-panel of Animate."""

    bl_parent_id = "WAV2SEM_PT_animate"


def columns(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """Put names left and values right; grey the layout out while a task runs."""
    layout.use_property_split = True
    layout.use_property_decorate = False
    layout.enabled = running_task() is None
    return layout


def draw_text(
    layout: bpy.types.UILayout,
    context: bpy.types.Context,
    text: str,
    icon: Any = "NONE",
    margins_pt: float = _MARGINS_PT,
) -> None:
    """Draw a text in the user's language, wrapped at the region's width."""
    room = room_px(context, margins_pt + (_ICON_PT if icon != "NONE" else 0))
    column = layout.column(align=True)
    shown = translated(text).encode(errors="replace").decode()  # names of files may have bytes that are no Unicode
    for number, line in enumerate(lines_of(shown, room, text_width(context))):
        row = column.row(align=True)
        row.scale_y = 0.8 if number else 1.0
        row.label(text=line, icon="BLANK1" if number and icon != "NONE" else icon)


def room_px(context: bpy.types.Context, margins_pt: float = _MARGINS_PT) -> float:
    """Pixels of the region's width that are left for a panel's content."""
    scale = ui_scale(context)
    return (context.region.width if context.region else _DEFAULT_WIDTH_PT * scale) - margins_pt * scale


def text_width(context: bpy.types.Context) -> Callable[[str], float]:
    """A function that measures text in the panels' font, in pixels."""
    blf.size(0, context.preferences.ui_styles[0].widget.points * ui_scale(context))
    return lambda text: float(blf.dimensions(0, text)[0])


def ui_scale(context: bpy.types.Context) -> float:
    """Pixels per point; 1 without a screen."""
    return context.preferences.system.ui_scale or 1.0


def lines_of(text: str, room: float, width_of: Callable[[str], float]) -> list[str]:
    """Wrap a text at `room`; only a single word may be wider.

    Paths break after a slash, Chinese between any two characters, but never before punctuation.
    """
    lines: list[str] = []
    for piece in _PIECES.findall(" ".join(text.split())):
        if lines and width_of(lines[-1] + piece) <= room:
            lines[-1] += piece
        else:
            lines.append(piece.lstrip())
    return lines


def progress_text(task: Task) -> Text:
    """As in "Listening for Sounds: 45%, 3 s left"."""
    if task.left_s is None:
        return Text("{title}: {fraction:.0%}", title=task.title, fraction=task.fraction)
    left = duration_words(max(1, round(task.left_s)))
    return Text("{title}: {fraction:.0%}, {left} left", title=task.title, fraction=task.fraction, left=left)


def in_sidebar(context: bpy.types.Context) -> bool:
    """Whether the sidebar is asking; its buttons then use the panels' settings."""
    return context.region is not None and context.region.type == "UI" and context.area.type == "VIEW_3D"  # type: ignore[union-attr]


class AddonOperator(compat.OperatorBase):
    """Base of the add-on's operators: a disabled button says why, and reports are in the user's language.

    Subclasses define `disabled_reason(context)`, which is empty when the button can work.
    """

    bl_options: ClassVar[set[Any]] = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Whether the button can work."""
        reason = cls.disabled_reason(context)  # type: ignore[attr-defined]
        if reason:
            cls.poll_message_set(translated(reason, bpy.app.translations.pgettext_tip))
        return not reason

    def tell(self, kind: set[Any], text: str) -> None:
        """Report a text in the user's language."""
        self.report(kind, translated(text, bpy.app.translations.pgettext_rpt))

    def _failed(self, error: BaseException | str) -> compat.Result:
        """Report an error; one that the user cannot mend becomes an internal error with its log."""
        self.tell({"ERROR"}, report(error) if isinstance(error, BaseException) else error)
        return {"CANCELLED"}


def chosen_object(context: bpy.types.Context) -> bpy.types.Object | None:
    """The object chosen in the panel, or the active one."""
    return chosen_target(context.scene) or context.view_layer.objects.active


def chosen_target(scene: bpy.types.Scene) -> bpy.types.Object | None:
    """The object chosen in the panel; None where none is, or where it was deleted: the choice alone keeps its data."""
    # Merely reading the settings would store an empty group with the scene.
    chosen = scene.wav2sem.target if scene.is_property_set("wav2sem") else None
    return chosen if chosen is not None and chosen.users_scene else None


def face_of(context: bpy.types.Context) -> bpy.types.Object | None:
    """The mesh chosen in the panel, or the active one."""
    face = chosen_object(context)
    return face if face is not None and face.type == "MESH" else None


def chosen_face(context: bpy.types.Context) -> bpy.types.Object:
    """The same for an operator, which is enabled only if there is one."""
    face = face_of(context)
    assert face is not None
    return face


def blocked_reason(face: bpy.types.Object | None) -> str:
    """Why this face cannot be edited; empty when it can."""
    if face is None:
        return "Choose a mesh, or select one"
    if face.library:
        return Text('"{face}" is linked from another file; make a library override of it first', face=face.name)
    return ""
