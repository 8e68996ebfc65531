# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a batch, in five steps: check everything, lock the folder, find what is left, make it, report."""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import threads
from ..errors import UserError, report, user_text
from ..pipeline import delivery
from ..pipeline.curve_formats import SUFFIXES
from ..pipeline.words.pronunciation import known_language
from . import lock, manifest, report_page, resume
from .exit_codes import CODES, code_of, is_of_the_disk
from .journal import FAILED, MADE, REPORT, Journal
from .manifest import Checks, ManifestError, Row
from .pool import Answer
from .progress import Teller

PAGE = "report.html"
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{8}\.tmp(\..+)?")  # what `files.atomic_path` leaves when it is killed


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a run is asked for.

    Attributes:
        manifest: A csv or jsonl file, or a pattern.
        output: The folder of the results.
        formats: Of `curve_formats.SUFFIXES`, or of a scene.
        defaults: Settings of rows that give none.
        model: "default" or a model folder.
        engine: "auto", "onnx" or "torch".
        device: "auto", "cpu", "cuda", "mps" or "xpu".
        recognise: The folder of a speech recogniser for rows of which nobody says what is said; empty for none.
        jobs: How many workers; 0 for one a core.
        chunk: Make part i of n of the rows alone.
        lines_may_fail: Whether the exit code is that of success although lines failed.
        as_json: Tell events as JSON.
    """

    manifest: str
    output: Path
    formats: tuple[str, ...] = ("npz",)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    model: str = "default"
    engine: str = "auto"
    device: str = "auto"
    recognise: str = ""
    jobs: int = 0
    chunk: tuple[int, int] = (1, 1)
    lines_may_fail: bool = False
    as_json: bool = False

    @property
    def n_workers(self) -> int:
        """How many workers there are."""
        return self.jobs or threads.cores()


class Stop(Exception):
    """The run cannot go on; `cause` is of `exit_codes`."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause, self.text = cause, text


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a run must know of its model before it starts."""

    sha256: str
    engine: str
    channels: tuple[str, ...]
    tells_phones: bool
    check_settings: Callable[[Mapping[str, Any]], object]


Make = Callable[[Iterable[Row], Callable[[Row], Mapping[str, Any]]], Generator[tuple[Row, Answer], None, None]]
"""Makes lines and yields their answers, such as `pool.made` with its workers."""
FilesOf = Callable[[Row], dict[str, Path]]


def run(options: Options, model: Model, make: Make, files_of: FilesOf | None = None, *, scenes: bool = False) -> int:
    """Run a batch and return its exit code; everything is told to the user.

    Args:
        options: What is asked for.
        model: The model of all lines.
        make: How lines are made.
        files_of: The result files of a row by format; those of curves by default.
        scenes: Whether rows may have characters.
    """
    teller = Teller(as_json=options.as_json)
    try:
        files_of = files_of or functools.partial(curve_files, options)
        return _run(options, model, make, files_of, teller, scenes=scenes)
    except ManifestError as error:
        for fault in error.faults:
            teller.fault(fault.row, fault.text)
        teller.error("manifest", str(error))
        return CODES["manifest"]
    except lock.BusyError as error:
        return _ended(teller, "busy", error)
    except Stop as stop:
        teller.error(stop.cause, stop.text)
        return CODES[stop.cause]
    except KeyboardInterrupt:
        teller.error("interrupted", "interrupted; what is made stays, and the same command goes on from there")
        return CODES["interrupted"]
    except Exception as error:
        if is_of_the_disk(error) or isinstance(error, OSError):
            return _ended(teller, "disk", error)
        return _ended(teller, "engine" if user_text(error) is not None else "internal", error)


def _ended(teller: Teller, cause: str, error: BaseException) -> int:
    teller.error(cause, report(error))
    return CODES[cause]


def _run(options: Options, model: Model, make: Make, files_of: FilesOf, teller: Teller, *, scenes: bool) -> int:
    output = options.output
    rows = _checked_rows(options, model, files_of, scenes=scenes)
    output.mkdir(parents=True, exist_ok=True)
    with lock.held(output, options.chunk):
        rows = _chunk(rows, options.chunk)
        with Journal(output, options.chunk) as journal:
            _remove_unfinished([*journal.own_files, output / PAGE], rows, files_of)
            recipe_of = _recipes(options, model)
            todo = resume.left_to_make(rows, journal, recipe_of, files_of)
            teller.start(len(rows), len(todo), options.n_workers)
            journal.begin(todo)
            arguments_of = functools.partial(_arguments, options, model, files_of)
            with closing(make(todo, arguments_of)) as answers:
                _take(answers, journal, recipe_of, teller, n_workers=options.n_workers)
            journal.finish(rows)
            page = output / PAGE
            if options.chunk[1] == 1:
                report_page.write(page, journal.records(rows), title=Path(options.manifest).name)
            code = _summary(rows, journal, teller, page if options.chunk[1] == 1 else journal.path)
            return CODES["done"] if options.lines_may_fail else code


def _checked_rows(options: Options, model: Model, files_of: FilesOf, *, scenes: bool) -> list[Row]:
    if options.output.exists() and not options.output.is_dir():
        raise Stop("usage", f"{options.output} is a file; --output must be a folder.")
    known: set[str] = set()
    if options.output.is_dir():
        journal = Journal(options.output)
        known = journal.begun().union(journal.entries)

    def taken(row: Row, file: Path) -> bool:
        if row.name in known or not file.exists():
            return False
        name = next(name for name, path in files_of(row).items() if path == file)
        return name not in SUFFIXES or not delivery.is_ours(file, name)

    try:
        for name in options.formats:
            delivery.check_format(name, model.channels)
    except UserError as error:
        raise Stop("model", str(error)) from error
    checks = Checks(
        defaults=options.defaults,
        files=lambda row: list(files_of(row).values()),
        settings=functools.partial(_check_settings, model),
        scenes=scenes,
        taken=taken,
    )
    rows = manifest.read(options.manifest, checks)
    said = next((row for row in rows if row.is_said), None)
    if said is not None and not model.tells_phones:
        raise Stop("model", f"row {said.number}: this model tells no phones, so it cannot use what is said.")
    if options.recognise and not model.tells_phones:
        raise Stop("model", "this model tells no phones, so it cannot use recognised words; leave out --recognise.")
    return rows


def _check_settings(model: Model, settings: Mapping[str, Any]) -> None:
    if settings["language"]:
        known_language(settings["language"])
    model.check_settings(settings)


def curve_files(options: Options, row: Row) -> dict[str, Path]:
    """The files of a line's curves, by format."""
    return {name: options.output / f"{row.name}{SUFFIXES[name]}" for name in options.formats}


