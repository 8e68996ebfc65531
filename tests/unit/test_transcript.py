# SPDX-License-Identifier: GPL-3.0-or-later
"""Transcripts: every format, markup, speakers, numbers and abbreviations, and what is refused."""

from __future__ import annotations

import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.words.spoken_english import said_in_english
from wav2sem_blender.pipeline.words.transcript import MAX_WORDS, Mark, load_transcript, parse_transcript


def texts(transcript):
    return [word.text for word in transcript.words]


def times(transcript):
    return [(line.start_s, line.end_s) for line in transcript.lines]


SRT = """\ufeff1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> {\\an8}there
- General?

2
00:00:02,000 --> 00:00:01,500
Bye.
"""
VTT = """WEBVTT

STYLE
::cue { color: red }

NOTE a remark
over two lines

00:01.000 --> 01:02.500 align:start
<v Anna>Hello</v>
"""
ASS = """[Script Info]
Title: words that nobody says

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:03.00,0:00:04.00,D,,0,0,0,,Later
Dialogue: 0,0:00:01.00,0:00:02.00,D,Anna,0,0,0,,{\\i1}Hi, you\\Nthere
"""


@pytest.mark.parametrize(
    ("suffix", "text", "words", "lines"),
    [
        (".srt", SRT, ["Hello", "there", "General", "Bye"], [(1.0, 2.5), (2.0, 2.0)]),
        (".vtt", VTT, ["Hello"], [(1.0, 62.5)]),
        (".ass", ASS, ["Hi", "you", "there", "Later"], [(1.0, 2.0), (3.0, 4.0)]),
        (
            ".txt",
            "0.5\t1.25\thello world\n\\\t200\t300\n2.5\t3\tbye\n",
            ["hello", "world", "bye"],
            [(0.5, 1.25), (2.5, 3.0)],
        ),
        (".lab", "0 5000000 sil\n5000000 12000000 hello\n", ["hello"], [(0.5, 1.2)]),
        (".lab", "no times here\n", ["no", "times", "here"], [(None, None)]),
        (".txt", "one\n\ntwo three", ["one", "two", "three"], [(None, None)] * 2),
    ],
)
def test_formats(suffix, text, words, lines):
    transcript = parse_transcript(text.removeprefix("\ufeff"), suffix)
    assert texts(transcript) == words
    assert times(transcript) == lines


@pytest.mark.parametrize("text", [SRT, VTT, ASS])
def test_subtitles_are_recognised_where_they_are_pasted_or_named_otherwise(text):
    pasted = parse_transcript(text.removeprefix("\ufeff"))
    named = parse_transcript(text.removeprefix("\ufeff"), {SRT: ".srt", VTT: ".vtt", ASS: ".ass"}[text])
    assert (texts(pasted), times(pasted)) == (texts(named), times(named))


def test_a_text_grid_is_a_transcript_with_times(tmp_path):
    path = tmp_path / "a.TextGrid"
    path.write_text(
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n"IntervalTier"\n"words"\n0\n2\n2\n'
        '0\n1\n""\n1\n2\n"hello"\n'
    )
    assert times(load_transcript(path)) == [(1.0, 2.0)]
    assert texts(load_transcript(path)) == ["hello"]


def test_speakers_are_no_words():
    transcript = parse_transcript("ANNA: Hello there.\nBOB (whispers): Yes.\nRemember: do it.\nDr. Oz: hi\nDr. Oz: bye")
    assert texts(transcript) == ["Hello", "there", "Yes", "Remember", "do", "it", "hi", "bye"]
    assert [line.speaker for line in transcript.lines] == ["ANNA", "BOB", "", "Dr. Oz", "Dr. Oz"]


def test_stage_directions_tags_and_emoji_are_left_out():
    transcript = parse_transcript("(laughs) Well [door slams] <b>now</b> ♪ la 👍🏽 👩‍👩‍👧 ❤️ 1️⃣ ... — go! 🎉")
    assert texts(transcript) == ["Well", "now", "la", "1", "go"]


def test_markup():
    transcript = parse_transcript(
        "hello *there big* world [rest 0.5] {clear}you are{/} fine\n{jaw 1,5}very ok{/} [closed]"
    )
    assert texts(transcript) == ["hello", "there", "big", "world", "you", "are", "fine", "very", "ok"]
    assert transcript.marks == (
        Mark("stressed", 1, 3),
        Mark("rest", 4, 4, 0.5),
        Mark("clear", 4, 6),
        Mark("jaw", 7, 9, 1.5),
        Mark("closed", 9, 9),
    )


