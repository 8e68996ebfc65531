# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: one line per file, an error stops only its own file, exit codes, atomic results."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wav2sem_blender import __main__ as cli
from wav2sem_blender import argument_types, errors, pipeline
from wav2sem_blender.errors import Text, UserError
from wav2sem_blender.pipeline import retarget
from wav2sem_blender.pipeline.audio import Speech
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.phones import Phones
from wav2sem_blender.pipeline.words.track import Phone, Track, Word
from wav2sem_blender.pipeline.words.track_files import save_track

ROOT = Path(__file__).parents[2]


class FakeAnimator:
    """Reads the speech, so that its errors are real, and opens the jaw with the level."""

    channels = ("jawOpen",)
    phones = None
    loads: list[tuple] = []
    calls: list[dict] = []

    def __init__(self):
        self.notes = ["loaded elsewhere"]

    @classmethod
    def load(cls, model="default", engine="auto", device="auto"):
        if model == "broken":
            raise UserError("{file}: 12 of 100 bytes;\ncopy the model again.", file="model.safetensors")
        cls.loads.append((model, engine, device))
        return cls()

    def animate_file(
        self,
        path,
        style=0,
        semantic_strength=1.0,
        progress=None,
        temp_dir=None,
        articulation=0.0,
        seed=0,
        features=None,
        track=None,
        transcript=None,
        language="",
    ):
        settings = {"style": style, "semantic_strength": semantic_strength, "articulation": articulation, "seed": seed}
        given = {"features": features, "track": track, "transcript": transcript, "language": language}
        self.calls.append({"path": path, **settings, **{name: value for name, value in given.items() if value}})
        with Speech.from_file(path, temp_dir, progress) as speech:
            progress("motion", 0.5)
            progress("motion", 1.0)
            if "bug" in speech.name:
                np.zeros(3) + np.zeros(4)
            if "note" in speech.name:
                self.notes.append("CUDA ran out of memory; used the CPU")
            weights = np.abs(speech.read(0, speech.n_samples)[::533, None])
            return Motion(
                weights_TK=weights, channels=self.channels, fps=30.0, info={"audio": speech.name}, phones=self.phones
            )


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setitem(vars(pipeline), "SpeechAnimator", FakeAnimator)
    monkeypatch.setattr(FakeAnimator, "loads", [])
    monkeypatch.setattr(FakeAnimator, "calls", [])
    monkeypatch.setattr(FakeAnimator, "channels", ("jawOpen",))
    monkeypatch.setattr(FakeAnimator, "phones", None)


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "LOG", tmp_path / "errors.log")
    return tmp_path / "errors.log"


@pytest.fixture
def speech(tmp_path):
    def make(name="talk.wav", duration_s=2.0):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.sin(np.arange(int(16_000 * duration_s)) * 0.1), 16_000, format="WAV")
        return path

    return make


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_one_file_one_line_one_result(speech, tmp_path, capsys):
    assert run("animate", speech(), "--output", tmp_path / "new" / "out") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"\S+talk\.wav: 2\.0 s, 61 frames, \d+\.\dx realtime, \S+talk\.npz\n", out)
    assert err == ""
    motion = Motion.load(tmp_path / "new" / "out" / "talk.npz")
    assert motion.info["audio"] == "talk.wav" and motion.n_frames == 61
    assert [entry.name for entry in (tmp_path / "new" / "out").iterdir()] == ["talk.npz"]


def test_settings_reach_the_model(speech, tmp_path):
    options = "--model folder --engine torch --device cuda --style 2 --semantic-strength 0.25".split()
    options += ["--articulation", "-0.5"]
    assert run("animate", speech(), "--output", tmp_path / "out", *options) == 0
    assert FakeAnimator.loads == [("folder", "torch", "cuda")]
    settings = {"style": 2, "semantic_strength": 0.25, "articulation": -0.5}
    assert FakeAnimator.calls[0].items() >= settings.items()


@pytest.mark.parametrize(
    ("text", "style"), [("0", 0), ("calm", "calm"), ("0.25,0.75", [0.25, 0.75]), ("a,b", "a,b"), ("-1", "-1")]
)
def test_styles(text, style):
    assert argument_types.style(text) == style


