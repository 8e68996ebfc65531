# SPDX-License-Identifier: GPL-3.0-or-later
"""The track of words and phones: validation, edits, forced probabilities, and its files."""

from __future__ import annotations

import random

import numpy as np
import pytest

from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.words.directions import AMOUNTS, called, meant
from wav2sem_blender.pipeline.words.track import SHORTEST_S, Direction, Phone, Track, Word, spread
from wav2sem_blender.pipeline.words.track_files import is_track_file, load_track, read_text_grid, save_track
from wav2sem_blender.pipeline.words.transcript import parse_transcript

TRACK = Track(
    words=(Word("map", 0.1, 0.4, 0.9), Word("it", 0.4, 0.6, 0.5), Word("now", 1.0, 1.3)),
    phones=(
        *(Phone("M", 0.1, 0.2, 0.9), Phone("AE", 0.2, 0.3, 0.8), Phone("P", 0.3, 0.4, 0.7)),
        *(Phone("IH", 0.4, 0.5, 0.4, False), Phone("T", 0.5, 0.6, 0.4, False)),
        *(Phone("N", 1.0, 1.1), Phone("AW", 1.1, 1.3)),
    ),
    language="en",
)


def times(items):
    return [(round(item.start_s, 4), round(item.end_s, 4)) for item in items]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"words": (Word("a", 0.2, 0.2),)}, "has no length"),
        ({"words": (Word("a", 0.2, 0.1),)}, "has no length"),
        ({"words": (Word("a", 0.0, 0.2), Word("b", 0.1, 0.3))}, "before a has ended"),
        ({"phones": (Phone("P", 0.3, 0.4), Phone("B", 0.0, 0.1))}, "before P has ended"),
        ({"words": (Word("a", -0.1, 0.2),)}, "no valid times"),
        ({"words": (Word("a", 0.0, float("nan")),)}, "no valid times"),
        ({"words": (Word("a", 0.0, 0.2, 1.5),)}, "confidence"),
        ({"words": (Word(" ", 0.0, 0.2),)}, "is empty"),
        ({"words": (Word("two\nlines", 0.0, 0.2),)}, "line break"),
        ({"phones": (Phone("XX", 0.0, 0.2),)}, "no such phone"),
    ],
)
def test_what_is_no_track_is_one_sentence(parts, said):
    with pytest.raises(UserError, match=said):
        Track(**parts)


def test_a_shared_boundary_moves_both_sides_and_their_phones():
    moved = TRACK.move_boundary("words", 0, "end", 0.25)
    assert times(moved.words)[:2] == [(0.1, 0.25), (0.25, 0.6)]
    assert times(moved.phones)[:5] == [(0.1, 0.15), (0.15, 0.2), (0.2, 0.25), (0.25, 0.425), (0.425, 0.6)]
    assert moved == TRACK.move_boundary("words", 1, "start", 0.25)
    assert all(phone.forced and phone.confidence == 1 for phone in moved.phones)
    assert TRACK.words[0].end_s == 0.4, "the track itself never changes"


def test_a_free_edge_moves_alone_and_stops_at_its_neighbour():
    assert times(TRACK.move_boundary("words", 1, "end", 0.8).words)[1:] == [(0.4, 0.8), (1.0, 1.3)]
    assert TRACK.move_boundary("words", 1, "end", 5.0).words[1].end_s == 1.0
    assert TRACK.move_boundary("words", 2, "start", 0.0).words[2].start_s == 0.6
    assert TRACK.move_boundary("words", 2, "end", 0.0).words[2].end_s == pytest.approx(1.0 + 2 * SHORTEST_S)


