# SPDX-License-Identifier: GPL-3.0-or-later
"""The mouth follows the edited words of a take: only the edited spans are made anew, in Blender's own process.

So do brows and head (`update_upper_face.py`).

What that needs of the sound is kept from the run for this session. After loading a file the worker hears the sound once
more (`hear_again.py`), and only those spans are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy

from ...assets import DEFAULT_MODEL
from ...errors import Text, UserError
from ...pipeline.motion import Motion
from ...pipeline.words.track import Track
from ..scene import actions, edit_curves, speech_track
from ..scene.takes import Take
from ..scene.track_edits import Pronounce, changed_spans
from . import update_upper_face
from .mouth_state import Finish, MouthState, open_state
from .recent import Recent

Key = tuple[str, str, str]
_MAX_STATES = 4
_heard: Recent[Key, tuple[Motion, str, Finish]] = Recent(_MAX_STATES)
_states: Recent[Key, MouthState] = Recent(_MAX_STATES)


@dataclass(frozen=True, kw_only=True)
class Update:
    """What an update did.

    Attributes:
        n_spans: Number of spans that were made anew; 0 if the edits do not concern the mouth.
        edited: Their frames; None without any.
        upper_face: Frames in which brows and head were made anew; None without any.
    """

    n_spans: int = 0
    edited: edit_curves.Edited | None = None
    upper_face: edit_curves.Edited | None = None

    def words(self) -> list[Text]:
        """What to tell the user."""
        said, mouth, upper = [], self.edited, self.upper_face
        if mouth is not None:
            said.append(Text("The mouth is new in frames {first} to {last}", first=mouth.first, last=mouth.last))
        if upper is not None:
            said.append(Text("Brows and head are new in frames {first} to {last}", first=upper.first, last=upper.last))
        n_by_hand = sum(edited.n_by_hand for edited in (mouth, upper) if edited is not None)
        if n_by_hand:
            text = "Your own keys in {n} of these frames were moved along. To replace them, tick Replace Own Keys"
            said.append(Text(text, n=n_by_hand))
        return said or [Text("The face follows these words already")]


def remember(action: bpy.types.Action, raw: Motion, model: str, finish: Finish) -> None:
    """Keep what was heard for a take that has just been made."""
    if raw.memory_RM is None or raw.phones is None:  # the model follows no track
        return
    _heard.put(_key(action), (raw, model, finish))
    _states.pop(_key(action), None)


def forget() -> None:
    """Free the memory."""
    update_upper_face.forget()
    _heard.clear()
    _states.clear()


def is_ready(face: bpy.types.Object, take: Take) -> bool:
    """Whether a take can be updated without hearing its sound again."""
    return _key(take.action) in _heard and update_upper_face.is_ready(face, take)


def follow(face: bpy.types.Object, take: Take, *, pronounce: Pronounce | None = None, replaces: bool = False) -> Update:
    """Let the mouth, and brows and head if the take has an upper face, follow the strips of a take.

    Args:
        face: The face.
        take: Its take, for which `is_ready`.
        pronounce: Phones of a word in a language.
        replaces: As for `edit_curves.apply`.

    Raises:
        UserError: The strips cannot be followed, or the model cannot follow any; nothing was changed.
    """
    action = take.action
    reading = speech_track.read(action, pronounce)
    if reading is None:
        raise UserError("There are no words of this take in the Sequencer. Show them first.")
    old = speech_track.recorded(action)
    new = Track.from_text(reading.settled.track(old.language).to_text())  # with the times that are kept
    spans = changed_spans(old, new)
    changes = [
        change
        for part in (_state(action).changes(old, new, spans) if spans else ())
        for change in edit_curves.planned(face, take, reading.place, part.first_s, part.old, part.new)
    ]
    upper = update_upper_face.planned(face, take, new.directions)
    edited = edit_curves.apply(face, take, changes, replaces=replaces) if changes else None
    directed = update_upper_face.apply(face, upper, replaces=replaces) if upper is not None else None
    speech_track.keep(action, reading, new)
    return Update(n_spans=len(spans), edited=edited, upper_face=directed)


def _state(action: bpy.types.Action) -> MouthState:
    key = _key(action)
    state = _states.get(key)
    if state is None:
        raw, model, finish = _heard[key]
        state = open_state(raw, DEFAULT_MODEL if model == "default" else Path(model), finish)
    return _states.put(key, state)


def _key(action: bpy.types.Action) -> Key:
    """The same for all takes that the worker makes alike."""
    marks = (actions.AUDIO_HASH, actions.SETTINGS, "wav2sem_weights_sha256")
    return tuple(str(action.get(mark, "")) for mark in marks)  # type: ignore[return-value]