def test_defaults(speech, tmp_path):
    assert run("animate", speech(), "--output", tmp_path / "out") == 0
    assert FakeAnimator.loads == [("default", "auto", "auto")]
    settings = {"style": 0, "semantic_strength": 1.0, "articulation": 0.0}
    assert FakeAnimator.calls[0].items() >= settings.items()


def test_strength_smoothing_and_delay_shape_the_curves(speech, tmp_path):
    def jaw(name: str, *options: str) -> np.ndarray:
        assert run("animate", speech(), "--output", tmp_path / name, *options) == 0
        return Motion.load(tmp_path / name / "talk.npz").weights_TK[:, 0]

    plain = jaw("plain")
    np.testing.assert_allclose(jaw("half", "--strength", "0.5"), plain / 2, rtol=1e-6)
    np.testing.assert_allclose(jaw("lead", "--delay", "-0.1")[:-3], plain[3:], atol=1e-5)
    smooth = retarget.smooth(Motion.load(tmp_path / "plain" / "talk.npz"), 0.2).weights_TK[:, 0]
    assert np.abs(smooth - plain).max() > 0.01
    np.testing.assert_allclose(jaw("calm", "--smoothing", "0.2"), smooth, atol=1e-6)


@pytest.fixture
def hears_an_l(monkeypatch):
    """SIL for a second, then L for a second."""
    posteriors_LP = np.repeat(np.eye(2), 50, axis=0)
    monkeypatch.setattr(FakeAnimator, "phones", Phones(names=("SIL", "L"), posteriors_LP=posteriors_LP, first_s=0.01))


def test_the_tongue_follows_the_phones(speech, tmp_path, hears_an_l):
    assert run("animate", speech(), "--output", tmp_path / "out", "--strength", "0.5") == 0
    motion = Motion.load(tmp_path / "out" / "talk.npz")
    assert motion.channels == ("jawOpen", "tongueOut", "tongueTipUp")
    up_T = motion.weights_TK[:, 2]
    assert up_T[:28].max() == 0 and up_T[33:58].min() == pytest.approx(0.4), "half of 0.8"
    assert [span.name for span in motion.phones.spans()] == ["SIL", "L"]
    assert run("animate", speech(), "--output", tmp_path / "still", "--no-tongue") == 0
    assert Motion.load(tmp_path / "still" / "talk.npz").channels == ("jawOpen",)
    assert run("animate", speech(), "--output", tmp_path / "csv", "--format", "csv") == 0, "ARKit has no tongueTipUp"


def test_features_are_of_one_recording(speech, tmp_path, capsys):
    path = speech()
    assert run("animate", path, "--output", tmp_path / "out", "--features", tmp_path / "x.npy") == 0
    assert FakeAnimator.calls[-1]["features"] == tmp_path / "x.npy"
    assert run("animate", path, path, "--output", tmp_path / "out", "--features", tmp_path / "x.npy") == 1
    assert "give one recording at a time" in capsys.readouterr().err


def test_a_table_of_the_phones(speech, tmp_path, capsys, hears_an_l, monkeypatch):
    path, table = speech(), tmp_path / "talk.tsv"
    options = "--output", tmp_path / "out", "--phones", table
    assert run("animate", path, *options, "--delay", "0.5") == 0
    written = "start_s\tend_s\tphone\tconfidence\n0.000\t1.000\tSIL\t1.00\n1.000\t2.000\tL\t1.00\n"
    assert table.read_text() == written, "in the time of the recording"
    assert run("animate", path, *options) == 0, "its own table is replaced"
    capsys.readouterr()
    assert run("animate", path, speech("more.wav"), *options) == 1
    assert "one table; give one recording" in capsys.readouterr().err
    assert run("animate", path, "--output", tmp_path / "out", "--phones", path) == 1
    assert "choose another file" in capsys.readouterr().err
    monkeypatch.setattr(FakeAnimator, "phones", None)
    assert run("animate", path, "--output", tmp_path / "new", "--phones", table) == 1
    assert "does not tell which phones it hears" in capsys.readouterr().err
    assert table.read_text() == written and not list((tmp_path / "new").iterdir())
    table.write_text("my notes\n")
    assert run("animate", path, *options) == 1
    assert "was not made by this command" in capsys.readouterr().err and table.read_text() == "my notes\n"