def test_a_phone_moves_the_word_that_it_begins_or_ends():
    assert times(TRACK.move_boundary("phones", 2, "end", 0.45).words)[:2] == [(0.1, 0.45), (0.45, 0.6)]
    assert times(TRACK.move_boundary("phones", 5, "start", 0.9).words)[2] == (0.9, 1.3)
    inner = TRACK.move_boundary("phones", 0, "end", 0.25)
    assert inner.words == TRACK.words
    assert times(inner.phones)[:2] == [(0.1, 0.25), (0.25, 0.3)]
    assert [phone.confidence for phone in inner.phones[:3]] == [1, 1, 0.7]


def test_split_and_merge():
    split = TRACK.split("words", 0, 0.2)
    assert [(w.text, *t) for w, t in zip(split.words, times(split.words), strict=True)][:2] == [
        ("m", 0.1, 0.2),
        ("ap", 0.2, 0.4),
    ]
    assert split.merge("words", 0, "map").words == (TRACK.words[0]._replace(confidence=1.0), *TRACK.words[1:])
    assert TRACK.merge("words", 1).words[1] == Word("it now", 0.4, 1.3, 1.0)
    assert [phone.name for phone in TRACK.split("phones", 6, 1.2).phones[6:]] == ["AW", "AW"]
    assert TRACK.merge("phones", 5).phones[5] == Phone("AW", 1.0, 1.3)
    with pytest.raises(UserError, match="cannot be cut"):
        TRACK.split("phones", 0, 0.11)
    with pytest.raises(UserError, match="no such part"):
        TRACK.merge("words", 2)


def test_rename_insert_delete():
    assert TRACK.rename("phones", 3, "UW").phones[3] == Phone("UW", 0.4, 0.5)
    assert TRACK.rename("words", 1, "that").words[1] == Word("that", 0.4, 0.6)
    with pytest.raises(UserError, match="no such phone"):
        TRACK.rename("phones", 0, "Q")
    inserted = TRACK.insert("phones", "P", 0.55, 0.7)
    assert times(inserted.phones)[4:6] == [(0.5, 0.55), (0.55, 0.7)]
    assert inserted.phones[5].forced
    around = TRACK.insert("words", "so", 1.05, 1.1)
    assert [w.text for w in around.words] == ["map", "it", "so", "now"]
    assert times(around.words)[2:] == [(1.05, 1.1), (1.1, 1.3)]
    with pytest.raises(UserError, match="T is there"):
        TRACK.insert("phones", "P", 0.49, 0.61)
    deleted = TRACK.delete("words", 1)
    assert [word.text for word in deleted.words] == ["map", "now"]
    assert [phone.name for phone in deleted.phones] == ["M", "AE", "P", "N", "AW"]
    assert TRACK.delete("words", 1, keep_phones=True).phones == TRACK.phones


def test_a_word_spoken_anew_has_its_phones_in_its_time():
    spoken = TRACK.respoken(1, ["AE", "T"])
    assert [phone.name for phone in spoken.phones] == ["M", "AE", "P", "AE", "T", "N", "AW"]
    assert spoken.phones[3].start_s == 0.4
    assert spoken.phones[4].end_s == 0.6
    assert all(phone.forced for phone in spoken.phones[3:5])
    with pytest.raises(UserError, match="11 phones need 0.22 s"):
        TRACK.respoken(1, ["T"] * 11)


def edited(track: Track, chance: random.Random) -> Track:
    """One edit by chance."""
    tier = chance.choice(["words", "phones"])
    items = track.words if tier == "words" else track.phones
    index, time_s = chance.randrange(len(items)), chance.uniform(0, 2)
    edits = [
        lambda: track.move_boundary(tier, index, chance.choice(["start", "end"]), time_s),
        lambda: track.split(tier, index, time_s),
        lambda: track.insert(tier, "P", time_s, time_s + chance.uniform(0.01, 0.3)),
        lambda: track.respoken(index % len(track.words), ["M", "AE", "P"]),
    ]
    if min(len(track.words), len(track.phones)) > 3:
        edits += [lambda: track.merge(tier, index), lambda: track.delete(tier, index)]
    return chance.choice(edits)()


