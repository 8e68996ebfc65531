# SPDX-License-Identifier: GPL-3.0-or-later
"""One line of a batch, from its recording to its files and its part of the report. Runs in a worker's process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Text, UserError, report
from ..worker import child
from .exit_codes import is_of_the_disk

if TYPE_CHECKING:
    from ..pipeline.infer import SpeechAnimator
    from ..pipeline.motion import Motion
    from ..pipeline.recognise import Recogniser
    from ..pipeline.words.transcript import Transcript

_limited = False


class Models(Protocol):
    """Keeps a model warm; the worker's `ModelCache`."""

    def get(self, model: str, engine: str, device: str) -> SpeechAnimator:
        """The animator for these settings."""


class _FailedError(Exception):
    """A line failed, and this is the cause of `exit_codes`."""

    def __init__(self, cause: str, error: BaseException) -> None:
        super().__init__(cause)
        self.cause, self.error = cause, error


def run(arguments: Mapping[str, Any], models: Models) -> dict[str, Any]:
    """Make a line.

    Args:
        arguments: `audio`, `transcript` (a path), `text`, `track` (a path) or `recognise` (the folder of a recogniser),
            `files` (format: path), `settings` (`manifest.SETTINGS`), `model`, `engine`, `device`, `memory_bytes` (what
            a worker may take; 0 for all there is).
        models: The warm model.

    Returns:
        What the report says of it; or `error`, a sentence, and `cause`, of `exit_codes`.
    """
    _limit_memory(int(arguments.get("memory_bytes", 0)))
    try:
        return _made(arguments, models)
    except _FailedError as failed:
        error, cause = failed.error, failed.cause
    except MemoryError as failure:
        error, cause = failure, "engine"
    except Exception as failure:
        error, cause = failure, "internal"
    return {"error": Text("{text}", text=report(error)), "cause": "disk" if is_of_the_disk(error) else cause}


def _limit_memory(more_bytes: int) -> None:
    """Once a process, so that a line that asks for all memory fails alone instead of ending other programs."""
    global _limited
    if more_bytes and not _limited:
        _limited = True
        child.limit_memory(more_bytes)


def _made(arguments: Mapping[str, Any], models: Models) -> dict[str, Any]:
    try:
        animator = models.get(arguments["model"], arguments["engine"], arguments["device"])
    except ImportError as error:
        raise _FailedError("engine", error) from error
    except UserError as error:
        raise _FailedError("engine" if type(error).__name__ == "MissingModuleError" else "model", error) from error
    recogniser = _recogniser_of(arguments)
    audio = Path(arguments["audio"])
    try:
        motion, said = _heard(audio, arguments, animator, recogniser)
    except UserError as error:
        raise _FailedError("audio", error) from error
    except OSError as error:
        raise _FailedError("audio", error) from error
    finally:
        animator.forget_recordings()
    try:
        said["bytes"] = _write(motion, arguments)
    except (UserError, OSError) as error:
        raise _FailedError("disk", error) from error
    return said


def _recogniser_of(arguments: Mapping[str, Any]) -> Recogniser | None:
    if not arguments["recognise"]:
        return None
    from ..pipeline.recognise import NoLibraryError

    try:
        return _warm_recogniser(arguments["recognise"], arguments["device"])
    except NoLibraryError as error:
        raise _FailedError("engine", error) from error
    except UserError as error:
        raise _FailedError("model", error) from error


@lru_cache(maxsize=1)
def _warm_recogniser(folder: str, device: str) -> Recogniser:
    from ..pipeline.recognise import Recogniser

    return Recogniser(Path(folder), device)


def _heard(
    audio: Path, arguments: Mapping[str, Any], animator: SpeechAnimator, recogniser: Recogniser | None
) -> tuple[Motion, dict[str, Any]]:
    from ..pipeline.audio import Speech
    from ..pipeline.sound_file import file_sha256
    from .confidence import confidence, fit
    from .mouth_picture import outlines
    from .resume import track_sha256
    from .sound_measures import bars, measures

    settings, n_notes = arguments["settings"], len(animator.notes)
    transcript, said_sha256 = _transcript(arguments)
    track = Path(arguments["track"]) if arguments["track"] else None
    if track is not None:
        said_sha256 = track_sha256(arguments["track"])
    language = settings["language"]
    with Speech.from_file(audio) as speech:
        recognised = None if recogniser is None else recogniser.recognise(speech, language)
        if recognised is not None:
            transcript, language = recognised.transcript, recognised.language
        motion = animator.animate_speech(
            speech,
            style=settings["style"],
            semantic_strength=settings["semantic_strength"],
            articulation=settings["articulation"],
            seed=settings["seed"],
            track=track,
            transcript=transcript,
            language=language,
        )
        fits = None if transcript is None or motion.track is None else fit(motion.track, len(transcript.words))
        said: dict[str, Any] = {
            "seconds": round(speech.duration_s, 3),
            "frames": motion.n_frames,
            "confidence": confidence(motion.phones, fits),
            **({} if fits is None or motion.track is None else {"fit": fits, "language": motion.track.language}),
            **measures(audio, speech),
            "audio_sha256": speech.sha256,
            **({"transcript_sha256": said_sha256} if said_sha256 else {}),
            **({} if recogniser is None else {"recognised": recognised.text if recognised else ""}),
            "bars": _packed(bars(speech)),
        }
    if file_sha256(audio) != speech.sha256:
        raise UserError("{file} was changed while it was read; run the batch again.", file=audio)
    if track is not None and track_sha256(arguments["track"]) != said_sha256:
        raise UserError("{file} was changed while it was read; run the batch again.", file=track)
    lips = outlines(motion)
    said["lips"] = "" if lips is None else _packed(lips)
    said["notes"] = [str(note) for note in animator.notes[n_notes:]]
    return motion, said


def _transcript(arguments: Mapping[str, Any]) -> tuple[Transcript | None, str]:
    """What is said, and the hash of its text."""
    from ..pipeline.sound_file import file_sha256
    from ..pipeline.words.transcript import load_transcript, parse_transcript

    language = arguments["settings"]["language"]
    if arguments["text"]:
        text: str = arguments["text"]
        return parse_transcript(text, language=language), hashlib.sha256(text.encode()).hexdigest()
    if not arguments["transcript"]:
        return None, ""
    path = Path(arguments["transcript"])
    before = file_sha256(path)
    transcript = load_transcript(path, language)
    if file_sha256(path) != before:
        raise UserError("{file} was changed while it was read; run the batch again.", file=path)
    return transcript, before


def _write(motion: Motion, arguments: Mapping[str, Any]) -> dict[str, int]:
    """Write each format, and return the files' sizes."""
    from ..pipeline.delivery import delivered, save

    settings, sizes = arguments["settings"], {}
    motion = replace(motion, basis_KV3=None)  # 4 MB in every file, and the same in all
    for name, file in arguments["files"].items():
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = delivered(
            motion,
            name,
            strength=settings["strength"],
            smoothing_s=settings["smoothing"],
            delay_s=settings["delay"],
            fps=settings["fps"],
            tongue=settings["tongue"],
        )
        save(made, path, name)
        sizes[name] = path.stat().st_size
    return sizes


def _packed(array: Any) -> str:
    packed: str = array.tobytes().hex()
    return packed
