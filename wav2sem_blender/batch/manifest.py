# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a batch: which recordings, with which settings, into which files. Read and checked whole.

A manifest is a csv file (comma, semicolon or tab), a jsonl file, or a pattern such as `lines/**/*.wav`. Paths in it are
relative to its folder. Nothing starts while one row has a fault; every fault names its row, as a spreadsheet or an
editor counts them: in a csv file the header is row 1.
"""

from __future__ import annotations

import argparse
import csv
import glob
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..argument_types import finite, integer, rate, style, width, yes_or_no
from ..errors import MissingFileError, Text, UserError
from ..files import same_file_name

SETTINGS: dict[str, tuple[Callable[[str], Any], Any]] = {
    "style": (style, 0),
    "articulation": (finite, 0.0),
    "semantic_strength": (finite, 1.0),
    "strength": (finite, 1.0),
    "smoothing": (width, 0.0),
    "delay": (finite, 0.0),
    "fps": (rate, None),
    "seed": (integer, 0),
    "tongue": (yes_or_no, True),
    "start_frame": (integer, 1),
    "language": (str, ""),
}
"""How each setting of a row is read, and its value where neither the row nor the command line gives one."""
_TEXTS = ("audio", "output", "transcript", "text", "track", "character", "object")
COLUMNS = (*_TEXTS, "settings", *SETTINGS)
_GLOB = "*?["
_SNIFFED = ",;\t"
_MAX_PART_BYTES = 200  # of 255, because a file is first written under a longer name
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_NOT_IN_NAMES = re.compile(r'[<>:"|?*\\\x00-\x1f\ud800-\udfff]')


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the batch.

    Attributes:
        number: Its row in the manifest.
        name: The result's name below the output folder, without suffix; "/" separates folders.
        audio: Absolute path of the recording.
        settings: Every setting of `SETTINGS`; rows with equal settings share one dictionary.
        transcript: Absolute path of a file with what is said; empty for none.
        text: What is said, where the row itself has it; empty for none.
        track: Absolute path of a file with words and phones that the mouth follows; empty for none.
        character: Absolute path of a .blend file; empty for curves alone.
        object: The mesh in `character`; empty for its active object.
    """

    number: int
    name: str
    audio: str
    settings: Mapping[str, Any]
    transcript: str = ""
    text: str = ""
    track: str = ""
    character: str = ""
    object: str = ""

    @property
    def is_said(self) -> bool:
        """Whether the row tells what is said."""
        return bool(self.transcript or self.text or self.track)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row; row 0 is the manifest as a whole."""

    row: int
    text: Text

    def __str__(self) -> str:
        return f"row {self.row}: {self.text}" if self.row else str(self.text)


class ManifestError(UserError):
    """The manifest cannot be used.

    Attributes:
        faults: Every fault, in the order of the rows.
    """

    def __init__(self, template: str, *, faults: list[Fault], **values: object) -> None:
        super().__init__(template, **values)
        self.faults = faults


@dataclass(kw_only=True)
class Checks:
    """What a row must fulfil beyond its own form.

    Attributes:
        defaults: Settings of the command line, for rows that give none.
        files: The result files of a row's name and character, as paths.
        settings: Raises UserError for settings that the model does not have.
        scenes: Whether rows may have a character, because this is Blender.
        taken: Whether a file may not be written, because somebody else made it.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    files: Callable[[Row], list[Path]]
    settings: Callable[[Mapping[str, Any]], object] = lambda _settings: None
    scenes: bool = False
    taken: Callable[[Row, Path], bool] = lambda _row, _file: False


def read(manifest: str, checks: Checks) -> list[Row]:
    """Every row of a manifest, checked.

    Args:
        manifest: A csv or jsonl file, or a pattern.
        checks: As `Checks`.

    Raises:
        ManifestError: With every fault.
    """
    reader = _Reader(checks)
    try:
        rows = [row for number, raw in _raw_rows(manifest, reader) if (row := reader.row(number, raw)) is not None]
    except UserError as error:
        reader.faults.append(Fault(0, error.text))
    except OSError as error:
        text = Text("{manifest} cannot be read ({reason}).", manifest=manifest, reason=error.strerror or error)
        reader.faults.append(Fault(0, text))
    if not reader.faults and not rows:
        reader.faults.append(Fault(0, Text("it has no rows; write one for each recording")))
    if reader.faults:
        faults = sorted(reader.faults, key=lambda fault: fault.row)
        raise ManifestError(
            "{manifest}: {n_faults} faults; nothing was started. The first: {fault}",
            faults=faults,
            manifest=manifest,
            n_faults=len(faults),
            fault=str(faults[0]),
        )
    return rows


