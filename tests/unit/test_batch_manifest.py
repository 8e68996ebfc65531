# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a batch: its forms, and every fault named with its row before anything starts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from wav2sem_blender.batch.manifest import Checks, ManifestError, Row, read
from wav2sem_blender.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings that are never opened here."""
    for name in ("a.wav", "b.wav", "deep/c.wav", "deep/a.wav", "hero.blend"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"sound")
    return tmp_path


def checks(folder: Path, **changes) -> Checks:
    return Checks(files=lambda row: [folder / "out" / f"{row.name}.npz"], **changes)


def rows_of(folder: Path, name: str, content: str | bytes, **changes) -> list[Row]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(str(path), checks(folder, **changes))


def faults_of(folder: Path, name: str, content: str | bytes, **changes) -> list[tuple[int, str]]:
    with pytest.raises(ManifestError) as caught:
        rows_of(folder, name, content, **changes)
    return [(fault.row, str(fault.text)) for fault in caught.value.faults]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_in_the_dialects_of_spreadsheets(folder, delimiter):
    lines = [["audio", "output", "style", "#speaker"], ["a.wav", "", "", "Ann"], ["deep/c.wav", "act 1/c", "clear", ""]]
    text = "\ufeff" + "".join(delimiter.join(line) + "\r\n" for line in lines)
    first, second = rows_of(folder, "m.csv", text)
    assert (first.number, first.name, first.audio) == (2, "a", str(folder / "a.wav"))
    assert (second.number, second.name, second.settings["style"]) == (3, "act 1/c", "clear")
    assert first.settings["style"] == 0


def test_jsonl_with_settings_of_every_kind(folder):
    raw = {"audio": "a.wav", "settings": {"style": [0.5, 0.5], "tongue": False}, "delay": -0.1, "seed": 7}
    (row,) = rows_of(folder, "m.jsonl", json.dumps(raw) + "\n\n", defaults={"delay": 1.0, "strength": 0.5})
    wanted = {"style": [0.5, 0.5], "tongue": False, "delay": -0.1, "seed": 7, "strength": 0.5}
    assert row.settings.items() >= wanted.items(), "a row's own values come before those of the command line"


def test_what_is_said_is_a_file_or_the_cell_itself(folder):
    (folder / "a.txt").write_text("Good night.")
    first, second = rows_of(folder, "m.csv", 'audio,transcript,text,language\na.wav,a.txt,,de\nb.wav,,"Yes, you.",\n')
    assert (first.transcript, first.text, first.settings["language"]) == (str(folder / "a.txt"), "", "de")
    assert (second.transcript, second.text, second.settings["language"]) == ("", "Yes, you.", "")


def test_equal_settings_are_one_object_so_that_a_million_rows_fit(folder):
    first, second = rows_of(folder, "m.csv", "audio,style,output\na.wav,1,x\nb.wav,1,y\n")
    assert first.settings is second.settings


def test_a_pattern_keeps_the_folders_below_it(folder):
    found = read(str(folder / "**" / "*.wav"), checks(folder))
    assert [row.name for row in found] == ["a", "b", "deep/a", "deep/c"]
    assert [row.number for row in found] == [1, 2, 3, 4]


def test_a_relative_pattern(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [row.audio for row in read("*.wav", checks(folder))] == [str(folder / "a.wav"), str(folder / "b.wav")]


CSV_FAULTS = {
    "no column audio": ("sound\na.wav\n", [(0, 'no column "audio"')]),
    "unknown column": ("audio,articulasion\na.wav,1\n", [(0, '"articulasion" is unknown')]),
    "column twice": ("audio,style,Style\na.wav,1,2\n", [(0, '"style" occurs twice')]),
    "no rows": ("audio\n", [(0, "no rows")]),
    "empty file": ("", [(0, 'no column "audio"')]),
    "missing audio": ("audio\nz.wav\na.wav\ny.wav\n", [(2, "z.wav cannot be found"), (4, "y.wav cannot be found")]),
    "folder": ("audio\ndeep\n", [(2, "deep is a folder")]),
    "no audio": ("audio,style\n,1\n", [(2, "names no audio")]),
    "same output": ("audio\na.wav\nb.wav\ndeep/a.wav\n", [(4, "would overwrite that of row 2")]),
    "same output on Windows": ("audio,output\na.wav,x\nb.wav,X\n", [(3, "would overwrite that of row 2")]),
    "outside": ("audio,output\na.wav,../x\n", [(2, "must lie below --output")]),
    "absolute": ("audio,output\na.wav,/x\n", [(2, "absolute path")]),
    "drive": ("audio,output\na.wav,C:x\n", [(2, "absolute path")]),
    "reserved": ("audio,output\na.wav,nul\n", [(2, "Windows reserves")]),
    "sign": ('audio,output\na.wav,"x?"\n', [(2, "not every system allows")]),
    "long": (f"audio,output\na.wav,{'x' * 201}\n", [(2, "more than 200 bytes")]),
    "number": ("audio,strength\na.wav,loud\nb.wav,nan\n", [(2, "no"), (3, "not a finite number")]),
    "range": ("audio,fps\na.wav,0\n", [(2, "fps: 0 is not in 1 to 1000")]),
    "too many fields": ("audio,style\na.wav,1,2\n", [(2, "3 fields, the header 2")]),
    "open quote": ('audio\na.wav\n"b.wav\n', [(3, "quote that is not closed")]),
    "not UTF-8": (b"audio\n\xe4.wav\n", [(2, "not in UTF-8")]),
    "nul": (b"audio\na\0.wav\n", [(2, "cannot be found"), (2, "not every system allows")]),
    "object without character": ("audio,object\na.wav,Head\n", [(2, "needs a character")]),
    "settings": ('audio,settings\na.wav,"{""stile"": 1}"\n', [(2, 'settings has no "stile"')]),
    "settings no JSON": ("audio,settings\na.wav,{\n", [(2, "no JSON")]),
    "two texts": ("audio,transcript,text\na.wav,b.wav,Hello\n", [(2, "more than one of transcript, text and track")]),
    "a text and a track": (
        "audio,text,track\na.wav,Hello,b.wav\n",
        [(2, "more than one of transcript, text and track")],
    ),
    "no track": ("audio,track\na.wav,a.csv\n", [(2, "a.csv cannot be found")]),
    "no transcript": ("audio,transcript\na.wav,a.txt\n", [(2, "a.txt cannot be found")]),
    "character": ("audio,character\na.wav,hero.blend\n", [(2, "needs Blender")]),
}


@pytest.mark.parametrize("name", CSV_FAULTS)
def test_every_fault_names_its_row(folder, name):
    content, wanted = CSV_FAULTS[name]
    found = faults_of(folder, "m.csv", content)
    assert [row for row, _ in found] == [row for row, _ in wanted]
    for (_, text), (_, part) in zip(found, wanted, strict=True):
        assert part in text


JSONL_FAULTS = {
    "no JSON": ('{"audio": "a.wav"}\n{"audio": \n', [(2, "no JSON")]),
    "no object": ("[1]\n", [(1, "no JSON object")]),
    "deep": ("[" * 100_000 + "\n", [(1, "no JSON")]),
    "unknown": ('{"audio": "a.wav", "stile": 1}\n', [(1, '"stile" is unknown')]),
    "no text": ('{"audio": 7}\n', [(1, "audio is no text")]),
    "wrong type": ('{"audio": "a.wav", "delay": {"a": 1}}\n', [(1, "no number and no text")]),
    "surrogate": ('{"audio": "a.wav", "output": "\\ud800"}\n', [(1, "not every system allows")]),
}


@pytest.mark.parametrize("name", JSONL_FAULTS)
def test_every_fault_of_a_jsonl_names_its_line(folder, name):
    content, wanted = JSONL_FAULTS[name]
    found = faults_of(folder, "m.jsonl", content)
    assert [row for row, _ in found] == [row for row, _ in wanted]
    assert all(part in text for (_, text), (_, part) in zip(found, wanted, strict=True))


def test_empty_and_special_recordings(folder):
    (folder / "empty.wav").touch()
    found = faults_of(folder, "m.csv", "audio\nempty.wav\n")
    assert found == [(2, f"audio {folder / 'empty.wav'} is empty")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.wav")
        ((row, text),) = faults_of(folder, "m.csv", "audio\npipe.wav\n")
        assert (row, text.endswith("is no regular file")) == (2, True)


def test_settings_that_the_model_does_not_have(folder):
    def refuse(settings):
        if settings["style"] == "sad":
            raise UserError("style sad: this model has natural")

    assert faults_of(folder, "m.csv", "audio,style\na.wav,sad\nb.wav,0\n", settings=refuse) == [
        (2, "style sad: this model has natural")
    ]


def test_results_of_somebody_else_and_the_recording_itself(folder):
    (folder / "out").mkdir()
    (folder / "out" / "a.npz").write_text("a thesis")
    found = faults_of(folder, "m.csv", "audio\na.wav\nb.wav\n", taken=lambda _row, file: file.exists())
    assert [row for row, _ in found] == [2] and "was not made by a batch" in found[0][1]
    (folder / "out" / "s.npz").write_text("sound")
    found = faults_of(folder, "m.csv", "audio,output\nout/s.npz,s\n")
    assert "would overwrite the recording" in found[0][1]


@pytest.mark.parametrize(
    ("manifest", "part"),
    [
        ("missing.csv", "no such manifest"),
        ("deep", "it is a folder"),
        ("hero.blend", 'not ".blend"'),
        ("*.ogg", "no file"),
    ],
)
def test_no_manifest(folder, monkeypatch, manifest, part):
    monkeypatch.chdir(folder)
    with pytest.raises(ManifestError) as caught:
        read(manifest, checks(folder))
    assert [fault.row for fault in caught.value.faults] == [0] and part in str(caught.value)


def test_a_character_where_scenes_are_made(folder):
    (row,) = rows_of(folder, "m.csv", "audio,character,object\na.wav,hero.blend,Head\n", scenes=True)
    assert (row.character, row.object) == (str(folder / "hero.blend"), "Head")
    assert faults_of(folder, "m.csv", "audio,character\na.wav,villain.blend\n", scenes=True)[0][0] == 2
