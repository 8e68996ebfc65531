# SPDX-License-Identifier: GPL-3.0-or-later
"""A batch with the bundled model: the same bytes for any number of workers, resume, locks, causes, the report."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wav2sem_blender import threads
from wav2sem_blender.assets import DEFAULT_MODEL, DEMO_SPEECH
from wav2sem_blender.batch import command, journal, lock, pool, resume
from wav2sem_blender.batch.confidence import confidence, fit
from wav2sem_blender.batch.exit_codes import CODES, MEANINGS, code_of, is_of_the_disk
from wav2sem_blender.errors import UserError
from wav2sem_blender.pipeline.motion import Motion
from wav2sem_blender.pipeline.phones import PHONES, Phones
from wav2sem_blender.pipeline.words.track import Track, Word
from wav2sem_blender.pipeline.words.track_files import load_track, save_track

from .report_pages import shown_in

ROOT = Path(__file__).parents[2]
RATE_HZ = 16_000

needs_model = pytest.mark.skipif(not (DEFAULT_MODEL / "config.json").exists(), reason="there is no bundled model")


def speech(seconds: float, seed: int) -> np.ndarray:
    """Noise in syllables."""
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(seed).standard_normal(len(time_s))
    return (0.1 * noise * np.abs(np.sin(2 * np.pi * 2 * time_s))).astype(np.float32)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Four short recordings and a manifest of them."""
    (tmp_path / "lines").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / "lines" / f"l{number}.wav", speech(0.5 + 0.2 * number, number), RATE_HZ)
    (tmp_path / "m.csv").write_text("audio,style\n" + "".join(f"lines/l{n}.wav,{n % 2}\n" for n in range(4)))
    return tmp_path


def batch(folder: Path, *arguments: str, manifest: str = "m.csv", output: str = "out") -> tuple[int, list[dict]]:
    """Run the command in its own process; returns the exit code and the events."""
    result = subprocess.run(start(folder, *arguments, manifest=manifest, output=output), **pipes(folder), check=False)
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def start(folder: Path, *arguments: str, manifest: str = "m.csv", output: str = "out") -> list[str]:
    given = [str(folder / manifest), "--output", str(folder / output), "--json", *arguments]
    return [sys.executable, "-m", "wav2sem_blender", "batch", *given]


def pipes(folder: Path) -> dict:
    return {"cwd": ROOT, "env": {**os.environ, "TMPDIR": str(folder)}, "capture_output": True, "text": True}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def made_again(events: list[dict]) -> list[str]:
    return sorted(event["name"] for event in events if event["event"] == "line")


@needs_model
def test_the_same_bytes_for_any_number_of_workers(lines):
    assert batch(lines, "--jobs", "1", "--format", "npz,csv,table", output="one")[0] == 0
    assert batch(lines, "--jobs", "3", "--format", "npz,csv,table", output="three")[0] == 0
    one, three = contents(lines / "one"), contents(lines / "three")
    assert one == three, [name for name in one if one[name] != three.get(name)]
    assert {name for name in one if name.startswith("l0")} == {"l0.npz", "l0.csv", "l0.table.csv"}
    records = [json.loads(line) for line in one["report.jsonl"].splitlines()]
    assert [record["row"] for record in records] == [2, 3, 4, 5]


@needs_model
def test_a_line_is_what_animate_makes_of_it(lines):
    assert batch(lines, "--jobs", "1")[0] == 0
    command_line = [sys.executable, "-m", "wav2sem_blender", "animate", str(lines / "lines" / "l1.wav")]
    given = pipes(lines)
    given["env"] |= threads.ONE_EACH  # sums have other bits if they are split among threads
    subprocess.run([*command_line, "--style", "1", "--output", str(lines / "one")], **given, check=True)
    made, wanted = Motion.load(lines / "out" / "l1.npz"), Motion.load(lines / "one" / "l1.npz")
    assert made.channels == wanted.channels and made.basis_KV3 is None
    assert np.array_equal(made.weights_TK, wanted.weights_TK)


