# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Speech tab's panels and buttons share: where they stand, which mesh they work on, and saying why not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

import blf
import bpy

from ...errors import Text, report
from ..sound.info import duration_words
from ..tasks import running
from ..translations import CONTEXT, translated

# Of a sidebar's width, in points: its tabs, the panel's margins, and an icon before the words.
_MARGINS_PT = 60
_ICON_PT = 20
# A word, a part of a path, or a Chinese character; each with the blank before it and the Chinese punctuation after it.
_PIECES = re.compile(
    r"\s*(?:[\u3400-\u9fff]|[^\s/\\\u3400-\u9fff]*[/\\]|[^\s/\\\u3400-\u9fff]+)[\u3000-\u303f\uff00-\uff60]*"
)
# Where nothing is drawn on a screen.
_DEFAULT_WIDTH_PT = 600


class SpeechPanel:
    """A panel of the tab."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Speech"
    bl_translation_context = CONTEXT


class FaceSubPanel(SpeechPanel):
    """A panel inside Face."""

    bl_parent_id = "WAV2SEM_PT_face"


class AnimateSubPanel(SpeechPanel):
    """A panel inside Animate."""

    bl_parent_id = "WAV2SEM_PT_animate"


def columns(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """Names to the left, values to the right; grey while speech is being animated."""
    layout.use_property_split = True
    layout.use_property_decorate = False
    layout.enabled = running.current() is None
    return layout


def say(
    layout: bpy.types.UILayout,
    context: bpy.types.Context,
    text: str,
    icon: str = "NONE",
    margins_pt: float = _MARGINS_PT,
) -> None:
    """A sentence in the user's language, in as many lines as it needs at the region's width."""
    room = room_px(context, margins_pt + (_ICON_PT if icon != "NONE" else 0))
    column = layout.column(align=True)
    for number, line in enumerate(lines_of(translated(text), room, text_width(context))):
        row = column.row(align=True)
        row.scale_y = 0.8 if number else 1.0
        row.label(text=line, icon="BLANK1" if number and icon != "NONE" else icon)


def room_px(context: bpy.types.Context, margins_pt: float = _MARGINS_PT) -> float:
    """Pixels of the region's width that a panel's content has."""
    scale = ui_scale(context)
    return (context.region.width if context.region else _DEFAULT_WIDTH_PT * scale) - margins_pt * scale


def text_width(context: bpy.types.Context) -> Callable[[str], float]:
    """How many pixels words take in the panels' letters."""
    blf.size(0, context.preferences.ui_styles[0].widget.points * ui_scale(context))
    return lambda words: float(blf.dimensions(0, words)[0])


def ui_scale(context: bpy.types.Context) -> float:
    """Pixels a point; 1 where nothing is drawn on a screen."""
    return context.preferences.system.ui_scale or 1.0


def lines_of(text: str, room: float, width_of: Callable[[str], float]) -> list[str]:
    """Break a text between words so that no line is wider than the room; a single word may be.

    Paths break after a slash, Chinese between any two characters, but not before a mark of punctuation.
    """
    lines: list[str] = []
    for piece in _PIECES.findall(" ".join(text.split())):
        if lines and width_of(lines[-1] + piece) <= room:
            lines[-1] += piece
        else:
            lines.append(piece.lstrip())
    return lines


def progress_words(task: running.Running) -> str:
    """As in "Listening for Sounds: 45%, 3 s left", in the user's language."""
    left_s = task.left_s
    left = (
        ""
        if left_s is None
        else Text(
            ", {duration_words} left",
            duration_words=duration_words(max(1, round(left_s))),
        )
    )
    return f"{translated(task.title)}: {task.fraction:.0%}{translated(left)}"


def is_drawing(context: bpy.types.Context) -> bool:
    """Whether it is the sidebar that asks, where the panels' settings are what a button will do."""
    return context.region is not None and context.region.type == "UI" and context.area.type == "VIEW_3D"


class AddonOperator:
    """A button that names what is missing while it is disabled, and what failed; `disabled_reason` is the operator's own."""

    bl_options: ClassVar = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Whether nothing is missing."""
        message = cls.disabled_reason(context)  # type: ignore[attr-defined]
        if message:
            cls.poll_message_set(translated(message, bpy.app.translations.pgettext_tip))  # type: ignore[attr-defined]
        return not message

    def tell(self, kind: set[str], sentence: str) -> None:
        """Report it in the user's language."""
        words = translated(sentence, bpy.app.translations.pgettext_rpt)
        self.report(kind, words)  # type: ignore[attr-defined]

    def _failed(self, error: BaseException | str) -> set[str]:
        """Say what failed: the user's faults as they are, ours as an internal error with its log."""
        self.tell({"ERROR"}, report(error) if isinstance(error, BaseException) else error)
        return {"CANCELLED"}


def chosen_object(context: bpy.types.Context) -> bpy.types.Object | None:
    """The object chosen in the panel, or the active one."""
    # Merely reading the settings would store an empty group with the scene.
    chosen = context.scene.wav2sem.target if context.scene.is_property_set("wav2sem") else None
    return chosen or context.view_layer.objects.active


def face_of(context: bpy.types.Context) -> bpy.types.Object | None:
    """The mesh chosen in the panel, or the active one."""
    face = chosen_object(context)
    return face if face is not None and face.type == "MESH" else None


def blocked_reason(face: bpy.types.Object | None) -> str:
    """Why nothing can be stored on this face, or nothing."""
    if face is None:
        return "Choose a mesh, or select one"
    if face.library:
        return Text('"{face}" is linked from another file; make a library override of it first', face=face.name)
    return ""