def _raw_rows(manifest: str, reader: _Reader) -> Iterator[tuple[int, Mapping[str, Any]]]:
    path = Path(manifest)
    if any(sign in manifest for sign in _GLOB) and not path.exists():
        yield from _globbed(manifest, reader)
        return
    if path.is_dir():
        raise UserError('it is a folder; give a csv or jsonl file, or a pattern such as "{folder}/*.wav"', folder=path)
    if not path.is_file():
        raise MissingFileError("there is no such manifest: a csv or jsonl file, or a pattern such as lines/*.wav")
    reader.base = path.absolute().parent
    if path.suffix.lower() == ".csv":
        yield from _of_csv(path, reader)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        yield from _of_jsonl(path, reader)
    else:
        raise UserError('a manifest is a .csv or .jsonl file, not "{suffix}"', suffix=path.suffix)


def _globbed(pattern: str, reader: _Reader) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """A row for each file; results keep the folders below the pattern's first wildcard."""
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    base = Path(fixed if fixed.endswith(("/", os.sep)) else os.path.dirname(fixed) or ".").absolute()
    reader.base = base
    found = sorted(path for path in glob.iglob(pattern, recursive=True) if os.path.isfile(path))
    if not found:
        raise MissingFileError('no file matches "{pattern}"', pattern=pattern)
    for number, name in enumerate(found, 1):
        inside = Path(name).absolute().relative_to(base)
        yield number, {"audio": str(inside), "output": inside.with_suffix("").as_posix()}


def _of_csv(path: Path, reader: _Reader) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        first = file.readline()
        file.seek(0)
        delimiter = max(_SNIFFED, key=first.count)
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
            _check_header(header)
            for number, values in enumerate(rows, 2):
                if not any(map(str.strip, values)):
                    continue
                if len(values) > len(header):
                    text = Text("it has {found} fields, the header {known}; quote a field that has a comma",
                                found=len(values), known=len(header))  # fmt: skip
                    reader.faults.append(Fault(number, text))
                    continue
                yield number, dict(zip(header, values, strict=False))
        except csv.Error as error:
            text = Text("it is no csv ({reason}); look for a quote that is not closed", reason=error)
            reader.faults.append(Fault(rows.line_num, text))


def _check_header(header: list[str]) -> None:
    if "audio" not in header:
        raise UserError('the header has no column "audio"; its columns may be {columns}', columns=", ".join(COLUMNS))
    for name in header:
        if header.count(name) > 1:
            raise UserError('the column "{column}" occurs twice', column=name)
        if problem := _unknown(name):
            raise UserError.of(problem)


def _unknown(name: str) -> Text | None:
    """What to say of a column that a batch does not have; those that begin with # are the user's own."""
    if name in COLUMNS or name.startswith("#") or not name:
        return None
    return Text(
        'the column "{column}" is unknown; put # before your own columns. Known are {columns}',
        column=name,
        columns=", ".join(COLUMNS),
    )


def _of_jsonl(path: Path, reader: _Reader) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                raw = json.loads(line)
            except (ValueError, RecursionError):
                reader.faults.append(Fault(number, Text("it is no JSON")))
                continue
            if not isinstance(raw, dict):
                reader.faults.append(Fault(number, Text("it is no JSON object in braces")))
                continue
            problem = next(filter(None, map(_unknown, raw)), None)
            if problem is not None:
                reader.faults.append(Fault(number, problem))
                continue
            yield number, raw


