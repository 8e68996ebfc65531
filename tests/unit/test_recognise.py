# SPDX-License-Identifier: GPL-3.0-or-later
"""Words by a recogniser: what it is asked, what becomes of its words, and every way in which it can be missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from wav2sem_blender import __main__ as cli
from wav2sem_blender import pipeline
from wav2sem_blender.errors import MissingFileError, UserError
from wav2sem_blender.pipeline import recognise
from wav2sem_blender.pipeline.audio import SAMPLE_RATE_HZ, Speech
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.recognise import FILES, VOCABULARIES, NoLibraryError, Recogniser


class FakeWhisper:
    """Says one line in the middle of whatever it hears."""

    heard: list[np.ndarray] = []
    asked: list[str | None] = []
    text = " Hello *there*, (laughs) 42. "

    def __init__(self, folder: str, *, device: str, compute_type: str, local_files_only: bool) -> None:
        assert local_files_only, "nothing is fetched"
        if "damaged" in folder:
            raise RuntimeError("File model.bin is incomplete:\nfailed to read a buffer")

    def transcribe(
        self, samples_S: np.ndarray, *, language: str | None, condition_on_previous_text: bool, temperature: float
    ):
        assert temperature == 0.0, "what is drawn at random depends on what was heard before"
        if language == "mk":
            raise ValueError("'mk' is not a valid language code")
        self.heard.append(samples_S)
        self.asked.append(language)
        end_s = len(samples_S) / SAMPLE_RATE_HZ
        lines = [SimpleNamespace(start=0.25 * end_s, end=0.75 * end_s, text=self.text)]
        return iter(lines), SimpleNamespace(language="de")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = ModuleType("faster_whisper")
    module.WhisperModel = FakeWhisper  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    monkeypatch.setattr(FakeWhisper, "heard", [])
    monkeypatch.setattr(FakeWhisper, "asked", [])
    made = tmp_path / "whisper"
    made.mkdir()
    for name in (*FILES, VOCABULARIES[1]):
        (made / name).write_bytes(b"x")
    return made


def noise(duration_s: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(int(duration_s * SAMPLE_RATE_HZ)).astype(np.float32) * 0.3


def test_its_words_become_a_transcript_with_times(folder: Path) -> None:
    told: list[tuple[str, float]] = []
    with Speech.from_array(noise(8), SAMPLE_RATE_HZ) as speech:
        found = Recogniser(folder).recognise(speech, "", lambda *step: told.append(step))
    assert found is not None and found.language == "de"
    (line,) = found.transcript.lines
    assert [word.text for word in line.words] == ["Hello", "there", "42"], "its asterisks and brackets are no markup"
    assert (line.start_s, line.end_s) == (2.0, 6.0) and found.transcript.marks == ()
    assert found.text == "Hello there , 42.", "as it is written"
    assert told[-1] == ("words", 1.0)
    (samples_S,) = FakeWhisper.heard
    assert samples_S.dtype == np.float32 and np.std(samples_S) == pytest.approx(0.05, rel=0.01)


def test_a_long_recording_is_cut_where_it_is_quiet_and_heard_in_one_language(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognise, "_PART_S", 10.0)
    monkeypatch.setattr(recognise, "_CUT_S", 4.0)
    samples_S = noise(25)
    samples_S[int(7.5 * SAMPLE_RATE_HZ) : 8 * SAMPLE_RATE_HZ] = 0
    with Speech.from_array(samples_S, SAMPLE_RATE_HZ) as speech:
        found = Recogniser(folder).recognise(speech)
    lengths_s = [len(part) / SAMPLE_RATE_HZ for part in FakeWhisper.heard]
    assert sum(lengths_s) == 25 and 7.5 <= lengths_s[0] <= 8 and max(lengths_s) <= 10
    assert FakeWhisper.asked == [None, *["de"] * (len(lengths_s) - 1)]
    assert found is not None
    starts = [line.start_s for line in found.transcript.lines]
    assert starts == sorted(starts) and starts[1] == pytest.approx(lengths_s[0] + 0.25 * lengths_s[1])


def test_no_words_are_no_transcript(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWhisper, "text", " [Music] ... ")
    with Speech.from_array(noise(2), SAMPLE_RATE_HZ) as speech:
        assert Recogniser(folder).recognise(speech) is None


def test_languages(folder: Path) -> None:
    with Speech.from_array(noise(2), SAMPLE_RATE_HZ) as speech:
        assert Recogniser(folder).recognise(speech, "nb-NO").language == "nb"
        assert FakeWhisper.asked == ["no"]
        with pytest.raises(UserError, match="does not know the language 'mk'"):
            Recogniser(folder).recognise(speech, "mk")
        with pytest.raises(UserError, match="no language that is known"):
            Recogniser(folder).recognise(speech, "tlh")


def test_what_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFileError, match="there is no such folder with a speech recogniser"):
        Recogniser(folder / "none")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"whisper is no Whisper model for faster-whisper: it has no tokenizer\.json"):
        Recogniser(folder)
    (folder / "tokenizer.json").touch()
    (folder / VOCABULARIES[1]).unlink()
    with pytest.raises(UserError, match=r"it has no vocabulary\.txt"):
        Recogniser(folder)
    (folder / VOCABULARIES[0]).touch()
    damaged = folder.rename(folder.with_name("damaged"))
    with pytest.raises(UserError, match=r"cannot be loaded \(File model\.bin is incomplete: failed to read a buffer\)"):
        Recogniser(damaged)
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(NoLibraryError, match="in the add-on's preferences; elsewhere: pip install faster-whisper"):
        Recogniser(damaged)


class FakeAnimator:
    """Keeps what it is given."""

    calls: list[dict] = []

    def __init__(self) -> None:
        self.notes: list = []

    @classmethod
    def load(cls, *_arguments: object, **_options: object) -> FakeAnimator:
        return cls()

    def animate_file(self, path: Path, **options: object) -> Motion:
        self.calls.append(options)
        return Motion(weights_TK=np.zeros((3, 1), np.float32), channels=("jawOpen",), fps=30.0)


def test_the_command_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(vars(pipeline), "SpeechAnimator", FakeAnimator)
    monkeypatch.setattr(FakeAnimator, "calls", [])
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    for path in paths:
        soundfile.write(path, noise(2), SAMPLE_RATE_HZ)
    options = ["--output", str(tmp_path / "out"), "--recognise", str(folder)]
    assert cli.main(["animate", *paths, *options]) == 0
    assert [[word.text for word in call["transcript"].words] for call in FakeAnimator.calls] == [
        ["Hello", "there", "42"]
    ] * 2
    assert [call["language"] for call in FakeAnimator.calls] == ["de", "de"]
    monkeypatch.setattr(FakeWhisper, "text", "...")
    assert cli.main(["animate", paths[0], *options, "--language", "fr"]) == 0
    assert FakeAnimator.calls[-1]["transcript"] is None and FakeAnimator.calls[-1]["language"] == ""
    assert "note: a.wav: no words were recognised" in capsys.readouterr().err
    assert cli.main(["animate", paths[0], *options, "--transcript", "hello"]) == 1
    assert "--recognise writes a transcript" in capsys.readouterr().err
    assert cli.main(["animate", paths[0], *options[:2], "--recognise", str(tmp_path / "none")]) == 1
    assert "no such folder with a speech recogniser" in capsys.readouterr().err
