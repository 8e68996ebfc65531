# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line, without Blender.

python -m wav2sem_blender animate speech.wav more/*.flac --output curves
python -m wav2sem_blender animate speech.wav --output curves --format csv --style 2 --articulation 0.5
python -m wav2sem_blender animate speech.wav --output curves --phones speech.tsv
python -m wav2sem_blender animate speech.wav --output curves --transcript speech.txt --track speech.TextGrid
python -m wav2sem_blender animate more/*.flac --output curves --recognise models/whisper-base
python -m wav2sem_blender batch lines.csv --output night
python -m wav2sem_blender import vocaset.pth --kind faceformer-vocaset --output models/vocaset
python -m wav2sem_blender verify models/*

Exit codes: 0 success, 1 a failure (one line on stderr for each), 2 wrong usage, 130 interrupted; `batch` has more, see
batch/exit_codes.py.
"""

from __future__ import annotations

import sys

from . import import_path

if __name__ == "__main__":
    import_path.leave_out_current_folder()

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import streams, threads
from .argument_types import finite, rate, style, width
from .errors import MissingFileError, Text, UserError, report
from .files import same_file_name
from .pipeline.checkpoint_kinds import AUTO, KIND_NAMES

if TYPE_CHECKING:
    from .pipeline.infer import SpeechAnimator
    from .pipeline.recognise import Recogniser
    from .pipeline.words.transcript import Transcript


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, report its error, and return the exit code; wrong usage raises SystemExit(2), as argparse."""
    return streams.guarded(lambda: _reported(argv), _complain)


def _reported(argv: Sequence[str] | None) -> int:
    try:
        return run(argv)
    except Exception as error:
        _complain(report(error))
        return 1
    except KeyboardInterrupt:
        _complain("interrupted; the results written so far are complete")
        return 130


def run(argv: Sequence[str] | None) -> int:
    """Run one command and return the exit code, or raise its error; the preferences run this as a task."""
    arguments = _parser().parse_args(argv)
    code: int = arguments.run(arguments)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m wav2sem_blender",
        description="Speech to facial animation: named shape-key curves from recordings.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    animate = commands.add_parser("animate", help="turn recordings into curves")
    animate.add_argument(
        "speech", nargs="+", type=Path, metavar="SPEECH", help="wav, flac, ogg, opus, mp3 or aiff files"
    )
    animate.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for the results")
    animate.add_argument("--model", default="default", help="a model folder; without it, the bundled model")
    animate.add_argument("--engine", default="auto", choices=("auto", "onnx", "torch"))
    animate.add_argument("--device", default="auto", help="auto, cuda, mps, xpu or cpu")
    animate.add_argument(
        "--style", default=0, type=style, help="speaking style: index, name, or weights such as 0.5,0.5"
    )
    animate.add_argument(
        "--articulation",
        default=0.0,
        type=finite,
        metavar="X",
        help="-1: mumbled, 0: the style itself (default), 1: over-articulated",
    )
    animate.add_argument(
        "--semantic-strength",
        default=1.0,
        type=finite,
        metavar="X",
        help="influence of the meaning: 0 is none, 1 as trained (default)",
    )
    animate.add_argument("--strength", default=1.0, type=finite, metavar="X", help="factor for all curves (default: 1)")
    animate.add_argument(
        "--smoothing", default=0.0, type=width, metavar="S", help="seconds: 0.05 is gentle, 0.2 slurs (default: 0)"
    )
    animate.add_argument(
        "--delay",
        default=0.0,
        type=finite,
        metavar="S",
        help="delay of the face in seconds; below 0 it leads the audio",
    )
    animate.add_argument(
        "--format", default="npz", choices=("npz", "csv"), help="csv has the columns of Live Link Face"
    )
    animate.add_argument(
        "--fps",
        type=rate,
        metavar="FPS",
        help="frames a second (default: as the model makes them; csv: 60, as the Live Link Face app writes)",
    )
    animate.add_argument(
        "--seed",
        default=0,
        type=int,
        metavar="N",
        help="of the noise, for models that sample their motion (default: 0)",
    )
    animate.add_argument("--no-tongue", action="store_true", help="no curves of the tongue, which follow a rule")
    animate.add_argument(
        "--phones", type=Path, metavar="FILE.tsv", help="also write what was heard: start, end, phone, confidence"
    )
    animate.add_argument(
        "--transcript",
        metavar="FILE_OR_TEXT",
        help="what is said: a txt, srt, vtt, ass, TextGrid or lab file, or the text itself",
    )
    animate.add_argument(
        "--recognise",
        type=Path,
        metavar="DIR",
        help="let this Whisper model (a folder for faster-whisper, which must be installed) write the transcript",
    )
    animate.add_argument(
        "--language", default="", metavar="CODE", help="of the words, such as de; without it, it is guessed"
    )
    animate.add_argument(
        "--track",
        type=Path,
        metavar="FILE",
        help="also write words and phones with their times: a TextGrid, csv or json file",
    )
    animate.add_argument(
        "--follow",
        type=Path,
        metavar="FILE",
        help="let the mouth follow a track that --track wrote and you have edited, or that another aligner wrote",
    )
    animate.add_argument(
        "--features",
        type=Path,
        metavar="FILE.npy",
        help="features of the recording, for models that do not hear it themselves; without it, SPEECH.npy beside it",
    )
    animate.set_defaults(run=_animate)

    from .batch.command import add_command

    add_command(commands.add_parser("batch", help="make every line of a manifest, with a report"))

    convert = commands.add_parser("import", help="make a model folder from a published checkpoint")
    convert.add_argument(
        "file", type=Path, metavar="FILE", help="model.pth.tar, vocaset.pth, …, or a model folder, which is copied"
    )
    convert.add_argument(
        "--with",
        dest="beside",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a further file that the kind needs, such as CodeTalker's stage 1; may be repeated",
    )
    convert.add_argument("--kind", required=True, choices=(AUTO, *KIND_NAMES), help="auto recognises it by its keys")
    convert.add_argument("--output", required=True, type=Path, metavar="DIR", help="the model folder to write")
    convert.set_defaults(run=_import)

    verify = commands.add_parser("verify", help="compare the files of model folders with the recorded hashes")
    verify.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    verify.set_defaults(run=_verify)
    return parser


def _check_is_no_file(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError("{output} is a file; --output must be a folder.", output=output)


def _animate(arguments: argparse.Namespace) -> int:
    from .pipeline import SpeechAnimator
    from .pipeline.motion import is_motion_file

    _check_is_no_file(arguments.output)
    if arguments.phones is not None:
        _check_phone_table(arguments.phones, arguments.speech)
    if arguments.track is not None:
        said = arguments.transcript if arguments.follow is None else str(arguments.follow)
        _check_track(arguments.track, arguments.speech, said)
    transcript = _read_transcript(arguments)
    _check_followed(arguments)
    if arguments.features is not None and len(arguments.speech) > 1:
        raise UserError("--features names the features of one recording; give one recording at a time.")
    recogniser = None
    if arguments.recognise is not None:
        from .pipeline.recognise import Recogniser

        recogniser = Recogniser(arguments.recognise, arguments.device)
    arguments.output.mkdir(parents=True, exist_ok=True)
    animator = SpeechAnimator.load(arguments.model, engine=arguments.engine, device=arguments.device)
    inputs = {same_file_name(path) for path in arguments.speech}
    written: dict[str, Path] = {}
    n_failed = 0
    for speech in arguments.speech:
        result = arguments.output / f"{speech.stem}.{arguments.format}"
        try:
            name = same_file_name(result)
            if name in inputs:
                raise UserError(
                    "{speech}: the result would overwrite the input {result}; choose another --output.",
                    speech=speech,
                    result=result,
                )
            if name in written:
                raise UserError(
                    "{speech}: the result would overwrite that of {other_speech}; rename one of them.",
                    speech=speech,
                    other_speech=written[name],
                )
            if result.exists() and not is_motion_file(result):
                raise UserError(
                    "{speech}: {result} exists and was not made by this command; choose another --output.",
                    speech=speech,
                    result=result,
                )
            _animate_one(animator, speech, result, arguments, transcript, recogniser)
            written[name] = speech
        except Exception as error:  # go on with the other files
            n_failed += 1
            message = report(error)
            _complain(message if speech.name in message else f"{speech.name}: {message}")
    if n_failed and len(arguments.speech) > 1:
        _complain(f"{n_failed} of {len(arguments.speech)} files failed")
    return 1 if n_failed else 0


def _check_phone_table(table: Path, speech: Sequence[Path]) -> None:
    from .pipeline.phones import is_phone_table

    if len(speech) > 1:
        raise UserError("--phones writes one table; give one recording at a time.")
    if table.is_dir() or same_file_name(table) == same_file_name(speech[0]):
        raise UserError("{table} cannot be the table of phones; choose another file.", table=table)
    if table.exists() and not is_phone_table(table):
        raise UserError("{table} exists and was not made by this command; choose another file.", table=table)


def _check_track(track: Path, speech: Sequence[Path], said: str | None) -> None:
    from .pipeline.words.spoken import named_file
    from .pipeline.words.track_files import check_suffix, is_track_file

    check_suffix(track)
    if len(speech) > 1:
        raise UserError("--track writes one track; give one recording at a time.")
    read = {same_file_name(speech[0])}
    if said and (file := named_file(said)):
        read.add(same_file_name(file))
    if track.is_dir() or same_file_name(track) in read:
        raise UserError("{track} cannot be the track; choose another file.", track=track)
    if track.exists() and not is_track_file(track):
        raise UserError("{track} exists and was not made by this command; choose another file.", track=track)


def _read_transcript(arguments: argparse.Namespace) -> Transcript | None:
    """The transcript, read before the model is loaded, so that a bad one is refused at once."""
    from .pipeline.words.pronunciation import known_language
    from .pipeline.words.spoken import read_transcript

    if arguments.language:
        known_language(arguments.language)
    if arguments.transcript is None:
        if arguments.language and arguments.recognise is None:
            raise UserError("--language is the language of a transcript; give --transcript or --recognise too.")
        return None
    if arguments.recognise is not None:
        raise UserError("--recognise writes a transcript; leave out --transcript.")
    if len(arguments.speech) > 1:
        raise UserError("--transcript is the text of one recording; give one recording at a time.")
    return read_transcript(arguments.transcript)


def _check_followed(arguments: argparse.Namespace) -> None:
    """Read the track before the model is loaded, so that a bad one is refused at once."""
    from .pipeline.words.heard import load_followed

    if arguments.follow is None:
        return
    if arguments.transcript is not None or arguments.recognise is not None:
        raise UserError("--follow has the words already; leave out --transcript and --recognise.")
    if len(arguments.speech) > 1:
        raise UserError("--follow is the track of one recording; give one recording at a time.")
    load_followed(arguments.follow)


def _animate_one(
    animator: SpeechAnimator,
    speech: Path,
    result: Path,
    arguments: argparse.Namespace,
    transcript: Transcript | None,
    recogniser: Recogniser | None,
) -> None:
    from .pipeline.audio import Speech
    from .pipeline.delivery import delivered, save_words, words_of

    n_notes = len(animator.notes)
    progress = _Progress(speech.name)
    begin_s = time.perf_counter()
    language = arguments.language
    notes: list[Text] = []
    try:
        if recogniser is not None:
            with Speech.from_file(speech, progress=progress) as sound:
                recognised = recogniser.recognise(sound, language, progress)
            if recognised is None:
                notes.append(Text("no words were recognised"))
            else:
                transcript, language = recognised.transcript, recognised.language
        motion = animator.animate_file(
            speech,
            style=arguments.style,
            semantic_strength=arguments.semantic_strength,
            progress=progress,
            articulation=arguments.articulation,
            seed=arguments.seed,
            features=arguments.features,
            track=arguments.follow,
            transcript=transcript,
            language=language if transcript is not None else "",
        )
        if arguments.phones is not None:
            if motion.phones is None:
                raise UserError("This model does not tell which phones it hears; leave out --phones.")
            motion.phones.save_table(arguments.phones)
        if arguments.track is not None:
            save_words(words_of(motion), arguments.track)
        motion = delivered(
            motion,
            arguments.format,
            strength=arguments.strength,
            smoothing_s=arguments.smoothing,
            delay_s=arguments.delay,
            fps=arguments.fps,
            tongue=not arguments.no_tongue,
        )
        motion.save(result)
    finally:
        progress.close()
    speed = motion.duration_s / max(time.perf_counter() - begin_s, 1e-9)
    print(f"{speech}: {motion.duration_s:.1f} s, {motion.n_frames} frames, {speed:.1f}x realtime, {result}", flush=True)
    for note in [*notes, *animator.notes[n_notes:]]:
        print(f"note: {speech.name}: {note}", file=sys.stderr)


def _import(arguments: argparse.Namespace) -> int:
    _check_is_no_file(arguments.output)
    if arguments.file.is_dir():
        from .pipeline.checkpoint import copy_folder

        copy_folder(arguments.file, arguments.output)
        print(f"{arguments.file}: copied, {arguments.output}")
        return 0
    try:
        from .pipeline.official import import_official
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        raise UserError(
            "Importing a checkpoint needs {module}: pip install torch transformers", module=error.name
        ) from error
    if not arguments.file.is_file():
        raise MissingFileError("{file}: there is no such checkpoint file.", file=arguments.file)
    notes: list[Text] = []
    import_official(arguments.file, arguments.kind, arguments.output, notes, arguments.beside)
    print(f"{arguments.file}: {arguments.kind}, {arguments.output}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from .pipeline.checkpoint import open_folder

    n_failed = 0
    for path in arguments.folders:
        try:
            n_files = len(open_folder(path).files)
        except Exception as error:
            if len(arguments.folders) == 1:
                raise
            n_failed += 1
            _complain(report(error))
        else:
            print(f"{path}: {n_files} files match their hashes", flush=True)
    return 1 if n_failed else 0


class _Progress:
    """A progress bar on stderr, only if that is a terminal."""

    WIDTH = 24

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown = ""
        self.on_terminal = sys.stderr.isatty()

    def __call__(self, stage: str, fraction: float) -> None:
        if not self.on_terminal:
            return
        filled = round(self.WIDTH * min(1.0, max(0.0, fraction)))
        line = f"[{'#' * filled}{'-' * (self.WIDTH - filled)}] {fraction:4.0%} {stage:<9} {self.name[:40]}"
        if line != self.shown:
            self.shown = line
            print(f"\r{line}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Erase the bar, so that a result or an error is alone on its line."""
        if self.shown:
            print(f"\r{' ' * len(self.shown)}\r", end="", file=sys.stderr, flush=True)
            self.shown = ""


def _complain(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    threads.limit()
    sys.exit(main())