class _Reader:
    """Turns raw rows into checked ones, and keeps the faults."""

    def __init__(self, checks: Checks) -> None:
        self.faults: list[Fault] = []
        self.base = Path()
        self._checks = checks
        self._settings: dict[str, Mapping[str, Any] | Text] = {}
        self._taken: dict[str, int] = {}

    def row(self, number: int, raw: Mapping[str, Any]) -> Row | None:
        """The row, or None if it has a fault; each of its faults is kept."""
        before = len(self.faults)

        def fault(template: str, **values: object) -> None:
            self.faults.append(Fault(number, Text(template, **values)))

        texts = {name: self._text(name, raw, fault) for name in _TEXTS}
        if len(self.faults) > before:
            return None
        audio = self._file(texts["audio"], "audio", fault)
        transcript = self._file(texts["transcript"], "transcript", fault) if texts["transcript"] else ""
        track = self._file(texts["track"], "track", fault) if texts["track"] else ""
        if sum(map(bool, (transcript, texts["text"], track))) > 1:
            fault("it has more than one of transcript, text and track; leave the others empty")
        character = self._character(texts, fault)
        name = texts["output"] or PurePosixPath(Path(texts["audio"]).name).stem
        if problem := _name_problem(name):
            fault('the output "{name}" {problem}', name=name, problem=problem)
        settings = self._settings_of(raw)
        if isinstance(settings, Text):
            fault("{problem}", problem=settings)
        if len(self.faults) > before:
            return None
        assert not isinstance(settings, Text)
        row = Row(number, name, audio, settings, transcript, texts["text"], track, character, texts["object"])
        self._check_files(row, fault)
        return row if len(self.faults) == before else None

    def _text(self, name: str, raw: Mapping[str, Any], fault: Callable[..., None]) -> str:
        value = raw.get(name)
        if value is None:
            value = ""
        if not isinstance(value, str):
            fault("{column} is no text", column=name)
            return ""
        if name == "audio" and not value.strip():
            fault("it names no audio")
        if not value.isascii() and any("\udc80" <= sign <= "\udcff" for sign in value):
            fault("{column} is not in UTF-8; save the manifest as UTF-8, or rename the file", column=name)
        return value.strip()

    def _file(self, text: str, column: str, fault: Callable[..., None]) -> str:
        path = os.path.normpath(os.path.join(self.base, text))
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                fault("{column} {file} is a folder", column=column, file=path)
            elif not stat.S_ISREG(status.st_mode):
                fault("{column} {file} is no regular file", column=column, file=path)
            elif not status.st_size:
                fault("{column} {file} is empty", column=column, file=path)
            elif not os.access(path, os.R_OK):
                fault("{column} {file} may not be read", column=column, file=path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            fault("{column} {file} cannot be found ({reason})", column=column, file=path, reason=reason)
        return path

    def _character(self, texts: Mapping[str, str], fault: Callable[..., None]) -> str:
        if not texts["character"]:
            if texts["object"]:
                fault('the object "{object}" needs a character, the .blend file that it is in', object=texts["object"])
            return ""
        if not self._checks.scenes:
            fault("a character needs Blender: blender -b --command wav2sem_batch MANIFEST --output DIR")
        return self._file(texts["character"], "character", fault)

    def _settings_of(self, raw: Mapping[str, Any]) -> Mapping[str, Any] | Text:
        given = {name: raw[name] for name in ("settings", *SETTINGS) if raw.get(name) not in (None, "")}
        key = repr(given)
        if key not in self._settings:
            try:
                self._settings[key] = self._converted(given)
            except UserError as error:
                self._settings[key] = error.text
        return self._settings[key]

    def _converted(self, given: dict[str, Any]) -> Mapping[str, Any]:
        nested = given.pop("settings", {})
        if isinstance(nested, str):
            try:
                nested = json.loads(nested)
            except (ValueError, RecursionError):
                raise UserError("settings is no JSON") from None
        if not isinstance(nested, dict):
            raise UserError("settings is no JSON object, such as {example}", example='{"style": "clear"}')
        if unknown := nested.keys() - SETTINGS.keys():
            raise UserError(
                'settings has no "{name}"; it may have {known}', name=min(unknown), known=", ".join(SETTINGS)
            )
        values = {name: self._checks.defaults.get(name, default) for name, (_, default) in SETTINGS.items()}
        for name, value in {**nested, **given}.items():
            values[name] = _converted_value(name, value)
        self._checks.settings(values)
        return values

    def _check_files(self, row: Row, fault: Callable[..., None]) -> None:
        for file in self._checks.files(row):
            name = same_file_name(file)
            other = self._taken.setdefault(name, row.number)
            if other != row.number:
                fault("its result {file} would overwrite that of row {row}; give it another output", file=file.name,
                      row=other)  # fmt: skip
                return
            if name.endswith(os.path.splitext(row.audio)[1].casefold()) and name == same_file_name(Path(row.audio)):
                fault("its result would overwrite the recording {file}", file=file)
            elif self._checks.taken(row, file):
                fault("{file} exists and was not made by a batch; choose another --output", file=file)


def _converted_value(name: str, value: Any) -> Any:
    convert, _ = SETTINGS[name]
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if not isinstance(value, str | int | float):
        raise UserError("{name} is {value}, no number and no text", name=name, value=value)
    try:
        return convert(str(value).strip())
    except argparse.ArgumentTypeError as error:
        raise UserError("{name}: {reason}", name=name, reason=error) from None


def _name_problem(name: str) -> str:
    """Why a result cannot have this name on every system; empty if it can."""
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is an absolute path; it must lie below --output"
    if _NOT_IN_NAMES.search(name):
        return "has a character that not every system allows in names"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return 'has an empty part, "." or ".."; it must lie below --output'
        if part.endswith((".", " ")) or part.startswith("."):
            return "has a part that begins with a dot, or ends with a dot or a space"
        if _RESERVED.fullmatch(part):
            return "has a name that Windows reserves"
        if len(part.encode()) > _MAX_PART_BYTES:
            return f"has a part of more than {_MAX_PART_BYTES} bytes"
    return ""
