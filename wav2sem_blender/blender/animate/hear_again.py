# SPDX-License-Identifier: GPL-3.0-or-later
"""Hears the sound of a take once more, which its edited words and directions need after a file was loaded."""

from __future__ import annotations

from dataclasses import replace

import bpy

from ...errors import UserError
from ...pipeline.time_slicing import Steps
from ...pipeline.upper_face import Settings as UpperFaceSettings
from ...worker import protocol
from ..scene import takes
from ..scene.track_edits import Pronounce
from . import jobs, update_mouth, update_upper_face
from .settings import AnimateSettings
from .update_mouth import Update


class HearAgain(jobs.Job):
    """A run that ends with an update of the mouth."""

    doing = "The sound is heard again"

    def __init__(
        self,
        context: bpy.types.Context,
        settings: AnimateSettings,
        action: bpy.types.Action,
        *,
        pronounce: Pronounce | None,
        replaces: bool,
    ) -> None:
        """Begin; arguments as of `Job` and `update_mouth.follow`.

        Raises:
            UserError, OSError: The run cannot start; nothing was changed.
        """
        self._action_uid, self._action_name = action.session_uid, action.name
        self._pronounce, self._replaces = pronounce, replaces
        # The words are known, and their file may have been moved.
        settings = replace(settings, transcript="", transcript_file="", language="", track_file="")
        # With it, the worker listens for what the upper face needs; it is not made anew.
        super().__init__(context, replace(settings, upper_face=UpperFaceSettings()))

    def _make_command(self, target: bpy.types.Object, model: str) -> protocol.Command:
        command = super()._make_command(target, model)
        assert isinstance(command, protocol.Animate)
        return replace(command, visemes="", available=[])

    def _write(self, _context: bpy.types.Context) -> Steps[Update]:  # type: ignore[override]
        face = self._find_target()
        take = next((some for some in takes.of_face(face) if some.action.session_uid == self._action_uid), None)
        if face is None or take is None:
            raise UserError('The action "{action}" was removed meanwhile. Undo that.', action=self._action_name)
        self._keep_state(take.action)
        if upper := update_upper_face.of_take(face, take):
            update_upper_face.remember(upper.action, self._prosody())
        if not update_mouth.is_ready(face, take):
            raise UserError("This model does not follow words and phones. Animate with the bundled one to edit them.")
        yield
        return update_mouth.follow(face, take, pronounce=self._pronounce, replaces=self._replaces)