def test_any_edits_leave_a_valid_track():
    """A thousand edits by chance: what is refused is a UserError, and nothing overlaps (`Track` itself checks)."""
    chance = random.Random(5)
    track, n_done = TRACK, 0
    for _ in range(1000):
        try:
            track = edited(track, chance)
            n_done += 1
        except UserError as error:
            assert any(word in str(error) for word in ("cannot be cut", "room", "no such part", "need"))
        track = track if track.words and track.phones else TRACK
    assert n_done > 400
    assert Track.from_text(track.to_text()).phones


def test_the_time_can_be_moved_and_scaled():
    assert times(TRACK.later(-0.2).words) == [(0.0, 0.2), (0.2, 0.4), (0.8, 1.1)]
    assert TRACK.later(-0.2).phones[0].name == "AE", "what lies before 0 is gone"
    assert times(TRACK.at_speed(2).words)[2] == (0.5, 0.65)


def test_spread_gives_vowels_more_time():
    phones = spread(["T", "AA", "T"], 1.0, 1.46)
    assert times(phones) == [(1.0, 1.12), (1.12, 1.34), (1.34, 1.46)]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".TextGrid"])
def test_files_give_the_same_track(tmp_path, suffix):
    path = tmp_path / f"track{suffix}"
    track = TRACK.rename("words", 1, 'say "it"')
    save_track(track, path)
    loaded = load_track(path)
    assert [word.text for word in loaded.words] == ["map", 'say "it"', "now"]
    assert times(loaded.words) == times(track.words)
    assert loaded.phones == track.phones
    assert is_track_file(path)
    path.write_text("dear diary", encoding="utf-8")
    assert not is_track_file(path)


def test_a_phone_that_was_changed_in_praat_is_forced(tmp_path):
    path = tmp_path / "line.TextGrid"
    save_track(Track(phones=(Phone("M", 0, 0.1, 0.8, forced=False), Phone("AA", 0.1, 0.3, 0.3, forced=True))), path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('text = "M"', 'text = "B"'), encoding="utf-8")
    assert load_track(path).phones == (Phone("B", 0, 0.1, 1.0, forced=True), Phone("AA", 0.1, 0.3, 0.3, forced=True))
    path.write_text(text.replace("xmax = 0.1000", "xmax = 0.0900", 1), encoding="utf-8")
    assert load_track(path).phones[0] == Phone("M", 0, 0.09, 1.0, forced=True)


def test_json_keeps_language_and_directions():
    track = Track(words=(Word("hi", 0, 1),), directions=(Direction("rest", 1.0, 1.5, 0.5),), language="de")
    assert Track.from_text(track.to_text()) == track
    with pytest.raises(UserError, match="Update the extension"):
        Track.from_json(track.to_json() | {"track_format_version": 99})


CURVED = Track(directions=(Direction("jaw", 1.0, 2.0, None, (1.0, 2.0, 0.0)), Direction("brows", 1.5, 1.8, 0.5)))


def test_a_curve_is_kept_moved_and_cut():
    assert Track.from_text(CURVED.to_text()) == CURVED
    assert CURVED.at_speed(2).directions[0] == Direction("jaw", 0.5, 1.0, None, (1.0, 2.0, 0.0))
    assert CURVED.later(3).directions[0] == Direction("jaw", 4.0, 5.0, None, (1.0, 2.0, 0.0))
    assert CURVED.later(-1.5).directions[0] == Direction("jaw", 0.0, 0.5, None, (2.0, 0.0))
    (late,) = CURVED.later(-1.8).directions
    assert late.curve == pytest.approx((0.8, 0.0)) and late.end_s == pytest.approx(0.2)
    jaw, brows = CURVED.directions
    assert jaw.values(np.array([0.0, 1.25, 1.75, 9.0])) == pytest.approx([1.0, 1.5, 1.0, 0.0])
    assert brows.values(np.array([0.0, 1.6])) == pytest.approx([0.5, 0.5])
    assert jaw.within(2.5, 3.0) is None and brows.within(1.6, 9.0) == Direction("brows", 1.6, 1.8, 0.5)


