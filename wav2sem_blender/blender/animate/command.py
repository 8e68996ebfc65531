# SPDX-License-Identifier: GPL-3.0-or-later
"""`blender -b scene.blend --command wav2sem --audio a.wav --object Head --output b.blend`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import bpy

from ... import streams
from ...argument_types import finite
from ...errors import MissingFileError, UserError, report
from .. import addon_preferences
from ..addon_preferences import ENGINES
from ..scene.write_motion import speech_summary
from . import jobs, recognise
from .settings import AnimateSettings

NAME = "wav2sem"


def run_command(arguments: list[str]) -> int:
    """Animate a mesh of the open file and save the result; the exit status is 0 only if keys were written.

    Args:
        arguments: The command line after `--command wav2sem`.
    """
    return streams.guarded(lambda: _reported(arguments), _complain)


def _reported(arguments: list[str]) -> int:
    try:
        options = _parser().parse_args(arguments)
    except SystemExit:  # argparse has printed an error or the help; either way no keys are written
        return 2
    context = bpy.context
    settings = AnimateSettings(
        filepath=str(options.audio.absolute()),
        object_name=options.object,
        model=options.model,
        engine=options.engine,
        device=options.device or addon_preferences.get(context).device,
        style=options.style,
        articulation=options.articulation,
        semantic_strength=options.semantic_strength,
        strength=options.strength,
        smoothing_s=options.smoothing,
        tongue=not options.no_tongue,
        delay_s=options.delay,
        start_frame=options.start_frame,
        range_start_s=options.begin,
        range_end_s=options.end,
        transcript_file=str(options.transcript.absolute()) if options.transcript else "",
        language=options.language,
        track_file=str(options.follow.absolute()) if options.follow else "",
    )
    try:
        _check_output(options.output)
        if options.follow and (options.transcript or options.recognise is not None):
            raise UserError("--follow has the words already; leave out --transcript and --recognise.")
        if options.recognise is not None:
            settings = _recognised(context, settings, options.recognise)
        outcome, notes = jobs.run(context, settings, _print_progress)
        for sentence in (*outcome.warnings, *notes, *outcome.notes, speech_summary(outcome)):
            print(f"wav2sem: {sentence}")
        _save(options.output)
    except Exception as error:
        _complain(report(error))
        return 1
    finally:
        jobs.shut_down()
    return 0


def _complain(message: str) -> None:
    print(f"wav2sem: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blender -b scene.blend --command wav2sem", description="Animate a mesh from speech and save the file."
    )
    parser.add_argument("--audio", type=Path, required=True, help="audio file, or a film with sound")
    parser.add_argument("--output", type=Path, required=True, help="the .blend file to write")
    parser.add_argument("--object", default="", metavar="NAME", help="the mesh (default: the active object)")
    parser.add_argument("--model", default="default", help="model folder, or its name in the models folder")
    parser.add_argument("--start-frame", type=int, default=1, metavar="N", help="scene frame where the audio begins")
    parser.add_argument("--strength", type=finite, default=1.0, metavar="X", help="factor for all curves")
    parser.add_argument("--smoothing", type=_at_least_0, default=0.0, metavar="S", help="seconds; 0.05 is gentle")
    parser.add_argument("--delay", type=finite, default=0.0, metavar="S", help="seconds by which the face is late")
    parser.add_argument(
        "--from", type=_at_least_0, default=0.0, metavar="S", dest="begin", help="start of the part to speak"
    )
    parser.add_argument("--to", type=_at_least_0, default=0.0, metavar="S", dest="end", help="end of the spoken part")
    parser.add_argument("--semantic-strength", type=finite, default=1.0, metavar="X", help="0: without meaning")
    parser.add_argument("--style", default="", metavar="NAME", help="speaking style: its name, or its number from 0")
    parser.add_argument(
        "--articulation", type=finite, default=0.0, metavar="X", help="-1: mumbled, 0: the style itself, 1: clear"
    )
    parser.add_argument("--transcript", type=Path, metavar="FILE", help="what is said: a text, subtitles or labels")
    parser.add_argument(
        "--recognise",
        nargs="?",
        const="",
        metavar="DIR",
        help="let a Whisper model write the transcript (default: that of the preferences)",
    )
    parser.add_argument("--language", default="", metavar="CODE", help="of the words (default: guessed)")
    parser.add_argument(
        "--follow", type=Path, metavar="FILE", help="words and phones that the mouth follows: a TextGrid, csv or json"
    )
    parser.add_argument("--no-tongue", action="store_true", help="leave the tongue's keys alone")
    parser.add_argument("--engine", choices=[engine[0] for engine in ENGINES], default="auto")
    parser.add_argument("--device", choices=[device[0] for device in addon_preferences.DEVICES])
    return parser


def _recognised(context: bpy.types.Context, settings: AnimateSettings, folder: str) -> AnimateSettings:
    """The settings with the words that are recognised."""
    if settings.transcript_file:
        raise UserError("--recognise writes a transcript; leave out --transcript.")
    task = recognise.Recognition(context, settings, Path(folder).absolute() if folder else None)
    words = jobs.followed(context, task, _print_progress)
    print(f"wav2sem: {recognise.words_told(words)}", flush=True)
    return replace(settings, transcript=words.text.as_string(), language=words.language)


def _at_least_0(text: str) -> float:
    seconds = finite(text)
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"{text} s is impossible; it must be 0 or more")
    return seconds


def _check_output(output: Path) -> None:
    """Raise UserError if the file cannot be saved there, before the run takes its time."""
    if output.suffix != ".blend":
        raise UserError("{output}: the output must be a .blend file.", output=output)
    if not output.absolute().parent.is_dir():
        raise MissingFileError(
            "{output}: the folder {folder} does not exist.", output=output, folder=output.absolute().parent
        )


def _save(output: Path) -> None:
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(output.absolute()), check_existing=False)
    except RuntimeError as error:  # as operators report errors to Python
        raise UserError("{output} cannot be saved ({reason}).", output=output, reason=str(error).strip()) from error


_last_title = ""


def _print_progress(_fraction: float, title: str) -> None:
    """Print one line for each stage."""
    global _last_title
    if title != _last_title:
        _last_title = title
        print(f"wav2sem: {title} …", flush=True)
