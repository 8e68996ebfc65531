# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m wav2sem_blender batch MANIFEST --output DIR`: the arguments, the model, the workers."""

from __future__ import annotations

import argparse
import functools
import hashlib
import signal
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..argument_types import integer
from ..errors import UserError, report
from ..pipeline.curve_formats import SUFFIXES
from ..worker import environment
from .exit_codes import CODES, MEANINGS
from .manifest import COLUMNS, SETTINGS

if TYPE_CHECKING:
    from . import run  # needs NumPy, which --help does not

# An option of the command line is the default of the manifest's column of the same name.
_DEFAULTS = ("style", "articulation", "semantic_strength", "strength", "smoothing", "delay", "fps", "seed", "language")


def add_arguments(
    parser: argparse.ArgumentParser, formats: Iterable[str] = tuple(SUFFIXES), default: str = "npz"
) -> None:
    """The arguments that the package's and Blender's command share."""
    parser.description = f"Make every line of a manifest, whose columns are {', '.join(COLUMNS)} (docs/batch.md)."
    parser.epilog = "Exit codes: " + "; ".join(f"{CODES[name]} {meaning}" for name, meaning in MEANINGS.items()) + "."
    parser.add_argument("manifest", metavar="MANIFEST", help='a csv or jsonl file, or a pattern such as "lines/*.wav"')
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for results and report")
    parser.add_argument("--jobs", type=_jobs, default=0, metavar="N", help="workers (default: one a core)")
    parser.add_argument(
        "--format",
        type=functools.partial(_formats, tuple(formats)),
        default=(default,),
        metavar="NAMES",
        help=f"one or more of {', '.join(formats)}, with commas (default: {default})",
    )
    parser.add_argument("--model", default="default", help="a model folder; without it, the bundled model")
    parser.add_argument("--engine", default="auto", choices=("auto", "onnx", "torch"))
    parser.add_argument("--device", default="auto", help="auto, cuda, mps, xpu or cpu")
    parser.add_argument(
        "--recognise",
        default="",
        metavar="DIR",
        help="let this Whisper model (a folder for faster-whisper) write the transcript of rows that have none",
    )
    parser.add_argument("--chunk", type=_chunk, default=(1, 1), metavar="I/N", help="only part I of N, for farms")
    parser.add_argument(
        "--lines-may-fail", action="store_true", help="exit code 0 although lines failed; the report names them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout, for programs")
    defaults = parser.add_argument_group(
        "settings of rows that give none",
        f"{', '.join('--' + name.replace('_', '-') for name in _DEFAULTS)} X, --no-tongue: as in `animate --help`",
    )
    for name in _DEFAULTS:
        option = f"--{name.replace('_', '-')}"
        defaults.add_argument(option, type=SETTINGS[name][0], metavar="X", help=argparse.SUPPRESS)
    defaults.add_argument("--no-tongue", action="store_true", help=argparse.SUPPRESS)


def add_command(parser: argparse.ArgumentParser) -> None:
    """The arguments of the package's command."""
    add_arguments(parser)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="Dask's, such as tcp://host:8786, for its workers")
    parser.set_defaults(run=batch)


def options_of(arguments: argparse.Namespace) -> run.Options:
    """The options of a run."""
    from . import run

    defaults = {name: value for name in _DEFAULTS if (value := getattr(arguments, name)) is not None}
    return run.Options(
        manifest=arguments.manifest,
        output=arguments.output,
        formats=arguments.format,
        defaults={**defaults, **({"tongue": False} if arguments.no_tongue else {})},
        model=arguments.model,
        engine=arguments.engine,
        device=arguments.device,
        recognise=str(Path(arguments.recognise).absolute()) if arguments.recognise else "",
        jobs=arguments.jobs,
        chunk=arguments.chunk,
        lines_may_fail=arguments.lines_may_fail,
        as_json=arguments.json,
    )


def batch(arguments: argparse.Namespace) -> int:
    """Run the batch and return its exit code."""
    from ..pipeline.recognise import NoLibraryError
    from . import pool, run

    options = options_of(arguments)
    end_by_signal()
    try:
        model = _model(options)
        _check_recogniser(options, is_here=not arguments.scheduler)
    except (_NoEngineError, NoLibraryError) as error:
        return failed("engine", report(error))
    except UserError as error:
        return failed("model", report(error))
    if arguments.scheduler:
        from . import dask_workers

        return run.run(options, model, functools.partial(dask_workers.made, address=arguments.scheduler))
    workers = pool.Workers(n=options.n_workers, environment=pool.one_thread_each(environment.embedded()))
    return run.run(options, model, workers.made)


def _check_recogniser(options: run.Options, *, is_here: bool) -> None:
    """Check before anything starts what `Recogniser` checks in each worker; raises as that."""
    from ..pipeline.recognise import MODULE, check_folder, no_library

    if options.recognise:
        check_folder(Path(options.recognise))
        if is_here and find_spec(MODULE) is None:
            raise no_library(f"No module named {MODULE!r}")


def failed(cause: str, text: str) -> int:
    """Say why nothing was started, and return the exit code."""
    print(f"wav2sem: {text}", file=sys.stderr)
    return CODES[cause]


def end_by_signal() -> None:
    """Let SIGTERM end the run as Ctrl-C does: farms and service managers send it."""
    signal.signal(signal.SIGTERM, _interrupt)


class _NoEngineError(UserError):
    """A library that the model needs is missing."""


def _model(options: run.Options) -> run.Model:
    from ..assets import DEFAULT_MODEL
    from ..pipeline.checkpoint import CONFIG_FILE, NO_FACE, ModelFolder, open_folder
    from ..pipeline.infer import articulated, choose_engine, style_weights
    from . import run

    path = DEFAULT_MODEL if options.model == "default" else Path(options.model)
    folder = open_folder(path)
    if not isinstance(folder, ModelFolder):
        raise UserError("{path}: {no_face}", path=path, no_face=NO_FACE)
    try:
        engine = choose_engine(folder.has_onnx, options.engine, options.device)
    except UserError as error:
        raise _NoEngineError("{text}", text=error.text) from error
    config = folder.config

    def check_settings(settings: Mapping[str, Any]) -> None:
        articulated(style_weights(settings["style"], config.styles), settings["articulation"], config)

    config_sha256 = hashlib.sha256((path / CONFIG_FILE).read_bytes()).hexdigest()  # it has the hashes of the others
    return run.Model(
        sha256=config_sha256,
        engine=engine,
        channels=config.channels,
        tells_phones=bool(config.phones),
        check_settings=check_settings,
    )


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _formats(known: tuple[str, ...], text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is no format; known are {', '.join(known)}")
    return names


def _jobs(text: str) -> int:
    n_jobs = integer(text)
    if not 1 <= n_jobs <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not in 1 to 1024")
    return n_jobs


def _chunk(text: str) -> tuple[int, int]:
    index, slash, n_chunks = text.partition("/")
    if not (slash and index.isdecimal() and n_chunks.isdecimal() and 1 <= int(index) <= int(n_chunks)):
        raise argparse.ArgumentTypeError(f"{text} is no chunk such as 3/10")
    return int(index), int(n_chunks)