def _chunk(rows: list[Row], chunk: tuple[int, int]) -> list[Row]:
    index, n_chunks = chunk
    return rows[(index - 1) * len(rows) // n_chunks : index * len(rows) // n_chunks]


def _recipes(options: Options, model: Model) -> Callable[[Row], str]:
    """The recipe of a row; rows share their settings' dictionaries, so few are computed."""
    known: dict[tuple[int, str, str, str], str] = {}
    recogniser_sha256 = functools.cache(resume.folder_sha256)

    def recipe_of(row: Row) -> str:
        recogniser = _recogniser(options, row)
        key = (id(row.settings), row.character, row.object, recogniser)
        if key not in known:
            others = {"character": resume.file_sha256(row.character), "object": row.object} if row.character else {}
            if recogniser:
                others["recogniser"] = recogniser_sha256(recogniser)
            known[key] = resume.recipe(
                row.settings, formats=options.formats, model=model.sha256, engine=model.engine, **others
            )
        return known[key]

    return recipe_of


def _recogniser(options: Options, row: Row) -> str:
    """The folder of the recogniser that hears a row's words; empty where they are given."""
    return "" if row.is_said else options.recognise


def _arguments(options: Options, model: Model, files_of: FilesOf, row: Row) -> dict[str, Any]:
    return {
        "audio": row.audio,
        "transcript": row.transcript,
        "text": row.text,
        "track": row.track,
        "recognise": _recogniser(options, row),
        "files": {name: str(path.absolute()) for name, path in files_of(row).items()},
        "settings": dict(row.settings),
        "model": options.model if options.model == "default" else str(Path(options.model).absolute()),
        "engine": model.engine,
        "device": options.device,
        "memory_bytes": _memory_bytes() // max(1, options.n_workers),
    }


def _memory_bytes() -> int:
    """The machine's memory, or 0 if the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _take(
    answers: Iterator[tuple[Row, Answer]],
    journal: Journal,
    recipe_of: Callable[[Row], str],
    teller: Teller,
    *,
    n_workers: int,
) -> None:
    n_made = n_without_engine = 0
    for row, answer in answers:
        record = _record(row, answer, journal, recipe_of(row))
        cause = record.get("cause", "")
        n_made += record["state"] == MADE
        n_without_engine += cause == "engine"
        journal.add(record)
        teller.line(record)
        # The other lines would fail alike: nobody wants ten thousand errors, or an empty night.
        if cause in ("disk", "model") or (cause == "engine" and not n_made and n_without_engine > 2 * n_workers):
            raise Stop(cause, f"row {row.number}: {record['error']} The run stops here.")


def _record(row: Row, answer: Answer, journal: Journal, recipe: str) -> dict[str, Any]:
    record = {"row": row.number, "name": row.name, "audio": journal.relative(row.audio), "recipe": recipe}
    if "error" in answer:
        return {**record, "state": FAILED, "cause": answer["cause"], "error": str(answer["error"])}
    return {**record, "state": MADE, **answer}


def _summary(rows: Sequence[Row], journal: Journal, teller: Teller, page: Path) -> int:
    failed = [record.get("cause", "internal") for record in journal.records(rows) if record["state"] == FAILED]
    n_made = len(rows) - len(failed)
    code = code_of(n_made, failed)
    cause = next(name for name, number in CODES.items() if number == code)
    teller.end(code, cause, made=n_made, failed=len(failed), report=str(page))
    return code


def _remove_unfinished(books: Iterable[Path], rows: Iterable[Row], files_of: FilesOf) -> None:
    """Remove what a killed run left of its books and of these rows' files; a run of other rows may write its own."""
    own: dict[Path, set[str]] = {}
    for path in itertools.chain(books, itertools.chain.from_iterable(files_of(row).values() for row in rows)):
        own.setdefault(path.parent, set()).add(path.name)
    for folder, names in own.items():
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                found = _UNFINISHED.fullmatch(entry.name)
                if found and f"{found[1]}{found[2] or ''}" in names:
                    with suppress(OSError):
                        os.unlink(entry.path)


__all__ = ["PAGE", "REPORT", "Model", "Options", "Stop", "curve_files", "run"]