def test_a_transcript_reaches_the_model_and_a_bad_one_costs_nothing(speech, tmp_path, capsys):
    path, output, text = speech(), ("--output", tmp_path / "out"), tmp_path / "talk.txt"
    text.write_text("hello there")
    assert run("animate", path, *output, "--transcript", text, "--language", "en-US") == 0
    assert [word.text for word in FakeAnimator.calls[-1]["transcript"].words] == ["hello", "there"]
    assert FakeAnimator.calls[-1]["language"] == "en-US"
    assert run("animate", path, *output, "--transcript", "or the text") == 0
    assert [word.text for word in FakeAnimator.calls[-1]["transcript"].words] == ["or", "the", "text"]
    (tmp_path / "empty.srt").write_bytes(b"")
    capsys.readouterr()
    FakeAnimator.loads.clear()
    for options, said in [
        (("--transcript", tmp_path / "my line.txt"), "my line.txt: there is no such file"),
        (("--transcript", tmp_path / "empty.srt"), "empty.srt: "),
        (("--transcript", path), "is no text file"),
        (("--transcript", "hello", "--language", "tlh"), "'tlh' is no language that is known here"),
        (("--language", "de"), "give --transcript or --recognise too"),
    ]:
        assert run("animate", path, *output, *options) == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert run("animate", path, path, *output, "--transcript", "hello") == 1
    assert "give one recording at a time" in capsys.readouterr().err
    assert FakeAnimator.loads == [], "before the model is loaded"


def test_the_mouth_follows_a_track_file(speech, tmp_path, capsys, hears_an_l):
    path, output, track = speech(), ("--output", tmp_path / "out"), tmp_path / "edited.TextGrid"
    save_track(Track(phones=(Phone("UW", 1.0, 2.0),)), track)
    assert run("animate", path, *output, "--follow", track) == 0
    assert FakeAnimator.calls[-1]["track"] == track
    save_track(Track(words=(Word("loo", 1.0, 2.0),)), tmp_path / "words.csv")
    FakeAnimator.loads.clear()
    for options, said in [
        (("--follow", tmp_path / "none.csv"), "none.csv: there is no such file"),
        (("--follow", path), "a track is read from"),
        (("--follow", tmp_path / "words.csv"), "words.csv has no phones; give it as a transcript"),
        (("--follow", track, "--transcript", "loo"), "leave out --transcript"),
        (("--follow", track, "--track", track), "edited.TextGrid cannot be the track"),
    ]:
        assert run("animate", path, *output, *options) == 1
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert run("animate", path, path, *output, "--follow", track) == 1
    assert "give one recording at a time" in capsys.readouterr().err
    assert FakeAnimator.loads == [], "before the model is loaded"


def test_a_track_of_what_was_heard(speech, tmp_path, capsys, hears_an_l, monkeypatch):
    path, track = speech(), tmp_path / "talk.csv"
    options = "--output", tmp_path / "out", "--track", track
    assert run("animate", path, *options) == 0
    written = track.read_text()
    assert written.splitlines()[1:] == ["phone,0.0000,1.0000,SIL,1.000,0", "phone,1.0000,2.0000,L,1.000,0"]
    assert run("animate", path, *options) == 0, "its own track is replaced"
    capsys.readouterr()
    for more, said in [
        (("--transcript", track), "talk.csv cannot be the track"),
        (("--track", path), "a track is saved as .TextGrid, .csv, .json, not as '.wav'"),
        (("--track", tmp_path / "talk.tsv"), "not as '.tsv'"),
    ]:
        assert run("animate", path, *options, *more) == 1
        assert said in capsys.readouterr().err
    assert run("animate", path, speech("more.wav"), *options) == 1
    assert "one track; give one recording" in capsys.readouterr().err
    monkeypatch.setattr(FakeAnimator, "phones", None)
    assert run("animate", path, *options) == 1
    assert "writes no words and phones" in capsys.readouterr().err and track.read_text() == written
    track.write_text("my notes\n")
    assert run("animate", path, *options) == 1
    assert "was not made by this command" in capsys.readouterr().err and track.read_text() == "my notes\n"