def test_markup_that_does_not_fit_does_no_harm():
    transcript = parse_transcript("2 * 3 is {smile}six{/} {/} *x\n{jaw}y z")
    assert texts(transcript) == ["2", "3", "is", "six", "x", "y", "z"]
    assert transcript.marks == (Mark("jaw", 5, 7),)
    assert "{smile}" in transcript.notes[0]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("42", "forty two"),
        ("0", "zero"),
        ("007", "zero zero seven"),
        ("1984", "nineteen eighty four"),
        ("1905", "nineteen oh five"),
        ("2001", "two thousand one"),
        ("2024", "twenty twenty four"),
        ("1,234,567", "one million two hundred and thirty four thousand five hundred and sixty seven"),
        ("3.14", "three point one four"),
        ("21st", "twenty first"),
        ("100th", "one hundredth"),
        ("$5.50", "five dollars fifty"),
        ("$1", "one dollar"),
        ("5€", "five euros"),
        ("50%", "fifty percent"),
        ("3:30", "three thirty"),
        ("7:05", "seven oh five"),
        ("8:00", "eight o'clock"),
        ("MP3", "em pee three"),
        ("10²", "ten ²"),
        ("½", "½"),
        ("9" * 30, " ".join(["nine"] * 30)),
        ("Mr.", "mister"),
        ("Dr", "doctor"),
        ("no.", "no"),
        ("e.g.", "for example"),
        ("U.S.A.", "you ess ay"),
        ("p.m.", "pee em"),
        ("BBC", "bee bee see"),
        ("STOP", "STOP"),
        ("NASA", "NASA"),
        ("I", "I"),
        ("it's", "it's"),
    ],
)
def test_english_as_it_is_said(written, said):
    assert said_in_english(written) == said


def test_numbers_stand_as_they_are_written():
    transcript = parse_transcript("It cost $5.50 in 1984, at 3:30 p.m. Yes.")
    assert texts(transcript) == ["It", "cost", "$5.50", "in", "1984", "at", "3:30", "p.m", "Yes"]
    assert [word.said for word in transcript.words][2] == "five dollars fifty"
    assert parse_transcript("um 42.", language="de").words[1].said == "42"


def test_any_script_has_words():
    transcript = parse_transcript("l'homme d’État नमस्ते 你好,世界 こんにちは 안녕 שלום مرحبا well-known")
    assert texts(transcript) == [
        *("l'homme", "d’État", "नमस्ते", "你", "好", "世", "界", "こんにちは", "안녕", "שלום", "مرحبا", "well-known")
    ]


@pytest.mark.parametrize(
    ("text", "suffix", "said"),
    [
        ("", ".txt", "no words"),
        ("  \n\n ", ".txt", "no words"),
        ("😀 ... !!!", ".txt", "no words"),
        ("[music]", ".txt", "no words"),
        ("x" * 500, ".txt", "no words"),
        ("a\0b", ".txt", "no text"),
        ("{\\rtf1\\ansi hello}", ".txt", "a document, not its text"),
        ("hello", ".srt", "no subtitles"),
        ("hello", ".ass", "no subtitles"),
        ("hello", ".TextGrid", "no TextGrid"),
        ("a " * (MAX_WORDS + 1), ".txt", "more than 100000 words"),
    ],
)
def test_what_is_no_transcript_is_one_sentence(text, suffix, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_transcript(text, suffix)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" * 100, "no text file"),
        ("a.txt", b"", "no words"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\n\n", "no words"),
    ],
)
def test_a_bad_file_is_one_sentence_with_its_name(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        load_transcript(path)
    assert str(caught.value).startswith(name)


def test_a_missing_file_a_folder_and_an_enormous_one(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_transcript(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is a folder"):
        load_transcript(tmp_path)
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(30_000_000)
    with pytest.raises(UserError, match="larger than 20 MB"):
        load_transcript(huge)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_text("Über die Brücke", encoding=encoding)
    assert texts(load_transcript(path)) == ["Über", "die", "Brücke"]


def test_a_long_line_of_brackets_is_read_at_once():
    transcript = parse_transcript("(" * 20_000 + "word" + "[" * 20_000 + "{" * 20_000 + "<" * 20_000 + ":" * 2000)
    assert texts(transcript) == ["word"]