def test_format_1_is_read_and_its_stress_is_emphasis():
    old = Track(words=(Word("hi", 0, 1),)).to_json() | {
        "track_format_version": 1,
        "directions": [["articulation", 0, 1, 0.5], ["stressed", 0, 1, None], ["rest", 1, 1.5, None]],
    }
    assert [(d.name, d.value) for d in Track.from_json(old).directions] == [
        ("articulation", 0.5),
        ("brows", 1.0),
        ("head", 1.0),
        ("rest", None),
    ]


@pytest.mark.parametrize("row", [["jaw", 0, 1, 1e999], ["jaw", 0, 1, None, [1]], ["jaw", 0, 1, None, [1, 1e999]]])
def test_a_direction_without_numbers_is_refused(row):
    with pytest.raises(UserError, match="jaw has no valid values"):
        Track.from_json(Track().to_json() | {"directions": [row]})


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in AMOUNTS for v in (AMOUNTS[n].least, AMOUNTS[n].most)])
def test_what_a_direction_is_called_is_what_the_markup_reads(name, value):
    read = parse_transcript(f"{{{called(name, value)}}}word{{/}}").marks[0]
    assert meant(read.name, read.value) == ((name, value),)


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"track_format_version": 1}', '{"track_format_version":1,"words":3}']
)
def test_damaged_json_is_one_sentence(text):
    with pytest.raises(UserError, match="no track of words"):
        Track.from_text(text)


SHORT_GRID = """\
File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
3
"IntervalTier"
"anna - words"
0
1.5
2
0
0.5
""
0.5
1.5
"say ""42"" "
"TextTier"
"notes"
0
1.5
1
0.7
"click"
"IntervalTier"
"anna - phones"
0
1.5
2
0
0.5
"sil"
0.5
1.5
"EY1"
"""


def test_a_short_text_grid_of_another_program_is_read(tmp_path):
    for encoding in ("utf-8", "utf-16"):
        path = tmp_path / "other.TextGrid"
        path.write_text(SHORT_GRID, encoding=encoding)
        track = load_track(path)
        assert track.words == (Word('say "42"', 0.5, 1.5),)
        assert track.phones == (Phone("EY", 0.5, 1.5),)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.TextGrid", SHORT_GRID[:120].encode(), "ends too early"),
        ("a.TextGrid", b"hello", "no TextGrid"),
        ("a.TextGrid", SHORT_GRID.replace("words", "x").replace("phones", "y").encode(), 'no tier "words"'),
        ("a.TextGrid", SHORT_GRID.replace("EY1", "ɛ").encode(), "no such phone"),
        ("a.csv", b"time,frame\n1,2\n", "columns must be"),
        ("a.csv", b"tier,start_s,end_s,label,confidence,forced\nword,x,1,hi,1,\n", "line 2"),
        ("a.csv", b"tier,start_s,end_s,label,confidence,forced\nline,0,1,hi,1,\n", "line 2"),
        ("a.json", b"\x00\x01\x02" * 50, "no text file"),
        ("a.json", b"{}", "no track"),
        ("a.doc", b"", "is read from"),
    ],
)
def test_a_bad_file_is_one_sentence_with_its_name(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        load_track(path)
    assert name in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_missing_file_and_a_wrong_suffix_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_track(tmp_path / "none.csv")
    with pytest.raises(UserError, match="saved as"):
        save_track(TRACK, tmp_path / "a.txt")


def test_a_claimed_huge_text_grid_ends_at_once():
    with pytest.raises(UserError, match="damaged"):
        read_text_grid(SHORT_GRID.replace("\n3\n", "\n1e300\n"))