def test_csv(speech, tmp_path, capsys, monkeypatch):
    path = speech()
    assert run("animate", path, "--output", tmp_path / "out", "--format", "csv") == 0
    assert (tmp_path / "out" / "talk.csv").read_text().startswith("Timecode,BlendShapeCount,EyeBlinkLeft,")
    rows = (tmp_path / "out" / "talk.csv").read_text().splitlines()[1:]
    assert len(rows) == 122 and [row.split(",")[0] for row in rows[59:61]] == ["00:00:00:59.000", "00:00:01:00.000"]
    monkeypatch.setattr(FakeAnimator, "channels", ("key_00",))
    capsys.readouterr()
    assert run("animate", path, "--output", tmp_path / "out2", "--format", "csv") == 1
    assert "Live Link Face has no column for key_00" in capsys.readouterr().err
    assert not list((tmp_path / "out2").iterdir())


@pytest.mark.parametrize("suffix", ["npz", "csv"])
@pytest.mark.parametrize(("fps", "n_frames"), [("24", 49), ("29.97", 61), ("60", 122)])
def test_every_output_has_the_frame_rate_that_is_asked_for(speech, tmp_path, suffix, fps, n_frames):
    options = ("--output", tmp_path, "--format", suffix, "--fps", fps)
    assert run("animate", speech(), *options) == 0
    if suffix == "npz":
        motion = Motion.load(tmp_path / "talk.npz")
        assert motion.fps == float(fps) and motion.n_frames == n_frames
    else:
        assert len((tmp_path / "talk.csv").read_text().splitlines()) == n_frames + 1


@pytest.mark.parametrize("fps", ["0", "-24", "nan", "1e9", "x"])
def test_impossible_frame_rates_are_wrong_usage(speech, tmp_path, fps):
    with pytest.raises(SystemExit, match="2"):
        run("animate", speech(), "--output", tmp_path, "--fps", fps)


