# SPDX-License-Identifier: GPL-3.0-or-later
"""Words in a recording: how they sound, in which language they are, where they are, and what a wrong text costs."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from wav2sem_blender.assets import DEMO_SPEECH
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline import SpeechAnimator
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.phones import PHONES, Phones
from wav2sem_blender.pipeline.words import align
from wav2sem_blender.pipeline.words.language import guess_language
from wav2sem_blender.pipeline.words.pronunciation import LANGUAGES, known_language, pronounce
from wav2sem_blender.pipeline.words.spoken import TRUST, named_file, read_transcript, track_of
from wav2sem_blender.pipeline.words.track import Direction, Phone, Track, Word
from wav2sem_blender.pipeline.words.track_files import save_track
from wav2sem_blender.pipeline.words.transcript import parse_transcript

RATE_HZ = 50.0


def heard(*said: tuple[str, int], sure: float = 0.9) -> Phones:
    """Phones one after another, each for a number of frames; the first begins at 0 s."""
    rows = []
    for name, n_frames in said:
        row_P = np.full(len(PHONES), (1 - sure) / (len(PHONES) - 1))
        row_P[PHONES.index(name)] = sure
        rows += [row_P] * n_frames
    return Phones(posteriors_LP=np.array(rows).reshape(-1, len(PHONES)), rate_hz=RATE_HZ, first_s=0.01)


def speech(*words: str, n_frames: int = 5, pause: int = 10) -> Phones:
    """English words as the dictionary says them, with a pause before, between and behind them."""
    said = [("SIL", pause)]
    for word in words:
        said += [(phone, n_frames) for phone in pronounce([word], "en")[0]] + [("SIL", pause)]
    return heard(*said)


def texts(track) -> list[str]:
    return [word.text for word in track.words]


def trusted(track) -> list[str]:
    return [word.text for word in track.words if word.confidence >= TRUST]


# Pronunciation and language.


def test_english_comes_from_the_dictionary_and_unknown_words_from_their_letters() -> None:
    assert pronounce(["pepper", "thought", "I'm"], "en") == [
        ("P", "EH", "P", "ER"),
        ("TH", "AO", "T"),
        ("AY", "M"),
    ]
    (made_up,) = pronounce(["blimpish"], "en")
    assert made_up == ("B", "L", "IH", "M", "P", "IH", "SH")


@pytest.mark.parametrize(
    ("language", "word", "first", "last"),
    [
        ("de", "Brücke", "B", "AH"),
        ("es", "bueno", "B", "OW"),
        ("fr", "beaucoup", "B", "UW"),
        ("ru", "мама", "M", "AA"),
        ("zh", "妈", "M", "AA"),
        ("ja", "まち", "M", "IY"),
        ("ko", "바다", "P", "AH"),
        ("ar", "مرحبا", "M", "AA"),
        ("hi", "मामा", "M", "AA"),
    ],
)
def test_other_languages_sound(language: str, word: str, first: str, last: str) -> None:
    phones = pronounce([word], language)[0]
    assert (phones[0], phones[-1]) == (first, last)


def test_every_language_says_words_and_but_for_hebrew_numbers() -> None:
    for language in LANGUAGES:
        words = pronounce(["mama", "seven" if language == "en" else "7", "😀"], language)
        assert words[0] and (words[1] or language == "he") and words[2] == ()
        assert {phone for word in words for phone in word} <= set(PHONES[1:])


def test_russian_y_is_not_rounded_and_prepositions_lean_on_the_next_word() -> None:
    assert pronounce(["мы", "музыку", "в", "к"], "ru") == [
        ("M", "IH"),
        ("M", "UW", "Z", "IH", "K", "UW"),
        ("V",),
        ("K",),
    ]
    assert pronounce(["життя"], "uk")[0][:2] == ("ZH", "IH")


def test_words_of_another_script_are_said_in_its_language() -> None:
    assert pronounce(["мама"], "en") == pronounce(["мама"], "ru")
    assert pronounce(["hello"], "ru") == pronounce(["hello"], "en")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the cat is on the table and it will not come", "en"),
        ("die Katze ist auf dem Tisch und will nicht kommen", "de"),
        ("el gato está en la mesa y no quiere venir", "es"),
        ("le chat est sur la table et ne veut pas venir", "fr"),
        ("il gatto è sul tavolo e non vuole venire", "it"),
        ("кошка на столе и не хочет идти", "ru"),
        ("кішка на столі й не хоче йти до їжі", "uk"),
        ("ネコはテーブルの上にいます", "ja"),
        ("猫在桌子上不想来", "zh"),
        ("고양이는 탁자 위에 있다", "ko"),
        ("القطة على الطاولة ولا تريد أن تأتي", "ar"),
        ("החתול על השולחן ולא רוצה לבוא", "he"),
        ("42 !!", "en"),
    ],
)
def test_the_language_is_guessed(text: str, language: str) -> None:
    words = [word.text for word in parse_transcript(text).words] if any(c.isalnum() for c in text) else text.split()
    assert guess_language(words) == language


def test_languages_have_names_regions_and_neighbours() -> None:
    assert [known_language(code) for code in ("en-US", "pt_BR", " DE ", "no", "sr")] == ["en", "pt", "de", "nb", "hr"]
    for bad in ("tlh", "", "english please"):
        with pytest.raises(UserError, match="known are ar, bg"):
            known_language(bad)


# Where words are.


def test_words_are_where_they_were_said() -> None:
    found = align.align(speech("hello", "pepper"), pronounce(["hello", "pepper"], "en"))
    hello, pepper = found
    assert hello is not None and pepper is not None
    np.testing.assert_allclose(hello.edges_s, np.array([10, 15, 20, 25, 30]) / RATE_HZ, atol=0.011)
    np.testing.assert_allclose(pepper.edges_s, np.array([40, 45, 50, 55, 60]) / RATE_HZ, atol=0.011)
    assert hello.confidence == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("said", "text", "kept"),
    [
        ("hello my pepper", "hello pepper", ["hello", "pepper"]),  # the text lacks a word
        ("hello pepper", "hello my pepper", ["hello", "pepper"]),  # the text has one too many
        ("hello window pepper", "hello thimble pepper", ["hello", "pepper"]),  # a wrong one
        ("hello pepper", "chapter one hello pepper the end", ["hello", "pepper"]),  # headings
        ("hello pepper", "hello hello pepper", ["hello", "pepper"]),
    ],
)
def test_wrong_missing_and_extra_words_do_no_harm(said: str, text: str, kept: list[str]) -> None:
    sound = speech(*said.split())
    track = track_of(sound, parse_transcript(text), "en").track
    assert trusted(track) == kept
    right = {word.text: word for word in track_of(sound, parse_transcript(said), "en").track.words}
    for word in track.words:
        if word.text in kept and word.confidence >= TRUST:
            assert word.start_s == pytest.approx(right[word.text].start_s, abs=0.03)


def test_where_the_text_does_not_fit_the_phones_are_those_that_were_heard() -> None:
    sound = speech("hello", "window", "pepper")
    track = track_of(sound, parse_transcript("hello thimble pepper"), "en").track
    hello, thimble, pepper = track.words
    assert thimble.text == "thimble" and thimble.confidence == 0, "it is shown, but nothing follows it"
    between = [phone for phone in track.phones if hello.end_s < phone.start_s and phone.end_s < pepper.start_s]
    assert [phone.name for phone in between] == list(pronounce(["window"], "en")[0])
    assert [phone.name for phone in track.phones if phone not in between] == [
        phone for word in pronounce(["hello", "pepper"], "en") for phone in word
    ]


def test_a_phone_that_the_ear_heard_otherwise_is_forced() -> None:
    sound = heard(("SIL", 10), ("P", 5), ("EH", 5), ("T", 5), ("ER", 5), ("SIL", 10))
    track = track_of(sound, parse_transcript("pepper"), "en").track
    assert [(phone.name, phone.forced) for phone in track.phones] == [
        ("P", False), ("EH", False), ("P", True), ("ER", False),
    ]  # fmt: skip
    assert 20 / RATE_HZ - 0.011 < track.phones[2].start_s < track.phones[2].end_s < 25 / RATE_HZ + 0.011


def test_another_recordings_text_forces_nothing_and_says_so() -> None:
    sound = speech("hello", "window", "pepper", "table")
    tracked = track_of(sound, parse_transcript("zigzag moosehead oink fudge-cake oozing"), "en")
    assert not [phone for phone in tracked.track.phones if phone.forced]
    assert [phone.name for phone in tracked.track.phones] == [s.name for s in sound.spans() if s.name != "SIL"]
    assert "0 of 5 words of the transcript were heard; is it the text of this recording" in str(tracked.notes[-1])


def test_a_text_in_the_wrong_language_is_doubted() -> None:
    tracked = track_of(speech("hello", "window", "pepper"), parse_transcript("мы любим большие дома"), "")
    assert tracked.track.language == "ru"
    assert "is it Russian?" in str(tracked.notes[-1])


def test_silence_and_no_sound_have_no_words() -> None:
    for sound in (heard(("SIL", 100)), heard()):
        tracked = track_of(sound, parse_transcript("hello there"), "en")
        assert tracked.track.words == () and tracked.track.phones == ()
        assert "0 of 2 words" in str(tracked.notes[-1])


def test_words_without_a_sound_are_left_out() -> None:
    tracked = track_of(speech("hello", "pepper"), parse_transcript("hello 㐀 pepper"), "en")
    assert trusted(tracked.track) == ["hello", "pepper"]


def test_numbers_are_found_as_they_are_said() -> None:
    track = track_of(speech("forty", "two", "peppers", pause=3), parse_transcript("42 peppers"), "en").track
    assert trusted(track) == ["42", "peppers"]
    assert track.words[0].start_s == pytest.approx(3 / RATE_HZ, abs=0.02)


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("42", "42"),
        ("123", "100 23"),
        ("1984", "1000 900 84"),
        ("2.024", "2 1000 24"),
        ("350000", "300 50 1000"),
        ("007", "0 0 7"),
        ("3,5", "3 5"),
        ("50%", "50"),
        ("B2", "B 2"),
        ("1234567", "1 2 3 4 5 6 7"),
        ("٤٢", "42"),
    ],
)
def test_numbers_of_other_languages_are_put_together(written: str, parts: str) -> None:
    said = [phone for part in pronounce(parts.split(), "de") for phone in part]
    sound = heard(("SIL", 5), *((phone, 4) for phone in said), ("SIL", 5))
    track = track_of(sound, parse_transcript(f"{written}", language="de"), "de").track
    assert [phone.name for phone in track.phones] == said


def test_a_repeated_line_is_told_apart_by_its_times() -> None:
    sound = speech("pepper", "pepper", pause=150)
    second_s = (150 + 20 + 150) / RATE_HZ
    for start_s in (3.0, second_s):
        text = f"{start_s}\t{start_s + 0.5}\tpepper"
        (word,) = track_of(sound, parse_transcript(text), "en").track.words
        assert word.start_s == pytest.approx(start_s, abs=0.03)


def test_subtitles_that_overlap_run_backwards_or_past_the_end_are_used_as_text() -> None:
    sound = speech("hello", "window", "pepper")
    overlapping = parse_transcript(
        "1\n00:00:00,000 --> 00:00:09,000\nhello window\n\n2\n00:00:00,500 --> 00:00:00,100\npepper\n", ".srt"
    )
    assert trusted(track_of(sound, overlapping, "en").track) == ["hello", "window", "pepper"]
    late = parse_transcript(
        "1\n00:10:00,000 --> 00:10:01,000\nhello window\n\n2\n00:10:02,000 --> 00:10:03,000\npepper\n", ".srt"
    )
    tracked = track_of(sound, late, "en")
    assert trusted(tracked.track) == ["hello", "window", "pepper"], "all times are another recording's"
    assert "2 lines of the transcript begin after the recording has ended" in str(tracked.notes[0])


def test_markup_becomes_directions_at_the_words_times() -> None:
    sound = speech("hello", "window", "pepper")
    track = track_of(sound, parse_transcript("{jaw 1.2}hello{/} *window* [rest 0.1] {mumbled}pepper{/}"), "en").track
    hello, window, pepper = track.words
    assert [(d.name, d.value) for d in track.directions] == [
        ("jaw", 1.2),
        ("articulation", 0.5),
        ("brows", 1.0),
        ("head", 1.0),
        ("rest", None),
        ("articulation", -1.0),
    ]
    jaw, clearer, brows, head, rest, mumbled = track.directions
    assert (jaw.start_s, jaw.end_s) == (hello.start_s, hello.end_s)
    for stressed in (clearer, brows, head):
        assert (stressed.start_s, stressed.end_s) == (window.start_s, window.end_s)
    assert rest.start_s == window.end_s and rest.end_s == pytest.approx(window.end_s + 0.1)
    assert (mumbled.start_s, mumbled.end_s) == (pepper.start_s, pepper.end_s)


@pytest.mark.parametrize(
    ("markup", "value"),
    [
        ("{jaw}pepper{/}", 1.5),
        ("{jaw 99}pepper{/}", 4.0),
        ("{lips -3}pepper{/}", 0.0),
        ("{clear 0.3}pepper{/}", 0.3),
        ("{mumbled 0.3}pepper{/}", -0.3),
        ("{brows 0.8}pepper{/}", 0.8),
        ("{head -5}pepper{/}", -1.0),
        ("{articulation -0.3}pepper{/}", -0.3),
        ("{strength 0,5}pepper", 0.5),
    ],
)
def test_a_direction_without_a_number_has_a_usual_one_and_none_is_beyond_its_limits(markup: str, value: float) -> None:
    (direction,) = track_of(speech("pepper"), parse_transcript(markup), "en").track.directions
    assert direction.value == value


def test_a_rest_ends_where_the_next_word_begins() -> None:
    sound = speech("hello", "pepper", pause=10)
    track = track_of(sound, parse_transcript("[rest 9] hello [rest 9] pepper [closed 0.4]"), "en").track
    first, between, closed = track.directions
    hello, pepper = track.words
    assert (first.start_s, first.end_s) == (0.0, hello.start_s)
    assert (between.start_s, between.end_s) == (hello.end_s, pepper.start_s)
    assert (closed.name, closed.start_s, closed.end_s) == ("closed", pepper.end_s, pytest.approx(pepper.end_s + 0.4))


def test_a_long_recording_keeps_its_place_with_flat_memory() -> None:
    rng = np.random.default_rng(0)
    vocabulary = ["hello", "window", "pepper", "table", "orange", "music", "father", "shadow"]
    said = [vocabulary[i] for i in rng.integers(len(vocabulary), size=3 * align.WINDOW_WORDS)]
    sound = speech(*said, n_frames=3, pause=2)

    def peak(n_words: int) -> tuple[float, list[align.Found | None]]:
        n_frames = sum(3 * len(phones) + 2 for phones in pronounce(said[:n_words], "en")) + 2
        part = Phones(posteriors_LP=sound.posteriors_LP[:n_frames], rate_hz=RATE_HZ, first_s=0.01)
        phones = pronounce(said[:n_words], "en")
        tracemalloc.start()
        found = align.align(part, phones)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most, found

    half, _ = peak(len(said) // 2)
    whole, found = peak(len(said))
    assert whole < 1.4 * half + 2e6
    starts, at = [], 2
    for phones in pronounce(said, "en"):
        starts.append(at / RATE_HZ)
        at += 3 * len(phones) + 2
    errors = [abs(word.edges_s[0] - start) for word, start in zip(found, starts, strict=True) if word]
    assert len(errors) > 0.98 * len(said)
    assert np.quantile(errors, 0.98) < 0.05


def test_music_between_the_lines_is_passed() -> None:
    rng = np.random.default_rng(1)
    noise_LP = rng.dirichlet(np.full(len(PHONES), 0.05), 500)
    parts = [speech("hello", "window").posteriors_LP, noise_LP, speech("pepper", "table").posteriors_LP]
    sound = Phones(posteriors_LP=np.concatenate(parts), rate_hz=RATE_HZ, first_s=0.01)
    track = track_of(sound, parse_transcript("hello window pepper table"), "en").track
    assert trusted(track) == ["hello", "window", "pepper", "table"]
    before, after = len(parts[0]) / RATE_HZ, (len(parts[0]) + 500) / RATE_HZ
    assert track.words[1].end_s <= before + 0.02 and track.words[2].start_s >= after - 0.02


def test_a_transcript_is_a_text_or_the_name_of_a_file(tmp_path) -> None:
    path = tmp_path / "my line.txt"
    path.write_text("hello there")
    assert read_transcript(str(path)).text == read_transcript(path).text == "hello there"
    assert read_transcript("hello there").text == "hello there"
    assert read_transcript("first\nsecond.txt").text == "first second txt", "several lines are no name"
    assert named_file(f" {path} ") == path and named_file("gone.SRT").name == "gone.SRT"
    assert [named_file(text) for text in ("", "hello there", "a\0b", "x" * 5000, "first\nsecond.txt")] == [None] * 5
    with pytest.raises(UserError, match="there is no such file"):
        read_transcript(str(tmp_path / "her line.srt"))
    with pytest.raises(UserError, match="is a folder"):
        read_transcript(tmp_path)


# In `animate`, with the bundled model.

SAID = "Please put the paper boat by the pond. My mother may move five more ships before we both hear the music."


@pytest.fixture(scope="module")
def animator() -> SpeechAnimator:
    return SpeechAnimator.load("default", engine="onnx")


@pytest.fixture(scope="module")
def plain(animator: SpeechAnimator) -> Motion:
    return animator.animate_file(DEMO_SPEECH)


def test_a_transcript_makes_the_track_of_a_recording(animator: SpeechAnimator, plain: Motion) -> None:
    motion = animator.animate_file(DEMO_SPEECH, transcript=SAID)
    track = motion.track
    assert track is not None and plain.track is None
    assert texts(track) == SAID.replace(".", "").split() and track.language == "en"
    assert len(trusted(track)) >= len(track.words) - 1
    spans = plain.phones.spans()
    for word, first_phone in (("paper", "P"), ("mother", "M"), ("music", "M")):
        start_s = next(w.start_s for w in track.words if w.text == word)
        assert any(span.name == first_phone and abs(span.start_s - start_s) < 0.05 for span in spans)
    assert motion.phones.names == PHONES and motion.n_frames == plain.n_frames


def test_another_recordings_text_leaves_the_mouth_as_it_was(animator: SpeechAnimator, plain: Motion) -> None:
    motion = animator.animate_file(
        DEMO_SPEECH, transcript="Zigzag lightning cracked across nine grey rooftops tonight."
    )
    assert motion.track is not None and not [phone for phone in motion.track.phones if phone.forced]
    np.testing.assert_allclose(motion.weights_TK, plain.weights_TK, atol=1e-6)
    assert "is it the text of this recording" in motion.info["notes"]
    animator.animate_file(DEMO_SPEECH)
    assert "is it the text" not in animator.animate_file(DEMO_SPEECH).info["notes"], "notes are of one recording"


def test_what_is_wrong_with_a_transcript_is_said_before_the_recording_is_heard(
    animator: SpeechAnimator, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    def listens(*_arguments: object) -> None:
        raise AssertionError("heard")

    monkeypatch.setattr(animator._listener, "listen", listens)
    binary = tmp_path / "a.txt"
    binary.write_bytes(bytes(range(256)) * 4)
    for options, said in [
        ({"transcript": "..."}, "no words"),
        ({"transcript": binary}, "is no text file"),
        ({"transcript": "hello", "language": "tlh"}, "'tlh' is no language"),
    ]:
        with pytest.raises(UserError, match=said):
            animator.animate_file(DEMO_SPEECH, **options)
    deaf = replace(animator.folder, config=replace(animator.folder.config, phones=(), steerable=False))
    monkeypatch.setattr(animator, "folder", deaf)
    with pytest.raises(UserError, match="does not tell which phones it hears"):
        animator.animate_file(DEMO_SPEECH, transcript="hello")
    monkeypatch.setattr(animator, "_steering", None)
    with pytest.raises(UserError, match="does not follow a track"):
        animator.animate_file(DEMO_SPEECH, track=Track(phones=(Phone("UW", 0.5, 1.0),)))


@pytest.mark.parametrize("suffix", [".TextGrid", ".csv", ".json"])
def test_a_track_that_was_saved_moves_the_mouth_as_before(animator: SpeechAnimator, tmp_path, suffix: str) -> None:
    motion = animator.animate_file(DEMO_SPEECH, transcript=SAID.replace("boat", "goose"))
    assert motion.track is not None and len({phone.forced for phone in motion.track.phones}) == 2
    save_track(motion.track, tmp_path / f"line{suffix}")
    again = animator.animate_file(DEMO_SPEECH, track=tmp_path / f"line{suffix}")
    np.testing.assert_allclose(again.weights_TK, motion.weights_TK, atol=2e-3)
    assert again.info.get("notes", "") == "" or "another recording" not in again.info["notes"]
    plain = animator.animate_file(DEMO_SPEECH)
    assert np.abs(plain.weights_TK - motion.weights_TK).max() > 0.05


def test_a_track_file_of_another_recording_is_doubted_or_refused(animator: SpeechAnimator, tmp_path) -> None:
    path = tmp_path / "line.csv"
    save_track(Track(phones=tuple(Phone("ZH", at, at + 0.1) for at in np.arange(0.5, 5, 0.1).tolist())), path)
    assert "few of its sounds are heard" in animator.animate_file(DEMO_SPEECH, track=path).info["notes"]
    save_track(Track(phones=(Phone("L", 8.0, 9.0),)), path)
    with pytest.raises(UserError, match="ends at 9.0 s, but the sound at"):
        animator.animate_file(DEMO_SPEECH, track=path)


def test_the_part_of_a_track_that_is_spoken_in_a_part_of_the_sound() -> None:
    track = Track(
        words=(Word("one", 0.0, 1.0), Word("two", 1.0, 2.0), Word("three", 2.0, 3.0)),
        phones=(Phone("W", 0.5, 1.5), Phone("UW", 1.5, 2.5)),
        directions=(Direction("jaw", 0.0, 4.0, 0.5), Direction("rest", 3.0, 4.0)),
    )
    part = track.between(0.75, 2.25)
    assert [(w.text, w.start_s, w.end_s) for w in part.words] == [
        ("one", 0.0, 0.25),
        ("two", 0.25, 1.25),
        ("three", 1.25, 1.5),
    ]
    assert [(p.name, p.start_s, p.end_s) for p in part.phones] == [("W", 0.0, 0.75), ("UW", 0.75, 1.5)]
    assert [(d.name, d.start_s, d.end_s) for d in part.directions] == [("jaw", 0.0, 1.5)]


def test_a_line_is_found_in_a_whole_script(animator: SpeechAnimator) -> None:
    rng = np.random.default_rng(2)
    vocabulary = (
        "time people night water music heart window stone river letter garden paper morning winter father".split()
    )
    before, after = (" ".join(vocabulary[i] for i in rng.integers(len(vocabulary), size=2000)) for _ in range(2))
    motion = animator.animate_file(DEMO_SPEECH, transcript=f"{before}\n{SAID}\n{after}")
    words = SAID.replace(".", "").split()
    found = trusted(motion.track)
    assert len(found) <= len(words) and len(set(words) & set(found)) >= len(words) - 3
    assert "is it the text of this recording" not in motion.info["notes"]


def test_markup_that_a_model_cannot_follow_is_told(animator: SpeechAnimator, monkeypatch: pytest.MonkeyPatch) -> None:
    still = replace(animator.folder, config=replace(animator.folder.config, steerable=False))
    monkeypatch.setattr(animator, "folder", still)
    motion = animator.animate_file(DEMO_SPEECH, transcript="*Please* put the paper boat by the pond")
    assert motion.track is not None and [d.name for d in motion.track.directions] == ["articulation", "brows", "head"]
    assert "the transcript's directions change nothing" in motion.info["notes"]
    assert "change nothing" not in animator.animate_file(DEMO_SPEECH, transcript=SAID).info["notes"]
