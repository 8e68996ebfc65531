# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages between Blender and the worker: one JSON object a line, nothing else crosses.

Commands go to the worker's stdin; events are appended to `EVENTS_FILE` in the session's folder. Both are plain
dataclasses here; `encode` and `decode` are the only places that know JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import Text

EVENTS_FILE = "events.jsonl"
LOG_FILE = "worker.log"
RESULT_FILE = "motion.npz"
PROSODY_FILE = "prosody.npz"
VISEMES_FILE = "visemes.npz"
JOB = "job"

# The worker's exit status when it cannot even append an event (sysexits' EX_IOERR): the disk is full or gone.
EXIT_EVENTS_LOST = 74


def aside(folder: Path) -> Path:
    """Where a session's folder goes before it is removed, so that a job that still writes makes no new files in it."""
    return folder.with_name(f"{folder.name}.gone")


class ProtocolError(ValueError):
    """A line that is no message of this protocol."""


@dataclass(frozen=True, kw_only=True)
class Animate:
    """Command: turn one recording into `<folder>/<job>/motion.npz`.

    Attributes:
        job: Names the job and its folder; letters and digits.
        audio: Absolute path of a file that soundfile reads.
        model: "default" or a model folder.
        engine: "auto", "onnx" or "torch".
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        style: Index, name or weights of the speaking style.
        semantic_strength: 0 switches the semantic features off, 1 is as trained.
        listen: Do what `Listen` does, too.
    """

    job: str
    audio: str
    model: str = "default"
    engine: str = "auto"
    device: str = "auto"
    style: int | str | list[float] = 0
    semantic_strength: float = 1.0
    listen: bool = False


@dataclass(frozen=True, kw_only=True)
class Listen:
    """Command: hear one recording, without a model; `<folder>/<job>/prosody.npz` tells the upper face what to do.

    Attributes:
        job: As in `Animate`.
        audio: As in `Animate`.
    """

    job: str
    audio: str


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Command: make visemes of a motion, `<folder>/<job>/visemes.npz`; for a long one that takes seconds.

    Attributes:
        job: As in `Animate`.
        motion: Path of the motion, with ARKit's channels.
        visemes: Name of the set.
        available: Those of its visemes that the face has.
    """

    job: str
    motion: str
    visemes: str
    available: list[str]


@dataclass(frozen=True, kw_only=True)
class Shutdown:
    """Command: end after the job at hand."""


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
    """Event: what the command asked for lies at `result`; `notes` are sentences for the user."""

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


Job = Animate | Listen | Convert
Command = Job | Shutdown
Event = Ready | Progress | Done | Error

_COMMANDS: dict[str, type[Command]] = {
    "animate": Animate,
    "listen": Listen,
    "convert": Convert,
    "shutdown": Shutdown,
}
_EVENTS: dict[str, type[Event]] = {"ready": Ready, "progress": Progress, "done": Done, "error": Error}


def encode(message: Command | Event) -> bytes:
    """One ASCII line with its newline; file names that are no Unicode survive as surrogate escapes.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    for tag, kinds in (("cmd", _COMMANDS), ("event", _EVENTS)):
        for name, kind in kinds.items():
            if type(message) is kind:
                return json.dumps({tag: name, **_plain_fields(message)}, allow_nan=False).encode("ascii") + b"\n"
    raise ProtocolError(f"{type(message).__name__} is no message")


def decode_command(line: bytes | str) -> Command:
    """Read one command.

    Raises:
        ProtocolError: The line is no JSON object, names an unknown command, or has missing or unknown fields.
    """
    command: Command = _decode(line, "cmd", _COMMANDS)
    return command


def decode_event(line: bytes | str) -> Event:
    """Read one event.

    Raises:
        ProtocolError: As in `decode_command`.
    """
    event: Event = _decode(line, "event", _EVENTS)
    return event


def _plain_fields(message: Command | Event) -> dict[str, Any]:
    """The fields as JSON, each `Text` with what it was made of."""

    def plain(value: Any) -> Any:
        if isinstance(value, Text):
            return value.to_json()
        return [plain(item) for item in value] if isinstance(value, list) else value

    return {field.name: plain(getattr(message, field.name)) for field in fields(message)}


def _with_texts(value: Any) -> Any:
    """The reverse."""
    if isinstance(value, dict) and value.keys() == {"template", "values"}:
        return Text.from_json(value)
    return [_with_texts(item) for item in value] if isinstance(value, list) else value


def _decode(line: bytes | str, tag: str, kinds: Mapping[str, type]) -> Any:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"Not a line of JSON: {line!r:.120}") from error
    if not isinstance(message, dict) or message.get(tag) not in kinds:
        raise ProtocolError(f"Unknown {tag}: {line!r:.120}")
    kind = kinds[message.pop(tag)]
    unknown = message.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise ProtocolError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}.")
    try:
        return kind(**{name: _with_texts(value) for name, value in message.items()})
    except TypeError as error:
        raise ProtocolError(f"{kind.__name__} lacks a field: {error}.") from error