def test_a_bad_file_does_not_stop_the_others(speech, tmp_path, capsys):
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    files = [speech("a.wav"), text, tmp_path / "missing.wav", speech("short.wav", 0.05), speech("b.wav")]
    assert run("animate", *files, "--output", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert [line.split(":")[0].rsplit("/")[-1] for line in out.splitlines()] == ["a.wav", "b.wav"]
    lines = err.splitlines()
    assert len(lines) == 4 and all(line.startswith("error: ") for line in lines)
    assert "text.wav: this is no audio file" in lines[0]
    assert "missing.wav: there is no such audio file" in lines[1]
    assert "short.wav: 0.05 s of audio" in lines[2]
    assert lines[3] == "error: 3 of 5 files failed"
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["a.npz", "b.npz"]


def test_a_bug_is_an_internal_error_with_a_traceback_in_the_log(speech, tmp_path, capsys, log):
    assert run("animate", speech("bug.wav"), speech("b.wav"), "--output", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert re.fullmatch(
        r"error: bug\.wav: Internal error \(ValueError: operands could not be broadcast together .*\)\. "
        rf"Please report it with the end of {re.escape(str(log))}\.",
        lines[0],
    )
    assert lines[1:] == ["error: 1 of 2 files failed"]
    assert "b.wav: 2.0 s" in out, "the other file is done"
    written = log.read_text()
    assert written.startswith("Traceback (most recent call last):") and "in animate_file" in written
    assert "ValueError: operands could not be broadcast together" in written


def test_bugs_outside_the_files_are_internal_errors_too(tmp_path, capsys, log, monkeypatch):
    monkeypatch.setattr(FakeAnimator, "load", lambda *_, **__: {}["fps"])
    assert run("animate", "a.wav", "--output", tmp_path / "out") == 1
    assert capsys.readouterr().err == (
        f"error: Internal error (KeyError: 'fps'). Please report it with the end of {log}.\n"
    )
    assert "KeyError: 'fps'" in log.read_text()


def test_errors_of_the_system_keep_their_sentence(speech, tmp_path, capsys, log, monkeypatch):
    def fails(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied", "secret.npz")

    monkeypatch.setattr(FakeAnimator, "animate_file", fails)
    assert run("animate", speech(), "--output", tmp_path / "out") == 1
    assert capsys.readouterr().err == "error: talk.wav: secret.npz: Permission denied.\n"
    assert not log.exists()


def test_notes_are_told_once_with_their_file(speech, tmp_path, capsys):
    assert run("animate", speech("a.wav"), speech("note.wav"), speech("b.wav"), "--output", tmp_path / "out") == 0
    assert capsys.readouterr().err == "note: note.wav: CUDA ran out of memory; used the CPU\n"


def test_an_input_is_never_overwritten(speech, tmp_path, capsys):
    disguised = speech("talk.npz")  # sound inside, whatever its name
    before = disguised.read_bytes()
    assert run("animate", disguised, speech("talk.wav"), "--output", tmp_path) == 1
    assert capsys.readouterr().err.count("would overwrite the input") == 2
    assert disguised.read_bytes() == before


def test_two_inputs_with_one_result_name(speech, tmp_path, capsys):
    files = [speech("one/talk.wav"), speech("two/talk.wav", 4.0)]
    assert run("animate", *files, "--output", tmp_path / "out") == 1
    assert "would overwrite that of" in capsys.readouterr().err
    assert Motion.load(tmp_path / "out" / "talk.npz").duration_s == pytest.approx(2, abs=0.1)


def test_a_failed_rerun_keeps_the_old_result(speech, tmp_path):
    path = speech()
    run("animate", path, "--output", tmp_path / "out")
    before = (tmp_path / "out" / "talk.npz").read_bytes()
    path.write_bytes(b"")
    assert run("animate", path, "--output", tmp_path / "out") == 1
    assert (tmp_path / "out" / "talk.npz").read_bytes() == before


def test_a_broken_model_is_one_line(speech, tmp_path, capsys):
    assert run("animate", speech(), "--output", tmp_path / "out", "--model", "broken") == 1
    assert capsys.readouterr().err == "error: model.safetensors: 12 of 100 bytes; copy the model again.\n"


def test_output_that_is_a_file(speech, tmp_path, capsys):
    (tmp_path / "out").write_bytes(b"x")
    assert run("animate", speech(), "--output", tmp_path / "out") == 1
    assert "out is a file; --output must be a folder." in capsys.readouterr().err
    assert (tmp_path / "out").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("option", "text", "reason"),
    [
        ("--semantic-strength", "nan", "nan is not a finite number"),
        ("--strength", "much", "much is not a finite number"),
        ("--delay", "inf", "inf is not a finite number"),
        ("--smoothing", "-0.1", "-0.1 is below 0"),
    ],
)
def test_a_wrong_number_is_named(option, text, reason, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["animate", "a.wav", "--output", "out", option, text])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: argument {option}: {reason}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["animate"],
        ["animate", "a.wav"],
        ["animate", "--output", "out"],
        ["animate", "a.wav", "--output", "out", "--format", "bvh"],
        ["animate", "a.wav", "--output", "out", "--engine", "jax"],
        ["import", "a.pth", "--output", "out"],
        ["import", "a.pth", "--output", "out", "--kind", "nothing"],
    ],
)
def test_wrong_usage_is_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m wav2sem_blender" in capsys.readouterr().err


def test_interrupting_says_so(speech, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeAnimator, "animate_file", interrupted)
    assert run("animate", speech(), "--output", tmp_path / "out") == 130
    assert "interrupted" in capsys.readouterr().err