@needs_model
def test_only_what_changed_is_made_again(lines):
    assert batch(lines)[0] == 0
    before = contents(lines / "out")
    code, events = batch(lines)
    assert (code, made_again(events)) == (0, [])
    assert contents(lines / "out") == before
    soundfile.write(lines / "lines" / "l0.wav", speech(0.5, 9), RATE_HZ)  # the recording
    (lines / "m.csv").write_text((lines / "m.csv").read_text().replace("l1.wav,1", "l1.wav,0"))  # a setting
    (lines / "out" / "l2.npz").unlink()  # the result
    os.utime(lines / "lines" / "l3.wav", (0, 0))  # its time alone
    code, events = batch(lines)
    assert (code, made_again(events)) == (0, ["l0", "l1", "l2"])
    assert contents(lines / "out")["l2.npz"] == before["l2.npz"]
    code, events = batch(lines, "--articulation", "0.5")
    assert made_again(events) == ["l0", "l1", "l2", "l3"], "a default of the command line is a setting, too"


@needs_model
def test_a_killed_run_goes_on(lines):
    whole = batch(lines, output="whole")[0]
    process = subprocess.Popen(start(lines, "--jobs", "1"), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "line":
            break
    process.kill()
    process.wait()
    report = lines / "out" / "report.jsonl"
    n_made = len(report.read_bytes().splitlines())
    assert 1 <= n_made < 4
    with report.open("ab") as file:
        file.write(b'{"batch": 1, "row": 5, "na')  # as if it was killed while it wrote
    (lines / "out" / ".l3.0123abcd.tmp.npz").write_bytes(b"left by a killed worker")
    code, events = batch(lines)
    assert (code, whole) == (0, 0) and len(made_again(events)) == 4 - n_made
    assert contents(lines / "out") == contents(lines / "whole")


@needs_model
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_its_workers(lines, sent):
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        start(lines, "--jobs", "2"), cwd=ROOT, env={**os.environ, "TMPDIR": str(lines)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None and json.loads(process.stdout.readline())["event"] == "start"
    process.send_signal(sent)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == CODES["interrupted"] and "the same command goes on" in said
    assert list(lines.glob("wav2sem_batch_*")) == [], "the workers' folder"


def test_a_handler_that_python_does_not_know_stays(monkeypatch):
    """As Blender's program has one for Ctrl-C."""
    asked = signal.getsignal(signal.SIGINT)
    known = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGINT else known(number))
    with pool._undisturbed():
        assert known(signal.SIGINT) is asked
    assert known(signal.SIGINT) is asked


@needs_model
def test_what_a_killed_run_left_goes_with_the_next(lines):
    left = lines / "wav2sem_batch_0a1b2c3d"
    (left / "worker0").mkdir(parents=True)
    os.utime(left, (time.time() - 60,) * 2)
    done = subprocess.run(start(lines), cwd=ROOT, env={**os.environ, "TMPDIR": str(lines)}, capture_output=True)
    assert done.returncode == 0 and not left.exists()


@needs_model
def test_lines_that_fail_are_named_and_the_rest_goes_on(lines):
    (lines / "lines" / "l1.wav").write_bytes(b"RIFF no sound at all")
    soundfile.write(lines / "lines" / "l2.wav", np.zeros(RATE_HZ), RATE_HZ)
    code, events = batch(lines)
    failed = {event["row"]: event for event in events if event.get("state") == "failed"}
    assert code == CODES["partly"] and sorted(failed) == [3, 4]
    assert {event["cause"] for event in failed.values()} == {"audio"} and "l2.wav" in failed[4]["error"]
    assert sorted(path.name for path in (lines / "out").glob("*.npz")) == ["l0.npz", "l3.npz"]
    soundfile.write(lines / "lines" / "l1.wav", speech(0.5, 1), RATE_HZ)
    assert made_again(batch(lines)[1]) == ["l1", "l2"], "a line that failed is tried again"
    page = (lines / "out" / "report.html").read_text()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    shown = shown_in(page)
    assert [line["name"] for line in shown] == ["l0", "l1", "l2", "l3"]
    assert [line["state"] for line in shown] == ["made", "made", "failed", "made"]
    assert shown[0]["lips"] and "audio_sha256" not in shown[0]


def test_a_report_has_its_lines_and_their_pictures(tmp_path):
    from wav2sem_blender.batch import mouth_picture, report_page

    name, rest = '</script>\u00e4\udcff \\ "', mouth_picture.at_rest().tobytes()
    lips = ["", bytes(range(240)).hex() * 2, bytes(240).hex() + bytes([255] * 240).hex(), (rest * 12).hex()]
    bars = ["", bytes(range(0, 240, 4)).hex() * 2, bytes(120).hex(), bytes([252] * 120).hex()]
    lines = [{"row": row, "name": name, "bars": bars[row], "lips": lips[row], "fit": 0.5} for row in range(4)]
    lines.append({"row": 4, "name": "failed"})
    report_page.write(tmp_path / "report.html", ({**line, "recipe": "r"} for line in lines), "m.csv")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = shown_in(page)
    wanted = [{"bars": "", "lips": "", "fit": None, **line} for line in lines]
    assert [{name: line[name] for name in wanted[0]} for line in shown] == wanted
    assert "=" * 120 in page and f'"{chr(ord("=") + 16)}' in page, "a letter for each number"


@needs_model
def test_a_worker_that_dies_costs_its_line_alone(lines, monkeypatch):
    """As when a recording takes all memory, or a library crashes."""
    from wav2sem_blender.batch import pool
    from wav2sem_blender.worker import environment

    rows = [_row(lines, number) for number in range(3)]
    asked: list[int] = []

    def arguments_of(row):
        asked.append(row.number)
        return {**_WORK, "does": "dies" if row.number == 1 else ""}

    monkeypatch.setattr(pool, "_LINE", "worker.deadly")
    package = _package_with_deadly_module(lines)
    workers = pool.Workers(n=1, environment=environment.WorkerEnvironment(python=Path(sys.executable), boot=package))
    answers = {row.number: answer for row, answer in workers.made(rows, arguments_of)}
    assert answers[0] == answers[2] == {"ok": True}
    assert answers[1]["cause"] == "engine" and "ended unexpectedly" in answers[1]["error"]
    assert asked.count(1) == 2, "a second worker tries it"


@pytest.mark.parametrize(
    ("does", "limit", "value", "said"),
    [
        ("hangs", "_STALLED_S", 1.0, "reported no progress for 0 minutes"),
        ("takes memory", "_MEMORY_BYTES", 300 << 20, "took more than 0 GB of memory"),
    ],
)
def test_a_line_that_exceeds_a_limit_fails_alone_and_once(tmp_path, monkeypatch, does, limit, value, said):
    from wav2sem_blender.worker import environment, job_limits

    if does == "takes memory" and not Path("/proc").is_dir():
        pytest.skip("only Linux tells what a process has in memory")
    rows, asked = [_row(tmp_path, number) for number in range(6)], []

    def arguments_of(row):
        asked.append(row.number)
        return {**_WORK, "does": does if row.number == 1 else ""}

    monkeypatch.setattr(pool, "_LINE", "worker.deadly")
    monkeypatch.setattr(job_limits, limit, value)
    boot = _package_with_deadly_module(tmp_path)
    workers = pool.Workers(n=2, environment=environment.WorkerEnvironment(python=Path(sys.executable), boot=boot))
    answers = {row.number: answer for row, answer in workers.made(rows, arguments_of)}
    assert said in answers[1]["error"] and answers[1]["cause"] == "engine"
    assert [answers[number] for number in (0, 2, 3, 4, 5)] == [{"ok": True}] * 5
    assert asked.count(1) == 1, "it would exceed the limit again"


@pytest.mark.parametrize(("n_bytes", "n_begun"), [(100, 4), (5 << 20, 2)])
def test_a_line_waits_behind_one_that_is_soon_made(tmp_path, monkeypatch, n_bytes, n_begun):
    from wav2sem_blender.worker import environment

    (tmp_path / "lines").mkdir()
    rows = [_row(tmp_path, number) for number in range(7)]
    for row in rows:
        with open(row.audio, "wb") as file:
            file.truncate(n_bytes)
    asked, asked_before_first = [], []
    monkeypatch.setattr(pool, "_LINE", "worker.deadly")
    boot = _package_with_deadly_module(tmp_path)
    workers = pool.Workers(n=2, environment=environment.WorkerEnvironment(python=Path(sys.executable), boot=boot))
    answers = {}
    for row, answer in workers.made(rows, lambda row: asked.append(row.number) or {**_WORK, "does": ""}):
        answers[row.number] = answer
        asked_before_first = asked_before_first or list(asked)
    assert asked_before_first == list(range(n_begun)), "each worker has one, and then each has another"
    assert answers == {number: {"ok": True} for number in range(7)} and sorted(asked) == list(range(7))


_WORK = {"audio": "", "model": "default"}


def _row(folder: Path, number: int):
    from wav2sem_blender.batch.manifest import Row

    return Row(number, f"l{number}", str(folder / "lines" / f"l{number}.wav"), {})


def _package_with_deadly_module(folder: Path) -> Path:
    package = folder / "package"
    shutil.copytree(ROOT / "wav2sem_blender" / "worker", package / "worker")
    for path in (ROOT / "wav2sem_blender").glob("*.py"):
        shutil.copy(path, package)
    (package / "worker" / "deadly.py").write_text(
        "import os, time\n\ndef run(arguments, models):\n"
        "    if arguments['does'] == 'dies':\n        os._exit(9)\n"
        "    taken = b'1' * (600 << 20 if arguments['does'] == 'takes memory' else 0)\n"
        "    time.sleep(60 if arguments['does'] else 0)\n    return {'ok': not taken}\n"
    )
    return package / "worker" / "boot.py"


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["missing.csv", "--output", "{out}"], "manifest", "no such manifest"),
        (["{m}", "--output", "{out}", "--model", "{out}"], "model", "no model"),
        (["{m}", "--output", "{m}"], "usage", "is a file"),
        (["{m}", "--output", "{out}", "--engine", "onnx", "--device", "cuda"], "engine", "runs on the CPU"),
    ],
)
def test_each_cause_has_its_code(lines, capfd, arguments, code, part):
    places = {"m": lines / "m.csv", "out": lines / "out"}
    parser = argparse.ArgumentParser()
    command.add_command(parser)
    before = signal.getsignal(signal.SIGTERM)
    try:
        chosen = parser.parse_args([argument.format(**places) for argument in arguments])
        assert command.batch(chosen) == CODES[code]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert part in capfd.readouterr().err
    assert not (lines / "out").exists(), "nothing was started"


