# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages between Blender and the worker, one JSON object a line.

Commands go to the worker's stdin, events come from its stdout. Both are plain dataclasses here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import Text

EVENTS_FILE = "events.jsonl"
LOG_FILE = "worker.log"
RESULT_FILE = "motion.npz"
PROSODY_FILE = "prosody.npz"
VISEMES_FILE = "visemes.npz"
TRACK_FILE = "track.json"
STATE_FILE = "state.npz"
CALL_FILE = "call.json"
JOB = "job"

# A job names a folder, which is removed at its end.
_JOB_ID = re.compile(r"[A-Za-z0-9]{1,64}")

# Exit status of a child that cannot write its events (EX_IOERR of sysexits): the disk is full or gone.
EXIT_EVENTS_LOST = 74


def aside(folder: Path) -> Path:
    """The name that a session's folder gets before it is removed, so that a running job cannot add files to it."""
    return folder.with_name(f"{folder.name}.gone")


class ProtocolError(ValueError):
    """A message that is not of this protocol."""


@dataclass(frozen=True, kw_only=True)
class Animate:
    """Command: turn one recording into `<folder>/<job>/motion.npz`, and what was heard into `track.json` beside it.

    If the model can follow a track, `state.npz` has the motion as the model made it, and its memory.

    Attributes:
        job: Names the job and its folder; letters and digits.
        audio: Absolute path of a file that soundfile reads.
        recording: The user's file that `audio` is the sound of, beside which a model's features may lie; empty for
            sound that was mixed.
        begins_s: Where in `recording` the sound begins, if it is a part of it.
        model: "default" or a model folder.
        engine: "auto", "onnx" or "torch".
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        style: Index, name or weights of the speaking style.
        articulation: -1 is mumbled, 0 the style as it is, 1 over-articulated.
        semantic_strength: 0 switches the semantic features off, 1 is as trained.
        speed: How many times as fast the scene plays the recording.
        strength: Factor for all curves.
        smoothing_s: Width of the smoothing, in seconds as the scene plays them.
        visemes: Name of the face's viseme set; if it has one, and the model has ARKit's channels, the same motion as
            visemes goes to `<folder>/<job>/visemes.npz`.
        available: Those of its visemes that the face has.
        tongue: Channels of the tongue that are added by rule, if the model tells which phones it heard.
        listen: Also do what `Listen` does.
        transcript: What is said; empty if nobody says.
        transcript_file: The same as a file's absolute path; at most one of the two is given.
        language: Of the transcript, such as "de"; empty to guess it.
        track_file: Absolute path of a track that the mouth follows, in place of a transcript.
    """

    job: str
    audio: str
    recording: str = ""
    begins_s: float | None = None
    model: str = "default"
    engine: str = "auto"
    device: str = "auto"
    style: int | str | list[float] = 0
    articulation: float = 0.0
    semantic_strength: float = 1.0
    speed: float = 1.0
    strength: float = 1.0
    smoothing_s: float = 0.0
    visemes: str = ""
    available: list[str] = field(default_factory=list)
    tongue: list[str] = field(default_factory=list)
    listen: bool = False
    transcript: str = ""
    transcript_file: str = ""
    language: str = ""
    track_file: str = ""


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Command: measure one recording for the upper face, without a model: `<folder>/<job>/prosody.npz`.

    Attributes:
        job: As in `Animate`.
        audio: As in `Animate`.
    """

    job: str
    audio: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """Command: `module.run(arguments, models)` of a module of the package; it returns `<folder>/<job>/call.json`.

    For work that keeps the model warm and is none of the worker's own, as `boot.py --run MODULE` is for tasks.

    Attributes:
        job: As in `Animate`.
        module: Such as "batch.line".
        arguments: A JSON object.
        audio: The recording that it hears, and `model` what it hears it with: they say how much memory and time the job
            may take. Empty for work without a recording.
        model: As in `Animate`.
    """

    job: str
    module: str
    arguments: str
    audio: str = ""
    model: str = "default"


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Event: the worker reads commands."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Event: `stage` of `job` is done to `fraction` (0..1)."""

    job: str
    stage: str
    fraction: float