def test_progress_is_drawn_on_a_terminal_and_removed(speech, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run("animate", speech(), "--output", tmp_path / "out") == 0
    drawn = terminal.getvalue().split("\r")
    assert any("100% audio" in line and "talk.wav" in line for line in drawn)
    assert any("50% motion" in line for line in drawn)
    assert drawn[-1] == "" and set(drawn[-2]) == {" "}


class TestImport:
    @pytest.fixture
    def calls(self, monkeypatch):
        calls = []
        official = pytest.importorskip("wav2sem_blender.pipeline.official", reason="torch is not installed here")

        def import_official(file, kind, output, notes, beside):
            if file.name.startswith("broken"):
                raise UserError("{file}: the key 'PPE.pe' is missing.", file=file.name)
            calls.append((file, kind, output, *beside))
            if file.name.startswith("half"):
                notes.append(Text("{file}: its weights are in half precision.", file=file.name))

        monkeypatch.setattr(official, "import_official", import_official)
        return calls

    @pytest.mark.parametrize("kind", ["wav2sem", "faceformer-vocaset", "faceformer-biwi", "codetalker-wav2sem"])
    def test_every_kind(self, calls, tmp_path, kind, capsys):
        file = tmp_path / "x.pth"
        file.write_bytes(b"x")
        assert run("import", file, "--kind", kind, "--output", tmp_path / "out") == 0
        assert calls == [(file, kind, tmp_path / "out")]
        assert capsys.readouterr().out == f"{file}: {kind}, {tmp_path / 'out'}\n"

    def test_further_files(self, calls, tmp_path):
        file, second = tmp_path / "stage2.pth", tmp_path / "stage1.pth"
        file.write_bytes(b"x")
        arguments = ("import", file, "--with", second, "--kind", "auto", "--output", tmp_path / "out")
        assert run(*arguments) == 0 and calls == [(file, "auto", tmp_path / "out", second)]

    def test_what_the_user_should_know_is_said(self, calls, tmp_path, capsys):
        (tmp_path / "half.pth").write_bytes(b"x")
        assert run("import", tmp_path / "half.pth", "--kind", "wav2sem", "--output", tmp_path / "out") == 0
        assert capsys.readouterr().err == "note: half.pth: its weights are in half precision.\n"

    def test_errors(self, calls, tmp_path, capsys):
        (tmp_path / "broken.pth").write_bytes(b"x")
        assert run("import", tmp_path / "broken.pth", "--kind", "wav2sem", "--output", tmp_path / "out") == 1
        assert capsys.readouterr().err == "error: broken.pth: the key 'PPE.pe' is missing.\n"
        assert run("import", tmp_path / "none.pth", "--kind", "wav2sem", "--output", tmp_path / "out") == 1
        assert "none.pth: there is no such checkpoint file" in capsys.readouterr().err
        assert run("import", tmp_path / "broken.pth", "--kind", "wav2sem", "--output", tmp_path / "broken.pth") == 1
        assert "is a file; --output must be a folder" in capsys.readouterr().err
        assert not calls


class TestModelFolders:
    """Commands that need no torch: a model folder is copied, and compared with its hashes."""

    def test_a_model_folder_is_copied_with_its_own_files_only(self, model, tmp_path, capsys):
        (model / "notes.txt").write_text("mine")
        assert run("import", model, "--kind", "auto", "--output", tmp_path / "models" / "copy") == 0
        copy = tmp_path / "models" / "copy"
        assert sorted(path.name for path in copy.iterdir()) == ["config.json", "model.safetensors"]
        assert [path.name for path in copy.parent.iterdir()] == ["copy"], "nothing is left beside it"
        assert run("verify", copy, model) == 0
        assert capsys.readouterr().out.splitlines()[-2:] == [
            f"{path}: 1 files match their hashes" for path in (copy, model)
        ]

    def test_a_damaged_one_is_neither_verified_nor_copied(self, model, tmp_path, capsys):
        (model / "model.safetensors").write_bytes(b"other")
        assert run("verify", tmp_path / "none", model) == 1
        complaints = capsys.readouterr().err.splitlines()
        assert "none: no model here" in complaints[0] and "model.safetensors: damaged" in complaints[1]
        assert run("import", model, "--kind", "auto", "--output", tmp_path / "copy") == 1
        assert not (tmp_path / "copy").exists()

    def test_files_of_other_folders_are_refused(self, model, tmp_path, capsys):
        config = json.loads((model / "config.json").read_text())
        config["files"]["../secret"] = "0" * 64
        (model / "config.json").write_text(json.dumps(config))
        (tmp_path / "secret").write_text("mine")
        assert run("import", model, "--kind", "auto", "--output", tmp_path / "copy") == 1
        assert "'../secret' is not in this folder" in capsys.readouterr().err

    @pytest.fixture
    def model(self, tmp_path):
        """A Wav2Sem of four bytes, enough to test files and hashes."""
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"four")
        files = {"model.safetensors": hashlib.sha256(b"four").hexdigest()}
        config = {"format_version": 1, "wav2sem": {"config": {}, "target_dim": 4}, "files": files}
        (folder / "config.json").write_text(json.dumps(config))
        return folder


def test_help_needs_no_heavy_import():
    heavy = "{'numpy', 'torch', 'onnxruntime', 'transformers', 'soundfile', 'soxr', 'scipy', 'bpy'}"
    script = (
        "import sys\nfrom wav2sem_blender.__main__ import main\n"
        "try: main(['animate', '--help'])\n"
        f"except SystemExit as done: assert done.code == 0\nprint(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "SPEECH" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "wav2sem_blender", "animate", "a.wav"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--output" in done.stderr