def test_faults_of_the_manifest_are_events(lines):
    (lines / "m.csv").write_text("audio\nlines/l0.wav\nlines/nobody.wav\n")
    code, events = batch(lines)
    assert code == CODES["manifest"] and not (lines / "out").exists()
    assert [(event["event"], event.get("row")) for event in events] == [("fault", 3), ("error", None)]


@needs_model
@pytest.mark.skipif(shutil.which("bash") is None, reason="the page's commands are for a shell")
def test_the_commands_of_the_page_work_as_they_are_written(tmp_path):
    page = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
    lines = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0].splitlines()
    assert lines[0].startswith("pip install")
    (tmp_path / "wav2sem_blender").symlink_to(ROOT / "wav2sem_blender")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines[1:])], cwd=tmp_path, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 made before, 0 to make" in done.stdout
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("[no]*/**/*.*")}
    assert {"night/act1/line1.npz", "night/act1/line2.npz", "night/report.html"} <= made
    assert {"others/demo_speech.csv", "others/demo_speech.table.csv"} <= made


def test_the_codes_are_documented_and_fixed():
    assert CODES == {
        **{"done": 0, "internal": 1, "usage": 2, "manifest": 3, "audio": 4, "model": 5, "target": 6, "engine": 7},
        **{"disk": 8, "partly": 9, "busy": 10, "interrupted": 130},
    }
    page = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE))
    assert {name: int(number) for name, number in rows.items()} == CODES
    for meaning in MEANINGS.values():
        assert f"| {meaning} |" in page


