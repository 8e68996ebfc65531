# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at the strips of words and phones after edits, for the panels and for the automatic update of the mouth.

Reading thousands of strips at every redraw would be slow, and while the mouse still drags one, they must not change. So
a handler only notes that something changed, and a timer reads the strips when nothing has changed for a moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import bpy

from ...errors import Text, UserError
from ...pipeline.words.track import Direction
from ..animate import update_upper_face
from ..scene import speech_track, takes
from ..tasks.redraw import redraw
from ..tasks.task import running_task

_QUIET_S = 0.35
_HEARTBEAT_S = 0.2


@dataclass(frozen=True)
class Status:
    """What the strips of a take say: whether the mouth does not follow them yet, and what is wrong with them.

    `has_words` is false where only sounds are known.
    """

    is_edited: bool
    problems: tuple[Text, ...]
    has_words: bool = True


_known: dict[str, Status | None] = {}
_changed_at_s = 0.0
_on_edit: list[Callable[[bpy.types.Context, bpy.types.Action], None]] = []


def status(action: bpy.types.Action) -> Status | None:
    """What was found when the strips were last looked at; None if there are none."""
    identity = str(action.get(speech_track.IDENTITY, ""))
    if identity not in _known or bpy.app.background:  # there timers never run
        _known[identity] = _look(action)
    return _known[identity]


def tell(action: bpy.types.Action, problem: Text) -> None:
    """Show a problem of these strips until they change."""
    _known[str(action[speech_track.IDENTITY])] = Status(True, (problem,))


def forget() -> None:
    """Look again at the next question."""
    _known.clear()


def on_edit(call: Callable[[bpy.types.Context, bpy.types.Action], None]) -> None:
    """Call this for each take whose strips were edited, when the edit is over."""
    _on_edit.append(call)


def look_now(context: bpy.types.Context) -> None:
    """Read the strips of every take that has some."""
    forget()
    for action in list(_shown()):
        found = status(action)
        if found is not None and found.is_edited and not found.problems:
            for call in _on_edit:
                call(context, action)
    for area_type in ("VIEW_3D", "SEQUENCE_EDITOR"):
        redraw(context, area_type)


def _look(action: bpy.types.Action) -> Status | None:
    try:
        reading = speech_track.read(action)
    except UserError as error:
        return Status(True, (error.text,))
    if reading is None:
        return None
    problems = reading.settled.problems
    is_behind = not problems and _is_upper_face_behind(action, reading.settled.track().directions)
    return Status(reading.is_edited or is_behind, problems, bool(reading.settled.words))


def _is_upper_face_behind(action: bpy.types.Action, wanted: Sequence[Direction]) -> bool:
    """Undo may bring the strips and the mouth back, but not the upper face: Blender pushes no step for our updates."""
    found = takes.playing(action)
    return found is not None and update_upper_face.is_behind(*found, wanted)


def _shown() -> Iterator[bpy.types.Action]:
    return (action for action in bpy.data.actions if speech_track.has_track(action))


@bpy.app.handlers.persistent
def _note_change(_scene: Any = None, _depsgraph: Any = None) -> None:
    global _changed_at_s
    # In background mode no timer runs, and 4.5 as a module never ends if a file is loaded while one waits.
    if bpy.app.background or next(_shown(), None) is None:
        return
    _changed_at_s = time.monotonic()
    if not bpy.app.timers.is_registered(_when_quiet):
        bpy.app.timers.register(_when_quiet, first_interval=_HEARTBEAT_S)


@bpy.app.handlers.persistent
def _note_load(*_arguments: object) -> None:
    forget()


def _when_quiet() -> float | None:
    """Wait until nothing has changed for a moment, no mouse drags anything, and no task runs."""
    if time.monotonic() - _changed_at_s < _QUIET_S or running_task() is not None or _is_dragging():
        return _HEARTBEAT_S
    look_now(bpy.context)
    return None


def _is_dragging() -> bool:
    """Whether a modal operator of Blender's runs, such as the one that moves strips."""
    windows = bpy.context.window_manager.windows if bpy.context.window_manager is not None else ()
    running = (operator.bl_idname for window in windows for operator in window.modal_operators)
    return any(name.startswith(("TRANSFORM_OT", "SEQUENCER_OT")) for name in running)


def register() -> None:
    """Watch."""
    bpy.app.handlers.depsgraph_update_post.append(_note_change)
    bpy.app.handlers.undo_post.append(_note_change)
    bpy.app.handlers.redo_post.append(_note_change)
    bpy.app.handlers.load_post.append(_note_load)


def unregister() -> None:
    """Stop."""
    if bpy.app.timers.is_registered(_when_quiet):
        bpy.app.timers.unregister(_when_quiet)
    bpy.app.handlers.load_post.remove(_note_load)
    for handlers in (bpy.app.handlers.redo_post, bpy.app.handlers.undo_post, bpy.app.handlers.depsgraph_update_post):
        handlers.remove(_note_change)
    _on_edit.clear()
    forget()