@dataclass(frozen=True, kw_only=True)
class Done:
    """Event: `job` is done, and its main file is `result`; `notes` are sentences for the user."""

    job: str
    result: str
    engine: str
    device: str
    notes: list[Text]


@dataclass(frozen=True, kw_only=True)
class Error:
    """Event: `job` failed; `message` is a sentence for the user."""

    job: str
    message: Text


Command = Animate | Listen | Call
Event = Ready | Progress | Done | Error

_COMMANDS: dict[str, type[Command]] = {"animate": Animate, "listen": Listen, "call": Call}
_EVENTS: dict[str, type[Event]] = {"ready": Ready, "progress": Progress, "done": Done, "error": Error}


def encode(message: Command | Event) -> bytes:
    """One ASCII line with its newline; file names that are not Unicode survive as surrogate escapes.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    for tag, kinds in (("cmd", _COMMANDS), ("event", _EVENTS)):
        for name, kind in kinds.items():
            if type(message) is kind:
                return json.dumps({tag: name, **plain(vars(message))}, allow_nan=False).encode("ascii") + b"\n"
    raise ProtocolError(f"{type(message).__name__} is not a message")


def decode_command(line: bytes | str) -> Command:
    """Read one command.

    Raises:
        ProtocolError: The line is not a JSON object, names an unknown command, or has missing, unknown or wrong fields.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Not a line of JSON: {line!r:.120}") from error
    command: Command = _decode(message, "cmd", _COMMANDS)
    return command


def decode_event(message: Mapping[str, Any]) -> Event:
    """Read one event from its JSON object; raises as `decode_command`."""
    event: Event = _decode(message, "event", _EVENTS)
    return event


def as_text(value: Any) -> Text:
    """An error that crossed; one that lost its template is shown as it is."""
    return value if isinstance(value, Text) else Text("{text}", text=str(value)[:300])


def plain(value: Any) -> Any:
    """The value as JSON data; a `Text` keeps its template."""
    if isinstance(value, Text):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def with_texts(value: Any) -> Any:
    """The inverse of `plain`."""
    if isinstance(value, dict):
        if value.keys() == {"template", "values"}:
            return Text.from_json(value)
        return {name: with_texts(item) for name, item in value.items()}
    return [with_texts(item) for item in value] if isinstance(value, list) else value


def is_number(value: Any) -> bool:
    """Whether it is a number of JSON that a float can hold: no NaN, and no integer of a thousand digits."""
    return type(value) in (int, float) and abs(value) < 1e300


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_item, value))


# The types of the messages' fields. What was not translated arrives as a plain string.
_IS: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "Text": _is_text,
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int,
    "float": is_number,
    "None": lambda value: value is None,
    "list[float]": _list_of(is_number),
    "list[str]": _list_of(_is_text),
    "list[Text]": _list_of(_is_text),
}


def _decode(message: Any, tag: str, kinds: Mapping[str, type]) -> Any:
    name = message.get(tag) if isinstance(message, dict) else None
    if not isinstance(name, str) or name not in kinds:
        raise ProtocolError(f"Unknown {tag}: {message!r:.120}")
    kind, given = kinds[name], {name: value for name, value in message.items() if name != tag}
    types: dict[str, Any] = {known.name: known.type for known in fields(kind)}
    if unknown := given.keys() - types.keys():
        raise ProtocolError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}.")
    for field_name, value in given.items():
        if not any(_IS[alternative](value) for alternative in types[field_name].split(" | ")):
            raise ProtocolError(f"{kind.__name__}: {field_name} is not {types[field_name]}: {value!r:.120}")
    if not _JOB_ID.fullmatch(given.get("job", JOB)):
        raise ProtocolError(f"{kind.__name__}: {given['job']!r:.120} names no job.")
    try:
        return kind(**given)
    except TypeError as error:
        raise ProtocolError(f"{kind.__name__} lacks a field: {error}.") from error