def test_the_code_of_a_run():
    assert code_of(3, []) == CODES["done"]
    assert code_of(0, ["audio", "audio"]) == CODES["audio"]
    assert code_of(0, ["audio", "target"]) == CODES["partly"]
    assert code_of(1, ["audio"]) == CODES["partly"]
    full = UserError("x cannot be written")
    full.__cause__ = OSError(28, "No space left on device")
    assert is_of_the_disk(full) and not is_of_the_disk(UserError("y"))


HOLDER = """
import sys
import time
from pathlib import Path
from wav2sem_blender.batch.lock import held
with held(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path) -> Iterator:
    """Holds a chunk's lock in another process."""
    started = []

    def begin(*chunk: int) -> subprocess.Popen:
        arguments = [sys.executable, "-c", HOLDER, str(tmp_path), *map(str, chunk)]
        process = subprocess.Popen(arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def is_free(folder: Path, *chunk: int) -> bool:
    try:
        with lock.held(folder, chunk):
            return True
    except lock.BusyError:
        return False


def test_two_runs_in_one_folder_are_refused_and_a_dead_one_holds_nothing(tmp_path, hold):
    holder = hold(1, 1)
    assert not is_free(tmp_path, 1, 1) and not is_free(tmp_path, 2, 5)
    holder.kill()
    holder.wait()
    assert is_free(tmp_path, 1, 1)


def test_chunks_run_side_by_side(tmp_path, hold):
    hold(2, 5)
    assert is_free(tmp_path, 1, 5) and is_free(tmp_path, 3, 5)
    assert not is_free(tmp_path, 2, 5) and not is_free(tmp_path, 1, 1)
    assert not is_free(tmp_path, 1, 2), "two fifths overlap with the first half"


@needs_model
def test_chunks_and_then_the_whole(lines):
    assert batch(lines, output="whole")[0] == 0
    for index in (1, 2, 3):
        code, events = batch(lines, "--chunk", f"{index}/3")
        assert code == 0 and made_again(events) == {1: ["l0"], 2: ["l1"], 3: ["l2", "l3"]}[index]
    assert not (lines / "out" / "report.html").exists()
    code, events = batch(lines)
    assert (code, made_again(events)) == (0, [])
    assert contents(lines / "out") == contents(lines / "whole")


def test_a_report_of_somebody_else_is_left_alone(lines):
    (lines / "out").mkdir()
    (lines / "out" / "report.jsonl").write_text('{"my": "report"}\n')
    code, events = batch(lines)
    assert code != 0 and "was not made by a batch" in events[-1]["text"]
    assert (lines / "out" / "report.jsonl").read_text() == '{"my": "report"}\n'


def test_a_journal_of_thousands_stays_small_in_memory(tmp_path):
    """The records themselves, about 1.5 KB each, stay on the disk."""
    record = {"state": "made", "recipe": "r" * 32, "audio_sha256": "a" * 64, "bytes": {"npz": 1}, "bars": "x" * 1000}
    with journal.Journal(tmp_path) as book:
        for number in range(2000):
            book.add({"row": number, "name": f"l{number}", "audio": "a.wav", **record})
        rows = [_row(tmp_path, number) for number in (1500, 3)]
        assert [found["name"] for found in book.records(rows)] == ["l1500", "l3"]
        book.finish(rows)
        assert [json.loads(line)["row"] for line in (tmp_path / "report.jsonl").open()] == [1500, 3]
    held = journal.Journal(tmp_path).entries["l3"]
    assert not hasattr(held, "__dict__") and held.audio_sha256 == "a" * 64


def test_the_recipe_depends_on_all_that_makes_a_line(monkeypatch):
    first = resume.recipe({"style": 0}, model="m", formats=("npz",))
    assert first == resume.recipe({"style": 0}, formats=("npz",), model="m")
    assert first != resume.recipe({"style": 1}, model="m", formats=("npz",))
    assert first != resume.recipe({"style": 0}, model="n", formats=("npz",))
    monkeypatch.setattr(resume, "code_sha256", lambda: "newer")
    assert first != resume.recipe({"style": 0}, model="m", formats=("npz",))


SAID = "please put the paper boat by the pond my mother may move five more ships before we both hear the music"


@needs_model
def test_the_mouth_follows_what_is_said_and_its_fit_counts_in_the_confidence(lines):
    shutil.copy(DEMO_SPEECH, lines / "demo.flac")
    (lines / "said.txt").write_text(SAID)
    other = "Nobody bought forty purple umbrellas yesterday"
    rows = [["", ""], ["said.txt", ""], ["", SAID], ["", other]]
    cells = (f'demo.flac,d{n},{file},"{text}"\n' for n, (file, text) in enumerate(rows))
    (lines / "m.csv").write_text("audio,output,transcript,text\n" + "".join(cells))
    assert batch(lines)[0] == 0
    none, file, cell, wrong = (json.loads(line) for line in (lines / "out" / "report.jsonl").open())
    assert "fit" not in none and file["fit"] == cell["fit"] > 0.4 > wrong["fit"]
    assert wrong["confidence"] < file["confidence"] and file["confidence"] != none["confidence"]
    assert file["language"] == "en" and any("were heard" in note for note in wrong["notes"])
    motions = [Motion.load(lines / "out" / f"d{number}.npz") for number in range(3)]
    assert motions[0].track is None and motions[1].track == motions[2].track
    np.testing.assert_array_equal(motions[1].weights_TK, motions[2].weights_TK)
    assert np.abs(motions[1].weights_TK - motions[0].weights_TK).max() > 0.01, "the mouth follows the text"
    assert " ".join(word.text.lower() for word in motions[1].track.words) == SAID
    (lines / "said.txt").write_text(f"Well, {SAID}")
    assert made_again(batch(lines)[1]) == ["d1"]
    (lines / "m.csv").write_text((lines / "m.csv").read_text().replace(f'"{SAID}"', ""))
    assert made_again(batch(lines)[1]) == ["d2"], "the text of the row is gone"


@needs_model
def test_a_track_that_the_batch_wrote_is_edited_and_followed(lines):
    shutil.copy(DEMO_SPEECH, lines / "demo.flac")
    (lines / "m.csv").write_text(f"audio,text\ndemo.flac,{SAID}\n")
    assert batch(lines, "--format", "npz,textgrid")[0] == 0
    written, edited = lines / "out" / "demo.TextGrid", lines / "edited.TextGrid"
    first = Motion.load(lines / "out" / "demo.npz")
    shutil.copy(written, edited)
    (lines / "m.csv").write_text("audio,output,track\ndemo.flac,demo,edited.TextGrid\n")
    assert made_again(batch(lines, "--format", "npz,textgrid")[1]) == ["demo"]
    again = Motion.load(lines / "out" / "demo.npz")
    np.testing.assert_allclose(again.weights_TK, first.weights_TK, atol=2e-3)
    assert written.read_text() == edited.read_text()

    track = load_track(edited)
    vowel = next(i for i, phone in enumerate(track.phones) if phone.name == "EY")
    save_track(track.rename("phones", vowel, "UW"), edited)
    assert made_again(batch(lines, "--format", "npz,textgrid")[1]) == ["demo"]
    rounded = Motion.load(lines / "out" / "demo.npz")
    at = slice(*(round(time_s * rounded.fps) for time_s in track.phones[vowel][1:3]))
    pucker = rounded.channels.index("mouthPucker")
    assert rounded.weights_TK[at, pucker].max() > first.weights_TK[at, pucker].max() + 0.1
    assert made_again(batch(lines, "--format", "npz,textgrid")[1]) == []

    (lines / "m.csv").write_text("audio,output,track\nlines/l0.wav,demo,edited.TextGrid\n")
    code, events = batch(lines, "--format", "npz,textgrid")
    (failed,) = (event for event in events if event.get("state") == "failed")
    assert code == CODES["audio"] and "Is it of another recording?" in failed["error"]


@needs_model
def test_faults_of_what_is_said(lines):
    (lines / "said.txt").write_text("...")
    (lines / "m.csv").write_text("audio,transcript\nlines/l0.wav,said.txt\nlines/l1.wav,\n")
    code, events = batch(lines)
    (failed,) = (event for event in events if event.get("state") == "failed")
    assert (code, failed["row"], failed["cause"]) == (CODES["partly"], 2, "audio") and "said.txt" in failed["error"]
    (lines / "m.csv").write_text("audio,text,language\nlines/l0.wav,Hello,xx\nlines/l1.wav,Hello,de-AT\n")
    code, events = batch(lines)
    assert code == CODES["manifest"] and [event["row"] for event in events if event["event"] == "fault"] == [2]


def test_confidence_is_that_of_the_speech():
    posteriors_LP = np.zeros((10, len(PHONES)), np.float32)
    posteriors_LP[:5, PHONES.index("SIL")] = 1
    posteriors_LP[5:, PHONES.index("M")] = 0.75
    assert confidence(Phones(posteriors_LP=posteriors_LP)) == 0.75
    assert confidence(Phones(posteriors_LP=posteriors_LP[:5])) == 0.0
    assert confidence(None) is None
    assert confidence(Phones(posteriors_LP=posteriors_LP), 0.27) == 0.45, "the geometric mean"


def test_a_word_that_was_not_found_counts_nothing():
    track = Track(words=(Word("good", 0.0, 0.2, 0.9), Word("night", 0.2, 0.5, 0.3)))
    assert fit(track, 2) == 0.6 and fit(track, 4) == 0.3 and fit(Track(), 3) == 0.0


def test_what_is_said_of_a_recording(tmp_path):
    from wav2sem_blender.batch.sound_measures import N_BARS, bars, measures
    from wav2sem_blender.pipeline.audio import Speech

    path = tmp_path / "a.wav"
    sound = np.concatenate([0.5 * np.sin(np.arange(RATE_HZ) / 5), np.zeros(RATE_HZ)])
    sound[100:120] = 1.0
    sound += 1e-4 * np.random.default_rng(0).standard_normal(len(sound))
    soundfile.write(path, np.stack([sound, sound], 1), RATE_HZ, subtype="FLOAT")
    with Speech.from_file(path) as opened:
        found, picture_B = measures(path, opened), bars(opened)
    assert found["level_db"] == pytest.approx(-9, abs=0.5), "a sine of half the scale"
    assert found["peak_db"] == pytest.approx(0, abs=0.1) and found["noise_db"] == pytest.approx(-80, abs=2)
    assert found["silence"] == pytest.approx(0.5, abs=0.02)
    assert found["clipped"] == pytest.approx(19 / len(sound), abs=5 / len(sound))
    assert picture_B.shape == (N_BARS,) and picture_B.max() == 255 and picture_B[-10:].max() <= 1


@pytest.mark.parametrize("n_samples", [3200, 12_345])
@pytest.mark.parametrize("block", [7, 1000, 1_000_000])
def test_a_bar_is_the_loudest_sample_of_its_part_however_it_is_read(monkeypatch, n_samples, block):
    from wav2sem_blender.batch import sound_measures
    from wav2sem_blender.pipeline.audio import Speech

    monkeypatch.setattr(sound_measures, "_BLOCK", block)
    with Speech.from_array(np.random.default_rng(0).standard_normal(n_samples), RATE_HZ) as speech:
        loud_S = np.abs(speech.read(0, n_samples))
        edges = np.linspace(0, n_samples, sound_measures.N_BARS + 1).astype(int)
        expected_B = np.array([loud_S[a:b].max() for a, b in itertools.pairwise(edges)])
        assert np.array_equal(
            sound_measures.bars(speech), np.rint(255 * expected_B / expected_B.max()).astype(np.uint8)
        )


def test_the_lips_of_the_filmstrip_open_with_the_jaw():
    from wav2sem_blender.batch.mouth_picture import N_OUTER, N_PICTURES, STEP_MM, outlines

    basis_KV3 = np.zeros((1, 5023, 3), np.float32)
    basis_KV3[0, 3504, 1] = -0.01  # the middle of the lower lip, inside: 1 cm down
    closed_then_open = np.repeat([[0.0], [1.0]], 30, axis=0)
    motion = Motion(weights_TK=closed_then_open, channels=("jawOpen",), fps=30.0, basis_KV3=basis_KV3)
    pictures = outlines(motion)
    assert pictures.shape == (N_PICTURES, 20, 2)
    upper, lower = pictures[:, N_OUTER + 2, 1].astype(int), pictures[:, N_OUTER + 6, 1].astype(int)
    gap_mm = (upper - lower) * STEP_MM
    assert gap_mm[:6].max() < 2.5 and gap_mm[6:].min() > 10
    assert outlines(Motion(weights_TK=closed_then_open, channels=("jawOpen",), fps=30.0)) is None
